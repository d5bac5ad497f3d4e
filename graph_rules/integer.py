"""Integer arithmetic, written out: relevance flows as in the dequantised network.

A quantised tensor's scale is known to whoever made it. QLinear operators become dequantise, compute, quantise. What
ConvInteger and MatMulInteger add up is in units of the product of both scales; written out it is a real number, the
product of the dequantised operands divided by the activation's scale, which the model multiplies in again afterwards.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graph_rules.fused import EXPANSIONS
from graph_rules.registry import always, cotangent, rule, to_first
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.expand import Expansion, Writer
from srd_onnx.graph.ir import Array, Node, OpKey, Value
from srd_onnx.graph.roles import Axes, Gate, Roles, is_quantised

# Operators that give the integers they get, elsewhere.
_MOVING = ("Flatten", "Identity", "MaxPool", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")


# Where an operator of scales in and scales out has the scale of its result, its zero point behind it.
_SCALED = {
    "QLinearAdd": 6,
    "QLinearConcat": 0,
    "QLinearConv": 6,
    "QLinearGlobalAveragePool": 3,
    "QLinearLeakyRelu": 3,
    "QLinearMatMul": 6,
    "QLinearMul": 6,
    "QLinearSigmoid": 3,
    "QuantizeLinear": 1,
}


def integer(op_type: str, *versions: int, domain: str = "") -> Callable[[Expansion], Expansion]:
    """Register how these versions of an operator are written out."""

    def register(expansion: Expansion) -> Expansion:
        for since in versions:
            EXPANSIONS[OpKey(domain, op_type, since)] = expansion
        return expansion

    return register


# DynamicQuantizeLinear stays: its scale is a statistic of its input


def _dynamic_roles(node: Node, roles: Roles) -> tuple[Axes, ...]:
    """Scale and zero point are one number each: factors that are held fixed."""
    return (Axes(roles[node.input(0).name].roles), Axes((), Gate.SATURATING), Axes((), Gate.SATURATING))


def _fixed(emit: Emitter, node: Node) -> Flows:
    """What rounding changes; and the whole scale, which is a statistic."""
    made = [v.name for v in node.outputs if v is not None]
    node.require(len(made) == 3, "its scale and its zero point must have names")
    return [emit("Sub", emit("DequantizeLinear", *made), node.input(0).name), made[1], None]


def _to_words(_emit: Emitter, node: Node, shares: Flows) -> Flows:
    return to_first(node, cotangent(shares, node))


def _straight_through(_node: Node) -> str:
    return "rounding is taken as the identity, and what it changes is booked as its bias"


def _of_scale(emit: Emitter, node: Node, flow: str) -> str:
    """``flow / 255`` to the greatest element if it is above zero, its negative to the least if below."""
    x = node.input(0)
    zero, one = emit.like(x, 0.0), emit.like(x, 1.0)
    share = emit("Div", flow, emit.like(x, 255.0))
    ends = []
    for extreme, beyond in (("ReduceMax", "Greater"), ("ReduceMin", "Less")):
        end = emit(extreme, x.name, keepdims=0)
        hit = emit("And", emit("Equal", x.name, end), emit(beyond, x.name, zero))
        won = emit("Where", hit, one, zero)
        count = emit("Max", emit("ReduceSum", won, keepdims=0), one)
        ends.append(emit("Mul", won, emit("Div", share, count)))
    return emit("Sub", *ends)


@rule(
    "DynamicQuantizeLinear",
    versions=(11,),
    roles=_dynamic_roles,
    routes=always,
    spread=_to_words,
    bias=_fixed,
    approximate=_straight_through,
)
def dynamic_quantize_linear(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g``: the straight-through estimate, in the units of the dequantised tensor; scale and zero point fixed.

    ``tangent``: the scale, ``(max(0, max x) - min(0, min x)) / 255``, has a derivative too.
    """
    words, scale, zero = (*cotangents, None, None)[:3]
    node.require(zero is None, "its zero point carries no relevance")
    flows = [words, _of_scale(emit, node, scale) if scale is not None and emit.tangent else None]
    found = [flow for flow in flows if flow is not None]
    return to_first(node, emit.sum(found) if found else None)


# The operands


def _per_axis(data: Array, rank: int, axis: int) -> Array:
    """A scale or zero point as it broadcasts against a tensor of that rank."""
    return data.reshape([-1 if a == axis else 1 for a in range(rank)]) if data.size > 1 else data.reshape(())


def real_constant(node: Node, index: int, zero: int, scale: int | None, axis: int) -> Array:
    """A constant operand of integers as real numbers; with no scale, the integers less their zero point.

    `zero` and `scale` are the indices of those operands, `axis` is the axis along which they may vary.
    """
    words = node.constant(index)
    assert words is not None
    real = words.astype(np.float32)
    point = node.constant(zero)
    if point is not None:
        real = real - _per_axis(point.astype(np.float32), words.ndim, axis)
    factor = node.constant(scale) if scale is not None else None
    return real if factor is None else real * _per_axis(factor.astype(np.float32), words.ndim, axis)


