"""Grown attention, written out as exporters do or as one operator, and recurrent layers."""

import numpy as np

from tests.fuzz_builder import Builder, Feature
from tests.fuzz_contractions import pointwise
from tests.fuzz_elementwise import affine


def attention(g: Builder, f: Feature) -> Feature:
    """Heads split off by Reshape and Transpose; with a mask that knows the order, or without."""
    n, t, c = f.shape
    heads = g.one_of(*[h for h in (1, 2, 3) if c % h == 0])
    inner = c // heads
    g.recipe.append(f"heads {heads}")
    if g.yes():
        joint = g.reshape(pointwise(g, f, 3 * c), "", (n, t, 3, heads, inner)).name
        moved = g("Transpose", joint, perm=[2, 0, 3, 1, 4])
        if g.yes():
            parts = [g("Gather", moved, np.int64(i), axis=0) for i in range(3)]
        else:
            whole = g.split(moved, 0, [1, 1, 1])
            parts = [g("Squeeze", part, g.ints(0)) for part in whole]
    else:
        parts = []
        for _ in range(3):
            projected = g.reshape(pointwise(g, f, c), "", (n, t, heads, inner)).name
            parts.append(g("Transpose", projected, perm=[0, 2, 1, 3]))
    q, k, v = parts
    logits = g("MatMul", q, g("Transpose", k, perm=[0, 1, 3, 2]))
    logits = g("Mul", logits, np.float32(inner**-0.5))
    if g.yes():
        mask = np.triu(np.full((t, t), -1e4), 1) if g.yes() else g.small(heads, t, t)
        logits = g("Add", logits, mask)
    mixed = g("MatMul", g("Softmax", logits, axis=-1), v)
    merged = g.reshape(f, "NTC", (n, t, c), g("Transpose", mixed, perm=[0, 2, 1, 3]))
    return pointwise(g, merged, c)


def fused_attention(g: Builder, f: Feature) -> Feature:
    """One head, its keys from a mean over channels: products of computed tensors in Einsum."""
    k = pointwise(g, f, f.channels)
    scores = g("Softmax", g("Einsum", f.name, k.name, equation="nic,njc->nij"), axis=-1)
    return f.like(g("Einsum", scores, f.name, equation="nij,njc->nic"))


def attention_operator(g: Builder, f: Feature) -> Feature:
    """As one operator, with rotary embeddings or without."""
    if g.opset < 23:
        return attention(g, f)
    n, t, c = f.shape
    heads, inner = g.one_of(1, 2), g.one_of(2, 3)
    q, k, v = (pointwise(g, f, heads * inner).name for _ in range(3))
    if inner % 2 == 0 and not g.open_batch and g.yes():
        angles = g.rng.uniform(0, 3, (n, t, inner // 2))
        parts = (np.cos(angles), np.sin(angles))
        q, k = (g("RotaryEmbedding", part, *parts, num_heads=heads) for part in (q, k))
    mixed = g("Attention", q, k, v, q_num_heads=heads, kv_num_heads=heads, is_causal=g.integer(0, 1))
    return pointwise(g, f.like(mixed, (n, t, heads * inner)), c)


def recurrent(g: Builder, f: Feature) -> Feature:
    """LSTM, GRU or RNN over the sequence, in one direction or both."""
    op, hidden = g.one_of("LSTM", "GRU", "RNN"), g.integer(1, 3)
    direction = g.one_of("forward", "reverse", "bidirectional")
    g.recipe.append(f"{op} {direction}")
    ways = 2 if direction == "bidirectional" else 1
    size = {"LSTM": 4, "GRU": 3, "RNN": 1}[op] * hidden
    n, t, c = f.shape
    into, back = g.weights(ways, size, c, fan_in=c), g.weights(ways, size, hidden, fan_in=hidden)
    bias = (g.small(ways, 2 * size),) if g.yes() else ()
    x = g.transpose(f, "TNC")
    y = g(op, x.name, into, back, *bias, hidden_size=hidden, direction=direction)  # [t, ways, n, hidden]
    return g.reshape(f, "NTC", (n, t, ways * hidden), g("Transpose", y, perm=[2, 0, 1, 3]))


def windows(g: Builder, f: Feature) -> Feature:
    """Swin: attention within windows of 2×2 tokens, the windows put into the batch and taken out again."""
    n, h, w, c = f.shape
    if h % 2 or w % 2:
        return affine(g, f)
    cut = g("Reshape", f.name, g.ints(-1, h // 2, 2, w // 2, 2, c))
    count = n * (h // 2) * (w // 2)
    cells = g("Reshape", g("Transpose", cut, perm=[0, 1, 3, 2, 4, 5]), g.ints(-1, 4, c))
    inside = attention(g, Feature(cells, "NTC", (count, 4, c)))
    back = g("Reshape", inside.name, g.ints(-1, h // 2, w // 2, 2, 2, c))
    return g.reshape(f, f.layout, f.shape, g("Transpose", back, perm=[0, 1, 3, 2, 4, 5]))


def class_token(g: Builder, f: Feature) -> Feature:
    n, t, c = f.shape
    if g.open_batch:
        shape = g("Concat", g("Gather", g("Shape", f.name), g.ints(0)), g.ints(1, c), axis=0)
        token = g("Expand", g.small(1, 1, c), shape)
    else:
        token = g.constant(g.small(n, 1, c)) if g.yes() else g("Expand", g.small(1, 1, c), g.ints(n, 1, c))
    longer = g("Concat", token, f.name, axis=1)
    return f.like(g("Add", longer, g.small(1, t + 1, c)), (n, t + 1, c))
