"""Gelu in all its fused forms."""

import math

from graph_rules.fused import attribute, fused
from srd_onnx.graph.expand import Writer
from srd_onnx.graph.ir import Node, Value


def _gelu(write: Writer, v: str, like: Value) -> str:
    """``v (1 + erf(v / sqrt 2)) / 2``."""
    odd = write("Erf", write("Mul", v, write.like(like, math.sqrt(0.5))))
    twice = write("Mul", v, write("Add", odd, write.like(like, 1.0)))
    return write("Mul", twice, write.like(like, 0.5))


@fused("Gelu")
def gelu(write: Writer, node: Node) -> list[str | None]:
    """``v Phi(v)``."""
    x = node.input(0)
    return [_gelu(write, x.name, x)]


@fused("BiasGelu")
def bias_gelu(write: Writer, node: Node) -> list[str | None]:
    """``v Phi(v)`` with ``v = A + B``."""
    x = node.input(0)
    return [_gelu(write, write("Add", x, node.input(1)), x)]


@fused("FastGelu")
def fast_gelu(write: Writer, node: Node) -> list[str | None]:
    """``v (1 + tanh(sqrt(2/pi) (v + 0.044715 v³))) / 2`` with ``v = X + bias``."""
    x, bias = node.input(0), node.optional(1)
    v = write("Add", x, bias) if bias is not None else x.name
    root = math.sqrt(2 / math.pi)
    steep = write("Mul", write("Mul", v, v), write.like(x, 0.044715 * root))
    odd = write("Tanh", write("Mul", v, write("Add", steep, write.like(x, root))))
    gate = write("Mul", write("Add", odd, write.like(x, 1.0)), write.like(x, 0.5))
    return [write("Mul", v, gate)]


@fused("QuickGelu")
def quick_gelu(write: Writer, node: Node) -> list[str | None]:
    """``v sigmoid(alpha v)``."""
    x, alpha = node.input(0), attribute(node, "alpha")
    scaled = write("Mul", x, write.like(x, alpha)) if alpha != 1 else x.name
    return [write("Mul", x, write("Sigmoid", scaled))]
