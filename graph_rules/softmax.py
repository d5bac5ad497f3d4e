"""Softmax and LogSoftmax: the end of a classifier, where the target is the value before them, or inside a network.

As a gate (attention weights) a softmax is held fixed and never crossed. Where something reads its values as features,
its normaliser is the pattern: ``y_k = e^{v_k} / Z`` with Z fixed acts on each element alone, whatever its axis.
"""

from graph_rules.registry import always, cotangent, gate, rule, through, to_first
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Node
from srd_onnx.graph.roles import Axes, Role, Roles

_NEAR = 0.05  # below this |v| the secant of exp is its series


def _axis(node: Node) -> list[int]:
    return [int(node.attrs["axis"]) % node.output().rank]


def _gate(node: Node, roles: Roles) -> tuple[Axes]:
    x = node.input(0)
    (axis,) = _axis(node)
    node.require(
        roles[x.name].roles[axis] is not Role.BATCH or x.shape[axis] == 1,
        "it compares the items of the batch, so that images are no longer independent",
    )
    return gate(node, roles)


def _log_normaliser(emit: Emitter, node: Node) -> str:
    """``ln Z`` along the axis, from the largest element, whose exponential does not underflow."""
    largest = [
        emit("ReduceMax", v.name, emit.ints(_axis(node)), keepdims=1) for v in (node.input(0), node.output())
    ]
    return emit("Sub", largest[0], emit("Log", largest[1]))


def _unless_masked(emit: Emitter, node: Node, tensor: str) -> str:
    """`tensor`, and 0 where y is 0, its v being -inf (a mask), or NaN, every v being -inf: nothing passes there."""
    y, zero = node.output(), emit.like(node.output(), 0.0)
    return emit("Where", emit("Greater", y.name, zero), tensor, zero)


def _softmax_bias(emit: Emitter, node: Node) -> str:
    """``f(0) = 1/Z``; at most 1, as any probability (ours): else it would overflow where all v are far below 0."""
    exponent = emit("Min", emit("Neg", _log_normaliser(emit, node)), emit.like(node.output(), 0.0))
    return _unless_masked(emit, node, emit("Exp", exponent))


def _secant(emit: Emitter, node: Node) -> str:
    """``(y - f(0)) / v``; near 0, where that cancels, ``(1 + v/2 + v²/6 + ...) / Z``."""
    v, y, at_zero = node.input(0), node.output(), _softmax_bias(emit, node)
    zero, one = emit.like(v, 0.0), emit.like(v, 1.0)
    small = emit("Less", emit("Abs", v.name), emit.like(v, _NEAR))
    # Where f(0) was cut down to 1, v is below 0 and the quotient is all there is.
    series_holds = emit("GreaterOrEqual", _log_normaliser(emit, node), zero)
    near = emit("And", small, series_holds)
    far_slope = emit("Div", emit("Sub", y.name, at_zero), emit("Where", near, one, v.name))
    safe = emit("Where", near, v.name, zero)
    series = emit.like(v, 1 / 5040)
    for coefficient in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0):
        series = emit("Add", emit("Mul", series, safe), emit.like(v, coefficient))
    return _unless_masked(emit, node, emit("Where", near, emit("Mul", series, at_zero), far_slope))


@rule(
    "Softmax",
    versions=(13,),
    roles=_gate,
    routes=always,
    spread=through,
    bias=_softmax_bias,
    head="link",
    nonlinear=True,
)
def softmax(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``y (g - Σ g y)``; frozen, where its values are features: ``g (y - 1/Z) / v`` with Z fixed."""
    g, y = cotangent(cotangents, node), node.output()
    if not emit.tangent:
        return to_first(node, emit("Mul", g, _secant(emit, node)))
    weights = _unless_masked(emit, node, y.name)
    mean = emit.total(emit("Mul", g, weights), _axis(node))
    return to_first(node, emit("Mul", weights, emit("Sub", g, mean)))


def _normaliser(emit: Emitter, node: Node) -> str:
    """``-ln Z``, from the largest element: any other may be -inf."""
    largest = [
        emit("ReduceMax", v.name, emit.ints(_axis(node)), keepdims=1) for v in (node.output(), node.input(0))
    ]
    return emit("Sub", *largest)


@rule(
    "LogSoftmax",
    versions=(13,),
    roles=_gate,
    routes=always,
    spread=through,
    bias=_normaliser,
    head="link",
    nonlinear=True,
)
def log_softmax(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g - softmax(v) Σ g``; frozen: ``g``, with the normaliser as a bias."""
    g, y = cotangent(cotangents, node), node.output()
    if not emit.tangent:
        return to_first(node, g)
    total = emit.total(g, _axis(node))
    return to_first(node, emit("Sub", g, emit("Mul", emit("Exp", y.name), total)))
