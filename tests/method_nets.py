"""Networks small enough to write down what a method must give, and the same as plain functions."""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from srd_onnx.graph.ir import Array
from tests.attention_nets import TOKENS, WIDTH, attend, layer_norm, mlp, split_qkv
from tests.attention_nets import linear as attention_linear
from tests.nets import model_of
from tests.small_nets import Net

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


@dataclass(frozen=True, eq=False)
class Convolved:
    """A convolution (stride 2), a ReLU, and a linear layer on all that: ``z = Σ W A + b``, float64.

    Shapes: kernel [C, 3, 3, 3], weights [K, C, 4, 5].
    """

    kernel: Array
    weights: Array
    bias: Array

    def activations(self, x: Array) -> Array:
        """A [C, 4, 5] by loops."""
        padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1)))
        found = np.zeros((len(self.kernel), 4, 5))
        for c, i, j in np.ndindex(*found.shape):
            found[c, i, j] = max(
                0.0, (self.kernel[c] * padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]).sum()
            )
        return found

    def tail(self, activations: Array) -> Array:
        """Scores [K] of A [C, 4, 5]."""
        return np.asarray((self.weights * activations).sum(axis=(1, 2, 3)) + self.bias)

    def without(self, activations: Array, channel: int) -> Array:
        """Scores [K] with one channel 0."""
        changed = activations.copy()
        changed[channel] = 0
        return self.tail(changed)

    def model(self, layout: str = "NCHW", batch: int | str = "N") -> onnx.ModelProto:
        """As ONNX; the layer is `relu`, in the layout of the input."""
        last, make = layout == "NHWC", helper.make_node
        nodes = [make("Transpose", ["input"], ["x"], name="to first", perm=[0, 3, 1, 2])] if last else []
        x = "x" if last else "input"
        nodes += [make("Conv", [x, "w"], ["c"], name="conv", pads=[1, 1, 1, 1], strides=[2, 2])]
        nodes += [make("Transpose", ["c"], ["t"], name="to last", perm=[0, 2, 3, 1])] if last else []
        nodes += [
            make("Relu", ["t" if last else "c"], ["relu"], name="relu"),
            make("Flatten", ["relu"], ["f"], name="flatten"),
            make("Gemm", ["f", "v", "b"], ["output"], name="fc", transB=1),
        ]
        order = (0, 2, 3, 1) if last else (0, 1, 2, 3)
        flat = self.weights.transpose(order).reshape(len(self.bias), -1)
        parts = {"w": self.kernel, "v": flat, "b": self.bias}
        stored: Weights = {name: array.astype(np.float32) for name, array in parts.items()}
        shape = [8, 10, 3] if last else [3, 8, 10]
        return model_of(nodes, stored, ([batch, *shape], [batch, len(self.bias)]))


def convolved(seed: int = 0, channels: int = 6, classes: int = 4) -> Convolved:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32).astype(np.float64)

    return Convolved(normal(channels, 3, 3, 3) / 4, normal(classes, channels, 4, 5) / 4, normal(classes))


def tokens_net(batch: int = 2) -> Net:
    """Patches of a picture 8 × 12 as 2 × 2 tokens behind a class token, a ReLU, and a linear layer on all that."""
    net = Net("tokens of a picture", (batch, 3, 8, 12), "NCHW")
    return net.classify(net.add("Flatten", net.add("Relu", patches(net, batch)), out="NC"), TOKENS * WIDTH, 3)


def patches(net: Net, batch: int) -> str:
    """The picture as tokens [N, 1 + 4, WIDTH]."""
    grid = net.add("Conv", "x", net.random(WIDTH, 3, 4, 6), strides=[4, 6])
    flat = net.add("Reshape", grid, net.ints(batch, WIDTH, -1), out="NCT")
    tokens = net.add("Transpose", flat, perm=[0, 2, 1], out="NTC")
    token = net.random(1, 1, WIDTH)
    net.constants[token] = np.repeat(net.constants[token], batch, axis=0)
    both = net.add("Concat", token, tokens, axis=1, out="NTC")
    return net.add("Add", both, net.random(1, TOKENS, WIDTH))


def vit(pool: str = "class token", batch: int = 2, blocks: int = 2) -> Net:
    """A vision transformer on pictures 8 × 12 with 2 × 2 patches; a class token before them."""
    net = Net(f"vit {pool}", (batch, 3, 8, 12), "NCHW")
    tokens = patches(net, batch)
    for _ in range(blocks):
        attended = attend(net, split_qkv(net, layer_norm(net, tokens, fused=True), "split"))
        tokens = net.add("Add", tokens, attention_linear(net, attended, WIDTH, WIDTH))
        tokens = net.add("Add", tokens, mlp(net, layer_norm(net, tokens, fused=True)))
    tokens = layer_norm(net, tokens, fused=True)
    if pool == "class token":
        first = net.add("Slice", tokens, net.ints(0), net.ints(1), net.ints(1))
        return net.classify(net.add("Squeeze", first, net.ints(1), out="NC"), WIDTH)
    if pool == "patches":
        tokens = net.add("Slice", tokens, net.ints(1), net.ints(TOKENS), net.ints(1))
    return net.classify(net.add("ReduceMean", tokens, net.ints(1), keepdims=0, out="NC"), WIDTH)


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
