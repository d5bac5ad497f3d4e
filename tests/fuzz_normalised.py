"""Grown normalisations, softmax and reductions."""

import numpy as np

from tests.fuzz_builder import Builder, Feature
from tests.fuzz_elementwise import affine


def batch_norm(g: Builder, f: Feature) -> Feature:
    c = f.channels
    if f.channel != 1:
        return affine(g, f)
    parts = (g.around_one(c), g.small(c), g.small(c), g.around_one(c))
    return f.like(g("BatchNormalization", f.name, *parts))


def normalised(g: Builder, f: Feature) -> Feature:
    """Statistics over channels, over positions or over groups; as one operator or written out."""
    c, x, last = f.channels, f.name, len(f.shape) - 1
    if f.channel == last:
        kinds = ["layer written out", "rms written out", "unit"]
        kinds += ["layer", "layer"] if g.opset >= 17 else []
        kinds += ["rms"] if g.opset >= 23 else []
    else:
        kinds = ["instance", "mvn", "layer written out", "rms written out", "unit"]
        kinds += ["lrn"] if len(f.shape) == 4 else []
        kinds += ["group"] if g.opset >= 21 else []
    kind = g.one_of(*kinds)
    g.recipe.append(kind)
    shape = f.per_channel()
    if kind == "layer":
        name = g("LayerNormalization", x, g.around_one(c), g.small(c), axis=-1)
    elif kind == "instance":
        name = g("InstanceNormalization", x, g.around_one(c), g.small(c), epsilon=0.01)
    elif kind == "rms":
        name = g("RMSNormalization", x, g.around_one(c), axis=-1, epsilon=0.01)
    elif kind == "mvn":
        name = g("MeanVarianceNormalization", x, axes=list(f.positions))
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
    return f.like(name)


def softmaxed(g: Builder, f: Feature) -> Feature:
    """As a feature, not as a gate."""
    op = g.one_of("Softmax", "LogSoftmax")
    return f.like(g(op, f.name, axis=g.one_of(f.channel, *f.positions)))


def reduced(g: Builder, f: Feature) -> Feature:
    """One axis of positions less; the rest is a sequence."""
    axis = g.one_of(*f.positions)
    op = g.one_of("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
                  "ReduceSumSquare", "ReduceLogSumExp", "ReduceLogSum")  # fmt: skip
    g.recipe.append(op)
    x = g("Softplus", f.name) if op == "ReduceLogSum" else f.name
    kept = "".join(letter for i, letter in enumerate(f.layout) if i != axis)
    shape = tuple(n for i, n in enumerate(f.shape) if i != axis)
    return Feature(g.reduced(op, x, [axis], keep=False), kept.replace("H", "T").replace("W", "T"), shape)
