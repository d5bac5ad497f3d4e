"""The Attention operator with its weights held fixed, and rotary embeddings: loops over heads and positions."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.oracle_types import Array, Attrs, Oracle, Replay, as_stored


def _by_heads(x: Array, heads: int | None) -> Array:
    """[N, heads, length, width]"""
    if x.ndim == 4:
        return x
    assert heads
    return np.stack(np.split(x, heads, axis=2), axis=1)


def _seen(attrs: Attrs, i: int, j: int) -> bool:
    if attrs.get("is_causal") and j > i:
        return False
    left, right = attrs.get("left_window_size", -1), attrs.get("right_window_size", -1)
    return not (0 <= left < i - j or 0 <= right < j - i)


def _weights(attrs: Attrs, operands: Sequence[Any]) -> Array:
    """[N, heads, queries, keys]"""
    q, k = _by_heads(operands[0], attrs.get("q_num_heads")), _by_heads(operands[1], attrs.get("kv_num_heads"))
    mask = operands[3] if len(operands) > 3 else None
    group = q.shape[1] // k.shape[1]
    scale = as_stored(attrs["scale"]) if "scale" in attrs else 1 / math.sqrt(q.shape[3])
    cap = as_stored(attrs.get("softcap", 0.0))
    weights = np.zeros((*q.shape[:3], k.shape[2]))
    if mask is not None:
        mask = np.broadcast_to(mask, weights.shape)
    for n, h, i in np.ndindex(q.shape[:3]):
        for j in range(k.shape[2]):
            score = scale * float(np.dot(q[n, h, i], k[n, h // group, j]))
            score = cap * math.tanh(score / cap) if cap else score
            seen = _seen(attrs, i, j)
            if mask is not None and mask.dtype == bool:
                seen = seen and bool(mask[n, h, i, j])
            elif mask is not None:
                score += float(mask[n, h, i, j])
            weights[n, h, i, j] = math.exp(score) if seen else 0.0
        total = weights[n, h, i].sum()
        if total:
            weights[n, h, i] /= total
    return weights


def _applied(attrs: Attrs, weights: Array, v: Array) -> Array:
    values = _by_heads(v, attrs.get("kv_num_heads"))
    group = weights.shape[1] // values.shape[1]
    y = np.zeros((*weights.shape[:3], values.shape[3]))
    for n, h, i in np.ndindex(weights.shape[:3]):
        y[n, h, i] = sum(weights[n, h, i, j] * values[n, h // group, j] for j in range(weights.shape[3]))
    return y if v.ndim == 4 else np.concatenate(list(np.moveaxis(y, 1, 0)), axis=2)


def _attention(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    weights = _weights(attrs, operands)
    return lambda z: [_applied(attrs, weights, z[2])]


def _attention_structure(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    """Every key that a query may see by its place."""
    weights = _weights(attrs, operands)
    for i in range(weights.shape[2]):
        for j in range(weights.shape[3]):
            weights[:, :, i, j] = 1.0 if _seen(attrs, i, j) else 0.0
    return lambda z: [_applied(attrs, weights, z[2])]


def _rotary(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    x, cosines, sines, places = [*operands, None][:4]
    if places is not None:
        cosines, sines = cosines[places], sines[places]

    def replay(z: Sequence[Any]) -> list[Array]:
        heads = attrs.get("num_heads")
        y = _by_heads(np.array(z[0], float), heads)
        whole = attrs.get("rotary_embedding_dim") or y.shape[3]
        turned = y.copy()
        for n, t in np.ndindex(y.shape[0], y.shape[2]):
            for d in range(whole // 2):
                first, second = (2 * d, 2 * d + 1) if attrs.get("interleaved") else (d, d + whole // 2)
                a, b, c, s = y[n, :, t, first], y[n, :, t, second], cosines[n, t, d], sines[n, t, d]
                turned[n, :, t, first], turned[n, :, t, second] = c * a - s * b, s * a + c * b
        return [turned if x.ndim == 4 else np.concatenate(list(np.moveaxis(turned, 1, 0)), axis=2)]

    return replay


def _rotary_structure(_attrs: Attrs, _operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    return lambda z: [np.asarray(z[0], float)]


ATTENTION: dict[str, Oracle] = {
    "Attention": Oracle(_attention, _attention_structure),
    "RotaryEmbedding": Oracle(_rotary, _rotary_structure),
}
