"""Operators that only move, cut or join elements: Identity, Cast, Transpose, Slice, Split, Concat."""

import numpy as np

from graph_rules.registry import always, cotangent, moved, rule, same, through, to_first, varying
from srd_onnx.apop.replay import again
from srd_onnx.engine.collapse import dot
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows, Parts
from srd_onnx.graph.ir import Node, Value
from srd_onnx.graph.roles import Axes, Role, Roles

_SHAPE_VERSIONS = (13, 21, 23, 24, 25)


@rule(
    "Identity",
    versions=(16, 19, 21, 23, 24, 25),
    roles=same,
    routes=always,
    spread=through,
    carriers=moved,
    replay=again,
    head="view",
)
def identity(_emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g``."""
    return to_first(node, cotangent(cotangents, node))


@rule("Dropout", versions=(13, 22), roles=same, routes=always, spread=through, head="view")
def dropout(_emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g``: at inference it does nothing."""
    training = node.optional(2)
    node.require(
        training is None or (training.constant is not None and not training.constant.any()),
        "training mode is random; export for inference",
    )
    return to_first(node, cotangent(cotangents, node))


# Transpose


def _order(node: Node) -> tuple[int, ...]:
    return tuple(node.attrs.get("perm") or range(node.input(0).rank - 1, -1, -1))


def _transposed(node: Node, roles: Roles) -> tuple[Axes]:
    own = roles[node.input(0).name]
    return (Axes(tuple(own.roles[a] for a in _order(node)), gate=own.gate),)


def _transpose_back(emit: Emitter, node: Node, flows: Flows) -> Flows:
    back = np.argsort(_order(node))
    return to_first(node, emit("Transpose", cotangent(flows, node), perm=[int(a) for a in back]))


@rule(
    "Transpose",
    versions=_SHAPE_VERSIONS,
    roles=_transposed,
    routes=always,
    spread=_transpose_back,
    carriers=moved,
    replay=again,
)
def transpose(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` with its axes in the old order."""
    return _transpose_back(emit, node, cotangents)


# Slice, Split, Concat: parts of axes


def _sliced_axes(node: Node) -> dict[int, range]:
    """The input indices that survive, for each axis that is cut."""
    x = node.input(0)
    starts, ends, axes, steps = (node.constant(i) for i in range(1, 5))
    assert starts is not None
    assert ends is not None
    names = range(len(starts)) if axes is None else [int(a) % x.rank for a in axes]
    strides = [1] * len(starts) if steps is None else [int(s) for s in steps]
    return {
        axis: _kept(int(start), int(end), step, x.shape[axis])
        for axis, start, end, step in zip(names, starts, ends, strides, strict=True)
    }


def _kept(start: int, end: int, step: int, size: int) -> range:
    """ONNX clamps a start before the front to the first element even if the step is negative; Python does not."""
    first, last = (bound + size if bound < 0 else bound for bound in (start, end))
    if step > 0:
        return range(min(max(first, 0), size), min(max(last, 0), size), step)
    return range(min(max(first, 0), size - 1), min(max(last, -1), size - 1), step)


def _unsliced(emit: Emitter, flow: str, axis: int, kept: range, size: int, rank: int) -> str:
    """Put the kept indices of an axis back in place, zero elsewhere."""
    if kept.step == 1:
        pads = [0] * (2 * rank)
        pads[axis], pads[rank + axis] = kept.start, size - kept.stop
        return emit("Pad", flow, emit.ints(pads))
    source = np.full(size, len(kept), np.int64)
    source[list(kept)] = np.arange(len(kept))
    pads = [0] * (2 * rank)
    pads[rank + axis] = 1
    return emit("Gather", emit("Pad", flow, emit.ints(pads)), emit.const(source), axis=axis)


def _unslice(emit: Emitter, node: Node, flow: str, *, positions: bool) -> str:
    x = node.input(0)
    channels = emit.axes(x).channels if positions else ()
    for axis, kept in _sliced_axes(node).items():
        if axis not in channels and kept != range(x.shape[axis]):
            flow = _unsliced(emit, flow, axis, kept, x.shape[axis], x.rank)
    return flow


def _slice_spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    return to_first(node, _unslice(emit, node, cotangent(shares, node), positions=True))


@rule(
    "Slice",
    versions=(13,),
    roles=same,
    routes=always,
    spread=_slice_spread,
    carriers=moved,
    replay=again,
)
def slice_(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` at the indices that were kept, zero elsewhere."""
    return to_first(node, _unslice(emit, node, cotangent(cotangents, node), positions=False))


def _joined(emit: Emitter, node: Node, flows: Flows, axis: int, like: Value, *, positions: bool) -> str:
    """Concatenate the flows of several outputs, zeros where one has none."""
    parts = []
    for value, flow in zip(node.outputs, flows, strict=True):
        if value is not None:
            shape = emit.axes(value).position_shape(value) if positions else value.shape
            parts.append(flow if flow is not None else emit.zeros(shape, like.dtype))
    return emit("Concat", *parts, axis=axis) if len(parts) > 1 else parts[0]


def _split_spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    x = node.input(0)
    axis = node.attrs["axis"] % x.rank
    if axis in emit.axes(x).channels:
        return to_first(node, emit.sum([s for s in shares if s is not None]))
    return to_first(node, _joined(emit, node, shares, axis, x, positions=True))


@rule("Split", versions=(18,), roles=same, routes=always, spread=_split_spread)
def split(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """The ``g`` of all parts, joined."""
    x = node.input(0)
    return to_first(node, _joined(emit, node, cotangents, node.attrs["axis"] % x.rank, x, positions=False))


def _concat_roles(node: Node, roles: Roles) -> tuple[Axes]:
    """What an axis of size 1 means is told by the operands that are longer along it."""
    every = [(v.shape, roles[v.name]) for v in node.inputs if v is not None and v.name in roles]
    # What is constant under the pattern has the axes of the others.
    known = [(shape, axes) for shape, axes in every if not axes.inert] or every
    made = []
    for axis in range(node.output().rank):
        told = {axes.roles[axis] for shape, axes in known if shape[axis] > 1}
        node.require(
            len(told) <= 1,
            f"its operands have different axes: {', '.join(str(axes) for _, axes in known)}",
        )
        made.append(min(told or {axes.roles[axis] for _, axes in known}, key=list(Role).index))
    return (Axes(tuple(made), gate=min(axes.gate for _, axes in known)),)


def _concat_axis(node: Node) -> int:
    return int(node.attrs["axis"]) % node.output().rank


def _along_positions(node: Node, roles: Roles) -> bool:
    role = roles[node.output().name].roles[_concat_axis(node)]
    return role is not Role.CHANNEL or len(varying(node, roles)) == 1


def _parts(emit: Emitter, node: Node, flow: str) -> Flows:
    """The slice of `flow` that belongs to each operand that varies."""
    axis, start, flows = _concat_axis(node), 0, []
    for value in node.inputs:
        size = value.shape[axis] if value is not None else 0
        cut = [emit.ints([start]), emit.ints([start + size]), emit.ints([axis])]
        flows.append(emit("Slice", flow, *cut) if emit.varies(value) else None)
        start += size
    return flows


def _concat_spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    share, y = cotangent(shares, node), node.output()
    if _concat_axis(node) not in emit.axes(y).channels:
        return _parts(emit, node, share)
    carriers = varying(node, emit.roles)
    part = share if len(carriers) == 1 else emit("Div", share, emit.like(y, float(len(carriers))))
    return [part if i in carriers else None for i in range(len(node.inputs))]


def _concat_products(emit: Emitter, node: Node) -> Parts | None:
    """``|a|²`` of each operand; together they are ``|z|²``."""
    y, carriers = node.output(), varying(node, emit.roles)
    if emit.masked or _concat_axis(node) not in emit.axes(y).channels or not y.is_float:
        return None
    products = [
        dot(emit, v, v.name, v.name) if v is not None and i in carriers else None
        for i, v in enumerate(node.inputs)
    ]
    found = [one for one in products if one is not None]
    return Parts(products, norm=emit.sum(found) if len(found) == len(products) else None)


def _constant_operands(emit: Emitter, node: Node) -> str | None:
    y = node.output()
    if all(emit.varies(v) for v in node.inputs):
        return None
    parts = [
        v.name if not emit.varies(v) else emit.zeros(v.shape, y.dtype) for v in node.inputs if v is not None
    ]
    return emit("Concat", *parts, axis=_concat_axis(node))


def _has_constant_operand(node: Node) -> bool:
    return any(v is not None and v.constant is not None for v in node.inputs)


@rule(
    "Concat",
    versions=(13,),
    roles=_concat_roles,
    routes=_along_positions,
    spread=_concat_spread,
    bias=_constant_operands,
    lossy=_has_constant_operand,
    parts=_concat_products,
)
def concat(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """Each operand its slice of ``g``. Along channels, with expand and collapse: ``R_a = R_z |a|² / |z|²``."""
    return _parts(emit, node, cotangent(cotangents, node))
