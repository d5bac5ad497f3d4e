"""Operators that put pixels back where they came from: MaxUnpool after MaxPool, Col2Im after windows were read out."""

import math

import numpy as np

from graph_rules.registry import cotangent, never, rule, to_first
from graph_rules.transposed_convolution import Stamp, read_back
from graph_rules.windows import window_roles
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Array, Node
from srd_onnx.graph.roles import Axes, Role, Roles


def _own_channels(node: Node, roles: Roles) -> tuple[Axes, ...]:
    return window_roles(node, roles, mixes_channels=False)


def _windows(node: Node) -> Stamp:
    """The windows that the maxima stood for; the indices say where in them."""
    source, result = node.input(0).shape[2:], node.output().shape[2:]
    rank, kernel = len(source), tuple(node.attrs["kernel_shape"])
    strides = tuple(node.attrs.get("strides") or (1,) * rank)
    begins = tuple(node.attrs.get("pads") or (0,) * (2 * rank))[:rank]
    return Stamp(kernel, strides, (1,) * rank, begins, source, result)


def _to_windows(emit: Emitter, node: Node, shares: Flows) -> Flows:
    """As in a MaxPool to the whole window: equally to the input positions in whose windows a position lies."""
    share, x, windows = cotangent(shares, node), node.input(0), _windows(node)
    counts = np.maximum(windows.counts(), 1)
    if (counts > 1).any():
        share = emit("Div", share, emit.like(x, counts[None, None]))
    ones = emit.like(x, np.ones((1, 1, *windows.kernel)))
    return to_first(node, read_back(emit, share, ones, 1, windows))


def _between_windows(node: Node) -> bool:
    return bool((_windows(node).counts() == 0).any())


@rule(
    "MaxUnpool",
    versions=(11, 22),
    roles=_own_channels,
    routes=never,
    spread=_to_windows,
    lossy=_between_windows,
    far=True,
)
def max_unpool(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g_x[i] = g[I[i]]``; where several elements went to one place, to the last of them, which is the one there."""
    x, y = node.input(0), node.output()
    size = math.prod(x.shape)
    places = emit.reshape(node.input(1).name, [size])
    g = emit("Gather", emit.reshape(cotangent(cotangents, node), [math.prod(y.shape)]), places, axis=0)
    order = emit("Range", *(emit.const(number, np.int64) for number in (0, size, 1)))
    zeros = emit.zeros([math.prod(y.shape)], np.dtype(np.int64))
    last = emit("ScatterElements", zeros, places, order, axis=0, reduction="max")
    stayed = emit("Equal", emit("Gather", last, places, axis=0), order)
    return to_first(node, emit.reshape(emit("Where", stayed, g, emit.like(x, 0.0)), x.shape))


def _places(node: Node) -> Array:
    """Where in the flattened image each element of each block goes; one past the end if into the padding.

    Returns:
        int64 array [elements of a block, blocks].
    """
    image, block = node.output().shape[2:], node.constant(2)
    assert block is not None
    rank = len(image)
    strides, dilations = (node.attrs.get(name) or (1,) * rank for name in ("strides", "dilations"))
    pads = node.attrs.get("pads") or (0,) * (2 * rank)
    flat, inside = np.zeros((1,) * (2 * rank), np.int64), np.ones((1,) * (2 * rank), bool)
    columns = (image, block, strides, dilations, pads[:rank], pads[rank:])
    for axis, (size, k, s, d, begin, end) in enumerate(zip(*columns, strict=True)):
        blocks = (size + begin + end - (k - 1) * d - 1) // s + 1
        at = np.arange(k)[:, None] * d + np.arange(blocks) * s - begin
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = k, blocks
        at = at.reshape(shape)
        flat, inside = flat * size + at, inside & (at >= 0) & (at < size)
    return np.where(inside, flat, math.prod(image)).reshape(math.prod(block), -1)


def _counts(node: Node) -> Array:
    """How many blocks feed each position of the image: int64 of its shape."""
    image = node.output().shape[2:]
    size = math.prod(image)
    return np.bincount(_places(node).reshape(-1), minlength=size + 1)[:size].reshape(image)


def _image_roles(node: Node, roles: Roles) -> tuple[Axes]:
    own = window_roles(node, roles, mixes_channels=False)[0]
    return (Axes((*own.roles[:2], *[Role.POSITION] * (node.output().rank - 2)), gate=own.gate),)


def _apart(node: Node, _roles: Roles) -> bool:
    return bool(_counts(node).max(initial=0) <= 1)


def _between_blocks(node: Node) -> bool:
    return bool((_counts(node) == 0).any())


def _read_out(emit: Emitter, node: Node, flow: str, channels: int) -> str:
    """An image, [N, channels, *image], in blocks: [N, channels * elements of a block, blocks]."""
    image, places = node.output().shape[2:], _places(node)
    batch, size = node.input(0).shape[0], math.prod(image)
    flow = emit.reshape(flow, [batch, channels, size])
    if (places == size).any():
        flow = emit("Pad", flow, emit.ints([0, 0, 0, 0, 0, 1]))
    flow = emit("Gather", flow, emit.const(places.reshape(-1)), axis=2)
    return emit.reshape(flow, [batch, channels * len(places), places.shape[1]])


def _to_blocks(emit: Emitter, node: Node, shares: Flows) -> Flows:
    """Each position's share, divided equally over the blocks that it is made of."""
    share, counts = cotangent(shares, node), np.maximum(_counts(node), 1)
    if (counts > 1).any():
        share = emit("Div", share, emit.like(node.input(0), counts[None, None]))
    return to_first(node, emit.total(_read_out(emit, node, share, 1), [1]))


@rule("Col2Im", versions=(18,), roles=_image_roles, routes=_apart, spread=_to_blocks, lossy=_between_blocks)
def col2im(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g_x[k, l] = g[l s - p + k d]``: each block is read out where it was put."""
    return to_first(node, _read_out(emit, node, cotangent(cotangents, node), node.output().shape[1]))
