"""Products of computed tensors: MatMul, Gemm and Einsum, attention written out among them."""

from collections.abc import Iterator
from typing import Any

from srd_onnx.graph.roles import Gate
from tests.case_types import TOKENS, Case, Operand, Rand, Same, Var, rows

WEIGHTS = Var("NCQK", (2, 2, 3, 4), gate=Gate.SATURATING)
VALUES = Var("NCKC", (2, 2, 4, 3))


def _matmul() -> Iterator[Case]:
    def matmul(how: str, *inputs: Operand, **rest: Any) -> Iterator[Case]:
        yield from rows("MatMul", (13,), how, *inputs, **rest)

    yield from matmul("grouped", Var("NCPC", (2, 2, 4, 3)), Rand((2, 3, 5)))
    yield from matmul("grouped_left", Rand((2, 5, 4)), Var("NCPC", (2, 2, 4, 3)), out="NCPC")
    yield from matmul("queries_keys", Var("NCQC", (2, 2, 3, 4)), Var("NCCK", (2, 2, 4, 5)), out="NCQK")
    yield from matmul("queries_one_key", Var("NCQC", (2, 2, 3, 4)), Var("NCCK", (2, 1, 4, 1)), out="NCQK")
    yield from matmul("attention", WEIGHTS, VALUES, out="NCQC", held=[0])
    yield from matmul(
        "attention_of_one_head",
        Var("NQK", (2, 3, 4), gate=Gate.SATURATING), Var("NKC", (2, 4, 3)), out="NQC", held=[0],
    )  # fmt: skip
    yield from matmul(
        "attention_from_the_right",
        Var("NCCK", (2, 2, 3, 4)), Var("NCKQ", (2, 2, 4, 5), gate=Gate.SATURATING), out="NCCQ", held=[1],
    )  # fmt: skip
    yield from matmul("attention_shared_values", WEIGHTS, Var("NCKC", (2, 1, 4, 3)), out="NCQC", held=[0])
    yield from matmul("channel_attention", Var("NCCC", (2, 2, 3, 3), gate=Gate.SATURATING), Var("NCCP", (2, 2, 3, 4)),
                      out="NCCP", held=[0])  # fmt: skip
    yield from matmul("bounded_gate", Var("NQK", (2, 3, 4), gate=Gate.BOUNDED), Var("NKC", (2, 4, 3)),
                      out="NQC", held=[0])  # fmt: skip
    yield from matmul("two_gates", WEIGHTS, Var("NCKC", (2, 2, 4, 3), gate=Gate.SATURATING), out="NCQC")
    yield from matmul("linear_attention", Var("NCQC", (2, 2, 3, 4)), Var("NCCC", (2, 2, 4, 3)), out="NCQC")
    yield from matmul("equals", Var("NCQK", (2, 2, 3, 4)), VALUES, out="NCQC")
    yield from matmul("lower_rank", Var("QK", (3, 4)), VALUES, out="NCQC")
    yield from matmul("gate_of_a_vector", Var("NQK", (2, 3, 4), gate=Gate.SATURATING), Var("K", (4,)),
                      out="NQ", held=[0])  # fmt: skip
    yield from matmul("vector_first", Var("C", (4,)), Var("NCK", (2, 4, 3)), out="NK")
    yield from matmul("with_itself", Var("NPP", (2, 3, 3)), Same(0))


def _gemm() -> Iterator[Case]:
    flat, deep = Var("NC", (3, 4)), Var("CK", (4, 5))
    yield from rows("Gemm", (13,), "computed", flat, deep, out="NK", alpha=0.5)
    yield from rows("Gemm", (13,), "computed_gate", Var("NC", (3, 4), gate=Gate.SATURATING), deep, Rand((5,)),
                    out="NK", held=[0])  # fmt: skip
    yield from rows("Gemm", (13,), "computed_trans_a", Var("CN", (4, 3)), deep, out="NK", transA=1)
    yield from rows(
        "Gemm", (13,), "computed_trans_b", flat, Var("KC", (5, 4)), Rand((5,)), out="NK", transB=1
    )
    yield from rows("Gemm", (13,), "computed_trans_both", Var("CN", (4, 3)), Var("KC", (5, 4)), out="NK",
                    transA=1, transB=1, alpha=-2.0, beta=0.5)  # fmt: skip
    yield from rows("Gemm", (13,), "added", flat, Rand((4, 5)), Var("NC", (3, 5)), out="NC", beta=-0.5)
    yield from rows("Gemm", (13,), "added_row", flat, Rand((4, 5)), Var("C", (5,)), out="NC")
    yield from rows("Gemm", (13,), "added_column", flat, Rand((4, 5)), Var("NC", (3, 1)), out="NC")
    yield from rows("Gemm", (13,), "all_computed", flat, deep, Var("NK", (3, 5)), out="NK")
    yield from rows("Gemm", (13,), "added_alone", Rand((3, 4)), Rand((4, 5)), Var("NC", (3, 5)), out="NC")


