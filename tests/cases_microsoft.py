"""Uses of ONNX Runtime's fused operators: one row each, as `tests/cases.py` has them for the standard ones."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.case_types import Const, Rand, Var

Operand = Var | Rand | Const | None


@dataclass(frozen=True, eq=False)
class Fused:
    """One use of one fused operator.

    Attributes:
        domain: the default one for what ONNX Runtime writes there.
        opset: of the default domain.
        outputs: how many it has; all must be as ONNX Runtime's own.
    """

    name: str
    op: str
    inputs: tuple[Operand, ...]
    attrs: Mapping[str, Any]
    domain: str = "com.microsoft"
    opset: int = 17
    outputs: int = 1

    def __str__(self) -> str:
        return self.name


def _row(op: str, how: str, *inputs: Operand, **rest: Any) -> Fused:
    own = {k: rest.pop(k) for k in ("domain", "opset", "outputs") if k in rest}
    return Fused(f"{op}-{how}", op, inputs, rest, **own)


def _int32(data: Any) -> Const:
    return Const(data, "int32")


IMAGE, TOKENS, OTHER = Var("NCHW", (2, 4, 5, 4)), Var("NTC", (2, 4, 6)), Var("NTC", (2, 4, 6))


def _products() -> Iterator[Fused]:
    conv = (IMAGE, Rand((4, 4, 3, 3)), Rand((4,)))
    for activation in ("Relu", "Tanh", "Sigmoid"):
        yield _row("FusedConv", activation, *conv, activation=activation, pads=[1, 0, 1, 2])
    yield _row("FusedConv", "leaky", *conv, activation="LeakyRelu", activation_params=[0.2])
    yield _row("FusedConv", "clip", *conv, activation="Clip", activation_params=[-0.3, 0.6])
    yield _row("FusedConv", "hard", *conv, activation="HardSigmoid", activation_params=[0.3, 0.4])
    residual = Var("NCHW", (2, 4, 5, 4))
    yield _row("FusedConv", "residual", *conv, residual, activation="Relu", pads=[1, 1, 1, 1])
    groups = (IMAGE, Rand((6, 2, 2, 2)))
    yield _row("FusedConv", "groups", *groups, activation="Relu", group=2, strides=[2, 1])
    flat = Var("NC", (3, 4))
    yield _row("FusedGemm", "relu", flat, Rand((4, 5)), Rand((5,)), activation="Relu")
    yield _row("FusedGemm", "no_sum", flat, Rand((5, 4)), activation="Tanh", transB=1, alpha=0.5)
    yield _row(
        "FusedGemm", "leaky", Var("CN", (4, 3)), Rand((4, 5)), Rand((5,)), activation="LeakyRelu",
        activation_alpha=0.3, transA=1, beta=2.0,
    )  # fmt: skip
    a, b = Var("NCT", (2, 3, 4)), Var("NTD", (2, 4, 5))
    yield _row("FusedMatMul", "plain", TOKENS, Rand((6, 5)))
    yield _row("FusedMatMul", "alpha", TOKENS, Rand((5, 6)), transB=1, alpha=0.25)
    yield _row("FusedMatMul", "both", a, b, alpha=-0.5)
    yield _row("FusedMatMul", "trans_both", Var("NTC", (2, 4, 3)), Var("NDT", (2, 5, 4)), transA=1, transB=1)
    front = {"transBatchA": 1, "transBatchB": 1}
    yield _row("FusedMatMul", "batch", Var("TNC", (3, 2, 4)), Var("CND", (4, 2, 5)), **front)
    yield _row(
        "FusedMatMul", "all", Var("CNT", (4, 2, 3)), Var("DNC", (5, 2, 4)), **front, transA=1, transB=1
    )


def _elementwise() -> Iterator[Fused]:
    yield _row("Gelu", "tokens", TOKENS)
    yield _row("BiasGelu", "tokens", TOKENS, Rand((6,)))
    yield _row("FastGelu", "plain", TOKENS)
    yield _row("FastGelu", "bias", TOKENS, Rand((6,)))
    yield _row("QuickGelu", "default", TOKENS)
    yield _row("QuickGelu", "silu", IMAGE, alpha=1.0)


def _norms() -> Iterator[Fused]:
    scale = Rand((6,))
    for opset in (12, 16):
        yield _row("LayerNormalization", f"opset_{opset}", TOKENS, scale, Rand((6,)), domain="", opset=opset)
    yield _row("LayerNormalization", "two_axes", TOKENS, Rand((4, 6)), domain="", opset=13, axis=1)
    yield _row(
        "LayerNormalization", "statistics", TOKENS, scale, scale, domain="", opset=12, outputs=3, epsilon=0.1
    )
    own: dict[str, Any] = {"domain": "", "axis": -1}
    yield _row("SimplifiedLayerNormalization", "opset_12", TOKENS, scale, **own, opset=12)
    yield _row("SimplifiedLayerNormalization", "opset_17", TOKENS, scale, **own, epsilon=0.1, outputs=2)
    yield _row("SimplifiedLayerNormalization", "opset_23", TOKENS, scale, **own, opset=23)
    yield _row("SkipLayerNormalization", "plain", TOKENS, OTHER, scale)
    yield _row(
        "SkipLayerNormalization", "all", TOKENS, OTHER, scale, scale, Rand((6,)), epsilon=0.1, outputs=4
    )
    yield _row("SkipLayerNormalization", "constant", TOKENS, Rand((1, 4, 6)), scale, scale)
    yield _row("SkipLayerNormalization", "lower_rank", TOKENS, Rand((4, 6)), scale, None, Rand((6,)))
    yield _row("SkipSimplifiedLayerNormalization", "plain", TOKENS, OTHER, scale)
    yield _row("SkipSimplifiedLayerNormalization", "bias", TOKENS, OTHER, scale, Rand((6,)), epsilon=0.1)
    ids, kinds = _int32([[1, 2, 0], [3, 4, 1]]), _int32([[0, 0, 1], [1, 0, 1]])
    tables = (Rand((5, 6)), Rand((6, 6)))
    embed = "EmbedLayerNormalization"
    yield _row(embed, "plain", ids, kinds, *tables, Rand((2, 6)), scale, scale, outputs=2)
    mask = _int32([[1, 1, 0], [1, 1, 1]])
    yield _row(embed, "mask", ids, kinds, *tables, Rand((2, 6)), scale, scale, mask, outputs=3)
    yield _row(
        embed, "positions", ids, None, *tables, None, scale, scale, None, kinds, outputs=2, epsilon=0.1
    )


def _attention() -> Iterator[Fused]:
    x, w, b = TOKENS, Rand((6, 18)), Rand((18,))

    def one(how: str, *inputs: Operand, **attrs: Any) -> Fused:
        return _row("Attention", how, *inputs, num_heads=2, **attrs)

    yield one("plain", x, w, b)
    yield one("scale", x, w, b, scale=0.3)
    yield one("causal", x, w, b, unidirectional=1)
    yield one("narrow_values", x, Rand((6, 16)), Rand((16,)), qkv_hidden_sizes=[6, 6, 4])
    yield one("lengths", x, w, b, _int32([4, 2]))
    yield one("ends_and_starts", x, w, b, _int32([4, 3, 1, 0]), mask_filter_value=-5.0)
    yield one("keys", x, w, b, _int32([[1, 1, 1, 0], [1, 0, 1, 1]]))
    flags = (np.arange(32).reshape(2, 4, 4) % 3 > 0).astype(np.int32)
    yield one("pairs", x, w, b, _int32(flags), unidirectional=1)
    yield one("added", x, w, b, None, None, Rand((2, 2, 4, 4)))
    yield one("added_to_all", x, w, b, None, None, Rand((1, 1, 4, 4)))
    q, k, v = TOKENS, Var("NTC", (2, 5, 6)), Var("NTC", (2, 5, 8))

    def many(how: str, *inputs: Operand, **attrs: Any) -> Fused:
        return _row("MultiHeadAttention", how, *inputs, num_heads=2, **attrs)

    yield many("plain", q, k, v)
    yield many("bias", q, k, v, Rand((20,)), scale=0.2)
    yield many("causal", q, OTHER, Var("NTC", (2, 4, 8)), unidirectional=1)
    yield many("lengths", q, k, v, None, _int32([4, 2]))
    yield many("keys", q, k, v, None, _int32([[1, 1, 1, 0, 1], [1, 0, 1, 1, 0]]), mask_filter_value=-3.0)
    yield many("added", q, k, v, None, None, Rand((1, 2, 4, 5)))
    heads = Var("NCTC", (2, 2, 5, 3))
    yield many("split_into_heads", q, heads, heads)


CASES = [*_products(), *_elementwise(), *_norms(), *_attention()]
