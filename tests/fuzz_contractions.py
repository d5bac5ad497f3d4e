"""Grown linear maps: convolutions, matrix products, pooling."""

import math
from typing import Any

import numpy as np

from tests.fuzz_builder import Builder, Feature


def pointwise(g: Builder, f: Feature, out: int) -> Feature:
    """A linear map along the channels: a 1×1 convolution, a MatMul or an Einsum."""
    c, rank, shape = f.channels, len(f.shape), f.at(f.channel, out)
    if f.channel == 1 and rank > 2:
        bias = (g.small(out),) if g.yes() else ()
        return f.like(g("Conv", f.name, g.weights(out, c, *[1] * (rank - 2), fan_in=c), *bias), shape)
    w = g.weights(c, out, fan_in=c)
    if g.yes():
        letters = "nabcde"[: rank - 1]
        name = g("Einsum", f.name, w, equation=f"{letters}i,io->{letters}o")
    else:
        name = g("MatMul", f.name, w)
    return f.like(g("Add", name, g.small(out)) if g.yes() else name, shape)


def widened(g: Builder, f: Feature) -> Feature:
    return pointwise(g, f, g.integer(1, 6))


def mixing(g: Builder, f: Feature) -> Feature:
    """A linear map that keeps the shape and, where it can, mixes positions."""
    g.recipe.append("mixing")
    c, rank = f.channels, len(f.shape)
    if f.channel == 1 and g.yes():
        kernel = [g.one_of(1, 3) for _ in range(rank - 2)]
        group = g.one_of(1, c)
        w = g.weights(c, c // group, *kernel, fan_in=math.prod(kernel) * c // group)
        bias = (g.small(c),) if g.yes() else ()
        pads = [k // 2 for k in kernel] * 2
        return f.like(g("Conv", f.name, w, *bias, pads=pads, group=group))
    if f.layout == "NTC" and g.yes():
        t = f.shape[1]
        return f.like(g("MatMul", g.weights(t, t, fan_in=t), f.name))
    return pointwise(g, f, c)


def linear_of_integers(g: Builder, f: Feature) -> Feature:
    """Weights that are stored as int8."""
    if f.channel != len(f.shape) - 1:
        return mixing(g, f)
    g.recipe.append("quantised")
    stored = g.rng.integers(-127, 127, (f.channels, f.channels)).astype(np.int8)
    w = g("DequantizeLinear", stored, np.float32(0.01), np.array(np.int8(0)))
    return f.like(g("MatMul", f.name, w))


def convolution(g: Builder, f: Feature) -> Feature:
    sizes = [f.shape[axis] for axis in f.positions]
    out = g.integer(1, 6)
    group = g.one_of(1, 1, 1, *[n for n in (2, 3, f.channels) if f.channels % n == 0])
    out = -(-out // group) * group
    kernel = [g.one_of(*(k for k in (1, 2, 3, 5) if k <= n + 1)) for n in sizes]
    strides = [g.one_of(1, 1, 2, 3) for _ in sizes]
    into = f.channels // group
    w = g.weights(out, into, *kernel, fan_in=into * math.prod(kernel))
    bias = (g.small(out),) if g.yes() else ()
    attrs: dict[str, Any] = {"strides": strides, "group": group}
    mode = g.one_of("pads", "pads", "SAME_UPPER", "SAME_LOWER")
    if mode == "pads":
        dilations = [
            g.one_of(1, 1, 2) if (k - 1) * 2 + 1 <= n else 1 for k, n in zip(kernel, sizes, strict=True)
        ]
        reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
        begins = [g.integer(0, r) for r in reach]
        ends = [
            g.integer(max(0, r + 1 - n - b), max(r, r + 1 - n - b))
            for r, n, b in zip(reach, sizes, begins, strict=True)
        ]
        attrs |= {"pads": [*begins, *ends], "dilations": dilations}
        after = [
            (n + b + e - r - 1) // s + 1
            for n, b, e, r, s in zip(sizes, begins, ends, reach, strides, strict=True)
        ]
    else:
        strides = [min(s, k) for s, k in zip(strides, kernel, strict=True)]
        attrs |= {"auto_pad": mode, "strides": strides}
        after = [-(-n // s) for n, s in zip(sizes, strides, strict=True)]
    return f.like(g("Conv", f.name, w, *bias, **attrs), (f.shape[0], out, *after))


def transposed_convolution(g: Builder, f: Feature) -> Feature:
    out, sizes = g.integer(1, 4), [f.shape[axis] for axis in f.positions]
    kernel = [g.integer(2, 3) for _ in sizes]
    w = g.weights(f.channels, out, *kernel, fan_in=f.channels * 2)
    after = [(n - 1) * 2 + k for n, k in zip(sizes, kernel, strict=True)]
    name = g("ConvTranspose", f.name, w, g.small(out), strides=[2] * len(sizes))
    return f.like(name, (f.shape[0], out, *after))


def pool(g: Builder, f: Feature) -> Feature:
    op = g.one_of("MaxPool", "AveragePool", "MaxPool", "AveragePool", "LpPool")
    g.recipe.append(op)
    sizes = [f.shape[axis] for axis in f.positions]
    kernel = [g.integer(1, min(3, n)) for n in sizes]
    strides = [g.integer(1, 2) for _ in sizes]
    pads = [g.integer(0, k // 2) for k in kernel * 2]
    attrs: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": pads}
    if op == "LpPool":
        attrs["p"] = g.integer(1, 3)
    elif op == "AveragePool":
        attrs["count_include_pad"] = g.integer(0, 1)
    begins, ends = pads[: len(sizes)], pads[len(sizes) :]
    reach = [n + b + e - k for n, b, e, k in zip(sizes, begins, ends, kernel, strict=True)]
    after = [r // s + 1 for r, s in zip(reach, strides, strict=True)]
    if op != "LpPool" and g.yes():
        rounded = [-(-r // s) + 1 for r, s in zip(reach, strides, strict=True)]
        # A window that begins behind the data is a place where ONNX's versions differ.
        if all((r - 1) * s < n + b for r, s, n, b in zip(rounded, strides, sizes, begins, strict=True)):
            attrs["ceil_mode"], after = 1, rounded
    return f.like(g(op, f.name, **attrs), (*f.shape[:2], *after))
