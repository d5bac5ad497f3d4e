"""Half precision: wide tensors stay in the model's own, sums over channels and positions are taken in float32.

float16 ends at 65504 and begins at 6e-8. A squared norm passes the one where activations reach a few hundred; relevance
of many positions, and what is expanded, ``v_j R_j / ‖v_j‖²``, fall below the other. So norms, inner products and
relevance per position are float32. What is expanded goes back through the network as wide as the model's tensors: it is
first divided by its greatest length of each input, which is linear and is undone where it is collapsed.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows, Rule
from srd_onnx.graph.ir import Node, Value

_SINGLE = np.dtype(np.float32)


def is_half(value: Value) -> bool:
    """Whether a tensor holds real numbers of two bytes."""
    return value.is_float and value.dtype.itemsize == 2


def account_type(value: Value) -> np.dtype[Any]:
    """Of sums that belong to a tensor, and of its relevance: its own precision, but float32 at the least."""
    return _SINGLE if is_half(value) else value.dtype


def in_account(emit: Emitter, tensor: str, value: Value) -> str:
    """A tensor of the type of `value` as sums take it, see `account_type`."""
    return emit.cast(tensor, _SINGLE) if is_half(value) else tensor


def halved(emit: Emitter, tensor: str, value: Value) -> str:
    """What sums have given, in the precision of `value`."""
    return emit.cast(tensor, value.dtype) if is_half(value) else tensor


def wide_value(emit: Emitter, value: Value) -> tuple[Emitter, Value]:
    """As `in_single`, of one tensor."""
    if not is_half(value):
        return emit, value
    name = in_account(emit, value.name, value)
    return emit.renamed({value.name: name}), Value(name, value.shape, _SINGLE)


def in_single(emit: Emitter, node: Node) -> tuple[Emitter, Node]:
    """A node whose half tensors are float32, and an emitter that knows these: what a rule emits for it is float32.

    The same two where no tensor of the node is half.
    """
    names: dict[str, str] = {}

    def widened(value: Value | None) -> Value | None:
        if value is None or not is_half(value):
            return value
        name = names[value.name] = in_account(emit, value.name, value)
        constant = None if value.constant is None else value.constant.astype(_SINGLE)
        return Value(name, value.shape, _SINGLE, constant)

    inputs, outputs = (tuple(map(widened, values)) for values in (node.inputs, node.outputs))
    if not names:
        return emit, node
    return emit.renamed(names), replace(node, inputs=inputs, outputs=outputs)


def spread(emit: Emitter, rule: Rule, node: Node, shares: Flows) -> Flows:
    """Where relevance goes that no direction tells apart, see `Rule.spread`; of half tensors it is float32."""
    return rule.spread(*in_single(emit, node), shares)
