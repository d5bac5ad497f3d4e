"""Maps that move single elements to constant places: GatherElements, GatherND, ScatterElements, ScatterND.

Which output element is made of which input element is worked out with numpy; from it follow the transposed map and
which positions feed which.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graph_rules.axis_maps import equal
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Array, Node, Value
from srd_onnx.graph.roles import Axes, Role, Roles


@dataclass(frozen=True, eq=False)
class ElementMap:
    """Output element ``outs[p]`` gets input element ``ins[p]``, for every pair p; both count the flattened tensor.

    Shapes: outs and ins int64 [pairs]; `source` and `result` are those of the input and the output.
    """

    outs: Array
    ins: Array
    source: tuple[int, ...]
    result: tuple[int, ...]

    def back(self, emit: Emitter, flow: str, dtype: np.dtype) -> str:
        """The transposed map: each input element the sum of the flow of its outputs."""
        size = math.prod(self.source)
        flat = emit.reshape(flow, [math.prod(self.result)])
        if not equal(self.outs, np.arange(math.prod(self.result))):
            flat = emit("Gather", flat, emit.const(self.outs), axis=0)
        if not equal(self.ins, np.arange(size)):
            flat = emit.added([size], dtype, emit.const(self.ins), flat, axis=0)
        return emit.reshape(flat, self.source)

    def of_positions(self, roles: Axes, source_roles: Axes) -> "ElementMap":
        """Which output position is fed by which input position, each pair once; channel axes have size 1."""
        outs, result = _positions(self.outs, self.result, roles)
        ins, source = _positions(self.ins, self.source, source_roles)
        pairs = np.unique(outs * math.prod(source) + ins)
        return ElementMap(pairs // math.prod(source), pairs % math.prod(source), source, result)

    def keeps_batch(self, roles: Axes, source_roles: Axes) -> bool:
        """Whether every element stays in its batch item; always where there is no batch axis."""
        batches = [
            np.unravel_index(flat, shape)[axes.roles.index(Role.BATCH)]
            for flat, shape, axes in (
                (self.outs, self.result, roles),
                (self.ins, self.source, source_roles),
            )
            if Role.BATCH in axes.roles
        ]
        return not batches or (len(batches) == 2 and equal(*batches))


def _positions(flat: Array, shape: tuple[int, ...], axes: Axes) -> tuple[Array, tuple[int, ...]]:
    at = np.unravel_index(flat, shape)
    kept = tuple(1 if role is Role.CHANNEL else size for role, size in zip(axes.roles, shape, strict=True))
    inside = [np.zeros_like(i) if n == 1 else i for i, n in zip(at, kept, strict=True)]
    return np.asarray(np.ravel_multi_index(inside, kept), np.int64), kept


# What operators made of such maps answer to the engine. `Maps` gives one for each operand that carries.

Maps = Callable[[Node, Roles], Mapping[int, ElementMap]]


def _on_positions(node: Node, roles: Roles, maps: Maps) -> tuple[dict[int, ElementMap], Array]:
    """The maps of positions, and how many input positions feed each output position (of them all)."""
    y = node.output()
    found = {
        index: each.of_positions(roles[y.name], roles[node.input(index).name])
        for index, each in maps(node, roles).items()
    }
    size = math.prod(roles[y.name].position_shape(y))
    counts = [np.bincount(each.outs, minlength=size) for each in found.values()]
    return found, np.asarray(sum(counts, np.zeros(size, np.int64)))


def element_routes(maps: Maps) -> Callable[[Node, Roles], bool]:
    """Whether each output position is fed by at most one input position of one operand."""

    def routes(node: Node, roles: Roles) -> bool:
        return bool(_on_positions(node, roles, maps)[1].max(initial=0) <= 1)

    return routes


def element_spread(maps: Maps) -> Callable[[Emitter, Node, Flows], Flows]:
    """An equal part to every position that feeds, of whichever operand."""

    def spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
        found, counts = _on_positions(node, emit.roles, maps)
        share, y = shares[0], node.output()
        assert share is not None
        if counts.max(initial=0) > 1:
            shape = emit.axes(y).position_shape(y)
            share = emit("Div", share, emit.like(y, np.maximum(counts, 1).reshape(shape)))
        flows: list[str | None] = [None] * len(node.inputs)
        for index, each in found.items():
            flows[index] = each.back(emit, share, y.dtype)
        return flows

    return spread


def element_vjp(emit: Emitter, node: Node, flow: str, maps: Maps) -> Flows:
    """The transposed map of each operand."""
    flows: list[str | None] = [None] * len(node.inputs)
    for index, each in maps(node, emit.roles).items():
        flows[index] = each.back(emit, flow, node.output().dtype)
    return flows


def require_batch_kept(node: Node, axes: Axes, sources: Mapping[int, tuple[ElementMap, Axes]]) -> None:
    """Refuse elements that change their batch item.

    Raises:
        UnsupportedCaseError: naming the node.
    """
    for each, own in sources.values():
        node.require(
            each.keeps_batch(axes, own), "it moves elements between batch items; images must stay independent"
        )


def grid(shape: Sequence[int]) -> list[Array]:
    """For each axis, every element's index along it: int64 arrays of `shape`."""
    return list(np.indices(tuple(shape), dtype=np.int64))


def flat_index(at: Sequence[Array], shape: Sequence[int]) -> Array:
    """The flattened index of each element; negative indices count from the back."""
    wrapped = [np.where(i < 0, i + n, i) for i, n in zip(at, shape, strict=True)]
    return np.asarray(np.ravel_multi_index(tuple(wrapped), tuple(shape)), np.int64).reshape(-1)


def constant_indices(node: Node) -> Array:
    """The operand of indices, which must be constant."""
    indices = node.constant(1)
    assert indices is not None
    return indices


def element_indices(node: Node, value: Value, shape: Sequence[int]) -> Array:
    """Flattened places in `value` that GatherElements or ScatterElements mean by their indices."""
    at = grid(shape)
    at[int(node.attrs["axis"]) % value.rank] = constant_indices(node)
    return flat_index(at, value.shape)


def slice_indices(indices: Array, shape: Sequence[int], batch: int = 0) -> Array:
    """Flattened places that GatherND or ScatterND mean: `indices` name slices, whose elements follow in order."""
    depth = indices.shape[-1]
    tail = shape[batch + depth :]
    at = grid((*indices.shape[:-1], *tail))
    lead = indices.ndim - 1
    named = [
        np.broadcast_to(
            indices[..., d].reshape(*indices.shape[:-1], *[1] * len(tail)), at[0].shape if at else ()
        )
        for d in range(depth)
    ]
    return flat_index([*at[:batch], *named, *at[lead:]], shape)
