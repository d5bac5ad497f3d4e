"""Small networks in the primitive operators that exporters write, which ONNX Runtime's optimiser fuses."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from srd_onnx.ort.runtime import CPU

Array = NDArray[Any]
TOKENS, WIDTH, HEADS, VOCABULARY = 6, 16, 2, 20


def optimised(model: ModelProto, folder: Path) -> ModelProto:
    """The model as ONNX Runtime's optimiser saves it."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(model.SerializeToString(), options, providers=[CPU])
    return onnx.load(folder / "optimised.onnx")


class Net:
    """Nodes and constants, made by calls: ``y = net("Relu", x)``."""

    def __init__(self, name: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))

    def __call__(self, op: str, *inputs: Any, **attrs: Any) -> str:
        names = [v if isinstance(v, str) else self.put(v) for v in inputs]
        output = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [output], name=f"node_{output}", **attrs))
        return output

    def put(self, data: Any) -> str:
        array = np.asarray(data)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        self.constants.append(numpy_helper.from_array(array, f"c{len(self.constants)}"))
        return self.constants[-1].name

    def random(self, *shape: int, scale: float = 0.4) -> Array:
        return np.asarray(self.rng.standard_normal(shape) * scale)

    def linear(self, x: str, ins: int, outs: int) -> str:
        product = self("MatMul", x, self.random(ins, outs, scale=1.3 / ins**0.5))
        return self("Add", product, self.random(outs, scale=0.1))

    def model(self, inputs: list[onnx.ValueInfoProto], y: str, outs: int, opset: int) -> ModelProto:
        output = helper.make_tensor_value_info(y, TensorProto.FLOAT, ["N", outs])
        graph = helper.make_graph(self.nodes, "net", inputs, [output], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model)
        return model


def cnn() -> ModelProto:
    """Residual, LeakyRelu, Clip, SiLU and a head of two layers."""
    net = Net("cnn")

    def conv(x: str, outs: int, ins: int, size: int, **attrs: Any) -> str:
        weights = net.random(outs, ins, size, size, scale=1.2 / (ins * size * size) ** 0.5)
        return net("Conv", x, weights, net.random(outs, scale=0.1), **attrs)

    x = net("Relu", conv("x", 8, 3, 3, pads=[1, 1, 1, 1]))
    x = net("Relu", net("Add", conv(x, 8, 8, 3, pads=[1, 1, 1, 1]), x))
    x = net("LeakyRelu", conv(x, 8, 8, 3, strides=[2, 2]), alpha=0.1)
    x = net("Clip", conv(x, 8, 8, 3), np.float32(0), np.float32(6))
    x = conv(x, 6, 8, 1)
    x = net("Mul", x, net("Sigmoid", x))
    x = net("Flatten", net("GlobalAveragePool", x))
    x = net("Relu", net("Gemm", x, net.random(6, 5), net.random(5)))
    y = net("Gemm", x, net.random(5, 4), net.random(4))
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 16, 16])
    return net.model([image], y, 4, 14)


def _norm(net: Net, x: str) -> str:
    """Layer normalisation as torch exports it before opset 17."""
    apart = net("Sub", x, net("ReduceMean", x, axes=[-1]))
    variance = net("ReduceMean", net("Pow", apart, 2.0), axes=[-1])
    y = net("Div", apart, net("Sqrt", net("Add", variance, 1e-5)))
    return net("Add", net("Mul", y, 1 + net.random(WIDTH)), net.random(WIDTH))


def _rms(net: Net, x: str) -> str:
    variance = net("ReduceMean", net("Pow", x, 2.0), axes=[-1])
    y = net("Mul", x, net("Div", 1.0, net("Sqrt", net("Add", variance, 1e-5))))
    return net("Mul", 1 + net.random(WIDTH), y)


def _attention(net: Net, x: str, mask: str) -> str:
    def heads(t: str, *perm: int) -> str:
        return net("Transpose", net("Reshape", t, np.array([0, 0, HEADS, WIDTH // HEADS])), perm=perm)

    q, k, v = (net.linear(x, WIDTH, WIDTH) for _ in range(3))
    scores = net("MatMul", heads(q, 0, 2, 1, 3), heads(k, 0, 2, 3, 1))
    scores = net("Add", net("Div", scores, (WIDTH // HEADS) ** 0.5), mask)
    mixed = net("MatMul", net("Softmax", scores, axis=-1), heads(v, 0, 2, 1, 3))
    together = net("Reshape", net("Transpose", mixed, perm=[0, 2, 1, 3]), np.array([0, 0, WIDTH]))
    return net.linear(together, WIDTH, WIDTH)


def _gelu(net: Net, x: str) -> str:
    return net("Mul", net("Mul", x, net("Add", net("Erf", net("Div", x, 2**0.5)), 1.0)), 0.5)


def _encoder(name: str, norm: Any, opset: int) -> ModelProto:
    """Embeddings, two layers of attention and GELU with masked tokens, a class token and a pooler, as BERT has them."""
    net = Net(name)
    words, kinds = net.random(VOCABULARY, WIDTH, scale=1.0), net.random(2, WIDTH)
    x = net("Add", net("Gather", words, "ids"), net("Gather", kinds, "kinds"))
    x = norm(net, net("Add", x, net.random(1, TOKENS, WIDTH)))
    flags = net("Cast", net("Unsqueeze", "mask", np.array([1, 2])), to=TensorProto.FLOAT)
    mask = net("Mul", net("Sub", 1.0, flags), -10000.0)
    for _ in range(2):
        x = norm(net, net("Add", _attention(net, x, mask), x))
        inner = net.linear(_gelu(net, net.linear(x, WIDTH, 2 * WIDTH)), 2 * WIDTH, WIDTH)
        x = norm(net, net("Add", inner, x))
    first = net("Gather", x, np.array(0), axis=1)
    y = net.linear(net("Tanh", net.linear(first, WIDTH, WIDTH)), WIDTH, 3)
    ids = [
        helper.make_tensor_value_info(n, TensorProto.INT64, ["N", TOKENS]) for n in ("ids", "kinds", "mask")
    ]
    return net.model(ids, y, 3, opset)


def encoder() -> ModelProto:
    return _encoder("encoder", _norm, 14)


def rms_encoder() -> ModelProto:
    return _encoder("rms_encoder", _rms, 15)


NETS = {"cnn": cnn, "encoder": encoder, "rms_encoder": rms_encoder}
_ENCODER = {"BiasGelu", "FusedGemm", "FusedMatMul"}
# What the optimiser of ONNX Runtime 1.31 makes of them, so that a network that is no longer fused is noticed.
FUSED = {
    "cnn": {"FusedConv", "FusedGemm", "QuickGelu"},
    "encoder": _ENCODER | {"SkipLayerNormalization"},
    "rms_encoder": _ENCODER | {"SimplifiedLayerNormalization"},
}


def inputs(model: ModelProto) -> Any:
    """Two inputs of a network."""
    rng = np.random.default_rng(5)
    if len(model.graph.input) == 1:
        return rng.standard_normal((2, 3, 16, 16)).astype(np.float32)
    ids = rng.integers(0, VOCABULARY, (2, TOKENS))
    return {
        "ids": ids,
        "kinds": np.array([[0, 0, 0, 1, 1, 1]] * 2),
        "mask": np.array([[1, 1, 1, 1, 1, 0], [1] * 6]),
    }
