"""The table of fused operators: what ONNX Runtime's optimiser writes (com.microsoft), in standard operators."""

from collections.abc import Callable, Mapping
from typing import Any

from srd_onnx.graph.expand import FUSED, Expansion, Writer
from srd_onnx.graph.ir import Node, OpKey

EXPANSIONS: dict[OpKey, Expansion] = {}

# The defaults of ONNX Runtime's operator schemas, which onnx does not know. None: it matters whether it is there.
# tests/test_microsoft.py compares them with the schemas of the installed ONNX Runtime.
_ATTENTION: dict[str, Any] = {"mask_filter_value": -10000.0, "scale": None, "unidirectional": 0}
_PRODUCT: dict[str, Any] = {"alpha": 1.0, "transA": 0, "transB": 0}
DEFAULTS: Mapping[str, dict[str, Any]] = {
    "Attention": _ATTENTION | {"do_rotary": 0, "qkv_hidden_sizes": None},
    "BiasGelu": {},
    "EmbedLayerNormalization": {"epsilon": 1e-12},
    "FastGelu": {},
    "FusedConv": {"activation": "", "activation_params": ()},
    "FusedGemm": _PRODUCT
    | {"beta": 1.0, "activation": "", "activation_alpha": None, "activation_beta": None},
    "FusedMatMul": _PRODUCT | {"transBatchA": 0, "transBatchB": 0},
    "Gelu": {},
    "LayerNormalization": {"axis": -1, "epsilon": 1e-5, "stash_type": 1},
    "MultiHeadAttention": _ATTENTION,
    "QuickGelu": {"alpha": 1.702},
    "SimplifiedLayerNormalization": {"axis": -1, "epsilon": 1e-5},
    "SkipLayerNormalization": {"epsilon": 1e-12},
    "SkipSimplifiedLayerNormalization": {"epsilon": 1e-12},
}


def fused(op_type: str) -> Callable[[Expansion], Expansion]:
    """Register how an operator is written out."""

    def register(expansion: Expansion) -> Expansion:
        EXPANSIONS[OpKey(FUSED, op_type, 1)] = expansion
        return expansion

    return register


def attribute(node: Node, name: str) -> Any:
    """An attribute, or its default."""
    default = DEFAULTS[node.key.op_type][name]
    return node.attrs.get(name, default)


def given(node: Node, *names: str) -> dict[str, Any]:
    """The attributes of these names that the node has, as they are."""
    return {name: node.attrs[name] for name in names if name in node.attrs}


def refuse_inputs(node: Node, names: Mapping[int, str]) -> None:
    """Refuse inputs that the expansion does not read."""
    for index, name in names.items():
        node.require(node.optional(index) is None, f"its input '{name}' is not covered")


def along(write: Writer, op_type: str, tensor: str, axis: int) -> str:
    """A reduction along one axis, which is kept."""
    return write(op_type, tensor, write.ints(axis), keepdims=1)
