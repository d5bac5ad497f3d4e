"""Hypothesis grows random valid networks out of operators that have a rule, block by block, as architectures do."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
Draw = Any
OPSETS = (13, 17, 18, 20, 21, 22)
LARGEST = 1536  # elements of a feature per input, so that a graph runs in milliseconds


@dataclass(frozen=True)
class Feature:
    """A tensor of the graph: one letter and one size per axis."""

    name: str
    layout: str
    shape: tuple[int, ...]

    @property
    def channel(self) -> int:
        return self.layout.index("C")

    @property
    def channels(self) -> int:
        return self.shape[self.channel]

    @property
    def positions(self) -> tuple[int, ...]:
        return tuple(i for i, letter in enumerate(self.layout) if letter not in "NC")

    def at(self, axis: int, size: int) -> tuple[int, ...]:
        return (*self.shape[:axis], size, *self.shape[axis + 1 :])


@dataclass(frozen=True, eq=False)
class Grown:
    """A model, data for it, and how it is to be explained."""

    model: onnx.ModelProto
    feeds: dict[str, Array]
    layouts: dict[str, str]
    target: int | str
    options: dict[str, str]
    place: int  # of the boundary among the tensors that relevance crosses; -1 for the encoder
    recipe: tuple[str, ...]
    open_batch: bool  # declared as "N"
    quantised: bool  # integer kernels may round otherwise than what they stand for

    def __repr__(self) -> str:
        shapes = {name: f"{self.layouts[name]} {array.shape}" for name, array in self.feeds.items()}
        return f"Grown({shapes} {' '.join(self.recipe)}; {self.target} {self.options} {self.place})"


@dataclass
class Builder:
    """Nodes and constants, made by calls: ``y = g("Mul", x, 0.5)``; the numbers come from `rng`."""

    draw: Draw
    opset: int
    open_batch: bool
    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    recipe: list[str] = field(default_factory=list)

    def __call__(self, op: str, *inputs: Any, outputs: int = 1, **attrs: Any) -> Any:
        names = [v if isinstance(v, str) else self.constant(v) for v in inputs]
        stem = f"t{len(self.nodes)}"
        made = [stem] if outputs == 1 else [f"{stem}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, names, made, name=f"{op}_{stem}", **attrs))
        return made[0] if outputs == 1 else made

    def constant(self, data: Any) -> str:
        name, array = f"c{len(self.constants)}", np.asarray(data)
        self.constants[name] = array.astype(np.float32) if array.dtype.kind == "f" else array
        return name

    def ints(self, *numbers: int) -> Array:
        return np.array(numbers, np.int64)

    def weights(self, *shape: int, fan_in: int) -> Array:
        return np.asarray(self.rng.standard_normal(shape) * math.sqrt(1.6 / max(1, fan_in)))

    def small(self, *shape: int) -> Array:
        return np.asarray(self.rng.standard_normal(shape) * 0.3)

    def around_one(self, *shape: int) -> Array:
        return np.asarray(self.rng.uniform(0.5, 1.5, shape))

    def integer(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def yes(self) -> bool:
        return bool(self.draw(st.booleans()))

    def one_of(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def reduced(self, op: str, x: str, axes: Sequence[int], *, keep: bool) -> str:
        since = 13 if op == "ReduceSum" else 18
        if self.opset < since:
            return str(self(op, x, axes=list(axes), keepdims=int(keep)))
        return str(self(op, x, self.ints(*axes), keepdims=int(keep)))

    def split(self, x: str, axis: int, sizes: Sequence[int]) -> list[str]:
        if len(sizes) == 1:
            return [x]
        return list(self("Split", x, self.ints(*sizes), axis=axis, outputs=len(sizes)))

    def reshape(self, f: Feature, layout: str, shape: Sequence[int], name: str = "") -> Feature:
        """With 0 for the batch half of the time, so that it may be of any size."""
        wanted = [0, *shape[1:]] if self.open_batch or self.yes() else list(shape)
        if -1 not in wanted and self.yes():
            wanted[-1] = -1
        return Feature(self("Reshape", name or f.name, self.ints(*wanted)), layout, tuple(shape))

    def transpose(self, f: Feature, layout: str) -> Feature:
        order = [f.layout.index(letter) for letter in layout]
        return Feature(self("Transpose", f.name, perm=order), layout, tuple(f.shape[axis] for axis in order))


Block = Callable[[Builder, Feature], Feature]


# Blocks that keep the shape


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
    return Feature(name, f.layout, f.shape)


def affine(g: Builder, f: Feature) -> Feature:
    """Scale and shift, one number for each channel or one for all."""
    shape = [f.channels if i == f.channel else 1 for i in range(len(f.shape))] if g.yes() else []
    scaled = g("Mul", f.name, g.around_one(*shape))
    return Feature(g(g.one_of("Add", "Sub"), scaled, g.small(*shape)), f.layout, f.shape)


def gate(g: Builder, f: Feature) -> Feature:
    """``x · sigmoid(x)`` and its like; of another branch, too."""
    other = mixing(g, f) if g.yes() else f
    kind = g.one_of("Sigmoid", "HardSigmoid", "Tanh", "Erf", "Softmax", "Softsign")
    g.recipe.append(kind)
    opened = g(kind, other.name, axis=f.channel) if kind == "Softmax" else g(kind, other.name)
    pair = (f.name, opened) if g.yes() else (opened, f.name)
    return Feature(g("Mul", *pair), f.layout, f.shape)


def gelu_written_out(g: Builder, f: Feature) -> Feature:
    half = g("Mul", f.name, np.float32(0.5))
    risen = g("Add", g("Erf", g("Div", f.name, np.float32(math.sqrt(2)))), np.float32(1))
    return Feature(g("Mul", half, risen), f.layout, f.shape)


def squeeze_and_excite(g: Builder, f: Feature) -> Feature:
    inner = max(1, f.channels // 2)
    pooled = Feature(
        g.reduced("ReduceMean", f.name, f.positions, keep=True),
        f.layout,
        tuple(1 if i in f.positions else n for i, n in enumerate(f.shape)),
    )
    squeezed = pointwise(g, pooled, inner)
    excited = pointwise(g, Feature(g("Relu", squeezed.name), f.layout, squeezed.shape), f.channels)
    return Feature(g("Mul", f.name, g(g.one_of("Sigmoid", "HardSigmoid"), excited.name)), f.layout, f.shape)


def batch_norm(g: Builder, f: Feature) -> Feature:
    c = f.channels
    if f.channel != 1:
        return affine(g, f)
    parts = (g.around_one(c), g.small(c), g.small(c), g.around_one(c))
    return Feature(g("BatchNormalization", f.name, *parts), f.layout, f.shape)


def normalised(g: Builder, f: Feature) -> Feature:
    """Statistics over channels, over positions or over groups; as one operator or written out."""
    c, x, last = f.channels, f.name, len(f.shape) - 1
    if f.channel == last:
        kinds = ["layer written out", "rms written out", "unit"]
        kinds += ["layer"] * (2 if g.opset >= 17 else 0)
    else:
        kinds = ["instance", "layer written out", "rms written out", "unit"]
        kinds += ["lrn"] if len(f.shape) == 4 else []
        kinds += ["group"] if g.opset >= 21 else []
    kind = g.one_of(*kinds)
    g.recipe.append(kind)
    shape = [c if i == f.channel else 1 for i in range(len(f.shape))]
    if kind == "layer":
        name = g("LayerNormalization", x, g.around_one(c), g.small(c), axis=-1)
    elif kind == "instance":
        name = g("InstanceNormalization", x, g.around_one(c), g.small(c), epsilon=0.01)
    elif kind == "group":
        groups = g.one_of(*[n for n in range(1, c + 1) if c % n == 0])
        name = g("GroupNormalization", x, g.around_one(c), g.small(c), num_groups=groups, epsilon=0.01)
    elif kind == "lrn":
        name = g("LRN", x, size=3, alpha=0.1, beta=0.75, bias=1.0)
    elif kind == "unit":
        name = g("LpNormalization", g("Add", x, g.small(*shape)), axis=f.channel, p=2)
    else:
        if kind.startswith("layer"):
            x = g("Sub", x, g.reduced("ReduceMean", x, [f.channel], keep=True))
        squared = g("Mul", x, x) if g.yes() else g("Pow", x, np.float32(2))
        spread = g(
            "Sqrt", g("Add", g.reduced("ReduceMean", squared, [f.channel], keep=True), np.float32(0.01))
        )
        name = g("Mul", g("Div", x, spread), g.around_one(*shape))
    return Feature(name, f.layout, f.shape)


def pointwise(g: Builder, f: Feature, out: int) -> Feature:
    """A linear map along the channels: a 1×1 convolution, a MatMul or an Einsum."""
    c, rank, shape = f.channels, len(f.shape), f.at(f.channel, out)
    if f.channel == 1 and rank > 2:
        bias = (g.small(out),) if g.yes() else ()
        return Feature(
            g("Conv", f.name, g.weights(out, c, *[1] * (rank - 2), fan_in=c), *bias), f.layout, shape
        )
    w = g.weights(c, out, fan_in=c)
    if g.yes():
        letters = "nabcde"[: rank - 1]
        name = g("Einsum", f.name, w, equation=f"{letters}i,io->{letters}o")
    else:
        name = g("MatMul", f.name, w)
    return Feature(g("Add", name, g.small(out)) if g.yes() else name, f.layout, shape)


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
        return Feature(g("Conv", f.name, w, *bias, pads=pads, group=group), f.layout, f.shape)
    if f.layout == "NTC" and g.yes():
        t = f.shape[1]
        return Feature(g("MatMul", g.weights(t, t, fan_in=t), f.name), f.layout, f.shape)
    return pointwise(g, f, c)


def rolled(g: Builder, f: Feature) -> Feature:
    """Swin's cyclic shift, or everything backwards."""
    axis = g.one_of(*f.positions)
    if g.yes():
        step = (g.ints(-1), g.ints(-(2**31)), g.ints(axis), g.ints(-1))
        return Feature(g("Slice", f.name, *step), f.layout, f.shape)
    low = g("Slice", f.name, g.ints(0), g.ints(1), g.ints(axis))
    high = g("Slice", f.name, g.ints(1), g.ints(2**31), g.ints(axis))
    return Feature(g("Concat", high, low, axis=axis - g.one_of(0, len(f.shape))), f.layout, f.shape)


