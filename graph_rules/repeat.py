"""Expand and Tile: the same elements several times."""

import numpy as np

from graph_rules.axis_maps import AxisMap, along_routes, along_spread, along_vjp, back_along, keeps_batch
from graph_rules.registry import cotangent, moved, rule, same, to_first
from srd_onnx.emit import Emitter
from srd_onnx.ir import Node
from srd_onnx.roles import Axes, Role, Roles
from srd_onnx.rule import Flows


def _tiles(node: Node) -> dict[int, AxisMap]:
    x, repeats = node.input(0), node.constant(1)
    assert repeats is not None
    return {
        axis: AxisMap.copies(np.tile(np.arange(size), int(times)), size)
        for axis, (size, times) in enumerate(zip(x.shape, repeats, strict=True))
        if times != 1
    }


def _tiled(node: Node, roles: Roles) -> tuple[Axes, ...]:
    keeps_batch(node, roles, _tiles)
    return same(node, roles)


@rule(
    "Tile",
    versions=(13,),
    roles=_tiled,
    carriers=moved,
    routes=along_routes(_tiles),
    spread=along_spread(_tiles),
)
def tile(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` summed over the copies."""
    return along_vjp(emit, node, cotangents, _tiles)


def _lead(node: Node) -> int:
    return node.output().rank - node.input(0).rank


def _expansions(node: Node) -> dict[int, AxisMap]:
    """The axes of the input that were repeated, and how often."""
    x, y = node.input(0), node.output()
    return {
        axis: AxisMap.copies(np.zeros(made), 1)
        for axis, (size, made) in enumerate(zip(x.shape, y.shape[_lead(node) :], strict=True))
        if size == 1 and made != 1
    }


def _expanded(node: Node, roles: Roles) -> tuple[Axes, ...]:
    keeps_batch(node, roles, _expansions)
    own, lead = roles[node.input(0).name], _lead(node)
    node.require(
        all(size == 1 for size in node.output().shape[:lead]),
        f"it adds axes of unknown meaning in front: {list(node.input(0).shape)} to {list(node.output().shape)}",
    )
    return (Axes((*[Role.CHANNEL] * lead, *own.roles), gate=own.gate),)


def _without_lead(emit: Emitter, node: Node, flow: str, shape: tuple[int, ...]) -> str:
    return emit.reshape(flow, shape[_lead(node) :]) if _lead(node) else flow


def _expand_spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    shape = emit.axes(node.output()).position_shape(node.output())
    share = _without_lead(emit, node, cotangent(shares, node), shape)
    return along_spread(_expansions)(emit, node, [share])


@rule(
    "Expand",
    versions=(13,),
    roles=_expanded,
    carriers=moved,
    routes=along_routes(_expansions),
    spread=_expand_spread,
)
def expand(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` summed over the axes along which the input was repeated."""
    x, y = node.input(0), node.output()
    flow = _without_lead(emit, node, cotangent(cotangents, node), y.shape)
    return to_first(node, back_along(emit, flow, _expansions(node), y.shape[_lead(node) :], x.dtype))
