"""What ONNX Runtime's fused operators compute, from its documentation (ContribOperators.md), in numpy."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Definition = Callable[..., Array]

_error_function = np.vectorize(math.erf)


def _activated(v: Array, kind: str, params: Sequence[float]) -> Array:
    match kind:
        case "":
            return v
        case "Relu":
            return np.maximum(v, 0)
        case "Tanh":
            return np.asarray(np.tanh(v))
        case "Sigmoid":
            return np.asarray(1 / (1 + np.exp(-v)))
        case "LeakyRelu":
            return np.where(v < 0, params[0] * v, v)
        case "Clip":
            return np.clip(v, params[0], params[1])
        case "HardSigmoid":
            return np.clip(params[0] * v + params[1], 0, 1)
    raise AssertionError(kind)


def fused_conv(x: Array, w: Array, b: Any = None, z: Any = None, **attrs: Any) -> Array:
    group, (sh, sw) = attrs.get("group", 1), attrs.get("strides", (1, 1))
    top, left, bottom, right = attrs.get("pads", (0, 0, 0, 0))
    x = np.pad(x, [(0, 0), (0, 0), (top, bottom), (left, right)])
    kh, kw = w.shape[2:]
    height, width = (x.shape[2] - kh) // sh + 1, (x.shape[3] - kw) // sw + 1
    y = np.zeros((len(x), len(w), height, width))
    ins, outs = w.shape[1], len(w) // group
    for m, i, j in np.ndindex(len(w), height, width):
        first = m // outs * ins
        window = x[:, first : first + ins, i * sh : i * sh + kh, j * sw : j * sw + kw]
        y[:, m, i, j] = (window * w[m]).sum(axis=(1, 2, 3))
    if b is not None:
        y = y + b[:, None, None]
    if z is not None:
        y = y + z
    return _activated(y, attrs.get("activation", ""), attrs.get("activation_params", ()))


def fused_gemm(a: Array, b: Array, c: Any = None, **attrs: Any) -> Array:
    a = a.T if attrs.get("transA") else a
    b = b.T if attrs.get("transB") else b
    v = attrs.get("alpha", 1.0) * a @ b
    if c is not None:
        v = v + attrs.get("beta", 1.0) * c
    params = [attrs[f"activation_{p}"] for p in ("alpha", "beta") if f"activation_{p}" in attrs]
    return _activated(v, attrs.get("activation", ""), params)


def fused_matmul(a: Array, b: Array, **attrs: Any) -> Array:
    def turned(x: Array, side: str) -> Array:
        x = np.moveaxis(x, 0, -2) if attrs.get(f"transBatch{side}") else x
        return np.swapaxes(x, -1, -2) if attrs.get(f"trans{side}") and x.ndim > 1 else x

    return np.asarray(attrs.get("alpha", 1.0) * (turned(a, "A") @ turned(b, "B")))


def gelu(x: Array, bias: Any = 0.0) -> Array:
    v = x + bias
    return np.asarray(0.5 * v * (1 + _error_function(v / math.sqrt(2))))


def fast_gelu(x: Array, bias: Any = 0.0) -> Array:
    v = x + bias
    return np.asarray(0.5 * v * (1 + np.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))))


def quick_gelu(x: Array, alpha: float = 1.702) -> Array:
    return np.asarray(x / (1 + np.exp(-alpha * x)))


def layer_norm(x: Array, scale: Array, shift: Any = None, *, axis: int = -1, epsilon: float = 1e-5) -> Array:
    axes = tuple(range(axis % x.ndim, x.ndim))
    apart = x - x.mean(axis=axes, keepdims=True)
    y = apart / np.sqrt((apart**2).mean(axis=axes, keepdims=True) + epsilon) * scale
    return np.asarray(y if shift is None else y + shift)


def rms_norm(x: Array, scale: Array, *, axis: int = -1, epsilon: float = 1e-5) -> Array:
    assert axis in (-1, x.ndim - 1)
    return np.asarray(x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + epsilon) * scale)


def skip_layer_norm(
    x: Array, skip: Array, scale: Array, shift: Any = None, bias: Any = 0.0, epsilon: float = 1e-12
) -> Array:
    return layer_norm(x + skip + (0.0 if bias is None else bias), scale, shift, epsilon=epsilon)


def skip_rms_norm(x: Array, skip: Array, scale: Array, bias: Any = 0.0, epsilon: float = 1e-12) -> Array:
    return rms_norm(x + skip + bias, scale, epsilon=epsilon)


def embed_layer_norm(
    ids: Array, segments: Any, words: Array, places: Array, kinds: Any, scale: Array, shift: Array,
    mask: Any = None, positions: Any = None, epsilon: float = 1e-12,
) -> Array:  # fmt: skip
    z = words[ids] + places[np.arange(ids.shape[1])[None] if positions is None else positions]
    if segments is not None:
        z = z + kinds[segments]
    return layer_norm(z, scale, shift, epsilon=epsilon)


def _visible(mask: Array, batch: int, keys: int) -> Array:
    """Which keys a mask lets through, [B, 1, 1 or S, T]."""
    if mask.ndim == 1:
        at = np.arange(keys)[None]
        below = at < mask[:batch, None]
        return (below if len(mask) == batch else below & (at >= mask[batch:, None]))[:, None, None]
    return mask[:, None, None] > 0 if mask.ndim == 2 else mask[:, None] > 0


def _heads(q: Array, k: Array, v: Array, mask: Any, added: Any, attrs: Mapping[str, Any]) -> Array:
    """Attention of q, k, v [B, heads, length, D], head by head."""
    filtered = attrs.get("mask_filter_value", -10000.0)
    scores = np.einsum("bhsd,bhtd->bhst", q, k) * attrs.get("scale", 1 / math.sqrt(q.shape[-1]))
    if mask is not None:
        scores = scores + np.where(_visible(mask, len(q), k.shape[2]), 0.0, filtered)
    if attrs.get("unidirectional"):
        scores = np.where(np.tri(q.shape[2], dtype=bool), scores, -np.inf)
    if added is not None:
        scores = scores + added
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = weights / weights.sum(axis=-1, keepdims=True)
    mixed = np.einsum("bhst,bhtd->bshd", weights, v)
    return np.asarray(mixed.reshape(*mixed.shape[:2], -1))


def _split(x: Array, count: int) -> Array:
    return x.reshape(*x.shape[:2], count, -1).swapaxes(1, 2)


def attention(
    x: Array, w: Array, b: Any = None, mask: Any = None, past: Any = None, added: Any = None, **attrs: Any
) -> Array:
    assert past is None
    widths = attrs.get("qkv_hidden_sizes", [w.shape[1] // 3] * 3)
    projected = x @ w + (0.0 if b is None else b)
    parts = np.split(projected, np.cumsum(widths)[:2], axis=-1)
    q, k, v = (_split(part, attrs["num_heads"]) for part in parts)
    return _heads(q, k, v, mask, added, attrs)


def multi_head_attention(
    query: Array,
    key: Array,
    value: Array,
    bias: Any = None,
    mask: Any = None,
    added: Any = None,
    **attrs: Any,
) -> Array:
    count, operands = attrs["num_heads"], [query, key, value]
    if bias is not None:
        width = query.shape[-1]
        operands = [x + b for x, b in zip(operands, np.split(bias, [width, 2 * width]), strict=True)]
    q, k, v = (_split(x, count) if x.ndim == 3 else x for x in operands)
    return _heads(q, k, v, mask, added, attrs)


DEFINITIONS: dict[str, Definition] = {
    "Attention": attention,
    "BiasGelu": gelu,
    "EmbedLayerNormalization": embed_layer_norm,
    "FastGelu": fast_gelu,
    "FusedConv": fused_conv,
    "FusedGemm": fused_gemm,
    "FusedMatMul": fused_matmul,
    "Gelu": gelu,
    "LayerNormalization": layer_norm,
    "MultiHeadAttention": multi_head_attention,
    "QuickGelu": quick_gelu,
    "SimplifiedLayerNormalization": rms_norm,
    "SkipLayerNormalization": skip_layer_norm,
    "SkipSimplifiedLayerNormalization": skip_rms_norm,
}
