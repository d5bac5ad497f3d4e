"""VGG16, ResNet-50 and ViT-S/16 for ImageNet as ONNX graphs with random weights: real sizes, nothing to download."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8


class _Net:
    """Collects nodes and weights; every method returns the name of the tensor that it makes."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def op(self, op_type: str, name: str, *inputs: str, **attributes: Any) -> str:
        """One node with one output, both called `name`."""
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], name=name, **attributes))
        return name

    def weight(self, name: str, value: NDArray[Any]) -> str:
        """One initializer."""
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def he(self, *shape: int, gain: float = 1.0) -> NDArray[np.float32]:
        """Normal weights of shape [out, in, *kernel] that keep the variance through a Relu, times `gain`."""
        scale = np.float32(gain * np.sqrt(2 / np.prod(shape[1:])))
        return self.rng.standard_normal(shape, np.float32) * scale

    def small(self, size: int) -> NDArray[np.float32]:
        """Biases, so that none is zero."""
        return self.rng.standard_normal(size, np.float32) * np.float32(0.05)

    def conv(
        self,
        name: str,
        x: str,
        channels: tuple[int, int],
        kernel: int,
        stride: int = 1,
        gain: float = 1.0,
        *,
        padded: bool = True,
    ) -> str:
        """A square convolution with bias and "same" padding (or none), from channels[0] to channels[1]."""
        fan_in, fan_out = channels
        w = self.weight(f"{name}.weight", self.he(fan_out, fan_in, kernel, kernel, gain=gain))
        b = self.weight(f"{name}.bias", self.small(fan_out))
        sides = {
            "kernel_shape": [kernel] * 2,
            "strides": [stride] * 2,
            "pads": [kernel // 2 if padded else 0] * 4,
        }
        return self.op("Conv", name, x, w, b, **sides)

    def gemm(self, name: str, x: str, fan_in: int, fan_out: int) -> str:
        """A fully connected layer with weights [fan_out, fan_in]."""
        w = self.weight(f"{name}.weight", self.he(fan_out, fan_in))
        return self.op("Gemm", name, x, w, self.weight(f"{name}.bias", self.small(fan_out)), transB=1)

    def linear(self, name: str, x: str, fan_in: int, fan_out: int) -> str:
        """A linear layer of tokens, as exporters write it: MatMul, then Add."""
        w = self.rng.standard_normal((fan_in, fan_out), np.float32) * np.float32(fan_in**-0.5)
        x = self.op("MatMul", f"{name}_matmul", x, self.weight(f"{name}.weight", w))
        return self.op("Add", name, x, self.weight(f"{name}.bias", self.small(fan_out)))

    def norm(self, name: str, x: str, width: int) -> str:
        """A layer norm over the last axis."""
        ones = self.weight(f"{name}.weight", np.ones(width, np.float32))
        return self.op("LayerNormalization", name, x, ones, self.weight(f"{name}.bias", self.small(width)))

    def ints(self, name: str, *data: int) -> str:
        """A shape."""
        self.weights.append(numpy_helper.from_array(np.array(data, np.int64), name))
        return name

    def model(self) -> onnx.ModelProto:
        """Finish: input N x 3 x 224 x 224 -> logits N x 1000."""
        picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 224, 224])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1000])
        graph = helper.make_graph(self.nodes, self.name, [picture], [logits], self.weights)
        imports = [helper.make_opsetid("", OPSET)]
        return helper.make_model(
            graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="srd-onnx benchmarks"
        )


