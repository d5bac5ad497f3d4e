"""Integer arithmetic: scores are those of ONNX Runtime's integer kernels, relevance that of the dequantised network."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from srd_onnx import Explainer
from srd_onnx.errors import SrdOnnxError
from srd_onnx.explanation import Explanation
from tests.harness import info

Array = NDArray[Any]
SHAPE = (1, 3, 8, 6)
SCALES = {"x": 0.02, "w": 0.011, "y": 0.05, "z": 0.04, "m": 0.03, "v": 0.012, "u": 0.1}


class Sketch:
    """Nodes and constants of a model `x` -> `logits`."""

    def __init__(self, seed: int = 5) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {n: np.array(s, np.float32) for n, s in SCALES.items()}
        self.rng = np.random.default_rng(seed)

    def op(self, op_type: str, *inputs: str, outputs: int = 1, **attrs: Any) -> str:
        name = f"{op_type}{len(self.nodes)}"
        outs = [name, *(f"{name}/{i}" for i in range(1, outputs))]
        self.nodes.append(helper.make_node(op_type, inputs, outs, name=name, **attrs))
        return name

    def const(self, data: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(data)
        return name

    def words(self, *shape: int) -> str:
        return self.const(self.rng.integers(-90, 90, shape).astype(np.int8))

    def zero(self, number: int, dtype: Any = np.uint8) -> str:
        return self.const(np.array(number, dtype))

    def model(self, last: str, shape: tuple[int, ...] = SHAPE, opset: int = 18) -> ModelProto:
        self.op("Identity", last)
        self.nodes[-1].output[0] = "logits"
        constants = [numpy_helper.from_array(np.asarray(a), n) for n, a in self.constants.items()]
        graph = helper.make_graph(
            self.nodes,
            "integers",
            [info("x0", np.float32, shape)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
            constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def convolutions(*, fused: bool, pool: bool = True) -> ModelProto:
    """A convolution with a scale for each channel, a pool, another, a product; in QLinear form or QDQ."""
    s = Sketch()
    zx, zy, zz, zm, zw = s.zero(120), s.zero(130), s.zero(7), s.zero(100), s.zero(0, np.int8)
    each = s.const(np.linspace(0.005, 0.02, 4).astype(np.float32))
    zeros = s.const(np.zeros(4, np.int8))
    w, w2, w3 = s.words(4, 3, 3, 3), s.words(5, 4, 2, 2), s.words(5, 4)
    bias = s.rng.integers(-3000, 3000, 4).astype(np.int32)
    words = s.op("QuantizeLinear", "x0", "x", zx)
    attrs: dict[str, Any] = {"pads": [1, 1, 1, 1], "strides": [1, 1]}
    if fused:
        y = s.op("QLinearConv", words, "x", zx, w, each, zeros, "y", zy, s.const(bias), **attrs)
        if pool:
            y = s.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
        z = s.op("QLinearConv", y, "y", zy, w2, "w", zw, "z", zz)
        mean = s.op("GlobalAveragePool", s.op("DequantizeLinear", z, "z", zz))
        flat = s.op("QuantizeLinear", s.op("Flatten", mean), "m", zm)
        u = s.op("QLinearMatMul", flat, "m", zm, w3, "v", zw, "u", zy)
        return s.model(s.op("DequantizeLinear", u, "u", zy))

    def staged(real: str, scale: str, zero: str) -> str:
        return s.op("DequantizeLinear", s.op("QuantizeLinear", real, scale, zero), scale, zero)

    x = s.op("DequantizeLinear", words, "x", zx)
    shift = s.const((bias * SCALES["x"] * s.constants[each]).astype(np.float32))
    y = staged(s.op("Conv", x, s.op("DequantizeLinear", w, each, zeros, axis=0), shift, **attrs), "y", zy)
    if pool:
        y = s.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    z = staged(s.op("Conv", y, s.op("DequantizeLinear", w2, "w", zw)), "z", zz)
    flat = staged(s.op("Flatten", s.op("GlobalAveragePool", z)), "m", zm)
    return s.model(staged(s.op("MatMul", flat, s.op("DequantizeLinear", w3, "v", zw)), "u", zy))


def dynamic(*, convolution: bool, each: bool = False, shift: bool = True) -> ModelProto:
    """What dynamic quantisation writes: DynamicQuantizeLinear, an integer product, Cast, Mul by both scales, a bias."""
    s = Sketch(9)

    def product(op_type: str, x: str, weights: str, shape: tuple[int, ...], **attrs: Any) -> str:
        words = s.op("DynamicQuantizeLinear", x, outputs=3)
        size = shape[-1] if each else 1
        scale = s.const(s.rng.uniform(0.01, 0.02, size).astype(np.float32) if each else np.float32(0.013))
        point = s.const(np.full(size, 3, np.int8) if each else np.array(3, np.int8))
        whole = s.op(op_type, words, weights, f"{words}/2", point, **attrs)
        both = s.op("Mul", f"{words}/1", scale)
        return s.op("Mul", s.op("Cast", whole, to=TensorProto.FLOAT), both)

    if convolution:
        x = product("ConvInteger", "x0", s.words(4, 3, 3, 3), (), pads=[1, 1, 1, 1])
        if shift:
            x = s.op("Add", x, s.const(s.rng.standard_normal((4, 1, 1)).astype(np.float32)))
        x = s.op("Relu", x)
        pooled = s.op("Flatten", s.op("GlobalAveragePool", x))
        return s.model(product("MatMulInteger", pooled, s.words(4, 5), (4, 5)))
    x = product("MatMulInteger", "x0", s.words(6, 7), (6, 7))
    x = s.op("Relu", s.op("Add", x, s.const(s.rng.standard_normal(7).astype(np.float32))))
    mean = s.op("ReduceMean", x, s.const(np.array([1])), keepdims=0)
    return s.model(product("MatMulInteger", mean, s.words(7, 5), (7, 5)), (1, 8, 6))


def by_microsoft() -> ModelProto:
    """What ONNX Runtime's optimiser makes of a quantised network with a residual block, a gate and a concatenation."""
    s = Sketch(4)
    fused: dict[str, Any] = {"domain": "com.microsoft"}
    zx, zy, zz, zw = s.zero(120), s.zero(130), s.zero(7), s.zero(0, np.int8)
    x = s.op("QuantizeLinear", "x0", "x", zx)
    left = s.op("QLinearConv", x, "x", zx, s.words(4, 3, 1, 1), "w", zw, "y", zy)
    right = s.op("QLinearConv", x, "x", zx, s.words(4, 3, 3, 3), "w", zw, "z", zz, pads=[1, 1, 1, 1])
    total = s.op("QLinearAdd", left, "y", zy, right, "z", zz, "u", zy, **fused)
    total = s.op("QLinearLeakyRelu", total, "u", zy, "u", zy, alpha=0.2, **fused)
    gate = s.op("QLinearSigmoid", right, "z", zz, "x", s.zero(0), **fused)
    gated = s.op("QLinearMul", total, "u", zy, gate, "x", s.zero(0), "y", zy, **fused)
    both = s.op("QLinearConcat", "y", zy, gated, "y", zy, left, "y", zy, axis=1, **fused)
    mean = s.op("QLinearGlobalAveragePool", both, "y", zy, "v", zy, **fused)
    flat = s.op("Flatten", mean)
    bias = s.const(s.rng.standard_normal(6).astype(np.float32))
    inner = s.op("MatMulIntegerToFloat", flat, s.words(8, 6), "v", "w", zy, zw, bias, **fused)
    last = s.op("DynamicQuantizeMatMul", s.op("Relu", inner), s.words(6, 5), "m", zw, **fused)
    s.op("Identity", last)
    s.nodes[-1].output[0] = "logits"
    constants = [numpy_helper.from_array(np.asarray(a), n) for n, a in s.constants.items()]
    out = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 5])]
    graph = helper.make_graph(s.nodes, "fused", [info("x0", np.float32, SHAPE)], out, constants)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


