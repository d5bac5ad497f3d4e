"""Division by a norm: LpNormalization and local response normalisation. The norm is the pattern, held fixed."""

import math

from graph_rules.registry import activation, always, cotangent, rule, through, to_first
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Node


@rule("LpNormalization", versions=(1, 22), roles=activation, routes=always, spread=through, nonlinear=True)
def lp_normalization(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g / |x|_p``; ``tangent`` takes off ``sign(x) Σ g y`` (p = 1) or ``y Σ g y`` (p = 2). A norm of 0 gives 0."""
    x, y, g = node.input(0), node.output(), cotangent(cotangents, node)
    axes = emit.ints([int(node.attrs["axis"]) % x.rank])
    first = node.attrs["p"] == 1
    norm = emit("ReduceL1" if first else "ReduceL2", x.name, axes, keepdims=1)
    silent = emit("Equal", norm, emit.like(x, 0.0))
    one, zero = emit.like(x, 1.0), emit.like(x, 0.0)
    inverse = emit("Where", silent, zero, emit("Reciprocal", emit("Where", silent, one, norm)))
    if emit.tangent:
        along = emit("ReduceSum", emit("Mul", g, y.name), axes, keepdims=1)
        g = emit("Sub", g, emit("Mul", emit("Sign", x.name) if first else y.name, along))
    return to_first(node, emit("Mul", g, inverse))


def _neighbours(emit: Emitter, node: Node, tensor: str, *, transposed: bool) -> str:
    """The mean over a window of `size` channels, absent ones being zero; or the transpose of that map."""
    shape, size = node.input(0).shape, int(node.attrs["size"])
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    if transposed:
        before, after = after, before
    rows = emit.reshape(tensor, [shape[0], 1, shape[1], math.prod(shape[2:])])
    mean = emit("AveragePool", rows, kernel_shape=[size, 1], pads=[before, 0, after, 0], count_include_pad=1)
    return emit.reshape(mean, shape)


@rule("LRN", versions=(13,), roles=activation, routes=always, spread=through, nonlinear=True)
def local_response(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g D^-β``, ``D = bias + α mean(x²)`` over channels nearby; ``tangent`` takes off ``2αβ x mean(g y / D)``."""
    x, y, g, attrs = node.input(0), node.output(), cotangent(cotangents, node), node.attrs
    squares = _neighbours(emit, node, emit("Mul", x.name, x.name), transposed=False)
    divisor = emit("Add", emit("Mul", squares, emit.like(x, attrs["alpha"])), emit.like(x, attrs["bias"]))
    flow = emit("Mul", g, emit("Pow", divisor, emit.like(x, -attrs["beta"])))
    if emit.tangent:
        around = _neighbours(emit, node, emit("Div", emit("Mul", g, y.name), divisor), transposed=True)
        factor = emit.like(x, 2.0 * attrs["alpha"] * attrs["beta"])
        flow = emit("Sub", flow, emit("Mul", emit("Mul", x.name, factor), around))
    return to_first(node, flow)
