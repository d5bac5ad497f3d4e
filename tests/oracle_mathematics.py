"""More elementwise operators under a fixed pattern: activations, elementary functions, powers, selections."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.oracle_types import Array, Attrs, Freeze, Oracle, Replay, as_stored, weighed

Slope = Callable[[float], float]


def _each(x: Array, function: Slope) -> Array:
    return np.array([function(float(v)) for v in x.ravel()]).reshape(x.shape)


def _added_up(_attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    shape = np.broadcast_shapes(*(np.shape(o) for i, o in enumerate(operands) if i not in held))
    return lambda z: [np.broadcast_to(sum(v for i, v in enumerate(z) if i not in held), shape).astype(float)]


def _oracle(freeze: Freeze) -> Oracle:
    return Oracle(freeze, _added_up)


def _unary(make: Callable[[Attrs], Slope], offset: float | Slope = 0.0) -> Oracle:
    """``slope(x) z + offset(x)``."""

    def freeze(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
        x = operands[0]
        slope = _each(x, make(attrs))
        added = _each(x, offset) if callable(offset) else offset
        return lambda z: [weighed(z[0], slope) + added]

    return _oracle(freeze)


def _through_zero(function: Slope, limit: float, offset: float = 0.0) -> Oracle:
    """A function given as `f(v) - f(0)`, computed without cancellation."""
    return _unary(lambda _: lambda v: function(v) / v if v else limit, offset)


# Activations


def _gelu(attrs: Attrs) -> Slope:
    if attrs.get("approximate", "none") == "tanh":
        return lambda v: 0.5 + 0.5 * math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))
    return lambda v: math.erfc(-v / math.sqrt(2)) / 2


def _swish(attrs: Attrs) -> Slope:
    alpha = as_stored(attrs.get("alpha", 1.0))
    return lambda v: (1 + math.tanh(alpha * v / 2)) / 2


def _selu(attrs: Attrs) -> Slope:
    alpha = as_stored(attrs.get("alpha", 1.67326319217681884765625))
    gamma = as_stored(attrs.get("gamma", 1.05070102214813232421875))
    return lambda v: gamma if v >= 0 else gamma * alpha * math.expm1(v) / v


def _celu(attrs: Attrs) -> Slope:
    alpha = as_stored(attrs.get("alpha", 1.0))
    return lambda v: 1.0 if v >= 0 else alpha * math.expm1(v / alpha) / v


def _thresholded_relu(attrs: Attrs) -> Slope:
    alpha = as_stored(attrs.get("alpha", 1.0))
    return lambda v: 1.0 if v > alpha else 0.0


def _shrink(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    bias, edge = as_stored(attrs.get("bias", 0.0)), as_stored(attrs.get("lambd", 0.5))
    slope = _each(operands[0], lambda v: 1.0 if v < -edge or v > edge else 0.0)
    moved = _each(operands[0], lambda v: bias if v < -edge else -bias if v > edge else 0.0)
    return lambda z: [slope * z[0] + moved]


# Powers


def _pow(_attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    v, p = np.broadcast_arrays(operands[0].astype(float), operands[1].astype(float))
    slope, rest = np.zeros(v.shape), np.zeros(v.shape)
    for at in np.ndindex(v.shape):
        base, exponent = float(v[at]), float(p[at])
        if 0 in held:
            rate = math.log(base)
            slope[at] = math.expm1(rate * exponent) / exponent if exponent else rate
            rest[at] = 1.0
        elif exponent == 0:
            rest[at] = 1.0
        elif base:
            slope[at] = base**exponent / base
        else:
            slope[at] = 1.0 if exponent == 1 else 0.0
    return lambda z: [slope * z[1 if 0 in held else 0] + rest]


# Selections: one operand per element


def _selected(choose: Callable[[list[float]], int]) -> Oracle:
    def freeze(_attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
        spread = np.broadcast_arrays(*operands)
        taken = np.zeros(spread[0].shape, int)
        for at in np.ndindex(taken.shape):
            taken[at] = choose([float(o[at]) for o in spread])

        def replay(z: Sequence[Any]) -> list[Array]:
            used = np.broadcast_arrays(*(operands[i] if i in held else v for i, v in enumerate(z)))
            y = np.zeros(taken.shape)
            for at in np.ndindex(taken.shape):
                y[at] = used[taken[at]][at]
            return [y]

        return replay

    return _oracle(freeze)


def _mean(_attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    return lambda z: [np.asarray(sum(operands[i] if i in held else v for i, v in enumerate(z)) / len(z))]


def _mod(attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    a, b = np.broadcast_arrays(*operands)
    whole, rounded = np.zeros(a.shape), math.trunc if attrs.get("fmod") else math.floor
    for at in np.ndindex(a.shape):
        whole[at] = rounded(a[at] / b[at])

    def replay(z: Sequence[Any]) -> list[Array]:
        left, right = (operands[i] if i in held else z[i] for i in (0, 1))
        return [left - whole * right]

    return replay


def _no_pattern(_attrs: Attrs, _operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    raise NotImplementedError("it has no fixed pattern")


MATHEMATICS: dict[str, Oracle] = {
    "Gelu": _unary(_gelu),
    "Mish": _unary(lambda _: lambda v: math.tanh(math.log1p(math.exp(v)))),
    "Swish": _unary(_swish),
    "Selu": _unary(_selu),
    "Celu": _unary(_celu),
    "Softsign": _unary(lambda _: lambda v: 1 / (1 + abs(v))),
    "ThresholdedRelu": _unary(_thresholded_relu),
    "Shrink": _oracle(_shrink),
    "Hardmax": _oracle(_no_pattern),
    "Neg": _unary(lambda _: lambda _v: -1.0),
    "Abs": _through_zero(abs, 0.0),
    "Sign": _oracle(_no_pattern),
    "Round": _unary(lambda _: lambda _v: 1.0, lambda v: round(v) - v),
    "Floor": _unary(lambda _: lambda _v: 1.0, lambda v: math.floor(v) - v),
    "Ceil": _unary(lambda _: lambda _v: 1.0, lambda v: math.ceil(v) - v),
    "Exp": _unary(
        lambda _: lambda v: math.expm1(v) / v if v else 1.0, lambda v: 0.0 if v == -math.inf else 1.0
    ),
    "Log": _unary(lambda _: lambda v: math.log(v) / v),
    "Erf": _through_zero(math.erf, 2 / math.sqrt(math.pi)),
    "Sin": _through_zero(math.sin, 1.0),
    "Cos": _through_zero(lambda v: -2 * math.sin(v / 2) ** 2, 0.0, 1.0),
    "Tan": _through_zero(math.tan, 1.0),
    "Asin": _through_zero(math.asin, 1.0),
    "Acos": _through_zero(lambda v: -math.asin(v), -1.0, math.pi / 2),
    "Atan": _through_zero(math.atan, 1.0),
    "Sinh": _through_zero(math.sinh, 1.0),
    "Cosh": _through_zero(lambda v: 2 * math.sinh(v / 2) ** 2, 0.0, 1.0),
    "Asinh": _through_zero(math.asinh, 1.0),
    "Acosh": _unary(lambda _: lambda v: math.acosh(v) / v),
    "Atanh": _through_zero(math.atanh, 1.0),
    "Sqrt": _unary(lambda _: lambda v: 1 / math.sqrt(v) if v else 0.0),
    "Reciprocal": _unary(lambda _: lambda v: 1 / v**2),
    "Pow": _oracle(_pow),
    "Max": _selected(lambda values: values.index(max(values))),
    "Min": _selected(lambda values: values.index(min(values))),
    "Where": _selected(lambda values: 1 if values[0] else 2),
    "Mean": _oracle(_mean),
    "Mod": _oracle(_mod),
}
