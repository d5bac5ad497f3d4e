"""Fourier transforms, running products, determinants and what selects or writes by an index, in loops."""

import cmath
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.oracle_moving import copying, of_copies
from tests.oracle_types import Array, Attrs, Freeze, Oracle, Replay, here

Held = frozenset[int]
Place = tuple[int, ...]
Factors = Callable[[int, int, int], complex]


def _given(operands: Sequence[Any], index: int) -> int | None:
    """The number that an operand holds, None where it was left out."""
    value = operands[index] if len(operands) > index else None
    return None if value is None else int(np.asarray(value).item())


# DFT and STFT


def _complex(x: Array) -> Array:
    return x[..., 0] + 1j * x[..., 1] if x.shape[-1] == 2 else x[..., 0].astype(complex)


def _parts(y: Array) -> Array:
    return np.stack([y.real, y.imag], axis=-1)


def _turn(k: int, t: int, length: int) -> complex:
    return cmath.exp(-2j * math.pi * k * t / length)


def _dft(attrs: Attrs, operands: Sequence[Any], _held: Held) -> Replay:
    shape = operands[0].shape
    axis = _given(operands, 2)
    axis = int(attrs.get("axis", -2) if axis is None else axis) % len(shape)
    inverse, onesided = bool(attrs.get("inverse")), bool(attrs.get("onesided"))
    size = shape[axis]
    length = _given(operands, 1) or (2 * (size - 1) if inverse and onesided else size)

    def spectrum(x: Array) -> Array:
        y = np.zeros((length // 2 + 1 if onesided else length, *x.shape[1:]), complex)
        for k, t in itertools.product(range(len(y)), range(min(size, length))):
            turn = _turn(k, t, length)
            y[k] += x[t] * (turn.conjugate() / length if inverse else turn)
        return y

    def real_signal(x: Array) -> Array:
        """Every frequency but 0 and the highest of an even length stands for its mirror image too."""
        y = np.zeros((length, *x.shape[1:]))
        for t, k in itertools.product(range(length), range(min(size, length // 2 + 1))):
            twice = 1 if k == 0 or 2 * k == length else 2
            y[t] += (x[k] * _turn(k, t, length).conjugate()).real * twice / length
        return y

    def replay(z: Sequence[Any]) -> list[Array]:
        x = np.moveaxis(_complex(z[0]), axis, 0)
        if inverse and onesided:
            return [np.moveaxis(real_signal(x), 0, axis)[..., None]]
        return [_parts(np.moveaxis(spectrum(x), 0, axis))]

    return replay


def _dft_feeds(attrs: Attrs, operands: Sequence[Any], held: Held) -> Replay:
    """Every sample that is used reaches every output."""
    shape = _dft(attrs, operands, held)([np.zeros(operands[0].shape)])[0].shape
    axis = _given(operands, 2)
    axis = int(attrs.get("axis", -2) if axis is None else axis) % len(shape)
    used = _given(operands, 1) or operands[0].shape[axis]

    def replay(z: Sequence[Any]) -> list[Array]:
        seen = np.moveaxis(z[0], axis, 0)[:used].sum(axis=(0, -1), keepdims=True)
        return [np.broadcast_to(np.moveaxis(seen, 0, axis), shape).copy()]

    return replay


def _stft_sizes(attrs: Attrs, operands: Sequence[Any]) -> tuple[int, int, int, int]:
    """Step, samples of a frame, frames, frequencies."""
    size, window = operands[0].shape[1], operands[2] if len(operands) > 2 else None
    step, length = _given(operands, 1), _given(operands, 3) or (size if window is None else len(window))
    assert step is not None
    kept = length // 2 + 1 if attrs.get("onesided", 1) else length
    return step, length, (size - length) // step + 1, kept


def _stft(attrs: Attrs, operands: Sequence[Any], _held: Held) -> Replay:
    step, length, frames, kept = _stft_sizes(attrs, operands)
    window = operands[2] if len(operands) > 2 and operands[2] is not None else np.ones(length)

    def replay(z: Sequence[Any]) -> list[Array]:
        x = _complex(z[0])
        y = np.zeros((len(x), frames, kept), complex)
        for f, k, t in itertools.product(range(frames), range(kept), range(length)):
            y[:, f, k] += x[:, f * step + t] * float(window[t]) * _turn(k, t, length)
        return [_parts(y)]

    return replay


def _stft_feeds(attrs: Attrs, operands: Sequence[Any], _held: Held) -> Replay:
    step, length, frames, kept = _stft_sizes(attrs, operands)
    window = operands[2] if len(operands) > 2 and operands[2] is not None else np.ones(length)

    def replay(z: Sequence[Any]) -> list[Array]:
        y = np.zeros((len(z[0]), frames, kept, 2))
        for f, t in itertools.product(range(frames), range(length)):
            if window[t]:
                y[:, f] += z[0][:, f * step + t].sum(axis=-1)[:, None, None]
        return [y]

    return replay


# Products


def _cum_prod(weigh: Callable[[Array, int], float], rest: float) -> Freeze:
    """Each output the sum of its factors, weighed; `rest` where there are none."""

    def freeze(attrs: Attrs, operands: Sequence[Any], _held: Held) -> Replay:
        axis = int(operands[1])
        x = np.moveaxis(operands[0], axis, 0)
        size = len(x)
        factors = []
        for out in range(size):
            ahead = range(size - 1, out, -1) if attrs.get("reverse") else range(out)
            factors.append([*ahead, *([] if attrs.get("exclusive") else [out])])

        def replay(z: Sequence[Any]) -> list[Array]:
            moved = np.moveaxis(z[0], axis, 0)
            y = np.zeros(x.shape)
            for out, column in itertools.product(range(size), np.ndindex(x.shape[1:])):
                values = np.array([float(x[here(i, *column)]) for i in factors[out]])
                y[here(out, *column)] = rest if not len(values) else 0.0
                for nth, i in enumerate(factors[out]):
                    y[here(out, *column)] += weigh(values, nth) * moved[here(i, *column)]
            return [np.moveaxis(y, 0, axis)]

        return replay

    return freeze


def _without(values: Array, nth: int) -> float:
    """The product of the others, divided among all."""
    return math.prod([float(v) for i, v in enumerate(values) if i != nth]) / len(values)


def _determinant(matrix: Array) -> float:
    """Along the first row."""
    if len(matrix) == 0:
        return 1.0
    return sum((float(v) * _cofactor(matrix, 0, j) for j, v in enumerate(matrix[0])), 0.0)


def _cofactor(matrix: Array, i: int, j: int) -> float:
    minor = [[v for b, v in enumerate(row) if b != j] for a, row in enumerate(matrix) if a != i]
    sign = -1.0 if (i + j) % 2 else 1.0
    return sign * _determinant(np.array(minor).reshape(len(matrix) - 1, len(matrix) - 1))


def _det(_attrs: Attrs, operands: Sequence[Any], _held: Held) -> Replay:
    x = operands[0]
    size = x.shape[-1]
    slopes = np.zeros(x.shape)
    for at in np.ndindex(x.shape):
        slopes[at] = _cofactor(x[at[:-2]], *at[-2:]) / size
    return lambda z: [np.asarray((slopes * z[0]).sum(axis=(-2, -1)))]


def _det_feeds(_attrs: Attrs, _operands: Sequence[Any], _held: Held) -> Replay:
    return lambda z: [np.asarray(z[0].sum(axis=(-2, -1)))]


# Selecting and writing


def _kept(attrs: Attrs, operands: Sequence[Any]) -> list[int]:
    return [i for i, taken in enumerate(operands[1]) if taken]


def _compressed_shape(attrs: Attrs, operands: Sequence[Any]) -> tuple[int, ...]:
    shape, count = operands[0].shape, len(_kept(attrs, operands))
    if "axis" not in attrs:
        return (count,)
    axis = attrs["axis"] % len(shape)
    return (*shape[:axis], count, *shape[axis + 1 :])


def _compressed(attrs: Attrs, operands: Sequence[Any], out: Place) -> Place:
    shape, kept = operands[0].shape, _kept(attrs, operands)
    if "axis" not in attrs:
        return tuple(int(i) for i in np.unravel_index(kept[out[0]], shape))
    axis = attrs["axis"] % len(shape)
    return (*out[:axis], kept[out[axis]], *out[axis + 1 :])


def _one_hot_shape(attrs: Attrs, operands: Sequence[Any]) -> tuple[int, ...]:
    shape = operands[0].shape
    axis = attrs.get("axis", -1) % (len(shape) + 1)
    return (*shape[:axis], int(np.asarray(operands[1]).item()), *shape[axis:])


def _one_hot(attrs: Attrs, operands: Sequence[Any], out: Place) -> Place:
    """Place 1 holds the value at the index, place 0 that elsewhere."""
    depth = int(np.asarray(operands[1]).item())
    axis = attrs.get("axis", -1) % len(out)
    index = int(operands[0][(*out[:axis], *out[axis + 1 :])])
    return (int(out[axis] in (index, index + depth)),)


def _two_values(attrs: Attrs, operands: Sequence[Any], held: Held) -> Replay:
    copied = copying(_one_hot, _one_hot_shape)(attrs, operands, held)
    return lambda z: copied([z[2]])


def _tensor_scatter(attrs: Attrs, operands: Sequence[Any], held: Held) -> Replay:
    cache, update = operands[:2]
    axis = attrs.get("axis", -2) % cache.ndim
    starts = operands[2] if len(operands) > 2 else np.zeros(len(cache), int)
    targets = {}
    for at in np.ndindex(update.shape):
        place = int(starts[at[0]]) + at[axis]
        if attrs.get("mode") == "circular":
            place %= cache.shape[axis]
        targets[at] = (*at[:axis], place, *at[axis + 1 :])

    def replay(z: Sequence[Any]) -> list[Array]:
        before, new = (np.asarray(operands[i] if i in held else z[i], float) for i in (0, 1))
        y = before.copy()
        for at, to in targets.items():
            y[to] = new[at]
        return [y]

    return replay


SIGNALS: dict[str, Oracle] = {
    "DFT": Oracle(_dft, _dft_feeds),
    "STFT": Oracle(_stft, _stft_feeds),
    "CumProd": Oracle(_cum_prod(_without, 1.0), _cum_prod(lambda _values, _nth: 1.0, 0.0)),
    "Det": Oracle(_det, _det_feeds),
    "Compress": of_copies(_compressed, _compressed_shape),
    "OneHot": Oracle(_two_values, _two_values),
    "TensorScatter": Oracle(_tensor_scatter, _tensor_scatter),
}
