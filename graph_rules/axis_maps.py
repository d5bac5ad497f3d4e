"""Linear maps along one axis: which input indices each output index is made of, their transpose, and where they spread.

Gather, Tile, Expand, Resize, Pad and their kin are products of such maps, one per axis, so they share everything here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graph_rules.registry import cotangent, to_first
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Array, Node, Value
from srd_onnx.graph.roles import Role, Roles

NEGLIGIBLE = 1e-9  # a weight below this comes from rounding a coordinate: that tap feeds nothing


@dataclass(frozen=True, eq=False)
class AxisMap:
    """``y[o] = Σ_k weights[o, k] x[indices[o, k]]`` along an axis of `size` input indices.

    No index occurs twice for one o; a weight of 0 is no tap.

    Shapes: indices int64 and weights float64 [outputs, taps].
    """

    indices: Array
    weights: Array
    size: int

    @staticmethod
    def copies(indices: Array, size: int) -> "AxisMap":
        """Each output index is a copy of one input index, or of none where that is -1."""
        index = np.asarray(indices, np.int64).reshape(-1, 1)
        return AxisMap(np.maximum(index, 0), (index >= 0).astype(float), size)

    @staticmethod
    def of_matrix(matrix: Array) -> "AxisMap":
        """From a dense matrix [outputs, inputs]."""
        fed = np.abs(matrix) > NEGLIGIBLE
        taps = max(int(fed.sum(axis=1).max(initial=0)), 1)
        order = np.argsort(~fed, axis=1, kind="stable")[:, :taps]
        weights = np.where(np.take_along_axis(fed, order, 1), np.take_along_axis(matrix, order, 1), 0.0)
        return AxisMap(order, weights, matrix.shape[1])

    @property
    def count(self) -> int:
        """Number of output indices."""
        return len(self.indices)

    @property
    def feeds(self) -> Array:
        """How many input indices feed each output index."""
        return np.asarray(np.count_nonzero(self.weights, axis=1))

    @property
    def is_identity(self) -> bool:
        """Whether nothing moves."""
        source = self._copied()
        return source is not None and equal(source, np.arange(self.size))

    def matrix(self) -> Array:
        """Dense [outputs, inputs]."""
        dense = np.zeros((self.count, self.size))
        np.add.at(dense, (np.arange(self.count)[:, None], self.indices), self.weights)
        return dense

    def shared(self) -> "AxisMap":
        """An equal part from each output index to the input indices that feed it."""
        part = 1 / np.maximum(self.feeds, 1)[:, None]
        return AxisMap(self.indices, np.where(self.weights != 0, part, 0.0), self.size)

    def _copied(self) -> Array | None:
        """The input index that each output index copies (-1 for none), if it is a map of copies."""
        if self.indices.shape[1] != 1 or not np.isin(self.weights, (0, 1)).all():
            return None
        return np.where(self.weights[:, 0] == 1, self.indices[:, 0], -1)

    def back(self, emit: Emitter, flow: str, shape: Sequence[int], axis: int, dtype: np.dtype[Any]) -> str:
        """The transposed map: a flow of `shape` (its axis of `count`) to one of `size` along `axis`."""
        if self.is_identity:
            return flow
        source = self._copied()
        if source is not None and 0 not in shape and self.size:
            for made in (_unrepeat, _unselect):
                found = made(emit, flow, shape, axis, source, self.size)
                if found is not None:
                    return found
        return self._by_matrix(emit, flow, shape, axis, dtype)

    def _by_matrix(
        self,
        emit: Emitter,
        flow: str,
        shape: Sequence[int],
        axis: int,
        dtype: np.dtype[Any],
    ) -> str:
        before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        result = [*shape[:axis], self.size, *shape[axis + 1 :]]
        matrix = self.matrix().astype(dtype)
        if after == 1:
            flat = emit.reshape(flow, [before, self.count])
            return emit.reshape(emit("MatMul", flat, emit.const(matrix)), result)
        flat = emit.reshape(flow, [before, self.count, after])
        return emit.reshape(emit("MatMul", emit.const(np.ascontiguousarray(matrix.T)), flat), result)


def _unrepeat(
    emit: Emitter, flow: str, shape: Sequence[int], axis: int, source: Array, size: int
) -> str | None:
    """Sum what was repeated a whole number of times, each element in place or the axis as a whole."""
    times = len(source) // size
    if times < 1 or len(source) != times * size:
        return None
    if equal(source, np.repeat(np.arange(size), times)):
        split, summed = [size, times], axis + 1
    elif equal(source, np.tile(np.arange(size), times)):
        split, summed = [times, size], axis
    else:
        return None
    wide = emit.reshape(flow, [*shape[:axis], *split, *shape[axis + 1 :]])
    return emit.total(wide, [summed], keepdims=False)


def _unselect(
    emit: Emitter, flow: str, shape: Sequence[int], axis: int, source: Array, size: int
) -> str | None:
    """Put back what was selected once at most: a Pad where it is a contiguous part, else a Gather."""
    used = source[source >= 0]
    if len(np.unique(used)) != len(used):
        return None
    rank, pads = len(shape), [0] * (2 * len(shape))
    where = np.flatnonzero(source >= 0)
    if len(used) and equal(source[where[0] : where[-1] + 1], np.arange(used[0], used[-1] + 1)):
        pads[axis] = int(used[0] - where[0])
        pads[rank + axis] = size - len(source) - pads[axis]
        return emit("Pad", flow, emit.ints(pads))
    back = np.full(size, len(source), np.int64)
    back[used] = where
    if len(used) < size:
        pads[rank + axis] = 1
        flow = emit("Pad", flow, emit.ints(pads))
    return emit("Gather", flow, emit.const(back), axis=axis)


def real_dtype(value: Value) -> np.dtype[Any]:
    """Its dtype, or of token ids and other integers that of the relevance they get."""
    return value.dtype if value.is_float else np.dtype(np.float32)


def equal(a: Array, b: Array) -> bool:
    """Whether two arrays have one shape and the same elements."""
    return a.shape == b.shape and bool((a == b).all())


# What operators made of such maps answer to the engine

Maps = Callable[[Node], Mapping[int, AxisMap]]


def back_along(
    emit: Emitter,
    flow: str,
    maps: Mapping[int, AxisMap],
    shape: Sequence[int],
    dtype: np.dtype[Any],
) -> str:
    """The transpose of maps along several axes of a tensor of `shape`, those that shrink it most first."""
    sizes = list(shape)
    for axis, along in sorted(maps.items(), key=lambda item: item[1].size / max(item[1].count, 1)):
        flow = along.back(emit, flow, sizes, axis, dtype)
        sizes[axis] = along.size
    return flow


def along_routes(maps: Maps) -> Callable[[Node, Roles], bool]:
    """Each output position is fed by at most one: so along every position axis."""

    def routes(node: Node, roles: Roles) -> bool:
        own = roles[node.input(0).name].roles
        return all(
            own[axis] is Role.CHANNEL or along.feeds.max(initial=0) <= 1 for axis, along in maps(node).items()
        )

    return routes


def along_lossy(maps: Maps) -> Callable[[Node], bool]:
    """Whether an index along some axis is made of nothing."""

    def lossy(node: Node) -> bool:
        return any((along.feeds == 0).any() for along in maps(node).values())

    return lossy


def along_spread(maps: Maps) -> Callable[[Emitter, Node, Flows], Flows]:
    """An equal part to every position that feeds: the product of equal parts along each position axis."""

    def spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
        x = node.input(0)
        channels = emit.axes(x).channels
        shared = {axis: along.shared() for axis, along in maps(node).items() if axis not in channels}
        shape = [1 if a in channels else maps_size(shared, a, size) for a, size in enumerate(x.shape)]
        return to_first(node, back_along(emit, cotangent(shares, node), shared, shape, real_dtype(x)))

    return spread


def maps_size(maps: Mapping[int, AxisMap], axis: int, size: int) -> int:
    """The size of an axis behind the maps."""
    return maps[axis].count if axis in maps else size


def along_vjp(emit: Emitter, node: Node, cotangents: Flows, maps: Maps) -> Flows:
    """The transposed maps; the output has the rank of the input."""
    g = cotangent(cotangents, node)
    return to_first(node, back_along(emit, g, maps(node), node.output().shape, real_dtype(node.input(0))))


def keeps_batch(node: Node, roles: Roles, maps: Maps) -> None:
    """Refuse a map along the batch axis: images would no longer be independent.

    Raises:
        UnsupportedCaseError: naming the node.
    """
    own = roles[node.input(0).name].roles
    for axis, along in maps(node).items():
        node.require(
            own[axis] is not Role.BATCH or along.is_identity,
            f"it moves or repeats elements along the batch axis {axis}; images must stay independent",
        )
