"""Expand, Tile and OneHot: the same elements several times."""

import numpy as np
from onnx import TensorProto

from graph_rules.axis_maps import AxisMap, along_routes, along_spread, along_vjp, back_along, keeps_batch
from graph_rules.registry import always, cotangent, moved, rule, same, to_first, varying
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Node
from srd_onnx.graph.roles import Axes, Role, Roles


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


# OneHot: two values, one of them at the indices


INDICES, VALUES = 0, 2


def _one_hot_carriers(node: Node, roles: Roles) -> tuple[int, ...]:
    """The values, at indices that are held fixed; of constant values token ids, which stand for their rows."""
    indices = node.input(INDICES)
    axes = roles.get(indices.name)
    ids = axes is not None and not axes.inert and indices.dtype.kind in "iu"
    values = VALUES in varying(node, roles)
    node.require(not (ids and values), "its values and the token ids that place them are both computed")
    return (VALUES,) if values else (INDICES,) if ids else ()


def _one_hot_roles(node: Node, roles: Roles) -> tuple[Axes]:
    """The axes of the indices and a new one of channels; where only values vary, all have the role of their axis."""
    indices, values = node.input(INDICES), node.input(VALUES)
    new, known = Role.CHANNEL, indices.name in roles
    if VALUES in _one_hot_carriers(node, roles):
        (new,) = roles[values.name].roles
        node.require(
            new is Role.CHANNEL or (new is Role.POSITION and not known),
            "its two values must be channels of one position",
        )
    own = roles[indices.name].roles if known else (new,) * indices.rank
    axis = int(node.attrs["axis"]) % (indices.rank + 1)
    return (Axes((*own[:axis], new, *own[axis:])),)


def _to_values(emit: Emitter, node: Node, flow: str) -> Flows:
    """``Σ flow (1 - h)`` and ``Σ flow h``, h 1 at the indices."""
    values, y = node.input(VALUES), node.output()
    places = emit("Cast", node.input(INDICES).name, to=TensorProto.INT64)
    depth = emit.const(np.int64(y.shape[int(node.attrs["axis"]) % y.rank]))
    parts = []
    for off, on in ((1.0, 0.0), (0.0, 1.0)):
        taken = emit("OneHot", places, depth, emit.like(values, [off, on]), axis=node.attrs["axis"])
        part = emit.total(emit("Mul", flow, taken), range(y.rank), keepdims=False)
        parts.append(emit.reshape(part, [1]))
    return [None, None, emit("Concat", *parts, axis=0)]


def _one_hot_spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    """To the position of the value that was taken; of token ids to the token."""
    share, indices = cotangent(shares, node), node.input(INDICES)
    if VALUES in _one_hot_carriers(node, emit.roles):
        if emit.axes(node.input(VALUES)).positions:
            return _to_values(emit, node, share)
        total = emit.total(share, range(node.output().rank), keepdims=False)
        return [None, None, emit.reshape(total, [1])]
    return to_first(node, emit.reshape(share, emit.axes(indices).position_shape(indices)))


@rule(
    "OneHot",
    versions=(11, 28),
    roles=_one_hot_roles,
    carriers=_one_hot_carriers,
    routes=always,
    spread=_one_hot_spread,
)
def one_hot(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``y = off (1 - h) + on h``, h 1 at the indices: ``Σ g (1 - h)``, ``Σ g h``. No cotangent at token ids."""
    g, values = cotangent(cotangents, node), node.input(VALUES)
    node.require(
        _one_hot_carriers(node, emit.roles) != (INDICES,),
        "the cotangent ends at its token ids, which are integers: collapse at its output, by a boundary there",
    )
    return _to_values(emit, node, g) if emit.varies(values) else [None, None, None]
