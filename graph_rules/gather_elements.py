"""GatherElements and GatherND with constant indices: each output element is a copy of an input element."""

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
from graph_rules.registry import cotangent, rule, varying
from srd_onnx.emit import Emitter
from srd_onnx.ir import Node
from srd_onnx.roles import Axes, Role, Roles
from srd_onnx.rule import Flows


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
    roles=_slices,
    carriers=_data,
    routes=element_routes(_maps),
    spread=element_spread(_maps),
)
def gather_nd(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g_x[i] = Σ g[o] over all o that copy i``; indices constant."""
    return element_vjp(emit, node, cotangent(cotangents, node), _maps)
