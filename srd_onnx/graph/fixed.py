"""Inputs that are settings (a sampling rate, a mode) made constants, so that the branches they choose fold away."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import ModelProto, ValueInfoProto, helper, numpy_helper

from srd_onnx.errors import OptionError
from srd_onnx.graph.load import LoadedModel
from srd_onnx.graph.opset import name_nodes
from srd_onnx.graph.simplify import optimised


def with_fixed(loaded: LoadedModel, values: Mapping[str, ArrayLike]) -> LoadedModel:
    """The model with these inputs as constants, and the branches of every If that they decide in its place.

    Raises:
        OptionError: there is no such input, no other is left, or the value does not fit it.
    """
    model = ModelProto()
    model.CopyFrom(loaded.proto)
    inputs = {value.name: value for value in model.graph.input}
    if unknown := sorted(set(values) - set(inputs)):
        raise OptionError(
            f"fixed: {', '.join(map(repr, unknown))} is no input; the inputs are {list(inputs)}"
        )
    if not set(inputs) - set(values):
        raise OptionError("fixed: an input must be left to explain")
    for name, value in values.items():
        model.graph.input.remove(inputs[name])
        model.graph.initializer.append(numpy_helper.from_array(_array(inputs[name], value), name))
    if any(node.op_type == "If" for node in model.graph.node):
        # Before the shapes are fixed: in a branch that is not taken they may make no sense.
        model = optimised(model)
        name_nodes(model.graph)
    return replace(loaded, proto=model)


def _array(info: ValueInfoProto, value: ArrayLike) -> NDArray[Any]:
    tensor = info.type.tensor_type
    array = np.asarray(value).astype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    rank = len(tensor.shape.dim)
    if array.ndim != rank:
        raise OptionError(
            f"fixed: '{info.name}' has {rank} axes, the value {list(array.shape)} has {array.ndim}"
        )
    return array
