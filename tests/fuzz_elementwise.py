"""Grown activations, gates and sums: what acts on each element, and operands that meet elementwise."""

import math

import numpy as np

from tests.fuzz_builder import Builder, Feature
from tests.fuzz_contractions import mixing, pointwise

PLAIN = ("Relu", "Relu", "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Softplus", "Softsign", "Sigmoid", "Tanh",
         "HardSigmoid", "ThresholdedRelu", "Erf", "Sin", "Cos", "Atan", "Asinh", "Shrink", "Abs", "Neg",
         "Identity")  # fmt: skip
SINCE = {"HardSwish": 14, "Mish": 18, "Gelu": 20, "Swish": 24}
WITHIN = {"Exp": (-3, 2), "Acos": (-0.9, 0.9), "Asin": (-0.9, 0.9), "Atanh": (-0.9, 0.9), "Tan": (-1, 1),
          "Sinh": (-2, 2), "Cosh": (-2, 2)}  # fmt: skip
BEHIND = {"Sqrt": ("Relu", 0.1), "Log": ("Softplus", 0.5), "Acosh": ("Softplus", 1.1)}
STEPS = ("Ceil", "Floor", "Round")
WITH_CONSTANTS: dict[str, tuple[float, ...]] = {"Clip": (-0.5, 1), "Pow": (2,), "Mod": (0.7,)}


def activation(g: Builder, f: Feature) -> Feature:
    """Any function of one element; where it is finite on a part of the line only, behind one that leads there."""
    new = [op for op, opset in SINCE.items() if g.opset >= opset]
    op = g.one_of(
        *PLAIN, *new, *WITHIN, *BEHIND, *STEPS, *WITH_CONSTANTS, "PRelu", "Relu6", "Reciprocal", "Sign"
    )
    g.recipe.append(op)
    x = f.name
    if op in WITHIN:
        return f.like(g(op, g("Clip", x, *map(np.float32, WITHIN[op]))))
    if op in BEHIND:
        before, added = BEHIND[op]
        return f.like(g(op, g("Add", g(before, x), np.float32(added))))
    if op in STEPS:
        return f.like(g("Mul", g(op, g("Mul", x, np.float32(4))), np.float32(0.25)))
    if op in WITH_CONSTANTS:
        attrs = {"fmod": 1} if op == "Mod" else {}
        return f.like(g(op, x, *map(np.float32, WITH_CONSTANTS[op]), **attrs))
    if op == "PRelu":
        return f.like(g(op, x, g.small(*f.per_channel()[1:])))
    if op == "Relu6":
        return f.like(g("Clip", x, np.float32(0), np.float32(6)))
    if op == "Reciprocal":
        return f.like(g("Mul", x, g(op, g("Add", g("Softplus", x), np.float32(1)))))
    if op == "Sign":
        return f.like(g("Mul", x, g(op, x)))
    return f.like(g(op, x))


def affine(g: Builder, f: Feature) -> Feature:
    """Scale and shift, one number for each channel or one for all."""
    shape = f.per_channel() if g.yes() else ()
    scaled = g("Mul", f.name, g.around_one(*shape))
    return f.like(g(g.one_of("Add", "Sub"), scaled, g.small(*shape)))


def gate(g: Builder, f: Feature) -> Feature:
    """``x · sigmoid(x)`` and its like; of another branch, too."""
    other = mixing(g, f) if g.yes() else f
    kind = g.one_of("Sigmoid", "HardSigmoid", "Tanh", "Erf", "Softsign", "Softmax", "Hardmax")
    g.recipe.append(kind)
    attrs = {"axis": f.channel} if kind.endswith("max") else {}
    opened = g(kind, other.name, **attrs)
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
    """To integers and back; the scale is a constant, or that of what comes."""
    g.recipe.append("quantised")
    if g.yes():
        return f.like(g("DequantizeLinear", *g("DynamicQuantizeLinear", f.name, outputs=3)))
    scale, zero = np.float32(0.05), np.array(g.one_of(np.uint8(128), np.int8(3)))
    return f.like(g("DequantizeLinear", g("QuantizeLinear", f.name, scale, zero), scale, zero))
