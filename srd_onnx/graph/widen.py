"""Half precision written as float32, which holds every number of it, where ONNX Runtime has no kernels for it.

Its CPU provider, which also folds the constants of every model, refuses bfloat16. Of float16 it computes most in
float32 too, by Casts around each node, under names of its own; written as float32 the graph keeps those of the file.
"""

from collections.abc import Iterator, Set
from dataclasses import replace

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, TypeProto, numpy_helper

from srd_onnx.errors import InvalidModelError, ModelTooLargeError
from srd_onnx.graph.external_data import LIMIT, nodes, subgraphs, tensors
from srd_onnx.graph.load import LoadedModel
from srd_onnx.ort.runtime import CPU

_HALF: dict[int, str] = {TensorProto.BFLOAT16: "bfloat16", TensorProto.FLOAT16: "float16"}
# Attributes that hold an element type as a number, of whatever operator.
TYPES = {"to", "dtype", "output_dtype", "output_datatype", "precision", "softmax_precision", "stash_type"}
_DOMAINS = ("", "com.microsoft")


def widened(loaded: LoadedModel, provider: str) -> LoadedModel:
    """The model with float32 in place of half precision, inputs and outputs included.

    Nothing is rounded to half precision between the nodes any more. On other providers than that of the CPU float16
    stays, and so it does in a model that would pass 2 GB.

    Args:
        loaded: the model, which is not changed.
        provider: of ONNX Runtime, that is to run it.

    Raises:
        InvalidModelError: a node of it looks at the bits of numbers; or the data of a tensor does not fit its shape.
        ModelTooLargeError: it holds bfloat16 and would pass 2 GB.
    """
    kinds = set(_HALF) if provider == CPU else {TensorProto.BFLOAT16}
    found = said_of(loaded.proto, kinds)
    if not found:
        return loaded
    stored = (t for t in tensors(loaded.proto) if t.data_type in kinds)
    size = loaded.proto.ByteSize() + sum(2 * int(np.prod(t.dims, dtype=np.int64)) for t in stored)
    if size > LIMIT:
        if "bfloat16" not in found.values():
            return loaded
        raise ModelTooLargeError(
            f"{loaded.path or 'the model'}: its bfloat16 is computed in float32, in which it has {size / 1e9:.2f} GB, "
            f"and a model in memory can have no more than {LIMIT / 1e9:.2f} GB. Export only the part to be explained."
        )
    for node in nodes(loaded.proto.graph):
        if node.op_type == "BitCast":
            raise InvalidModelError(
                f"BitCast, node '{node.name}': in a model of {' and '.join(set(found.values()))}, which is computed in "
                "float32, the bits of a number are others. Export the model in float32."
            )
    model = ModelProto()
    model.CopyFrom(loaded.proto)
    widen(model, kinds)
    return replace(loaded, proto=model, half=found)


def said_of(model: ModelProto, kinds: Set[int]) -> dict[str, str]:
    """What the file says of half precision: the element types of tensors and of what attributes ask for, by name."""
    said = [(tensor.name, tensor.data_type) for tensor in tensors(model)]
    said += [(name, one.elem_type) for graph in _graphs(model.graph) for name, one in _types(graph)]
    said += [(name, one.i) for graph in _graphs(model.graph) for name, one in _asked(graph)]
    return {name: _HALF[kind] for name, kind in said if kind in kinds}


def widen(model: ModelProto, kinds: Set[int]) -> None:
    """Write these element types as float32, wherever the model says them, in place.

    Raises:
        InvalidModelError: the data of a tensor does not fit its shape.
    """
    for tensor in tensors(model):
        if tensor.data_type in kinds:
            tensor.CopyFrom(numpy_helper.from_array(_single(tensor), tensor.name))
    for graph in _graphs(model.graph):
        for _, one in _types(graph):
            if one.elem_type in kinds:
                one.elem_type = TensorProto.FLOAT
        for _, attribute in _asked(graph):
            if attribute.i in kinds:
                attribute.i = TensorProto.FLOAT


def _single(tensor: TensorProto) -> np.ndarray:
    try:
        return numpy_helper.to_array(tensor).astype(np.float32)
    except ValueError as error:
        raise InvalidModelError(
            f"tensor '{tensor.name}': its data does not fit its shape {list(tensor.dims)} and type "
            f"{_HALF[tensor.data_type]} ({error}). Export the model again."
        ) from error


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and all within its nodes."""
    yield graph
    for node in nodes(graph):
        yield from subgraphs(node)


def _types(graph: GraphProto) -> Iterator[tuple[str, TypeProto.Tensor | TypeProto.SparseTensor]]:
    """Name and type of the inputs, outputs and inner tensors that one graph declares, and of its nodes' attributes."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield from ((value.name, one) for one in _within(value.type))
    for node in graph.node:
        for attribute in node.attribute:
            for given in (attribute.tp, *attribute.type_protos):
                yield from ((attribute.name, one) for one in _within(given))


def _within(kind: TypeProto) -> Iterator[TypeProto.Tensor | TypeProto.SparseTensor]:
    match kind.WhichOneof("value"):
        case "tensor_type":
            yield kind.tensor_type
        case "sparse_tensor_type":
            yield kind.sparse_tensor_type
        case "sequence_type":
            yield from _within(kind.sequence_type.elem_type)
        case "optional_type":
            yield from _within(kind.optional_type.elem_type)


def _asked(graph: GraphProto) -> Iterator[tuple[str, AttributeProto]]:
    """Name of the result and attribute, where a node of one graph is told an element type."""
    for node in graph.node:
        for attribute in node.attribute:
            if node.domain in _DOMAINS and attribute.name in TYPES and attribute.type == AttributeProto.INT:
                yield node.output[0], attribute
