"""Activations in pieces: of straight lines, whose pattern says which piece holds, and of constants.

Each acts on a position alone, so SRD passes R unchanged.
"""

import numpy as np

from graph_rules.blocks import above, below, comparable, scaled_by
from graph_rules.broadcasting import back, broadcast, equally
from graph_rules.frozen import elementwise, positive, rectifier, scaled
from graph_rules.registry import activation, always, cotangent, gate, nothing, rule, to_first, varying
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Node
from srd_onnx.graph.roles import Axes, Gate, Roles


@rectifier("Relu", versions=(14,), roles=activation)
def relu(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g * (y > 0)``: read off the output, so that the preactivation need not be kept. Zero is inactive."""
    y, g = node.output(), cotangent(cotangents, node)
    if emit.blocked(y):
        return scaled(emit, node, cotangents, above(emit, y.name, y))
    zero = emit.like(y, 0.0)
    return to_first(node, emit("Where", emit("Greater", y.name, zero), g, zero))


@rectifier("LeakyRelu", versions=(16,), roles=activation)
def leaky_relu(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` where v >= 0, ``alpha g`` elsewhere."""
    v = node.input(0)
    slope = emit(
        "Where",
        emit("Less", v.name, emit.like(v, 0.0)),
        emit.like(v, node.attrs["alpha"]),
        emit.like(v, 1.0),
    )
    return scaled(emit, node, cotangents, slope)


def _prelu_roles(node: Node, roles: Roles) -> tuple[Axes]:
    return (Axes(broadcast(node, roles)[0].roles),)


def _first_of_varying(node: Node, roles: Roles) -> tuple[int, ...]:
    return varying(node, roles)[:1]


def _prelu_bias(emit: Emitter, node: Node) -> str | None:
    """Of a constant operand, what its computed slope does not act on."""
    v = node.input(0)
    return None if emit.varies(v) else emit("Relu", v.name)


@rule(
    "PRelu",
    versions=(16,),
    roles=_prelu_roles,
    carriers=_first_of_varying,
    routes=always,
    spread=equally(_first_of_varying),
    bias=_prelu_bias,
    nonlinear=True,
    active=positive,
)
def prelu(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` where v >= 0, ``slope g`` elsewhere; a computed slope is held fixed, its ``tangent`` is ``g v``."""
    v, slope, g = node.input(0), node.input(1), cotangent(cotangents, node)
    below = emit("Less", v.name, emit.like(v, 0.0))
    flows: list[str | None] = [None, None]
    if emit.varies(v):
        flows[0] = emit("Mul", g, emit("Where", below, slope.name, emit.like(v, 1.0)))
    if emit.varies(slope) and (emit.tangent or not emit.varies(v)):
        part = emit("Mul", g, emit("Where", below, v.name, emit.like(v, 0.0)))
        flows[1] = back(emit, node, part, slope)
    return flows


@rectifier("ThresholdedRelu", versions=(10, 22), roles=activation)
def thresholded_relu(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g * (v > alpha)``."""
    v = node.input(0)
    above = emit("Greater", v.name, emit.like(v, node.attrs["alpha"]))
    return to_first(node, emit("Where", above, cotangent(cotangents, node), emit.like(v, 0.0)))


def _outside(emit: Emitter, node: Node) -> tuple[str, str]:
    """Where Shrink lets through: below and above; below comes first if they overlap."""
    v, edge = node.input(0), node.attrs["lambd"]
    return emit("Less", v.name, emit.like(v, -edge)), emit("Greater", v.name, emit.like(v, edge))


def _shrink_bias(emit: Emitter, node: Node) -> str | None:
    v, shift = node.input(0), node.attrs["bias"]
    if not shift:
        return None
    below, above = _outside(emit, node)
    inner = emit("Where", above, emit.like(v, -shift), emit.like(v, 0.0))
    return emit("Where", below, emit.like(v, shift), inner)


@elementwise("Shrink", versions=(9,), roles=activation, bias=_shrink_bias)
def shrink(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g * (|v| > lambd)``; how far it shrinks is a bias."""
    outside = emit("Or", *_outside(emit, node))
    return to_first(node, emit("Where", outside, cotangent(cotangents, node), emit.like(node.input(0), 0.0)))


@elementwise("Hardmax", versions=(13,), roles=activation, carriers=nothing)
def hardmax(emit: Emitter, node: Node, _cotangents: Flows) -> Flows:
    """Nothing, ``0``: which one is the greatest is the pattern itself, so that the result counts as a constant."""
    node.require(emit.tangent, "a hardmax is constant under a fixed pattern")
    return to_first(node, None)


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


def _in_blocks(emit: Emitter, node: Node) -> tuple[float, float, str, str] | None:
    """Both bounds, and where the output is above and below them, as factors; None where it is not in blocks."""
    y, low, high = node.output(), node.optional(1), node.optional(2)
    if low is None or high is None or not emit.blocked(y):
        return None
    bounds = [node.constant(1), node.constant(2)]
    if not all(bound is not None and comparable(bound) for bound in bounds):
        return None
    least, most = (float(np.asarray(bound).item()) for bound in bounds)
    return least, most, above(emit, y.name, y, least), below(emit, y.name, y, most)


def _clip_bias(emit: Emitter, node: Node) -> str | None:
    if found := _in_blocks(emit, node):
        # What is at a bound is that bound: b (1 - factor), and nothing of a bound that is 0.
        parts = [
            scaled_by(emit, factor, node.output(), -bound, bound)
            for bound, factor in zip(found[:2], found[2:], strict=True)
            if bound
        ]
        return emit.sum(parts) if parts else None
    inside = _inside(emit, node)
    y = node.output()
    return emit("Where", inside, emit.like(y, 0.0), y.name) if inside else None


def _clip_active(emit: Emitter, node: Node) -> str | None:
    """A Clip from 0 on, as ReLU6, is a rectifier."""
    low = node.constant(1)
    return positive(emit, node) if low is not None and not low.any() else None


@elementwise("Clip", versions=(13,), roles=_clip_gate, bias=_clip_bias, active=_clip_active)
def clip(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g * (min < v < max)``; a bound that is reached is a constant, that is a bias."""
    if found := _in_blocks(emit, node):
        return scaled(emit, node, cotangents, emit("Mul", *found[2:]))
    inside, g = _inside(emit, node), cotangent(cotangents, node)
    return to_first(node, emit("Where", inside, g, emit.like(node.input(0), 0.0)) if inside else g)


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


@elementwise(
    "HardSigmoid",
    versions=(6, 22),
    roles=gate,
    bias=_hard_sigmoid_bias,
)
def hard_sigmoid(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``alpha g`` where 0 < alpha v + beta < 1, else nothing: piecewise linear."""
    return scaled(emit, node, cotangents, _hard_sigmoid_slope(emit, node))


@rectifier("HardSwish", versions=(14, 22), roles=activation)
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
    return scaled(emit, node, cotangents, slope)
