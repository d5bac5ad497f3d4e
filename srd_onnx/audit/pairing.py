"""Which layers two versions of a model have in common, by the names of the nodes in their files."""

import re
from collections import Counter
from dataclasses import dataclass

from srd_onnx.engine.plan import Plan
from srd_onnx.explainer import Explainer
from srd_onnx.graph.ir import Node

# What exporters and quantisers put behind a node's name to name its output, or what they make of that.
_SUFFIX = re.compile(r"(_output_\d+|_quant|_quantized|_QuantizeLinear|_DequantizeLinear|_Output)+$")
_MOVING = {
    "QuantizeLinear",
    "DequantizeLinear",
    "Identity",
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
}


@dataclass(frozen=True)
class LayerPair:
    """A layer that both models have.

    Attributes:
        name: of the first model's node.
        op: its operator.
        first, second: the tensors that it computes in each.
    """

    name: str
    op: str
    first: str
    second: str


def layer_pairs(first: Explainer, second: Explainer) -> tuple[LayerPair, ...]:
    """Nodes of the simplified graphs with one name, one operator and one shape, from the input on.

    Names are compared without what a quantiser appends. Nodes that compute nothing (reshapes, QuantizeLinear) and
    names that are not unique are left out; of a layer and the activation behind it both are there where both models
    have both.
    """
    one, other = _by_name(first.plan), _by_name(second.plan)
    found = []
    for name, node in one.items():
        match = other.get(name)
        if match is None or match.key.op_type != node.key.op_type:
            continue
        if node.output().shape == match.output().shape:
            found.append(
                LayerPair(node.origins[0], node.key.op_type, node.output().name, match.output().name)
            )
    return tuple(found)


def _by_name(plan: Plan) -> dict[str, Node]:
    nodes = [node for node in plan.graph.nodes if node.key.op_type not in _MOVING and node.origins]
    names = [_SUFFIX.sub("", node.origins[0]) for node in nodes]
    counts = Counter(names)
    return {name: node for name, node in zip(names, nodes, strict=True) if counts[name] == 1}
