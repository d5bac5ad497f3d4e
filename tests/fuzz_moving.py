"""Grown moves: what cuts, repeats, pads, resizes and rearranges."""

import math
from typing import Any

import numpy as np

from tests.fuzz_builder import Block, Builder, Feature
from tests.fuzz_contractions import mixing, pointwise


def there_and_back(g: Builder, f: Feature) -> Feature:
    """What moves nothing: Unsqueeze and Squeeze, Transpose twice, Dropout, Identity."""
    x, rank = f.name, len(f.shape)
    kind = g.integer(0, 3)
    if kind == 0:
        at = g.integer(1, rank)
        name = g("Squeeze", g("Relu", g("Unsqueeze", x, g.ints(at))), g.ints(at))
    elif kind == 1:
        order = [0, *range(rank - 1, 0, -1)]
        name = g("Transpose", g("Tanh", g("Transpose", x, perm=order)), perm=order)
    else:
        name = g("Dropout", x) if kind == 2 else g("Identity", x)
    return f.like(name)


def rolled(g: Builder, f: Feature) -> Feature:
    """Swin's cyclic shift, or everything backwards."""
    axis = g.one_of(*f.positions)
    if g.yes():
        step = (g.ints(-1), g.ints(-(2**31)), g.ints(axis), g.ints(-1))
        return f.like(g("Slice", f.name, *step))
    low = g("Slice", f.name, g.ints(0), g.ints(1), g.ints(axis))
    high = g("Slice", f.name, g.ints(1), g.ints(2**31), g.ints(axis))
    return f.like(g("Concat", high, low, axis=axis - g.one_of(0, len(f.shape))))


def cumulative(g: Builder, f: Feature) -> Feature:
    axis = g.one_of(*f.positions)
    return f.like(g("CumSum", f.name, np.int64(axis), reverse=g.integer(0, 1)))


def triangle(g: Builder, f: Feature) -> Feature:
    if g.opset < 14:
        return mixing(g, f)
    return f.like(g("Trilu", f.name, np.int64(g.integer(-1, 1)), upper=g.integer(0, 1)))


def reversed_start(g: Builder, f: Feature) -> Feature:
    """The first elements of each item backwards: as many as its length."""
    if g.open_batch or f.channel == 1:
        return mixing(g, f)
    lengths = g.ints(*(g.integer(1, f.shape[1]) for _ in range(f.shape[0])))
    return f.like(g("ReverseSequence", f.name, lengths, batch_axis=0, time_axis=1))


