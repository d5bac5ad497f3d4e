"""The Attention operator, and rotary position embeddings. The attention weights are the pattern: values carry alone."""

import math
from dataclasses import dataclass

import numpy as np

from graph_rules.registry import always, cotangent, rule, through, to_first
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.errors import LayoutError
from srd_onnx.graph.ir import Array, Node, Value
from srd_onnx.graph.roles import Axes, Gate, Role, Roles

_QUERIES, _KEYS, _VALUES, _MASK, _PAST_KEYS, _PAST_VALUES, _LENGTHS = range(7)
_PAST = {_KEYS: _PAST_KEYS, _VALUES: _PAST_VALUES}
_INT64 = 7  # TensorProto.INT64
_EXPECTED = {
    3: (Role.BATCH, Role.POSITION, Role.CHANNEL),
    4: (Role.BATCH, Role.CHANNEL, Role.POSITION, Role.CHANNEL),
}


@dataclass(frozen=True)
class _Sizes:
    """Query heads and the heads of keys and values, lengths of queries, past and all keys, the scale of scores."""

    heads: int
    shared: int
    queries: int
    past: int
    keys: int
    scale: float


def _sizes(node: Node) -> _Sizes:
    q, k = node.input(_QUERIES), node.input(_KEYS)
    if q.rank == 4:
        heads, shared, width = q.shape[1], k.shape[1], q.shape[3]
    else:
        heads, shared = node.attrs["q_num_heads"], node.attrs["kv_num_heads"]
        width = q.shape[2] // heads
    scale = node.attrs.get("scale") or 1 / math.sqrt(width)
    queries, new = (value.shape[value.rank - 2] for value in (q, k))
    cached = node.optional(_PAST_KEYS)
    past = cached.shape[2] if cached is not None else 0
    return _Sizes(heads, shared, queries, past, past + new, scale)


def _roles(node: Node, roles: Roles) -> tuple[Axes, ...]:
    """N, position, channel, or with an axis of heads; the weights are positions by positions."""
    _sizes(node)
    for value in [*node.inputs[:3], *node.inputs[4:6]]:
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
    values = ((i, node.optional(i)) for i in (_VALUES, _PAST_VALUES))
    return tuple(i for i, v in values if v is not None and v.name in roles and not roles[v.name].inert)


def _one_key(node: Node, roles: Roles) -> bool:
    return _sizes(node).keys == 1 or not _values_carry(node, roles)


def _allowed(node: Node) -> Array:
    """Which keys each query may see by its place alone: bool [queries, keys]; all, if lengths come at run time."""
    n = _sizes(node)
    ahead = np.arange(n.keys)[None, :] - np.arange(n.queries)[:, None] - n.past
    allowed = np.ones(ahead.shape, bool)
    if node.optional(_LENGTHS) is not None:
        return allowed
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
    share, v, n = cotangent(shares, node), node.input(_VALUES), _sizes(node)
    allowed = _allowed(node)
    carried = np.zeros(n.keys, bool)  # a constant past takes no part
    carried[: n.past] = n.past > 0 and emit.varies(node.input(_PAST_VALUES))
    carried[n.past :] = emit.varies(v)
    allowed &= carried
    allowed |= carried & ~allowed.any(axis=1, keepdims=True)
    widened = v.rank == 3 and n.past > 0
    if widened:
        share = emit("Unsqueeze", share, emit.ints([1]))
    rank = 4 if widened else v.rank
    if allowed.all():
        total = emit("Div", emit.total(share, [rank - 2]), emit.like(v, float(n.keys)))
        flow = emit("Expand", total, emit.ints([v.shape[0], *[1] * (rank - 3), n.keys, 1]))
    else:
        parts = allowed / allowed.sum(axis=1, keepdims=True)
        flow = emit("MatMul", emit.like(v, parts.T), share)
    flows: list[str | None] = [None] * len(node.inputs)
    for index, part in _parted(emit, node, flow, _VALUES).items():
        flows[index] = emit("Squeeze", part, emit.ints([1])) if widened and index == _VALUES else part
    return flows


def _parted(emit: Emitter, node: Node, flow: str, index: int) -> dict[int, str]:
    """Of keys or values (the last axis but one), what belongs to those of the past and to the new, if they vary."""
    n, parts = _sizes(node), {}
    ends = {_PAST[index]: (0, n.past), index: (n.past, n.keys)} if n.past else {index: (0, n.keys)}
    for which, (start, stop) in ends.items():
        if emit.varies(node.optional(which)):
            cut = [emit.ints([at]) for at in (start, stop, -2)]
            parts[which] = emit("Slice", flow, *cut) if n.past else flow
    return parts


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


def _stacked(emit: Emitter, node: Node, index: int, *, turned: bool = False) -> str:
    """Keys or values, those of the past before them: [N, heads, length, width], or `turned`."""
    value, past, heads = node.input(index), node.optional(_PAST[index]), _sizes(node).shared
    if past is None:
        return _split(emit, value.name, value, heads, turned=turned)
    whole = emit("Concat", past.name, _split(emit, value.name, value, heads), axis=2)
    return _turned(emit, whole) if turned else whole


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
    hidden = float(np.finfo(q.dtype).min) / 8  # a few of them still have a sum
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
    if (lengths := node.optional(_LENGTHS)) is not None:
        seen = _within_lengths(emit, node, lengths)
        parts.append(emit("Where", seen, emit.like(q, 0.0), emit.like(q, hidden)))
    if not parts:
        return None
    return emit("Add", parts[0], emit.sum(parts[1:])) if len(parts) > 1 else parts[0]


