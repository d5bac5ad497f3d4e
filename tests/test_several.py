"""Many targets by ratios, and maps by the forward pass: the same as pass by pass."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from srd_onnx import Explainer, Explanation, runs
from srd_onnx.inputs import Array
from srd_onnx.targets import At, Contrast
from srd_onnx.zoo import sample_photo, zoo
from tests.attention_nets import block, multihead, windows
from tests.nets import small_cnn
from tests.small_nets import (
    channels_last,
    concatenation,
    fan_out,
    padding_only,
    residual,
    squeeze_and_excite,
    tokens,
)

NETS = {
    "residual": residual,
    "concatenation": concatenation,
    "fan_out": fan_out,
    "squeeze_and_excite": squeeze_and_excite,
    "channels_last": channels_last,
    "tokens": tokens,
    "padding_only": padding_only,
}
