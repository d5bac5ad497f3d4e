"""Operators that read a picture between its pixels, or put pixels back: loops over samples and taps."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.oracle_types import Array, Attrs, Freeze, Oracle, Replay, as_stored, here
from tests.oracle_windows import conv, slide

FEEDS = 1e-4  # a weight below this is rounding

Tap = tuple[int, float]


@dataclass(frozen=True)
class Reading:
    """One tap: the output element `to` gets `weight` times the input element `of`; channels stay what they are."""

    to: tuple[int, ...]
    of: tuple[int, ...]
    weight: float


def _read(readings: Sequence[Reading], shape: Sequence[int], z: Array) -> Array:
    """`to` and `of` name the first axis and the positions."""
    y = np.zeros(tuple(shape))
    for r in readings:
        y[here(r.to[0], slice(None), *r.to[1:])] += r.weight * z[here(r.of[0], slice(None), *r.of[1:])]
    return y


def _fed(line: Sequence[Tap]) -> list[Tap]:
    """Each place along an axis whose taps do not cancel, once and with weight 1."""
    sums: dict[int, float] = {}
    for at, weight in line:
        sums[at] = sums.get(at, 0.0) + weight
    return [(at, 1.0) for at, weight in sums.items() if abs(weight) > FEEDS]


def _crossed(to: tuple[int, ...], of: int, lines: Sequence[Sequence[Tap]]) -> Iterator[Reading]:
    """Every combination of taps along the axes."""
    for taps in itertools.product(*lines):
        yield Reading(to, (of, *(at for at, _ in taps)), math.prod(weight for _, weight in taps))


# GridSample


def _cubic(distance: float) -> float:
    d, a = abs(distance), -0.75
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def _reflected(index: int, size: int, *, centres: bool) -> int:
    """Mirrored at the outer pixels' centres or at the picture's edges until it lies inside."""
    if size == 1:
        return 0
    while not 0 <= index < size:
        if index < 0:
            index = -index if centres else -1 - index
        else:
            index = 2 * (size - 1) - index if centres else 2 * size - 1 - index
    return index


def _line(attrs: Attrs, place: float, size: int) -> list[Tap]:
    """The taps along one axis of a sample at `place`, in pixels."""
    mode, low = attrs.get("mode", "linear").removeprefix("bi"), math.floor(place)
    if mode == "nearest":
        taps = [(round(place), 1.0)]  # of two nearest ones the even, as ONNX has it
    elif mode == "linear":
        taps = [(low, 1 - (place - low)), (low + 1, place - low)]
    else:
        taps = [(at, _cubic(place - at)) for at in range(low - 1, low + 3)]
    padding, aligned = attrs.get("padding_mode", "zeros"), bool(attrs.get("align_corners"))
    if padding == "zeros":
        return [(at, weight) for at, weight in taps if 0 <= at < size]
    if padding == "border":
        return [(min(max(at, 0), size - 1), weight) for at, weight in taps]
    return [(_reflected(at, size, centres=aligned), weight) for at, weight in taps]


def _pixels(attrs: Attrs, place: float, size: int) -> float:
    return (place + 1) / 2 * (size - 1) if attrs.get("align_corners") else ((place + 1) * size - 1) / 2


def _sampled(line: Callable[[Attrs, float, int], list[Tap]]) -> Freeze:
    def freeze(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
        x, grid = operands[:2]
        readings: list[Reading] = []
        for n, *out in np.ndindex(grid.shape[:-1]):
            places = zip(grid[here(n, *out)][::-1], x.shape[2:], strict=True)
            lines = [line(attrs, _pixels(attrs, float(place), size), size) for place, size in places]
            readings += _crossed((n, *out), n, lines)
        shape = (*x.shape[:2], *grid.shape[1:-1])
        return lambda z: [_read(readings, shape, z[0])]

    return freeze


grid_sample = _sampled(_line)
_grid_structure = _sampled(lambda attrs, place, size: _fed(_line(attrs, place, size)))


# MaxUnpool and Col2Im


def unpooled_shape(attrs: Attrs, operands: Sequence[Any]) -> tuple[int, ...]:
    if len(operands) > 2 and operands[2] is not None:
        return tuple(int(n) for n in operands[2])
    source, kernel = operands[0].shape[2:], attrs["kernel_shape"]
    strides, pads = attrs.get("strides", [1] * len(kernel)), attrs.get("pads", [0] * 2 * len(kernel))
    sizes = [
        (n - 1) * s + k - pads[a] - pads[a + len(kernel)]
        for a, (n, s, k) in enumerate(zip(source, strides, kernel, strict=True))
    ]
    return (*operands[0].shape[:2], *sizes)


def max_unpool(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    """The indices count the elements of the result, whatever its size; the last one to go to a place stays."""
    shape, places = unpooled_shape(attrs, operands), operands[1]

    def replay(z: Sequence[Any]) -> list[Array]:
        flat = np.zeros(math.prod(shape))
        for at in np.ndindex(places.shape):
            flat[places[at]] = z[0][at]
        return [flat.reshape(shape)]

    return replay


def _unpool_structure(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    """To every position of the window that a maximum stood for."""
    shape, kernel = unpooled_shape(attrs, operands), attrs["kernel_shape"]
    strides, pads = attrs.get("strides", [1] * len(kernel)), attrs.get("pads", [0] * 2 * len(kernel))

    def replay(z: Sequence[Any]) -> list[Array]:
        y = np.zeros(shape)
        for at in np.ndindex(z[0].shape[2:]):
            for tap in np.ndindex(*kernel):
                to = [a * s + k - b for a, s, k, b in zip(at, strides, tap, pads[: len(kernel)], strict=True)]
                if all(0 <= t < n for t, n in zip(to, shape[2:], strict=True)):
                    y[here(..., *to)] += z[0][here(..., *at)]
        return [y]

    return replay


def _col2im(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    """The blocks of a window that slides over the image, in order."""
    image, block = (tuple(int(n) for n in o) for o in operands[1:3])
    window = slide(attrs, image, block)

    def replay(z: Sequence[Any]) -> list[Array]:
        x = z[0].reshape(z[0].shape[0], -1, math.prod(block), z[0].shape[2])
        y = np.zeros((*x.shape[:2], *image))
        for number, out in enumerate(window.outputs()):
            for element, (_, at) in enumerate(window.taps(out)):
                if window.inside(at):
                    y[here(..., *at)] += x[:, :, element, number]
        return [y]

    return replay


# DeformConv


def deform_conv(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    x, weights, offsets, bias, mask = [*operands, None, None][:5]
    group, parts = attrs.get("group", 1), attrs.get("offset_group", 1)
    window = slide(attrs, x.shape[2:], weights.shape[2:])
    taps = math.prod(window.kernel)
    flat = weights.reshape(*weights.shape[:2], taps)

    def taken(n: int, part: int, tap: int, at: tuple[int, ...], out: tuple[int, ...]) -> list[Reading]:
        """The taps of one sample, its gate in their weights."""
        channel = part * taps + tap
        places = [float(a + offsets[here(n, 2 * channel + axis, *out)]) for axis, a in enumerate(at)]
        lines = [_line({}, place, size) for place, size in zip(places, window.source, strict=True)]
        gate = 1.0 if mask is None else float(mask[here(n, channel, *out)])
        return [Reading(r.to, r.of, r.weight * gate) for r in _crossed((n, *out), n, lines)]

    samples = [
        (n, part, tap, out, taken(n, part, tap, at, out))
        for n, part in np.ndindex(x.shape[0], parts)
        for out in window.outputs()
        for tap, (_, at) in enumerate(window.taps(out))
    ]
    ins, outs, each = x.shape[1] // group, weights.shape[0] // group, x.shape[1] // parts

    def replay(z: Sequence[Any]) -> list[Array]:
        y = np.zeros((x.shape[0], weights.shape[0], *window.result))
        for n, part, tap, out, readings in samples:
            for channel in range(part * each, (part + 1) * each):
                seen = sum(r.weight * z[0][here(n, channel, *r.of[1:])] for r in readings)
                own = channel // ins
                for to in range(own * outs, (own + 1) * outs):
                    y[here(n, to, *out)] += flat[to, channel % ins, tap] * seen
        return [y if bias is None else y + bias[:, None, None]]

    return replay


def _undeformed(attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    """The window without its offsets."""
    return conv(attrs, [np.ones_like(operand) for operand in operands[:2]], held)


# RoiAlign


def _bilinear(place: float, size: int) -> list[Tap]:
    """Held at the border; more than a pixel beside the picture there is nothing."""
    if place < -1 or place > size:
        return []
    place = min(max(place, 0.0), size - 1.0)
    low = math.floor(place)
    return [(low, 1 - (place - low)), (min(low + 1, size - 1), place - low)]


def _bins(attrs: Attrs, region: Array, axis: int, size: int) -> list[list[list[Tap]]]:
    """For each bin of a region along an axis the taps of each of its samples."""
    shifted = attrs.get("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    offset, scale = 0.5 if shifted else 0.0, as_stored(attrs.get("spatial_scale", 1.0))
    start, end = (float(region[at]) * scale - offset for at in (1 - axis, 3 - axis))
    count = attrs.get(("output_height", "output_width")[axis], 1)
    extent = end - start if shifted else max(end - start, 1.0)
    each = attrs.get("sampling_ratio", 0) or math.ceil(extent / count)
    return [
        [_bilinear(start + (b + (i + 0.5) / each) * extent / count, size) for i in range(each)]
        for b in range(count)
    ]


Bin = tuple[tuple[int, ...], int, list[list[Tap]], list[list[Tap]]]


def _regions(attrs: Attrs, operands: Sequence[Any]) -> Iterator[Bin]:
    """(output position, item of the batch, the samples along the height, those along the width)."""
    x, regions, items = operands[:3]
    for number, region in enumerate(regions):
        rows, columns = (_bins(attrs, region, axis, x.shape[2 + axis]) for axis in range(2))
        for (p, row), (q, column) in itertools.product(enumerate(rows), enumerate(columns)):
            yield (number, p, q), int(items[number]), row, column


def _mean_of(line: list[list[Tap]]) -> list[Tap]:
    return [(at, weight / len(line)) for taps in line for at, weight in taps]


def _averaged(merged: Callable[[list[Tap]], list[Tap]]) -> Freeze:
    def freeze(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
        readings: list[Reading] = []
        for to, item, *lines in _regions(attrs, operands):
            readings += _crossed(to, item, [merged(_mean_of(line)) for line in lines])
        shape = (
            len(operands[1]),
            operands[0].shape[1],
            *(attrs.get(f"output_{a}", 1) for a in ("height", "width")),
        )
        return lambda z: [_read(readings, shape, z[0])]

    return freeze


def _highest(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    """The greatest of all taps of all samples, each with its weight; a sample beside the picture is 0."""
    x, channels = operands[0], operands[0].shape[1]
    won: list[tuple[tuple[int, ...], list[Reading]]] = []

    def value(reading: Reading, channel: int) -> float:
        return float(reading.weight * x[here(reading.of[0], channel, *reading.of[1:])])

    for to, item, rows, columns in _regions(attrs, operands):
        nothing = Reading(to, (item, 0, 0), 0.0)
        taps = [
            reading
            for row, column in itertools.product(rows, columns)
            for reading in list(_crossed(to, item, [row, column])) or [nothing]
        ]
        won.append((to, [taps[int(np.argmax([value(r, c) for r in taps]))] for c in range(channels)]))
    shape = (len(operands[1]), channels, *(attrs.get(f"output_{a}", 1) for a in ("height", "width")))

    def replay(z: Sequence[Any]) -> list[Array]:
        y = np.zeros(shape)
        for (number, p, q), winners in won:
            for c, r in enumerate(winners):
                y[number, c, p, q] = r.weight * z[0][here(r.of[0], c, *r.of[1:])]
        return [y]

    return replay


def _roi_align(attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    return (_highest if attrs.get("mode") == "max" else _averaged(list))(attrs, operands, held)


SAMPLING = {
    "RoiAlign": Oracle(_roi_align, _averaged(_fed)),
    "DeformConv": Oracle(deform_conv, _undeformed),
    "Col2Im": Oracle(_col2im, _col2im),
    "MaxUnpool": Oracle(max_unpool, _unpool_structure),
    "GridSample": Oracle(grid_sample, _grid_structure),
}
