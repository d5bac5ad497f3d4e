"""simplify: shapes fixed, constants and batch norms folded, the outputs and the original names kept."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper

from srd_onnx import zoo
from srd_onnx.errors import ShapeError
from srd_onnx.explainer import Explainer
from srd_onnx.graph.load import load_model
from srd_onnx.graph.simplify import simplify
from tests.nets import model_of, small_cnn, two_nodes

make = helper.make_node
Array = NDArray[Any]
PHOTO_MODELS = {"squeezenet11": (1, 3, 227, 227), "efficientnet_lite0": (1, 3, 224, 224)}


def data_for(shape: Sequence[int], seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def plain(model: onnx.ModelProto, data: Array) -> list[Array]:
    """What ONNX Runtime alone gives, nothing fused."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, {session.get_inputs()[0].name: data}))


def relevance(model: onnx.ModelProto | str, data: Array) -> Array:
    """The map of class 1."""
    return np.asarray(Explainer(model, preset="paper", providers="cpu").explain(data, 1)[0].relevance)


def assert_same_map(found: Array, expected: Array, tolerance: float) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * float(np.abs(expected).max()))


# Folding


def test_a_dynamic_batch_becomes_the_given_one() -> None:
    simplified, graph = simplify(small_cnn(batch="N"), {"input": (3, 3, 32, 32)})
    assert graph.inputs[0].shape == (3, 3, 32, 32)
    assert graph.outputs[0].shape == (3, 10)
    assert all(value.known for value in graph.values.values())
    onnx.checker.check_model(simplified, full_check=True)


def test_the_dynamic_pad_chains_of_lite0_fold_away() -> None:
    model = load_model(zoo.zoo()["efficientnet_lite0"].path).proto
    assert {"Shape", "ConstantOfShape", "Slice", "Cast", "Pad"} <= {node.op_type for node in model.graph.node}
    _, graph = simplify(model, {"input": (1, 3, 224, 224)})
    kinds = {node.key.op_type for node in graph.nodes}
    assert kinds <= {
        "Conv",
        "Clip",
        "Add",
        "Pad",
        "GlobalAveragePool",
        "Flatten",
        "Gemm",
        "Reshape",
        "ReduceMean",
    }


@pytest.mark.parametrize("name", PHOTO_MODELS)
def test_a_shipped_model_gives_what_it_gave(name: str) -> None:
    model = load_model(zoo.zoo()[name].path).proto
    data = data_for(PHOTO_MODELS[name])
    simplified, _ = simplify(model, {"input": data.shape})
    for found, expected in zip(plain(simplified, data), plain(model, data), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * float(np.abs(expected).max()))


@pytest.mark.parametrize(
    ("model", "side"), [(two_nodes(), 4), (small_cnn(), 32), (small_cnn(3, channels=5), 32)]
)
def test_a_small_model_gives_what_it_gave(model: onnx.ModelProto, side: int) -> None:
    channels = 1 if side == 4 else 3
    data = data_for((2, channels, side, side))
    simplified, _ = simplify(model, {"input": data.shape})
    for found, expected in zip(plain(simplified, data), plain(model, data), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * float(np.abs(expected).max()))


def head_of(nodes: list[onnx.NodeProto], weights: dict[str, Array], opset: int = 17) -> onnx.ModelProto:
    """These nodes from `input` to `x`, then Relu, a second convolution and a pooled head."""
    rng = np.random.default_rng(7)
    tail = [
        make("Relu", ["x"], ["r"], name="relu"),
        make("Conv", ["r", "w2"], ["z"], name="conv2", pads=[1, 1, 1, 1]),
        make("GlobalAveragePool", ["z"], ["g"], name="gap"),
        make("Flatten", ["g"], ["output"], name="flatten"),
    ]
    more = {"w2": rng.standard_normal((4, 6, 3, 3)).astype(np.float32)}
    return model_of([*nodes, *tail], {**weights, **more}, (["N", 3, 12, 12], ["N", 4]), opset)


class ConvWithNorm:
    """Convolution, then scale·(x − mean)/sqrt(var + ε) + shift, written in several ways."""

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        self.w = rng.standard_normal((6, 3, 3, 3)).astype(np.float32)
        self.scale, self.var = (rng.uniform(0.5, 2, 6).astype(np.float32) for _ in range(2))
        self.shift, self.mean = (rng.standard_normal(6).astype(np.float32) for _ in range(2))
        self.slope = self.scale / np.sqrt(self.var + np.float32(1e-5))
        self.offset = self.shift - self.slope * self.mean

    def folded(self) -> onnx.ModelProto:
        weights = {"w": self.w * self.slope[:, None, None, None], "b": self.offset}
        return head_of([make("Conv", ["input", "w", "b"], ["x"], name="conv")], weights)

    def norm(self) -> onnx.ModelProto:
        weights = {"w": self.w, "s": self.scale, "b": self.shift, "m": self.mean, "v": self.var}
        nodes = [
            make("Conv", ["input", "w"], ["c"], name="conv"),
            make("BatchNormalization", ["c", "s", "b", "m", "v"], ["x"], name="norm", epsilon=1e-5),
        ]
        return head_of(nodes, weights)

    def mul_add(self) -> onnx.ModelProto:
        column = (1, 6, 1, 1)
        weights = {"w": self.w, "s": self.slope.reshape(column), "b": self.offset.reshape(column)}
        nodes = [
            make("Conv", ["input", "w"], ["c"], name="conv"),
            make("Mul", ["c", "s"], ["d"], name="mul"),
            make("Add", ["d", "b"], ["x"], name="add"),
        ]
        return head_of(nodes, weights)


