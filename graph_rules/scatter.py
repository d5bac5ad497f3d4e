"""ScatterElements and ScatterND with constant indices: data with some elements replaced, or added to."""

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
from srd_onnx.ir import Array, Node
from srd_onnx.roles import Axes, Roles
from srd_onnx.rule import Flows

DATA, UPDATES = 0, 2


def _carriers(node: Node, roles: Roles) -> tuple[int, ...]:
    return tuple(i for i in varying(node, roles) if i in (DATA, UPDATES))


def _places(node: Node) -> Array:
    """Where in the output each element of the updates goes."""
    data, updates = node.input(DATA), node.input(UPDATES)
    places = (
        element_indices(node, data, updates.shape)
        if node.key.op_type == "ScatterElements"
        else slice_indices(constant_indices(node), data.shape)
    )
    reduction = node.attrs["reduction"]
    node.require(reduction in ("none", "add"), f"reduction '{reduction}' has no rule")
    node.require(
        reduction == "add" or len(np.unique(places)) == len(places),
        "several updates go to one place, and which of them wins is not defined",
    )
    return places


def _map(node: Node, index: int) -> ElementMap:
    data, updates, places = node.input(DATA), node.input(UPDATES), _places(node)
    if index == UPDATES:
        return ElementMap(places, np.arange(len(places)), updates.shape, data.shape)
    kept = np.arange(np.prod(data.shape, dtype=np.int64))
    if node.attrs["reduction"] == "none":
        kept = np.setdiff1d(kept, places)
    return ElementMap(kept, kept, data.shape, data.shape)


def _maps(node: Node, roles: Roles) -> dict[int, ElementMap]:
    return {index: _map(node, index) for index in _carriers(node, roles)}


def _roles(node: Node, roles: Roles) -> tuple[Axes]:
    """Those of the data; where only the updates vary, the axes they have in their place."""
    known = {i: roles[node.input(i).name] for i in _carriers(node, roles)}
    made = known.get(DATA)
    if made is None:
        node.require(UPDATES in known, "neither its data nor its updates are real numbers that vary")
        made = _of_updates(node, known[UPDATES])
    elif UPDATES in known and node.key.op_type == "ScatterElements":
        node.require(
            known[UPDATES].roles == made.roles,
            f"its data and its updates have different axes: {made}, {known[UPDATES]}",
        )
    require_batch_kept(node, made, {i: (_map(node, i), own) for i, own in known.items()})
    return (Axes(made.roles, gate=min(own.gate for own in known.values())),)


def _of_updates(node: Node, own: Axes) -> Axes:
    """ScatterND puts slices: the axes in front of them are known only if there is one for each index."""
    if node.key.op_type == "ScatterND":
        indices = constant_indices(node)
        node.require(
            indices.ndim - 1 == indices.shape[-1],
            "it scatters a list of slices into a constant, whose axes have no known meaning",
        )
    return own


def _rest(emit: Emitter, node: Node) -> str | None:
    """What the operands that do not vary put in."""
    data, updates = node.input(DATA), node.input(UPDATES)
    if emit.varies(data) and emit.varies(updates):
        return None
    parts = [emit.zeros(v.shape, v.dtype) if emit.varies(v) else v.name for v in (data, updates)]
    attrs = {k: node.attrs[k] for k in ("axis", "reduction") if k in node.attrs}
    return emit(node.key.op_type, parts[0], node.input(1).name, parts[1], **attrs)


def _lossy(_node: Node) -> bool:
    """A place may hold nothing but a constant."""
    return True


@rule(
    "ScatterElements",
    versions=(18,),
    roles=_roles,
    carriers=_carriers,
    routes=element_routes(_maps),
    spread=element_spread(_maps),
    bias=_rest,
    lossy=_lossy,
)
def scatter_elements(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """To the updates ``g`` at their places; to the data ``g``, zero where it was replaced."""
    return element_vjp(emit, node, cotangent(cotangents, node), _maps)


@rule(
    "ScatterND",
    versions=(18,),
    roles=_roles,
    carriers=_carriers,
    routes=element_routes(_maps),
    spread=element_spread(_maps),
    bias=_rest,
    lossy=_lossy,
)
def scatter_nd(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """To the updates ``g`` at their places; to the data ``g``, zero where it was replaced."""
    return element_vjp(emit, node, cotangent(cotangents, node), _maps)
