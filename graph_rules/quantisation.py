"""QuantizeLinear and DequantizeLinear: relevance flows as in the dequantised network.

A cotangent at an integer tensor means the cotangent of the real numbers it stands for, so both rules are the identity
but for saturation, which acts as a Clip (it may be all that is left of a ReLU or a ReLU6 before it). What rounding adds
or takes away is a bias of QuantizeLinear.
"""

import numpy as np
from onnx import TensorProto

from graph_rules.registry import activation, always, cotangent, rule, through, to_first, varying
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Array, Node, Value
from srd_onnx.graph.roles import Roles

_VERSIONS = (13, 19, 21, 23, 24, 25)
_SLACK = 1 + 1e-3
_RESCALING = ("DequantizeLinear", "Softmax", "LogSoftmax", "Sigmoid", "Reshape", "Flatten", "Squeeze")


def first(node: Node, roles: Roles) -> tuple[int, ...]:
    """What is quantised carries; its scale and its zero point, should they be computed, are held fixed."""
    return tuple(i for i in varying(node, roles) if i == 0)


def _rounding(emit: Emitter, node: Node) -> str:
    """``dequantised(y) - x``: what rounding changes, and what saturation cuts off."""
    x, y = node.input(0), node.output()
    operands = [v.name for v in node.inputs[1:] if v is not None]
    attrs = {k: node.attrs[k] for k in ("axis", "block_size") if k in node.attrs}
    return emit("Sub", emit("DequantizeLinear", y.name, *operands, **attrs), x.name)


def _are_scores(emit: Emitter, value: Value) -> bool:
    """Whether nothing follows up to an output of the model but what rescales them."""
    behind = emit.readers.get(value.name, [])
    return bool(behind) and all(
        node.key.op_type in _RESCALING
        and (node.output().name in emit.outputs or _are_scores(emit, node.output()))
        for node in behind
    )


def _half_step(node: Node) -> Array | None:
    """Half the scale, as it broadcasts against the output; None where it is computed, or one for each block."""
    scale, rank = node.input(1).constant, node.output().rank
    if scale is None or node.attrs.get("block_size"):
        return None
    if scale.size == 1:
        return scale.reshape(()) / 2
    axis = node.attrs["axis"] % rank
    return scale.reshape([-1 if i == axis else 1 for i in range(rank)]) / 2


def _within(emit: Emitter, node: Node) -> str | None:
    """Where it does not saturate: where no more than rounding changes a number. None for floats of 8 bits or fewer.

    Where that cannot be told, where it is at neither end. None also for scores: those at the end are of the classes
    that the model is most sure of, and constants would leave nothing to explain (ours).
    """
    y = node.output()
    if y.dtype.kind not in "iu" or _are_scores(emit, y):
        return None
    half = _half_step(node)
    if half is not None:
        # A little more than half: a number between two steps goes to either.
        return emit(
            "Less", emit("Abs", _rounding(emit, node)), emit.const(half * _SLACK, node.input(0).dtype)
        )
    ends, whole = np.iinfo(y.dtype), emit("Cast", y.name, to=TensorProto.INT32)
    low, high = (emit.const(end, np.int32) for end in (ends.min, ends.max))
    return emit("And", emit("Greater", whole, low), emit("Less", whole, high))


def _bias(emit: Emitter, node: Node) -> str:
    """What rounding changes; where it saturates, all."""
    rounded, within = _rounding(emit, node), _within(emit, node)
    if within is None:
        return rounded
    return emit("Where", within, rounded, emit("Add", rounded, node.input(0).name))


def _straight_through(_node: Node) -> str:
    return "rounding is taken as the identity; what it and saturation change is booked as its bias"


@rule(
    "QuantizeLinear",
    versions=_VERSIONS,
    roles=activation,
    carriers=first,
    routes=always,
    spread=through,
    bias=_bias,
    approximate=_straight_through,
    nonlinear=True,
)
def quantize_linear(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g``: the straight-through estimate, in the units of the dequantised tensor; 0 where it saturates, as a Clip.

    At the end of the model, where scores are quantised, ``g`` throughout.
    """
    g, within = cotangent(cotangents, node), _within(emit, node)
    return to_first(node, emit("Where", within, g, emit.like(node.input(0), 0.0)) if within else g)


@rule("DequantizeLinear", versions=_VERSIONS, roles=activation, carriers=first, routes=always, spread=through)
def dequantize_linear(_emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g``: the cotangent at the integers is in the units of what they stand for."""
    return to_first(node, cotangent(cotangents, node))