MODELS: dict[str, tuple[ModelProto, str]] = {
    "qlinear": (convolutions(fused=True), "NCHW"),
    "qlinear_no_pool": (convolutions(fused=True, pool=False), "NCHW"),
    "by_microsoft": (by_microsoft(), "NCHW"),
    "conv_integer": (dynamic(convolution=True), "NCHW"),
    "matmul_integer": (dynamic(convolution=False), "NTC"),
    "matmul_integer_each": (dynamic(convolution=False, each=True), "NTC"),
}
every = pytest.mark.parametrize("name", MODELS)


def picture(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def explained(model: ModelProto, layout: str, target: int | None = None, **options: Any) -> Explanation:
    shape = tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)
    explainer = Explainer(model, preset="paper", layout=layout, providers="cpu", **options)
    (explanation,) = explainer.explain(picture(shape), target)
    return explanation


@pytest.mark.parametrize("bias", ["distribute", "ledger"])
@every
def test_map_and_ledger_are_the_score(name: str, bias: str) -> None:
    model, layout = MODELS[name]
    for target in range(4):
        got = explained(model, layout, target, bias=bias)
        scale = np.abs(got.relevance).sum() + sum(map(abs, got.ledger.values()))
        assert np.isfinite(got.relevance).all()
        assert np.abs(got.relevance).max() > 1e-3
        assert abs(got.residual) <= 1e-4 * scale


