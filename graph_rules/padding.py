"""Pad in its four modes, and CenterCropPad. A constant pad comes from no input; the others repeat what is there."""

import numpy as np

from graph_rules.axis_maps import AxisMap, along_lossy, along_routes, along_spread, along_vjp, keeps_batch
from graph_rules.registry import rule, same
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Array, Node
from srd_onnx.graph.roles import Axes, Roles


def _pads(node: Node) -> tuple[list[int], list[int]]:
    """Pads before and after each axis; a negative one is a cut."""
    x, given, axes = node.input(0), node.constant(1), node.constant(3)
    assert given is not None
    chosen = range(x.rank) if axes is None else [int(a) % x.rank for a in axes]
    before, after = [0] * x.rank, [0] * x.rank
    for i, axis in enumerate(chosen):
        before[axis], after[axis] = int(given[i]), int(given[len(given) // 2 + i])
    return before, after


def _padded_axis(node: Node, size: int, before: int, after: int) -> Array:
    """For each index of the padded axis the input index it copies, -1 for a constant."""
    mode = node.attrs["mode"]
    if mode == "constant":
        grown = np.pad(np.arange(size), (max(before, 0), max(after, 0)), constant_values=-1)
        return np.asarray(grown[max(-before, 0) : len(grown) - max(-after, 0)])
    node.require(min(before, after) >= 0, f"mode '{mode}' with a negative pad: runtimes disagree on it")
    limit = {"reflect": size - 1, "wrap": size}.get(mode, before + after)
    node.require(
        max(before, after) <= limit,
        f"mode '{mode}' with a pad of {max(before, after)} on an axis of {size}: runtimes disagree on it",
    )
    return np.pad(np.arange(size), (before, after), mode=mode)


def _paddings(node: Node) -> dict[int, AxisMap]:
    return {
        axis: AxisMap.copies(_padded_axis(node, size, before, after), size)
        for axis, (size, before, after) in enumerate(zip(node.input(0).shape, *_pads(node), strict=True))
        if before or after
    }


def _padded(node: Node, roles: Roles) -> tuple[Axes, ...]:
    keeps_batch(node, roles, _paddings)
    return same(node, roles)


def _pad_constant(emit: Emitter, node: Node) -> str | None:
    """What a constant padding other than zero adds."""
    value = node.constant(2)
    if node.attrs["mode"] != "constant" or value is None or not value.any():
        return None
    x, inside = node.input(0), np.ones((1,) * node.input(0).rank, bool)
    for axis, along in _paddings(node).items():
        shape = [-1 if a == axis else 1 for a in range(x.rank)]
        inside = inside & (along.feeds > 0).reshape(shape)
    return emit.const(np.where(inside, 0, value.item()).astype(x.dtype))


@rule(
    "Pad",
    versions=(18, 19, 21, 23, 24, 25),
    roles=_padded,
    routes=along_routes(_paddings),
    spread=along_spread(_paddings),
    bias=_pad_constant,
    lossy=along_lossy(_paddings),
)
def pad(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` summed over the copies of each element; on a constant padding it is dropped. A negative pad is a cut."""
    return along_vjp(emit, node, cotangents, _paddings)


def _centred(node: Node) -> dict[int, AxisMap]:
    """The middle of each axis, or zeros around it; an odd rest is cut at the front's rounding, padded at the end."""
    x, given = node.input(0), node.attrs.get("axes")
    axes = range(x.rank) if given is None else [int(a) % x.rank for a in given]
    maps = {}
    for axis in axes:
        size, made = x.shape[axis], node.output().shape[axis]
        first = (size - made) // 2 if size >= made else -((made - size) // 2)
        source = np.arange(first, first + made)
        maps[axis] = AxisMap.copies(np.where((source >= 0) & (source < size), source, -1), size)
    return maps


def _centred_roles(node: Node, roles: Roles) -> tuple[Axes, ...]:
    keeps_batch(node, roles, _centred)
    return same(node, roles)


@rule(
    "CenterCropPad",
    versions=(18,),
    roles=_centred_roles,
    routes=along_routes(_centred),
    spread=along_spread(_centred),
    lossy=along_lossy(_centred),
)
def center_crop_pad(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` back in the middle: cut where it was padded, zeros where it was cut."""
    return along_vjp(emit, node, cotangents, _centred)
