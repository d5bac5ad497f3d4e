"""Convolutions of many channels by fewer products: minimal filtering along the rows, F(4, 3).

Four rows of a correlation with three taps take six products of each pair of channels in place of twelve (Winograd 1980;
the transforms are those of Lavin and Gray, CVPR 2016, section 4.3, along one axis alone: along two they would round
three times as much). The rows q, q + 4, q + 8 ... are collapsed by themselves and interleaved as scalars.
"""

import functools
import math
from dataclasses import replace

import numpy as np

from graph_rules.blocks import each_channel, scaled_by
from graph_rules.phases import phases_collapsed
from graph_rules.windows import Window, convolved
from srd_onnx.engine.emit import Emitter
from srd_onnx.graph.ir import Array, Node, Value

_ROWS, _TAPS = 4, 3
_FEWEST = 128  # channels on either side: with fewer, the transforms cost what the products save
# Multiply-adds: with fewer, some forty nodes in place of one are no gain where there are many threads.
_LEAST = 2**28
# Rows of the flow to each product's; the kernel's taps to each product's weights.
_FLOW = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_KERNEL = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24


def by_rows(emit: Emitter, node: Node, window: Window) -> bool:
    """Whether a convolution is better taken by this: in blocks, with three rows of taps, and much of everything."""
    x, v = node.input(0), node.output()
    return (
        emit.blocked(x)
        and emit.blocked(v)
        and node.attrs["group"] == 1
        and min(x.shape[1], v.shape[1]) >= _FEWEST
        and window.kernel[0] == _TAPS
        and max(window.begins[0], window.ends[0]) < _TAPS
        and set(window.strides) == set(window.dilations) == {1}
        and math.prod([x.shape[1], *v.shape[1:], *window.kernel]) >= _LEAST
    )


def rows_collapsed(emit: Emitter, node: Node, weights: Array, window: Window, flow: str) -> str:
    """``<x_i, Σ_k W_k^T g[o]>``: [N, M, *result] to [N, 1, *source]."""
    phases = replace(window, strides=(_ROWS, 1), begins=(0, 0))
    backs = _backs(emit, node, weights, window, flow, phases.cells[0])
    return phases_collapsed(emit, node.input(0), phases, [((p, 0), back) for p, back in enumerate(backs)])


def _backs(emit: Emitter, node: Node, weights: Array, window: Window, flow: str, cells: int) -> list[str]:
    """``Σ_k W_k^T g[o]`` of the rows ``4 q + phase``, for each phase: [N, C, cells, W]."""
    x, v = node.input(0), node.output()
    (above, left), (height, width) = window.begins, window.result
    begins = (0, window.kernel[1] - 1 - left)
    ends = (0, x.shape[3] + left - width)
    pads = (_TAPS - 1 - above, 0, _ROWS * cells - height + above, 0)
    every = functools.cache(lambda: _transformed(weights))

    def of_product(number: int) -> Array:
        return np.asarray(every()[number])

    products = []
    for number, rows in enumerate(_FLOW):
        of_flow = each_channel(emit, flow, v, rows[:, None], strides=(_ROWS, 1), pads=pads)
        by = emit.derived(weights, ("product", number), functools.partial(of_product, number))
        products.append(convolved(emit, of_flow, by, (1, window.kernel[1]), 1, (1, 1), begins, ends))
    first, plus, minus, plus_two, minus_two, last = products
    even, odd = _sum_and_difference(emit, x, plus, minus)
    even_two, odd_two = _sum_and_difference(emit, x, plus_two, minus_two)
    return [
        emit("Add", first, emit("Add", even, even_two)),
        emit("Add", scaled_by(emit, odd_two, x, 2), odd),
        emit("Add", scaled_by(emit, even_two, x, 4), even),
        emit("Add", last, emit("Add", scaled_by(emit, odd_two, x, 8), odd)),
    ]


def _transformed(weights: Array) -> Array:
    """Weights [M, C, 3, k], turned round, to those of each product: [6, C, M, 1, k]."""
    turned = np.flip(weights, axis=(2, 3)).transpose(2, 1, 0, 3)
    found = _KERNEL @ turned.reshape(_TAPS, -1)
    return found.reshape(-1, *turned.shape[1:3], 1, turned.shape[3]).astype(weights.dtype)


def _sum_and_difference(emit: Emitter, like: Value, a: str, b: str) -> tuple[str, str]:
    """Sub would leave the blocks of channels."""
    return emit("Add", a, b), emit("Add", scaled_by(emit, b, like, -1), a)