@every
def test_scores_are_those_of_the_integer_kernels(name: str) -> None:
    """But for the rounding of a value that lies half way between two integers."""
    model, layout = MODELS[name]
    shape = tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (want,) = session.run(None, {"x0": picture(shape)})
    got = explained(model, layout).logits
    # One step of the last rounding; where products in real numbers follow it, what they make of a step.
    step = {"qlinear": SCALES["u"] * 1.001, "qlinear_no_pool": SCALES["u"] * 1.001, "by_microsoft": 0.05}
    np.testing.assert_allclose(got, want[0], rtol=0, atol=step.get(name, 1e-3))


@pytest.mark.parametrize("pool", [True, False])
def test_qlinear_operators_are_explained_as_the_same_network_in_qdq_form(*, pool: bool) -> None:
    for target in range(4):
        fused = explained(convolutions(fused=True, pool=pool), "NCHW", target)
        written = explained(convolutions(fused=False, pool=pool), "NCHW", target)
        np.testing.assert_allclose(fused.logits, written.logits, rtol=0, atol=1e-5)
        scale = np.abs(written.relevance).max()
        np.testing.assert_allclose(fused.relevance, written.relevance, rtol=0, atol=1e-4 * scale)


def test_dynamic_quantisation_changes_little_of_the_map() -> None:
    """Against the same network in real numbers: 8 bits keep the map."""
    model = dynamic(convolution=True, shift=False)
    stored = [numpy_helper.to_array(t) for t in model.graph.initializer]
    w, v = ((words.astype(np.float32) - 3) * np.float32(0.013) for words in stored if words.ndim > 1)
    s = Sketch()
    x = s.op("Relu", s.op("Conv", "x0", s.const(w), pads=[1, 1, 1, 1]))
    real = s.model(s.op("MatMul", s.op("Flatten", s.op("GlobalAveragePool", x)), s.const(v)))
    for target in range(4):
        want, got = explained(real, "NCHW", target).relevance, explained(model, "NCHW", target).relevance
        assert np.corrcoef(want.reshape(-1), got.reshape(-1))[0, 1] > 0.999


def test_integers_of_unknown_scale_are_refused_in_words() -> None:
    s = Sketch()
    words = s.op("Relu", s.op("QuantizeLinear", "x0", "x", s.zero(0, np.int8)))
    whole = s.op("MatMulInteger", words, s.words(6, 7))
    model = s.model(s.op("Cast", whole, to=TensorProto.FLOAT), (1, 8, 6))
    with pytest.raises(SrdOnnxError, match="which Relu computes, is not known"):
        explained(model, "NTC")


