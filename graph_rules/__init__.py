"""What each ONNX operator does to relevance: one file per family. `RULES` is the table the engine is given."""

from graph_rules import (
    activations,
    arithmetic,
    convolution,
    gather,
    gather_elements,
    layout,
    linear,
    normalisation,
    padding,
    pooling,
    quantisation,
    rearrange,
    reductions,
    repeat,
    scatter,
    softmax,
)
from graph_rules.registry import RULES, rule

__all__ = [
    "RULES",
    "activations",
    "arithmetic",
    "convolution",
    "gather",
    "gather_elements",
    "layout",
    "linear",
    "normalisation",
    "padding",
    "pooling",
    "quantisation",
    "rearrange",
    "reductions",
    "repeat",
    "rule",
    "scatter",
    "softmax",
]