@pytest.mark.parametrize("way", ["norm", "mul_add"])
def test_a_norm_after_a_convolution_is_folded_so_that_the_map_is_that_of_the_folded_model(way: str) -> None:
    built = ConvWithNorm()
    model = getattr(built, way)()
    _, graph = simplify(model, {"input": (1, 3, 12, 12)})
    assert [node.key.op_type for node in graph.nodes] == [
        "Conv",
        "Relu",
        "Conv",
        "GlobalAveragePool",
        "Flatten",
    ]
    data = data_for((1, 3, 12, 12))
    assert_same_map(relevance(model, data), relevance(built.folded(), data), 1e-4)


def test_a_norm_that_nothing_can_take_up_stays_and_has_its_rule() -> None:
    built = ConvWithNorm()
    nodes = [
        make("Conv", ["input", "w"], ["c"], name="conv"),
        make("Relu", ["c"], ["d"], name="first"),
        make("BatchNormalization", ["d", "s", "b", "m", "v"], ["x"], name="norm"),
    ]
    weights = {"w": built.w, "s": built.scale, "b": built.shift, "m": built.mean, "v": built.var}
    model = head_of(nodes, weights)
    _, graph = simplify(model, {"input": (1, 3, 12, 12)})
    assert "norm" in {node.name for node in graph.nodes}
    explained = Explainer(model, preset="paper", providers="cpu").explain(data_for((1, 3, 12, 12)), 1)[0]
    assert explained.relevance.sum(dtype=np.float64) == pytest.approx(explained.score, rel=1e-4)


# Provenance


def test_a_fused_convolution_names_itself_first_and_then_what_was_fused_into_it() -> None:
    _, graph = simplify(small_cnn(), {"input": (1, 3, 32, 32)})
    assert {node.name: node.origins for node in graph.nodes} == {
        "conv1": ("conv1", "bn1"),
        "relu1": ("relu1",),
        "pool1": ("pool1",),
        "conv2": ("conv2", "bn2"),
        "relu2": ("relu2",),
        "conv3": ("conv3", "bn3"),
        "add": ("add",),
        "relu3": ("relu3",),
        "depthwise": ("depthwise", "bn4"),
        "relu4": ("relu4",),
        "pointwise": ("pointwise", "bn5"),
        "relu5": ("relu5",),
        "gap": ("gap",),
        "flatten": ("flatten",),
        "output": ("output",),
    }


def test_unfused_norms_are_named_in_the_order_of_the_file() -> None:
    _, graph = simplify(ConvWithNorm().mul_add(), {"input": (1, 3, 12, 12)})
    assert graph.nodes[0].origins == ("conv", "mul", "add")


@pytest.mark.parametrize("name", PHOTO_MODELS)
def test_every_node_of_a_shipped_model_names_only_nodes_of_the_file(name: str) -> None:
    model = load_model(zoo.zoo()[name].path).proto
    original = {node.name for node in model.graph.node}
    _, graph = simplify(model, {"input": PHOTO_MODELS[name]})
    assert {origin for node in graph.nodes for origin in node.origins} <= original
    assert all(node.origins for node in graph.nodes)


# Shapes that do not fit


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (1, 4, 32, 32),
            "input 'input' has shape [1, 4, 32, 32], but the model declares ['N', 3, 32, 32]; "
            "resize or crop the data to fit (a name such as 'N' stands for any size)",
        ),
        (
            (1, 3, 32),
            "input 'input' has shape [1, 3, 32], but the model declares ['N', 3, 32, 32]; "
            "resize or crop the data to fit (a name such as 'N' stands for any size)",
        ),
    ],
)
def test_a_wrong_shape_is_told_with_what_the_model_declares(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError) as caught:
        simplify(small_cnn(), {"input": shape})
    assert str(caught.value) == message


def test_a_wrong_size_for_the_weights_of_an_open_model_is_told_with_the_layer() -> None:
    model = head_of([make("Conv", ["input", "w"], ["x"], name="conv")], {"w": ConvWithNorm().w})
    for axis in (1, 2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "any"
    with pytest.raises(ShapeError) as caught:
        Explainer(model, layout="NCHW", providers="cpu").explain(data_for((1, 2, 12, 12)))
    assert str(caught.value) == (
        "ai.onnx::Conv v11, node 'conv': takes 3 channels, but its input 'input' is [1, 2, 12, 12]; "
        "does the data have the right number of channels?"
    )
