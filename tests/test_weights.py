"""Weights beside the model: the same model, without the copies."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from srd_onnx.explainer import Explainer
from srd_onnx.graph.simplify import simplify
from srd_onnx.ort.runtime import CPU, make_session
from srd_onnx.ort.weights import light, packing_pays
from tests.nets import model_of, small_cnn

X = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)


def outputs(model: onnx.ModelProto) -> list[np.ndarray]:
    found: list[np.ndarray] = make_session(model.SerializeToString(), [CPU]).run(None, {"input": X})
    return found


def test_a_light_model_is_the_same_model() -> None:
    model = small_cnn(channels=64)
    before = model.SerializeToString(deterministic=True)
    copy, weights = light(model)
    assert model.SerializeToString(deterministic=True) == before
    assert sum(array.nbytes for array in weights.values()) > 0.9 * len(before)
    data = copy.SerializeToString()
    assert len(data) < 0.1 * len(before)
    session = make_session(data, [CPU], weights=weights)
    del weights
    np.testing.assert_array_equal(session.run(None, {"input": X})[0], outputs(model)[0], strict=True)


def test_everything_else_of_the_model_is_there() -> None:
    model = small_cnn(channels=64)
    model.doc_string, model.model_version = "words", 3
    model.metadata_props.add(key="a", value="b")
    model.graph.value_info.append(helper.make_tensor_value_info("relu1", TensorProto.FLOAT, None))
    copy, weights = light(model)
    for tensor in copy.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    assert copy == model


def test_arrays_at_hand_are_taken() -> None:
    model = small_cnn(channels=64)
    known = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    _, weights = light(model, known)
    assert weights
    for name, array in weights.items():
        assert array is known[name] or array.base is known[name]


@pytest.mark.parametrize(
    ("node", "rows", "pays"),
    [("Gemm", 1, False), ("MatMul", 1, False), ("Gemm", 2, True), ("MatMul", 7, True), ("Relu", 7, False)],
)
def test_weights_are_laid_out_anew_for_more_than_one_row(node: str, rows: int, *, pays: bool) -> None:
    names = ["input"] if node == "Relu" else ["input", "w"]
    model = model_of(
        [helper.make_node(node, names, ["output"])],
        {"w": np.ones((5, 5), np.float32)},
        ([rows, 5], [rows, 5]),
    )
    assert packing_pays(simplify(model, {"input": (rows, 5)})[1]) is pays


def test_of_integers_they_always_are() -> None:
    explainer = Explainer("efficientnet_lite0", providers="cpu")
    assert not packing_pays(explainer.plan.graph)
    quantised = model_of(
        [helper.make_node("DynamicQuantizeLinear", ["input"], ["q", "s", "z"]),
         helper.make_node("DequantizeLinear", ["q", "s", "z"], ["output"])],
        {}, ([1, 5], [1, 5]))  # fmt: skip
    assert packing_pays(simplify(quantised, {"input": (1, 5)})[1])


def test_wrong_weights_are_seen() -> None:
    model = small_cnn(channels=64)
    copy, weights = light(model)
    spoilt = {name: array * np.float32(1.1) for name, array in weights.items()}
    found = make_session(copy.SerializeToString(), [CPU], weights=spoilt).run(None, {"input": X})[0]
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        np.testing.assert_allclose(found, outputs(model)[0], rtol=1e-5)


@pytest.mark.parametrize("kind", [TensorProto.BFLOAT16, TensorProto.INT4, TensorProto.BOOL])
def test_types_that_numpy_does_not_have_stay(kind: int) -> None:
    tensor = helper.make_tensor("w", kind, [2048], np.zeros(2048))
    graph = helper.make_graph([], "g", [], [], [tensor])
    copy, weights = light(helper.make_model(graph))
    assert not weights
    assert copy.graph.initializer[0] == tensor