def rectified(*, clip: bool, zero: Array, scales: Array, axis: int = 1) -> ModelProto:
    """``V relu6(W x)`` in integers from 0 to 6; the ReLU6 as a Clip before them, or as nothing but their ends."""
    s = Sketch()
    flat = s.op("Flatten", "x0")
    w = s.const(s.rng.standard_normal((144, 4)).astype(np.float32) * 0.7)
    v = s.const(s.rng.standard_normal((4, 3)).astype(np.float32))
    h = s.op("MatMul", flat, w)
    if clip:
        # Per channel: the ends of the integers, which lie at other numbers in each.
        high = s.const((255 * scales).astype(np.float32))
        h = s.op("Min", s.op("Relu", h), high)
    scale, shift = s.const(scales.astype(np.float32)), s.const(zero)
    attrs = {"axis": axis} if scales.ndim else {}
    whole = s.op("QuantizeLinear", h, scale, shift, **attrs)
    return s.model(s.op("MatMul", s.op("DequantizeLinear", whole, scale, shift, **attrs), v))


@pytest.mark.parametrize("name", ["uint8", "int8", "each"])
def test_integers_that_end_act_as_the_clip_that_is_left_out(name: str) -> None:
    scales = np.array([3, 4, 5, 6]) / 255 if name == "each" else np.array(6 / 255)
    kind, low = (np.int8, -128) if name == "int8" else (np.uint8, 0)
    zero = np.full(scales.shape, low, kind)
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    found, clipped = (
        Explainer(
            rectified(clip=clip, zero=zero, scales=scales),
            preset="paper",
            layout="NCHW",
            providers="cpu",
            boundary="x0",
        ).explain(x, [0, 1, 2])
        for clip in (False, True)
    )
    for a, b in zip(found, clipped, strict=True):
        np.testing.assert_allclose(a.relevance, b.relevance, atol=1e-5)
        assert a.residual == pytest.approx(0, abs=1e-4)
    straight = rectified(clip=False, zero=np.array(128, np.uint8), scales=np.array(0.5))  # from -64 to 63.5
    (other,) = Explainer(straight, preset="paper", layout="NCHW", providers="cpu", boundary="x0").explain(
        x, 0
    )
    assert np.abs(other.relevance - found[0].relevance).max() > 0.1  # or nothing would have saturated


def test_a_number_at_the_last_step_is_not_cut_off() -> None:
    """127.4 becomes 127, as 126.6 does; 127.6 becomes 127 too, but there is no step for it."""
    s = Sketch()
    one, zero = s.const(np.float32(1)), s.zero(0, np.int8)
    words = s.op("QuantizeLinear", "x0", one, zero)
    model = s.model(s.op("Neg", s.op("DequantizeLinear", words, one, zero)), shape=(1, 6))
    x = np.array([[127.4, 126.6, 127.6, -128.4, -128.6, 0.4]], np.float32)
    found = Explainer(model, preset="paper", layout="NC", providers="cpu", boundary="x0").explain(
        x, list(range(6))
    )
    np.testing.assert_allclose(
        [-float(one.relevance.sum()) for one in found], [127.4, 126.6, 0, -128.4, 0, 0.4], rtol=1e-5
    )


@pytest.mark.parametrize("head", ["", "Softmax", "LogSoftmax"])
@pytest.mark.parametrize("method", ["srd", "saliency", "gradient-x-input"])
def test_a_score_that_is_cut_off_is_explained_all_the_same(method: str, head: str) -> None:
    """z = 2 a + b is 7, and becomes 5; relevance is that of 7, and what is cut off is in the ledger."""
    s = Sketch()
    w = s.const(np.array([[2, 0], [1, 1]], np.float32))
    scale, zero = s.const(np.float32(5 / 127)), s.zero(0, np.int8)
    words = s.op("QuantizeLinear", s.op("MatMul", "x0", w), scale, zero)
    scores = s.op("DequantizeLinear", words, scale, zero)
    model = s.model(s.op(head, scores) if head else scores, shape=(1, 2))
    options: dict[str, Any] = {"preset": "paper", "boundary": "x0"} if method == "srd" else {}
    x = np.array([[3, 1]], np.float32)
    (one,) = Explainer(model, method=method, layout="NL", providers="cpu", **options).explain(x, 0)
    expected = [2, 1] if method == "saliency" else [6, 1]
    np.testing.assert_allclose(one.relevance.ravel(), expected, rtol=1e-5)
    assert one.score == pytest.approx(5, rel=1e-5)
    if method == "srd":
        assert sum(one.ledger.values()) == pytest.approx(-2, rel=1e-4)
