"""Operators that move, repeat or place elements, written down from the text of ONNX: loops over output elements."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.oracle_types import Array, Attrs, Freeze, Oracle, Replay

Held = frozenset[int]
Place = tuple[int, ...]


def copying(source: Callable[[Attrs, Sequence[Any], Place], Place | None], shape: Any) -> Freeze:
    """Each output element is a copy of the input element that `source` names, or zero (`fill`)."""

    def freeze(attrs: Attrs, operands: Sequence[Any], _held: Held) -> Replay:
        made = tuple(int(s) for s in shape(attrs, operands))
        places = {out: source(attrs, operands, out) for out in np.ndindex(made)}

        def replay(z: Sequence[Any]) -> list[Array]:
            y = np.zeros(made)
            for out, at in places.items():
                y[out] = 0.0 if at is None else z[0][at]
            return [y]

        return replay

    return freeze


def of_copies(
    source: Callable[[Attrs, Sequence[Any], Place], Place | None],
    shape: Callable[[Attrs, Sequence[Any]], Sequence[int]],
) -> Oracle:
    freeze = copying(source, shape)
    return Oracle(freeze, freeze)


def _axis(attrs: Attrs, operands: Sequence[Any], default: int = 0) -> int:
    axis = int(attrs.get("axis", default))
    return axis + operands[0].ndim if axis < 0 else axis


# Gather, GatherElements, GatherND


def _gather_shape(attrs: Attrs, operands: Sequence[Any]) -> tuple[int, ...]:
    axis = _axis(attrs, operands)
    return (*operands[0].shape[:axis], *operands[1].shape, *operands[0].shape[axis + 1 :])


def _gather(attrs: Attrs, operands: Sequence[Any], out: Place) -> Place:
    axis, rank = _axis(attrs, operands), operands[1].ndim
    index = int(operands[1][out[axis : axis + rank]])
    return (*out[:axis], index, *out[axis + rank :])


def _gather_elements(attrs: Attrs, operands: Sequence[Any], out: Place) -> Place:
    axis = _axis(attrs, operands)
    return (*out[:axis], int(operands[1][out]), *out[axis + 1 :])


def _gather_nd_shape(attrs: Attrs, operands: Sequence[Any]) -> tuple[int, ...]:
    x, indices = operands[:2]
    return (*indices.shape[:-1], *x.shape[attrs.get("batch_dims", 0) + indices.shape[-1] :])


def _gather_nd(attrs: Attrs, operands: Sequence[Any], out: Place) -> Place:
    indices, batch = operands[1], attrs.get("batch_dims", 0)
    lead = indices.ndim - 1
    return (*out[:batch], *(int(i) for i in indices[out[:lead]]), *out[lead:])


# ScatterElements, ScatterND


def _scatter(targets: Callable[[Attrs, Sequence[Any]], dict[Place, Place]]) -> Oracle:
    """`targets` says for each element of the updates where it goes."""

    def freeze(attrs: Attrs, operands: Sequence[Any], held: Held) -> Replay:
        places = targets(attrs, operands)
        reduction = attrs.get("reduction", "none")
        if reduction in ("mul", "max", "min"):
            return _reduced(reduction, operands, held, places)
        add = reduction == "add"

        def replay(z: Sequence[Any]) -> list[Array]:
            data, updates = (np.asarray(operands[i] if i in held else z[i], float) for i in (0, 2))
            y = data.copy()
            for at, to in places.items():
                y[to] = y[to] + updates[at] if add else updates[at]
            return [y]

        return replay

    def structure(attrs: Attrs, operands: Sequence[Any], held: Held) -> Replay:
        sums = attrs.get("reduction", "none") != "none"
        return freeze({**attrs, "reduction": "add"} if sums else attrs, operands, held)

    return Oracle(freeze, structure)


def _reduced(kind: str, operands: Sequence[Any], held: Held, places: dict[Place, Place]) -> Replay:
    """Of a product each factor that is not held has an equal part; of an extremum all winners have."""
    sources: dict[Place, list[tuple[int, Place]]] = {at: [(0, at)] for at in np.ndindex(operands[0].shape)}
    for at, to in places.items():
        wrapped = tuple(i % n for i, n in zip(to, operands[0].shape, strict=True))
        sources[wrapped].append((2, at))
    weights: dict[Place, list[tuple[int, Place, float]]] = {}
    rest: dict[Place, float] = {}
    for out, given in sources.items():
        values = [float(operands[which][at]) for which, at in given]
        free = [i for i, (which, _) in enumerate(given) if which not in held]
        rest[out] = 0.0
        if kind == "mul":
            parts = [math.prod(values[:i] + values[i + 1 :]) / len(free) for i in free]
            rest[out] = 0.0 if free else math.prod(values)
        else:
            best = max(values) if kind == "max" else min(values)
            winners = [i for i, value in enumerate(values) if value == best]
            parts = [1 / len(winners) if i in winners else 0.0 for i in free]
            rest[out] = best * sum(i not in free for i in winners) / len(winners)
        weights[out] = [(*given[i], part) for i, part in zip(free, parts, strict=True)]

    def replay(z: Sequence[Any]) -> list[Array]:
        y = np.zeros(operands[0].shape)
        for out, terms in weights.items():
            y[out] = rest[out] + sum(part * z[which][at] for which, at, part in terms)
        return [y]

    return replay


def _element_targets(attrs: Attrs, operands: Sequence[Any]) -> dict[Place, Place]:
    axis = _axis(attrs, operands)
    return {at: (*at[:axis], int(operands[1][at]), *at[axis + 1 :]) for at in np.ndindex(operands[2].shape)}


def _slice_targets(_attrs: Attrs, operands: Sequence[Any]) -> dict[Place, Place]:
    indices = operands[1]
    lead = indices.ndim - 1
    return {at: (*(int(i) for i in indices[at[:lead]]), *at[lead:]) for at in np.ndindex(operands[2].shape)}


# Expand, Tile, Pad, CenterCropPad


def _expand_shape(_attrs: Attrs, operands: Sequence[Any]) -> tuple[int, ...]:
    return np.broadcast_shapes(operands[0].shape, tuple(int(s) for s in operands[1]))


def _expand(_attrs: Attrs, operands: Sequence[Any], out: Place) -> Place:
    shape = operands[0].shape
    return tuple(0 if n == 1 else o for n, o in zip(shape, out[len(out) - len(shape) :], strict=True))


def _tile_shape(_attrs: Attrs, operands: Sequence[Any]) -> list[int]:
    return [n * int(r) for n, r in zip(operands[0].shape, operands[1], strict=True)]


def _tile(_attrs: Attrs, operands: Sequence[Any], out: Place) -> Place:
    return tuple(o % n for o, n in zip(out, operands[0].shape, strict=True))


def _sides(operands: Sequence[Any]) -> list[tuple[int, int]]:
    x, pads, _, axes = [*operands, None, None][:4]
    chosen = [int(a) % x.ndim for a in axes] if axes is not None else list(range(x.ndim))
    sides = [(0, 0)] * x.ndim
    for i, axis in enumerate(chosen):
        sides[axis] = (int(pads[i]), int(pads[len(chosen) + i]))
    return sides


def _padded_index(mode: str, at: int, size: int) -> int | None:
    if 0 <= at < size:
        return at
    if mode == "edge":
        return 0 if at < 0 else size - 1
    if mode == "wrap":
        return at % size
    if mode == "reflect":
        return -at if at < 0 else 2 * (size - 1) - at
    return None


def _pad(attrs: Attrs, operands: Sequence[Any], held: Held) -> Replay:
    mode, sides = attrs.get("mode", "constant"), _sides(operands)
    value = operands[2] if len(operands) > 2 else None
    fill = 0.0 if value is None or mode != "constant" else float(value)
    shape = [n + b + a for n, (b, a) in zip(operands[0].shape, sides, strict=True)]

    def source(_attrs: Attrs, _operands: Sequence[Any], out: Place) -> Place | None:
        at = [
            _padded_index(mode, o - b, n) for o, (b, _), n in zip(out, sides, operands[0].shape, strict=True)
        ]
        return None if None in at else tuple(i for i in at if i is not None)

    moved = copying(source, lambda _attrs, _operands: shape)(attrs, operands, held)
    padding = np.array([source(attrs, operands, out) is None for out in np.ndindex(*shape)]).reshape(shape)
    return lambda z: [moved(z)[0] + padding * fill]


def _crop_shape(attrs: Attrs, operands: Sequence[Any]) -> list[int]:
    shape = list(operands[0].shape)
    axes = attrs.get("axes", range(len(shape)))
    for axis, size in zip(axes, operands[1], strict=True):
        shape[axis] = int(size)
    return shape


def _crop(attrs: Attrs, operands: Sequence[Any], out: Place) -> Place | None:
    at = []
    for o, old, new in zip(out, operands[0].shape, _crop_shape(attrs, operands), strict=True):
        moved = o + (old - new) // 2 if old >= new else o - (new - old) // 2
        if not 0 <= moved < old:
            return None
        at.append(moved)
    return tuple(at)


# Blocks, sequences, running sums


def _to_space_shape(attrs: Attrs, operands: Sequence[Any]) -> tuple[int, ...]:
    (n, c, h, w), side = operands[0].shape, attrs["blocksize"]
    return n, c // side**2, h * side, w * side


def _to_space(attrs: Attrs, operands: Sequence[Any], out: Place) -> Place:
    n, c, h, w = out
    side, made = attrs["blocksize"], _to_space_shape(attrs, operands)[1]
    row, column = h % side, w % side
    if attrs.get("mode", "DCR") == "DCR":
        channel = (row * side + column) * made + c
    else:
        channel = (c * side + row) * side + column
    return n, channel, h // side, w // side


def _to_depth_shape(attrs: Attrs, operands: Sequence[Any]) -> tuple[int, ...]:
    (n, c, h, w), side = operands[0].shape, attrs["blocksize"]
    return n, c * side**2, h // side, w // side


def _to_depth(attrs: Attrs, operands: Sequence[Any], out: Place) -> Place:
    n, channel, h, w = out
    side, c = attrs["blocksize"], operands[0].shape[1]
    if attrs.get("mode", "DCR") == "DCR":
        block, at = divmod(channel, c)
    else:
        at, block = divmod(channel, side**2)
    return n, at, h * side + block // side, w * side + block % side


def _reverse(attrs: Attrs, operands: Sequence[Any], out: Place) -> Place:
    batch, time = attrs.get("batch_axis", 1), attrs.get("time_axis", 0)
    length, at = int(operands[1][out[batch]]), list(out)
    if at[time] < length:
        at[time] = length - 1 - at[time]
    return tuple(at)


def _cum_sum(attrs: Attrs, operands: Sequence[Any], _held: Held) -> Replay:
    axis = int(operands[1])
    size = operands[0].shape[axis]

    def included(out: int, i: int) -> bool:
        ahead = i - out if attrs.get("reverse") else out - i
        return ahead > 0 or (ahead == 0 and not attrs.get("exclusive"))

    def replay(z: Sequence[Any]) -> list[Array]:
        parts = np.moveaxis(z[0], axis, 0)
        y = np.zeros(parts.shape)
        for out, i in itertools.product(range(size), range(size)):
            if included(out, i):
                y[out] += parts[i]
        return [np.moveaxis(y, 0, axis)]

    return replay


def _trilu(attrs: Attrs, operands: Sequence[Any], out: Place) -> Place | None:
    k = int(operands[1]) if len(operands) > 1 else 0
    row, column = out[-2:]
    kept = column - row >= k if attrs.get("upper", 1) else column - row <= k
    return out if kept else None


def _own_shape(_attrs: Attrs, operands: Sequence[Any]) -> tuple[int, ...]:
    return tuple(operands[0].shape)


MOVING: dict[str, Oracle] = {
    "Gather": of_copies(_gather, _gather_shape),
    "GatherElements": of_copies(_gather_elements, lambda _attrs, operands: operands[1].shape),
    "GatherND": of_copies(_gather_nd, _gather_nd_shape),
    "ScatterElements": _scatter(_element_targets),
    "ScatterND": _scatter(_slice_targets),
    "Expand": of_copies(_expand, _expand_shape),
    "Tile": of_copies(_tile, _tile_shape),
    "Pad": Oracle(_pad, _pad),
    "CenterCropPad": of_copies(_crop, _crop_shape),
    "DepthToSpace": of_copies(_to_space, _to_space_shape),
    "SpaceToDepth": of_copies(_to_depth, _to_depth_shape),
    "ReverseSequence": of_copies(_reverse, _own_shape),
    "CumSum": Oracle(_cum_sum, _cum_sum),
    "Trilu": of_copies(_trilu, _own_shape),
}
