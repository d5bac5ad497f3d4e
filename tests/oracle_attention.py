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
    """i and j are places among all keys, those of the past included."""
    if attrs.get("is_causal") and j > i:
        return False
    left, right = attrs.get("left_window_size", -1), attrs.get("right_window_size", -1)
    return not (0 <= left < i - j or 0 <= right < j - i)


def _with_past(attrs: Attrs, operands: Sequence[Any], index: int) -> tuple[Array, int]:
    """Keys (1) or values (2) by heads behind those of the past, and how many those are."""
    heads = _by_heads(operands[index], attrs.get("kv_num_heads"))
    past = operands[index + 3] if len(operands) > index + 3 else None
    return (heads, 0) if past is None else (np.concatenate([past, heads], axis=2), past.shape[2])


def _weights(attrs: Attrs, operands: Sequence[Any]) -> Array:
    """[N, heads, queries, keys]"""
    q = _by_heads(operands[0], attrs.get("q_num_heads"))
    k, past = _with_past(attrs, operands, 1)
    lengths = operands[6] if len(operands) > 6 else None
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
            seen = _seen(attrs, i + past, j) and (lengths is None or j < lengths[n])
            if mask is not None and mask.dtype == bool:
                seen = seen and bool(mask[n, h, i, j])
            elif mask is not None:
                score += float(mask[n, h, i, j])
            weights[n, h, i, j] = math.exp(score) if seen else 0.0
        total = weights[n, h, i].sum()
        if total:
            weights[n, h, i] /= total
    return weights


def _replay(attrs: Attrs, operands: Sequence[Any], weights: Array, held: frozenset[int]) -> Replay:
    def replay(z: Sequence[Any]) -> list[Array]:
        moved = [operands[i] if i in held else v for i, v in enumerate(z)]
        values, _ = _with_past(attrs, moved, 2)
        group = weights.shape[1] // values.shape[1]
        y = np.zeros((*weights.shape[:3], values.shape[3]))
        for n, h, i in np.ndindex(weights.shape[:3]):
            y[n, h, i] = sum(weights[n, h, i, j] * values[n, h // group, j] for j in range(weights.shape[3]))
        return [y if operands[2].ndim == 4 else np.concatenate(list(np.moveaxis(y, 1, 0)), axis=2)]

    return replay


def _attention(attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    return _replay(attrs, operands, _weights(attrs, operands), held)


def _attention_structure(attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    """Every key that a query may see by its place."""
    weights = _weights(attrs, operands)
    past = weights.shape[3] - operands[1].shape[-2]
    for i in range(weights.shape[2]):
        for j in range(weights.shape[3]):
            weights[:, :, i, j] = 1.0 if _seen(attrs, i + past, j) else 0.0
    ones = [np.ones_like(o) if o is not None else None for o in operands]
    return _replay(attrs, ones, weights, held)


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