def _made_with(write: Writer, node: Node, value: Value) -> tuple[Value | str, Value | None]:
    """Scale and zero point of a quantised tensor, from what made it; 1 for integers that nobody quantised."""
    maker = write.producers.get(value.name)
    while maker is not None and maker.key.op_type in _MOVING:
        maker = write.producers.get(maker.input(0).name)
    if maker is None:
        return write.const(1, np.float32), None
    kind = maker.key.op_type
    if kind == "DynamicQuantizeLinear":
        scale, zero = maker.outputs[1:3]
    else:
        at = _SCALED.get(kind)
        node.require(
            at is not None,
            f"the scale of '{value.name}', which {kind} computes, is not known; give a boundary behind it",
        )
        assert at is not None
        scale, zero = maker.input(at), maker.optional(at + 1)
    assert scale is not None
    node.require(scale.shape in ((), (1,)), f"'{value.name}' has a scale for each channel")
    return scale, zero


def dequantised(write: Writer, node: Node, index: int, *, axis: int = 1) -> str:
    """An activation with its own scale and zero point, the two operands behind it."""
    value = node.input(index)
    operands = [value, node.input(index + 1), node.optional(index + 2)]
    return write("DequantizeLinear", *operands, axis=axis % max(value.rank, 1))


def quantised(write: Writer, node: Node, real: str, index: int) -> str:
    """The result with the scale and zero point at `index`."""
    zero = node.optional(index + 1) or write.const(0, node.output().dtype)
    return write("QuantizeLinear", real, node.input(index), zero)


def _attrs(node: Node) -> dict[str, Any]:
    names = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    return {name: node.attrs[name] for name in names if name in node.attrs}


# QLinear operators: scales in, scales out


@integer("QLinearConv", 10)
def qlinear_conv(write: Writer, node: Node) -> Sequence[str | None]:
    """``quantise(Conv(dequantise(x), dequantise(w), s_x s_w B))``."""
    weights = real_constant(node, 3, 5, 4, 0)
    operands = [dequantised(write, node, 0), write.const(weights, np.float32)]
    bias, x_scale, w_scale = (node.constant(i) for i in (8, 1, 4))
    if bias is not None:
        assert x_scale is not None
        assert w_scale is not None
        operands.append(write.const(bias * x_scale.reshape(()) * w_scale.reshape(-1), np.float32))
    return [quantised(write, node, write("Conv", *operands, **_attrs(node)), 6)]


@integer("QLinearMatMul", 10, 21)
def qlinear_matmul(write: Writer, node: Node) -> Sequence[str | None]:
    """``quantise(dequantise(a) dequantise(b))``."""
    sides = []
    for index in (0, 3):
        value = node.input(index)
        if value.constant is None:
            node.require(
                node.input(index + 1).shape in ((), (1,)),
                "a computed operand with a scale for each row or column",
            )
            sides.append(dequantised(write, node, index))
        else:
            axis = value.rank - 2 if index == 0 else value.rank - 1
            sides.append(write.const(real_constant(node, index, index + 2, index + 1, axis), np.float32))
    return [quantised(write, node, write("MatMul", *sides), 6)]


# ConvInteger and MatMulInteger: the result is a real number where it was an int32


def _centred(write: Writer, node: Node, index: int, zero: int) -> tuple[str, Value | str]:
    """A computed operand, dequantised, and its scale."""
    value, point = node.input(index), node.optional(zero)
    node.require(
        point is None or point.shape in ((), (1,)), "a zero point for each row of a computed operand"
    )
    scale, _ = _made_with(write, node, value)
    return write("DequantizeLinear", value, scale, point), scale


@integer("ConvInteger", 10)
def conv_integer(write: Writer, node: Node) -> Sequence[str | None]:
    """``Conv(dequantise(x), w - z_w) / s_x``."""
    x, scale = _centred(write, node, 0, 2)
    weights = write.const(real_constant(node, 1, 3, None, 0), np.float32)
    return [write("Div", write("Conv", x, weights, **_attrs(node)), scale)]


@integer("MatMulInteger", 10)
def matmul_integer(write: Writer, node: Node) -> Sequence[str | None]:
    """``dequantise(A) (B - z_B) / s_A``; of two computed operands ``dequantise(A) dequantise(B) / (s_A s_B)``."""
    sides: list[str] = []
    scales: list[Value | str] = []
    for index in (0, 1):
        value = node.input(index)
        if value.constant is None:
            real, scale = _centred(write, node, index, index + 2)
            sides.append(real)
            scales.append(scale)
        else:
            axis = value.rank - 2 if index == 0 else value.rank - 1
            sides.append(write.const(real_constant(node, index, index + 2, None, axis), np.float32))
    product = write("MatMul", *sides)
    for scale in scales:
        product = write("Div", product, scale)
    return [product]


@integer("MaxPool", 12, 22)
def quantised_max_pool(write: Writer, node: Node) -> Sequence[str | None] | None:
    """A maximum of integers is that of the reals they stand for; one of reals stays as it is."""
    x, count = node.input(0), len(node.outputs)
    if not is_quantised(x):
        return None
    scale, zero = _made_with(write, node, x)
    real = write("DequantizeLinear", x, scale, zero)
    made = write.many("MaxPool", real, outputs=count, **node.attrs)
    return [write("QuantizeLinear", made[0], scale, zero or write.const(0, x.dtype)), *made[1:]]
