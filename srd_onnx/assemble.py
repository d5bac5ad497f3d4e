"""Put forward graph and backward nodes together into one ordinary ONNX model."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from srd_onnx.backward import Backward, Cotangents
from srd_onnx.emit import Emitter
from srd_onnx.errors import UnsupportedCaseError
from srd_onnx.external_data import nodes as every_node
from srd_onnx.ir import Value
from srd_onnx.seed import DIRECTION, TARGET, TOP_CLASS


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
    forward: ModelProto, backward: Backward | Cotangents, outputs: Mapping[str, tuple[str, Value]]
) -> ModelProto:
    """Forward and backward in one model.

    Args:
        forward: the simplified model.
        backward: the emitted pass.
        outputs: new outputs: name to (emitted tensor, a value with its shape and dtype).

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
    graph.initializer.extend(emit.initializers)
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
