"""RoiAlign: regions of a picture, each averaged or searched for its maximum in bins. Where they lie is the pattern."""

import math
from dataclasses import dataclass

import numpy as np

from graph_rules.registry import cotangent, never, rule, to_first
from graph_rules.sampling import LINEAR, NEGLIGIBLE, Samples, axis_taps, first_carries, read_roles
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Array, Node
from srd_onnx.graph.roles import Axes, Role, Roles

_X, _REGIONS, _ITEMS = range(3)


def _roles(node: Node, roles: Roles) -> tuple[Axes, ...]:
    """Regions are positions: they stand in the place of the batch, which they choose from."""
    (own,) = read_roles(node, roles, _REGIONS)
    node.require(
        own.roles[0] is not Role.BATCH or node.input(_X).shape[0] == 1 or node.input(_X).name not in roles,
        "its regions choose from the batch, so that images are no longer independent; explain one at a time",
    )
    node.require(node.attrs["mode"] in ("avg", "max"), f"mode '{node.attrs['mode']}' has no rule")
    node.require(
        node.attrs["mode"] == "avg" or node.attrs["sampling_ratio"] > 0,
        "a maximum with sampling_ratio 0 has no rule",
    )
    return (Axes((Role.POSITION, *own.roles[1:]), gate=own.gate),)


def _shifted(node: Node) -> bool:
    return bool(node.attrs["coordinate_transformation_mode"] == "half_pixel")


def _span(node: Node, axis: int, regions: Array) -> tuple[Array, Array]:
    """Where constant regions start and how far they reach along an axis, in pixels: [regions] each."""
    ends = regions * regions.dtype.type(node.attrs["spatial_scale"])
    ends = ends - regions.dtype.type(0.5 if _shifted(node) else 0.0)
    start, extent = ends[:, 1 - axis], ends[:, 3 - axis] - ends[:, 1 - axis]
    return start, extent if _shifted(node) else np.maximum(extent, 1)


def _per_bin(node: Node, axis: int) -> Array:
    """How many samples each region takes per bin along an axis: int64 [1 or regions]."""
    ratio, regions = node.attrs["sampling_ratio"], node.input(_REGIONS).constant
    if ratio > 0:
        return np.array([ratio])
    node.require(
        regions is not None,
        "with sampling_ratio 0 the number of samples depends on the regions, which must be constant",
    )
    assert regions is not None
    bins = node.output().shape[2 + axis]
    return np.maximum(np.ceil(_span(node, axis, regions)[1] / bins), 0).astype(np.int64)


@dataclass(frozen=True)
class _Line:
    """The samples of all regions along one axis: where they are, clipped into the picture, and what each weighs.

    Shapes: both [regions, bins * most]; `most` is the greatest number of samples in a bin.
    """

    places: str
    weights: str
    bins: int
    most: int


def _line(emit: Emitter, node: Node, axis: int) -> _Line:
    x, regions = node.input(_X), node.input(_REGIONS)
    size, bins, per_bin = x.shape[2 + axis], node.output().shape[2 + axis], _per_bin(node, axis)
    ends = emit("Mul", regions.name, emit.like(x, node.attrs["spatial_scale"]))
    if _shifted(node):
        ends = emit("Sub", ends, emit.like(x, 0.5))
    start, end = (emit("Gather", ends, emit.ints([at]), axis=1) for at in (1 - axis, 3 - axis))
    extent = emit("Sub", end, start)
    if not _shifted(node):
        extent = emit("Max", extent, emit.like(x, 1.0))
    most = max(int(per_bin.max(initial=0)), 1)
    number, each = np.arange(most), np.maximum(per_bin, 1)[:, None, None]
    steps = np.arange(bins)[:, None] + (number + 0.5) / each
    along = emit(
        "Mul", emit("Div", extent, emit.like(x, float(bins))), emit.like(x, steps.reshape(len(per_bin), -1))
    )
    place = emit("Add", start, along)
    parts = np.where(number < per_bin[:, None, None], 1 / each, 0.0) * np.ones((bins, 1))
    bounds = (emit.like(x, -1.0), emit.like(x, float(size)))
    inside = emit("And", emit("LessOrEqual", bounds[0], place), emit("LessOrEqual", place, bounds[1]))
    weights = emit("Where", inside, emit.like(x, parts.reshape(len(per_bin), -1)), emit.like(x, 0.0))
    return _Line(emit("Clip", place, emit.like(x, 0.0), emit.like(x, size - 1.0)), weights, bins, most)


def _averages(emit: Emitter, node: Node) -> list[str]:
    """For each axis how much of each of its pixels is in each bin: [regions, bins, size]."""
    x, regions, found = node.input(_X), node.input(_REGIONS).shape[0], []
    for axis, size in enumerate(x.shape[2:]):
        line = _line(emit, node, axis)
        shape = [regions, line.bins, line.most, 1]
        places, weights = (emit.reshape(each, shape) for each in (line.places, line.weights))
        distance = emit("Abs", emit("Sub", places, emit.like(x, np.arange(size))))
        parts = emit("Mul", weights, emit("Relu", emit("Sub", emit.like(x, 1.0), distance)))
        found.append(emit.total(parts, [2], keepdims=False))
    return found


def _chosen(emit: Emitter, node: Node) -> str:
    """1 where a region is of an item: [regions, items]."""
    x, items = node.input(_X), node.input(_ITEMS)
    every = emit.const(np.arange(x.shape[0]), items.dtype)
    same = emit("Equal", emit("Unsqueeze", items.name, emit.ints([1])), every)
    return emit("Where", same, emit.like(x, 1.0), emit.like(x, 0.0))


