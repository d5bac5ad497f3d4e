"""The Attention operator, and rotary position embeddings. The attention weights are the pattern: values carry alone."""

import math
from dataclasses import dataclass

import numpy as np

from graph_rules.registry import always, cotangent, rule, through, to_first
from srd_onnx.emit import Emitter
from srd_onnx.errors import LayoutError
from srd_onnx.ir import Array, Node, Value
from srd_onnx.roles import Axes, Gate, Role, Roles
from srd_onnx.rule import Flows

_QUERIES, _KEYS, _VALUES, _MASK = range(4)
_EXPECTED = {
    3: (Role.BATCH, Role.POSITION, Role.CHANNEL),
    4: (Role.BATCH, Role.CHANNEL, Role.POSITION, Role.CHANNEL),
}
_CACHE = {4: "past_key", 5: "past_value", 6: "nonpad_kv_seqlen"}


@dataclass(frozen=True)
class _Sizes:
    """Query heads and the heads of keys and values, lengths of queries and keys, what a score is multiplied by."""

    heads: int
    shared: int
    queries: int
    keys: int
    scale: float


def _sizes(node: Node) -> _Sizes:
    q, k = node.input(_QUERIES), node.input(_KEYS)
    for index, name in _CACHE.items():
        node.require(
            node.optional(index) is None,
            f"a cache of keys and values ({name}) has no rule: export without a cache",
        )
    if q.rank == 4:
        heads, shared, width = q.shape[1], k.shape[1], q.shape[3]
    else:
        heads, shared = node.attrs["q_num_heads"], node.attrs["kv_num_heads"]
        width = q.shape[2] // heads
    scale = node.attrs.get("scale") or 1 / math.sqrt(width)
    return _Sizes(heads, shared, q.shape[-2] if q.rank == 4 else q.shape[1], k.shape[k.rank - 2], scale)


def _roles(node: Node, roles: Roles) -> tuple[Axes, ...]:
    """N, position, channel, or with an axis of heads; the weights are positions by positions."""
    _sizes(node)
    for value in node.inputs[:3]:
        if value is not None and value.name in roles:
            own, expected = roles[value.name], _EXPECTED[value.rank]
            axes = zip(own.roles, expected, value.shape, strict=True)
            if any(role is not wanted and size > 1 for role, wanted, size in axes):
                raise LayoutError(
                    f"{node}: takes '{value.name}' {list(value.shape)} for {Axes(expected)}, but its axes are {own}; "
                    "is the layout of the input right?"
                )
    cached = Axes(_EXPECTED[4])
    weights = Axes((Role.BATCH, Role.CHANNEL, Role.POSITION, Role.POSITION), Gate.SATURATING)
    return (Axes(_EXPECTED[node.output().rank]), cached, cached, weights)[: len(node.outputs)]


def _values_carry(node: Node, roles: Roles) -> tuple[int, ...]:
    v = node.input(_VALUES)
    return (_VALUES,) if v.name in roles and not roles[v.name].inert else ()


def _one_key(node: Node, _roles: Roles) -> bool:
    return _sizes(node).keys == 1


def _allowed(node: Node) -> Array:
    """Which keys each query may see by its place alone: bool [queries, keys]."""
    n = _sizes(node)
    ahead = np.arange(n.keys)[None, :] - np.arange(n.queries)[:, None]
    allowed = np.ones(ahead.shape, bool)
    if node.attrs["is_causal"]:
        allowed &= ahead <= 0
    left, right = (node.attrs.get(f"{side}_window_size", -1) for side in ("left", "right"))
    if left >= 0:
        allowed &= -ahead <= left
    if right >= 0:
        allowed &= ahead <= right
    return allowed


