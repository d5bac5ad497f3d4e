"""Transformer blocks in primitive operators, as exporters write them; random weights, double precision."""

import math
from collections.abc import Callable

import numpy as np

from tests.small_nets import Net

TOKENS, WIDTH, HEADS = 5, 6, 2
DEEP = WIDTH // HEADS


def constant(net: Net, data: object) -> str:
    name = f"k{len(net.constants)}"
    net.constants[name] = np.asarray(data, np.float64)
    return name


def linear(net: Net, x: str, ins: int, outs: int) -> str:
    """Weights first, then the bias first, as torch exports nn.Linear on more than two axes."""
    product = net.add("MatMul", x, net.random(ins, outs, scale=ins**-0.5))
    return net.add("Add", net.random(outs, scale=0.2), product, out=net.layouts[product])


def layer_norm(net: Net, x: str, *, fused: bool = False) -> str:
    if fused:
        return net.add("LayerNormalization", x, net.random(WIDTH), net.random(WIDTH), axis=-1)
    mean = net.add("ReduceMean", x, net.ints(-1))
    apart = net.add("Sub", x, mean)
    variance = net.add("ReduceMean", net.add("Pow", apart, constant(net, 2.0)), net.ints(-1))
    std = net.add("Sqrt", net.add("Add", variance, constant(net, 1e-5)))
    whole = net.add("Mul", net.add("Div", apart, std), net.random(WIDTH))
    return net.add("Add", whole, net.random(WIDTH))


def mlp(net: Net, x: str) -> str:
    hidden = linear(net, x, WIDTH, 2 * WIDTH)
    erf = net.add("Erf", net.add("Div", hidden, constant(net, math.sqrt(2))))
    gated = net.add("Mul", hidden, net.add("Add", erf, constant(net, 1.0)))
    return linear(net, net.add("Mul", gated, constant(net, 0.5)), 2 * WIDTH, WIDTH)


def split_qkv(net: Net, x: str, how: str) -> list[str]:
    """Query, key and value [N, heads, T, width], one after the other in one matrix (timm) or in three."""
    if how == "separate":
        return [_heads(net, linear(net, x, WIDTH, WIDTH)) for _ in range(3)]
    fused = net.add(
        "Reshape", linear(net, x, WIDTH, 3 * WIDTH), net.ints(0, TOKENS, 3, HEADS, DEEP), out="NTCCC"
    )
    turned = net.add("Transpose", fused, perm=[2, 0, 3, 1, 4], out="CNCTC")
    if how == "gather":
        index = [net.ints(i) for i in range(3)]
        for name in index:
            net.constants[name] = net.constants[name][0]
        return [net.add("Gather", turned, i, axis=0, out="NCTC") for i in index]
    if how == "slice":
        parts = [net.add("Slice", turned, net.ints(i), net.ints(i + 1), net.ints(0)) for i in range(3)]
    else:
        first = net.add("Split", turned, out=["CNCTC"] * 3, axis=0, num_outputs=3)
        parts = [first[:-1] + str(i) for i in range(3)]
    return [net.add("Squeeze", part, net.ints(0), out="NCTC") for part in parts]


def _heads(net: Net, x: str) -> str:
    parted = net.add("Reshape", x, net.ints(0, -1, HEADS, DEEP), out="NTCC")
    return net.add("Transpose", parted, perm=[0, 2, 1, 3], out="NCTC")


def attend(net: Net, qkv: list[str], *, mask: str | None = None, scale: str = "Mul") -> str:
    """softmax(q k^T / sqrt(d) + mask) v, heads joined."""
    query, key, value = qkv
    factor = DEEP**-0.5 if scale == "Mul" else DEEP**0.5
    turned = net.add("Transpose", key, perm=[0, 1, 3, 2], out="NCCT")
    if scale == "both":
        root = constant(net, DEEP**-0.25)
        query, turned = net.add("Mul", query, root), net.add("Mul", turned, root)
    scores = net.add("MatMul", query, turned, out="NCTS")
    if scale != "both":
        scores = net.add(scale, scores, constant(net, factor))
    if mask:
        scores = net.add("Add", scores, mask)
    weights = net.add("Softmax", scores, axis=-1)
    weights = net.add("Dropout", weights)
    net.boundary = net.add("MatMul", weights, value, out="NCTC", held=[0])
    joined = net.add("Transpose", net.boundary, perm=[0, 2, 1, 3], out="NTCC")
    return net.add("Reshape", joined, net.ints(0, TOKENS, WIDTH), out="NTC")


