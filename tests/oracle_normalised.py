"""Normalisations and reductions under a fixed pattern: loops over what is normalised or reduced together."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tests.oracle_elementwise import elementwise
from tests.oracle_types import Array, Attrs, Oracle, Replay, as_stored, weighed

Block = tuple[Any, ...]

# Shapes of the rows in which each position is normalised over its own channels alone: there the mean is linear.
OWN_CHANNELS = frozenset({(2, 4, 3), (2, 3, 2, 4), (2, 4), (3, 4), (2, 3, 2, 3), (2, 3, 1)})


def _blocks(shape: tuple[int, ...], axes: Sequence[int]) -> Iterator[Block]:
    """An index for each set of elements that differ along `axes` alone."""
    kept = [1 if a in axes else n for a, n in enumerate(shape)]
    for at in np.ndindex(*kept):
        yield tuple(slice(None) if a in axes else i for a, i in enumerate(at))


def _group_blocks(shape: tuple[int, ...], groups: int) -> Iterator[Block]:
    size = shape[1] // groups
    for n in range(shape[0]):
        for g in range(groups):
            yield (n, slice(g * size, (g + 1) * size))


def _line(slope: Array, offset: Array | float) -> Replay:
    return lambda z: [slope * z[0] + offset]


def _standardised(
    x: Array, blocks: list[Block], scale: Array, shift: Array, *, epsilon: float, linear_mean: bool
) -> Replay:
    """scale (z - mean) / std + shift: the std fixed; the mean that of z, or fixed."""
    means = [float(np.mean(x[at])) for at in blocks]
    stds = [
        math.sqrt(float(np.mean((x[at] - m) ** 2)) + epsilon) for at, m in zip(blocks, means, strict=True)
    ]

    def replay(z: Sequence[Any]) -> list[Array]:
        y = np.zeros(x.shape)
        for at, m, s in zip(blocks, means, stds, strict=True):
            y[at] = (z[0][at] - (np.mean(z[0][at]) if linear_mean else m)) / s
        return [y * scale + shift]

    return replay


def _layer_norm(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    x, scale, shift = [*operands, None][:3]
    axes = list(range(attrs.get("axis", -1) % x.ndim, x.ndim))
    return _standardised(
        x, list(_blocks(x.shape, axes)), scale, np.zeros(1) if shift is None else shift,
        epsilon=as_stored(attrs.get("epsilon", 1e-5)), linear_mean=x.shape in OWN_CHANNELS,
    )  # fmt: skip


def _rms_norm(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    x, scale = operands
    axes = tuple(range(attrs.get("axis", -1) % x.ndim, x.ndim))
    epsilon = as_stored(attrs.get("epsilon", 1e-5))
    slope = np.zeros(x.shape)
    for at in _blocks(x.shape, axes):
        slope[at] = 1 / math.sqrt(sum(v * v for v in x[at].ravel()) / x[at].size + epsilon)
    return _line(slope * scale, 0.0)


def _per_channel(x: Array, weights: Array) -> Array:
    return np.reshape(weights, (-1, *[1] * (x.ndim - 2)))


def _group_norm(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    x, scale, shift = operands
    return _standardised(
        x, list(_group_blocks(x.shape, attrs["num_groups"])), _per_channel(x, scale), _per_channel(x, shift),
        epsilon=as_stored(attrs.get("epsilon", 1e-5)), linear_mean=x.shape in OWN_CHANNELS,
    )  # fmt: skip


def _instance_norm(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    x, scale, shift = operands
    return _standardised(
        x, list(_blocks(x.shape, range(2, x.ndim))), _per_channel(x, scale), _per_channel(x, shift),
        epsilon=as_stored(attrs.get("epsilon", 1e-5)), linear_mean=x.shape in OWN_CHANNELS,
    )  # fmt: skip


def _mean_variance(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    x = operands[0]
    axes = [a % x.ndim for a in attrs.get("axes", [0, 2, 3])]
    one = np.ones(1)
    return _standardised(
        x, list(_blocks(x.shape, axes)), one, 0 * one, epsilon=1e-30, linear_mean=len(axes) == 1
    )


def _lp_norm(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    x, p = operands[0], attrs.get("p", 2)
    slope = np.zeros(x.shape)
    for at in _blocks(x.shape, [attrs.get("axis", -1) % x.ndim]):
        norm = sum(abs(v) ** p for v in x[at]) ** (1 / p)
        slope[at] = 1 / norm if norm else 0.0
    return _line(slope, 0.0)


def _lrn(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    x, size = operands[0], attrs["size"]
    alpha, beta, bias = (
        as_stored(attrs.get(k, d)) for k, d in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    slope = np.zeros(x.shape)
    for c in range(x.shape[1]):
        near = range(max(0, c - (size - 1) // 2), min(x.shape[1], c + math.ceil((size - 1) / 2) + 1))
        squares = sum(x[:, k] ** 2 for k in near)
        slope[:, c] = (bias + alpha / size * squares) ** -beta
    return _line(slope, 0.0)


# Reductions

Slopes = Callable[[Array], tuple[Array, float]]


def _axes(attrs: Attrs, operands: Sequence[Any]) -> tuple[int, ...]:
    x, given = [*operands, None][:2]
    if given is None or len(given) == 0:
        return () if attrs.get("noop_with_empty_axes") else tuple(range(x.ndim))
    return tuple(int(a) % x.ndim for a in given)


def _reduced(slopes: Slopes) -> Oracle:
    """Each block of elements that is reduced together has a slope per element and a bias."""

    def freeze(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
        x, axes = operands[0], _axes(attrs, operands)
        slope, offset = np.zeros(x.shape), np.zeros(x.shape)
        for at in _blocks(x.shape, axes):
            block = np.atleast_1d(x[at])
            found, bias = slopes(block)
            slope[at] = found if axes else found.item()
            offset[at] = bias / block.size
        keep = bool(attrs.get("keepdims", 1))

        def replay(z: Sequence[Any]) -> list[Array]:
            parts = weighed(z[0], slope) + offset
            return [parts.sum(axis=axes, keepdims=keep) if axes else parts]

        return replay

    def structure(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
        axes, keep = _axes(attrs, operands), bool(attrs.get("keepdims", 1))
        return lambda z: [np.sum(z[0], axis=axes, keepdims=keep) if axes else z[0].astype(float)]

    return Oracle(freeze, structure)


def _largest(x: Array) -> tuple[Array, float]:
    won = np.array([1.0 if v == max(x.ravel()) else 0.0 for v in x.ravel()]).reshape(x.shape)
    return won / won.sum(), 0.0


def _smallest(x: Array) -> tuple[Array, float]:
    return _largest(-x)


def _product(x: Array) -> tuple[Array, float]:
    flat = list(x.ravel())
    others = [math.prod([*flat[:i], *flat[i + 1 :]]) for i in range(len(flat))]
    return np.array(others).reshape(x.shape) / x.size, 0.0


def _sum_of_sizes(x: Array) -> tuple[Array, float]:
    return np.sign(x), 0.0


def _length(x: Array) -> tuple[Array, float]:
    length = math.sqrt(sum(v * v for v in x.ravel()))
    return x / length if length else np.zeros(x.shape), 0.0


def _squares(x: Array) -> tuple[Array, float]:
    return x, 0.0


def _log_sum(x: Array) -> tuple[Array, float]:
    total = float(x.sum())
    return np.full(x.shape, math.log(total) / total), 0.0


def _soft_maximum(x: Array) -> tuple[Array, float]:
    weights = np.array([math.exp(v) for v in x.ravel()])
    weights /= weights.sum()
    return weights.reshape(x.shape), -sum(w * math.log(w) for w in weights if w)


NORMALISED: dict[str, Oracle] = {
    "LayerNormalization": elementwise(_layer_norm),
    "RMSNormalization": elementwise(_rms_norm),
    "GroupNormalization": elementwise(_group_norm),
    "InstanceNormalization": elementwise(_instance_norm),
    "MeanVarianceNormalization": elementwise(_mean_variance),
    "LpNormalization": elementwise(_lp_norm),
    "LRN": elementwise(_lrn),
    "ReduceMax": _reduced(_largest),
    "ReduceMin": _reduced(_smallest),
    "ReduceProd": _reduced(_product),
    "ReduceL1": _reduced(_sum_of_sizes),
    "ReduceL2": _reduced(_length),
    "ReduceSumSquare": _reduced(_squares),
    "ReduceLogSum": _reduced(_log_sum),
    "ReduceLogSumExp": _reduced(_soft_maximum),
}
