"""What sliding windows give to each input position, without the wide tensor that a VJP would make of it.

Behind a stride the VJP is interleaved from its phases; here each phase is collapsed to one number per position first.
And the winners of a maximum are found by comparisons that stay in ONNX Runtime's blocks of channels: its MaxPool with
indices is many times slower than the one without.
"""

import math

import numpy as np

from graph_rules.windows import Window, convolved, flipped, swapped, transposed
from srd_onnx.engine.emit import Emitter
from srd_onnx.graph.ir import Array, Node, Value

_MOST_TAPS = 16
# Makes more than 1 of the smallest difference that matters, and rounds nothing.
_STEEP = 2.0**100


def by_phases(emit: Emitter, node: Node, weights: Array, group: int, window: Window, wide: str) -> str | None:
    """``<x_i, Σ_k W_k^T g[o]>`` of a strided window sum: an input position belongs to one phase of the stride.

    Shapes: `wide`, g, [N, M, *result]; gives [N, 1, *source]. None where the VJP is as cheap.
    """
    x, stride = node.input(0), window.strides[0]
    square = len(window.kernel) == 2 and set(window.strides) == {stride} and stride > 1
    if not square or not emit.blocked(x) or set(window.dilations) != {1}:
        return None
    turned = swapped(weights, group)
    cells = [-(-(b + n) // stride) for b, n in zip(window.begins, window.source, strict=True)]
    found = []
    for phase in np.ndindex(stride, stride):
        part = turned[:, :, phase[0] :: stride, phase[1] :: stride]
        if 0 in part.shape:
            found.append(emit.zeros([x.shape[0], 1, *cells], x.dtype))
            continue
        begins = [m - 1 for m in part.shape[2:]]
        ends = [q - o for q, o in zip(cells, window.result, strict=True)]
        flow = convolved(emit, wide, flipped(part), group, (1, 1), begins, ends)
        found.append(emit.over_channels(emit("Mul", _phase(emit, x, phase, window, cells), flow), x))
    full = emit("DepthToSpace", emit("Concat", *found, axis=1), blocksize=stride, mode="CRD")
    stops = [b + n for b, n in zip(window.begins, window.source, strict=True)]
    if not any(window.begins) and stops == [q * stride for q in cells]:
        return full
    return emit("Slice", full, emit.ints(window.begins), emit.ints(stops), emit.ints([2, 3]))


def _phase(emit: Emitter, x: Value, phase: tuple[int, ...], window: Window, cells: list[int]) -> str:
    """``x[q * stride + phase - begin]`` at each cell q, 0 outside: a depthwise convolution keeps the blocks."""
    kernel = np.zeros([p + 1 for p in phase], x.dtype)
    kernel[phase] = 1
    ends = [
        max(0, (q - 1) * s + p + 1 - n - b)
        for q, s, p, n, b in zip(cells, window.strides, phase, window.source, window.begins, strict=True)
    ]
    return _each(emit, x.name, x, kernel, window.strides, [*window.begins, *ends])


def _each(
    emit: Emitter, tensor: str, like: Value, kernel: Array, strides: tuple[int, ...], pads: list[int]
) -> str:
    """The same small convolution of every channel."""
    weights = np.broadcast_to(kernel, (like.shape[1], 1, *kernel.shape))
    return emit(
        "Conv", tensor, emit.like(like, weights), group=like.shape[1], strides=list(strides), pads=list(pads)
    )


def of_winners(emit: Emitter, node: Node, window: Window, scale: str) -> str | None:
    """What each winner of a maximum gets: ``Σ_o s[o] Σ_c m_c[o]²`` over the windows and channels that it wins.

    Tap by tap, what no tap before has won goes on: ``u_k = u_{k-1} [x_k < m]``, from ``u_0 = m²``; so the first of
    equals wins. Shapes: `scale` [N, 1, *result]; gives [N, 1, *source]. None where that is not cheaper, or not it.
    """
    x, y = node.input(0), node.output()
    taps = math.prod(window.kernel)
    if taps > _MOST_TAPS or not emit.blocked(x) or not emit.blocked(y) or set(window.dilations) != {1}:
        return None
    ends = [max(0, r - b - n) for r, b, n in zip(window.reach, window.begins, window.source, strict=True)]
    if any([*window.begins, *ends]) and not _never_negative(emit, x):
        return None  # in the padding there are zeros here, which must not win
    left = emit("Mul", y.name, y.name)
    held = [emit.over_channels(left, y)]
    for tap in list(np.ndindex(*window.kernel))[:-1]:
        kernel = np.zeros(window.kernel, x.dtype)
        kernel[tap] = -1
        pads = [*window.begins, *ends]
        below = emit("Add", _each(emit, x.name, x, kernel, window.strides, pads), y.name)
        steep = _each(emit, below, y, np.full((1, 1), _STEEP, x.dtype), (1, 1), [0] * 4)
        lost = emit("Clip", steep, emit.like(y, 0.0), emit.like(y, 1.0))
        left = emit("Mul", left, lost)
        held.append(emit.over_channels(left, y))
    before = emit("Concat", *held, axis=1)
    after = emit("Concat", *held[1:], emit.zeros([y.shape[0], 1, *y.shape[2:]], y.dtype), axis=1)
    won = emit("Mul", emit("Sub", before, after), scale)
    places = np.eye(taps, dtype=x.dtype).reshape(taps, 1, *window.kernel)
    return transposed(emit, won, places, 1, window)


def _never_negative(emit: Emitter, value: Value) -> bool:
    made = emit.producers.get(value.name)
    if made is None:
        return False
    if made.key.op_type == "Clip":
        low = made.optional(1)
        return low is not None and low.constant is not None and bool((low.constant >= 0).all())
    return made.key.op_type == "Relu"
