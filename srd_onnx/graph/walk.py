"""The graph walker: an onnx.ModelProto becomes a `Graph`, a networkx DAG of frozen nodes and values."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import networkx as nx
import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

from srd_onnx.errors import UnsupportedCaseError
from srd_onnx.graph.ir import UNKNOWN, Graph, Node, OpKey, Value


def walk(model: onnx.ModelProto, origins: Mapping[str, tuple[str, ...]] | None = None) -> Graph:
    """Read a model whose shapes have been inferred into a DAG.

    Args:
        model: a checked model, nodes in topological order (as ONNX demands), with `value_info` for every tensor.
        origins: original node names by node name; a node that is not listed stands for itself.
    A tensor whose shape depends on the data is in the graph with `known` false; the plan refuses it where
    relevance would cross it.
    """
    versions = {entry.domain: entry.version for entry in model.opset_import}
    known = _known_values(model)
    nodes = tuple(
        _node(proto, versions, known, (origins or {}).get(proto.name, (proto.name,)))
        for proto in model.graph.node
        if proto.op_type != "Constant"
    )
    inputs = tuple(_value(i.name, known) for i in model.graph.input)
    outputs = tuple(_value(o.name, known) for o in model.graph.output)
    return Graph(nodes, inputs, outputs, versions[""], _dag(nodes, inputs, outputs))


def _value(name: str, known: Mapping[str, Value]) -> Value:
    return known.get(name, Value(name, (), UNKNOWN))


def _known_values(model: onnx.ModelProto) -> dict[str, Value]:
    graph = model.graph
    known = {}
    for info in [*graph.input, *graph.output, *graph.value_info]:
        tensor = info.type.tensor_type
        dims = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
        if tensor.elem_type and tensor.HasField("shape") and all(d >= 0 for d in dims):
            known[info.name] = Value(info.name, dims, helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    for tensor_proto in graph.initializer:
        known[tensor_proto.name] = _constant(tensor_proto.name, tensor_proto)
    for node in graph.node:
        if node.op_type == "Constant" and node.domain == "":
            known[node.output[0]] = _constant_node(node)
    return known


def _constant(name: str, proto: TensorProto) -> Value:
    data = numpy_helper.to_array(proto)
    data.setflags(write=False)
    return Value(name, data.shape, data.dtype, data)


def _constant_node(node: NodeProto) -> Value:
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        return _constant(node.output[0], value)
    if attribute.name in ("value_float", "value_floats"):
        data = np.asarray(value, np.float32)
    elif attribute.name in ("value_int", "value_ints"):
        data = np.asarray(value, np.int64)
    else:
        raise UnsupportedCaseError(f"ai.onnx::Constant, node '{node.name}': {attribute.name} is not a number")
    return Value(node.output[0], data.shape, data.dtype, data)


def _node(
    proto: NodeProto, versions: Mapping[str, int], known: Mapping[str, Value], origins: tuple[str, ...]
) -> Node:
    key, attrs = _resolved(proto, versions)
    outer = tuple(v for name in captured(proto) if (v := known.get(name)) is not None)
    return Node(
        proto.name,
        key,
        tuple(_value(n, known) if n else None for n in proto.input) + outer,
        tuple(_value(n, known) if n else None for n in proto.output),
        MappingProxyType(attrs),
        origins,
    )


def _resolved(proto: NodeProto, versions: Mapping[str, int]) -> tuple[OpKey, dict[str, Any]]:
    """The exact operator, and its attributes with the schema's defaults under the given ones."""
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    given = {a.name: _decoded(a) for a in proto.attribute}
    opset = versions.get(domain, 1)
    if not onnx.defs.has(proto.op_type, opset, domain):
        return OpKey(domain, proto.op_type, opset), given
    schema = onnx.defs.get_schema(proto.op_type, opset, domain)
    defaults = {
        name: _decoded(spec.default_value)
        for name, spec in schema.attributes.items()
        if spec.default_value.type != AttributeProto.UNDEFINED
    }
    return OpKey(domain, proto.op_type, schema.since_version), defaults | given


def _decoded(attribute: AttributeProto) -> Any:
    """The attribute by its declared type; strings as str (protobuf holds bytes), tensors as arrays."""
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    if attribute.type == AttributeProto.STRINGS:
        return tuple(item.decode("utf-8", "replace") for item in value)
    if attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS):
        return tuple(value)
    return value


def captured(proto: NodeProto) -> list[str]:
    """Names that the node's subgraphs (If, Loop, Scan) use from outside: inputs that are not listed."""
    names: list[str] = []
    for attribute in proto.attribute:
        for graph in [attribute.g, *attribute.graphs] if attribute.type in (5, 10) else []:
            made = {i.name for i in graph.input} | {t.name for t in graph.initializer}
            for inner in graph.node:
                names += [n for n in [*inner.input, *captured(inner)] if n and n not in made]
                made.update(inner.output)
    return list(dict.fromkeys(names))


def _dag(nodes: tuple[Node, ...], inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> nx.MultiDiGraph:
    dag = nx.MultiDiGraph()
    made: dict[str, str] = {}
    for value in inputs:
        dag.add_node(f"input:{value.name}", value=value)
        made[value.name] = f"input:{value.name}"
    for node in nodes:
        dag.add_node(node.name, node=node)
        made.update({value.name: node.name for value in node.outputs if value is not None})
        for index, operand in enumerate(node.inputs):
            if operand is not None and operand.name in made:
                dag.add_edge(made[operand.name], node.name, key=(operand.name, index), value=operand)
    for value in outputs:
        dag.add_node(f"output:{value.name}", value=value)
        if value.name in made:
            dag.add_edge(made[value.name], f"output:{value.name}", key=(value.name, 0), value=value)
    return dag
