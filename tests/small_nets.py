"""Small random networks in double precision, written twice at once: as ONNX and as a list for plain numpy."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

Array = NDArray[Any]


@dataclass(frozen=True)
class Layer:
    """One operator: tensor names, attributes, and the operands that SRD holds fixed though they vary."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any]
    held: frozenset[int]


@dataclass
class Net:
    """A network from `x` to `logits`.

    Attributes:
        layouts: axis letters by tensor: N batch, C channel, others positions.
        constants: by name.
        boundary: the last tensor before the target with more than one position.
    """

    name: str
    shape: tuple[int, ...]
    layout: str
    layers: list[Layer] = field(default_factory=list)
    layouts: dict[str, str] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    boundary: str = ""

    def __post_init__(self) -> None:
        self.layouts["x"] = self.layout

    def __str__(self) -> str:
        return self.name

    def random(self, *shape: int, scale: float = 0.6) -> str:
        name = f"w{len(self.constants)}"
        rng = np.random.default_rng(zlib.crc32(f"{self.name}/{name}".encode()))
        self.constants[name] = rng.standard_normal(shape) * scale
        return name

    def ints(self, *data: int) -> str:
        name = f"i{len(self.constants)}"
        self.constants[name] = np.array(data, np.int64)
        return name

    def add(
        self, op: str, *inputs: str, out: str | Sequence[str] = "", held: Sequence[int] = (), **attrs: Any
    ) -> str:
        """Append an operator and give its (first) output; `out` names the axes, those of the first input if left out.

        A list for `out` makes several outputs.
        """
        layouts = [out or self.layouts[inputs[0]]] if isinstance(out, str) else list(out)
        stem = f"t{len(self.layers)}"
        names = (stem,) if isinstance(out, str) else tuple(f"{stem}_{i}" for i in range(len(layouts)))
        self.layouts.update(zip(names, layouts, strict=True))
        self.layers.append(Layer(op, inputs, names, attrs, frozenset(held)))
        return names[0]

    def conv(self, x: str, weights: tuple[int, ...], *, bias: bool = True, **attrs: Any) -> str:
        added = (self.random(weights[0], scale=0.3),) if bias else ()
        return self.add("Conv", x, self.random(*weights), *added, **attrs)

    def head(self, x: str, channels: int, classes: int = 5) -> "Net":
        """Global average pool, flatten, classifier; what comes in is the boundary."""
        self.boundary = x
        flat = self.add("Flatten", self.add("GlobalAveragePool", x), out="NC")
        return self.classify(flat, channels, classes)

    def classify(self, flat: str, channels: int, classes: int = 5) -> "Net":
        self.add("Gemm", flat, self.random(classes, channels, scale=0.3), self.random(classes), transB=1)
        return self.done()

    def done(self) -> "Net":
        """The last output is the logits."""
        last = self.layers[-1]
        self.layouts["logits"] = self.layouts.pop(last.outputs[0])
        self.layers[-1] = Layer(last.op, last.inputs, ("logits",), last.attrs, last.held)
        return self

    def photo(self, seed: int = 0) -> Array:
        rng = np.random.default_rng(zlib.crc32(f"{self.name}/x{seed}".encode()))
        return rng.standard_normal(self.shape)

    def held(self, layer: Layer) -> frozenset[int]:
        """Operands that receive nothing: gates and constants."""
        return layer.held | {i for i, name in enumerate(layer.inputs) if name in self.constants}

    def model(self) -> ModelProto:
        """As ONNX, shapes inferred."""
        nodes = [
            helper.make_node(layer.op, layer.inputs, layer.outputs, name=f"{layer.op} {i}", **layer.attrs)
            for i, layer in enumerate(self.layers)
        ]
        graph = helper.make_graph(
            nodes,
            self.name,
            [helper.make_tensor_value_info("x", onnx.TensorProto.DOUBLE, self.shape)],
            [onnx.ValueInfoProto(name="logits")],
            [numpy_helper.from_array(data, name) for name, data in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def in_single(net: Net) -> onnx.ModelProto:
    """In single precision, since ONNX Runtime has no Erf and no convolution in double."""
    model = net.model()
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float64:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return model


IMAGE = (2, 3, 5, 4)


def residual() -> Net:
    net = Net("residual", IMAGE, "NCHW")
    a = net.add("Relu", net.conv("x", (4, 3, 3, 3), pads=[1, 1, 1, 1]))
    b = net.conv(a, (4, 2, 3, 3), pads=[1, 1, 1, 1], group=2)
    c = net.add("Relu", net.add("Add", b, a))
    d = net.add("MaxPool", c, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 0, 1])
    return net.head(net.add("Relu", net.conv(d, (5, 4, 2, 2), strides=[2, 2], pads=[1, 1, 0, 0])), 5)


def concatenation() -> Net:
    net = Net("concatenation", IMAGE, "NCHW")
    a = net.add("LeakyRelu", net.conv("x", (5, 3, 3, 3), strides=[1, 2]), alpha=0.1)
    left = net.add("Split", a, net.ints(2, 3), out=["NCHW", "NCHW"], axis=1)
    right = left.replace("_0", "_1")
    through = net.add("Relu", net.conv(right, (2, 3, 2, 2), auto_pad="SAME_UPPER"))
    c = net.add("Concat", net.conv(left, (3, 2, 1, 1)), through, a, axis=1)
    return net.head(net.add("AveragePool", c, kernel_shape=[2, 2], pads=[0, 1, 1, 0]), 10)


def fan_out() -> Net:
    net = Net("fan_out", IMAGE, "NCHW")
    a = net.conv("x", (3, 3, 2, 2), dilations=[2, 1])
    doubled = net.add("Add", a, a)
    gated = net.add("Mul", doubled, net.add("Sigmoid", doubled), held=[1])  # x sigmoid(x), written out
    squared = net.add("Mul", gated, gated)  # two equals
    both = net.add("Sum", squared, gated, net.random(1, 3, 1, 1))
    return net.head(net.add("Tanh", net.conv(both, (4, 3, 3, 3), pads=[1, 1, 1, 1])), 4)


def squeeze_and_excite() -> Net:
    net = Net("squeeze_and_excite", IMAGE, "NCHW")
    a = net.add("HardSwish", net.conv("x", (4, 3, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2]))
    small = net.add("Relu", net.conv(net.add("GlobalAveragePool", a), (2, 4, 1, 1)))
    gate = net.add("HardSigmoid", net.conv(small, (4, 2, 1, 1)))
    b = net.add("Mul", a, gate, held=[1])
    return net.head(net.conv(b, (6, 4, 2, 2), pads=[1, 0, 0, 1]), 6)


def channels_last() -> Net:
    net = Net("channels_last", (2, 5, 4, 3), "NHWC")
    a = net.add("Transpose", "x", out="NCHW", perm=[0, 3, 1, 2])
    b = net.add("Transpose", net.conv(a, (4, 3, 3, 3)), out="NHWC", perm=[0, 2, 3, 1])
    c = net.add("Relu", net.add("Add", b, net.random(4)))
    d = net.add("Pad", c, net.ints(0, 1, 0, 0, 0, 0, 1, 0))
    e = net.add(
        "Relu", net.conv(net.add("Transpose", d, out="NCHW", perm=[0, 3, 1, 2]), (4, 1, 2, 2), group=4)
    )
    last = net.add("Transpose", e, out="NHWC", perm=[0, 2, 3, 1])
    net.boundary = last
    return net.classify(net.add("ReduceMean", last, net.ints(1, 2), out="NC", keepdims=0), 4)


def tokens() -> Net:
    net = Net("tokens", (2, 5, 4), "NTC")
    a = net.add("Add", net.add("MatMul", "x", net.random(4, 6)), net.random(6))
    mixed = net.add("MatMul", net.random(5, 5), net.add("Relu", a), out="NTC")
    b = net.add("Add", a, mixed)
    c = net.add("Relu", net.add("MatMul", b, net.random(6, 4)))
    net.boundary = c
    flat = net.add("Reshape", c, net.ints(2, -1), out="NC")
    return net.classify(flat, 20)


def padding_only() -> Net:
    """Its first layer has output positions that see nothing but padding, and a bias to show for it."""
    net = Net("padding_only", (2, 2, 3, 3), "NCHW")
    a = net.add("Relu", net.conv("x", (4, 2, 2, 2), pads=[3, 2, 2, 3]))
    return net.head(net.conv(a, (3, 4, 2, 2), strides=[2, 2]), 3)


NETS: dict[str, Callable[[], Net]] = {
    make.__name__: make
    for make in (
        residual,
        concatenation,
        fan_out,
        squeeze_and_excite,
        channels_last,
        tokens,
        padding_only,
    )
}
