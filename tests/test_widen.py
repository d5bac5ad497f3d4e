"""Half precision written as float32: scores are those of the original but for rounding, maps those of float32."""

from typing import Any

import numpy as np
import onnx
import pytest
from ml_dtypes import bfloat16
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from srd_onnx import Explainer, zoo
from srd_onnx.check import check_model
from srd_onnx.errors import InvalidModelError, ModelTooLargeError
from srd_onnx.graph import widen
from srd_onnx.graph.load import load_model
from srd_onnx.graph.widen import widened
from srd_onnx.ort.runtime import CPU, CUDA
from tests.cli_tools import run
from tests.nets import model_of
from tests.test_half import X, halves, net

B16, F16, F32 = TensorProto.BFLOAT16, TensorProto.FLOAT16, TensorProto.FLOAT


def rounded(model: onnx.ModelProto, dtype: Any = bfloat16) -> onnx.ModelProto:
    """The model in float32 whose weights are numbers of half precision."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for tensor in (one for one in found.graph.initializer if one.data_type == F32):
        array = numpy_helper.to_array(tensor).astype(dtype).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return found


def explained(model: onnx.ModelProto, x: Any = X, **options: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scores [N, 5] and maps [N, H, W] of class 3."""
    found = Explainer(model, providers="cpu", layout="NCHW", **options).explain(x, 3)
    return np.stack([one.logits for one in found]), np.stack([one.relevance for one in found])


def referred(model: onnx.ModelProto, x: NDArray[Any]) -> NDArray[Any]:
    """The scores by onnx.reference, which rounds every tensor to the type that the model says."""
    found: Any = ReferenceEvaluator(model).run(None, {"input": x})
    return np.asarray(found[0])


def check_scores(found: NDArray[Any], original: onnx.ModelProto) -> None:
    """bfloat16 has 8 bits."""
    rough = referred(original, X.astype(bfloat16))
    assert rough.dtype == bfloat16
    wanted = rough.astype(np.float32)
    np.testing.assert_allclose(found, wanted, atol=4 * 2**-8 * np.abs(wanted).max())


@pytest.mark.parametrize("preset", ["paper", "joint"])
def test_bfloat16_is_explained_as_the_same_model_in_float32(preset: str) -> None:
    original = halves(net(1, 10), B16)
    scores, maps = explained(original, preset=preset)
    check_scores(scores, original)
    same, single = explained(rounded(net(1, 10)), preset=preset)
    np.testing.assert_array_equal(scores, same)
    np.testing.assert_array_equal(maps, single)
    # The numbers of the file are meant: weights that were never rounded lead to other maps.
    assert (explained(net(1, 10), preset=preset)[1] != maps).any()


def test_the_check_of_the_scores_notices_another_weight() -> None:
    original, other = halves(net(1, 10), B16), rounded(net(1, 10))
    weights = numpy_helper.to_array(other.graph.initializer[-1]) * np.float32(1.05)
    other.graph.initializer[-1].CopyFrom(numpy_helper.from_array(weights, other.graph.initializer[-1].name))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_scores(explained(other)[0], original)


def test_it_takes_float32_and_bfloat16_arrays() -> None:
    original = halves(net(1, 10), B16)
    near = X.astype(bfloat16).astype(np.float32)
    for given in (X.astype(bfloat16), {"input": X.astype(bfloat16)}):
        np.testing.assert_array_equal(explained(original, given)[1], explained(original, near)[1])


def test_a_photo_through_a_real_model(tmp_path: Any) -> None:
    entry = zoo.find("squeezenet11")
    assert entry is not None
    path = tmp_path / "model.onnx"
    onnx.save(halves(onnx.load(entry.path), B16), path)
    single = Explainer("squeezenet11", providers="cpu").explain(zoo.sample_photo())[0]
    found = Explainer(path, preprocess=entry.preprocess, providers="cpu").explain(zoo.sample_photo())[0]
    assert found.target == single.target
    assert found.score == pytest.approx(single.score, rel=0.02)
    assert np.corrcoef(found.relevance.ravel(), single.relevance.ravel())[0, 1] > 0.99
    assert found.warnings == single.warnings


def spelt_out(kind: int) -> onnx.ModelProto:
    """Everything that names an element type: constants, Casts, an If with bodies, an inner tensor, a local function."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)

    def constant(name: str, *numbers: float) -> onnx.NodeProto:
        value = numpy_helper.from_array(np.array(numbers, dtype).reshape(1, -1, 1, 1), "value")
        return helper.make_node("Constant", [], [name], name=name, value=value)

    def body(name: str, operator: str) -> onnx.GraphProto:
        nodes = [constant(f"{name}_c", 0.3, 0.7, 1.1), helper.make_node(operator, ["h", f"{name}_c"], [name])]
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(name, kind, None)])

    nodes = [
        helper.make_node("Cast", ["input"], ["x"], name="narrow", to=kind),
        constant("c", 1.3, -0.4, 0.1),
        helper.make_node("Add", ["x", "c"], ["a"], name="add"),
        helper.make_node("CastLike", ["a", "c"], ["b"], name="alike"),
        helper.make_node("Twice", ["b"], ["h"], name="twice", domain="local"),
        helper.make_node("EyeLike", ["three"], ["eye"], dtype=kind, name="eye"),
        helper.make_node(
            "If", ["is"], ["g"], name="if", then_branch=body("t", "Add"), else_branch=body("e", "Sub")
        ),
        helper.make_node("GlobalAveragePool", ["g"], ["p"], name="mean"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "eye"], ["s"], name="eyed"),
        helper.make_node("MatMul", ["s", "w"], ["o"], name="fc"),
        helper.make_node("Cast", ["o"], ["output"], name="wide", to=F32),
    ]
    weights: dict[str, NDArray[np.generic]] = {
        "w": np.asarray(1 + np.arange(15).reshape(3, 5) / 7, np.float32),
        "is": np.array(True),
        "three": np.zeros((3, 3), np.int64),
    }
    model = model_of(nodes, weights, ([2, 3, 16, 16], [2, 5]), opset=21)
    for tensor in model.graph.initializer:
        if tensor.data_type == F32:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    twice = helper.make_node("Add", ["v", "v"], ["u"])
    imports = [helper.make_opsetid("", 21)]
    model.functions.append(helper.make_function("local", "Twice", ["v"], ["u"], [twice], imports))
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.graph.value_info.append(helper.make_tensor_value_info("a", kind, [2, 3, 16, 16]))
    return model


def test_every_place_that_names_a_type() -> None:
    scores, maps = explained(spelt_out(B16))
    # A mean over 256 positions, rounded at each sum.
    np.testing.assert_allclose(scores, referred(spelt_out(B16), X), rtol=0.04)
    same, single = explained(rounded(spelt_out(F32)))
    np.testing.assert_allclose(scores, same, rtol=0.01)  # whose constants in nodes were never rounded
    np.testing.assert_allclose(maps, single, atol=0.01 * np.abs(single).max())


def left(model: onnx.ModelProto) -> set[str]:
    """Where a serialised model still says bfloat16: by another way than the pass's own, through all its text."""
    return {line.strip() for line in str(model).splitlines() if line.strip() in _SAID}


