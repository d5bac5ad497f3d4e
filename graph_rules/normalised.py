"""Normalisation by statistics of the input: Layer, RMS, Group, Instance and mean-variance normalisation.

The pattern is the standard deviation. Subtracting the mean is linear: where a position is normalised over its own
channels it is kept so (then the operator does what its form in primitive operators does). Where the mean runs over
positions it is held fixed too, ``-mean / std`` being a bias: so each position keeps its relevance.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from graph_rules.registry import always, cotangent, rule, through, to_first
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Node, Value
from srd_onnx.graph.roles import Axes, Role, Roles


@dataclass(frozen=True)
class Standardised:
    """``y = scale * (x - mean) / (sqrt(var + epsilon) + offset) + shift``; of RMS there is no mean and no shift.

    Attributes:
        shape: the input is taken in this shape (groups of channels have an axis of their own).
        axes: of that shape: the statistics run over them.
        spans: axes of the input itself that they run over.
        scale, shift: constants that broadcast to the input; None for 1 and 0.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    spans: tuple[int, ...]
    centred: bool = True
    epsilon: float = 0.0
    offset: float = 0.0
    scale: str | None = None
    shift: str | None = None


Reading = Callable[[Emitter | None, Node], Standardised]


def _constant(emit: Emitter | None, node: Node, index: int, shape: tuple[int, ...]) -> str | None:
    """An input that must be a constant, in this shape."""
    data = node.constant(index)
    return (
        None if data is None or emit is None else emit.const(np.broadcast_to(data, data.shape).reshape(shape))
    )


def _trailing(emit: Emitter | None, node: Node) -> Standardised:
    """LayerNormalization and RMSNormalization: over all axes from `axis` on."""
    x = node.input(0)
    first = int(node.attrs["axis"]) % x.rank
    spans = tuple(range(first, x.rank))
    factors = [
        _constant(emit, node, i, v.shape) for i, v in enumerate(node.inputs[:3]) if i > 0 and v is not None
    ]
    scale, shift = [*factors, None, None][:2]
    centred = node.key.op_type == "LayerNormalization"
    return Standardised(x.shape, spans, spans, centred, node.attrs["epsilon"], scale=scale, shift=shift)


