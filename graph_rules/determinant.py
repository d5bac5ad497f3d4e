"""Det: a sum of products of the elements of a square matrix."""

import numpy as np

from graph_rules.registry import cotangent, rule, to_first
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Array, Node
from srd_onnx.graph.roles import Axes, Role, Roles

LARGEST = 16  # rows; each of its elements has a minor


def _roles(node: Node, roles: Roles) -> tuple[Axes]:
    """The axes in front of the matrix, which is neither of them the batch."""
    own = roles[node.input(0).name].roles
    node.require(
        Role.BATCH not in own[-2:],
        "its matrix runs over the batch axis, so that images are no longer independent",
    )
    return (Axes(own[:-2]),)


def _within_position(node: Node, roles: Roles) -> bool:
    x = node.input(0)
    return all(
        role is Role.CHANNEL or size == 1
        for role, size in zip(roles[x.name].roles[-2:], x.shape[-2:], strict=True)
    )


def _over_matrix(emit: Emitter, node: Node, flow: str) -> str:
    """A flow of the output, the two axes of the matrix back with size 1."""
    shape = emit.axes(node.output()).position_shape(node.output())
    return emit.reshape(flow, [*shape, 1, 1])


def _spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    """An equal part to each position of the matrix."""
    x = node.input(0)
    shape = emit.axes(x).position_shape(x)
    share, count = _over_matrix(emit, node, cotangent(shares, node)), shape[-2] * shape[-1]
    if count > 1:
        share = emit("Expand", emit("Div", share, emit.like(x, float(count))), emit.ints(shape))
    return to_first(node, share)


def _minors(size: int) -> Array:
    """For each element of a matrix the flat places of the others' rows and columns: int64 [M, M, M - 1, M - 1]."""
    places = np.arange(size * size).reshape(size, size)
    return np.array(
        [
            [np.delete(np.delete(places, row, axis=0), column, axis=1) for column in range(size)]
            for row in range(size)
        ],
        np.int64,
    )


def _cofactors(emit: Emitter, node: Node) -> str:
    """``C_ij = (-1)^(i + j) det(minor_ij)``, also where the matrix is singular."""
    x = node.input(0)
    size = x.shape[-1]
    flat = emit.reshape(x.name, [*x.shape[:-2], size * size])
    minors = emit("Gather", flat, emit.const(_minors(size)), axis=x.rank - 2)
    signs = 1.0 - 2.0 * (np.indices((size, size)).sum(axis=0) % 2)
    return emit("Mul", emit("Det", minors), emit.like(x, signs))


@rule("Det", versions=(11, 22), roles=_roles, routes=_within_position, spread=_spread, nonlinear=True)
def det(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g C``, the cofactors; frozen ``g C / M``: the M factors of each product share it (ours)."""
    x, size = node.input(0), node.input(0).shape[-1]
    node.require(1 <= size <= LARGEST, f"a determinant of {size} rows; it has a rule for 1 to {LARGEST}")
    g = emit.reshape(cotangent(cotangents, node), [*x.shape[:-2], 1, 1])
    if size == 1:
        return to_first(node, g)
    if not emit.tangent:
        g = emit("Div", g, emit.like(x, float(size)))
    return to_first(node, emit("Mul", g, _cofactors(emit, node)))
