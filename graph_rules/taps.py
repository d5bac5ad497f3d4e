"""The numerators of sharing ratios, tap by tap, of the operators that slide a window.

A window has few taps, so `<v̂_{k->j}, v_j>` for each of them costs no more than one VJP, where probing with VJPs would
take one for each set of windows that do not overlap.
"""

import math

import numpy as np

from graph_rules.windows import Window
from srd_onnx.emit import Emitter
from srd_onnx.ir import Array, Node
from srd_onnx.rule import Taps


def conv_taps(emit: Emitter, node: Node, window: Window, weights: Array) -> Taps:
    """``<W_k x_k, v>``, x_k being what lies under tap k; taken as ``<x_k, W_k^T v>`` where x has fewer channels."""
    v, group = node.output(), node.attrs["group"]
    count, narrow = weights.shape[:2]
    by_tap = weights.reshape(count, narrow, -1)
    products = []
    for k, x in enumerate(_under_taps(emit, node, window)):
        tap = by_tap[:, :, k]
        if group == count and narrow == 1:  # depthwise
            products.append(_over_channels(emit, emit("Mul", x, v.name), tap[:, 0], v.rank))
            continue
        if group * narrow <= count:
            back = tap.reshape(group, count // group, narrow).transpose(0, 2, 1).reshape(group * narrow, -1)
            there, here = _pointwise(emit, v.name, back, group, v.rank), x
        else:
            there, here = _pointwise(emit, x, tap, group, v.rank), v.name
        ones = np.ones(min(group * narrow, count), v.dtype)
        products.append(_over_channels(emit, emit("Mul", there, here), ones, v.rank))
    return Taps(0, window.index(), _stacked(emit, products))


def average_taps(emit: Emitter, node: Node, window: Window, counts: Array) -> Taps:
    """``<x_k, v> / count``."""
    v = node.output()
    ones = np.ones(v.shape[1], v.dtype)
    products = [
        _over_channels(emit, emit("Mul", x, v.name), ones, v.rank) for x in _under_taps(emit, node, window)
    ]
    share = emit("Div", _stacked(emit, products), emit.like(v, counts[None, None]))
    return Taps(0, window.index(), share)


def winner_taps(emit: Emitter, node: Node, window: Window, winners: str) -> Taps:
    """The sum of ``v²`` over the channels whose winner lies under the tap.

    Args:
        emit: makes the nodes.
        node: a MaxPool.
        window: its window.
        winners: tensor int64 [N, C, *result], flat places in the whole input.
    """
    v, index = node.output(), window.index()
    size = math.prod(window.source)
    place = emit("Mod", winners, emit.const(np.int64(size)))
    square, zero = emit("Mul", v.name, v.name), emit.like(v, 0.0)
    ones = np.ones(v.shape[1], v.dtype)
    products = []
    for under in index:
        won = emit("Where", emit("Equal", place, emit.const(under[None, None])), square, zero)
        products.append(_over_channels(emit, won, ones, v.rank))
    return Taps(0, index, _stacked(emit, products))


def _under_taps(emit: Emitter, node: Node, window: Window) -> list[str]:
    """For each tap what of the input lies under it: K tensors [N, C, *result], zero in the padding."""
    x, rank = node.input(0).name, len(window.kernel)
    reach = window.reach
    # A window at the end may reach beyond the padding (ceil_mode).
    beyond = [max(0, r - b - n) for r, b, n in zip(reach, window.begins, window.source, strict=True)]
    if any(window.begins) or any(beyond):
        x = emit("Pad", x, emit.ints([0, 0, *window.begins, 0, 0, *beyond]))
    axes, steps = emit.ints(range(2, 2 + rank)), emit.ints(window.strides)
    found = []
    for tap in np.ndindex(*window.kernel):
        starts = [t * d for t, d in zip(tap, window.dilations, strict=True)]
        spans = [(o - 1) * s + 1 for o, s in zip(window.result, window.strides, strict=True)]
        stops = [first + span for first, span in zip(starts, spans, strict=True)]
        found.append(emit("Slice", x, emit.ints(starts), emit.ints(stops), axes, steps))
    return found


def _pointwise(emit: Emitter, tensor: str, weights: Array, group: int, rank: int) -> str:
    kernel = weights.reshape(*weights.shape, *[1] * (rank - 2))
    return emit("Conv", tensor, emit.const(kernel), group=group)


def _over_channels(emit: Emitter, tensor: str, weights: Array, rank: int) -> str:
    """The weighted sum over channels, [N, 1, *positions]; as a 1×1 Conv, which is faster than ReduceSum."""
    return _pointwise(emit, tensor, weights[None], 1, rank)


def _stacked(emit: Emitter, products: list[str]) -> str:
    return products[0] if len(products) == 1 else emit("Concat", *products, axis=1)
