"""ConvTranspose, power-mean pools and TopK under a fixed pattern, in loops."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.oracle_types import Array, Attrs, Oracle, Replay, here
from tests.oracle_windows import slide

Held = frozenset[int]


def stamp_geometry(attrs: Attrs, shape: Sequence[int], kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """(begins, result) per axis, as the text of ConvTranspose says."""
    rank = len(kernel)
    strides, dilations = attrs.get("strides", [1] * rank), attrs.get("dilations", [1] * rank)
    extra, pads = attrs.get("output_padding", [0] * rank), attrs.get("pads", [0] * 2 * rank)
    mode, wanted = attrs.get("auto_pad", "NOTSET"), attrs.get("output_shape")
    begins, result = [], []
    for a in range(rank):
        whole = strides[a] * (shape[a] - 1) + extra[a] + (kernel[a] - 1) * dilations[a] + 1
        if wanted is None and mode in ("NOTSET", "VALID"):
            begin, end = (pads[a], pads[rank + a]) if mode == "NOTSET" else (0, 0)
            made = whole - begin - end
        else:
            made = wanted[a] if wanted is not None else shape[a] * strides[a]
            total = max(whole - made, 0)  # what is wanted beyond the input's reach lies at the end
            begin = total // 2 if mode == "SAME_UPPER" else total - total // 2
        begins.append(begin)
        result.append(made)
    return begins, result


def conv_transpose(attrs: Attrs, operands: Sequence[Any], _held: Held) -> Replay:
    x, weights = operands[:2]
    bias = operands[2] if len(operands) > 2 else None
    group, kernel = attrs.get("group", 1), weights.shape[2:]
    begins, result = stamp_geometry(attrs, x.shape[2:], kernel)
    rank, ins, outs = len(kernel), x.shape[1] // group, weights.shape[1]
    strides, dilations = attrs.get("strides", [1] * rank), attrs.get("dilations", [1] * rank)

    def replay(z: Sequence[Any]) -> list[Array]:
        y = np.zeros((x.shape[0], group * outs, *result))
        for at in np.ndindex(x.shape[2:]):
            for tap in itertools.product(*map(range, kernel)):
                out = [
                    i * s + k * d - b
                    for i, s, k, d, b in zip(at, strides, tap, dilations, begins, strict=True)
                ]
                if not all(0 <= o < n for o, n in zip(out, result, strict=True)):
                    continue
                for g in range(group):
                    part = z[0][here(slice(None), slice(g * ins, (g + 1) * ins), *at)]
                    matrix = weights[here(slice(g * ins, (g + 1) * ins), slice(None), *tap)]
                    y[here(slice(None), slice(g * outs, (g + 1) * outs), *out)] += part @ matrix
        if bias is not None:
            y += bias.reshape(-1, *[1] * rank)
        return [y]

    return replay


def _slopes(x: Array, p: int, y: float) -> Array:
    """∂y/∂x of a power mean, at a norm of 0 none."""
    if y == 0:
        return np.zeros_like(x)
    return np.asarray(np.sign(x) * np.abs(x) ** (p - 1) / y ** (p - 1))


def lp_pool(attrs: Attrs, operands: Sequence[Any], _held: Held) -> Replay:
    x, p = operands[0], attrs.get("p", 2)
    window = slide(attrs, x.shape[2:], attrs["kernel_shape"])
    weights = {}
    for n, c, *out in np.ndindex(*x.shape[:2], *window.result):
        inside = [at for _, at in window.taps(tuple(out)) if window.inside(at)]
        values = np.array([x[(n, c, *at)] for at in inside], float)
        slopes = _slopes(values, p, float((np.abs(values) ** p).sum() ** (1 / p)))
        weights[(n, c, *out)] = list(zip(inside, slopes, strict=True))

    def replay(z: Sequence[Any]) -> list[Array]:
        y = np.zeros((*x.shape[:2], *window.result))
        for (n, c, *out), parts in weights.items():
            y[(n, c, *out)] = sum(w * z[0][(n, c, *at)] for at, w in parts)
        return [y]

    return replay


def global_lp_pool(attrs: Attrs, operands: Sequence[Any], _held: Held) -> Replay:
    x, p = operands[0], attrs.get("p", 2)
    axes = tuple(range(2, x.ndim))
    slopes = np.zeros(x.shape)
    for at in np.ndindex(x.shape[:2]):
        slopes[at] = _slopes(x[at], p, float((np.abs(x[at]) ** p).sum() ** (1 / p)))
    return lambda z: [(z[0] * slopes).sum(axis=axes, keepdims=True)]


def top_k(attrs: Attrs, operands: Sequence[Any], _held: Held) -> Replay:
    x, count, axis = operands[0], int(operands[1][0]), attrs.get("axis", -1)
    first = np.argsort(-x if attrs.get("largest", 1) else x, axis=axis, kind="stable")
    won = np.take(first, range(count), axis=axis)
    return lambda z: [np.take_along_axis(z[0], won, axis)]


def _any_may_win(attrs: Attrs, operands: Sequence[Any], _held: Held) -> Replay:
    count, axis = int(operands[1][0]), attrs.get("axis", -1)
    return lambda z: [np.repeat(z[0].sum(axis=axis, keepdims=True), count, axis)]


def _sums(_attrs: Attrs, operands: Sequence[Any], _held: Held) -> Replay:
    axes = tuple(range(2, operands[0].ndim))
    return lambda z: [z[0].sum(axis=axes, keepdims=True)]


def _window_sums(attrs: Attrs, operands: Sequence[Any], held: Held) -> Replay:
    return lp_pool({**attrs, "p": 1}, [np.ones(operands[0].shape)], held)


def _stamp_sums(attrs: Attrs, operands: Sequence[Any], held: Held) -> Replay:
    return conv_transpose(attrs, [operands[0], np.ones(operands[1].shape)], held)


STAMPS = {
    "ConvTranspose": Oracle(conv_transpose, _stamp_sums),
    "LpPool": Oracle(lp_pool, _window_sums),
    "GlobalLpPool": Oracle(global_lp_pool, _sums),
    "TopK": Oracle(top_k, _any_may_win),
}
