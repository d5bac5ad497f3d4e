"""Many targets by ratios: the same maps as pass by pass."""

from typing import Any

import numpy as np
import pytest

from srd_onnx import Explainer
from srd_onnx import runs
from srd_onnx.explanation import Explanation
from srd_onnx.targets import At, Contrast
from tests.attention_nets import *  # noqa: F403