_SAID = {f"{name}: {B16}" for name in ("elem_type", "data_type", "i")}


def test_nothing_of_it_is_left_and_what_is_forgotten_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_model(spelt_out(B16))
    assert left(loaded.proto) == _SAID
    wide = widened(loaded, CPU)
    assert not left(wide.proto)
    assert left(loaded.proto) == _SAID  # as it was
    assert [node.name for node in wide.proto.graph.node] == [node.name for node in loaded.proto.graph.node]
    assert wide.sha256 == loaded.sha256
    monkeypatch.setattr(widen, "TYPES", {"dtype"})
    assert left(widened(loaded, CPU).proto)
    with pytest.raises(InvalidModelError):
        explained(spelt_out(B16))


def test_the_known_attributes_are_all_that_the_standard_has() -> None:
    """Those that say so in the standard's own words; `mode` attributes say so of something else."""
    asked = {
        name
        for schema in onnx.defs.get_all_schemas_with_history()
        for name, attribute in schema.attributes.items()
        if attribute.type == onnx.defs.OpSchema.AttrType.INT and "mode" not in name
        and any(word in attribute.description.lower() for word in ("data type", "datatype", "dtype", "precision"))
    }  # fmt: skip
    assert asked == widen.TYPES


def test_float16_keeps_the_names_of_the_file_on_the_cpu_and_itself_elsewhere() -> None:
    half = halves(net(1, 10), F16)
    plan = Explainer(half, providers="cpu", layout="NCHW", preset="paper").plan
    assert plan.boundary == ("m",)
    assert [step.node.name for step in plan.steps][:4] == ["fc", "flatten", "mean", "pool"]
    loaded = load_model(half)
    assert widened(loaded, CUDA) is loaded
    bfloat16_too = load_model(halves(net(1, 10), B16))
    assert widened(bfloat16_too, CUDA).half == widened(bfloat16_too, CPU).half


def test_a_model_of_float32_is_left_alone() -> None:
    loaded = load_model(net(1, 10))
    assert widened(loaded, CPU) is loaded
    assert loaded.precision is None


def test_bits_are_refused() -> None:
    model = halves(net(1, 10), B16)
    model.opset_import[0].version = 26
    model.graph.node.append(helper.make_node("BitCast", ["c1"], ["bits"], name="bits", to=TensorProto.INT16))
    loaded = load_model(halves(net(1, 10), B16))
    loaded.proto.graph.node.extend(model.graph.node[-1:])
    with pytest.raises(InvalidModelError, match="BitCast, node 'bits': in a model of bfloat16"):
        widened(loaded, CPU)


def test_what_would_pass_2_gb_is_refused_or_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widen, "LIMIT", 100_000)
    with pytest.raises(ModelTooLargeError, match=r"its bfloat16 is computed in float32, in which it has"):
        widened(load_model(halves(net(1, 10), B16)), CPU)
    float16 = load_model(halves(net(1, 10), F16))
    assert widened(float16, CPU) is float16


def test_it_is_said(tmp_path: Any) -> None:
    said = "bfloat16 is computed in float32: results are not rounded to bfloat16 between the nodes"
    path = tmp_path / "half.onnx"
    onnx.save(halves(net(1, 10), B16), path)
    explainer = Explainer(path, providers="cpu", layout="NCHW")
    assert explainer.explain(X)[0].meta["precision"] == said
    report = check_model(explainer)
    assert report.precision == said
    assert [one.dtype for one in (*report.inputs, *report.outputs)] == ["bfloat16", "bfloat16"]
    assert report.parameters == check_model(Explainer(net(1, 10), providers="cpu", layout="NCHW")).parameters
    result = run("check", path, "--layout", "NCHW")
    assert result.exit_code == 0
    assert said in " ".join(result.stderr.split())


def test_data_that_does_not_fit_its_shape_is_told() -> None:
    model = model_of(
        [helper.make_node("Add", ["input", "b"], ["output"])], {"b": np.ones(4, np.float32)}, ([1, 4], [1, 4])
    )
    model.graph.initializer[0].data_type = TensorProto.BFLOAT16  # of twice as many bytes
    with pytest.raises(
        InvalidModelError, match=r"^tensor 'b': its data does not fit its shape \[4\] and type bfloat16"
    ):
        Explainer(model, providers="cpu")
