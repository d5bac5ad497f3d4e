"""Products with a constant matrix: MatMul and Gemm. Along channels they act on each position alone."""

import numpy as np

from graph_rules.registry import cotangent, rule, varying
from srd_onnx.emit import Emitter
from srd_onnx.ir import Node
from srd_onnx.roles import Axes, Role, Roles
from srd_onnx.rule import Flows


def _contracted(node: Node, roles: Roles) -> tuple[int, int]:
    """(index of the varying operand, the axis of it that is summed over)."""
    side = next((i for i, v in enumerate(node.inputs[:2]) if v is not None and v.name in roles), 0)
    rank = node.input(side).rank
    if node.key.op_type == "Gemm":
        transposed = bool(node.attrs["transA" if side == 0 else "transB"])
        return side, (1 - side) ^ transposed
    return side, rank - 1 if side == 0 or rank == 1 else rank - 2


def _roles(node: Node, roles: Roles) -> tuple[Axes]:
    """The summed axis is replaced by one of the same role; axes that only the constant has are refused."""
    side, axis = _contracted(node, roles)
    value, y = node.input(side), node.output()
    own = list(roles[value.name].roles)
    other = node.input(1 - side)
    if node.key.op_type == "Gemm":
        kept = own[1 - axis]
        made = [kept, own[axis]] if side == 0 else [own[axis], kept]
        return (Axes(tuple(made)),)
    if other.rank == 1:
        del own[axis]
    if value.rank == 1 and other.rank > 1:
        own = [own[axis]]
    node.require(
        len(own) == y.rank and all(s == 1 for s in other.shape[: max(other.rank - 2, 0)]),
        f"a batch of constant matrices {list(other.shape)} has no rule; only one matrix does",
    )
    return (Axes(tuple(own)),)


def _is_pointwise(node: Node, roles: Roles) -> bool:
    side, axis = _contracted(node, roles)
    role = roles[node.input(side).name].roles[axis]
    return role is Role.CHANNEL and node.input(1 - side).rank == 2 and len(varying(node, roles)) == 1


def _spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    """Along channels relevance stays; along positions every input position has an equal part."""
    side, axis = _contracted(node, emit.roles)
    x, y, share = node.input(side), node.output(), shares[0]
    assert share is not None
    shape = emit.axes(x).position_shape(x)
    # Gemm may transpose and a vector drops the axis, but what is left has the same order.
    if emit.axes(x).roles[axis] is Role.CHANNEL:
        moved = share if emit.axes(y).position_shape(y) == shape else emit.reshape(share, shape)
    else:
        kept = share if node.input(1 - side).rank == 1 else emit.total(share, [_made(node, side, axis)])
        part = emit("Div", kept, emit.like(x, float(x.shape[axis])))
        one = [1 if i == axis else size for i, size in enumerate(shape)]
        moved = emit("Expand", emit.reshape(part, one), emit.ints(shape))
    flows: list[str | None] = [None] * len(node.inputs)
    flows[side] = moved
    return flows


def _made(node: Node, side: int, axis: int) -> int:
    """The axis of the result that stands in the place of the summed one."""
    return 1 - side if node.key.op_type == "Gemm" else axis


@rule("MatMul", versions=(13,), roles=_roles, routes=_is_pointwise, spread=_spread)
def matmul_constant(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``y = x @ W``: ``g @ W^T``; ``y = W @ x``: ``W^T @ g``; W is a constant matrix."""
    g = cotangent(cotangents, node)
    side, _ = _contracted(node, emit.roles)
    weights = node.constant(1 - side)
    assert weights is not None
    x, y = node.input(side), node.output()
    matrix = weights.reshape(weights.shape[-2:]) if weights.ndim > 2 else weights
    if matrix.ndim == 1:
        matrix = matrix.reshape(-1, 1) if side == 0 else matrix.reshape(1, -1)
        g = emit.reshape(g, [*y.shape, 1] if side == 0 else [*y.shape[:-1], 1, *y.shape[-1:]])
    transposed = emit.const(np.ascontiguousarray(matrix.T))
    back = emit("MatMul", g, transposed) if side == 0 else emit("MatMul", transposed, g)
    flows: list[str | None] = [None, None]
    flows[side] = emit.reshape(back, x.shape) if x.rank == 1 else back
    return flows


def _gemm_bias(emit: Emitter, node: Node) -> str | None:
    added = node.optional(2)
    if added is None or emit.varies(added):
        return None
    return emit("Mul", added.name, emit.like(node.output(), node.attrs["beta"]))


@rule("Gemm", versions=(13,), roles=_roles, routes=_is_pointwise, spread=_spread, bias=_gemm_bias)
def gemm(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``y = alpha A' B' + beta C`` with A or B constant: ``alpha g B'^T`` or ``alpha A'^T g``, transposed back."""
    g = cotangent(cotangents, node)
    a, b, attrs = node.input(0), node.input(1), node.attrs
    node.require(
        emit.varies(a) != emit.varies(b) and not emit.varies(node.optional(2)),
        "exactly one of A and B may be computed, and C must be constant",
    )
    if emit.varies(a):
        node.constant(1)
        flow = (
            emit("Gemm", b.name, g, alpha=attrs["alpha"], transA=attrs["transB"], transB=1)
            if attrs["transA"]
            else emit("Gemm", g, b.name, alpha=attrs["alpha"], transB=1 - attrs["transB"])
        )
        return [flow, *[None] * (len(node.inputs) - 1)]
    node.constant(0)
    flow = (
        emit("Gemm", g, a.name, alpha=attrs["alpha"], transA=1, transB=attrs["transA"])
        if attrs["transB"]
        else emit("Gemm", a.name, g, alpha=attrs["alpha"], transA=1 - attrs["transA"])
    )
    return [None, flow, *[None] * (len(node.inputs) - 2)]
