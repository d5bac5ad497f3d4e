"""Hypothesis grows random valid networks out of operators that have a rule, block by block, as architectures do."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz_builder import Array, Block, Builder, Feature
from tests.fuzz_contractions import (
    convolution,
    linear_of_integers,
    mixing,
    pointwise,
    pool,
    transposed_convolution,
    widened,
)
from tests.fuzz_elementwise import (
    activation,
    affine,
    context,
    gate,
    gelu_written_out,
    masked,
    quantised,
    quotient,
    squeeze_and_excite,
)
from tests.fuzz_moving import (
    channel_shuffle,
    cropped,
    cumulative,
    depth_and_space,
    gathered,
    padded,
    resized,
    reversed_start,
    rolled,
    scattered,
    sliced,
    there_and_back,
    tiled,
    to_picture,
    to_tokens,
    top_values,
    transposed,
    triangle,
)
from tests.fuzz_normalised import batch_norm, normalised, reduced, softmaxed
from tests.fuzz_sequences import (
    attention,
    attention_operator,
    class_token,
    fused_attention,
    recurrent,
    windows,
)

OPSETS = (13, 17, 18, 20, 21, 22, 23, 24)
LARGEST = 1536  # elements of a feature per input, so that a graph runs in milliseconds


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
    "triangle": triangle,
    "reversed": reversed_start,
}
KEEPING_TOKENS: dict[str, Block] = {
    "attention": attention,
    "attention operator": attention_operator,
    "einsum attention": fused_attention,
}


def keeping(g: Builder, f: Feature) -> Feature:
    blocks = KEEPING | (KEEPING_TOKENS if f.layout == "NTC" else {})
    kind = g.one_of("activation", "mixing", "mixing", *blocks)
    if kind not in ("activation", "mixing"):
        g.recipe.append(kind)
    return blocks[kind](g, f)


def residual(g: Builder, f: Feature) -> Feature:
    inside = f
    for _ in range(g.integer(1, 3)):
        inside = keeping(g, inside)
    op = g.one_of("Add", "Add", "Add", "Sub", "Max", "Min", "Sum", "Mean", "Mul", "Where")
    g.recipe.append(f"residual {op}")
    terms = [f.name, inside.name] if g.yes() else [inside.name, f.name]
    if op == "Where":
        return f.like(g("Where", g("Greater", *terms), *terms))
    if op in ("Sum", "Max", "Mean") and g.yes():
        terms.append(mixing(g, f).name)
    return f.like(g(op, *terms))


def branches(g: Builder, f: Feature) -> Feature:
    """Inception: several convolutions side by side, put together along an axis."""
    axis = g.one_of(f.channel, f.channel, *f.positions)
    parts = [keeping(g, f) if g.yes() else f for _ in range(g.integer(1, 2))]
    parts.append(mixing(g, f))
    if g.yes() and not g.open_batch:
        parts.append(f.like(g.constant(g.small(*f.at(axis, 1))), f.at(axis, 1)))
    g.recipe.append(f"concat {f.layout[axis]}")
    total = sum(part.shape[axis] for part in parts)
    return f.like(g("Concat", *(p.name for p in parts), axis=axis), f.at(axis, total))


def split_apart(g: Builder, f: Feature) -> Feature:
    """Two parts of the channels: one is dropped, worked on, or gates the other."""
    if f.channels == 1:
        return affine(g, f)
    first = g.integer(1, f.channels - 1)
    low, high = g.split(f.name, f.channel, [first, f.channels - first])
    a = f.like(low, f.at(f.channel, first))
    b = f.like(high, f.at(f.channel, f.channels - first))
    kind = g.one_of("drop", "csp", "glu")
    g.recipe.append(kind)
    if kind == "drop":
        return a
    if kind == "glu" and a.shape == b.shape:
        return f.like(g("Mul", a.name, g("Sigmoid", b.name)), a.shape)
    return f.like(g("Concat", keeping(g, a).name, b.name, axis=f.channel))


ANYWHERE: dict[str, Block] = {
    "residual": residual,
    "branches": branches,
    "split": split_apart,
    "slice": sliced,
    "gather": gathered,
    "pad": padded,
    "crop": cropped,
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
        "depth and space": depth_and_space,
        "tokens": to_tokens,
        "to NHWC": transposed("NHWC"),
        "reduce": reduced,
    },
    "NHWC": {"windows": windows, "to NCHW": transposed("NCHW"), "reduce": reduced},
    "NCDHW": CHANNELS_FIRST,
    "NCT": {**CHANNELS_FIRST, "to NTC": transposed("NTC")},
    "NTC": {
        "class token": class_token,
        "recurrent": recurrent,
        "picture": to_picture,
        "to NCT": transposed("NCT"),
    },
}


def grow(g: Builder, f: Feature) -> Feature:
    if g.yes():
        return keeping(g, f)
    blocks = ANYWHERE | CHANGING[f.layout]
    kind = g.one_of(*blocks, *CHANGING[f.layout])
    g.recipe.append(kind)
    return blocks[kind](g, f)


def pooled(g: Builder, f: Feature) -> str:
    """[N, C]"""
    ways = ["ReduceMean", "ReduceMax"]
    if f.channel == 1:
        ways += ["GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool", "Flatten"]
        ways += ["GlobalLpPool"] if g.opset < 22 else []  # ONNX Runtime has no newer one
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
def starts(draw: st.DrawFn) -> Start:
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
    fused: bool  # explain what ONNX Runtime's optimiser saves of it

    def __repr__(self) -> str:
        shapes = {name: f"{self.layouts[name]} {array.shape}" for name, array in self.feeds.items()}
        return f"Grown({shapes} {' '.join(self.recipe)}; {self.target} {self.options} {self.place} fused={self.fused})"


@st.composite
def grown(draw: st.DrawFn, blocks: int = 6) -> Grown:
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
        f = f.like(g(g.one_of("Add", "Mul", "Sub"), *joined))
    for _ in range(draw(st.integers(1, blocks))):
        nodes, said = len(g.nodes), len(g.recipe)
        next_one = grow(g, f)
        if math.prod(next_one.shape[1:]) <= LARGEST:
            f = next_one
        else:
            del g.nodes[nodes:], g.recipe[said:]
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
        fused=draw(st.integers(0, 3)) == 0,
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
