"""Convolution and pooling under a fixed pattern: loops over output positions and taps."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.oracle_types import Array, Attrs, Replay, here


@dataclass(frozen=True)
class Slide:
    """Where the taps of each output position of a window lie, `auto_pad` and `ceil_mode` resolved."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    source: tuple[int, ...]
    result: tuple[int, ...]

    def outputs(self) -> Iterator[tuple[int, ...]]:
        return itertools.product(*map(range, self.result))

    def taps(self, out: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """(tap, input position) for each tap of an output position, padding included."""
        for tap in itertools.product(*map(range, self.kernel)):
            yield (
                tap,
                tuple(
                    o * s + k * d - b
                    for o, s, k, d, b in zip(out, self.strides, tap, self.dilations, self.begins, strict=True)
                ),
            )

    def inside(self, at: tuple[int, ...]) -> bool:
        return all(0 <= a < n for a, n in zip(at, self.source, strict=True))

    def in_padded(self, at: tuple[int, ...]) -> bool:
        return all(
            -b <= a < n + e for a, n, b, e in zip(at, self.source, self.begins, self.ends, strict=True)
        )


def slide(attrs: Attrs, source: tuple[int, ...], kernel: Sequence[int]) -> Slide:
    rank = len(kernel)
    strides = tuple(attrs.get("strides", (1,) * rank))
    dilations = tuple(attrs.get("dilations", (1,) * rank))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    mode, pads = attrs.get("auto_pad", "NOTSET"), tuple(attrs.get("pads", (0,) * 2 * rank))
    begins, ends, result = [], [], []
    for axis, (n, s, r) in enumerate(zip(source, strides, reach, strict=True)):
        if mode in ("SAME_UPPER", "SAME_LOWER"):
            out = math.ceil(n / s)
            total = max((out - 1) * s + r - n, 0)
            less = total // 2
            begin = less if mode == "SAME_UPPER" else total - less
            end = total - begin
        else:
            begin, end = (0, 0) if mode == "VALID" else (pads[axis], pads[rank + axis])
            steps = (n + begin + end - r) / s
            out = (math.ceil(steps) if attrs.get("ceil_mode") else math.floor(steps)) + 1
            if attrs.get("ceil_mode") and (out - 1) * s >= n + begin:
                out -= 1  # the last window would start in the padding at the end
        begins.append(begin)
        ends.append(end)
        result.append(out)
    return Slide(tuple(kernel), strides, dilations, tuple(begins), tuple(ends), tuple(source), tuple(result))


def conv(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    weights, group = operands[1], attrs.get("group", 1)
    bias = operands[2] if len(operands) > 2 else None
    window = slide(attrs, operands[0].shape[2:], weights.shape[2:])
    outs = weights.shape[0] // group

    def replay(z: Sequence[Any]) -> list[Array]:
        x = z[0]
        ins = x.shape[1] // group
        y = np.zeros((x.shape[0], weights.shape[0], *window.result))
        for out in window.outputs():
            for tap, at in window.taps(out):
                if not window.inside(at):
                    continue
                for g in range(group):
                    part = x[here(slice(None), slice(g * ins, (g + 1) * ins), *at)]
                    matrix = weights[here(slice(g * outs, (g + 1) * outs), slice(None), *tap)]
                    y[here(slice(None), slice(g * outs, (g + 1) * outs), *out)] += part @ matrix.T
            if bias is not None:
                y[here(slice(None), slice(None), *out)] += bias
        return [y]

    return replay


def average_pool(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    window = slide(attrs, operands[0].shape[2:], attrs["kernel_shape"])

    def replay(z: Sequence[Any]) -> list[Array]:
        y = np.zeros((*z[0].shape[:2], *window.result))
        for out in window.outputs():
            places = [at for _, at in window.taps(out)]
            counted = [at for at in places if window.inside(at)]
            padded = [at for at in places if window.in_padded(at)]
            for at in counted:
                y[here(..., *out)] += z[0][here(..., *at)]
            y[here(..., *out)] /= max(len(padded if attrs.get("count_include_pad") else counted), 1)
        return [y]

    return replay


def winners(attrs: Attrs, x: Array) -> Array:
    """For each output of a MaxPool the flat index of its winner within its channel, -1 in a window of padding only."""
    window = slide(attrs, x.shape[2:], attrs["kernel_shape"])
    won = np.full((*x.shape[:2], *window.result), -1, np.int64)
    for n, c in np.ndindex(x.shape[:2]):
        for out in window.outputs():
            best = -math.inf
            for _, at in window.taps(out):
                if window.inside(at) and x[(n, c, *at)] > best:
                    best = x[(n, c, *at)]
                    won[(n, c, *out)] = np.ravel_multi_index(at, window.source)
    return won


def max_pool(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    won = winners(attrs, operands[0])

    def replay(z: Sequence[Any]) -> list[Array]:
        flat = z[0].reshape(*z[0].shape[:2], -1)
        y = np.zeros(won.shape)
        for at in np.ndindex(won.shape):
            y[at] = flat[(*at[:2], won[at])] if won[at] >= 0 else 0.0
        return [y]

    return replay


def global_average_pool(_attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    axes = tuple(range(2, operands[0].ndim))
    return lambda z: [z[0].mean(axis=axes, keepdims=True)]


def global_max_pool(_attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    x = operands[0]
    axes = tuple(range(2, x.ndim))
    won = (x == x.max(axis=axes, keepdims=True)).astype(float)
    won /= won.sum(axis=axes, keepdims=True)
    return lambda z: [(z[0] * won).sum(axis=axes, keepdims=True)]