def vgg16(seed: int = 0) -> onnx.ModelProto:
    """VGG16 (configuration D): 138,357,544 parameters."""
    net = _Net("vgg16", seed)
    x, fan_in, number = "input", 3, 0
    for block, (fan_out, repeats) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], 1):
        for _ in range(repeats):
            number += 1
            x = net.conv(f"conv{number}", x, (fan_in, fan_out), 3)
            x = net.op("Relu", f"relu{number}", x)
            fan_in = fan_out
        x = net.op("MaxPool", f"pool{block}", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.op("Flatten", "flatten", x)
    for number, fan_in in ((1, 512 * 7 * 7), (2, 4096)):
        x = net.op("Relu", f"fc{number}_relu", net.gemm(f"fc{number}", x, fan_in, 4096))
    net.gemm("logits", x, 4096, 1000)
    return net.model()


def resnet50(seed: int = 0) -> onnx.ModelProto:
    """ResNet-50 v1.5 (the stride in the 3x3 convolution), batch norm folded: 25,530,472 parameters.

    The last convolution of each block is damped, as trained batch norm does, so that sixteen sums of two
    branches do not grow without bound.
    """
    net = _Net("resnet50", seed)
    x = net.op("Relu", "stem_relu", net.conv("stem", "input", (3, 64), 7, 2))
    x = net.op("MaxPool", "stem_pool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    fan_in = 64
    for stage, (width, repeats) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], 1):
        for number in range(repeats):
            stride = 2 if stage > 1 and number == 0 else 1
            x = _bottleneck(net, f"s{stage}b{number}", x, (fan_in, width), stride)
            fan_in = 4 * width
    x = net.op("Flatten", "flatten", net.op("GlobalAveragePool", "pool", x))
    net.gemm("logits", x, fan_in, 1000)
    return net.model()


def chain(depth: int, seed: int = 0) -> onnx.ModelProto:
    """So many 3x3 convolutions of 32 channels on 56 x 56 positions, each with a Relu, before mean and scores."""
    net, x = _Net("chain", seed), "input"
    for number in range(depth):
        first = number == 0
        conv = net.conv(f"conv{number}", x, (3 if first else 32, 32), 3, 4 if first else 1)
        x = net.op("Relu", f"relu{number}", conv)
    net.gemm("logits", net.op("Flatten", "flatten", net.op("GlobalAveragePool", "pool", x)), 32, 1000)
    return net.model()


