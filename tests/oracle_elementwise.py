"""Elementwise operators under a fixed pattern: loops over the elements in plain Python."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.oracle_types import Array, Attrs, Freeze, Oracle, Replay, as_stored, weighed


def elementwise(freeze: Freeze) -> Oracle:
    return Oracle(freeze, _added_up)


def _added_up(_attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    shape = np.broadcast_shapes(*(np.shape(o) for i, o in enumerate(operands) if i not in held))
    return lambda z: [np.broadcast_to(sum(v for i, v in enumerate(z) if i not in held), shape).astype(float)]


def _line(slope: Array, offset: Array | float) -> Replay:
    return lambda z: [weighed(z[0], slope) + offset]


def _each(x: Array, function: Callable[[float], float]) -> Array:
    return np.array([function(float(v)) for v in x.ravel()]).reshape(x.shape)


def _masked_line(x: Array, slope: Callable[[float], float], offset: float) -> Replay:
    """A line through the values at x and at 0; where x is -inf, a mask, it is 0."""
    return _line(
        _each(x, lambda v: 0.0 if v == -math.inf else slope(v)),
        _each(x, lambda v: 0.0 if v == -math.inf else offset),
    )


def _relu(_attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    return _line(_each(operands[0], lambda v: 1.0 if v > 0 else 0.0), 0.0)


def _leaky_relu(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    alpha = as_stored(attrs.get("alpha", 0.01))
    return _line(_each(operands[0], lambda v: 1.0 if v >= 0 else alpha), 0.0)


def _prelu(_attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    if 0 in held:
        v = operands[0]
        return lambda z: [np.where(v < 0, v * z[1], v)]
    x, slope = operands[0], np.broadcast_to(operands[1], operands[0].shape)
    return _line(np.where(x >= 0, 1.0, slope), 0.0)


def _clip(_attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    x = operands[0]
    low, high = (
        float(operands[i]) if len(operands) > i and operands[i] is not None else default
        for i, default in ((1, -math.inf), (2, math.inf))
    )
    slope = _each(x, lambda v: 1.0 if low < v < high else 0.0)
    return _line(slope, _each(x, lambda v: 0.0 if low < v < high else min(max(v, low), high)))


def _sigmoid(_attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    # sigmoid(v) - 1/2 = tanh(v/2) / 2
    return _masked_line(operands[0], lambda v: math.tanh(v / 2) / (2 * v) if v else 0.25, 0.5)


def _tanh(_attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    return _line(_each(operands[0], lambda v: math.tanh(v) / v if v else 1.0), 0.0)


def _elu(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    alpha = as_stored(attrs.get("alpha", 1.0))
    return _line(_each(operands[0], lambda v: 1.0 if v >= 0 else alpha * math.expm1(v) / v), 0.0)


def _softplus(_attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    # ln(1 + e^v) - ln 2 = v/2 + ln cosh(v/2), and cosh(h) - 1 = 2 sinh²(h/2)
    def slope(v: float) -> float:
        return 0.5 + math.log1p(2 * math.sinh(v / 4) ** 2) / v if v else 0.5

    return _masked_line(operands[0], slope, math.log(2))


def _hard_sigmoid(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    alpha, beta = as_stored(attrs.get("alpha", 0.2)), as_stored(attrs.get("beta", 0.5))
    inside = _each(operands[0], lambda v: 1.0 if 0 < alpha * v + beta < 1 else 0.0)
    beyond = _each(operands[0], lambda v: 1.0 if alpha * v + beta >= 1 else 0.0)
    return _line(alpha * inside, beta * inside + beyond)


def _hard_swish(_attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    return _line(_each(operands[0], lambda v: min(max(v / 6 + 0.5, 0.0), 1.0)), 0.0)


def _log_softmax(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    x = operands[0]
    rows = np.moveaxis(x, attrs.get("axis", -1), -1)
    normaliser = np.array(
        [math.log(sum(math.exp(v) for v in row)) for row in rows.reshape(-1, rows.shape[-1])]
    )
    normaliser = np.expand_dims(normaliser.reshape(rows.shape[:-1]), attrs.get("axis", -1))
    return lambda z: [z[0] - normaliser]


def _softmax(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    """e^v / Z with Z fixed: the line through (0, 1/Z), but no higher there than 1, and (v, y)."""
    axis = attrs.get("axis", -1)
    normaliser = np.apply_along_axis(lambda row: math.fsum(math.exp(v) for v in row), axis, operands[0])
    z = np.broadcast_to(np.expand_dims(normaliser, axis), operands[0].shape)
    start = np.array([min(1 / n, 1.0) for n in z.ravel()]).reshape(z.shape)
    slope = np.zeros(z.shape)
    for at in np.ndindex(z.shape):
        v, n = float(operands[0][at]), float(z[at])
        if v == -math.inf:
            start[at] = 0
        elif n >= 1:
            slope[at] = math.expm1(v) / v / n if v else 1 / n
        else:
            slope[at] = (math.exp(v) / n - 1) / v
    return _line(slope, start)


def _add(_attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    return lambda z: [np.asarray(sum(operands[i] if i in held else v for i, v in enumerate(z)))]


def _sub(_attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    def replay(z: Sequence[Any]) -> list[Array]:
        left, right = (operands[i] if i in held else z[i] for i in (0, 1))
        return [left - right]

    return replay


def _mul(_attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    a, b = operands
    if held:
        return lambda z: [a * z[1] if 0 in held else z[0] * b]
    return lambda z: [(z[0] * b + a * z[1]) / 2]


def _div(_attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    a, b = operands
    if held == {1}:
        return lambda z: [z[0] / b]
    assert held == {0}
    return lambda z: [z[1] * (a / b**2)]


def _batch_normalization(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    _, scale, shift, mean, variance = operands
    epsilon = as_stored(attrs.get("epsilon", 1e-5))

    def replay(z: Sequence[Any]) -> list[Array]:
        y = np.empty_like(z[0])
        for c in range(z[0].shape[1]):
            y[:, c] = (z[0][:, c] - mean[c]) / math.sqrt(variance[c] + epsilon) * scale[c] + shift[c]
        return [y]

    return replay


def _same(_attrs: Attrs, _operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    return lambda z: [z[0]]


def _rounded(_attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    """In the units of the dequantised tensor: what rounding changes is constant, and all that saturates."""
    x, scale, zero = operands
    shape = [1, -1, *[1] * (x.ndim - 2)] if scale.ndim else []
    s, z0 = scale.reshape(shape).astype(np.float64), zero.reshape(shape).astype(np.float64)
    whole = np.rint(x.astype(np.float32) / s.astype(np.float32)) + z0
    real = (np.clip(whole, -128, 127) - z0) * s
    return lambda z: [np.where((whole >= -128) & (whole <= 127), z[0] + (real - x), real)]


def _dynamically_rounded(_attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    """To 8 bits between the smallest and the largest number, 0 among them."""
    x = operands[0].astype(np.float32)
    low, high = min(x.min(), np.float32(0)), max(x.max(), np.float32(0))
    step = (high - low) / np.float32(255)
    zero = np.clip(np.rint(-low / step), 0, 255)
    kept = np.clip(np.rint(x / step) + zero, 0, 255)
    return lambda z: [z[0] + ((kept - zero) * step.astype(np.float64) - x)]


ELEMENTWISE: dict[str, Oracle] = {
    "Relu": elementwise(_relu),
    "LeakyRelu": elementwise(_leaky_relu),
    "PRelu": elementwise(_prelu),
    "Clip": elementwise(_clip),
    "Sigmoid": elementwise(_sigmoid),
    "Tanh": elementwise(_tanh),
    "Elu": elementwise(_elu),
    "Softplus": elementwise(_softplus),
    "HardSigmoid": elementwise(_hard_sigmoid),
    "HardSwish": elementwise(_hard_swish),
    "LogSoftmax": elementwise(_log_softmax),
    "Softmax": elementwise(_softmax),
    "BatchNormalization": elementwise(_batch_normalization),
    "Identity": elementwise(_same),
    "Dropout": elementwise(_same),
    "Cast": elementwise(_same),
    "CastLike": elementwise(_same),
    "QuantizeLinear": elementwise(_rounded),
    "DequantizeLinear": elementwise(_same),
    "DynamicQuantizeLinear": elementwise(_dynamically_rounded),
    "Add": elementwise(_add),
    "Sum": elementwise(_add),
    "Sub": elementwise(_sub),
    "Mul": elementwise(_mul),
    "Div": elementwise(_div),
}