def _within_lengths(emit: Emitter, node: Node, lengths: Value) -> str:
    """Keys before the end of each item's own; causal and windowed as if the last one were the last query."""
    n = _sizes(node)
    ends = emit("Unsqueeze", emit("Cast", lengths.name, to=_INT64), emit.ints([1, 2, 3]))
    keys = emit.const(np.arange(n.keys).reshape(1, 1, 1, -1))
    seen = emit("Less", keys, ends)
    places = emit("Add", emit.const(np.arange(-n.queries, 0).reshape(1, 1, -1, 1)), ends)
    left, right = (node.attrs.get(f"{side}_window_size", -1) for side in ("left", "right"))
    if node.attrs["is_causal"]:
        seen = emit("And", seen, emit("LessOrEqual", keys, places))
    if left >= 0:
        seen = emit("And", seen, emit("GreaterOrEqual", keys, emit("Sub", places, emit.ints([left]))))
    if right >= 0:
        seen = emit("And", seen, emit("LessOrEqual", keys, emit("Add", places, emit.ints([right]))))
    return seen


def _weights(emit: Emitter, node: Node) -> _Weights:
    """``softmax(cap(scale Q K^T) + mask)``; the row of a query that sees no key is 0."""
    q, n = node.input(_QUERIES), _sizes(node)
    batch, cap = q.shape[0], node.attrs["softcap"]
    stack = [batch, n.shared, n.heads // n.shared * n.queries]
    queries = _split(emit, q.name, q, n.heads)
    if n.heads != n.shared:
        queries = emit.reshape(queries, [*stack, -1])
    keys = _stacked(emit, node, _KEYS, turned=True)
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
        blind = emit("Less", most, emit.like(q, float(np.finfo(q.dtype).min) / 16))
        weights = emit("Where", blind, emit.like(q, 0.0), weights)
    else:
        weights = emit("Softmax", scores, axis=-1)
    stacked = emit.reshape(weights, [*stack, n.keys]) if n.heads != n.shared else weights
    return _Weights(weights, stacked, queries, capped)


def _unmoved(emit: Emitter, node: Node) -> str | None:
    """What constant values give: those of the past, or all of them."""
    y, n = node.output(), _sizes(node)
    given = [i for i in (_PAST_VALUES, _VALUES) if node.optional(i) is not None]
    constant = [i for i in given if not emit.varies(node.input(i))]
    if not constant:
        return None
    if constant == given:
        return y.name
    parts = []
    for index in given:
        v = node.input(index)
        shape = v.shape if v.rank == 4 else (v.shape[0], n.shared, v.shape[1], v.shape[2] // n.shared)
        kept = index in constant
        parts.append(_split(emit, v.name, v, n.shared) if kept else emit.zeros(shape, v.dtype))
    product = emit("MatMul", _weights(emit, node).stacked, emit("Concat", *parts, axis=2))
    if n.heads != n.shared:
        product = emit.reshape(product, [y.shape[0], n.heads, n.queries, -1])
    return _joined(emit, product, y)


@rule(
    "Attention",
    versions=(23, 24, 25),
    roles=_roles,
    carriers=_values_carry,
    routes=_one_key,
    spread=_spread,
    bias=_unmoved,
)
def attention(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``P^T g`` to the values, ``P = softmax(scale Q K^T + mask)`` being fixed.

    ``tangent``: ``S = P (G - Σ P G)`` with ``G = g V^T`` goes to a real mask, ``scale S K`` to Q, ``scale S^T Q`` to K.
    """
    g, y, n = cotangent(cotangents, node), node.output(), _sizes(node)
    q = node.input(_QUERIES)
    p = _weights(emit, node)
    grouped = n.heads != n.shared
    g = _split(emit, g, y, n.heads)
    if grouped:
        g = emit.reshape(g, [y.shape[0], n.shared, n.heads // n.shared * n.queries, -1])
    flows: list[str | None] = [None] * len(node.inputs)
    back = emit("MatMul", _turned(emit, p.stacked), g)
    for index, part in _parted(emit, node, back, _VALUES).items():
        flows[index] = _joined(emit, part, node.input(index))
    if not emit.tangent:
        return flows
    slope = emit("MatMul", g, _stacked(emit, node, _VALUES, turned=True))
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
        back = emit("MatMul", slope, _stacked(emit, node, _KEYS))
        if grouped:
            back = emit.reshape(back, [y.shape[0], n.heads, n.queries, -1])
        flows[_QUERIES] = _joined(emit, back, q)
    back = emit("MatMul", _turned(emit, slope), p.queries)
    for index, part in _parted(emit, node, back, _KEYS).items():
        flows[index] = _joined(emit, part, node.input(index))
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
    node.require(node.input(0).name in roles, "its angles must not depend on the input")
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
