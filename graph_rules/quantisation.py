"""QuantizeLinear and DequantizeLinear: relevance flows as in the dequantised network.

A cotangent at an integer tensor means the cotangent of the real numbers it stands for, so both rules are the identity
but for saturation; what rounding adds or takes away is a bias of QuantizeLinear.
"""

import numpy as np
from onnx import TensorProto

from graph_rules.registry import activation, always, cotangent, rule, through, to_first, varying
from srd_onnx.emit import Emitter
from srd_onnx.ir import Node
from srd_onnx.roles import Roles
from srd_onnx.rule import Flows

_VERSIONS = (13, 19, 21, 23, 24, 25)


def first(node: Node, roles: Roles) -> tuple[int, ...]:
    """What is quantised carries; its scale and its zero point, should they be computed, are held fixed."""
    return tuple(i for i in varying(node, roles) if i == 0)


def _rounding(emit: Emitter, node: Node) -> str:
    """``dequantised(y) - x``: rounding, and what saturation cut off."""
    x, y = node.input(0), node.output()
    operands = [v.name for v in node.inputs[1:] if v is not None]
    attrs = {k: node.attrs[k] for k in ("axis", "block_size") if k in node.attrs}
    return emit("Sub", emit("DequantizeLinear", y.name, *operands, **attrs), x.name)


def _straight_through(_node: Node) -> str:
    return "rounding is taken as the identity; what it and saturation change is booked as its bias"


@rule(
    "QuantizeLinear",
    versions=_VERSIONS,
    roles=activation,
    carriers=first,
    routes=always,
    spread=through,
    bias=_rounding,
    approximate=_straight_through,
)
def quantize_linear(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g``: the straight-through estimate, in the units of the dequantised tensor; ``tangent``: 0 at either end.

    There it saturates, and that may be all that is left of a ReLU or a ReLU6 before it.
    """
    g, y = cotangent(cotangents, node), node.output()
    if not emit.tangent or y.dtype.kind not in "iu":
        return to_first(node, g)
    ends, whole = np.iinfo(y.dtype), emit("Cast", y.name, to=TensorProto.INT32)
    low, high = (emit.const(end, np.int32) for end in (ends.min, ends.max))
    inside = emit("And", emit("Greater", whole, low), emit("Less", whole, high))
    return to_first(node, emit("Where", inside, g, emit.like(node.input(0), 0.0)))


@rule("DequantizeLinear", versions=_VERSIONS, roles=activation, carriers=first, routes=always, spread=through)
def dequantize_linear(_emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g``: the cotangent at the integers is in the units of what they stand for."""
    return to_first(node, cotangent(cotangents, node))
