"""Activations: one real function at every element. Each acts on a position alone, so SRD passes R unchanged.

Piecewise-linear ones have one linearisation: the piece. Smooth ones have two: the derivative (`tangent`), and the
secant `(f(v) - f(0)) / v`, which is the activation pattern held fixed (`pattern`, DESIGN.md section 2); `f(0)` is
then a bias.
"""

import math
from collections.abc import Sequence

import numpy as np

from graph_rules.registry import activation, always, bounded, cotangent, gate, rule, through, to_first
from srd_onnx.emit import Emitter
from srd_onnx.ir import Node
from srd_onnx.roles import Axes, Gate, Roles
from srd_onnx.rule import Flows


def _scaled(emit: Emitter, node: Node, cotangents: Flows, slope: str) -> Flows:
    return to_first(node, emit("Mul", cotangent(cotangents, node), slope))


def _secant(emit: Emitter, node: Node, at_zero: float, series: Sequence[float], radius: float = 0.05) -> str:
    """`(f(v) - f(0)) / v`, and within `radius` of 0, where that cancels, its Taylor series (lowest power first)."""
    v, y = node.input(0), node.output()
    near = emit("Less", emit("Abs", v.name), emit.like(v, radius))
    safe = emit("Where", near, emit.like(v, 1.0), v.name)
    far_slope = emit("Div", emit("Sub", y.name, emit.like(v, at_zero)), safe)
    small = emit("Where", near, v.name, emit.like(v, 0.0))
    slope = emit.like(v, series[-1])
    for coefficient in reversed(series[:-1]):
        slope = emit("Add", emit("Mul", slope, small), emit.like(v, coefficient))
    return emit("Where", near, slope, far_slope)


