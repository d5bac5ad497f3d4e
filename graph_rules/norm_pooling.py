"""LpPool and GlobalLpPool: ``y = (Σ |x|^p)^(1/p)``, homogeneous of degree one.

So ``y = Σ x ∂y/∂x`` (Euler), and the map with its slopes held fixed, which is the activation pattern, has no bias.
"""

import math

import numpy as np

from graph_rules.pooling import everywhere, pool_roles, pool_window
from graph_rules.registry import cotangent, never, rule, to_first
from graph_rules.windows import loses_padding, transposed, window_spread
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Node, Value


def _power(emit: Emitter, value: Value, exponent: int) -> str | None:
    """``|v|^exponent``; None for a power of 0, which is 1."""
    if exponent == 0:
        return None
    size = emit("Abs", value.name)
    return size if exponent == 1 else emit("Pow", size, emit.like(value, float(exponent)))


def _over_norm(emit: Emitter, node: Node, flow: str) -> str:
    """``g / y^(p-1)``, nothing where y is 0."""
    y, exponent = node.output(), node.attrs["p"] - 1
    power = _power(emit, y, exponent)
    if power is None:
        return flow
    silent = emit("Equal", power, emit.like(y, 0.0))
    safe = emit("Where", silent, emit.like(y, 1.0), power)
    return emit("Where", silent, emit.like(y, 0.0), emit("Div", flow, safe))


def _towards(emit: Emitter, node: Node, flow: str) -> Flows:
    """``sign(x) |x|^(p-1)`` times what arrives at each element."""
    x = node.input(0)
    power = _power(emit, x, node.attrs["p"] - 1)
    directed = emit("Mul", flow, emit("Sign", x.name))
    return to_first(node, directed if power is None else emit("Mul", directed, power))


def _spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    return to_first(node, window_spread(emit, node, shares, pool_window(node)))


def _lossy(node: Node) -> bool:
    return loses_padding(pool_window(node))


@rule(
    "LpPool",
    versions=(18, 22),
    roles=pool_roles,
    routes=never,
    spread=_spread,
    lossy=_lossy,
    nonlinear=True,
)
def lp_pool(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``sign(x) |x|^(p-1) Σ g / y^(p-1)`` over the windows that see x."""
    x, window = node.input(0), pool_window(node)
    share = _over_norm(emit, node, cotangent(cotangents, node))
    ones = np.ones((x.shape[1], 1, *window.kernel), x.dtype)
    return _towards(emit, node, transposed(emit, share, ones, x.shape[1], window))


@rule("GlobalLpPool", versions=(2,), roles=pool_roles, routes=never, spread=everywhere, nonlinear=True)
def global_lp_pool(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``sign(x) |x|^(p-1) g / y^(p-1)``."""
    node.require(math.prod(node.input(0).shape[2:]) > 0, "it pools no positions")
    return _towards(emit, node, _over_norm(emit, node, cotangent(cotangents, node)))
