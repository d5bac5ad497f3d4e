"""Gather by constant or computed indices, which are held fixed; of a constant table by token ids: an embedding."""

import math
from collections.abc import Sequence

import numpy as np

from graph_rules.axis_maps import (
    AxisMap,
    along_routes,
    back_along,
    equal,
    real_dtype,
)
from graph_rules.registry import cotangent, moved, rule, to_first
from srd_onnx.apop.replay import again
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Array, Node
from srd_onnx.graph.roles import Axes, Role, Roles


def _axis(node: Node) -> int:
    return int(node.attrs["axis"]) % node.input(0).rank


def _indices(node: Node) -> Array:
    """Constant indices, counted from the front."""
    indices = node.constant(1)
    assert indices is not None
    return np.where(indices < 0, indices + node.input(0).shape[_axis(node)], indices)


def _computed(node: Node) -> bool:
    """Whether the model works out the indices itself (the place of the last token): they are the pattern."""
    return node.input(1).constant is None


def _maps(node: Node) -> dict[int, AxisMap]:
    return {_axis(node): AxisMap.copies(_indices(node), node.input(0).shape[_axis(node)])}


def _is_embedding(node: Node) -> bool:
    """A constant table of rows, looked up by computed integers."""
    table, ids = node.input(0), node.input(1)
    return table.constant is not None and ids.constant is None


def _carriers(node: Node, roles: Roles) -> tuple[int, ...]:
    """The token ids of an embedding, although they are integers: each stands for its row of the table."""
    if not _is_embedding(node):
        return moved(node, roles)
    axes = roles.get(node.input(1).name)
    return (1,) if axes is not None and not axes.inert else ()


def _roles(node: Node, roles: Roles) -> tuple[Axes]:
    """The axis becomes as many of its role as the indices have axes; none for a scalar, which selects."""
    axis = _axis(node)
    if _is_embedding(node):
        node.require(axis == 0, f"an embedding along axis {axis} of its table has no rule; only along axis 0")
        ids = roles[node.input(1).name]
        return (Axes((*ids.roles, *[Role.CHANNEL] * (node.input(0).rank - 1))),)
    own, count = roles[node.input(0).name], node.input(1).rank
    role, size = own.roles[axis], node.input(0).shape[axis]
    whole = count == 1 and not _computed(node) and equal(_indices(node), np.arange(size))
    node.require(
        role is not Role.BATCH or whole,
        "it selects along the batch axis; images must stay independent",
    )
    return (Axes((*own.roles[:axis], *[role] * count, *own.roles[axis + 1 :]), gate=own.gate),)


def _routes(node: Node, roles: Roles) -> bool:
    return _computed(node) or along_routes(_maps)(node, roles)


def _flat(node: Node, shape: Sequence[int]) -> list[int]:
    """The shape of the output with the axes of the indices as one; `shape` is that of the input."""
    axis = _axis(node)
    return [*shape[:axis], math.prod(node.input(1).shape), *shape[axis + 1 :]]


def _put_back(emit: Emitter, node: Node, flow: str, shape: Sequence[int]) -> str:
    """The flow at the indices that were selected, summed where one was selected twice; `shape` is the input's."""
    axis, flat = _axis(node), _flat(node, shape)
    flow = emit.reshape(flow, flat)
    if not _computed(node):
        return back_along(emit, flow, _maps(node), flat, real_dtype(node.input(0)))
    before, count, after = math.prod(flat[:axis]), flat[axis], math.prod(flat[axis + 1 :])
    indices = emit.reshape(node.input(1).name, [1, count, 1])
    indices = emit("Expand", indices, emit.ints([before, count, after]))
    flow = emit.reshape(flow, [before, count, after])
    added = emit.added([before, shape[axis], after], real_dtype(node.input(0)), indices, flow, axis=1)
    return emit.reshape(added, shape)


def _spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    """To the position that was selected; of an embedding to the token."""
    share, x = cotangent(shares, node), node.input(0)
    if _is_embedding(node):
        return [None, emit.reshape(share, node.input(1).shape)]
    shape, axis = emit.axes(x).position_shape(x), _axis(node)
    if axis in emit.axes(x).channels:
        return to_first(node, emit.reshape(share, shape))
    return to_first(node, _put_back(emit, node, share, shape))


@rule(
    "Gather",
    versions=(13,),
    roles=_roles,
    carriers=_carriers,
    routes=_routes,
    spread=_spread,
    replay=again,
)
def gather(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g_x[i] = Σ g[o] over all o with index[o] = i``. An embedding has no cotangent at its integers."""
    node.require(
        not _is_embedding(node),
        "the cotangent ends at its token ids, which are integers: collapse at its output, by a boundary there",
    )
    return to_first(node, _put_back(emit, node, cotangent(cotangents, node), node.input(0).shape))
