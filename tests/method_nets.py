"""Networks small enough to write down what a method must give, and the same as plain functions."""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from srd_onnx.ir import Array
from tests.nets import model_of

SHAPE = (3, 8, 10)
Weights = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, eq=False)
class Linear:
    """``z = W x + b`` on flattened inputs, float64."""

    weights: Array
    bias: Array

    def __call__(self, x: Array) -> Array:
        """Scores [K] of an input of SHAPE."""
        return np.asarray(self.weights @ np.asarray(x, np.float64).reshape(-1) + self.bias)

    def model(self, batch: int | str = "N", end: str = "") -> onnx.ModelProto:
        """As ONNX, with a softmax or something like it at its end if asked for."""
        nodes = [
            helper.make_node("Flatten", ["input"], ["flat"], name="flatten"),
            helper.make_node(
                "Gemm", ["flat", "w", "b"], ["scores" if end else "output"], name="fc", transB=1
            ),
        ]
        nodes += [helper.make_node(end, ["scores"], ["output"], name="end")] if end else []
        weights: Weights = {"w": self.weights.astype(np.float32), "b": self.bias.astype(np.float32)}
        return model_of(nodes, weights, ([batch, *SHAPE], [batch, len(self.bias)]))


def linear(classes: int = 4, seed: int = 0) -> Linear:
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((classes, int(np.prod(SHAPE)))) / 4
    return Linear(weights.astype(np.float32).astype(np.float64), rng.standard_normal(classes).round(2))


def data(count: int, shape: tuple[int, ...] = SHAPE, seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max())
    return np.asarray(powers / powers.sum())


def regions(batch: int | str = "N") -> onnx.ModelProto:
    """A convolution, a region pool (which has no rule) over the whole input of the first item, and a classifier."""
    rng = np.random.default_rng(3)
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("MaxRoiPool", ["c", "rois"], ["m"], name="regions", pooled_shape=[2, 2]),
        helper.make_node("Flatten", ["m"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "v"], ["output"], name="fc"),
    ]
    weights: Weights = {
        "w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "rois": np.array([[0, 0, 0, 9, 7]], np.float32),
        "v": rng.standard_normal((16, 5)).astype(np.float32),
    }
    return model_of(nodes, weights, ([batch, *SHAPE], [1, 5]))


def two_inputs() -> onnx.ModelProto:
    """``z = Σ a ⊙ w + Σ b ⊙ v`` of a picture `a` and a vector `b`."""
    rng = np.random.default_rng(4)
    nodes = [
        helper.make_node("Flatten", ["a"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "w"], ["one"], name="first"),
        helper.make_node("MatMul", ["b", "v"], ["two"], name="second"),
        helper.make_node("Add", ["one", "two"], ["output"], name="add"),
    ]
    shapes: dict[str, list[int | str]] = {"a": ["N", *SHAPE], "b": ["N", 6], "output": ["N", 2]}
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes.items()]
    stored = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("w", (240, 2)), ("v", (6, 2)))
    ]
    graph = helper.make_graph(nodes, "two", values[:2], values[2:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
