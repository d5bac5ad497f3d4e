"""MatMul and Gemm, with a constant matrix or two computed operands. Along channels each position is on its own."""

import numpy as np

from graph_rules.contraction import Contraction, Term, contracting, flowing, halved
from graph_rules.registry import cotangent
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Node, Value


def _products(node: Node) -> Contraction:
    """MatMul: ``y[*b, m, n] = Σ_k A[*b, m, k] B[*b, k, n]``; a vector has k alone. Gemm adds C."""
    if node.key.op_type == "Gemm":
        a: Term = ("k", "m") if node.attrs["transA"] else ("m", "k")
        b: Term = ("n", "k") if node.attrs["transB"] else ("k", "n")
        added = node.optional(2)
        if added is None:
            return Contraction((a, b), ("m", "n"))
        node.require(added.rank <= 2, f"C must not have more than two axes; it is {list(added.shape)}")
        return Contraction((a, b), ("m", "n"), ("m", "n")[2 - added.rank :])
    left, right = node.input(0).rank, node.input(1).rank
    batch = tuple(f"b{i}" for i in range(max(left, right, 2) - 2, 0, -1))  # counted from the right
    a = (*batch[len(batch) + 2 - left :], "m", "k") if left > 1 else ("k",)
    b = (*batch[len(batch) + 2 - right :], "k", "n") if right > 1 else ("k",)
    return Contraction((a, b), (*batch, *(("m",) if left > 1 else ()), *(("n",) if right > 1 else ())))


def _matrix_shape(value: Value, side: int) -> tuple[int, ...]:
    """The shape of an operand as a stack of matrices: a vector is a row on the left, a column on the right."""
    if value.rank > 1:
        return value.shape
    return (1, *value.shape) if side == 0 else (*value.shape, 1)


def _transposed(emit: Emitter, value: Value, side: int) -> str:
    """An operand as a stack of matrices, transposed; a constant is transposed here and now."""
    shape = _matrix_shape(value, side)
    if value.constant is not None:
        while len(shape) > 2 and shape[0] == 1:
            shape = shape[1:]
        return emit.const(np.ascontiguousarray(np.swapaxes(value.constant.reshape(shape), -1, -2)))
    name = emit.reshape(value.name, shape) if value.rank == 1 else value.name
    rank = len(shape)
    return emit("Transpose", name, perm=[*range(rank - 2), rank - 1, rank - 2])


@contracting(_products)("MatMul", versions=(13,))
def matmul(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``y = A B``: ``g B^T`` to A and ``A^T g`` to B, summed where they were repeated. Attention goes to the values."""
    c = _products(node)
    operands, y = [node.input(0), node.input(1)], node.output()
    g = halved(emit, node, c, cotangent(cotangents, node))
    matrices = [_matrix_shape(value, side) for side, value in enumerate(operands)]
    shape = (*y.shape[: len(c.out) - ("m" in c.out) - ("n" in c.out)], matrices[0][-2], matrices[1][-1])
    if shape != y.shape:
        g = emit.reshape(g, shape)
    flows: list[str | None] = [None, None]
    for side in flowing(emit, node, c):
        other = _transposed(emit, operands[1 - side], 1 - side)
        back = emit("MatMul", g, other) if side == 0 else emit("MatMul", other, g)
        full = (*shape[:-2], *matrices[side][-2:])
        flow = emit.unbroadcast(back, full, matrices[side])
        flows[side] = emit.reshape(flow, operands[side].shape) if operands[side].rank == 1 else flow
    return flows


def _gemm_bias(emit: Emitter, node: Node) -> str | None:
    """``beta C``; and the product, where C alone is computed."""
    added, y = node.optional(2), node.output()
    if added is None:
        return None
    scaled = emit("Mul", added.name, emit.like(y, node.attrs["beta"]))
    if not emit.varies(added):
        return scaled
    return None if any(emit.varies(v) for v in node.inputs[:2]) else emit("Sub", y.name, scaled)


def _gemm_factor(emit: Emitter, node: Node, g: str, side: int) -> str:
    """``alpha g B'^T`` or ``alpha A'^T g``, transposed back where the operand was."""
    other, attrs = node.input(1 - side).name, node.attrs
    alpha = attrs["alpha"]
    if side == 0:
        return (
            emit("Gemm", other, g, alpha=alpha, transA=attrs["transB"], transB=1)
            if attrs["transA"]
            else emit("Gemm", g, other, alpha=alpha, transB=1 - attrs["transB"])
        )
    return (
        emit("Gemm", g, other, alpha=alpha, transA=1, transB=attrs["transA"])
        if attrs["transB"]
        else emit("Gemm", other, g, alpha=alpha, transA=1 - attrs["transA"])
    )


@contracting(_products)("Gemm", versions=(13,), bias=_gemm_bias, taps=None)
def gemm(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``y = alpha A' B' + beta C``: ``alpha g B'^T``, ``alpha A'^T g``, transposed back; ``beta g`` to C."""
    c, g = _products(node), cotangent(cotangents, node)
    flows: list[str | None] = [None] * len(node.inputs)
    for index in flowing(emit, node, c):
        if index < 2:
            flows[index] = _gemm_factor(emit, node, halved(emit, node, c, g), index)
        else:
            scaled = emit("Mul", g, emit.like(node.output(), node.attrs["beta"]))
            flows[index] = emit.unbroadcast(scaled, node.output().shape, node.input(index).shape)
    return flows
