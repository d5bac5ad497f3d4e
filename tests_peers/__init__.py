"""Other people's libraries, on the same weights: `make test-peers`, in an environment of its own."""

import os

os.environ.setdefault("SRD_ONNX_CACHE", "off")
