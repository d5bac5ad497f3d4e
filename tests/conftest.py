"""What Hypothesis draws is the same in every run, and may take as long as a busy machine needs; nothing is cached."""

import os

from hypothesis import settings

settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")

os.environ["SRD_ONNX_CACHE"] = "off"
