"""simplify: shapes fixed, constants and batch norms folded, the outputs and the original names kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from srd_onnx import zoo
from srd_onnx.errors import InvalidModelError, ShapeError
from srd_onnx.explainer import Explainer
from srd_onnx.graph.load import load_model
from srd_onnx.graph.simplify import simplify
from srd_onnx.ort.runtime import newest_opset
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


# Files as exporters write them


def cnn_of_opset(opset: int) -> onnx.ModelProto:
    """One network in the words of each opset: Clip, Pad, Dropout, Squeeze and ReduceMean changed their form."""
    rng = np.random.default_rng(11)
    weights: dict[str, Array] = {
        "w": rng.standard_normal((6, 3, 3, 3)).astype(np.float32),
        "b": rng.standard_normal(6).astype(np.float32),
        "fc": rng.standard_normal((6, 4)).astype(np.float32),
    }

    def as_input(node: onnx.NodeProto, since: int, attributes: dict[str, Any], dtype: type) -> onnx.NodeProto:
        """These attributes, which are inputs from opset `since` on."""
        for name, value in attributes.items():
            if opset < since:
                node.attribute.append(helper.make_attribute(name, value))
            else:
                weights[f"{node.name}.{name}"] = np.array(value, dtype)
                node.input.append(f"{node.name}.{name}")
        return node

    nodes = [
        as_input(make("Pad", ["input"], ["p"], name="pad"), 11, {"pads": [0, 0, 0, 0, 0, 0, 1, 1]}, np.int64),
        make("Conv", ["p", "w", "b"], ["c"], name="conv", strides=[2, 2]),
        as_input(make("Clip", ["c"], ["r"], name="clip"), 11, {"min": 0.0, "max": 6.0}, np.float32),
        make(
            "AveragePool",
            ["r"],
            ["a"],
            name="average",
            kernel_shape=[2, 2],
            strides=[1, 1],
            pads=[1, 1, 0, 0],
        ),
        make("MaxPool", ["a"], ["m"], name="max", kernel_shape=[2, 2], strides=[2, 2]),
        make("Dropout", ["m"], ["d"], name="dropout"),
        as_input(make("ReduceMean", ["d"], ["g"], name="mean", keepdims=1), 18, {"axes": [2, 3]}, np.int64),
        as_input(make("Squeeze", ["g"], ["f"], name="squeeze"), 13, {"axes": [2, 3]}, np.int64),
        make("Gemm", ["f", "fc", "z0"], ["z"], name="fc"),
        make("Softmax", ["z"], ["output"], name="softmax", axis=1),
    ]
    weights["z0"] = rng.standard_normal(4).astype(np.float32)
    return model_of(nodes, weights, (["N", 3, 16, 16], ["N", 4]), opset)


@pytest.mark.parametrize("opset", range(7, newest_opset() + 1))
def test_every_opset_gives_the_same_map(opset: int) -> None:
    model = cnn_of_opset(opset)
    onnx.checker.check_model(model, full_check=True)
    data = data_for((1, 3, 16, 16))
    explained = Explainer(model, preset="paper", providers="cpu").explain(data, 1)[0]
    assert explained.meta["target_tensor"] == "z"
    assert explained.meta["model"]["opset"] == opset
    assert_same_map(explained.relevance, relevance(cnn_of_opset(17), data), 1e-6)


def stored_as_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    for tensor in list(model.graph.initializer):
        model.graph.node.insert(
            0, make("Constant", [], [tensor.name], name=f"const({tensor.name})", value=tensor)
        )
    del model.graph.initializer[:]
    return model


def listed_as_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    model.ir_version = 3
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", 8))
    return model


@pytest.mark.parametrize("store", [stored_as_nodes, listed_as_inputs])
def test_weights_are_found_wherever_the_exporter_put_them(store: Any) -> None:
    model = store(small_cnn(opset=8))
    onnx.checker.check_model(model, full_check=True)
    data = data_for((1, 3, 32, 32))
    np.testing.assert_array_equal(relevance(model, data), relevance(small_cnn(), data))


def test_weights_in_external_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(small_cnn(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").stat().st_size > 1000
    data = data_for((1, 3, 32, 32))
    np.testing.assert_array_equal(relevance(str(path), data), relevance(small_cnn(), data))


def in_precision(model: onnx.ModelProto, elem_type: int) -> onnx.ModelProto:
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.elem_type = elem_type
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    return model


def test_a_float16_model_is_explained_in_float32() -> None:
    data = data_for((1, 3, 32, 32))
    model = in_precision(small_cnn(), TensorProto.FLOAT16)
    explained = Explainer(model, preset="paper", providers="cpu").explain(data, 1)[0]
    assert_same_map(explained.relevance, relevance(small_cnn(), data), 2e-2)
    assert explained.residual == pytest.approx(0, abs=5e-3 * float(np.abs(explained.relevance).sum()))


def test_a_float64_model_works_where_onnx_runtime_has_the_kernels() -> None:
    rng = np.random.default_rng(2)
    weights: dict[str, Array] = {"a": rng.standard_normal((4, 6)), "b": rng.standard_normal((6, 3))}
    nodes = [
        make("MatMul", ["input", "a"], ["h"]),
        make("Relu", ["h"], ["r"]),
        make("MatMul", ["r", "b"], ["output"]),
    ]
    model = in_precision(model_of(nodes, weights, (["N", 5, 4], ["N", 5, 3])), TensorProto.DOUBLE)
    explained = Explainer(model, preset="paper", layout="NTC", providers="cpu").explain(
        rng.standard_normal((1, 5, 4)), 2
    )[0]
    assert explained.relevance.shape == (5,)
    assert explained.relevance.sum() == pytest.approx(explained.score, rel=1e-5)


def test_a_float64_convolution_is_refused_with_what_to_do() -> None:
    model = in_precision(two_nodes(), TensorProto.DOUBLE)
    with pytest.raises(InvalidModelError) as caught:
        Explainer(model, providers="cpu").explain(data_for((1, 1, 4, 4)))
    assert str(caught.value) == (
        "ONNX Runtime cannot load the model: Could not find an implementation for Conv(11) node with name 'conv'. "
        "If its numbers are float64, export the model in float32"
    )


def test_a_uint8_picture_that_is_cast_inside_explains_like_its_float_twin() -> None:
    model = small_cnn()
    model.graph.node[0].input[0] = "real"
    model.graph.node.insert(0, make("Cast", ["input"], ["real"], name="cast", to=TensorProto.FLOAT))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    data = np.random.default_rng(0).integers(0, 255, (1, 3, 32, 32)).astype(np.uint8)
    np.testing.assert_array_equal(relevance(model, data), relevance(small_cnn(), data.astype(np.float32)))


def group_norm(constant: bool = False) -> onnx.ModelProto:
    """Conv, GroupNormalization in two groups (of the input or of a constant), Conv, GlobalAveragePool, Gemm."""
    weights: dict[str, Array] = {
        "w": data_for((4, 1, 3, 3)),
        "scale": data_for((4,), 1),
        "shift": data_for((4,), 2),
        "fixed": data_for((1, 4, 2, 2), 3),
        "fc": data_for((4, 3), 4),
    }
    attrs: dict[str, Any] = {"num_groups": 2, "epsilon": 0.1}
    nodes = [
        make("Conv", ["input", "w"], ["c"], name="conv"),
        make(
            "GroupNormalization", ["fixed" if constant else "c", "scale", "shift"], ["g"], name="gn", **attrs
        ),
        make("Add", ["g", "c"], ["a"], name="add"),
        make("MaxPool", ["a"], ["m"], name="pool", kernel_shape=[2, 2]),
        make("GlobalAveragePool", ["m"], ["p"], name="gap"),
        make("Flatten", ["p"], ["f"], name="flatten"),
        make("Gemm", ["f", "fc"], ["output"], name="fc"),
    ]
    return model_of(nodes, weights, (["N", 1, 4, 4], ["N", 3]), 21)


def test_a_group_normalization_stays_one_node_of_known_shape() -> None:
    model, data = load_model(group_norm()).proto, data_for((1, 1, 4, 4))
    simplified, graph = simplify(model, {"input": (1, 1, 4, 4)})
    (node,) = (node for node in graph.nodes if node.key.op_type == "GroupNormalization")
    assert node.output().shape == (1, 4, 2, 2)
    assert dict(node.attrs) == {"num_groups": 2, "epsilon": pytest.approx(0.1), "stash_type": 1}
    np.testing.assert_allclose(plain(simplified, data)[0], plain(model, data)[0], rtol=1e-5, atol=1e-5)
    explained = Explainer(model, preset="paper", providers="cpu").explain(data, 1)[0]
    assert explained.relevance.shape == (4, 4)
    assert explained.residual == pytest.approx(0, abs=1e-5)


def test_a_group_normalization_of_a_constant_is_folded_as_what_it_is() -> None:
    model, data = load_model(group_norm(constant=True)).proto, data_for((1, 1, 4, 4))
    simplified, graph = simplify(model, {"input": (1, 1, 4, 4)})
    assert all(node.name for node in graph.nodes)
    assert len({node.name for node in graph.nodes}) == len(graph.nodes)
    np.testing.assert_allclose(plain(simplified, data)[0], plain(model, data)[0], rtol=1e-5, atol=1e-5)
    assert Explainer(model, preset="paper", providers="cpu").explain(data, 1)[0].residual == pytest.approx(
        0, abs=1e-5
    )