def block(name: str, *, qkv: str = "split", mask: str = "", scale: str = "Mul", fused: bool = False) -> Net:
    """A pre-norm block of a vision transformer, a class token before it, the classifier on that token."""
    net = Net(name, (2, TOKENS - 1, WIDTH), "NTC")
    token = net.random(1, 1, WIDTH)
    net.constants[token] = np.repeat(net.constants[token], 2, axis=0)
    tokens = net.add("Concat", token, "x", axis=1, out="NTC")
    tokens = net.add("Add", tokens, net.random(1, TOKENS, WIDTH))
    given = None
    if mask == "relative position":
        given = net.random(1, HEADS, TOKENS, TOKENS)
    elif mask in ("causal", "infinite"):
        # Backward in time: the class token, which is first, must see the others.
        hidden = -np.inf if mask == "infinite" else -1e9
        given = constant(net, np.where(np.tri(TOKENS, k=-1), hidden, 0.0))
    elif mask == "from integers":
        given = _runtime_mask(net, tokens)
    attended = attend(net, split_qkv(net, layer_norm(net, tokens, fused=fused), qkv), mask=given, scale=scale)
    tokens = net.add("Add", tokens, linear(net, attended, WIDTH, WIDTH))
    tokens = net.add("Add", tokens, mlp(net, layer_norm(net, tokens, fused=fused)))
    first = net.add("Slice", layer_norm(net, tokens, fused=fused), net.ints(0), net.ints(1), net.ints(1))
    return net.classify(net.add("Squeeze", first, net.ints(1), out="NC"), WIDTH)


def _runtime_mask(net: Net, tokens: str) -> str:
    """[N, 1, 1, T]: -10000 where an integer says so, as BERT masks padding."""
    total = net.add("ReduceSum", tokens, net.ints(2), keepdims=0, out="NT")
    integer = net.add("Cast", net.add("Clip", total, constant(net, 0.0), constant(net, 1.0)), to=7)
    kept = net.add("Cast", integer, to=11)
    wide = net.add("Unsqueeze", kept, net.ints(1, 2), out="NCCT")
    hidden = net.add("Sub", constant(net, 1.0), wide, out="NCCT")
    return net.add("Mul", hidden, constant(net, -10000.0))


def multihead() -> Net:
    """torch's nn.MultiheadAttention, sequence first: batch and heads are one axis, so the batch is 1."""
    net = Net("multihead", (1, TOKENS, WIDTH), "NTC")
    turned = net.add("Transpose", "x", perm=[1, 0, 2], out="TNC")
    parts = []
    for _ in range(3):
        projected = linear(net, turned, WIDTH, WIDTH)
        parted = net.add("Reshape", projected, net.ints(TOKENS, HEADS, DEEP), out="TCC")
        parts.append(net.add("Transpose", parted, perm=[1, 0, 2], out="CTC"))
    query, key, value = parts
    scaled = net.add("Mul", query, constant(net, DEEP**-0.5))
    scores = net.add("MatMul", scaled, net.add("Transpose", key, perm=[0, 2, 1], out="CCT"), out="CTS")
    weights = net.add("Softmax", scores, axis=-1)
    net.boundary = net.add("MatMul", weights, value, out="CTC", held=[0])
    joined = net.add("Transpose", net.boundary, perm=[1, 0, 2], out="TCC")
    flat = net.add("Reshape", joined, net.ints(TOKENS, WIDTH), out="TC")
    out = net.add("Gemm", flat, net.random(WIDTH, WIDTH), net.random(WIDTH), transB=1, out="TC")
    back = net.add("Reshape", out, net.ints(TOKENS, 1, WIDTH), out="TNC")
    tokens = net.add("Add", net.add("Transpose", back, perm=[1, 0, 2], out="NTC"), "x")
    pooled = net.add("ReduceMean", mlp(net, tokens), net.ints(1), keepdims=0, out="NC")
    return net.classify(pooled, WIDTH)


