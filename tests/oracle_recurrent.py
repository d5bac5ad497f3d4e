"""LSTM, GRU and RNN as loops over directions, items and steps; frozen, their cells are affine."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.oracle_types import Array, Attrs, Oracle, Replay

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
# One step of one item: weights (W, R, Wb, Rb), x, h, c; and where it is, to look up what was frozen there.
Cell = Callable[[Sequence[Array], Array, Array, Array, tuple[int, ...]], tuple[Array, Array]]


def sigmoid(v: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-v)))


def secant(v: Array) -> Array:
    """tanh(v) / v."""
    return np.where(v == 0, 1.0, np.tanh(v) / np.where(v == 0, 1.0, v))


def gates(op: str, attrs: Attrs, weights: Sequence[Array], x: Array, h: Array) -> list[Array]:
    """Preactivations of the gates, W x + R h + biases."""
    w, r, wb, rb = (np.split(part, GATES[op]) for part in weights[:4])
    found = [a @ x + b @ h + c + d for a, b, c, d in zip(w, r, wb, rb, strict=True)]
    if op == "GRU":
        reset = sigmoid(found[1])
        linear = (
            reset * (r[2] @ h + rb[2]) if attrs.get("linear_before_reset") else r[2] @ (reset * h) + rb[2]
        )
        found[2] = w[2] @ x + wb[2] + linear
    return found


def lstm(found: Sequence[Array], weights: Sequence[Array], c: Array) -> tuple[Array, Array, Array, Array]:
    """The gates i, o, f, and the cell after the step."""
    sees = np.split(weights[4], 3)
    i, f = sigmoid(found[0] + sees[0] * c), sigmoid(found[2] + sees[2] * c)
    cell = f * c + i * np.tanh(found[3])
    return i, sigmoid(found[1] + sees[1] * cell), f, cell


def step(
    op: str, attrs: Attrs, weights: Sequence[Array], x: Array, h: Array, c: Array
) -> tuple[Array, Array]:
    found = gates(op, attrs, weights, x, h)
    if op == "LSTM":
        _, o, _, cell = lstm(found, weights, c)
        return o * np.tanh(cell), cell
    if op == "GRU":
        z = sigmoid(found[0])
        return (1 - z) * np.tanh(found[2]) + z * h, c
    return (np.maximum(found[0], 0) if relu(attrs) else np.tanh(found[0])), c


def relu(attrs: Attrs) -> bool:
    return "relu" in attrs.get("activations", ["tanh"])[0].lower()


def unroll(op: str, attrs: Attrs, operands: Sequence[Any], cell: Cell) -> list[Array]:
    """All hidden states, and the states after the last step of each item."""
    x, w, r, b, lengths, h0, c0, peep = [*operands, *[None] * 5][:8]
    batchwise, size = bool(attrs.get("layout")), r.shape[2]
    if batchwise:
        x, h0, c0 = (None if a is None else np.swapaxes(a, 0, 1) for a in (x, h0, c0))
    count, items = x.shape[:2]
    ways = {"forward": [0], "reverse": [1], "bidirectional": [0, 1]}[attrs.get("direction", "forward")]
    bias = np.zeros((len(ways), 2 * len(w[0]))) if b is None else b
    y = np.zeros((count, len(ways), items, size))
    ends = np.zeros((2, len(ways), items, size))
    for d, n in np.ndindex(len(ways), items):
        weights = [w[d], r[d], *np.split(bias[d], 2), np.zeros(3 * size) if peep is None else peep[d]]
        h, c = (np.zeros(size) if a is None else a[d, n] for a in (h0, c0))
        steps = range(count if lengths is None else int(lengths[n]))
        for t in reversed(steps) if ways[d] else steps:
            h, c = cell(weights, x[t, n], h, c, (d, n, t))
            y[t, d, n] = h
        ends[:, d, n] = h, c
    if batchwise:
        return [y.transpose(2, 0, 1, 3), *(e.transpose(1, 0, 2) for e in ends)]
    return [y, *ends]


def forward(op: str, attrs: Attrs, operands: Sequence[Any]) -> list[Array]:
    return unroll(op, attrs, operands, lambda weights, x, h, c, _at: step(op, attrs, weights, x, h, c))


def _frozen(op: str) -> Callable[[Attrs, Sequence[Any], frozenset[int]], Replay]:
    def freeze(attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
        pattern: dict[tuple[int, ...], tuple[list[Array], Array, Array]] = {}

        def record(
            weights: Sequence[Array], x: Array, h: Array, c: Array, at: tuple[int, ...]
        ) -> tuple[Array, Array]:
            found, after = gates(op, attrs, weights, x, h), step(op, attrs, weights, x, h, c)
            slope = (found[-1] > 0).astype(float) if op == "RNN" and relu(attrs) else secant(found[-1])
            fixed = [sigmoid(gate) for gate in found[:-1]]
            if op == "LSTM":
                fixed = list(lstm(found, weights, c)[:3])
            pattern[at] = (fixed, slope, secant(after[1]))
            return after

        unroll(op, attrs, operands, record)

        def affine(
            weights: Sequence[Array], x: Array, h: Array, c: Array, at: tuple[int, ...]
        ) -> tuple[Array, Array]:
            fixed, slope, of_cell = pattern[at]
            w, r, wb, rb = (np.split(part, GATES[op])[-1] for part in weights[:4])
            if op == "GRU":
                z, reset = fixed
                inner = reset * (r @ h + rb) if attrs.get("linear_before_reset") else r @ (reset * h) + rb
                return (1 - z) * slope * (w @ x + wb + inner) + z * h, c
            a = slope * (w @ x + r @ h + wb + rb)
            if op == "RNN":
                return a, c
            cell = fixed[2] * c + fixed[0] * a
            return fixed[1] * of_cell * cell, cell

        def replay(moved: Sequence[Any]) -> list[Array]:
            values = [o if i in held else m for i, (o, m) in enumerate(zip(operands, moved, strict=True))]
            return unroll(op, attrs, values, affine)[: 3 if op == "LSTM" else 2]

        return replay

    return freeze


def _positive(op: str) -> Callable[[Attrs, Sequence[Any], frozenset[int]], Replay]:
    """The same with positive weights, so small that no gate closes."""

    def structure(attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
        small = [np.full(np.shape(o), 0.1) if o is not None and o.dtype.kind == "f" else o for o in operands]
        return _frozen(op)(attrs, small, held)

    return structure


RECURRENT: dict[str, Oracle] = {op: Oracle(_frozen(op), _positive(op)) for op in GATES}
