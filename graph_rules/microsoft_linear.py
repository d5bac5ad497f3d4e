"""FusedConv, FusedMatMul and FusedGemm: products with what ONNX Runtime fused into them."""

from collections.abc import Sequence
from typing import Any

from graph_rules.fused import attribute, fused, given
from srd_onnx.graph.expand import Writer
from srd_onnx.graph.ir import Node, Value

_PARAMETERS = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "Elu": ("alpha",)}


def _activated(write: Writer, node: Node, v: str, params: Sequence[Any]) -> str:
    """The activation that is fused into the node, on its preactivation."""
    kind, y = attribute(node, "activation"), node.output()
    if kind in ("", "Relu", "Tanh", "Sigmoid", "Softplus", "Softsign"):
        return write(kind, v) if kind else v
    if kind == "Clip":
        node.require(len(params) == 2, f"the activation Clip takes two parameters, got {list(params)}")
        low, high = (write.like(y, p) for p in params)
        return write("Clip", v, low, high)
    names = _PARAMETERS.get(kind)
    node.require(names is not None, f"the activation {kind} is not covered")
    assert names is not None
    return write(kind, v, **{name: float(p) for name, p in zip(names, params, strict=False)})


@fused("FusedConv")
def fused_conv(write: Writer, node: Node) -> list[str | None]:
    """``activation(Conv(X, W, B) + Z)``."""
    attrs = given(node, "auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    v = write("Conv", node.input(0), node.input(1), node.optional(2), **attrs)
    if (residual := node.optional(3)) is not None:
        v = write("Add", v, residual)
    return [_activated(write, node, v, attribute(node, "activation_params"))]


@fused("FusedGemm")
def fused_gemm(write: Writer, node: Node) -> list[str | None]:
    """``activation(alpha A' B' + beta C)``."""
    attrs = given(node, "alpha", "beta", "transA", "transB")
    v = write("Gemm", node.input(0), node.input(1), node.optional(2), **attrs)
    named = (attribute(node, f"activation_{name}") for name in ("alpha", "beta"))
    return [_activated(write, node, v, [p for p in named if p is not None])]


def _operand(write: Writer, node: Node, value: Value, side: str) -> str:
    """First the batch axes to the front, then the last two exchanged; a vector is as it is."""
    order = list(range(value.rank))
    if attribute(node, f"transBatch{side}") and value.rank > 2:
        order = [*order[1:-1], order[0], order[-1]]
    if attribute(node, f"trans{side}") and value.rank > 1:
        order = [*order[:-2], order[-1], order[-2]]
    return write("Transpose", value, perm=order) if order != list(range(value.rank)) else value.name


@fused("FusedMatMul")
def fused_matmul(write: Writer, node: Node) -> list[str | None]:
    """``alpha A' B'``, each operand with its axes in the order that the attributes ask for."""
    a, b = (_operand(write, node, node.input(i), side) for i, side in enumerate("AB"))
    y = write("MatMul", a, b)
    alpha = attribute(node, "alpha")
    return [write("Mul", y, write.like(node.output(), alpha)) if alpha != 1 else y]
