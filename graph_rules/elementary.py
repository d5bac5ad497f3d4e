"""Elementary functions of every element: signs and steps, exponentials, circular and hyperbolic functions.

As activations they have two linearisations: the derivative (`tangent`) and the secant through 0 (`pattern`).
"""

import math

from graph_rules.frozen import constantly, elementwise, ratio, scaled, secant, unless_masked
from graph_rules.registry import (
    activation,
    always,
    bounded,
    cotangent,
    nothing,
    rule,
    same,
    through,
    to_first,
)
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Node


def _over_v(emit: Emitter, node: Node, at_zero: float) -> str:
    return ratio(emit, node.input(0), node.output().name, at_zero)


def _one_plus_square(emit: Emitter, name: str, one: str) -> str:
    return emit("Add", one, emit("Mul", name, name))


def _one_minus_square(emit: Emitter, name: str, one: str) -> str:
    return emit("Sub", one, emit("Mul", name, name))


def _one(emit: Emitter, node: Node) -> str:
    return emit.like(node.output(), 1.0)


# Signs and steps


@rule("Neg", versions=(13,), roles=same, routes=always, spread=through)
def neg(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``-g``."""
    return to_first(node, emit("Neg", cotangent(cotangents, node)))


@elementwise("Abs", versions=(13,), roles=same)
def absolute(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g sign(v)``, 0 where v is."""
    return scaled(emit, node, cotangents, emit("Sign", node.input(0).name))


@elementwise("Sign", versions=(13,), roles=activation, carriers=nothing)
def sign(emit: Emitter, node: Node, _cotangents: Flows) -> Flows:
    """Nothing, ``0``: the signs are the pattern itself, so that the result counts as a constant."""
    node.require(emit.tangent, "a sign is constant under a fixed pattern")
    return to_first(node, None)


def _rounding(emit: Emitter, node: Node) -> str:
    return emit("Sub", node.output().name, node.input(0).name)


def _staircase(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    return to_first(node, None if emit.tangent else cotangent(cotangents, node))


@elementwise("Round", versions=(11, 22), roles=same, bias=_rounding)
def round_(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """Frozen: ``g``, what rounding changes is a bias, as in QuantizeLinear (ours). ``tangent``: nothing."""
    return _staircase(emit, node, cotangents)


@elementwise("Floor", versions=(13,), roles=same, bias=_rounding)
def floor(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """Frozen: ``g``, what rounding changes is a bias, as in QuantizeLinear (ours). ``tangent``: nothing."""
    return _staircase(emit, node, cotangents)


@elementwise("Ceil", versions=(13,), roles=same, bias=_rounding)
def ceil(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """Frozen: ``g``, what rounding changes is a bias, as in QuantizeLinear (ours). ``tangent``: nothing."""
    return _staircase(emit, node, cotangents)


# Exponentials


@elementwise("Exp", versions=(13,), roles=activation, bias=unless_masked(1.0))
def exp(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g y``; frozen: ``g (y - 1) / v``."""
    if emit.tangent:
        return scaled(emit, node, cotangents, node.output().name)
    series = [1 / math.factorial(k) for k in range(1, 9)]
    return scaled(emit, node, cotangents, secant(emit, node, 1.0, series))


@elementwise("Log", versions=(13,), roles=activation)
def log(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g / v``; frozen: ``g y / v`` without a bias, since it is not finite at 0 (ours)."""
    if emit.tangent:
        v = node.input(0)
        return to_first(node, emit("Div", cotangent(cotangents, node), v.name))
    return scaled(emit, node, cotangents, _over_v(emit, node, 0.0))


@elementwise("Erf", versions=(13,), roles=bounded)
def erf(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g 2 exp(-v²) / sqrt(pi)``; frozen: ``g y / v``."""
    v = node.input(0)
    if emit.tangent:
        bell = emit("Exp", emit("Neg", emit("Mul", v.name, v.name)))
        slope = emit("Mul", bell, emit.like(v, 2 / math.sqrt(math.pi)))
    else:
        slope = _over_v(emit, node, 2 / math.sqrt(math.pi))
    return scaled(emit, node, cotangents, slope)


# Circular functions


@elementwise("Sin", versions=(7, 22), roles=bounded)
def sin(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g cos(v)``; frozen: ``g y / v``."""
    slope = emit("Cos", node.input(0).name) if emit.tangent else _over_v(emit, node, 1.0)
    return scaled(emit, node, cotangents, slope)


@elementwise("Cos", versions=(7, 22), roles=bounded, bias=constantly(1.0))
def cos(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``-g sin(v)``; frozen: ``g (y - 1) / v``."""
    if emit.tangent:
        slope = emit("Neg", emit("Sin", node.input(0).name))
    else:
        slope = secant(emit, node, 1.0, (0, -1 / 2, 0, 1 / 24, 0, -1 / 720, 0, 1 / 40320))
    return scaled(emit, node, cotangents, slope)


@elementwise("Tan", versions=(7, 22), roles=activation)
def tan(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g (1 + y²)``; frozen: ``g y / v``."""
    y = node.output()
    slope = _one_plus_square(emit, y.name, _one(emit, node)) if emit.tangent else _over_v(emit, node, 1.0)
    return scaled(emit, node, cotangents, slope)


@elementwise("Asin", versions=(7, 22), roles=activation)
def asin(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g / sqrt(1 - v²)``; frozen: ``g y / v``."""
    if emit.tangent:
        root = emit("Sqrt", _one_minus_square(emit, node.input(0).name, _one(emit, node)))
        return to_first(node, emit("Div", cotangent(cotangents, node), root))
    return scaled(emit, node, cotangents, _over_v(emit, node, 1.0))


@elementwise("Acos", versions=(7, 22), roles=activation, bias=constantly(math.pi / 2))
def acos(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``-g / sqrt(1 - v²)``; frozen: ``g (y - pi / 2) / v``."""
    if emit.tangent:
        root = emit("Sqrt", _one_minus_square(emit, node.input(0).name, _one(emit, node)))
        return to_first(node, emit("Div", emit("Neg", cotangent(cotangents, node)), root))
    series = (-1, 0, -1 / 6, 0, -3 / 40, 0, -15 / 336, 0, -105 / 3456)
    return scaled(emit, node, cotangents, secant(emit, node, math.pi / 2, series))


@elementwise("Atan", versions=(7, 22), roles=bounded)
def atan(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g / (1 + v²)``; frozen: ``g y / v``."""
    if emit.tangent:
        below = _one_plus_square(emit, node.input(0).name, _one(emit, node))
        return to_first(node, emit("Div", cotangent(cotangents, node), below))
    return scaled(emit, node, cotangents, _over_v(emit, node, 1.0))


# Hyperbolic functions


@elementwise("Sinh", versions=(9, 22), roles=activation)
def sinh(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g cosh(v)``; frozen: ``g y / v``."""
    if emit.tangent:
        slope = emit("Cosh", node.input(0).name)
    else:
        slope = secant(emit, node, 0.0, (1, 0, 1 / 6, 0, 1 / 120, 0, 1 / 5040))
    return scaled(emit, node, cotangents, slope)


@elementwise("Cosh", versions=(9, 22), roles=activation, bias=constantly(1.0))
def cosh(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g sinh(v)``; frozen: ``g (y - 1) / v``."""
    if emit.tangent:
        slope = emit("Sinh", node.input(0).name)
    else:
        slope = secant(emit, node, 1.0, (0, 1 / 2, 0, 1 / 24, 0, 1 / 720, 0, 1 / 40320))
    return scaled(emit, node, cotangents, slope)


@elementwise("Asinh", versions=(9, 22), roles=activation)
def asinh(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g / sqrt(1 + v²)``; frozen: ``g y / v``."""
    if emit.tangent:
        root = emit("Sqrt", _one_plus_square(emit, node.input(0).name, _one(emit, node)))
        return to_first(node, emit("Div", cotangent(cotangents, node), root))
    return scaled(emit, node, cotangents, _over_v(emit, node, 1.0))


@elementwise("Acosh", versions=(9, 22), roles=activation)
def acosh(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g / sqrt(v² - 1)``; frozen: ``g y / v`` without a bias, since it is not defined at 0 (ours)."""
    if emit.tangent:
        v = node.input(0)
        root = emit("Sqrt", emit("Sub", emit("Mul", v.name, v.name), _one(emit, node)))
        return to_first(node, emit("Div", cotangent(cotangents, node), root))
    return scaled(emit, node, cotangents, _over_v(emit, node, 0.0))


@elementwise("Atanh", versions=(9, 22), roles=activation)
def atanh(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g / (1 - v²)``; frozen: ``g y / v``."""
    if emit.tangent:
        below = _one_minus_square(emit, node.input(0).name, _one(emit, node))
        return to_first(node, emit("Div", cotangent(cotangents, node), below))
    return scaled(emit, node, cotangents, _over_v(emit, node, 1.0))
