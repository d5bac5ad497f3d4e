"""Weights handed to ONNX Runtime as arrays beside the model: a serialised model with them inside is two copies more."""

import math
import re
from collections.abc import Iterable, Mapping

import numpy as np
from google.protobuf.message import Message  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto, helper

from srd_onnx.graph.ir import Array, Graph

_LARGE = 1024  # elements; what is smaller may be a shape, which ONNX Runtime reads while it loads
_LAID_OUT = re.compile(r"Quant|Q[A-Z]|Integer|LSTM|GRU|RNN|Attention|Einsum|Fused|MatMul.")
_OWN = {np.dtype(kind).name for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")}


def light(model: ModelProto, known: Mapping[str, Array] | None = None) -> tuple[ModelProto, dict[str, Array]]:
    """A copy of the model without the data of its large weights, and these, by name; for `make_session`.

    Args:
        model: with its weights inside; it is not changed.
        known: weights of it that are at hand as arrays, which saves a copy of each.
    """
    copy = ModelProto()
    _copy_fields(model, copy, "graph")
    _copy_fields(model.graph, copy.graph, "initializer")
    tensors, arrays = light_tensors(model.graph.initializer, known)
    copy.graph.initializer.extend(tensors)
    return copy, arrays


def light_tensors(
    tensors: Iterable[TensorProto], known: Mapping[str, Array] | None = None
) -> tuple[list[TensorProto], dict[str, Array]]:
    """As `light`, of weights alone."""
    found, arrays = [], dict[str, Array]()
    for tensor in tensors:
        array = _array(tensor, known or {})
        if array is None:
            found.append(tensor)
            continue
        arrays[tensor.name] = array
        empty = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        empty.data_location = TensorProto.EXTERNAL
        empty.external_data.add(key="location", value="memory")
        found.append(empty)
    return found, arrays


def packing_pays(graph: Graph) -> bool:
    """Whether ONNX Runtime should lay out the weights of matrix products anew for its kernels, which is a copy of them.

    One row reads each weight once, so that nothing is gained: the last layers of a network of convolutions. What else
    has weights that can be laid out is taken to gain.
    """
    products = [node for node in graph.nodes if node.key.op_type in ("Gemm", "MatMul")]
    rows = [math.prod(node.output().shape[:-1]) for node in products]
    return any(count > 1 for count in rows) or any(_LAID_OUT.search(n.key.op_type) for n in graph.nodes)


def _copy_fields(source: Message, target: Message, besides: str) -> None:
    for field, value in source.ListFields():
        if field.name == besides:
            continue
        if isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        elif isinstance(value, str | bytes | int | float):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).extend(value)


def _array(tensor: TensorProto, known: Mapping[str, Array]) -> Array | None:
    """The data of a large weight of a type that numpy has itself."""
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if np.prod(tensor.dims, dtype=np.int64) < _LARGE or dtype.name not in _OWN:
        return None
    if tensor.name in known:
        return np.ascontiguousarray(known[tensor.name])
    if not tensor.HasField("raw_data"):
        return None
    return np.frombuffer(tensor.raw_data, dtype.newbyteorder("<")).reshape(tensor.dims)
