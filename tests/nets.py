"""Small ONNX models for tests."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def model_of(
    nodes: list[onnx.NodeProto],
    weights: dict[str, NDArray[np.generic]],
    shapes: tuple[list[int | str], list[int | str]],
    opset: int = 17,
) -> onnx.ModelProto:
    """A float model `input` -> `output` with the given (input, output) shapes."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(("input", "output"), shapes, strict=True)
    ]
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "test", values[:1], values[1:], stored)
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(
        graph, opset_imports=imports, ir_version=8, producer_name="tests", producer_version="1"
    )


def two_nodes(seed: int = 0, opset: int = 17) -> onnx.ModelProto:
    """Conv 1 -> 2 channels with bias, then Relu; input N x 1 x 4 x 4. Parameters: 20."""
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Conv", ["input", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["output"], name="relu"),
    ]
    weights: dict[str, NDArray[np.generic]] = {
        "w": rng.standard_normal((2, 1, 3, 3), np.float32),
        "b": rng.standard_normal(2, np.float32),
    }
    return model_of(nodes, weights, (["N", 1, 4, 4], ["N", 2, 4, 4]), opset)


def small_cnn(
    seed: int = 0, *, channels: int = 8, classes: int = 10, batch: int | str = "N", opset: int = 17
) -> onnx.ModelProto:
    """A CNN with the usual parts, random weights; `input` batch x 3 x 32 x 32 -> `output` batch x classes.

    Conv + BatchNormalization + Relu, MaxPool, a residual block (two convolutions, Add), a depthwise
    convolution of stride 2, a 1x1 convolution, GlobalAveragePool, Flatten, Gemm.
    """
    rng = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, NDArray[np.generic]] = {}

    def op(kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def normal(name: str, *shape: int) -> str:
        fan_in = max(1, int(np.prod(shape[1:])))
        weights[name] = rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / fan_in))
        return name

    def conv(name: str, x: str, shape: tuple[int, int, int], stride: int = 1, group: int = 1) -> str:
        out, into, side = shape
        w = normal(f"{name}.w", out, into, side, side)
        return op("Conv", name, x, w, pads=[side // 2] * 4, strides=[stride] * 2, group=group)

    def norm(name: str, x: str, size: int) -> str:
        weights[f"{name}.scale"] = rng.uniform(0.5, 1.5, size).astype(np.float32)
        weights[f"{name}.bias"] = rng.uniform(-0.3, 0.3, size).astype(np.float32)
        weights[f"{name}.mean"] = rng.uniform(-0.3, 0.3, size).astype(np.float32)
        weights[f"{name}.var"] = rng.uniform(0.5, 1.5, size).astype(np.float32)
        return op(
            "BatchNormalization", name, x, *(f"{name}.{part}" for part in ("scale", "bias", "mean", "var"))
        )

    c = channels
    x = op("Relu", "relu1", norm("bn1", conv("conv1", "input", (c, 3, 3)), c))
    x = skip = op("MaxPool", "pool1", x, kernel_shape=[2, 2], strides=[2, 2])
    x = op("Relu", "relu2", norm("bn2", conv("conv2", x, (c, c, 3)), c))
    x = norm("bn3", conv("conv3", x, (c, c, 3)), c)
    x = op("Relu", "relu3", op("Add", "add", x, skip))
    x = op("Relu", "relu4", norm("bn4", conv("depthwise", x, (c, 1, 3), 2, c), c))
    x = op("Relu", "relu5", norm("bn5", conv("pointwise", x, (2 * c, c, 1)), 2 * c))
    x = op("Flatten", "flatten", op("GlobalAveragePool", "gap", x), axis=1)
    op("Gemm", "output", x, normal("fc.w", classes, 2 * c), normal("fc.b", classes), transB=1)
    return model_of(nodes, weights, ([batch, 3, 32, 32], [batch, classes]), opset)
