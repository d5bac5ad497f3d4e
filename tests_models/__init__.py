"""Real models, explained end to end: see `make test-models`."""

import os

os.environ.setdefault("SRD_ONNX_CACHE", "off")
