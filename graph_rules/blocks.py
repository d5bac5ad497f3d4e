"""What keeps ONNX Runtime's blocks of channels: convolutions of each channel by itself, and comparisons by them.

Where and Greater, Slice and MaxPool with indices would bring a tensor out of its blocks and back (docs/speed.md).
"""

import numpy as np

from srd_onnx.engine.emit import Emitter
from srd_onnx.graph.ir import Array, Value

# Makes more than 1 of the smallest difference that matters, and rounds nothing.
_STEEP = 2.0**100
_LARGEST = 1e6  # of a bound, so that nothing overflows


def each_channel(
    emit: Emitter,
    tensor: str,
    like: Value,
    kernel: Array,
    *,
    strides: tuple[int, ...] = (1, 1),
    pads: tuple[int, ...] = (0, 0, 0, 0),
    plus: float = 0.0,
) -> str:
    """The same small convolution of every channel, plus a number; `like` says how many channels there are."""
    count = like.shape[1]
    weights = [emit.like(like, np.broadcast_to(kernel, (count, 1, *kernel.shape)))]
    if plus:
        weights.append(emit.like(like, np.full(count, plus)))
    return emit("Conv", tensor, *weights, group=count, strides=list(strides), pads=list(pads))


def scaled_by(emit: Emitter, tensor: str, like: Value, factor: float, plus: float = 0.0) -> str:
    """``factor tensor + plus``."""
    return each_channel(emit, tensor, like, np.full((1, 1), factor, like.dtype), plus=plus)


def comparable(bound: Array | float) -> bool:
    """Whether `above` and `below` can compare with this bound."""
    return np.size(bound) == 1 and float(np.abs(bound).max()) <= _LARGEST


def above(emit: Emitter, tensor: str, like: Value, bound: float = 0.0) -> str:
    """1 where the tensor is greater than the bound, 0 elsewhere."""
    return _step(emit, scaled_by(emit, tensor, like, _STEEP, -_STEEP * bound), like)


def below(emit: Emitter, tensor: str, like: Value, bound: float = 0.0) -> str:
    """1 where the tensor is less than the bound, 0 elsewhere."""
    return _step(emit, scaled_by(emit, tensor, like, -_STEEP, _STEEP * bound), like)


def _step(emit: Emitter, tensor: str, like: Value) -> str:
    return emit("Clip", tensor, emit.like(like, 0.0), emit.like(like, 1.0))
