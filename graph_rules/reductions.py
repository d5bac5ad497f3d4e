"""Sums and means over axes."""

import math

from graph_rules.registry import carries, cotangent, rule, to_first
from srd_onnx.emit import Emitter
from srd_onnx.ir import Node
from srd_onnx.roles import Axes, Role, Roles
from srd_onnx.rule import Flows


def _reduced(node: Node) -> tuple[int, ...]:
    """The axes that are summed over, counted from the front."""
    rank, given = node.input(0).rank, node.constant(1)
    if given is None or given.size == 0:
        return () if node.attrs["noop_with_empty_axes"] else tuple(range(rank))
    return tuple(sorted(int(a) % rank for a in given))


def _roles(node: Node, roles: Roles) -> tuple[Axes]:
    own, gone = roles[node.input(0).name], set(_reduced(node))
    kept = tuple(r for i, r in enumerate(own.roles) if node.attrs["keepdims"] or i not in gone)
    node.require(
        not any(own.roles[i] is Role.BATCH and node.input(0).shape[i] > 1 for i in gone),
        "it sums over the batch axis, so that images are no longer independent",
    )
    return (Axes(kept, gate=own.gate),)


def _within_position(node: Node, roles: Roles) -> bool:
    own = roles[node.input(0).name].roles
    return all(own[i] is not Role.POSITION for i in _reduced(node))


def _restored(emit: Emitter, node: Node, flow: str, shape: tuple[int, ...]) -> str:
    """The reduced axes back with size 1."""
    gone = set(_reduced(node))
    return (
        flow
        if node.attrs["keepdims"]
        else emit.reshape(flow, [1 if i in gone else s for i, s in enumerate(shape)])
    )


def _spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    x, share = node.input(0), shares[0]
    assert share is not None
    shape = emit.axes(x).position_shape(x)
    size = math.prod(shape[i] for i in _reduced(node))
    part = share if size == 1 else emit("Div", share, emit.like(x, float(size)))
    restored = _restored(emit, node, part, shape)
    return to_first(node, restored if size == 1 else emit("Expand", restored, emit.ints(shape)))


@rule("ReduceSum", versions=(13,), roles=_roles, routes=_within_position, spread=_spread)
def reduce_sum(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` to everything that was summed."""
    x = node.input(0)
    node.require(carries(x), "only sums of real numbers carry relevance")
    restored = _restored(emit, node, cotangent(cotangents, node), x.shape)
    return to_first(node, emit("Expand", restored, emit.ints(x.shape)))


@rule("ReduceMean", versions=(18,), roles=_roles, routes=_within_position, spread=_spread)
def reduce_mean(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g / count`` to everything that was averaged."""
    x = node.input(0)
    size = float(math.prod(x.shape[i] for i in _reduced(node)))
    share = emit("Div", cotangent(cotangents, node), emit.like(x, size))
    return to_first(node, emit("Expand", _restored(emit, node, share, x.shape), emit.ints(x.shape)))
