"""ScatterElements and ScatterND with constant indices: data with some elements replaced, or reduced with others.

TensorScatter writes into a cache, at indices that may be computed.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from onnx import TensorProto

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
from graph_rules.scatter_reduced import reduced_bias, reduced_vjp
from srd_onnx.apop.replay import again
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Array, Node
from srd_onnx.graph.roles import Axes, Role, Roles

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
    node.require(
        node.attrs["reduction"] != "none" or len(np.unique(places)) == len(places),
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
    if node.attrs["reduction"] not in ("none", "add"):
        return reduced_bias(emit, node, _places(node))
    data, updates = node.input(DATA), node.input(UPDATES)
    if emit.varies(data) and emit.varies(updates):
        return None
    parts = [emit.zeros(v.shape, v.dtype) if emit.varies(v) else v.name for v in (data, updates)]
    attrs = {k: node.attrs[k] for k in ("axis", "reduction") if k in node.attrs}
    return emit(node.key.op_type, parts[0], node.input(1).name, parts[1], **attrs)


def _computed_vjp(emit: Emitter, node: Node, g: str) -> Flows:
    """With computed indices, as in the VJPs of MaxPool and TopK, what is added is read where it was put."""
    adds, data, updates = node.attrs["reduction"] == "add", node.input(DATA), node.input(UPDATES)
    node.require(adds or not emit.varies(data), "computed indices that replace computed data have no rule")
    attrs = {"axis": node.attrs["axis"]} if "axis" in node.attrs else {}
    kind = "GatherElements" if node.key.op_type == "ScatterElements" else "GatherND"
    put = emit(kind, g, node.input(1).name, **attrs) if emit.varies(updates) else None
    return [g if emit.varies(data) else None, None, put]


def _lossy(_node: Node) -> bool:
    """A place may hold nothing but a constant."""
    return True


_scatter = partial(
    rule,
    versions=(18,),
    roles=_roles,
    carriers=_carriers,
    routes=element_routes(_maps),
    spread=element_spread(_maps),
    bias=_rest,
    lossy=_lossy,
)


@_scatter("ScatterElements")
@_scatter("ScatterND")
def scatter(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """To the updates ``g`` at their places; to the data ``g``, zero where it was replaced.

    "max" and "min": ``g`` to the winner; "mul": ``g`` times the other factors, shared by those that vary (ours).
    """
    g = cotangent(cotangents, node)
    if node.input(1).constant is None:
        return _computed_vjp(emit, node, g)
    if node.attrs["reduction"] not in ("none", "add"):
        return reduced_vjp(emit, node, g, _places(node))
    return element_vjp(emit, node, g, _maps)


# TensorScatter


CACHE, UPDATE = 0, 1


def _written_axis(node: Node) -> int:
    return int(node.attrs["axis"]) % node.input(CACHE).rank


def _cache_carriers(node: Node, roles: Roles) -> tuple[int, ...]:
    return tuple(i for i in varying(node, roles) if i in (CACHE, UPDATE))


def _cache_roles(node: Node, roles: Roles) -> tuple[Axes]:
    known = [roles[node.input(i).name] for i in _cache_carriers(node, roles)]
    node.require(bool(known), "neither its cache nor its update is of real numbers that vary")
    node.require(
        len({axes.roles for axes in known}) == 1,
        f"its cache and its update have different axes: {', '.join(map(str, known))}",
    )
    node.require(known[0].roles[_written_axis(node)] is not Role.BATCH, "it writes along the batch axis")
    return (Axes(known[0].roles, gate=min(axes.gate for axes in known)),)


def _cache_routes(node: Node, roles: Roles) -> bool:
    """Along positions each output position is of the cache or of the update; along channels of both."""
    inside = roles[node.output().name].roles[_written_axis(node)] is Role.CHANNEL
    return not inside or len(_cache_carriers(node, roles)) == 1


def _written(emit: Emitter, node: Node, shape: Sequence[int]) -> str:
    """For each element of an update of this shape, where along the axis it goes: int64 of `shape`."""
    axis, given = _written_axis(node), node.optional(2)
    offsets = np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    indices = emit.const(offsets.astype(np.int64))
    if given is not None:
        starts = emit.reshape(given.name, [-1, *[1] * (len(shape) - 1)])
        indices = emit("Add", emit("Cast", starts, to=TensorProto.INT64), indices)
    if node.attrs["mode"] == "circular":
        indices = emit("Mod", indices, emit.ints([node.input(CACHE).shape[axis]]))
    return emit("Expand", indices, emit.ints(shape))


def _read_back(emit: Emitter, node: Node, flow: str, shape: Sequence[int]) -> Flows:
    """To the update, of this shape, the flow where it was written; to the cache the rest."""
    axis, places = _written_axis(node), _written(emit, node, shape)
    blank = emit.zeros(shape, node.output().dtype)
    flows: list[str | None] = [None] * len(node.inputs)
    if emit.varies(node.input(CACHE)):
        flows[CACHE] = emit("ScatterElements", flow, places, blank, axis=axis)
    if emit.varies(node.input(UPDATE)):
        flows[UPDATE] = emit("GatherElements", flow, places, axis=axis)
    return flows


def _cache_spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    share, y = cotangent(shares, node), node.output()
    if _written_axis(node) not in emit.axes(y).channels:
        update = node.input(UPDATE)
        return _read_back(emit, node, share, emit.axes(y).position_shape(update))
    carriers = _cache_carriers(node, emit.roles)
    part = share if len(carriers) == 1 else emit("Div", share, emit.like(y, float(len(carriers))))
    return [part if i in carriers else None for i in range(len(node.inputs))]


def _cache_rest(emit: Emitter, node: Node) -> str | None:
    """What the operand that does not vary puts in."""
    operands = [node.input(CACHE), node.input(UPDATE)]
    if all(emit.varies(v) for v in operands):
        return None
    parts = [emit.zeros(v.shape, v.dtype) if emit.varies(v) else v.name for v in operands]
    where = [v.name for v in node.inputs[2:] if v is not None]
    return emit("TensorScatter", *parts, *where, axis=node.attrs["axis"], mode=node.attrs["mode"])


@rule(
    "TensorScatter",
    versions=(24,),
    roles=_cache_roles,
    carriers=_cache_carriers,
    routes=_cache_routes,
    spread=_cache_spread,
    bias=_cache_rest,
    lossy=_lossy,
    replay=again,
)
def tensor_scatter(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """To the update ``g`` where it was written; to the cache ``g``, zero there. The indices are the pattern."""
    return _read_back(emit, node, cotangent(cotangents, node), node.input(UPDATE).shape)
