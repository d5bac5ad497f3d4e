"""The numerators of sharing ratios, tap by tap, of the operators that slide a window.

A window has few taps, so `<v̂_{k->j}, v_j>` for each of them costs no more than one VJP, where probing with VJPs would
take one for each set of windows that do not overlap.
"""

import math
from typing import Any

import numpy as np

from graph_rules.blocks import above, each_channel
from graph_rules.windows import Window, transposed
from srd_onnx.engine.emit import BLOCK, Emitter
from srd_onnx.engine.rule import Taps
from srd_onnx.graph.ir import Array, Node, Value

_MOST_TAPS = 16
_NARROW = 4  # how many times fewer channels than its output the input must have


def conv_taps(emit: Emitter, node: Node, window: Window, weights: Array, out: str) -> Taps:
    """``<W_k x_k, v>``, x_k being what lies under tap k; taken as ``<x_k, W_k^T v>`` where x has fewer channels.

    `out` is v, which may have been computed anew.
    """
    if (every := narrow_products(emit, node, window, weights, out)) is not None:
        return Taps(0, window.index(), every)
    v, group = node.output(), node.attrs["group"]
    count, narrow = weights.shape[:2]
    depthwise = group == count and narrow == 1
    blocks = in_blocks(emit, node, window) and (group == 1 or group == count == node.input(0).shape[1])
    by_tap = weights.reshape(count, narrow, -1)
    backs = (
        [] if depthwise or group * narrow > count else _backs(emit, out, by_tap, group, v.rank, blocks=blocks)
    )
    products = []
    for k, x in enumerate((under_taps_in_blocks if blocks else under_taps)(emit, node, window)):
        if depthwise:
            product, weight = emit("Mul", x, out), by_tap[:, 0, k]
        elif backs:
            product, weight = emit("Mul", backs[k], x), np.ones(group * narrow, v.dtype)
        else:
            there = _pointwise(emit, x, by_tap[:, :, k], group, v.rank)
            product, weight = emit("Mul", there, out), np.ones(count, v.dtype)
        products.append(_summed(emit, product, node, weight, blocks=blocks))
    return Taps(0, window.index(), _stacked(emit, products))


def narrow_products(emit: Emitter, node: Node, window: Window, weights: Array, out: str) -> str | None:
    """``<x_k, W_k^T v>`` of a convolution of few channels, such as a picture's, of all taps k at once: [N, K, *result].

    None where it is none. One convolution takes the ``W_k^T v``, one what lies under the taps, and one sums products.
    None of it depends on the relevance that arrives, so that it is there for every pass.
    """
    x, v = node.input(0), node.output()
    count, narrow = weights.shape[:2]
    taps = math.prod(window.kernel)
    few = _NARROW * narrow <= count and narrow == x.shape[1] and 1 < taps <= _MOST_TAPS
    if not few or not emit.blocked(v) or emit.blocked(x):
        return None
    spare = -narrow * taps % BLOCK
    backs = np.pad(weights.reshape(count, -1).T, ((0, spare), (0, 0)))
    places = np.pad(np.eye(narrow * taps, dtype=v.dtype), ((0, spare), (0, 0)))
    sums = np.pad(np.tile(np.eye(taps, dtype=v.dtype), narrow), ((0, 0), (0, spare)))
    under = emit(
        "Conv",
        x.name,
        emit.const(places.reshape(-1, narrow, *window.kernel)),
        strides=list(window.strides),
        dilations=list(window.dilations),
        pads=[*window.begins, *window.overhang],
    )
    product = emit("Mul", under, _pointwise(emit, out, backs, 1, v.rank))
    return _pointwise(emit, product, sums, 1, v.rank)


def folded(emit: Emitter, taps: str, scale: str, window: Window, dtype: np.dtype[Any]) -> str:
    """What each position gives by its taps, times its factor, at the positions that lie under these.

    Shapes: taps [N, K, *result], scale [N, 1, *result]; gives [N, 1, *source].
    """
    count = math.prod(window.kernel)
    places = np.eye(count, dtype=dtype).reshape(count, 1, *window.kernel)
    return transposed(emit, emit("Mul", taps, scale), places, 1, window)


