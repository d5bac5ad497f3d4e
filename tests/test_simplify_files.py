"""Files as exporters write them: every opset, weights wherever they are, other precisions."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from srd_onnx.errors import InvalidModelError
from srd_onnx.explainer import Explainer
from srd_onnx.graph.load import load_model
from srd_onnx.graph.simplify import simplify
from srd_onnx.ort.runtime import newest_opset
from tests.nets import model_of, small_cnn, two_nodes
from tests.test_simplify import Array, assert_same_map, data_for, make, plain, relevance


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