@rule("Relu", versions=(14,), roles=activation, routes=always, spread=through, nonlinear=True)
def relu(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g * (y > 0)``: read off the output, so that the preactivation need not be kept. Zero is inactive."""
    y = node.output()
    zero = emit.like(y, 0.0)
    return to_first(node, emit("Where", emit("Greater", y.name, zero), cotangent(cotangents, node), zero))


@rule("LeakyRelu", versions=(16,), roles=activation, routes=always, spread=through, nonlinear=True)
def leaky_relu(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` where v >= 0, ``alpha g`` elsewhere."""
    v = node.input(0)
    slope = emit(
        "Where",
        emit("Less", v.name, emit.like(v, 0.0)),
        emit.like(v, node.attrs["alpha"]),
        emit.like(v, 1.0),
    )
    return _scaled(emit, node, cotangents, slope)


@rule("PRelu", versions=(16,), roles=activation, routes=always, spread=through, nonlinear=True)
def prelu(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` where v >= 0, ``slope g`` elsewhere; the slope is a constant that broadcasts to v."""
    v = node.input(0)
    node.constant(1)
    slope = emit("Where", emit("Less", v.name, emit.like(v, 0.0)), node.input(1).name, emit.like(v, 1.0))
    return _scaled(emit, node, cotangents, slope)


def _clip_gate(node: Node, roles: Roles) -> tuple[Axes]:
    """A Clip between two finite bounds is how exporters write a hard-sigmoid: a gate (ours)."""
    finite = all(
        v is not None and v.constant is not None and np.isfinite(v.constant).all()
        for v in (node.optional(1), node.optional(2))
    )
    return (Axes(roles[node.input(0).name].roles, Gate.BOUNDED if finite else Gate.NONE),)


def _inside(emit: Emitter, node: Node) -> str | None:
    v = node.input(0)
    tests = []
    for index, comparison in ((1, "Greater"), (2, "Less")):
        if (bound := node.optional(index)) is not None:
            node.constant(index)
            tests.append(emit(comparison, v.name, bound.name))
    if len(tests) == 2:
        return emit("And", *tests)
    return tests[0] if tests else None


def _clip_bias(emit: Emitter, node: Node) -> str | None:
    inside = _inside(emit, node)
    y = node.output()
    return emit("Where", inside, emit.like(y, 0.0), y.name) if inside else None


@rule(
    "Clip", versions=(13,), roles=_clip_gate, routes=always, spread=through, bias=_clip_bias, nonlinear=True
)
def clip(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g * (min < v < max)``; a bound that is reached is a constant, that is a bias."""
    inside, g = _inside(emit, node), cotangent(cotangents, node)
    return to_first(node, emit("Where", inside, g, emit.like(node.input(0), 0.0)) if inside else g)


def _half(emit: Emitter, node: Node) -> str:
    return emit.like(node.output(), 0.5)


@rule(
    "Sigmoid",
    versions=(13,),
    roles=gate,
    routes=always,
    spread=through,
    bias=_half,
    head="link",
    nonlinear=True,
)
def sigmoid(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g y (1 - y)``; frozen: ``g (y - 1/2) / v``."""
    y = node.output()
    if emit.tangent:
        slope = emit("Mul", y.name, emit("Sub", emit.like(y, 1.0), y.name))
    else:
        slope = _secant(emit, node, 0.5, (1 / 4, 0, -1 / 48, 0, 1 / 480, 0, -17 / 80640))
    return _scaled(emit, node, cotangents, slope)


@rule("Tanh", versions=(13,), roles=bounded, routes=always, spread=through, nonlinear=True)
def tanh(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g (1 - y²)``; frozen: ``g y / v``."""
    y = node.output()
    if emit.tangent:
        slope = emit("Sub", emit.like(y, 1.0), emit("Mul", y.name, y.name))
    else:
        slope = _secant(emit, node, 0.0, (1, 0, -1 / 3, 0, 2 / 15, 0, -17 / 315))
    return _scaled(emit, node, cotangents, slope)


@rule("Elu", versions=(6, 22), roles=activation, routes=always, spread=through, nonlinear=True)
def elu(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` where v >= 0; elsewhere ``g (y + alpha)``, frozen: ``g y / v``."""
    v, y, alpha = node.input(0), node.output(), node.attrs["alpha"]
    if emit.tangent:
        slope = emit("Add", y.name, emit.like(v, alpha))
    else:
        slope = _secant(emit, node, 0.0, [alpha / math.factorial(k) for k in range(1, 8)])
    negative = emit("Less", v.name, emit.like(v, 0.0))
    return _scaled(emit, node, cotangents, emit("Where", negative, slope, emit.like(v, 1.0)))


def _softplus_bias(emit: Emitter, node: Node) -> str:
    return emit.like(node.output(), math.log(2))


@rule(
    "Softplus",
    versions=(1, 22),
    roles=activation,
    routes=always,
    spread=through,
    bias=_softplus_bias,
    nonlinear=True,
)
def softplus(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g sigmoid(v)``; frozen: ``g (y - ln 2) / v``."""
    if emit.tangent:
        slope = emit("Sigmoid", node.input(0).name)
    else:
        slope = _secant(emit, node, math.log(2), (1 / 2, 1 / 8, 0, -1 / 192, 0, 1 / 2880, 0, -17 / 645120))
    return _scaled(emit, node, cotangents, slope)


def _hard_sigmoid_slope(emit: Emitter, node: Node) -> str:
    y = node.output()
    inside = emit(
        "And",
        emit("Greater", y.name, emit.like(y, 0.0)),
        emit("Less", y.name, emit.like(y, 1.0)),
    )
    return emit("Where", inside, emit.like(y, node.attrs["alpha"]), emit.like(y, 0.0))


def _hard_sigmoid_bias(emit: Emitter, node: Node) -> str:
    linear = emit("Mul", _hard_sigmoid_slope(emit, node), node.input(0).name)
    return emit("Sub", node.output().name, linear)


@rule(
    "HardSigmoid",
    versions=(6, 22),
    roles=gate,
    routes=always,
    spread=through,
    bias=_hard_sigmoid_bias,
    nonlinear=True,
)
def hard_sigmoid(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``alpha g`` where 0 < alpha v + beta < 1, else nothing: piecewise linear."""
    return _scaled(emit, node, cotangents, _hard_sigmoid_slope(emit, node))


@rule("HardSwish", versions=(14, 22), roles=activation, routes=always, spread=through, nonlinear=True)
def hard_swish(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g (2v + 3) / 6`` between -3 and 3, ``g`` above; frozen: the gate ``clip(v/6 + 1/2, 0, 1)``."""
    v = node.input(0)

    def at(number: float) -> str:
        return emit.like(v, number)

    if emit.tangent:
        inner = emit("Add", emit("Mul", v.name, at(1 / 3)), at(0.5))
        below = emit("Where", emit("Less", v.name, at(-3.0)), at(0.0), inner)
        slope = emit("Where", emit("Greater", v.name, at(3.0)), at(1.0), below)
    else:
        slope = emit("Clip", emit("Add", emit("Mul", v.name, at(1 / 6)), at(0.5)), at(0.0), at(1.0))
    return _scaled(emit, node, cotangents, slope)
