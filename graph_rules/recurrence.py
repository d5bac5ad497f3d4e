"""One direction of a recurrent layer, unrolled over its sequence: what LSTM, GRU and RNN share.

Tensors are [T, N, ...] in the layout of the file's default; steps are [1, N, ...].
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graph_rules.frozen import ratio
from srd_onnx.engine.emit import Emitter
from srd_onnx.graph.ir import Array, Node, Value


@dataclass(frozen=True)
class States:
    """A cotangent, or a bias, of the hidden state and (LSTM) of the cell; None where there is none."""

    hidden: str | None = None
    cell: str | None = None


@dataclass(frozen=True)
class Unrolled:
    """What one direction of a layer computes with.

    Attributes:
        x: the input, [T, N, I].
        before: the hidden state before each step, [T, N, H].
        after: the hidden state after each step, [T, N, H]; 0 where a shorter item has ended.
        start: the states before the first step, [1, N, H].
        matrix, recurrent: weights of all gates, [gates·H, I] and [gates·H, H].
        shift, recurrent_shift: biases that go with them, [gates·H].
        order: the steps in the order in which they are taken.
        peepholes: what the gates i, o, f of an LSTM see of the cell, [3·H], or None.
        kept: 1.0 where an item of the batch takes the step, [T, N, 1]; None where every one takes all.
    """

    emit: Emitter
    node: Node
    x: str
    before: str
    after: str
    start: States
    matrix: Array
    recurrent: Array
    shift: Array
    recurrent_shift: Array
    peepholes: Array | None
    order: tuple[int, ...]
    kept: Array | None

    @property
    def like(self) -> Value:
        """A value of the dtype."""
        return self.node.input(0)

    @property
    def size(self) -> int:
        """Of the hidden state."""
        return int(self.recurrent.shape[1])

    def const(self, data: Array) -> str:
        """A constant of the dtype."""
        return self.emit.like(self.like, data)

    def block(self, array: Array, *gates: int) -> Array:
        """The rows of these gates."""
        return np.concatenate([array[g * self.size : (g + 1) * self.size] for g in gates])

    def times(self, x: str, matrix: Array) -> str:
        """``x W^T``."""
        return self.emit("MatMul", x, self.const(np.ascontiguousarray(matrix.T)))

    def back(self, g: str, matrix: Array) -> str:
        """``g W``: the transpose of `times`."""
        return self.emit("MatMul", g, self.const(matrix))

    def steps(self, tensor: str) -> Sequence[str]:
        """[T, N, ...] as T tensors [1, N, ...]."""
        count = len(self.order)
        if count == 1:
            return (tensor,)
        return self.emit.many("Split", tensor, self.emit.ints([1] * count), outputs=count, axis=0)

    def joined(self, steps: Sequence[str]) -> str:
        """T tensors [1, N, ...] as one."""
        return steps[0] if len(steps) == 1 else self.emit("Concat", *steps, axis=0)

    def split(self, tensor: str, count: int) -> Sequence[str]:
        """The gates of a tensor [..., count·H]."""
        if count == 1:
            return (tensor,)
        return self.emit.many("Split", tensor, self.emit.ints([self.size] * count), outputs=count, axis=-1)

    def kept_at(self, step: int) -> Array | None:
        """Which items take the step, [1, N, 1]; None where all do."""
        if self.kept is None or self.kept[step].all():
            return None
        return np.asarray(self.kept[step : step + 1])

    def masked(self, tensor: str | None, kept: Array | None) -> str | None:
        """A tensor where an item takes the step, 0 elsewhere."""
        return tensor if tensor is None or kept is None else self.emit("Mul", tensor, self.const(kept))

    def add(self, *tensors: str | None) -> str | None:
        """The sum of those that are there."""
        given = [t for t in tensors if t is not None]
        return self.emit.sum(given) if given else None

    def slope(self, v: str, y: str) -> str:
        """``tanh(v) / v``, of which 1 is the limit."""
        return ratio(self.emit, Value(v, (), self.like.dtype), y, 1.0)

    def rise(self, y: str) -> str:
        """``1 - y²``: the derivative of tanh."""
        return self.emit("Sub", self.emit.like(self.like, 1.0), self.emit("Mul", y, y))

    def bell(self, y: str) -> str:
        """``y (1 - y)``: the derivative of the sigmoid."""
        return self.emit("Mul", y, self.complement(y))

    def complement(self, y: str) -> str:
        """``1 - y``."""
        return self.emit("Sub", self.emit.like(self.like, 1.0), y)

    def backward(self) -> Iterator[int]:
        """The steps, last first."""
        return reversed(self.order)