def _spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    """Equally over the keys that a query may see by its place; over all where it may see none."""
    share, v = cotangent(shares, node), node.input(_VALUES)
    allowed = _allowed(node)
    allowed |= ~allowed.any(axis=1, keepdims=True)
    if allowed.all():
        axis = v.rank - 2
        total = emit("Div", emit.total(share, [axis]), emit.like(v, float(allowed.shape[1])))
        flow = emit("Expand", total, emit.ints(emit.axes(v).position_shape(v)))
    else:
        parts = allowed / allowed.sum(axis=1, keepdims=True)
        flow = emit("MatMul", emit.like(v, parts.T), share)
    return [None, None, flow, *[None] * (len(node.inputs) - 3)]


# Tensors with an axis of heads; query heads that share keys and values are one after the other.


def _split(emit: Emitter, name: str, value: Value, heads: int, *, turned: bool = False) -> str:
    """[N, length, heads * width] or [N, heads, length, width] to the latter; `turned`: width before length."""
    if value.rank == 4:
        return emit("Transpose", name, perm=[0, 1, 3, 2]) if turned else name
    n, length, width = value.shape
    parted = emit.reshape(name, [n, length, heads, width // heads])
    return emit("Transpose", parted, perm=[0, 2, 3, 1] if turned else [0, 2, 1, 3])


def _joined(emit: Emitter, name: str, value: Value) -> str:
    """Back to the shape of the operand."""
    return name if value.rank == 4 else emit.reshape(emit("Transpose", name, perm=[0, 2, 1, 3]), value.shape)


def _turned(emit: Emitter, name: str) -> str:
    return emit("Transpose", name, perm=[0, 1, 3, 2])


@dataclass(frozen=True)
class _Weights:
    """The attention weights, [N, heads, queries, keys]; the same and the queries by shared heads."""

    each: str
    stacked: str
    queries: str
    capped: str | None  # tanh(score / softcap)


def _mask(emit: Emitter, node: Node) -> str | None:
    """What is added to the scores: -inf, or nearly, where a key is hidden."""
    q, mask, n = node.input(_QUERIES), node.optional(_MASK), _sizes(node)
    hidden = float(np.finfo(q.dtype).min) / 4  # two of them still have a sum
    parts = []
    if mask is not None:
        name, short = mask.name, n.keys - mask.shape[-1]
        if mask.dtype.kind == "b":
            name = emit("Where", name, emit.like(q, 0.0), emit.like(q, hidden))
        if short:
            name = emit("Pad", name, emit.ints([0] * (2 * mask.rank - 1) + [short]), emit.like(q, hidden))
        parts.append(name)
    allowed = _allowed(node)
    if not allowed.all():
        parts.append(emit.like(q, np.where(allowed, 0.0, hidden)))
    if not parts:
        return None
    return emit("Add", *parts) if len(parts) == 2 else parts[0]


def _weights(emit: Emitter, node: Node) -> _Weights:
    """``softmax(cap(scale Q K^T) + mask)``; the row of a query that sees no key is 0."""
    q, k, n = node.input(_QUERIES), node.input(_KEYS), _sizes(node)
    batch, cap = q.shape[0], node.attrs["softcap"]
    stack = [batch, n.shared, n.heads // n.shared * n.queries]
    queries = _split(emit, q.name, q, n.heads)
    if n.heads != n.shared:
        queries = emit.reshape(queries, [*stack, -1])
    keys = _split(emit, k.name, k, n.shared, turned=True)
    scores = emit("MatMul", emit("Mul", queries, emit.like(q, n.scale)), keys)
    each = [batch, n.heads, n.queries, n.keys]
    if n.heads != n.shared:
        scores = emit.reshape(scores, each)
    capped = emit("Tanh", emit("Div", scores, emit.like(q, cap))) if cap else None
    if capped:
        scores = emit("Mul", capped, emit.like(q, cap))
    if mask := _mask(emit, node):
        weights = emit("Softmax", emit("Add", scores, mask), axis=-1)
        most = emit("ReduceMax", mask, emit.ints([-1]), keepdims=1)
        blind = emit("Less", most, emit.like(q, float(np.finfo(q.dtype).min) / 8))
        weights = emit("Where", blind, emit.like(q, 0.0), weights)
    else:
        weights = emit("Softmax", scores, axis=-1)
    stacked = emit.reshape(weights, [*stack, n.keys]) if n.heads != n.shared else weights
    return _Weights(weights, stacked, queries, capped)


@rule(
    "Attention", versions=(23, 24, 25), roles=_roles, carriers=_values_carry, routes=_one_key, spread=_spread
)
def attention(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``P^T g`` to the values, ``P = softmax(scale Q K^T + mask)`` being fixed.

    ``tangent``: ``S = P (G - Σ P G)`` with ``G = g V^T`` goes to a real mask, ``scale S K`` to Q, ``scale S^T Q`` to K.
    """
    g, y, n = cotangent(cotangents, node), node.output(), _sizes(node)
    q, k, v = (node.input(i) for i in range(3))
    p = _weights(emit, node)
    grouped = n.heads != n.shared
    g = _split(emit, g, y, n.heads)
    if grouped:
        g = emit.reshape(g, [y.shape[0], n.shared, n.heads // n.shared * n.queries, -1])
    flows: list[str | None] = [None] * len(node.inputs)
    if emit.varies(v):
        flows[_VALUES] = _joined(emit, emit("MatMul", _turned(emit, p.stacked), g), v)
    if not emit.tangent:
        return flows
    slope = emit("MatMul", g, _split(emit, v.name, v, n.shared, turned=True))
    shape = [y.shape[0], n.heads, n.queries, n.keys]
    if grouped:
        slope = emit.reshape(slope, shape)
    mean = emit.total(emit("Mul", p.each, slope), [3])
    slope = emit("Mul", p.each, emit("Sub", slope, mean))
    flows[_MASK:4] = [_to_mask(emit, node, slope, shape)] if len(node.inputs) > _MASK else []
    if p.capped:
        slope = emit("Mul", slope, emit("Sub", emit.like(q, 1.0), emit("Mul", p.capped, p.capped)))
    slope = emit("Mul", slope, emit.like(q, n.scale))
    if grouped:
        slope = emit.reshape(slope, [y.shape[0], n.shared, n.heads // n.shared * n.queries, n.keys])
    if emit.varies(q):
        back = emit("MatMul", slope, _split(emit, k.name, k, n.shared))
        if grouped:
            back = emit.reshape(back, [y.shape[0], n.heads, n.queries, -1])
        flows[_QUERIES] = _joined(emit, back, q)
    if emit.varies(k):
        flows[_KEYS] = _joined(emit, emit("MatMul", _turned(emit, slope), p.queries), k)
    return flows


def _to_mask(emit: Emitter, node: Node, slope: str, shape: list[int]) -> str | None:
    mask = node.optional(_MASK)
    if mask is None or not emit.varies(mask) or not mask.is_float:
        return None
    if mask.shape[-1] < shape[-1]:
        shape = [*shape[:-1], mask.shape[-1]]
        slope = emit("Slice", slope, emit.ints([0]), emit.ints(shape[-1:]), emit.ints([3]))
    return emit.unbroadcast(slope, shape, mask.shape)


def _rotary_roles(node: Node, roles: Roles) -> tuple[Axes]:
    own = roles[node.input(0).name]
    if own.roles[-1] is not Role.CHANNEL:
        raise LayoutError(f"{node}: rotates pairs along its last axis, which is no channel axis ({own})")
    return (Axes(own.roles),)


@rule("RotaryEmbedding", versions=(23,), roles=_rotary_roles, routes=always, spread=through)
def rotary_embedding(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` rotated back: the same with ``-sin``. Each position is rotated on its own."""
    node.require(not any(emit.varies(v) for v in node.inputs[1:3]), "its angles must not depend on the input")
    cosines, sines = node.input(1), node.input(2)
    places = [v.name for v in node.inputs[3:] if v is not None]
    attrs = {k: v for k, v in node.attrs.items() if k in ("interleaved", "num_heads", "rotary_embedding_dim")}
    g = cotangent(cotangents, node)
    return to_first(node, emit("RotaryEmbedding", g, cosines.name, emit("Neg", sines.name), *places, **attrs))
