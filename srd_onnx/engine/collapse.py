"""From cotangent form to one scalar per position: inner products over the channels of a tensor."""

import itertools
import math

from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.half import in_account, wide_value
from srd_onnx.errors import UnsupportedCaseError
from srd_onnx.graph.ir import Value
from srd_onnx.graph.roles import Role


def dot(emit: Emitter, value: Value, a: str, b: str) -> str:
    """Inner product over the channel axes of `value`, channel axes kept with size 1."""
    return emit.along(a, value, b)


def collapse(emit: Emitter, value: Value, cotangent: str) -> str:
    """``R_i = <x_i, g_i>``: from cotangent form to one scalar per position; of a half tensor it is float32.

    Raises:
        UnsupportedCaseError: at a tensor of integers.
    """
    if not value.is_float:
        raise UnsupportedCaseError(
            f"the boundary '{value.name}' holds integers ({value.dtype}), which have no direction: "
            "choose a tensor of real numbers as the boundary, e.g. the one behind the Cast"
        )
    own, x = wide_value(emit, value)
    found = None if emit.masked else emit.unrepeated(cotangent)
    if found is not None:
        small, shape = found
        if (product := _with_one_vector(own, x, in_account(emit, small, value), shape)) is not None:
            return product
    return own.over_channels(own.weighed(x.name, in_account(emit, cotangent, value)), x)


def _with_one_vector(emit: Emitter, value: Value, vector: str, shape: tuple[int, ...]) -> str | None:
    """``<x_i, g>`` with one g for all positions, behind a mean over them: a matrix product. None for other layouts."""
    axes = emit.axes(value)
    long = [role for role, size in zip(axes.roles, value.shape, strict=True) if size > 1]
    runs = [role for role, _ in itertools.groupby(long)]
    batch = math.prod(s for s, role in zip(value.shape, axes.roles, strict=True) if role is Role.BATCH)
    width = math.prod(value.shape[axis] for axis in axes.channels)
    if (
        0 in value.shape
        or any(shape[axis] > 1 for axis in axes.positions)
        or math.prod(shape) != batch * width
    ):
        return None
    match runs[1:] if runs[:1] == [Role.BATCH] else runs:
        case [Role.CHANNEL, Role.POSITION]:
            x = emit.reshape(value.name, [batch, width, -1])
            product = emit("MatMul", emit.reshape(vector, [batch, 1, width]), x)
        case [Role.POSITION, Role.CHANNEL]:
            x = emit.reshape(value.name, [batch, -1, width])
            product = emit("MatMul", x, emit.reshape(vector, [batch, width, 1]))
        case _:
            return None
    return emit.reshape(product, axes.position_shape(value))
