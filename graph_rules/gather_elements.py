"""GatherElements, GatherND and Compress: each output element is a copy of an input element.

Constant indices, or a constant condition, say which; GatherND may also compute them (the place of the last token),
which holds them fixed.
"""

import math
from collections.abc import Sequence

import numpy as np

from graph_rules.elements import (
    ElementMap,
    constant_indices,
    element_indices,
    element_routes,
    element_spread,
    element_vjp,
    require_batch_kept,
    slice_indices,
)
from graph_rules.registry import cotangent, rule, to_first, varying
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Node
from srd_onnx.graph.roles import Axes, Role, Roles


def _data(node: Node, roles: Roles) -> tuple[int, ...]:
    return tuple(i for i in varying(node, roles) if i == 0)


def _map(node: Node) -> ElementMap:
    x, y = node.input(0), node.output()
    if node.key.op_type == "GatherElements":
        ins = element_indices(node, x, y.shape)
    else:
        ins = slice_indices(constant_indices(node), x.shape, int(node.attrs["batch_dims"]))
    return ElementMap(np.arange(len(ins)), ins, x.shape, y.shape)


def _maps(node: Node, _roles: Roles) -> dict[int, ElementMap]:
    return {0: _map(node)}


def _elements(node: Node, roles: Roles) -> tuple[Axes]:
    own = roles[node.input(0).name]
    require_batch_kept(node, own, {0: (_map(node), own)})
    return (own,)


def _computed(node: Node) -> bool:
    return node.input(1).constant is None


def _chosen(node: Node, roles: Roles) -> tuple[Axes]:
    """Of computed indices: they choose whole positions, and batch items only where there is but one."""
    x, own, depth = node.input(0), roles[node.input(0).name], node.input(1).shape[-1]
    count = node.input(1).rank - 1
    named = own.roles[:depth]
    node.require(not node.attrs["batch_dims"], "computed indices with batch_dims have no rule")
    node.require(Role.CHANNEL not in named, "computed indices choose channels, which has no rule")
    node.require(
        all(role is not Role.BATCH or x.shape[a] == 1 for a, role in enumerate(named)),
        "computed indices choose batch items too; explain one at a time",
    )
    first = [Role.BATCH] * (Role.BATCH in named and count > 0)
    return (Axes((*first, *[Role.POSITION] * (count - len(first)), *own.roles[depth:]), gate=own.gate),)


def _slices_roles(node: Node, roles: Roles) -> tuple[Axes]:
    return _chosen(node, roles) if _computed(node) else _slices(node, roles)


def _slices_routes(node: Node, roles: Roles) -> bool:
    return _computed(node) or element_routes(_maps)(node, roles)


def _put_back(emit: Emitter, node: Node, flow: str, shape: Sequence[int]) -> Flows:
    return to_first(node, emit.added(shape, node.input(0).dtype, node.input(1).name, flow))


def _slices_spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    if not _computed(node):
        return element_spread(_maps)(emit, node, shares)
    x = node.input(0)
    return _put_back(emit, node, cotangent(shares, node), emit.axes(x).position_shape(x))


def _slices(node: Node, roles: Roles) -> tuple[Axes]:
    """Axes of the indices have the role of the axes that they index; the batch is named first, if at all."""
    own, indices = roles[node.input(0).name], constant_indices(node)
    batch, depth = int(node.attrs["batch_dims"]), indices.shape[-1]
    named = own.roles[batch : batch + depth]
    count = indices.ndim - 1 - batch
    others = [r for r in named if r is not Role.BATCH]
    if len(named) == count:
        made = list(named)
    else:
        first = [Role.BATCH] if Role.BATCH in named else []
        node.require(
            len(first) <= count and len(set(others)) <= 1,
            f"it indexes axes of different meaning ({own}) together",
        )
        made = [*first, *[others[0] if others else Role.BATCH] * (count - len(first))]
    axes = Axes((*own.roles[:batch], *made, *own.roles[batch + depth :]), gate=own.gate)
    require_batch_kept(node, axes, {0: (_map(node), own)})
    return (axes,)


@rule(
    "GatherElements",
    versions=(13,),
    roles=_elements,
    carriers=_data,
    routes=element_routes(_maps),
    spread=element_spread(_maps),
)
def gather_elements(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g_x[i] = Σ g[o] over all o that copy i``; indices constant."""
    return element_vjp(emit, node, cotangent(cotangents, node), _maps)


@rule(
    "GatherND",
    versions=(13,),
    roles=_slices_roles,
    carriers=_data,
    routes=_slices_routes,
    spread=_slices_spread,
)
def gather_nd(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g_x[i] = Σ g[o] over all o that copy i``."""
    g = cotangent(cotangents, node)
    if _computed(node):
        return _put_back(emit, node, g, node.input(0).shape)
    return element_vjp(emit, node, g, _maps)


# Compress


def _compressed(node: Node) -> ElementMap:
    x, y, condition, axis = node.input(0), node.output(), node.constant(1), node.attrs.get("axis")
    assert condition is not None
    places = np.arange(math.prod(x.shape)).reshape(x.shape)
    ins = np.compress(condition, places, axis).reshape(-1)
    return ElementMap(np.arange(len(ins)), ins, x.shape, y.shape)


def _compressed_maps(node: Node, _roles: Roles) -> dict[int, ElementMap]:
    return {0: _compressed(node)}


def _compressed_roles(node: Node, roles: Roles) -> tuple[Axes]:
    """Without an axis the input is flattened first: positions and channels together are channels."""
    x, own = node.input(0), roles[node.input(0).name]
    if node.attrs.get("axis") is not None:
        require_batch_kept(node, own, {0: (_compressed(node), own)})
        return (own,)
    found = {role for role, size in zip(own.roles, x.shape, strict=True) if size > 1}
    node.require(Role.BATCH not in found, "it flattens the batch axis; images must stay independent")
    return (Axes((found.pop() if len(found) == 1 else Role.CHANNEL,), gate=own.gate),)


@rule(
    "Compress",
    versions=(11, 28),
    roles=_compressed_roles,
    carriers=_data,
    routes=element_routes(_compressed_maps),
    spread=element_spread(_compressed_maps),
)
def compress(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` where the condition, which is constant, is true, zero elsewhere."""
    return element_vjp(emit, node, cotangent(cotangents, node), _compressed_maps)