def cumulative(g: Builder, f: Feature) -> Feature:
    axis = g.one_of(*f.positions)
    return Feature(g("CumSum", f.name, np.int64(axis), reverse=g.integer(0, 1)), f.layout, f.shape)


def channel_shuffle(g: Builder, f: Feature) -> Feature:
    groups = g.one_of(*[n for n in range(1, f.channels + 1) if f.channels % n == 0])
    parts = (groups, f.channels // groups)
    at, rank = f.channel, len(f.shape)
    split = g.reshape(f, "", (*f.shape[:at], *parts, *f.shape[at + 1 :]))
    order = list(range(rank + 1))
    order[at], order[at + 1] = at + 1, at
    return g.reshape(f, f.layout, f.shape, g("Transpose", split.name, perm=order))


def attention(g: Builder, f: Feature) -> Feature:
    """Heads split off by Reshape and Transpose; with a mask that knows the order, or without."""
    n, t, c = f.shape
    heads = g.one_of(*[h for h in (1, 2, 3) if c % h == 0])
    inner = c // heads
    g.recipe.append(f"heads {heads}")
    if g.yes():
        joint = g.reshape(pointwise(g, f, 3 * c), "", (n, t, 3, heads, inner)).name
        moved = g("Transpose", joint, perm=[2, 0, 3, 1, 4])
        if g.yes():
            parts = [g("Gather", moved, np.int64(i), axis=0) for i in range(3)]
        else:
            whole = g.split(moved, 0, [1, 1, 1])
            parts = [g("Squeeze", part, g.ints(0)) for part in whole]
    else:
        parts = []
        for _ in range(3):
            projected = g.reshape(pointwise(g, f, c), "", (n, t, heads, inner)).name
            parts.append(g("Transpose", projected, perm=[0, 2, 1, 3]))
    q, k, v = parts
    logits = g("MatMul", q, g("Transpose", k, perm=[0, 1, 3, 2]))
    logits = g("Mul", logits, np.float32(inner**-0.5))
    if g.yes():
        mask = np.triu(np.full((t, t), -1e4), 1) if g.yes() else g.small(heads, t, t)
        logits = g("Add", logits, mask)
    mixed = g("MatMul", g("Softmax", logits, axis=-1), v)
    merged = g.reshape(f, "NTC", (n, t, c), g("Transpose", mixed, perm=[0, 2, 1, 3]))
    return pointwise(g, merged, c)


def fused_attention(g: Builder, f: Feature) -> Feature:
    """One head, its keys from a mean over channels: products of computed tensors in Einsum."""
    k = pointwise(g, f, f.channels)
    scores = g("Softmax", g("Einsum", f.name, k.name, equation="nic,njc->nij"), axis=-1)
    return Feature(g("Einsum", scores, f.name, equation="nij,njc->nic"), f.layout, f.shape)


def residual(g: Builder, f: Feature) -> Feature:
    inside = f
    for _ in range(g.integer(1, 3)):
        inside = keeping(g, inside)
    op = g.one_of("Add", "Add", "Add", "Sub", "Max", "Min", "Sum", "Mean", "Mul", "Where")
    g.recipe.append(f"residual {op}")
    pair: tuple[str, ...] = (f.name, inside.name) if g.yes() else (inside.name, f.name)
    if op == "Where":
        return Feature(g("Where", g("Greater", *pair), *pair), f.layout, f.shape)
    if op in ("Sum", "Max", "Mean") and g.yes():
        pair = (*pair, mixing(g, f).name)
    return Feature(g(op, *pair), f.layout, f.shape)


def context(g: Builder, f: Feature) -> Feature:
    """A mean over positions, or over some of them, comes to every position."""
    axes = f.positions if g.yes() else [g.one_of(*f.positions)]
    mean = g.reduced(g.one_of("ReduceMean", "ReduceMax", "ReduceSum"), f.name, axes, keep=True)
    op = g.one_of("Add", "Sub", "Mul")
    return Feature(g(op, *((f.name, mean) if g.yes() else (mean, f.name))), f.layout, f.shape)


def quotient(g: Builder, f: Feature) -> Feature:
    below = g("Add", g("Softplus", mixing(g, f).name), np.float32(1))
    return Feature(g("Div", f.name, below), f.layout, f.shape)


def softmaxed(g: Builder, f: Feature) -> Feature:
    """As a feature, not as a gate."""
    op = g.one_of("Softmax", "LogSoftmax")
    return Feature(g(op, f.name, axis=g.one_of(f.channel, *f.positions)), f.layout, f.shape)


def masked(g: Builder, f: Feature) -> Feature:
    mask = g.rng.random(f.shape[1:]) < 0.7
    other = g.one_of(np.float32(0), np.float32(0.3), "computed")
    return Feature(
        g("Where", mask, f.name, mixing(g, f).name if isinstance(other, str) else other), f.layout, f.shape
    )


def quantised(g: Builder, f: Feature) -> Feature:
    kind = g.one_of(np.uint8, np.int8)
    scale, zero = np.float32(0.05), kind(128 if kind is np.uint8 else 3)
    g.recipe.append("quantised")
    q = g("QuantizeLinear", f.name, scale, np.array(zero))
    return Feature(g("DequantizeLinear", q, scale, np.array(zero)), f.layout, f.shape)


def linear_of_integers(g: Builder, f: Feature) -> Feature:
    """Weights that are stored as int8."""
    if f.channel != len(f.shape) - 1:
        return mixing(g, f)
    g.recipe.append("quantised")
    stored = g.rng.integers(-127, 127, (f.channels, f.channels)).astype(np.int8)
    w = g("DequantizeLinear", stored, np.float32(0.01), np.array(np.int8(0)))
    return Feature(g("MatMul", f.name, w), f.layout, f.shape)


def scattered(g: Builder, f: Feature) -> Feature:
    """Some places are written over, by constants or by what was computed from others."""
    axis = g.one_of(*f.positions)
    place = g.integer(0, f.shape[axis] - 1)
    index = np.full(f.at(axis, 1)[1:], place, np.int64)[None].repeat(f.shape[0], 0)
    if g.open_batch:
        return mixing(g, f)
    new = (
        g("Slice", mixing(g, f).name, g.ints(0), g.ints(1), g.ints(axis))
        if g.yes()
        else g.small(*index.shape)
    )
    return Feature(g("ScatterElements", f.name, index, new, axis=axis), f.layout, f.shape)


def there_and_back(g: Builder, f: Feature) -> Feature:
    """What moves nothing: Unsqueeze and Squeeze, Transpose twice, Dropout, Identity."""
    x, rank = f.name, len(f.shape)
    kind = g.integer(0, 3)
    if kind == 0:
        at = g.integer(1, rank)
        name = g("Squeeze", g("Relu", g("Unsqueeze", x, g.ints(at))), g.ints(at))
    elif kind == 1:
        order = [0, *range(rank - 1, 0, -1)]
        name = g("Transpose", g("Tanh", g("Transpose", x, perm=order)), perm=order)
    else:
        name = g("Dropout", x) if kind == 2 else g("Identity", x)
    return Feature(name, f.layout, f.shape)


KEEPING: dict[str, Block] = {
    "context": context,
    "quotient": quotient,
    "softmax": softmaxed,
    "masked": masked,
    "qdq": quantised,
    "int8": linear_of_integers,
    "scatter": scattered,
    "there and back": there_and_back,
    "activation": activation,
    "affine": affine,
    "gate": gate,
    "gelu": gelu_written_out,
    "se": squeeze_and_excite,
    "bn": batch_norm,
    "norm": normalised,
    "mixing": mixing,
    "rolled": rolled,
    "cumulative": cumulative,
    "shuffle": channel_shuffle,
}
KEEPING_TOKENS: dict[str, Block] = {"attention": attention, "einsum attention": fused_attention}


def keeping(g: Builder, f: Feature) -> Feature:
    blocks = KEEPING | (KEEPING_TOKENS if f.layout == "NTC" else {})
    kind = g.one_of("activation", "mixing", "mixing", *blocks)
    if kind not in ("activation", "mixing"):
        g.recipe.append(kind)
    return blocks[kind](g, f)


# Blocks that change the shape


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
    return Feature(g("Conv", f.name, w, *bias, **attrs), f.layout, (f.shape[0], out, *after))


def transposed_convolution(g: Builder, f: Feature) -> Feature:
    out, sizes = g.integer(1, 4), [f.shape[axis] for axis in f.positions]
    kernel = [g.integer(2, 3) for _ in sizes]
    w = g.weights(f.channels, out, *kernel, fan_in=f.channels * 2)
    after = [(n - 1) * 2 + k for n, k in zip(sizes, kernel, strict=True)]
    name = g("ConvTranspose", f.name, w, g.small(out), strides=[2] * len(sizes))
    return Feature(name, f.layout, (f.shape[0], out, *after))


def pool(g: Builder, f: Feature) -> Feature:
    op = g.one_of("MaxPool", "AveragePool", "MaxPool", "AveragePool", "LpPool")
    g.recipe.append(op)
    sizes = [f.shape[axis] for axis in f.positions]
    kernel = [g.integer(1, min(3, n)) for n in sizes]
    strides = [g.integer(1, 2) for _ in sizes]
    pads = [g.integer(0, k // 2) for k in kernel * 2]
    half = len(sizes)
    attrs: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": pads}
    if op == "LpPool":
        attrs["p"] = g.integer(1, 3)
    elif op == "AveragePool":
        attrs["count_include_pad"] = g.integer(0, 1)
    after = []
    for n, k, s, b, e in zip(sizes, kernel, strides, pads[:half], pads[half:], strict=True):
        after.append((n + b + e - k) // s + 1)
    if op != "LpPool" and g.yes():
        rounded = [
            -(-(n + b + e - k) // s) + 1
            for n, k, s, b, e in zip(sizes, kernel, strides, pads[:half], pads[half:], strict=True)
        ]
        # A window that begins behind the data is a place where ONNX's versions differ.
        if all((r - 1) * s < n + b for r, s, n, b in zip(rounded, strides, sizes, pads[:half], strict=True)):
            attrs["ceil_mode"], after = 1, rounded
    return Feature(g(op, f.name, **attrs), f.layout, (*f.shape[:2], *after))


def branches(g: Builder, f: Feature) -> Feature:
    """Inception: several convolutions side by side, put together along an axis."""
    axis = g.one_of(f.channel, f.channel, *f.positions)
    parts = [keeping(g, f) if g.yes() else f for _ in range(g.integer(1, 2))]
    parts.append(mixing(g, f))
    if g.yes() and not g.open_batch:
        parts.append(Feature(g.constant(g.small(*f.at(axis, 1))), f.layout, f.at(axis, 1)))
    g.recipe.append(f"concat {f.layout[axis]}")
    total = sum(part.shape[axis] for part in parts)
    return Feature(g("Concat", *(p.name for p in parts), axis=axis), f.layout, f.at(axis, total))


def split_apart(g: Builder, f: Feature) -> Feature:
    """Two parts of the channels: one is dropped, worked on, or gates the other."""
    first = g.integer(1, f.channels - 1) if f.channels > 1 else 1
    if f.channels == 1:
        return affine(g, f)
    low, high = g.split(f.name, f.channel, [first, f.channels - first])
    a = Feature(low, f.layout, f.at(f.channel, first))
    b = Feature(high, f.layout, f.at(f.channel, f.channels - first))
    kind = g.one_of("drop", "csp", "glu")
    g.recipe.append(kind)
    if kind == "drop":
        return a
    if kind == "glu" and a.shape == b.shape:
        return Feature(g("Mul", a.name, g("Sigmoid", b.name)), f.layout, a.shape)
    return Feature(g("Concat", keeping(g, a).name, b.name, axis=f.channel), f.layout, f.shape)


def sliced(g: Builder, f: Feature) -> Feature:
    axis = g.one_of(*f.positions)
    n = f.shape[axis]
    start, step = g.integer(0, n - 1), g.integer(1, 2)
    end = g.integer(start + 1, n)
    size = len(range(start, end, step))
    named = axis - g.one_of(0, len(f.shape))
    name = g("Slice", f.name, g.ints(start - g.one_of(0, n)), g.ints(end), g.ints(named), g.ints(step))
    return Feature(name, f.layout, f.at(axis, size))


def gathered(g: Builder, f: Feature) -> Feature:
    axis = g.one_of(*f.positions, f.channel)
    chosen = [g.integer(-f.shape[axis], f.shape[axis] - 1) for _ in range(g.integer(1, 4))]
    return Feature(g("Gather", f.name, g.ints(*chosen), axis=axis), f.layout, f.at(axis, len(chosen)))


def tiled(g: Builder, f: Feature) -> Feature:
    axis = g.one_of(*f.positions, f.channel)
    counts = [2 if i == axis else 1 for i in range(len(f.shape))]
    return Feature(g("Tile", f.name, g.ints(*counts)), f.layout, f.at(axis, 2 * f.shape[axis]))


def top_values(g: Builder, f: Feature) -> Feature:
    axis = g.one_of(*f.positions, f.channel)
    k = g.integer(1, f.shape[axis])
    values, _ = g("TopK", f.name, g.ints(k), axis=axis, outputs=2)
    return Feature(values, f.layout, f.at(axis, k))


def padded(g: Builder, f: Feature) -> Feature:
    mode = g.one_of("constant", "reflect", "edge", *(["wrap"] if g.opset >= 19 else []))
    g.recipe.append(mode)
    pads, shape = [0] * (2 * len(f.shape)), list(f.shape)
    for axis in f.positions:
        most = min(2, f.shape[axis] - 1)
        before, after = g.integer(0, most), g.integer(0, most)
        pads[axis], pads[axis + len(f.shape)] = before, after
        shape[axis] += before + after
    value = (np.float32(0.5),) if mode == "constant" and g.yes() else ()
    return Feature(g("Pad", f.name, g.ints(*pads), *value, mode=mode), f.layout, tuple(shape))


def resized(g: Builder, f: Feature) -> Feature:
    mode = g.one_of("nearest", "linear", "cubic") if f.layout == "NCHW" else g.one_of("nearest", "linear")
    way = g.one_of("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    g.recipe.append(f"{mode} {way}")
    attrs: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": way}
    if mode == "nearest":
        attrs["nearest_mode"] = g.one_of("floor", "round_prefer_floor", "ceil")
    scales, shape = [1.0] * len(f.shape), list(f.shape)
    for axis in f.positions:
        scale = g.one_of(2.0, 1.5, 1.0) if f.shape[axis] < 4 else g.one_of(2.0, 1.5, 0.5, 1.0)
        scales[axis], shape[axis] = scale, math.floor(f.shape[axis] * scale)
    name = (
        g("Resize", f.name, "", np.array(scales, np.float32), **attrs)
        if g.open_batch or g.yes()
        else g("Resize", f.name, "", "", g.ints(*shape), **attrs)
    )
    return Feature(name, f.layout, tuple(shape))


def depth_and_space(g: Builder, f: Feature) -> Feature:
    """Pixel shuffle, its inverse, and YOLOv5's focus, which is the inverse written out."""
    n, c, h, w = f.shape
    if c % 4 == 0 and g.yes():
        shape = (n, c // 4, 2 * h, 2 * w)
        if g.yes():
            return Feature(
                g("DepthToSpace", f.name, blocksize=2, mode=g.one_of("DCR", "CRD")), f.layout, shape
            )
        split = g.reshape(f, "", (n, c // 4, 2, 2, h, w))
        return g.reshape(f, f.layout, shape, g("Transpose", split.name, perm=[0, 1, 4, 2, 5, 3]))
    if h % 2 or w % 2:
        return mixing(g, f)
    shape = (n, 4 * c, h // 2, w // 2)
    if g.yes():
        return Feature(g("SpaceToDepth", f.name, blocksize=2), f.layout, shape)
    parts = [
        g("Slice", f.name, g.ints(i, j), g.ints(h, w), g.ints(2, 3), g.ints(2, 2))
        for i in (0, 1)
        for j in (0, 1)
    ]
    return Feature(g("Concat", *parts, axis=1), f.layout, shape)


def windows(g: Builder, f: Feature) -> Feature:
    """Swin: attention within windows of 2×2 tokens, the windows put into the batch and taken out again."""
    n, h, w, c = f.shape
    if h % 2 or w % 2:
        return affine(g, f)
    cut = g("Reshape", f.name, g.ints(-1, h // 2, 2, w // 2, 2, c))
    count = n * (h // 2) * (w // 2)
    cells = g("Reshape", g("Transpose", cut, perm=[0, 1, 3, 2, 4, 5]), g.ints(-1, 4, c))
    inside = attention(g, Feature(cells, "NTC", (count, 4, c)))
    back = g("Reshape", inside.name, g.ints(-1, h // 2, w // 2, 2, 2, c))
    return g.reshape(f, f.layout, f.shape, g("Transpose", back, perm=[0, 1, 3, 2, 4, 5]))


def reduced(g: Builder, f: Feature) -> Feature:
    """One axis of positions less; the rest is a sequence."""
    axis = g.one_of(*f.positions)
    op = g.one_of("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2", "ReduceMin", "ReduceLogSumExp")
    g.recipe.append(op)
    kept = "".join(letter for i, letter in enumerate(f.layout) if i != axis)
    shape = tuple(n for i, n in enumerate(f.shape) if i != axis)
    return Feature(g.reduced(op, f.name, [axis], keep=False), kept.replace("H", "T").replace("W", "T"), shape)


def class_token(g: Builder, f: Feature) -> Feature:
    n, t, c = f.shape
    if g.open_batch:
        shape = g("Concat", g("Gather", g("Shape", f.name), g.ints(0)), g.ints(1, c), axis=0)
        token = g("Expand", g.small(1, 1, c), shape)
    else:
        token = g.constant(g.small(n, 1, c)) if g.yes() else g("Expand", g.small(1, 1, c), g.ints(n, 1, c))
    longer = g("Concat", token, f.name, axis=1)
    return Feature(g("Add", longer, g.small(1, t + 1, c)), f.layout, (n, t + 1, c))


def to_tokens(g: Builder, f: Feature) -> Feature:
    n, c, h, w = f.shape
    return g.transpose(g.reshape(f, "NCT", (n, c, h * w)), "NTC")


def to_picture(g: Builder, f: Feature) -> Feature:
    n, t, c = f.shape
    h = g.one_of(*[k for k in range(1, t + 1) if t % k == 0])
    return g.transpose(g.reshape(f, "NHWC", (n, h, t // h, c)), "NCHW")


def widened(g: Builder, f: Feature) -> Feature:
    return pointwise(g, f, g.integer(1, 6))


def transposed(layout: str) -> Block:
    return lambda g, f: g.transpose(f, layout)


ANYWHERE: dict[str, Block] = {
    "residual": residual,
    "branches": branches,
    "split": split_apart,
    "slice": sliced,
    "gather": gathered,
    "pad": padded,
    "tile": tiled,
    "top": top_values,
    "widened": widened,
}
CHANNELS_FIRST: dict[str, Block] = {
    "conv": convolution,
    "deconv": transposed_convolution,
    "pool": pool,
    "resize": resized,
}
CHANGING: dict[str, dict[str, Block]] = {
    "NCHW": {
        **CHANNELS_FIRST,
        "conv ": convolution,
        "depth and space": depth_and_space,
        "tokens": to_tokens,
        "to NHWC": transposed("NHWC"),
        "reduce": reduced,
    },
    "NHWC": {"windows": windows, "to NCHW": transposed("NCHW"), "reduce": reduced},
    "NCDHW": {**CHANNELS_FIRST},
    "NCT": {**CHANNELS_FIRST, "to NTC": transposed("NTC")},
    "NTC": {"class token": class_token, "picture": to_picture, "to NCT": transposed("NCT")},
}


def grow(g: Builder, f: Feature) -> Feature:
    changing = {**ANYWHERE, **CHANGING[f.layout]}
    if g.yes():
        return keeping(g, f)
    kind = g.one_of(*changing)
    g.recipe.append(kind)
    return changing[kind](g, f)


# Ends


def pooled(g: Builder, f: Feature) -> str:
    """[N, C]"""
    ways = ["ReduceMean", "ReduceMax"]
    if f.channel == 1:
        ways += ["GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool", "Flatten"]
    if f.layout == "NTC":
        ways += ["token", "token", "Flatten"]
    way = g.one_of(*ways)
    g.recipe.append(way)
    if way == "token":
        return str(g("Gather", f.name, np.int64(g.integer(0, f.shape[1] - 1)), axis=1))
    if way == "Flatten":
        return str(g("Flatten", f.name, axis=1))
    if way.startswith("Global"):
        return str(g("Flatten", g(way, f.name), axis=1))
    return g.reduced(way, f.name, f.positions, keep=False)


def classifier(g: Builder, f: Feature, classes: int) -> str:
    flat = pooled(g, f)
    size = math.prod(f.shape[1:]) if g.recipe[-1] == "Flatten" else f.channels
    if g.yes():
        hidden = g("Gemm", flat, g.weights(4, size, fan_in=size), g.small(4), transB=1)
        flat, size = g(g.one_of("Relu", "Tanh"), hidden), 4
    logits = g("Gemm", flat, g.weights(classes, size, fan_in=size), g.small(classes), transB=1)
    link = g.one_of("", "", "Softmax", "LogSoftmax", "Sigmoid")
    if not link:
        return str(logits)
    g.recipe.append(link)
    return str(g(link, logits) if link == "Sigmoid" else g(link, logits, axis=g.one_of(1, -1)))


@dataclass(frozen=True)
class Start:
    """How the input comes: as numbers, as bytes of a picture or as token ids."""

    layout: str
    shape: tuple[int, ...]
    kind: str = "float32"


@st.composite
def starts(draw: Draw) -> Start:
    layout = draw(st.sampled_from(["NCHW", "NCHW", "NCHW", "NHWC", "NTC", "NTC", "NCT", "NCDHW", "NT"]))
    long = st.integers(2, 4) if layout == "NCDHW" else st.integers(3, 9)
    sizes = {"N": st.integers(1, 2), "C": st.integers(1, 6), "T": st.integers(2, 9)}
    shape = tuple(draw(sizes.get(letter, long)) for letter in layout)
    if layout == "NT":
        return Start(layout, shape, draw(st.sampled_from(["int64", "int32"])))
    return Start(layout, shape, draw(st.sampled_from(["float32"] * 5 + ["uint8"])))


def entered(g: Builder, start: Start, name: str) -> Feature:
    """The first feature: real numbers with channels."""
    if start.layout == "NT":
        c = g.integer(1, 6)
        table = g.rng.standard_normal((11, c))
        x = g("Gather", table, name, axis=0)
        return Feature(g("Add", x, g.small(start.shape[1], c)), "NTC", (*start.shape, c))
    if start.kind == "uint8":
        real = g("Cast", name, to=TensorProto.FLOAT)
        return Feature(g("Mul", real, np.float32(1 / 64)), start.layout, start.shape)
    return Feature(name, start.layout, start.shape)


def data_for(start: Start, rng: np.random.Generator) -> Array:
    if start.kind == "float32":
        return rng.standard_normal(start.shape).astype(np.float32)
    return rng.integers(0, 11 if start.layout == "NT" else 256, start.shape).astype(start.kind)


@st.composite
def grown(draw: Draw, blocks: int = 6) -> Grown:
    """A network of up to so many blocks, and how to explain it."""
    start = draw(starts())
    seed = draw(st.integers(0, 2**16))
    g = Builder(draw, draw(st.sampled_from(OPSETS)), draw(st.booleans()), np.random.default_rng(seed))
    f = entered(g, start, "x")
    inputs = ["x"]
    if draw(st.integers(0, 7)) == 0:
        inputs.append("y")
        other = entered(g, start, "y")
        joined = (
            mixing(g, f).name,
            other.name if other.shape == f.shape else pointwise(g, other, f.channels).name,
        )
        g.recipe.append("two inputs")
        f = Feature(g(g.one_of("Add", "Mul", "Sub"), *joined), f.layout, f.shape)
    for _ in range(draw(st.integers(1, blocks))):
        before, made = f, len(g.nodes)
        f = grow(g, f)
        if math.prod(f.shape[1:]) > LARGEST:
            del g.nodes[made:]
            f = before
    target: int | str
    if draw(st.integers(0, 4)) == 0:
        output = f.name if g.nodes and f.name not in inputs else mixing(g, f).name
        final = f.shape
        at = ", ".join(str(g.integer(0, n - 1)) if g.yes() else ":" for n in final[1:])
        target = f"{output}[{at}]"
        g.recipe.append("map")
    else:
        classes = draw(st.integers(1, 4))
        output, final = classifier(g, f, classes), (start.shape[0], classes)
        target = g.integer(0, classes - 1)
    options = {
        "seed": draw(st.sampled_from(["logit", "logit", "logprob", "contrast"])),
        "sign": draw(st.sampled_from(["signed", "signed", "positive"])),
        "bias": draw(st.sampled_from(["distribute", "ledger"])),
    }
    rng = np.random.default_rng(seed + 1)
    return Grown(
        model=_model(g, start, inputs, (output, final)),
        feeds={name: data_for(start, rng) for name in inputs},
        layouts=dict.fromkeys(inputs, start.layout),
        target=target,
        options=options,
        place=draw(st.integers(0, 40)) if draw(st.booleans()) else -1,
        recipe=(f"opset{g.opset}", *g.recipe),
        open_batch=g.open_batch,
        quantised="quantised" in g.recipe,
    )


def _model(
    g: Builder, start: Start, inputs: Sequence[str], output: tuple[str, Sequence[int]]
) -> onnx.ModelProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(start.kind))

    def declared(name: str, kind: int, shape: Sequence[int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, ["N", *shape[1:]] if g.open_batch else shape)

    given = [declared(name, kind, start.shape) for name in inputs]
    taken = [declared(output[0], TensorProto.FLOAT, output[1])]
    stored = [numpy_helper.from_array(array, name) for name, array in g.constants.items()]
    graph = helper.make_graph(g.nodes, "grown", given, taken, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", g.opset)], ir_version=8)
