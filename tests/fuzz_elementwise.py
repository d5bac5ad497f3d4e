"""Grown activations, gates and sums: what acts on each element, and operands that meet elementwise."""

import math
from collections.abc import Callable

import numpy as np

from tests.fuzz_builder import Builder, Feature
from tests.fuzz_contractions import mixing, pointwise


def activation(g: Builder, f: Feature) -> Feature:
    plain = ["Relu", "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Softplus", "Softsign", "Sigmoid", "Tanh",
             "HardSigmoid", "ThresholdedRelu", "Erf", "Sin", "Abs", "Neg", "Identity"]  # fmt: skip
    plain += ["HardSwish"] * (g.opset >= 14) + ["Mish"] * (g.opset >= 18) + ["Gelu"] * (g.opset >= 20)
    op = g.one_of(*plain, "PRelu", "Clip", "Clip6", "Square", "Sqrt", "Log", "Exp", "Reciprocal", "Ceil")
    g.recipe.append(op)
    x, one_each = f.name, tuple(f.channels if i == f.channel else 1 for i in range(1, len(f.shape)))
    special: dict[str, Callable[[], str]] = {
        "PRelu": lambda: g("PRelu", x, g.small(*one_each)),
        "Clip": lambda: g("Clip", x, np.float32(-0.5), np.float32(1.0)),
        "Clip6": lambda: g("Clip", x, np.float32(0), np.float32(6)),
        "Square": lambda: g("Pow", x, np.float32(2)),
        "Sqrt": lambda: g("Sqrt", g("Add", g("Relu", x), np.float32(0.1))),
        "Log": lambda: g("Log", g("Add", g("Softplus", x), np.float32(0.5))),
        "Exp": lambda: g("Exp", g("Clip", x, np.float32(-3), np.float32(2))),
        "Reciprocal": lambda: g("Div", x, g("Add", g("Softplus", x), np.float32(1))),
        "Ceil": lambda: g("Mul", g("Ceil", g("Mul", x, np.float32(4))), np.float32(0.25)),
    }
    name = special[op]() if op in special else g(op, x)
    return f.like(name)


def affine(g: Builder, f: Feature) -> Feature:
    """Scale and shift, one number for each channel or one for all."""
    shape = [f.channels if i == f.channel else 1 for i in range(len(f.shape))] if g.yes() else []
    scaled = g("Mul", f.name, g.around_one(*shape))
    return f.like(g(g.one_of("Add", "Sub"), scaled, g.small(*shape)))


def gate(g: Builder, f: Feature) -> Feature:
    """``x · sigmoid(x)`` and its like; of another branch, too."""
    other = mixing(g, f) if g.yes() else f
    kind = g.one_of("Sigmoid", "HardSigmoid", "Tanh", "Erf", "Softmax", "Softsign")
    g.recipe.append(kind)
    opened = g(kind, other.name, axis=f.channel) if kind == "Softmax" else g(kind, other.name)
    pair = (f.name, opened) if g.yes() else (opened, f.name)
    return f.like(g("Mul", *pair))


def gelu_written_out(g: Builder, f: Feature) -> Feature:
    half = g("Mul", f.name, np.float32(0.5))
    risen = g("Add", g("Erf", g("Div", f.name, np.float32(math.sqrt(2)))), np.float32(1))
    return f.like(g("Mul", half, risen))


def squeeze_and_excite(g: Builder, f: Feature) -> Feature:
    inner = max(1, f.channels // 2)
    pooled = f.like(
        g.reduced("ReduceMean", f.name, f.positions, keep=True),
        tuple(1 if i in f.positions else n for i, n in enumerate(f.shape)),
    )
    squeezed = pointwise(g, pooled, inner)
    excited = pointwise(g, f.like(g("Relu", squeezed.name), squeezed.shape), f.channels)
    return f.like(g("Mul", f.name, g(g.one_of("Sigmoid", "HardSigmoid"), excited.name)))


def context(g: Builder, f: Feature) -> Feature:
    """A mean over positions, or over some of them, comes to every position."""
    axes = f.positions if g.yes() else [g.one_of(*f.positions)]
    mean = g.reduced(g.one_of("ReduceMean", "ReduceMax", "ReduceSum"), f.name, axes, keep=True)
    op = g.one_of("Add", "Sub", "Mul")
    return f.like(g(op, *((f.name, mean) if g.yes() else (mean, f.name))))


def quotient(g: Builder, f: Feature) -> Feature:
    below = g("Add", g("Softplus", mixing(g, f).name), np.float32(1))
    return f.like(g("Div", f.name, below))


def masked(g: Builder, f: Feature) -> Feature:
    mask = g.rng.random(f.shape[1:]) < 0.7
    other = mixing(g, f).name if g.yes() else g.one_of(np.float32(0), np.float32(0.3))
    return f.like(g("Where", mask, f.name, other))


def quantised(g: Builder, f: Feature) -> Feature:
    kind = g.one_of(np.uint8, np.int8)
    scale, zero = np.float32(0.05), kind(128 if kind is np.uint8 else 3)
    g.recipe.append("quantised")
    q = g("QuantizeLinear", f.name, scale, np.array(zero))
    return f.like(g("DequantizeLinear", q, scale, np.array(zero)))
