"""Operators that onnx defines by other operators, written out as those: what they are made of may have rules.

The definitions are onnx's own, and so is the inliner. A node whose definition loops or draws random numbers stays, as
does one of which an input has no known type. Every node of a definition remembers the node that it was written for.
"""

from collections.abc import Callable, Container, Mapping
from typing import Any

import onnx
from onnx import FunctionProto, ModelProto, NodeProto, TypeProto, helper, inliner
from onnx.defs import OpSchema

from srd_onnx.graph.external_data import nodes
from srd_onnx.graph.ir import OpKey
from srd_onnx.graph.opset import default_opset, name_nodes
from srd_onnx.graph.walk import captured

ORIGIN = "srd.origin"
_DOMAIN = "srd"  # of the functions while they are inlined
_NO_HELP = ("Loop", "Scan", "RandomUniformLike")


# The nodes of a model that are to be written out, if onnx has a definition of them.
Choice = Callable[[ModelProto], list[NodeProto]]


def write_out(model: ModelProto, choice: Choice) -> ModelProto:
    """The model with the chosen nodes, and those of their definitions, in other operators; itself if there are none.

    Args:
        model: without local functions, its nodes named uniquely.
        choice: which nodes are to be written out.
    """
    while chosen := choice(model):
        types, opset = _types(model), default_opset(model)
        definitions = {node.name: definition(node, opset, types) for node in chosen}
        bodies = {name: body for name, body in definitions.items() if body is not None}
        if not bodies:
            break
        model = _inlined(model, bodies)
    return model


def beyond(opset: int) -> Choice:
    """Chooses the operators of the standard that an older opset lacks, and what their definitions are made of.

    For that is new too, and ONNX Runtime has no kernel for some of it (Swish).
    """

    def choice(model: ModelProto) -> list[NodeProto]:
        standard = [node for node in model.graph.node if node.domain == ""]
        return [n for n in standard if not onnx.defs.has(n.op_type, opset, "") or origin(n) is not None]

    return choice


def without_rule(rules: Container[OpKey], opset: int) -> Choice:
    """Chooses the operators without a rule that make real numbers of what depends on the input.

    Args:
        rules: operators that have a rule.
        opset: that at which they are looked up.
    """

    def lacks(node: NodeProto) -> bool:
        if node.domain or not onnx.defs.has(node.op_type, opset, ""):
            return False
        schema = onnx.defs.get_schema(node.op_type, opset, "")
        return OpKey("", node.op_type, schema.since_version) not in rules and _gives_reals(schema)

    def choice(model: ModelProto) -> list[NodeProto]:
        found = [node for node in model.graph.node if lacks(node)]
        data = data_dependent(model) if found else set()
        return [node for node in found if data.intersection(node.input)]

    return choice


def data_dependent(model: ModelProto) -> set[str]:
    """Tensors that depend on the values of the inputs, not merely on their shapes."""
    data = {info.name for info in model.graph.input}
    for node in model.graph.node:
        if node.op_type not in ("Shape", "Size") and data.intersection([*node.input, *captured(node)]):
            data.update(node.output)
    return data


def _gives_reals(schema: OpSchema) -> bool:
    return any(is_real(schema, output) for output in schema.outputs)


def is_real(schema: OpSchema, formal: OpSchema.FormalParameter) -> bool:
    """Whether an input or output may hold real numbers."""
    types = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    return "tensor(float)" in types.get(formal.type_str, [formal.type_str])


def _types(model: ModelProto) -> dict[str, TypeProto]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    found = {info.name: info.type for info in [*graph.output, *graph.value_info, *graph.input]}
    constants = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in graph.initializer]
    return found | {info.name: info.type for info in constants} | {"": TypeProto()}


def definition(node: NodeProto, opset: int, types: Mapping[str, TypeProto]) -> FunctionProto | None:
    """The body that defines the node for these types of its inputs; None if there is none, or none that helps."""
    schema: Any = onnx.defs.get_schema(node.op_type, opset, "")  # its type stubs know nothing of functions
    if any(name not in types for name in node.input):
        return None
    if schema.has_function:
        since = max(version for version in schema.function_opset_versions if version <= opset)
        stored = schema.get_function_with_opset_version(since)
    elif schema.has_context_dependent_function:
        since = max(
            version for version in schema.context_dependent_function_opset_versions if version <= opset
        )
        given = [types[name].SerializeToString() for name in node.input]
        stored = schema.get_context_dependent_function_with_opset_version(
            since, node.SerializeToString(), given
        )
    else:
        return None
    body = FunctionProto.FromString(stored)
    return body if body.node and all(_is_help(inner, opset) for inner in nodes(body)) else None


def _with_scalars(body: FunctionProto) -> list[NodeProto]:
    """The nodes of a body, each Range reading scalars: ONNX Runtime refuses the vectors that AffineGrid gives it."""
    found = []
    for node in body.node:
        if node.op_type == "Range":
            scalars = [f"{node.output[0]}/{i}" for i in range(len(node.input))]
            found += [helper.make_node("Squeeze", [x], [y]) for x, y in zip(node.input, scalars, strict=True)]
            node.input[:] = scalars
        found.append(node)
    return found


def _is_help(node: NodeProto, opset: int) -> bool:
    """Whether a node of a body can be crossed, and means at this opset what it meant at that of the body."""
    known = onnx.defs.get_schema(node.op_type, opset, "").attributes
    return node.op_type not in _NO_HELP and all(attribute.name in known for attribute in node.attribute)


def _inlined(model: ModelProto, bodies: dict[str, FunctionProto]) -> ModelProto:
    """The model with the bodies in the place of the nodes of these names."""
    calling = ModelProto()
    calling.CopyFrom(model)
    opset = default_opset(model)
    results = {}
    for number, node in enumerate(n for n in calling.graph.node if n.name in bodies):
        body = bodies[node.name]
        body.domain, body.name = _DOMAIN, str(number)
        inside = _with_scalars(body)
        del body.node[:]
        body.node.extend(inside)
        del body.opset_import[:]
        body.opset_import.append(helper.make_opsetid("", opset))
        for inner in nodes(body):
            inner.name = f"{node.name}/{inner.op_type}"
            inner.metadata_props.add(key=ORIGIN, value=origin(node) or node.name)
        calling.functions.append(body)
        results[next(filter(None, node.output))] = node.name
        add_defaults(node, onnx.defs.get_schema(node.op_type, opset, ""))
        node.domain, node.op_type = _DOMAIN, str(number)
    calling.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    result = inliner.inline_local_functions(calling)
    for entry in [entry for entry in result.opset_import if entry.domain == _DOMAIN]:
        result.opset_import.remove(entry)
    for node in result.graph.node:
        node.name = next((results[name] for name in node.output if name in results), node.name)
    name_nodes(result.graph)
    return result


def add_defaults(node: NodeProto, schema: OpSchema) -> None:
    """In place: the body refers to attributes that the node may have left out."""
    given = {attribute.name for attribute in node.attribute}
    for name, attribute in schema.attributes.items():
        if name not in given and attribute.default_value.type:
            node.attribute.append(attribute.default_value)


def origin(node: NodeProto) -> str | None:
    """The name of the node that this one was written for; None if it is one of the file."""
    return next((prop.value for prop in node.metadata_props if prop.key == ORIGIN), None)
