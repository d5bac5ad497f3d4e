"""Put forward graph and backward nodes together into one ordinary ONNX model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import (
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from srd_onnx.engine.backward import Backward, Cotangents
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.seed import DIRECTION, TARGET, TOP_CLASS
from srd_onnx.errors import UnsupportedCaseError
from srd_onnx.graph.external_data import nodes as every_node
from srd_onnx.graph.ir import Graph, Value
from srd_onnx.graph.walk import captured

WIDE = "wide/{}"  # a tensor that `widening` has repeated


def exposed(forward: ModelProto, values: Sequence[Value]) -> ModelProto:
    """The forward model with these tensors as its outputs (the augmented outputs)."""
    model = ModelProto()
    model.CopyFrom(forward)
    del model.graph.output[:]
    for value in values:
        model.graph.output.append(tensor_info(value.name, value.dtype, value.shape))
    return model


def with_outputs(forward: ModelProto, emit: Emitter, names: Sequence[str]) -> ModelProto:
    """The forward model with emitted nodes, and these tensors as its only outputs."""
    model = ModelProto()
    model.CopyFrom(forward)
    del model.graph.output[:]
    model.graph.node.extend(emit.nodes)
    model.graph.initializer.extend(emit.initializers)
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    return pruned(model)


def combined(
    forward: ModelProto,
    backward: Backward | Cotangents,
    outputs: Mapping[str, tuple[str, Value]],
    initializers: Iterable[TensorProto] | None = None,
) -> ModelProto:
    """Forward and backward in one model.

    Args:
        forward: the simplified model.
        backward: the emitted pass.
        outputs: new outputs: name to (emitted tensor, a value with its shape and dtype).
        initializers: in place of those of the pass, such as these without their data.

    Raises:
        UnsupportedCaseError: if a tensor of the model has one of the new names.
    """
    seed_input = TARGET if backward.seeded.chosen else DIRECTION
    require_free(forward, [seed_input, *outputs])
    model = ModelProto()
    model.CopyFrom(forward)
    del model.metadata_props[:]
    graph = model.graph
    emit = backward.emit
    graph.node.extend(emit.nodes)
    graph.initializer.extend(emit.initializers if initializers is None else initializers)
    if seed_input == TARGET:
        batch = backward.seeded.shape[0]
        graph.input.append(helper.make_tensor_value_info(TARGET, TensorProto.INT64, [batch]))
        graph.initializer.append(numpy_helper.from_array(np.full(batch, TOP_CLASS, np.int64), TARGET))
    else:
        graph.input.append(tensor_info(DIRECTION, backward.seeded.dtype, backward.seeded.shape))
    for name, (tensor, value) in outputs.items():
        graph.node.append(helper.make_node("Identity", [tensor], [name], name=f"srd/output/{name}"))
        graph.output.append(tensor_info(name, value.dtype, value.shape))
    return model


@dataclass(frozen=True, eq=False)
class Part:
    """Some nodes as a model of their own.

    Attributes:
        model: what it reads of the forward pass is among its inputs.
        reads: the names of these, in order.
    """

    model: ModelProto
    reads: tuple[str, ...]


def part_of(
    nodes: Iterable[NodeProto],
    initializers: Iterable[TensorProto],
    graph: Graph,
    outputs: Mapping[str, str],
    given: Sequence[ValueInfoProto] = (),
    domains: Sequence[OperatorSetIdProto] = (),
) -> Part:
    """A model of those of some nodes that its outputs need; the forward tensors that they read are its inputs.

    Args:
        nodes: in topological order; emitted ones, or some of the forward model.
        initializers: that they share.
        graph: the forward graph; its constants go into the model.
        outputs: name to tensor.
        given: inputs that are no forward tensors, or are changed ones: they come first.
        domains: the operator sets; that of the graph if left out.
    """
    ends = [helper.make_node("Identity", [tensor], [name]) for name, tensor in outputs.items()]
    made = helper.make_graph(
        [*nodes, *ends],
        "part",
        list(given),
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        list(initializers),
    )
    opsets = list(domains) or [helper.make_opsetid("", graph.opset)]
    model = pruned(helper.make_model(made, opset_imports=opsets, ir_version=10))
    here = {i.name for i in given} | {t.name for t in model.graph.initializer}
    read = [value for name, value in read_by(model.graph.node, graph).items() if name not in here]
    moving = [value for value in read if value.constant is None]
    model.graph.input.extend(tensor_info(v.name, v.dtype, v.shape) for v in moving)
    model.graph.initializer.extend(
        numpy_helper.from_array(v.constant, v.name) for v in read if v.constant is not None
    )
    return Part(model, tuple(v.name for v in moving))


def read_by(nodes: Iterable[NodeProto], graph: Graph) -> dict[str, Value]:
    """The forward tensors that nodes read and do not make, by name."""
    known = {v.name: v for node in graph.nodes for v in (*node.inputs, *node.outputs) if v is not None}
    known |= {value.name: value for value in graph.inputs}
    made: set[str] = set()
    names: dict[str, None] = {}
    for node in nodes:
        names.update(dict.fromkeys(n for n in (*node.input, *captured(node)) if n in known and n not in made))
        made.update(node.output)
    return {name: known[name] for name in names}


def pruned(model: ModelProto) -> ModelProto:
    """Without nodes and constants that no output needs; ONNX Runtime would compute them. In place."""
    graph = model.graph
    needed = {output.name for output in graph.output}
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if needed.isdisjoint(node.output):
            del graph.node[index]
            continue
        needed.update(node.input)
        inner = (attribute.g for attribute in node.attribute if attribute.HasField("g"))
        needed.update(name for body in inner for one in every_node(body) for name in one.input)
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in needed:
            del graph.initializer[index]
    return model


def widening(pairs: Iterable[tuple[Value, Value]], opset: int) -> ModelProto:
    """Tensors repeated for many items: in, the first of each pair; out, as `WIDE` of its name, the second."""
    inputs, outputs, nodes, sizes = [], [], [], []
    for one, many in pairs:
        end = WIDE.format(one.name)
        size = numpy_helper.from_array(np.array(many.shape, np.int64), f"{end}/size")
        nodes.append(helper.make_node("Expand", [one.name, size.name], [end], end))
        inputs.append(tensor_info(one.name, one.dtype, one.shape))
        outputs.append(tensor_info(end, many.dtype, many.shape))
        sizes.append(size)
    graph = helper.make_graph(nodes, "widen", inputs, outputs, sizes)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def require_free(forward: ModelProto, wanted: Sequence[str]) -> None:
    """Refuse a model that has a tensor of one of these names.

    Raises:
        UnsupportedCaseError: naming it.
    """
    graph = forward.graph
    taken = {v.name for v in [*graph.input, *graph.output, *graph.initializer]}
    taken.update(name for node in graph.node for name in node.output)
    if clash := [name for name in wanted if name in taken]:
        raise UnsupportedCaseError(
            f"the model has a tensor called '{clash[0]}', a name that the explained model needs for itself: "
            "rename the tensor, e.g. with onnx.compose.add_prefix"
        )


def tensor_info(name: str, dtype: np.dtype, shape: Sequence[int]) -> onnx.ValueInfoProto:
    """An input or output of a model."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), list(shape))
