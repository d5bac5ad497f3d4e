"""Sums and means over axes."""

import math

from graph_rules.registry import carries, cotangent, rule, to_first
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Node
from srd_onnx.graph.roles import Axes, Role, Roles


def reduced_axes(node: Node) -> tuple[int, ...]:
    """The axes that are summed over, counted from the front."""
    rank, given = node.input(0).rank, node.constant(1)
    if given is None or given.size == 0:
        return () if node.attrs["noop_with_empty_axes"] else tuple(range(rank))
    return tuple(sorted(int(a) % rank for a in given))


def reduced_roles(node: Node, roles: Roles) -> tuple[Axes]:
    """The axes that are left; the batch must be among them."""
    own, gone = roles[node.input(0).name], set(reduced_axes(node))
    kept = tuple(r for i, r in enumerate(own.roles) if node.attrs["keepdims"] or i not in gone)
    node.require(
        not any(own.roles[i] is Role.BATCH and node.input(0).shape[i] > 1 for i in gone),
        "it sums over the batch axis, so that images are no longer independent",
    )
    return (Axes(kept, gate=own.gate),)


def within_position(node: Node, roles: Roles) -> bool:
    """Whether no position axis is reduced."""
    own = roles[node.input(0).name].roles
    return all(own[i] is not Role.POSITION for i in reduced_axes(node))


def restored_axes(emit: Emitter, node: Node, flow: str, shape: tuple[int, ...]) -> str:
    """The reduced axes back with size 1."""
    gone = set(reduced_axes(node))
    return (
        flow
        if node.attrs["keepdims"]
        else emit.reshape(flow, [1 if i in gone else s for i, s in enumerate(shape)])
    )


def reduced_spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    """The same part to each position that was reduced."""
    x, share = node.input(0), shares[0]
    assert share is not None
    shape = emit.axes(x).position_shape(x)
    size = math.prod(shape[i] for i in reduced_axes(node))
    part = share if size == 1 else emit("Div", share, emit.like(x, float(size)))
    restored = restored_axes(emit, node, part, shape)
    return to_first(node, restored if size == 1 else emit("Expand", restored, emit.ints(shape)))


@rule("ReduceSum", versions=(13,), roles=reduced_roles, routes=within_position, spread=reduced_spread)
def reduce_sum(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` to everything that was summed."""
    x = node.input(0)
    node.require(carries(x), "only sums of real numbers carry relevance")
    return to_first(node, _repeated(emit, node, cotangent(cotangents, node)))


@rule("ReduceMean", versions=(18,), roles=reduced_roles, routes=within_position, spread=reduced_spread)
def reduce_mean(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g / count`` to everything that was averaged."""
    x = node.input(0)
    size = float(math.prod(x.shape[i] for i in reduced_axes(node)))
    share = emit("Div", cotangent(cotangents, node), emit.like(x, size))
    return to_first(node, _repeated(emit, node, share))


def _repeated(emit: Emitter, node: Node, flow: str) -> str:
    shape, gone = node.input(0).shape, reduced_axes(node)
    small = [1 if axis in gone else size for axis, size in enumerate(shape)]
    return emit.repeated(restored_axes(emit, node, flow, shape), small, shape)
