"""Sampling between pixels: what GridSample and DeformConv share. Where a sample is taken is the pattern, held fixed.

A sample is a sum over taps, whole places around its own, of which there are as many as the product of those along each
axis. What lies outside is 0 or another pixel, so that only the index of a tap changes there, not its weight.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from graph_rules.registry import varying
from graph_rules.windows import window_roles
from srd_onnx.engine.emit import Emitter
from srd_onnx.graph.ir import Array, Node, Value
from srd_onnx.graph.roles import Axes, Role, Roles

Padding = Literal["zeros", "border", "reflection", "reflection_at_centres"]

NEGLIGIBLE = 1e-4  # a weight along an axis below this comes from rounding a place: that tap feeds nothing
_INT64 = 7  # TensorProto.INT64


@dataclass(frozen=True, eq=False)
class Kernel:
    """Tap k lies `offsets[k]` behind the whole place before the sample and weighs ``Σ_m coefficients[m, k] t^m``.

    `t` is the fraction behind that place. `rounds`: the whole place is the nearest one instead.

    Shapes: coefficients [powers, taps].
    """

    offsets: tuple[int, ...]
    coefficients: Array
    rounds: bool = False

    def slope(self) -> Array:
        """The coefficients of the derivative by `t`."""
        powers = np.arange(1, len(self.coefficients))
        return np.asarray(self.coefficients[1:] * powers[:, None])


_A = -0.75  # of Keys' kernel
NEAREST = Kernel((0,), np.ones((1, 1)), rounds=True)
LINEAR = Kernel((0, 1), np.array([[1.0, 0.0], [-1.0, 1.0]]))
CUBIC = Kernel(
    (-1, 0, 1, 2),
    np.array(
        [
            [0.0, 1.0, 0.0, 0.0],
            [_A, 0.0, -_A, 0.0],
            [-2 * _A, -_A - 3, 2 * _A + 3, _A],
            [_A, _A + 2, -_A - 2, -_A],
        ]
    ),
)


@dataclass(frozen=True)
class AxisTaps:
    """The taps of every sample along one axis: their indices, weights, and the weights' slopes by the place.

    `slopes` is None where they are 0.

    Shapes: all [batch, samples, taps].
    """

    indices: str
    weights: str
    slopes: str | None


def axis_taps(
    emit: Emitter, place: str, like: Value, size: int, kernel: Kernel, padding: Padding
) -> AxisTaps:
    """The taps along an axis of `size` of samples taken at `place` [batch, samples, 1], in pixels."""
    whole = emit("Round" if kernel.rounds else "Floor", place)
    at = emit("Add", emit("Cast", whole, to=_INT64), emit.ints(kernel.offsets))
    fraction = emit("Sub", place, whole)
    slope = kernel.slope()
    found = [_polynomial(emit, like, fraction, c) if len(c) else None for c in (kernel.coefficients, slope)]
    if padding == "zeros":
        inside = emit("And", emit("Less", emit.ints([-1]), at), emit("Less", at, emit.ints([size])))
        found = [emit("Where", inside, w, emit.like(like, 0.0)) if w else None for w in found]
    weights, slopes = found
    assert weights is not None
    return AxisTaps(_bounded(emit, at, size, padding), weights, slopes)


def _polynomial(emit: Emitter, like: Value, t: str, coefficients: Array) -> str:
    """Horner's scheme, [batch, samples, taps]; the constant alone has to be repeated for every sample."""
    found = emit.like(like, coefficients[-1])
    if len(coefficients) == 1:
        return emit("Add", emit("Mul", t, emit.like(like, 0.0)), found)
    for row in coefficients[-2::-1]:
        found = emit("Add", emit("Mul", found, t), emit.like(like, row))
    return found


def _bounded(emit: Emitter, at: str, size: int, padding: Padding) -> str:
    """The pixel that stands for a whole place, which may lie outside."""
    last = emit.const(size - 1, np.int64)
    if size == 1 or padding in ("zeros", "border"):
        return emit("Clip", at, emit.const(0, np.int64), last)
    # Reflected at the centres of the outer pixels these are not repeated, at the edges of the picture they are.
    period = 2 * (size - 1) if padding == "reflection_at_centres" else 2 * size
    turned = period if padding == "reflection_at_centres" else period - 1
    once = emit("Mod", at, emit.ints([period]))
    return emit("Min", once, emit("Sub", emit.ints([turned]), once))