def _per_channel(emit: Emitter | None, node: Node) -> Standardised:
    """InstanceNormalization, and GroupNormalization with scale and shift per channel."""
    x = node.input(0)
    along = (x.shape[1], *[1] * (x.rank - 2))
    scale, shift = (_constant(emit, node, i, along) for i in (1, 2))
    epsilon = node.attrs["epsilon"]
    if node.key.op_type == "InstanceNormalization":
        axes = tuple(range(2, x.rank))
        return Standardised(x.shape, axes, axes, epsilon=epsilon, scale=scale, shift=shift)
    groups = node.attrs["num_groups"]
    shape = (x.shape[0], groups, math.prod(x.shape[1:]) // groups)
    return Standardised(shape, (2,), tuple(range(1, x.rank)), epsilon=epsilon, scale=scale, shift=shift)


def _mean_variance(_emit: Emitter | None, node: Node) -> Standardised:
    x = node.input(0)
    axes = tuple(sorted({int(a) % x.rank for a in node.attrs["axes"]}))
    return Standardised(x.shape, axes, axes, offset=1e-9)


_READINGS: dict[str, Reading] = {
    "LayerNormalization": _trailing,
    "RMSNormalization": _trailing,
    "InstanceNormalization": _per_channel,
    "GroupNormalization": _per_channel,
    "MeanVarianceNormalization": _mean_variance,
}


def _read(emit: Emitter | None, node: Node) -> Standardised:
    return _READINGS[node.key.op_type](emit, node)


def _roles(node: Node, roles: Roles) -> tuple[Axes]:
    x, way = node.input(0), _read(None, node)
    own = roles[x.name].roles
    node.require(
        not any(own[a] is Role.BATCH and x.shape[a] > 1 for a in way.spans),
        "it takes statistics over the batch axis, so that images are no longer independent",
    )
    return (Axes(own),)


def _is_local(emit: Emitter, x: Value, way: Standardised) -> bool:
    """Whether each position is normalised over nothing but its own channels."""
    own = emit.axes(x).roles
    return not any(own[a] is Role.POSITION and x.shape[a] > 1 for a in way.spans)


def _shaped(emit: Emitter, tensor: str, have: tuple[int, ...], want: tuple[int, ...]) -> str:
    return tensor if have == want else emit.reshape(tensor, want)


def _statistics(emit: Emitter, x: Value, way: Standardised) -> tuple[str | None, str, str]:
    """Mean (None without one), 1 / std, and the standard deviation before the offset; in the reading's shape."""
    name = _shaped(emit, x.name, x.shape, way.shape)
    half = x.dtype.itemsize < 4  # the sum of squares would overflow
    if half:
        name = emit.cast(name, np.dtype(np.float32))
    single = np.dtype(np.float32) if half else x.dtype
    axes = emit.ints(way.axes)
    mean = emit("ReduceMean", name, axes, keepdims=1) if way.centred else None
    apart = emit("Sub", name, mean) if mean else name
    variance = emit("ReduceMean", emit("Mul", apart, apart), axes, keepdims=1)
    if way.epsilon:
        variance = emit("Add", variance, emit.const(way.epsilon, single))
    std = emit("Sqrt", variance)
    whole = emit("Add", std, emit.const(way.offset, single)) if way.offset else std
    inverse = emit("Reciprocal", whole)
    back = [emit.cast(t, x.dtype) if half and t else t for t in (mean, inverse, std)]
    assert back[1] is not None
    assert back[2] is not None
    return back[0], back[1], back[2]


def _centre(emit: Emitter, tensor: str, way: Standardised) -> str:
    return emit("Sub", tensor, emit("ReduceMean", tensor, emit.ints(way.axes), keepdims=1))


def _bias(emit: Emitter, node: Node) -> str | None:
    """The shift, and where the mean is held fixed ``-scale mean / std``."""
    way, x = _read(emit, node), node.input(0)
    if not way.centred or _is_local(emit, x, way):
        return way.shift
    mean, inverse, _ = _statistics(emit, x, way)
    assert mean is not None
    gone = emit("Neg", emit("Mul", mean, inverse))
    if way.shape != x.shape:
        gone = emit.reshape(emit("Expand", gone, emit.ints(way.shape)), x.shape)
    if way.scale:
        gone = emit("Mul", gone, way.scale)
    return emit("Add", gone, way.shift) if way.shift else gone


def _back(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    way, x, g = _read(emit, node), node.input(0), cotangent(cotangents, node)
    if way.scale:
        g = emit("Mul", g, way.scale)
    g = _shaped(emit, g, x.shape, way.shape)
    mean, inverse, std = _statistics(emit, x, way)
    if emit.tangent:
        name = _shaped(emit, x.name, x.shape, way.shape)
        y = emit("Mul", emit("Sub", name, mean) if mean else name, inverse)
        along = emit("ReduceMean", emit("Mul", g, y), emit.ints(way.axes), keepdims=1)
        if way.offset:
            floor = emit("Max", std, emit.like(x, float(np.finfo(x.dtype).tiny)))
            along = emit("Div", along, emit("Mul", floor, inverse))
        apart = _centre(emit, g, way) if way.centred else g
        g = emit("Sub", apart, emit("Mul", y, along))
    elif way.centred and _is_local(emit, x, way):
        g = _centre(emit, g, way)
    flow = emit("Mul", g, inverse)
    return to_first(node, _shaped(emit, flow, way.shape, x.shape))


_normalisation = partial(rule, roles=_roles, routes=always, spread=through, nonlinear=True)


@_normalisation("LayerNormalization", versions=(17,), bias=_bias)
def layer_normalization(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``(γg - mean(γg)) / std`` with the std held fixed; ``tangent`` takes off ``ŷ mean(γg ŷ) / std`` as well."""
    return _back(emit, node, cotangents)


@_normalisation("RMSNormalization", versions=(23,))
def rms_normalization(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``γg / rms`` with the root mean square held fixed; ``tangent`` takes off ``ŷ mean(γg ŷ) / rms``."""
    return _back(emit, node, cotangents)


@_normalisation("GroupNormalization", versions=(21,), bias=_bias)
def group_normalization(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``γg / std`` with the mean and std of each group held fixed; ``tangent`` as in LayerNormalization."""
    return _back(emit, node, cotangents)


@_normalisation("InstanceNormalization", versions=(6, 22), bias=_bias)
def instance_normalization(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``γg / std`` with the mean and std of each channel held fixed; ``tangent`` as in LayerNormalization."""
    return _back(emit, node, cotangents)


@_normalisation("MeanVarianceNormalization", versions=(13,), bias=_bias)
def mean_variance_normalization(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g / std`` with mean and std held fixed; over channels alone, and in ``tangent``, as in LayerNormalization."""
    return _back(emit, node, cotangents)