def residual_chain(depth: int, seed: int = 0) -> onnx.ModelProto:
    """So many 3x3 convolutions of 16 channels on 224 x 224 positions, with batch norm, in residual blocks of two."""
    net = _Net("residual_chain", seed)
    x = _normed(net, "stem", "input", (3, 16))
    for number in range((depth - 1) // 2):
        name = f"b{number}"
        a = _normed(net, f"{name}_a", x, (16, 16))
        a = _normed(net, f"{name}_b", a, (16, 16), scale=0.2, active=False)
        x = net.op("Relu", f"{name}_out", net.op("Add", f"{name}_add", a, x))
    net.gemm("logits", net.op("Flatten", "flatten", net.op("GlobalAveragePool", "pool", x)), 16, 1000)
    return net.model()


def _normed(
    net: _Net, name: str, x: str, channels: tuple[int, int], scale: float = 1.0, *, active: bool = True
) -> str:
    """A 3x3 convolution and batch norm, and a Relu if it is `active`."""
    parts = [
        net.weight(f"{name}.{part}", value.astype(np.float32))
        for part, value in (
            ("scale", np.full(channels[1], scale)),
            ("shift", net.small(channels[1])),
            ("mean", net.small(channels[1])),
            ("variance", 1 + net.small(channels[1]) ** 2),
        )
    ]
    x = net.op("BatchNormalization", f"{name}_norm", net.conv(name, x, channels, 3), *parts)
    return net.op("Relu", f"{name}_relu", x) if active else x


def _bottleneck(net: _Net, name: str, x: str, channels: tuple[int, int], stride: int) -> str:
    """1x1, 3x3 and 1x1 convolution beside the identity, or beside a 1x1 where the shape changes."""
    fan_in, width = channels
    a = net.op("Relu", f"{name}_relu1", net.conv(f"{name}_conv1", x, (fan_in, width), 1))
    a = net.op("Relu", f"{name}_relu2", net.conv(f"{name}_conv2", a, (width, width), 3, stride))
    a = net.conv(f"{name}_conv3", a, (width, 4 * width), 1, gain=0.3)
    if fan_in != 4 * width:
        x = net.conv(f"{name}_down", x, (fan_in, 4 * width), 1, stride, gain=0.7)
    return net.op("Relu", f"{name}_out", net.op("Add", f"{name}_add", a, x))


def vit_s16(seed: int = 0) -> onnx.ModelProto:
    """ViT-S/16: 12 blocks of 6 heads, width 384, a class token: 22,050,664 parameters."""
    net, width, side = _Net("vit_s16", seed), 384, 14
    x = net.conv("patches", "input", (3, width), 16, 16, padded=False)
    x = net.op("Reshape", "flat", x, net.ints("flat.shape", 0, width, side * side))
    x = net.op("Transpose", "tokens", x, perm=[0, 2, 1])
    start = net.op("Shape", "batch", "input", end=1)
    shape = net.op("Concat", "cls.shape", start, net.ints("cls.rest", 1, width), axis=0)
    first = net.op("Expand", "cls", net.weight("cls.weight", net.small(width).reshape(1, 1, width)), shape)
    x = net.op("Concat", "with_cls", first, x, axis=1)
    places = net.small((side * side + 1) * width).reshape(1, -1, width)
    x = net.op("Add", "placed", x, net.weight("places", places))
    for number in range(12):
        x = _transformer_block(net, f"b{number}", x, width)
    x = net.norm("norm", x, width)
    x = net.op("Gather", "class_token", x, net.weight("zero", np.array(0, np.int64)), axis=1)
    net.gemm("logits", x, width, 1000)
    return net.model()


def _transformer_block(net: _Net, name: str, x: str, width: int, heads: int = 6) -> str:
    """Attention, then an MLP with GELU, each behind its norm and beside the identity."""
    h = net.norm(f"{name}_norm1", x, width)
    inner = net.ints(f"{name}.heads", 0, -1, heads, width // heads)
    q, k, v = (
        net.op("Transpose", f"{name}_{part}_heads",
               net.op("Reshape", f"{name}_{part}_split", net.linear(f"{name}_{part}", h, width, width), inner),
               perm=[0, 2, 3, 1] if part == "k" else [0, 2, 1, 3])
        for part in "qkv"
    )  # fmt: skip
    scale = net.weight(f"{name}.scale", np.array((width // heads) ** -0.5, np.float32))
    scores = net.op("Mul", f"{name}_scores", net.op("MatMul", f"{name}_qk", q, k), scale)
    mixed = net.op("MatMul", f"{name}_mix", net.op("Softmax", f"{name}_attention", scores, axis=-1), v)
    mixed = net.op("Transpose", f"{name}_back", mixed, perm=[0, 2, 1, 3])
    mixed = net.op("Reshape", f"{name}_join", mixed, net.ints(f"{name}.join", 0, -1, width))
    x = net.op("Add", f"{name}_add1", x, net.linear(f"{name}_proj", mixed, width, width))
    h = net.linear(f"{name}_up", net.norm(f"{name}_norm2", x, width), width, 4 * width)
    root = net.weight(f"{name}.root", np.array(2**0.5, np.float32))
    one, half = (
        net.weight(f"{name}.one", np.array(1, np.float32)),
        net.weight(f"{name}.half", np.array(0.5, np.float32)),
    )
    erf = net.op("Erf", f"{name}_erf", net.op("Div", f"{name}_by_root", h, root))
    h = net.op(
        "Mul", f"{name}_gelu", net.op("Mul", f"{name}_gate", h, net.op("Add", f"{name}_cdf", erf, one)), half
    )
    return net.op("Add", f"{name}_add2", x, net.linear(f"{name}_down", h, 4 * width, width))