def _einsum() -> Iterator[Case]:
    def einsum(how: str, equation: str, *inputs: Operand, **rest: Any) -> Iterator[Case]:
        yield from rows("Einsum", (12,), how, *inputs, equation=equation, **rest)

    image = Var("NCHW", (2, 3, 4, 2))
    yield from rows("Einsum", (12, 28), "projection", TOKENS, Rand((3, 5)), equation="btc,cd->btd")
    yield from einsum("projection_to_heads", "btc,chd->bhtd", TOKENS, Rand((3, 2, 4)), out="NCTC")
    yield from einsum(
        "projection_of_heads", "bhtd,hde->bte", Var("NCTC", (2, 2, 3, 4)), Rand((2, 4, 3)), out="NTC"
    )
    yield from einsum("constant_first", "dc, ...c -> ...d", Rand((5, 3)), TOKENS, out="NTC")
    yield from einsum("mixes_tokens", "st,btc->bsc", Rand((5, 4)), TOKENS, out="NSC")
    yield from einsum(
        "queries_keys", "bhqd,bhkd->bhqk", Var("NCQC", (2, 2, 3, 4)), Var("NCKC", (2, 2, 5, 4)), out="NCQK"
    )
    yield from einsum("queries_keys_channels_last", "bqhd,bkhd->bhqk", Var("NQCC", (2, 3, 2, 4)),
                      Var("NKCC", (2, 2, 2, 4)), out="NCQK")  # fmt: skip
    yield from einsum("attention", "bhqk,bhkd->bqhd", WEIGHTS, VALUES, out="NQCC", held=[0])
    yield from einsum("attention_ellipsis", "...qk,...kd->...qd", WEIGHTS, VALUES, out="NCQC", held=[0])
    yield from einsum("attention_repeated_values", "...qk,...kd->...qd", WEIGHTS, Var("NCKC", (2, 1, 4, 3)),
                      out="NCQC", held=[0])  # fmt: skip
    yield from einsum("equals", "bqc,bkc->bqk", Var("NQC", (2, 3, 4)), Var("NKC", (2, 2, 4)), out="NQK")
    yield from einsum("implicit", "ij,jk", Var("NC", (2, 3)), Var("CK", (3, 4)), out="NK")
    yield from einsum("implicit_ellipsis", "c...,ca", Var("CNT", (3, 2, 4)), Rand((3, 5)), out="NTC")
    yield from einsum("outer", "bt,bc->btc", Var("NT", (2, 4)), Var("NC", (2, 3)), out="NTC")
    yield from einsum("summed_within_an_operand", "btc,bdp->bt", TOKENS, Var("NCP", (2, 2, 3)), out="NT")
    yield from einsum("three", "bqk,bkc,cd->bqd", Var("NQK", (2, 3, 4), gate=Gate.SATURATING), Var("NKC", (2, 4, 3)),
                      Rand((3, 2)), out="NQC", held=[0])  # fmt: skip
    yield from einsum("three_equals", "bqc,bkc,bkd->bqd", Var("NQC", (2, 2, 3)), Var("NKC", (2, 3, 3)),
                      Var("NKC", (2, 3, 2)), out="NQC")  # fmt: skip
    yield from einsum("with_itself", "bic,bjc->bij", Var("NIC", (2, 3, 4)), Same(0), out="NIJ")
    yield from einsum("permuted", "nchw->nhwc", image, out="NHWC")
    yield from einsum("permuted_back", "...hw->...wh", image, out="NCWH")
    yield from einsum("summed_positions", "nchw->nc", image, out="NC")
    yield from einsum("summed_channels", "n c h w -> n h w", image, out="NHW")
    yield from einsum("summed_row", "nchw->nwc", image, out="NWC")
    yield from einsum("kept", "...", image)
    yield from einsum("diagonal", "npp->np", Var("NPP", (2, 3, 3)), out="NP")
    yield from einsum("diagonal_of_channels", "nccp->npc", Var("NCCP", (2, 3, 3, 2)), out="NPC")
    yield from einsum("trace", "npp->n", Var("NPP", (2, 3, 3)), out="N")
    yield from einsum("size_one", "btc,bsc->bts", Var("NTC", (2, 1, 3)), Var("NSC", (2, 4, 3)), out="NTS")


def cases() -> Iterator[Case]:
    yield from _matmul()
    yield from _gemm()
    yield from _einsum()