@dataclass(frozen=True)
class Samples:
    """All taps of `points` samples in each of `batch` pictures of these `sizes`."""

    emit: Emitter
    axes: tuple[AxisTaps, ...]
    like: Value
    batch: int
    points: int
    taps: int
    sizes: tuple[int, ...]

    @property
    def count(self) -> int:
        """Taps of one sample."""
        return int(self.taps ** len(self.axes))

    def weights(self) -> str:
        """[batch, points, count]."""
        return self._joined("Mul", [a.weights for a in self.axes])

    def slopes(self, axis: int) -> str | None:
        """Of the weights, by the place along an axis: [batch, points, count]; None where they are 0."""
        slopes = self.axes[axis].slopes
        if slopes is None:
            return None
        return self._joined("Mul", [slopes if i == axis else a.weights for i, a in enumerate(self.axes)])

    def feeding(self) -> str:
        """1 at one tap for each pixel that feeds a sample, 0 at the others: [batch, points, count].

        A pixel that stands for places outside may have several taps.
        """
        return self._joined("Mul", [self._feeding(axis) for axis in self.axes])

    def back(self, flow: str, weights: str, channels: int) -> str:
        """``x[i] = Σ w_k(p) flow[p]`` over all taps k at i.

        Shapes: flow [batch, channels, points], weights [batch, points, count]; gives [batch, channels, *sizes].
        """
        emit, many = self.emit, [self.batch, channels, self.points * self.count]
        parts = emit("Mul", emit.reshape(flow, [*many[:2], self.points, 1]), self._one_channel(weights))
        whole = [*many[:2], math.prod(self.sizes)]
        places, parts = self.indices(channels), emit.reshape(parts, many)
        moved = emit.added(whole, self.like.dtype, places, parts, axis=2)
        return emit.reshape(moved, [*many[:2], *self.sizes])

    def equally(self, share: str) -> str:
        """An equal part of each sample's share, [batch, 1, points], to the pixels that feed it."""
        emit, feeding = self.emit, self.feeding()
        counts = emit("Max", emit.total(feeding, [2]), emit.like(self.like, 1.0))
        part = emit("Div", share, emit.reshape(counts, [self.batch, 1, self.points]))
        return self.back(part, feeding, 1)

    def products(self, x: str, flow: str, channels: int) -> str:
        """``<x[i_k(p)], flow[p]>`` over the channels for every tap: [batch, points, count]."""
        emit = self.emit
        flat = emit.reshape(x, [self.batch, channels, math.prod(self.sizes)])
        seen = emit("GatherElements", flat, self.indices(channels), axis=2)
        seen = emit.reshape(seen, [self.batch, channels, self.points, self.count])
        wide = emit.reshape(flow, [self.batch, channels, self.points, 1])
        return emit.total(emit("Mul", seen, wide), [1], keepdims=False)

    def indices(self, channels: int) -> str:
        """Where each tap lies in the flattened picture: int64 [batch, channels, points * count]."""
        emit, strides = self.emit, np.cumprod((1, *self.sizes[:0:-1]))[::-1]
        flat = [
            emit("Mul", a.indices, emit.ints([stride])) for a, stride in zip(self.axes, strides, strict=True)
        ]
        one = emit.reshape(self._joined("Add", flat), [self.batch, 1, self.points * self.count])
        return emit("Expand", one, emit.ints([self.batch, channels, self.points * self.count]))

    def _one_channel(self, weights: str) -> str:
        return self.emit.reshape(weights, [self.batch, 1, self.points, self.count])

    def _joined(self, op: str, parts: Sequence[str]) -> str:
        """What each axis has, [batch, points, taps], joined for every combination of their taps."""
        emit, rank = self.emit, len(parts)
        wide = [
            emit.reshape(part, [self.batch, self.points, *[self.taps if j == i else 1 for j in range(rank)]])
            for i, part in enumerate(parts)
        ]
        found = wide[0]
        for part in wide[1:]:
            found = emit(op, found, part)
        return emit.reshape(found, [self.batch, self.points, self.count])

    def _feeding(self, axis: AxisTaps) -> str:
        emit, like = self.emit, self.like
        one, zero = emit.like(like, 1.0), emit.like(like, 0.0)
        across = [emit("Unsqueeze", axis.indices, emit.ints([at])) for at in (3, 2)]
        same = emit("Where", emit("Equal", *across), one, zero)
        whole = emit.total(
            emit("Mul", same, emit("Unsqueeze", axis.weights, emit.ints([2]))), [3], keepdims=False
        )
        before = emit.like(like, np.tri(self.taps, k=-1))
        again = emit.total(emit("Mul", same, before), [3], keepdims=False)
        fed = emit("Less", emit.like(like, NEGLIGIBLE), emit("Abs", whole))
        return emit("Where", emit("And", fed, emit("Less", again, emit.like(like, 0.5))), one, zero)


# What operators that read their first input at places which another one says answer to the engine


def first_carries(node: Node, roles: Roles) -> tuple[int, ...]:
    """Input 0, if it varies: the others say how it is read."""
    return tuple(i for i in varying(node, roles) if i == 0)


def read_roles(node: Node, roles: Roles, where: int) -> tuple[Axes, ...]:
    """N, C, then positions, from input 0; of a constant one from input `where`, which says how it is read."""
    if node.input(0).name in roles:
        return window_roles(node, roles, mixes_channels=False)
    first = roles[node.input(where).name].roles[0]
    return (Axes((first, Role.CHANNEL, *[Role.POSITION] * (node.output().rank - 2))),)
