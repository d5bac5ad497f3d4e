"""Integer operators of com.microsoft: dequantise, compute, and quantise where the result is integers."""

from collections.abc import Sequence

import numpy as np

from graph_rules.integer import dequantised, integer, quantised, real_constant
from srd_onnx.graph.expand import FUSED, Writer
from srd_onnx.graph.ir import Node, Value


@integer("QLinearAdd", 1, domain=FUSED)
def qlinear_add(write: Writer, node: Node) -> Sequence[str | None]:
    """``quantise(dequantise(A) + dequantise(B))``."""
    return [quantised(write, node, write("Add", *(dequantised(write, node, i) for i in (0, 3))), 6)]


@integer("QLinearMul", 1, domain=FUSED)
def qlinear_mul(write: Writer, node: Node) -> Sequence[str | None]:
    """``quantise(dequantise(A) dequantise(B))``, element by element."""
    return [quantised(write, node, write("Mul", *(dequantised(write, node, i) for i in (0, 3))), 6)]


@integer("QLinearConcat", 1, domain=FUSED)
def qlinear_concat(write: Writer, node: Node) -> Sequence[str | None]:
    """``quantise(Concat(dequantise(X), ...))``."""
    parts = [dequantised(write, node, i) for i in range(2, len(node.inputs), 3)]
    return [quantised(write, node, write("Concat", *parts, axis=node.attrs["axis"]), 0)]


@integer("QLinearSigmoid", 1, domain=FUSED)
def qlinear_sigmoid(write: Writer, node: Node) -> Sequence[str | None]:
    """``quantise(sigmoid(dequantise(X)))``."""
    return [quantised(write, node, write("Sigmoid", dequantised(write, node, 0)), 3)]


@integer("QLinearLeakyRelu", 1, domain=FUSED)
def qlinear_leaky_relu(write: Writer, node: Node) -> Sequence[str | None]:
    """``quantise(LeakyRelu(dequantise(X)))``."""
    alpha = float(node.attrs.get("alpha", 0.01))
    return [quantised(write, node, write("LeakyRelu", dequantised(write, node, 0), alpha=alpha), 3)]


@integer("QLinearGlobalAveragePool", 1, domain=FUSED)
def qlinear_global_average_pool(write: Writer, node: Node) -> Sequence[str | None]:
    """``quantise(GlobalAveragePool(dequantise(X)))``."""
    node.require(not node.attrs.get("channels_last"), "channels last is not covered")
    return [quantised(write, node, write("GlobalAveragePool", dequantised(write, node, 0)), 3)]


def _product(write: Writer, left: str, right: str, bias: Value | None) -> Sequence[str | None]:
    product = write("MatMul", left, right)
    return [product if bias is None else write("Add", product, bias)]


@integer("MatMulIntegerToFloat", 1, domain=FUSED)
def matmul_integer_to_float(write: Writer, node: Node) -> Sequence[str | None]:
    """``dequantise(A) dequantise(B) + bias``."""
    a = write("DequantizeLinear", node.input(0), node.input(2), node.optional(4))
    weights = write.const(real_constant(node, 1, 5, 3, node.input(1).rank - 1), np.float32)
    return _product(write, a, weights, node.optional(6))


@integer("DynamicQuantizeMatMul", 1, domain=FUSED)
def dynamic_quantize_matmul(write: Writer, node: Node) -> Sequence[str | None]:
    """``dequantise(DynamicQuantizeLinear(A)) dequantise(B) + bias``."""
    a = write("DequantizeLinear", *write.many("DynamicQuantizeLinear", node.input(0), outputs=3))
    weights = write.const(real_constant(node, 1, 3, 2, node.input(1).rank - 1), np.float32)
    return _product(write, a, weights, node.optional(4))
