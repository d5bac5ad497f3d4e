"""Fused operators, written out: nodes of other domains and integer arithmetic become the standard nodes they stand for.

ONNX Runtime's own optimiser writes operators such as `com.microsoft::SkipLayerNormalization` into the files it saves.
Written out, relevance crosses them layer by layer as it crosses the network before that optimiser, and what is
compiled needs no operator outside the standard.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from srd_onnx.graph.external_data import nodes
from srd_onnx.graph.ir import Node, OpKey, Value
from srd_onnx.graph.walk import walk

FUSED = "com.microsoft"
# Operators that ONNX Runtime writes into the default domain, at opsets where onnx has none of that name.
_OWN = ("LayerNormalization", "SimplifiedLayerNormalization")
_LAYER_NORMALIZATION = 17


class Writer:
    """Collects the standard nodes that one fused node stands for; tensors are named by plain strings."""

    def __init__(
        self, node: Node, opset: int, made_by: Mapping[str, str], producers: Mapping[str, Node]
    ) -> None:
        self.opset = opset
        self.producers = producers  # what computes a tensor in the graph as it was, by the tensor's name
        self.made_by = made_by  # the type of the operator that computes a tensor, by the tensor's name
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._prefix = node.name

    def __call__(self, op_type: str, *inputs: str | Value | None, **attrs: Any) -> str:
        """Write a node with one output and give that output's name; None is an input left out."""
        return self.many(op_type, *inputs, outputs=1, **attrs)[0]

    def many(self, op_type: str, *inputs: str | Value | None, outputs: int, **attrs: Any) -> tuple[str, ...]:
        """Write a node with several outputs and give their names."""
        name = f"{self._prefix}/{op_type}_{len(self.nodes)}"
        made = tuple(f"{name}/{i}" if i else name for i in range(outputs))
        names = ["" if v is None else v.name if isinstance(v, Value) else v for v in inputs]
        while names and not names[-1]:
            names.pop()
        self.nodes.append(helper.make_node(op_type, names, made, name=name, **attrs))
        return made

    def const(self, data: Any, dtype: np.dtype[Any] | type) -> str:
        """A constant with this data."""
        name = f"{self._prefix}/const_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(data, dtype), name))
        return name

    def ints(self, *data: int) -> str:
        """An int64 vector: shapes, axes, sizes."""
        return self.const(data, np.int64)

    def like(self, value: Value, data: Any) -> str:
        """A constant of the dtype of `value`."""
        return self.const(data, value.dtype)


# Writes a node out and names what computes its outputs, in order; None for one that nobody uses. None for all of them
# leaves the node as it is.
Expansion = Callable[[Writer, Node], Sequence[str | None] | None]
ExpansionTable = Mapping[OpKey, Expansion]


def is_own(node: NodeProto, opset: int) -> bool:
    """Whether it is an operator of ONNX Runtime alone, though the default domain is written on it."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in _OWN:
        return False
    return node.op_type != "LayerNormalization" or opset < _LAYER_NORMALIZATION


def own_up(model: ModelProto, opset: int) -> bool:
    """Write on such nodes, in place, the domain of ONNX Runtime's other operators; whether there were any."""
    found = [node for node in nodes(model.graph) if is_own(node, opset)]
    for node in found:
        node.domain = FUSED
    if found and all(entry.domain != FUSED for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(FUSED, 1))
    return bool(found)


def expand(model: ModelProto, table: ExpansionTable) -> tuple[ModelProto, dict[str, str]]:
    """The model with the nodes that the table knows written out, and the fused node's name by new node's name.

    The last of the new nodes keeps the name of the fused one. A node that the table does not know stays.

    Args:
        model: simplified, with inferred shapes.
        table: what to write for which operator.

    Raises:
        UnsupportedCaseError: for a use of an operator that its expansion does not cover.
    """
    graph = walk(model)
    producers = graph.producers
    found = {node.name: node for node in graph.nodes if node.key in table}
    if not found:
        return model, {}
    versions = {entry.domain: entry.version for entry in model.opset_import}
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    result, parents = ModelProto(), dict[str, str]()
    result.CopyFrom(model)
    del result.graph.node[:]
    used = {name for node in nodes(model.graph) for name in node.input} | {o.name for o in model.graph.output}
    for proto in model.graph.node:
        node = found.get(proto.name)
        if node is None or (not node.key.domain and not _is_known(node)):
            result.graph.node.append(proto)
            continue
        node.require(_is_known(node), "the shapes of its inputs must be known")
        write = Writer(node, versions[""], made_by, producers)
        outputs = table[node.key](write, node)
        if outputs is None:
            result.graph.node.append(proto)
            continue
        _bind(write, node, outputs, used)
        parents.update({new.name: proto.name for new in write.nodes})
        result.graph.node.extend(write.nodes)
        result.graph.initializer.extend(write.constants)
    left = {node.domain for node in nodes(result.graph)}
    for entry in [e for e in result.opset_import if e.domain == FUSED and FUSED not in left]:
        result.opset_import.remove(entry)
    return result, parents


def _is_known(node: Node) -> bool:
    return all(value is None or value.known for value in node.inputs)


def _bind(write: Writer, node: Node, outputs: Sequence[str | None], used: set[str]) -> None:
    """Give what computes the outputs of the fused node their names, and the node of the first one its name."""
    renamed = {}
    for index, value in enumerate(node.outputs):
        if value is not None and (value.name in used or not index):
            made = outputs[index] if index < len(outputs) else None
            node.require(made is not None, f"its output {index} is not covered")
            assert made is not None
            renamed[made] = value.name
    maker = {name: new for new in write.nodes for name in new.output}
    first = outputs[0]
    assert first is not None
    maker[first].name = node.name
    for new in write.nodes:
        for names in (new.input, new.output):
            for i, name in enumerate(names):
                names[i] = renamed.get(name, name)
