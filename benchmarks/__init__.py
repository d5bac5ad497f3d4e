"""Scripts that print the tables in the README; run them with `python -m benchmarks.NAME`.

Nothing of what they time comes from the disk.
"""

import os

os.environ.setdefault("SRD_ONNX_CACHE", "off")