def channel_shuffle(g: Builder, f: Feature) -> Feature:
    groups = g.one_of(*[n for n in range(1, f.channels + 1) if f.channels % n == 0])
    parts = (groups, f.channels // groups)
    at, rank = f.channel, len(f.shape)
    split = g.reshape(f, "", (*f.shape[:at], *parts, *f.shape[at + 1 :]))
    order = list(range(rank + 1))
    order[at], order[at + 1] = at + 1, at
    return g.reshape(f, f.layout, f.shape, g("Transpose", split.name, perm=order))


def scattered(g: Builder, f: Feature) -> Feature:
    """Some places are written over or added to, by constants or by what was computed from others."""
    if g.open_batch:
        return mixing(g, f)
    axis = g.one_of(*f.positions)
    shape = f.at(axis, 1)
    index = np.full(shape, g.integer(0, f.shape[axis] - 1), np.int64)
    new = g.small(*shape)
    if g.yes():
        new = g("Slice", mixing(g, f).name, g.ints(0), g.ints(1), g.ints(axis))
    how: dict[str, Any] = {"reduction": "add"} if g.opset >= 16 and g.yes() else {}
    if axis == 1 and g.yes():
        place = np.stack([np.arange(f.shape[0]), index.reshape(f.shape[0], -1)[:, 0]], axis=-1)
        return f.like(g("ScatterND", f.name, place[:, None], new, **how))
    return f.like(g("ScatterElements", f.name, index, new, axis=axis, **how))


def sliced(g: Builder, f: Feature) -> Feature:
    axis = g.one_of(*f.positions)
    n = f.shape[axis]
    start, step = g.integer(0, n - 1), g.integer(1, 2)
    end = g.integer(start + 1, n)
    size = len(range(start, end, step))
    named = axis - g.one_of(0, len(f.shape))
    name = g("Slice", f.name, g.ints(start - g.one_of(0, n)), g.ints(end), g.ints(named), g.ints(step))
    return f.like(name, f.at(axis, size))


def gathered(g: Builder, f: Feature) -> Feature:
    axis = g.one_of(*f.positions, f.channel)
    chosen = [g.integer(-f.shape[axis], f.shape[axis] - 1) for _ in range(g.integer(1, 4))]
    if not g.open_batch and g.yes():
        shape = f.at(axis, len(chosen))
        line = [-1 if i == axis else 1 for i in range(len(shape))]
        index = np.broadcast_to(np.reshape(chosen, line), shape)
        return f.like(g("GatherElements", f.name, index, axis=axis), shape)
    if not g.open_batch and axis == 1 and g.yes():
        index = np.tile(np.reshape(chosen, (1, -1, 1)), (f.shape[0], 1, 1))
        return f.like(g("GatherND", f.name, index, batch_dims=1), f.at(axis, len(chosen)))
    return f.like(g("Gather", f.name, g.ints(*chosen), axis=axis), f.at(axis, len(chosen)))


def tiled(g: Builder, f: Feature) -> Feature:
    axis = g.one_of(*f.positions, f.channel)
    counts = [2 if i == axis else 1 for i in range(len(f.shape))]
    return f.like(g("Tile", f.name, g.ints(*counts)), f.at(axis, 2 * f.shape[axis]))


def top_values(g: Builder, f: Feature) -> Feature:
    axis = g.one_of(*f.positions, f.channel)
    k = g.integer(1, f.shape[axis])
    values, _ = g("TopK", f.name, g.ints(k), axis=axis, outputs=2)
    return f.like(values, f.at(axis, k))


def padded(g: Builder, f: Feature) -> Feature:
    mode = g.one_of("constant", "reflect", "edge", *(["wrap"] if g.opset >= 19 else []))
    g.recipe.append(mode)
    pads, shape = [0] * (2 * len(f.shape)), list(f.shape)
    for axis in f.positions:
        most = min(2, f.shape[axis] - 1)
        before, after = g.integer(0, most), g.integer(0, most)
        pads[axis], pads[axis + len(f.shape)] = before, after
        shape[axis] += before + after
    value = (np.float32(0.5),) if mode == "constant" and g.yes() else ()
    return f.like(g("Pad", f.name, g.ints(*pads), *value, mode=mode), tuple(shape))


def cropped(g: Builder, f: Feature) -> Feature:
    """Cut or padded around the centre."""
    if g.opset < 18:
        return padded(g, f)
    axis = g.one_of(*f.positions)
    size = g.integer(1, f.shape[axis] + 3)
    return f.like(g("CenterCropPad", f.name, g.ints(size), axes=[axis]), f.at(axis, size))


def resized(g: Builder, f: Feature) -> Feature:
    mode = g.one_of("nearest", "linear", "cubic") if f.layout == "NCHW" else g.one_of("nearest", "linear")
    way = g.one_of("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    g.recipe.append(f"{mode} {way}")
    attrs: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": way}
    if mode == "nearest":
        attrs["nearest_mode"] = g.one_of("floor", "round_prefer_floor", "ceil")
    scales, shape = [1.0] * len(f.shape), list(f.shape)
    for axis in f.positions:
        scale = g.one_of(2.0, 1.5, 1.0) if f.shape[axis] < 4 else g.one_of(2.0, 1.5, 0.5, 1.0)
        scales[axis], shape[axis] = scale, math.floor(f.shape[axis] * scale)
    by = ("", np.array(scales, np.float32)) if g.open_batch or g.yes() else ("", "", g.ints(*shape))
    name = g("Resize", f.name, *by, **attrs)
    return f.like(name, tuple(shape))


def depth_and_space(g: Builder, f: Feature) -> Feature:
    """Pixel shuffle, its inverse, and YOLOv5's focus, which is the inverse written out."""
    n, c, h, w = f.shape
    if g.yes():
        f = f if c % 4 == 0 else pointwise(g, f, 4)
        c = f.channels
        shape = (n, c // 4, 2 * h, 2 * w)
        if g.yes():
            return f.like(g("DepthToSpace", f.name, blocksize=2, mode=g.one_of("DCR", "CRD")), shape)
        split = g.reshape(f, "", (n, c // 4, 2, 2, h, w))
        return g.reshape(f, f.layout, shape, g("Transpose", split.name, perm=[0, 1, 4, 2, 5, 3]))
    if h % 2 or w % 2:
        return mixing(g, f)
    shape = (n, 4 * c, h // 2, w // 2)
    if g.yes():
        return f.like(g("SpaceToDepth", f.name, blocksize=2), shape)
    parts = [
        g("Slice", f.name, g.ints(i, j), g.ints(h, w), g.ints(2, 3), g.ints(2, 2))
        for i in (0, 1)
        for j in (0, 1)
    ]
    return f.like(g("Concat", *parts, axis=1), shape)


def to_tokens(g: Builder, f: Feature) -> Feature:
    n, c, h, w = f.shape
    return g.transpose(g.reshape(f, "NCT", (n, c, h * w)), "NTC")


def to_picture(g: Builder, f: Feature) -> Feature:
    n, t, c = f.shape
    h = g.one_of(*[k for k in range(1, t + 1) if t % k == 0])
    return g.transpose(g.reshape(f, "NHWC", (n, h, t // h, c)), "NCHW")


def transposed(layout: str) -> Block:
    return lambda g, f: g.transpose(f, layout)
