"""Attention and MultiHeadAttention, as the matrix products and the softmax that they are."""

import math

import numpy as np
from onnx import TensorProto

from graph_rules.fused import attribute, fused, refuse_inputs
from srd_onnx.graph.expand import Writer
from srd_onnx.graph.ir import Node, Value

_LOWEST = -3.0e38  # what no softmax of single precision lets through; as ONNX Runtime, added to nothing


def _heads(write: Writer, x: str, count: int, perm: tuple[int, ...] = (0, 2, 1, 3)) -> str:
    """[B, S, heads·D] to [B, heads, S, D]."""
    return write("Transpose", write("Reshape", x, write.ints(0, 0, count, -1)), perm=perm)


def _attended(write: Writer, node: Node, q: str, k: str, v: str, sizes: "Sizes") -> str:
    """``softmax(scale q kᵀ + masks) v``: q and v [B, heads, S, D], k transposed."""
    scale = attribute(node, "scale") or 1.0 / math.sqrt(sizes.head)
    scores = write("Mul", write("MatMul", q, k), write.like(sizes.like, scale))
    for mask in sizes.masks:
        scores = write("Add", scores, mask)
    mixed = write("MatMul", write("Softmax", scores, axis=-1), v)
    together = write("Transpose", mixed, perm=(0, 2, 1, 3))
    return write("Reshape", together, write.ints(0, 0, -1))


class Sizes:
    """What the products need to know: lengths of queries and keys, the size of a head, and the masks."""

    def __init__(self, like: Value, batch: int, queries: int, keys: int, head: int) -> None:
        self.like, self.batch, self.queries, self.keys, self.head = like, batch, queries, keys, head
        self.masks: list[str] = []

    def hide(self, write: Writer, node: Node, visible: str) -> None:
        """Add the filter value where `visible`, a boolean that broadcasts to [B, heads, S, T], is false."""
        zero, hidden = (write.like(self.like, x) for x in (0.0, attribute(node, "mask_filter_value")))
        self.masks.append(write("Where", visible, zero, hidden))

    def hide_the_future(self, write: Writer, node: Node) -> None:
        """A query sees the keys up to its own place."""
        node.require(
            self.queries == self.keys,
            f"unidirectional, of {self.queries} queries and {self.keys} keys, is not covered",
        )
        future = np.triu(np.ones((self.queries, self.keys)), 1)
        lowest = max(_LOWEST, float(np.finfo(self.like.dtype).min))
        self.masks.append(write.like(self.like, (future * lowest)[None, None]))


def _padding(write: Writer, node: Node, mask: Value, sizes: Sizes) -> None:
    """The mask of keys: how many there are ([B] or [2B], with the first one), or one flag for each."""
    shape = mask.shape
    if mask.rank == 1:
        node.require(
            shape[0] in (sizes.batch, 2 * sizes.batch),
            f"a mask of {shape[0]} numbers for a batch of {sizes.batch} is not covered",
        )
        at = write.const(np.arange(sizes.keys)[None, None, None], np.int32)
        ends = write("Reshape", mask, write.ints(-1, sizes.batch, 1, 1, 1))
        parts = write.many(
            "Split", ends, outputs=shape[0] // sizes.batch, axis=0, num_outputs=shape[0] // sizes.batch
        )
        flat = [write("Squeeze", part, write.ints(0)) for part in parts]
        sizes.hide(write, node, write("Less", at, flat[0]))
        if len(flat) == 2:
            sizes.hide(write, node, write("GreaterOrEqual", at, flat[1]))
        return
    node.require(mask.rank < 4, "a mask of four axes is not covered")
    node.require(shape[-1] == sizes.keys, f"a mask of {shape[-1]} keys for {sizes.keys} is not covered")
    flags = write("Cast", mask, to=TensorProto.BOOL)
    sizes.hide(write, node, write("Unsqueeze", flags, write.ints(*((1, 2) if mask.rank == 2 else (1,)))))


@fused("Attention")
def attention(write: Writer, node: Node) -> list[str | None]:
    """``softmax(q kᵀ / sqrt D + masks) v`` with ``q, k, v = split(X W + b)``, for each head."""
    refuse_inputs(node, {4: "past", 6: "past_sequence_length"})
    node.require(not attribute(node, "do_rotary"), "rotary embedding is not covered")
    x, weights, bias = node.input(0), node.input(1), node.optional(2)
    count, widths = node.attrs["num_heads"], attribute(node, "qkv_hidden_sizes")
    widths = [int(n) for n in widths or [weights.shape[1] // 3] * 3]
    projected = write("MatMul", x, weights)
    if bias is not None:
        projected = write("Add", projected, bias)
    q, k, v = write.many("Split", projected, write.ints(*widths), outputs=3, axis=-1)
    batch, length = x.shape[:2]
    sizes = Sizes(x, batch, length, length, widths[0] // count)
    if (mask := node.optional(3)) is not None:
        _padding(write, node, mask, sizes)
    if attribute(node, "unidirectional"):
        sizes.hide_the_future(write, node)
    if (added := node.optional(5)) is not None:
        sizes.masks.append(added.name)
    keys = _heads(write, k, count, (0, 2, 3, 1))
    return [_attended(write, node, _heads(write, q, count), keys, _heads(write, v, count), sizes)]


def _with_bias(write: Writer, value: Value, bias: str | None) -> str:
    return write("Add", value, bias) if bias else value.name


@fused("MultiHeadAttention")
def multi_head_attention(write: Writer, node: Node) -> list[str | None]:
    """``softmax(q kᵀ / sqrt D + masks) v`` for each head of query, key and value."""
    refuse_inputs(node, {6: "past_key", 7: "past_value", 8: "past_sequence_length", 9: "cache_indirection"})
    query, packed = node.input(0), "queries, keys and values packed into one tensor are not covered"
    node.require(query.rank == 3 and node.optional(1) is not None and node.optional(2) is not None, packed)
    key, value, count = node.input(1), node.input(2), node.attrs["num_heads"]
    node.require(key.rank == value.rank and key.rank in (3, 4), packed)
    split = key.rank == 4  # keys and values come as [B, heads, T, D]
    biases: list[str | None] = [None, None, None]
    if (bias := node.optional(3)) is not None:
        width, last = query.shape[2], bias.shape[0] - 2 * query.shape[2]
        biases = list(write.many("Split", bias, write.ints(width, width, last), outputs=3, axis=0))
        node.require(not split, "a bias of keys that are split into heads is not covered")
    batch, length, hidden = query.shape
    sizes = Sizes(query, batch, length, key.shape[2 if split else 1], hidden // count)
    if (mask := node.optional(4)) is not None:
        _padding(write, node, mask, sizes)
    if attribute(node, "unidirectional"):
        sizes.hide_the_future(write, node)
    if (added := node.optional(5)) is not None:
        sizes.masks.append(added.name)
    q = _heads(write, _with_bias(write, query, biases[0]), count)
    if split:
        k, v = write("Transpose", key, perm=(0, 1, 3, 2)), value.name
    else:
        k = _heads(write, _with_bias(write, key, biases[1]), count, (0, 2, 3, 1))
        v = _heads(write, _with_bias(write, value, biases[2]), count)
    return [_attended(write, node, q, k, v, sizes)]
