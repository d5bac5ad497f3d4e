"""The Attention operator and rotary embeddings."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.case_types import Case, Const, Operand, Rand, Var, rows

VERSIONS = (23, 24, 25)
Q, K, V = Var("NQC", (2, 3, 4)), Var("NKC", (2, 5, 4)), Var("NKC", (2, 5, 6))
HEADS = {"q_num_heads": 2, "kv_num_heads": 2}
SEEN = np.array([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0], [0, 1, 1, 1, 1]], bool)


def _attention() -> Iterator[Case]:
    def attention(how: str, *inputs: Operand, **rest: Any) -> Iterator[Case]:
        versions = rest.pop("versions", VERSIONS)
        yield from rows("Attention", versions, how, *inputs, **{"held": [0, 1, 3], **rest})

    four = (Var("NCQC", (2, 2, 3, 2)), Var("NCKC", (2, 2, 4, 2)), Var("NCKC", (2, 2, 4, 3)))
    new = VERSIONS[-1:]
    yield from attention("three_axes", Q, K, V, **HEADS)
    yield from attention("four_axes", *four, out="NCQC")
    yield from attention("one_head", Q, K, V, q_num_heads=1, kv_num_heads=1, scale=0.25)
    yield from attention("causal", Q, K, V, **HEADS, is_causal=1)
    yield from attention("causal_square", *(Var("NTC", (2, 3, 4)),) * 3, **HEADS, is_causal=1)
    yield from attention("real_mask", Q, K, V, Rand((3, 5)), **HEADS)
    yield from attention("mask_of_heads", *four, Rand((1, 2, 3, 4)), out="NCQC")
    yield from attention("mask", Q, K, V, Const(SEEN, "bool"), **HEADS)
    yield from attention("mask_and_causal", Q, K, V, Const(SEEN, "bool"), **HEADS, is_causal=1)
    yield from attention("computed_mask", Q, K, V, Var("NCQK", (2, 2, 3, 5)), **HEADS)
    yield from attention("repeated_mask", Q, K, V, Var("QK", (3, 5)), **HEADS)
    yield from attention("softcap", Q, K, V, **HEADS, softcap=0.75)
    yield from attention(
        "grouped", Q, Var("NKC", (2, 5, 2)), Var("NKC", (2, 5, 3)), q_num_heads=2, kv_num_heads=1
    )
    yield from attention("grouped_four_axes", Var("NCQC", (2, 4, 3, 2)), *four[1:], out="NCQC", versions=new)
    past = (Var("NCKC", (2, 2, 3, 2)), Var("NCKC", (2, 2, 3, 3)))
    held: dict[str, Any] = {"held": [0, 1, 3, 4], "masks": 2}
    yield from attention("past", Q, K, V, None, *past, **HEADS, **held)
    yield from attention("past_four_axes", *four, None, *past, out="NCQC", is_causal=1, **held)
    constant = (Rand((2, 2, 3, 2)), Rand((2, 2, 3, 3)))
    yield from attention("constant_past", Q, K, V, None, *constant, **HEADS, masks=2)
    lengths = Const([3, 5], "int64")
    yield from attention("lengths", Q, K, V, None, None, None, lengths, **HEADS, versions=VERSIONS[1:])
    yield from attention("one_key", Q, Var("NKC", (2, 1, 4)), Var("NKC", (2, 1, 6)), **HEADS)
    yield from attention("constant_keys", Q, Rand((2, 5, 4)), V, **HEADS)
    yield from attention("constant_queries", Rand((2, 3, 4)), K, V, out="NQC", **HEADS)


def _rotary() -> Iterator[Case]:
    four = Var("NCTC", (2, 3, 4, 6))
    angles = (Rand((2, 4, 3)), Rand((2, 4, 3)))
    places = Const(np.array([[0, 1, 2, 3], [2, 4, 4, 1]]), "int64")
    table = (Rand((5, 3)), Rand((5, 3)))

    def rotary(how: str, *inputs: Operand, **rest: Any) -> Iterator[Case]:
        yield from rows("RotaryEmbedding", (23,), how, *inputs, dtype="float32", **rest)

    yield from rotary("one_pair", Var("NCTC", (1, 1, 2, 2)), Rand((1, 2, 1)), Rand((1, 2, 1)))
    yield from rotary("four_axes", four, *angles)
    yield from rotary("places", four, *table, places)
    yield from rotary("interleaved", four, *table, places, interleaved=1)
    yield from rotary("three_axes", Var("NTC", (2, 4, 12)), *angles, num_heads=2)
    yield from rotary("a_part", Var("NCTC", (2, 3, 4, 8)), *angles, rotary_embedding_dim=6)


def cases() -> Iterator[Case]:
    yield from _attention()
    yield from _rotary()