def windows() -> Net:
    """Swin: a cyclic shift, attention within windows of 2x2, and the shift back. Windows join the batch: it is 1."""
    side = 4
    net = Net("windows", (1, side, side, WIDTH), "NHWC")
    tokens = layer_norm(net, "x", fused=True)
    shifted = _rolled(net, tokens, 1, side)
    split = net.add("Reshape", shifted, net.ints(1, 2, 2, 2, 2, WIDTH), out="NHAWBC")
    parted = net.add("Transpose", split, perm=[0, 1, 3, 2, 4, 5], out="NHWABC")
    flat = net.add("Reshape", parted, net.ints(4, 4, WIDTH), out="PTC")
    parts = [linear(net, flat, WIDTH, WIDTH) for _ in range(3)]
    heads = [net.add("Reshape", p, net.ints(4, 4, HEADS, DEEP), out="PTCC") for p in parts]
    query, key, value = (net.add("Transpose", h, perm=[0, 2, 1, 3], out="PCTC") for h in heads)
    turned = net.add("Transpose", key, perm=[0, 1, 3, 2], out="PCCT")
    scores = net.add("MatMul", net.add("Mul", query, constant(net, DEEP**-0.5)), turned, out="PCTS")
    scores = net.add("Add", scores, net.random(1, HEADS, 4, 4))
    grouped = net.add("Reshape", scores, net.ints(1, 4, HEADS, 4, 4), out="NPCTS")
    masked = net.add(
        "Add", grouped, constant(net, np.where(np.arange(64).reshape(1, 4, 1, 4, 4) % 3, 0, -100))
    )
    scores = net.add("Reshape", masked, net.ints(4, HEADS, 4, 4), out="PCTS")
    net.boundary = net.add("MatMul", net.add("Softmax", scores, axis=-1), value, out="PCTC", held=[0])
    joined = net.add("Transpose", net.boundary, perm=[0, 2, 1, 3], out="PTCC")
    out = linear(net, net.add("Reshape", joined, net.ints(4, 4, WIDTH), out="PTC"), WIDTH, WIDTH)
    split = net.add("Reshape", out, net.ints(1, 2, 2, 2, 2, WIDTH), out="NHWABC")
    whole = net.add("Transpose", split, perm=[0, 1, 3, 2, 4, 5], out="NHAWBC")
    image = _rolled(
        net, net.add("Reshape", whole, net.ints(1, side, side, WIDTH), out="NHWC"), side - 1, side
    )
    pooled = net.add("ReduceMean", net.add("Add", "x", image), net.ints(1, 2), keepdims=0, out="NC")
    return net.classify(pooled, WIDTH)


def _rolled(net: Net, x: str, by: int, side: int) -> str:
    """torch.roll along both sides, as exported."""
    for axis in (1, 2):
        tail = net.add("Slice", x, net.ints(by), net.ints(side), net.ints(axis))
        head = net.add("Slice", x, net.ints(0), net.ints(by), net.ints(axis))
        x = net.add("Concat", tail, head, axis=axis)
    return x


BLOCKS: dict[str, Callable[[], Net]] = {
    "split": lambda: block("split"),
    "slice": lambda: block("slice", qkv="slice", scale="Div"),
    "gather": lambda: block("gather", qkv="gather", scale="both"),
    "separate": lambda: block("separate", qkv="separate", fused=True),
    "relative position": lambda: block("relative position", mask="relative position", fused=True),
    "causal": lambda: block("causal", mask="causal", fused=True),
    "infinite": lambda: block("infinite", mask="infinite", fused=True),
    "from integers": lambda: block("from integers", mask="from integers", fused=True),
    "multihead": multihead,
    "windows": windows,
}
