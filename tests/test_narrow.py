"""float16 folded in float32 and written back: every tensor has the type that it had, and nearly the same numbers."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from srd_onnx import zoo
from srd_onnx.graph import narrow
from srd_onnx.graph.load import load_model
from srd_onnx.graph.narrow import folded_in_half
from srd_onnx.graph.simplify import optimised, simplify
from tests.nets import model_of
from tests.test_half import X, halves, net

F16, F32 = TensorProto.FLOAT16, TensorProto.FLOAT
CHANNELS = 6


def mixed() -> onnx.ModelProto:
    """Of float16 between float32 ends, with a norm that is computed in float32 by Casts; much of it folds."""
    rng = np.random.default_rng(5)

    def half(*shape: int) -> NDArray[np.float16]:
        return (rng.standard_normal(shape) / 2).astype(np.float16)

    stored: dict[str, NDArray[np.generic]] = {
        "w1": half(CHANNELS, 3, 3, 3),
        "scale": half(CHANNELS),
        "shift": half(CHANNELS),
        "mean": half(CHANNELS),
        "var": np.abs(half(CHANNELS)) + np.float16(0.5),
        "low": np.array(0, np.float16),
        "high": np.array(6, np.float16),
        "sizes": np.array([1, 1, 2, 2], np.float32),
        "w2": half(CHANNELS, CHANNELS, 1, 1),
        "gain": (1 + half(CHANNELS) / 4).astype(np.float32),
        "fc": half(CHANNELS, 5),
        "two": np.array(2, np.float16),
        "axes": np.array([1, 2], np.int64),
        "long": np.array([1], np.int64),
    }
    fill = numpy_helper.from_array(np.array([0.25], np.float16), "value")
    nodes = [
        helper.make_node("Cast", ["input"], ["x"], name="narrow", to=F16),
        helper.make_node("Conv", ["x", "w1"], ["c1"], name="conv1", pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c1", "scale", "shift", "mean", "var"], ["n1"], name="norm1"),
        helper.make_node("Clip", ["n1", "low", "high"], ["r1"], name="clip"),
        helper.make_node("Resize", ["r1", "", "sizes"], ["big"], name="resize", mode="nearest"),
        helper.make_node("Conv", ["big", "w2"], ["c2"], name="conv2"),
        helper.make_node("Transpose", ["c2"], ["t"], name="last", perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["t"], ["t32"], name="widen", to=F32),
        helper.make_node("LayerNormalization", ["t32", "gain"], ["ln"], name="norm2"),
        helper.make_node("Cast", ["ln"], ["l16"], name="again", to=F16),
        helper.make_node("Mul", ["l16", "two"], ["l2"], name="twice"),
        helper.make_node("Greater", ["l2", "low"], ["on"], name="on"),
        helper.make_node("Cast", ["on"], ["count"], name="count", to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["count"], ["one"], name="most", keepdims=0),
        helper.make_node("Reshape", ["one", "long"], ["size"], name="size"),
        helper.make_node("ConstantOfShape", ["size"], ["quarter"], name="fill", value=fill),
        helper.make_node("Where", ["on", "l2", "quarter"], ["g"], name="gate"),
        helper.make_node("Cast", ["on"], ["real"], name="real", to=F16),
        helper.make_node("Add", ["g", "real"], ["a"], name="add"),
        helper.make_node("ReduceMean", ["a", "axes"], ["m"], name="mean", keepdims=0),
        helper.make_node("MatMul", ["m", "fc"], ["s"], name="fc"),
        helper.make_node("Cast", ["s"], ["output"], name="wide", to=F32),
    ]
    return model_of(nodes, stored, ([2, 3, 16, 16], [2, 5]), opset=18)


def types(model: onnx.ModelProto) -> dict[str, int]:
    """The type of every tensor; fails where a node does not take those that it is given."""
    onnx.checker.check_model(model, full_check=True)
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    found = {tensor.name: tensor.data_type for tensor in graph.initializer}
    return found | {
        v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)
    }


def check(folded: onnx.ModelProto, original: onnx.ModelProto, x: NDArray[Any]) -> None:
    own, there = types(original), types(folded)
    kept = own.keys() & there.keys()
    assert {name: own[name] for name in kept} == {name: there[name] for name in kept}
    assert not any("InsertedPrecisionFree" in name for name in there)
    runs: list[Any] = [ReferenceEvaluator(model).run(None, {"input": x}) for model in (original, folded)]
    scores, again = (found[0].astype(np.float64) for found in runs)
    np.testing.assert_allclose(again, scores, atol=8 * 2**-11 * np.abs(scores).max())


MODELS = {"half": halves(net(1, 10)), "large": halves(net(100, 10)), "mixed": mixed()}


def given(model: onnx.ModelProto) -> NDArray[Any]:
    return X.astype(helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type))


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_has_the_type_that_it_had(name: str) -> None:
    model = MODELS[name]
    folded = folded_in_half(model, optimised)
    check(folded, model, given(model))
    assert len(folded.graph.node) <= len(model.graph.node)


def test_the_norm_is_folded_and_in_half() -> None:
    folded = folded_in_half(mixed(), optimised)
    assert "BatchNormalization" not in {node.op_type for node in folded.graph.node}
    (conv,) = (node for node in folded.graph.node if node.name == "conv1")
    found = types(folded)
    assert {found[name] for name in (*conv.input, *conv.output)} == {F16}
    (norm,) = (node for node in folded.graph.node if node.op_type == "LayerNormalization")
    assert {found[name] for name in (*norm.input, *norm.output)} == {F32}


def test_without_it_the_graph_is_full_of_casts() -> None:
    with pytest.raises(AssertionError):
        check(optimised(MODELS["half"]), MODELS["half"], given(MODELS["half"]))


@pytest.mark.parametrize("forgotten", [("_MADE", ()), ("_halved", lambda tensor: tensor)])
def test_the_check_notices_what_is_not_written_back(
    forgotten: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(narrow, *forgotten)
    with pytest.raises((onnx.checker.ValidationError, onnx.shape_inference.InferenceError)):
        check(folded_in_half(mixed(), optimised), mixed(), X)


def test_what_it_cannot_type_is_folded_as_it_is() -> None:
    model = halves(net(1, 10))
    model.graph.node[1].domain, model.graph.node[1].op_type = "com.microsoft", "QuickGelu"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    seen: list[onnx.ModelProto] = []

    def fold(one: onnx.ModelProto) -> onnx.ModelProto:
        seen.append(one)
        return one

    assert folded_in_half(model, fold) is model
    assert [one is model for one in seen] == [True]
    single = net(1, 10)
    assert folded_in_half(single, lambda one: one) is single


def test_a_real_model_in_float16() -> None:
    entry = zoo.find("efficientnet_lite0")
    assert entry is not None
    model = load_model(halves(onnx.load(entry.path))).proto
    folded, graph = simplify(model, {model.graph.input[0].name: (1, 3, 224, 224)})
    assert {value.dtype for value in graph.values.values() if value.is_float} == {np.dtype(np.float16)}
    single, same = simplify(load_model(entry.path).proto, {model.graph.input[0].name: (1, 3, 224, 224)})
    assert [node.name for node in graph.nodes] == [node.name for node in same.nodes]
    assert [node.origins for node in graph.nodes] == [node.origins for node in same.nodes]
    assert len(folded.graph.node) == len(single.graph.node)