def _backs(emit: Emitter, v: str, by_tap: Array, group: int, rank: int, *, blocks: bool) -> list[str]:
    """``W_k^T v`` for every tap k, [N, C, *result] each; of a narrow input, such as a picture, by one convolution."""
    count, narrow, taps = by_tap.shape
    turned = by_tap.reshape(group, count // group, narrow, taps).transpose(3, 0, 2, 1)
    backs = turned.reshape(taps, group * narrow, count // group)
    # A Split would leave the blocks.
    if group == 1 and _NARROW * narrow <= count and taps > 1 and not blocks:
        every = _pointwise(emit, v, backs.reshape(-1, count), 1, rank)
        return list(emit.many("Split", every, outputs=taps, axis=1, num_outputs=taps))
    return [_pointwise(emit, v, back, group, rank) for back in backs]


def average_taps(emit: Emitter, node: Node, window: Window, counts: Array) -> Taps:
    """``<x_k, v> / count``."""
    v, blocks = node.output(), in_blocks(emit, node, window)
    ones = np.ones(v.shape[1], v.dtype)
    unders = (under_taps_in_blocks if blocks else under_taps)(emit, node, window)
    products = [_summed(emit, emit("Mul", x, v.name), node, ones, blocks=blocks) for x in unders]
    share = emit("Div", _stacked(emit, products), emit.like(v, counts[None, None]))
    return Taps(0, window.index(), share)


def winner_taps(emit: Emitter, node: Node, window: Window) -> Taps:
    """The sum of ``v²`` over the channels whose winner lies under the tap, the first of equals."""
    v = node.output()
    if (won := wins(emit, node, window)) is not None:
        return Taps(0, window.index(), won)
    zero, ones = emit.like(v, 0.0), np.ones(v.shape[1], v.dtype)
    left = emit("Mul", v.name, v.name)
    products = []
    # What lies in the padding is 0 here, and where 0 wins there is nothing to give.
    for x in under_taps(emit, node, window):
        won = emit("Where", emit("Equal", x, v.name), left, zero)
        left = emit("Sub", left, won)
        products.append(_summed(emit, won, node, ones, blocks=False))
    return Taps(0, window.index(), _stacked(emit, products))


def wins(emit: Emitter, node: Node, window: Window) -> str | None:
    """As `winner_taps`, [N, K, *result], in blocks of channels; None where there are none.

    Tap by tap, what no tap before has won goes on: ``u_k = u_{k-1} [x_k < m]``, from ``u_0 = m²``; so the first of
    equals wins.
    """
    x, y = node.input(0), node.output()
    padded = any([*window.begins, *window.overhang])
    # In the padding there are zeros here, which must not win.
    if not in_blocks(emit, node, window) or (padded and not _never_negative(emit, x)):
        return None
    left = emit("Mul", y.name, y.name)
    held = [emit.over_channels(left, y)]
    for under in under_taps_in_blocks(emit, node, window, -1.0)[:-1]:
        left = emit("Mul", left, above(emit, emit("Add", under, y.name), y))
        held.append(emit.over_channels(left, y))
    after = [*held[1:], emit.zeros([y.shape[0], 1, *y.shape[2:]], y.dtype)]
    return emit("Sub", _stacked(emit, held), _stacked(emit, after))


def _never_negative(emit: Emitter, value: Value) -> bool:
    made = emit.producers.get(value.name)
    if made is None:
        return False
    if made.key.op_type == "Clip":
        low = made.optional(1)
        return low is not None and low.constant is not None and bool((low.constant >= 0).all())
    return made.key.op_type == "Relu"


def in_blocks(emit: Emitter, node: Node, window: Window) -> bool:
    """Whether what lies under each tap is better taken by a convolution than by a Slice."""
    few = math.prod(window.kernel) <= _MOST_TAPS
    return (
        few and emit.blocked(node.input(0)) and emit.blocked(node.output()) and set(window.dilations) == {1}
    )


def under_taps_in_blocks(emit: Emitter, node: Node, window: Window, factor: float = 1.0) -> list[str]:
    """As `under_taps`, times a factor, by a convolution of each channel with a kernel that is 0 but for the tap."""
    x = node.input(0)
    pads = (*window.begins, *window.overhang)
    found = []
    for tap in np.ndindex(*window.kernel):
        kernel = np.zeros(window.kernel, x.dtype)
        kernel[tap] = factor
        found.append(each_channel(emit, x.name, x, kernel, strides=window.strides, pads=pads))
    return found


def under_taps(emit: Emitter, node: Node, window: Window) -> list[str]:
    """For each tap what of the input lies under it: K tensors [N, C, *result], zero in the padding."""
    x, rank, channels = node.input(0).name, len(window.kernel), node.input(0).shape[1]
    stride = window.strides[0]
    phased = rank == 2 and stride > 1 and window.strides == (stride, stride)
    # A window at the end may reach beyond the padding (ceil_mode), and phases must be whole.
    wide = [
        -(-max(r, b + n) // stride) * stride if phased else max(r, b + n)
        for r, b, n in zip(window.reach, window.begins, window.source, strict=True)
    ]
    ends = [w - b - n for w, b, n in zip(wide, window.begins, window.source, strict=True)]
    if any(window.begins) or any(ends):
        x = emit("Pad", x, emit.ints([0, 0, *window.begins, 0, 0, *ends]))
    if phased:
        # Slices with a stride are slow; a phase of the stride is contiguous behind one SpaceToDepth.
        x = emit("SpaceToDepth", x, blocksize=stride)
    axes = emit.ints(range(1, 2 + rank))
    found = []
    for tap in np.ndindex(*window.kernel):
        places = [t * d for t, d in zip(tap, window.dilations, strict=True)]
        if phased:
            first = (places[0] % stride * stride + places[1] % stride) * channels
            starts, steps = [first, *(p // stride for p in places)], [1] * (1 + rank)
        else:
            first, starts, steps = 0, [0, *places], [1, *window.strides]
        spans = [(o - 1) * s + 1 for o, s in zip(window.result, steps[1:], strict=True)]
        stops = [first + channels, *(p + span for p, span in zip(starts[1:], spans, strict=True))]
        found.append(emit("Slice", x, emit.ints(starts), emit.ints(stops), axes, emit.ints(steps)))
    return found


def _pointwise(emit: Emitter, tensor: str, weights: Array, group: int, rank: int) -> str:
    kernel = weights.reshape(*weights.shape, *[1] * (rank - 2))
    return emit("Conv", tensor, emit.const(kernel), group=group)


def _summed(emit: Emitter, tensor: str, node: Node, weights: Array, *, blocks: bool) -> str:
    """The weighted sum over the channels of [N, C, *result]: [N, 1, *result]."""
    if blocks:
        return emit("Conv", tensor, emit.const(weights.reshape(1, -1, 1, 1)))
    value = node.output()
    shape = (value.shape[0], len(weights), *value.shape[2:])
    return emit.weighted_sum(tensor, shape, (1,), weights)


def _stacked(emit: Emitter, products: list[str]) -> str:
    return products[0] if len(products) == 1 else emit("Concat", *products, axis=1)
