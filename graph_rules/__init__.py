"""What each ONNX operator does to relevance: one file per family. `RULES` is the table the engine is given."""

from graph_rules import (
    activations,
    arithmetic,
    convolution,
    layout,
    linear,
    normalisation,
    pooling,
    quantisation,
    reductions,
    softmax,
)
from graph_rules.registry import RULES, rule

__all__ = [
    "RULES",
    "activations",
    "arithmetic",
    "convolution",
    "layout",
    "linear",
    "normalisation",
    "pooling",
    "quantisation",
    "reductions",
    "rule",
    "softmax",
]
