"""DeformConv: a convolution whose taps are sampled at computed places, each with a gate of its own."""

import math
from dataclasses import dataclass

import numpy as np

from graph_rules.registry import cotangent, never, rule, to_first
from graph_rules.sampling import LINEAR, Samples, axis_taps, first_carries, read_roles
from graph_rules.windows import Window, loses_padding, window_of, window_spread
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Array, Node
from srd_onnx.graph.roles import Axes, Roles

_X, _WEIGHTS, _OFFSETS, _BIAS, _MASK = range(5)


def _window(node: Node) -> Window:
    """Without its offsets."""
    return window_of(node, node.input(_WEIGHTS).shape[2:])


@dataclass(frozen=True)
class _Sizes:
    """Pictures (one for each item and group of offsets), their channels, taps and output positions."""

    pictures: int
    channels: int
    taps: int
    outputs: int


def _sizes(node: Node) -> _Sizes:
    x, groups = node.input(_X), node.attrs["offset_group"]
    taps, outputs = math.prod(node.input(_WEIGHTS).shape[2:]), math.prod(node.output().shape[2:])
    return _Sizes(x.shape[0] * groups, x.shape[1] // groups, taps, outputs)


def _roles(node: Node, roles: Roles) -> tuple[Axes, ...]:
    rank = node.input(_X).rank
    node.require(rank == 4, f"on {rank - 2} axes it has no rule, as it has no kernel in ONNX Runtime")
    return tuple(Axes(axes.roles) for axes in read_roles(node, roles, _OFFSETS))


def _spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    """Equally over the window without its offsets."""
    return to_first(node, window_spread(emit, node, shares, _window(node)))


def _bias(emit: Emitter, node: Node) -> str | None:
    bias = node.constant(_BIAS)
    return None if bias is None or not bias.any() else emit.const(bias.reshape(1, -1, 1, 1))


def _lossy(node: Node) -> bool:
    return loses_padding(_window(node))


def _samples(emit: Emitter, node: Node) -> Samples:
    """Every tap of every output position."""
    x, window, n = node.input(_X), _window(node), _sizes(node)
    offsets = emit.reshape(node.input(_OFFSETS).name, [n.pictures, n.taps, 2, n.outputs])
    taps = np.indices(window.kernel).reshape(2, -1, 1)
    outputs = np.indices(window.result).reshape(2, 1, -1)
    axes = []
    for axis, size in enumerate(window.source):
        start = outputs[axis] * window.strides[axis] - window.begins[axis]
        whole = emit.like(x, start + taps[axis] * window.dilations[axis])
        place = emit("Add", emit("Gather", offsets, emit.const(axis, np.int64), axis=2), whole)
        place = emit.reshape(place, [n.pictures, n.taps * n.outputs, 1])
        axes.append(axis_taps(emit, place, x, size, LINEAR, "zeros"))
    return Samples(emit, tuple(axes), x, n.pictures, n.taps * n.outputs, 2, window.source)


def _to_taps(weights: Array, group: int) -> Array:
    """[M, C/group, *kernel] to the 1×1 convolution that is its transpose: [C * taps, M/group, 1, 1]."""
    outs, ins = weights.shape[0] // group, weights.shape[1]
    parted = weights.reshape(group, outs, ins, -1).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(parted.reshape(-1, outs, 1, 1))


@rule(
    "DeformConv",
    versions=(19, 22),
    roles=_roles,
    carriers=first_carries,
    routes=never,
    spread=_spread,
    bias=_bias,
    lossy=_lossy,
    far=True,
)
def deform_conv(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g_x[i] = Σ w_k(s) m[s] (W^T g)[s]`` over all taps k of all samples s that lie at i; offsets and mask fixed.

    ``tangent``: ``Σ_k w_k'(s) m[s] <x[i_k(s)], (W^T g)[s]>`` to the offsets, the same with ``w_k`` and without ``m`` to
    the mask.
    """
    x, offsets, mask = node.input(_X), node.input(_OFFSETS), node.optional(_MASK)
    weights, n = node.constant(_WEIGHTS), _sizes(node)
    node.constant(_BIAS)
    assert weights is not None
    samples, one_each = _samples(emit, node), [n.pictures, n.taps * n.outputs]
    wide = emit.const(_to_taps(weights, node.attrs["group"]))
    g = emit("Conv", cotangent(cotangents, node), wide, group=node.attrs["group"], kernel_shape=[1, 1])
    g = emit.reshape(g, [n.pictures, n.channels, n.taps * n.outputs])
    gate = emit.reshape(mask.name, [one_each[0], 1, one_each[1]]) if mask is not None else None
    flows: list[str | None] = [None] * len(node.inputs)
    if emit.varies(x):
        gated = emit("Mul", g, gate) if gate else g
        flows[_X] = emit.reshape(samples.back(gated, samples.weights(), n.channels), x.shape)
    if not emit.tangent:
        return flows
    products = samples.products(x.name, g, n.channels)
    if mask is not None and emit.varies(mask):
        flow = emit.total(emit("Mul", samples.weights(), products), [2])
        flows[_MASK] = emit.reshape(flow, mask.shape)
    if emit.varies(offsets):
        flows[_OFFSETS] = emit.reshape(_to_offsets(emit, samples, products, gate, n), offsets.shape)
    return flows


def _to_offsets(emit: Emitter, samples: Samples, products: str, gate: str | None, n: _Sizes) -> str:
    """[pictures, taps, 2, outputs]."""
    parts = []
    for axis in range(2):
        slopes = samples.slopes(axis)
        assert slopes is not None
        flow = emit.reshape(
            emit.total(emit("Mul", slopes, products), [2]), [n.pictures, 1, n.taps * n.outputs]
        )
        flow = emit("Mul", flow, gate) if gate else flow
        parts.append(emit.reshape(flow, [n.pictures, n.taps, 1, n.outputs]))
    return emit("Concat", *parts, axis=2)
