"""Half precision: wide tensors stay in the model's own, sums over channels and positions are taken in float32.

float16 ends at 65504 and begins at 6e-8. A squared norm passes the one where activations reach a few hundred; what is
expanded, ``v_j R_j / ‖v_j‖²``, falls below the other where many positions share little relevance. So norms and inner
products are float32, and what is expanded is first divided by its greatest length of each input, which is linear and is
undone where it is collapsed.
"""

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, helper

from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows, Rule
from srd_onnx.graph.ir import Node, Value
from srd_onnx.graph.roles import Role

_TINY = float(np.finfo(np.float32).tiny) * 1e8  # see `mixing.tiny`


def is_half(value: Value) -> bool:
    """Whether a tensor holds real numbers of two bytes."""
    return value.is_float and value.dtype.itemsize == 2


def account_type(value: Value) -> np.dtype[np.generic]:
    """Of sums that belong to a tensor: its own precision, but float32 at the least."""
    return np.dtype(np.float32) if is_half(value) else value.dtype


def single(emit: Emitter, tensor: str) -> str:
    """In float32."""
    return emit("Cast", tensor, to=TensorProto.FLOAT)


def in_account(emit: Emitter, tensor: str, value: Value) -> str:
    """A tensor of the type of `value` as sums take it, see `account_type`."""
    return single(emit, tensor) if is_half(value) else tensor


def halved(emit: Emitter, tensor: str, value: Value) -> str:
    """In the precision of a tensor."""
    return emit("Cast", tensor, to=helper.np_dtype_to_tensor_dtype(value.dtype))


def inner(emit: Emitter, value: Value, a: str, b: str) -> str:
    """The inner product over the channels of two tensors shaped like `value`, in float32."""
    return emit.total(emit("Mul", single(emit, a), single(emit, b)), emit.axes(value).channels)


def mixed_in_half(
    emit: Emitter, node: Node, rule: Rule, carriers: Sequence[int], shares: Flows, biases: Flows
) -> tuple[list[str | None], list[str | None]]:
    """As `mixing.mixed`, of a node whose outputs are in half precision."""
    scales: list[str | None] = []
    lengths: list[str] = []
    undirected: list[str | None] = []
    for value, share, bias in zip(node.outputs, shares, biases, strict=True):
        if value is None or share is None:
            scales.append(None)
            undirected.append(None)
            continue
        norm = inner(emit, value, value.name, value.name)
        floor = emit("Max", norm, emit.const(_TINY, np.float32))
        scale = emit("Div", single(emit, share), floor)
        left = emit("Mul", scale, emit("Sub", floor, norm))
        if bias is not None:
            along = emit("Mul", single(emit, bias), single(emit, value.name))
            left = emit("Add", left, emit("Mul", scale, emit.total(along, emit.axes(value).channels)))
        lengths.append(_greatest(emit, value, emit("Abs", emit("Mul", scale, emit("Sqrt", floor)))))
        scales.append(scale)
        undirected.append(halved(emit, left, value))
    unit = emit("Max", *lengths, emit.const(_TINY, np.float32))
    expanded: list[str | None] = []
    for value, factor in zip(node.outputs, scales, strict=True):
        if value is None or factor is None:
            expanded.append(None)
            continue
        shortened = emit("Div", factor, _beside(emit, value, unit))
        expanded.append(halved(emit, emit("Mul", single(emit, value.name), shortened), value))
    flows: list[str | None] = [None] * len(node.inputs)
    back = rule.vjp(emit, node, expanded)
    for i, (value, flow) in enumerate(zip(node.inputs, back, strict=True)):
        if value is not None and flow is not None and i in carriers:
            given = emit("Mul", inner(emit, value, value.name, flow), _beside(emit, value, unit))
            flows[i] = halved(emit, given, value)
    return flows, undirected


def _greatest(emit: Emitter, value: Value, tensor: str) -> str:
    """The greatest element of each input, [N]; [1] where the tensor has no batch axis."""
    roles = emit.axes(value).roles
    others = [axis for axis, role in enumerate(roles) if role is not Role.BATCH]
    found = emit("ReduceMax", tensor, emit.ints(others), keepdims=0) if others else tensor
    return emit.reshape(found, [-1])


def _beside(emit: Emitter, value: Value, per_item: str) -> str:
    """[N] as it broadcasts to a tensor with the axes of `value`."""
    return emit.reshape(per_item, [-1 if role is Role.BATCH else 1 for role in emit.axes(value).roles])
