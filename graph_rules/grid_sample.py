"""GridSample: a picture read at places that a grid says. The grid is the pattern, constant or computed."""

import math

from graph_rules.registry import cotangent, rule, to_first
from graph_rules.sampling import (
    CUBIC,
    LINEAR,
    NEAREST,
    Padding,
    Samples,
    axis_taps,
    first_carries,
    read_roles,
)
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Node
from srd_onnx.graph.roles import Axes, Roles

_KERNELS = {"nearest": NEAREST, "linear": LINEAR, "bilinear": LINEAR, "cubic": CUBIC, "bicubic": CUBIC}
_PADDINGS: dict[str, Padding] = {"zeros": "zeros", "border": "border", "reflection": "reflection"}


def _roles(node: Node, roles: Roles) -> tuple[Axes, ...]:
    x, grid, mode = node.input(0), node.input(1), node.attrs["mode"]
    node.require(mode in _KERNELS, f"mode '{mode}' has no rule")
    node.require(
        x.rank == 4 or (x.rank == 5 and _KERNELS[mode] is not CUBIC),
        f"mode '{mode}' on {x.rank - 2} axes has no rule, as it has no kernel in ONNX Runtime",
    )
    node.require(grid.dtype == x.dtype, f"its grid is {grid.dtype} and its input {x.dtype}; make them equal")
    return read_roles(node, roles, 1)


def _padding(node: Node) -> Padding:
    mode = node.attrs["padding_mode"]
    node.require(mode in _PADDINGS, f"padding_mode '{mode}' has no rule")
    aligned = mode == "reflection" and node.attrs["align_corners"]
    return "reflection_at_centres" if aligned else _PADDINGS[mode]


def _samples(emit: Emitter, node: Node) -> Samples:
    x, grid, y = node.input(0), node.input(1), node.output()
    kernel, padding, points = _KERNELS[node.attrs["mode"]], _padding(node), math.prod(y.shape[2:])
    rank = x.rank - 2
    flat = emit.reshape(grid.name, [x.shape[0], points, rank])
    axes = []
    for axis, size in enumerate(x.shape[2:]):
        # A grid names the last axis first. The order of operations is the runtime's, so that it rounds likewise.
        shifted = emit("Gather", flat, emit.ints([rank - 1 - axis]), axis=2)
        shifted = emit("Add", shifted, emit.like(x, 1.0))
        if node.attrs["align_corners"]:
            place = emit("Mul", emit("Div", shifted, emit.like(x, 2.0)), emit.like(x, size - 1.0))
        else:
            place = emit("Sub", emit("Mul", shifted, emit.like(x, float(size))), emit.like(x, 1.0))
            place = emit("Div", place, emit.like(x, 2.0))
        axes.append(axis_taps(emit, place, x, size, kernel, padding))
    return Samples(emit, tuple(axes), x, x.shape[0], points, len(kernel.offsets), x.shape[2:])


def _copies(node: Node, _roles: Roles) -> bool:
    return _KERNELS[node.attrs["mode"]] is NEAREST


def _may_miss(node: Node) -> bool:
    return bool(node.attrs["padding_mode"] == "zeros")


def _spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    samples = _samples(emit, node)
    share = emit.reshape(cotangent(shares, node), [samples.batch, 1, samples.points])
    return to_first(node, samples.equally(share))


@rule(
    "GridSample",
    versions=(16, 20, 22),
    roles=_roles,
    carriers=first_carries,
    routes=_copies,
    spread=_spread,
    lossy=_may_miss,
    far=True,
)
def grid_sample(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g_x[i] = Σ w_k(o) g[o]`` over all taps k of all samples o that lie at i, the grid held fixed.

    ``tangent``: ``g_grid[o] = Σ_k w_k'(o) <x[i_k(o)], g[o]>``.
    """
    x, grid = node.input(0), node.input(1)
    samples, channels = _samples(emit, node), x.shape[1]
    g = emit.reshape(cotangent(cotangents, node), [samples.batch, channels, samples.points])
    flows: list[str | None] = [None, None]
    if emit.varies(x):
        flows[0] = samples.back(g, samples.weights(), channels)
    if emit.tangent and emit.varies(grid) and _KERNELS[node.attrs["mode"]] is not NEAREST:
        flows[1] = emit.reshape(_to_grid(emit, node, samples, g), grid.shape)
    return flows


def _to_grid(emit: Emitter, node: Node, samples: Samples, g: str) -> str:
    x = node.input(0)
    products = samples.products(x.name, g, x.shape[1])
    parts = []
    for axis, size in reversed(list(enumerate(samples.sizes))):
        slopes = samples.slopes(axis)
        assert slopes is not None
        pixels = (size - 1) / 2 if node.attrs["align_corners"] else size / 2
        parts.append(emit("Mul", emit.total(emit("Mul", slopes, products), [2]), emit.like(x, pixels)))
    return emit("Concat", *parts, axis=2)
