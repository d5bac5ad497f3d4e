"""Reductions that are not linear: extrema, products, norms, logarithms of sums."""

import math
from functools import partial

from graph_rules.reductions import reduced_axes, reduced_roles, reduced_spread, restored_axes, within_position
from graph_rules.registry import cotangent, rule, to_first
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Node
from srd_onnx.graph.roles import Axes, Roles


def _roles(node: Node, roles: Roles) -> tuple[Axes]:
    return (Axes(reduced_roles(node, roles)[0].roles),)


def _result(emit: Emitter, node: Node) -> str:
    """The output with the reduced axes back, of size 1."""
    return restored_axes(emit, node, node.output().name, node.input(0).shape)


def _cotangent(emit: Emitter, node: Node, cotangents: Flows) -> str:
    node.require(node.input(0).is_float, "only real numbers carry relevance")
    return restored_axes(emit, node, cotangent(cotangents, node), node.input(0).shape)


_extreme = partial(
    rule, versions=(18, 20), roles=_roles, routes=within_position, spread=reduced_spread, nonlinear=True
)


@_extreme("ReduceMax")
@_extreme("ReduceMin")
def reduce_extreme(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` to the winner, equally to several in a tie."""
    x, g = node.input(0), _cotangent(emit, node, cotangents)
    hit = emit("Equal", x.name, _result(emit, node))
    won = emit("Where", hit, emit.like(x, 1.0), emit.like(x, 0.0))
    return to_first(node, emit("Mul", won, emit("Div", g, emit.total(won, reduced_axes(node)))))


@rule(
    "ReduceProd", versions=(18,), roles=_roles, routes=within_position, spread=reduced_spread, nonlinear=True
)
def reduce_prod(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g Π_{j≠i} x_j``, divided by the number of factors under a fixed pattern: equals share (ours)."""
    x, g, axes = node.input(0), _cotangent(emit, node, cotangents), reduced_axes(node)
    one, zero = emit.like(x, 1.0), emit.like(x, 0.0)
    # One zero leaves a product to itself alone, two leave none to anyone.
    is_zero = emit("Equal", x.name, zero)
    factors = emit("Where", is_zero, one, x.name)
    product = emit("ReduceProd", factors, emit.ints(axes), keepdims=1) if axes else factors
    zeros = emit("Where", is_zero, one, zero)
    others = emit("Equal", emit("Sub", emit.total(zeros, axes), zeros), zero)
    slope = emit("Where", others, emit("Div", product, factors), zero)
    count = math.prod(x.shape[a] for a in axes)
    if not emit.tangent and count > 1:
        g = emit("Div", g, emit.like(x, float(count)))
    return to_first(node, emit("Mul", g, slope))


@rule("ReduceL1", versions=(18,), roles=_roles, routes=within_position, spread=reduced_spread, nonlinear=True)
def reduce_l1(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g sign(x)``; the signs are the pattern."""
    return to_first(node, emit("Mul", _cotangent(emit, node, cotangents), emit("Sign", node.input(0).name)))


@rule("ReduceL2", versions=(18,), roles=_roles, routes=within_position, spread=reduced_spread, nonlinear=True)
def reduce_l2(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g x / y``: the direction is the pattern, and it is the derivative too. Nothing at 0."""
    x, g, y = node.input(0), _cotangent(emit, node, cotangents), _result(emit, node)
    safe = emit("Where", emit("Equal", y, emit.like(x, 0.0)), emit.like(x, 1.0), y)
    return to_first(node, emit("Mul", x.name, emit("Div", g, safe)))


@rule(
    "ReduceSumSquare",
    versions=(18,),
    roles=_roles,
    routes=within_position,
    spread=reduced_spread,
    nonlinear=True,
)
def reduce_sum_square(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``2 g x``; frozen ``g x``: the secant of each square, that is one of its two factors held fixed."""
    x, g = node.input(0), _cotangent(emit, node, cotangents)
    if emit.tangent:
        g = emit("Add", g, g)
    return to_first(node, emit("Mul", g, x.name))


@rule(
    "ReduceLogSum",
    versions=(18, 28),
    roles=_roles,
    routes=within_position,
    spread=reduced_spread,
    nonlinear=True,
)
def reduce_log_sum(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g / Σ x``; frozen: ``g y / Σ x`` without a bias, as the logarithm itself: it is not finite at 0 (ours)."""
    x, g = node.input(0), _cotangent(emit, node, cotangents)
    total = emit.total(x.name, reduced_axes(node))
    if not emit.tangent:
        g = emit("Mul", g, _result(emit, node))
    return to_first(node, emit("Expand", emit("Div", g, total), emit.ints(x.shape)))


def _weights(emit: Emitter, node: Node) -> str:
    return emit("Exp", emit("Sub", node.input(0).name, _result(emit, node)))


def _entropy(emit: Emitter, node: Node) -> str:
    """``y - Σ p x``, which is the entropy of the weights p."""
    weighted = emit.weighed(node.input(0).name, _weights(emit, node))
    axes = reduced_axes(node)
    mean = emit.total(weighted, axes, keepdims=bool(node.attrs["keepdims"]))
    return emit("Sub", node.output().name, mean)


@rule(
    "ReduceLogSumExp",
    versions=(18, 28),
    roles=_roles,
    routes=within_position,
    spread=reduced_spread,
    bias=_entropy,
    nonlinear=True,
)
def reduce_log_sum_exp(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g p``, ``p = e^{x - y}``: a soft maximum, whose softmax weights are the pattern; their entropy is the bias."""
    return to_first(node, emit("Mul", _cotangent(emit, node, cotangents), _weights(emit, node)))