def _put_back(emit: Emitter, node: Node, flow: str, channels: int, lines: list[str]) -> str:
    """``x[b, c, h, w] = Σ rows[r, p, h] columns[r, q, w] flow[r, c, p, q]`` over the regions r of item b."""
    x, y = node.input(_X), node.output()
    regions, bins = y.shape[0], y.shape[2]
    items, height, width = x.shape[0], *x.shape[2:]
    rows, columns = lines
    wide = emit("MatMul", flow, emit("Unsqueeze", columns, emit.ints([1])))
    wide = emit.reshape(emit("Transpose", wide, perm=[1, 3, 0, 2]), [channels, width, regions * bins])
    if items > 1:
        own = emit.reshape(_chosen(emit, node), [regions, 1, items, 1])
        rows = emit("Mul", emit("Unsqueeze", rows, emit.ints([2])), own)
    whole = emit("MatMul", wide, emit.reshape(rows, [regions * bins, items * height]))
    whole = emit.reshape(whole, [channels, width, items, height])
    return emit("Transpose", whole, perm=[2, 0, 3, 1])


def _spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    """Equally over the pixels that an average takes a part of, also of a maximum."""
    x, share = node.input(_X), cotangent(shares, node)
    fed, counts = [], []
    for part in _averages(emit, node):
        takes = emit("Less", emit.like(x, NEGLIGIBLE), part)
        fed.append(emit("Where", takes, emit.like(x, 1.0), emit.like(x, 0.0)))
        counts.append(emit.total(fed[-1], [2]))
    rows, columns = (emit("Unsqueeze", count, emit.ints([1])) for count in counts)
    count = emit("Mul", rows, emit("Transpose", columns, perm=[0, 1, 3, 2]))
    share = emit("Div", share, emit("Max", count, emit.like(x, 1.0)))
    return to_first(node, _put_back(emit, node, share, 1, fed))


def _may_miss(node: Node) -> bool:
    """Whether a bin may lie beside the picture, or have no samples."""
    regions = node.input(_REGIONS).constant
    if regions is None:
        return True
    for axis, size in enumerate(node.input(_X).shape[2:]):
        start, extent = _span(node, axis, regions)
        low, high = np.minimum(start, start + extent), np.maximum(start, start + extent)
        if (low < -1).any() or (high > size).any() or (_per_bin(node, axis) == 0).any():
            return True
    return False


def _to_winners(emit: Emitter, node: Node, g: str) -> str:
    """Of a maximum, which is one over all taps of all samples, each weighted: to the first that is the greatest."""
    x, y = node.input(_X), node.output()
    regions, channels, height, width = y.shape
    lines = [_line(emit, node, axis) for axis in range(2)]
    most = [line.most for line in lines]
    grid = [regions, height, width, *most]
    points = math.prod(grid[1:])

    def everywhere(axis: int, tensor: str) -> str:
        """What a line has at every sample: [regions, points, 1], bins first."""
        own = [n if at % 2 == axis else 1 for at, n in enumerate(grid[1:])]
        wide = emit("Expand", emit.reshape(tensor, [regions, *own]), emit.ints(grid))
        return emit.reshape(wide, [regions, points, 1])

    places = [everywhere(axis, line.places) for axis, line in enumerate(lines)]
    axes = [
        axis_taps(emit, place, x, size, LINEAR, "border")
        for place, size in zip(places, x.shape[2:], strict=True)
    ]
    samples = Samples(emit, tuple(axes), x, regions, points, 2, x.shape[2:])
    # Without the 1 / most of an average the weights of a line are 1, or 0 beside the picture.
    weights = emit("Mul", samples.weights(), emit.like(x, float(math.prod(most))))
    for axis, line in enumerate(lines):
        weights = emit("Mul", weights, everywhere(axis, line.weights))
    bins, taps = height * width, math.prod(most) * samples.count
    every = [regions, channels, bins, taps]
    weights = emit("Expand", emit.reshape(weights, [regions, 1, bins, taps]), emit.ints(every))
    own = emit("Gather", x.name, node.input(_ITEMS).name, axis=0)
    indices, pixels = samples.indices(channels), math.prod(x.shape[2:])
    seen = emit("GatherElements", emit.reshape(own, [regions, channels, pixels]), indices, axis=2)
    best = emit("ArgMax", emit("Mul", emit.reshape(seen, every), weights), axis=3, keepdims=1)
    weight, index = (
        emit.reshape(emit("GatherElements", tensor, best, axis=3), [regions, channels, bins])
        for tensor in (weights, emit.reshape(indices, every))
    )
    moved = emit("Mul", emit.reshape(g, [regions, channels, bins]), weight)
    moved = emit.added([regions, channels, pixels], x.dtype, index, moved, axis=2)
    items = emit("Transpose", _chosen(emit, node), perm=[1, 0])
    return emit.reshape(emit("MatMul", items, emit.reshape(moved, [regions, channels * pixels])), x.shape)


@rule(
    "RoiAlign",
    versions=(16, 22),
    roles=_roles,
    carriers=first_carries,
    routes=never,
    spread=_spread,
    lossy=_may_miss,
)
def roi_align(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g_x[c, h, w] = Σ R[r, p, h] C[r, q, w] g[r, c, p, q]``, the average of row p and column q of region r fixed.

    Of a maximum ``w g`` to the tap that it is, ``w`` being its weight.
    """
    g = cotangent(cotangents, node)
    node.require(
        not (emit.tangent and emit.varies(node.input(_REGIONS))),
        "the derivative with respect to its regions has no rule",
    )
    if node.attrs["mode"] == "max":
        return to_first(node, _to_winners(emit, node, g))
    return to_first(node, _put_back(emit, node, g, node.input(_X).shape[1], _averages(emit, node)))
