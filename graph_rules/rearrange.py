"""Elements moved in blocks or sequences (pixel shuffles, ReverseSequence), running sums and products, triangles."""

import numpy as np

from graph_rules.axis_maps import AxisMap, along_lossy, along_routes, along_spread, keeps_batch
from graph_rules.registry import always, cotangent, rule, same, to_first
from graph_rules.windows import window_roles
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Array, Node
from srd_onnx.graph.roles import Axes, Role, Roles


def _picture(node: Node, roles: Roles) -> tuple[Axes, ...]:
    return window_roles(node, roles, mixes_channels=False)


def _to_space_spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    """What a block of positions has, to the one that it was the channels of."""
    n, _, h, w = node.input(0).shape
    side = node.attrs["blocksize"]
    split = emit.reshape(cotangent(shares, node), [n, h, side, w, side])
    return to_first(node, emit.reshape(emit.total(split, [2, 4], keepdims=False), [n, 1, h, w]))


@rule("DepthToSpace", versions=(13, 28), roles=_picture, routes=always, spread=_to_space_spread)
def depth_to_space(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` with its blocks of positions as channels again."""
    g, side = cotangent(cotangents, node), node.attrs["blocksize"]
    n, c, h, w = node.input(0).shape
    if node.attrs["mode"] == "DCR":
        return to_first(node, emit("SpaceToDepth", g, blocksize=side))
    split = emit.reshape(g, [n, c // side**2, h, side, w, side])
    return to_first(node, emit.reshape(emit("Transpose", split, perm=[0, 1, 3, 5, 2, 4]), [n, c, h, w]))


def _is_one_by_one(node: Node, _roles: Roles) -> bool:
    return bool(node.attrs["blocksize"] == 1)


def _to_depth_spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    """An equal part to each position of the block."""
    x, share = node.input(0), cotangent(shares, node)
    side, (n, _, h, w) = node.attrs["blocksize"], node.output().shape
    part = emit.reshape(emit("Div", share, emit.like(x, float(side**2))), [n, 1, h, 1, w, 1])
    return to_first(
        node,
        emit.reshape(emit("Expand", part, emit.ints([n, 1, h, side, w, side])), [n, 1, h * side, w * side]),
    )


@rule("SpaceToDepth", versions=(13, 28), roles=_picture, routes=_is_one_by_one, spread=_to_depth_spread)
def space_to_depth(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` with its channels as blocks of positions again; before opset 28 their order is always "DCR"."""
    side, mode = node.attrs["blocksize"], node.attrs.get("mode", "DCR")
    return to_first(node, emit("DepthToSpace", cotangent(cotangents, node), blocksize=side, mode=mode))


# ReverseSequence


def _reversed_axes(node: Node) -> tuple[int, int]:
    return int(node.attrs["batch_axis"]), int(node.attrs["time_axis"])


def _reversed(node: Node, roles: Roles) -> tuple[Axes, ...]:
    batch, time = _reversed_axes(node)
    own = roles[node.input(0).name].roles
    node.require(own[time] is not Role.BATCH, "it reverses the batch axis; images must stay independent")
    node.require(
        own[time] is not Role.POSITION or own[batch] is not Role.CHANNEL,
        "each channel reverses positions of its own, which has no rule",
    )
    return same(node, roles)


def _again(emit: Emitter, node: Node, flow: str) -> str:
    batch, time = _reversed_axes(node)
    return emit("ReverseSequence", flow, node.input(1).name, batch_axis=batch, time_axis=time)


def _reverse_spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    share = cotangent(shares, node)
    inside = _reversed_axes(node)[1] in emit.axes(node.input(0)).channels
    return to_first(node, share if inside else _again(emit, node, share))


@rule("ReverseSequence", versions=(10, 28), roles=_reversed, routes=always, spread=_reverse_spread)
def reverse_sequence(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` reversed again: it is its own inverse."""
    return to_first(node, _again(emit, node, cotangent(cotangents, node)))


# CumSum


def _running(node: Node) -> dict[int, AxisMap]:
    x, axis = node.input(0), node.constant(1)
    assert axis is not None
    at = int(axis.item()) % x.rank
    matrix = np.tri(x.shape[at], k=-1 if node.attrs["exclusive"] else 0)
    return {at: AxisMap.of_matrix(matrix[::-1, ::-1] if node.attrs["reverse"] else matrix)}


def _summed(node: Node, roles: Roles) -> tuple[Axes, ...]:
    keeps_batch(node, roles, _running)
    return same(node, roles)


@rule(
    "CumSum",
    versions=(14,),
    roles=_summed,
    routes=along_routes(_running),
    spread=along_spread(_running),
    lossy=along_lossy(_running),
)
def cum_sum(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g_x[i] = Σ_{o >= i} g[o]``: the running sum from the other end."""
    g, axis = cotangent(cotangents, node), node.input(1).name
    back = emit("CumSum", g, axis, exclusive=node.attrs["exclusive"], reverse=1 - node.attrs["reverse"])
    return to_first(node, back)


# CumProd


def _multiplied(node: Node, roles: Roles) -> tuple[Axes, ...]:
    return tuple(Axes(axes.roles) for axes in _summed(node, roles))


def _factors(node: Node) -> Array:
    """How many elements each index of the axis is the product of; it has the rank of the input."""
    ((axis, along),) = _running(node).items()
    return along.feeds.reshape([-1 if a == axis else 1 for a in range(node.input(0).rank)])


def _empty_product(emit: Emitter, node: Node) -> str | None:
    """1 at the first index, if that is left out of its own product."""
    return emit.like(node.output(), _factors(node) == 0) if node.attrs["exclusive"] else None


@rule(
    "CumProd",
    versions=(26,),
    roles=_multiplied,
    routes=along_routes(_running),
    spread=along_spread(_running),
    bias=_empty_product,
    lossy=along_lossy(_running),
    nonlinear=True,
)
def cum_prod(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g_x[i] = Σ_o g[o] y[o] / x[i]`` over all o of which i is a factor.

    Under a fixed pattern each of the k factors of ``y[o]`` has 1 / k of it: equals share (ours).
    """
    x, g, axis = node.input(0), cotangent(cotangents, node), node.input(1).name
    exclusive, reverse = node.attrs["exclusive"], node.attrs["reverse"]
    one, zero = emit.like(x, 1.0), emit.like(x, 0.0)
    # Without its zeros a product is that of the others, for a zero that is its only one; for the rest if it has none.
    is_zero = emit("Equal", x.name, zero)
    factors = emit("Where", is_zero, one, x.name)
    product = emit("CumProd", factors, axis, exclusive=exclusive, reverse=reverse)
    zeros = emit("CumSum", emit("Where", is_zero, one, zero), axis, exclusive=exclusive, reverse=reverse)
    if not emit.tangent:
        g = emit("Div", g, emit.like(x, np.maximum(_factors(node), 1)))
    weighted = emit("Mul", g, product)

    def of_products_with(count: str) -> str:
        part = emit("Where", emit("Equal", zeros, count), weighted, zero)
        return emit("CumSum", part, axis, exclusive=exclusive, reverse=1 - reverse)

    flow = emit("Where", is_zero, of_products_with(one), of_products_with(zero))
    return to_first(node, emit("Div", flow, factors))


# Trilu


def _triangle(node: Node) -> Array:
    """1 where an element is kept, over the last two axes."""
    x, offset = node.input(0), node.constant(1)
    k = 0 if offset is None else int(offset.item())
    rows, columns = x.shape[-2:]
    return np.triu(np.ones((rows, columns)), k) if node.attrs["upper"] else np.tri(rows, columns, k)


def _trilu_spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    """Nothing to a position of which no channel was kept."""
    x, kept = node.input(0), _triangle(node)
    inside = tuple(axis for axis in (0, 1) if axis + x.rank - 2 in emit.axes(x).channels)
    mask = kept.max(axis=inside, keepdims=True) if inside else kept
    share = cotangent(shares, node)
    return to_first(node, share if mask.all() else emit("Mul", share, emit.like(x, mask)))


def _cuts(node: Node) -> bool:
    return not _triangle(node).all()


@rule("Trilu", versions=(14,), roles=same, routes=always, spread=_trilu_spread, lossy=_cuts)
def trilu(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` inside the triangle, zero elsewhere."""
    offset = node.optional(1)
    operands = [offset.name] if offset is not None else []
    g = cotangent(cotangents, node)
    return to_first(node, emit("Trilu", g, *operands, upper=node.attrs["upper"]))
