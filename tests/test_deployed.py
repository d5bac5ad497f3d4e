"""Quantised models: what is explained are the numbers of the file, and where the deployed model differs it is said."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from srd_onnx import Explainer
from srd_onnx.graph.simplify import simplify
from srd_onnx.ort.deployed import as_deployed, is_quantised, tops_of, with_weights_of
from srd_onnx.ort.forward import forward_of
from srd_onnx.ort.runtime import CPU, make_session, run
from srd_onnx.targets import At, Contrast
from tests.harness import reference
from tests.nets import model_of

Array = NDArray[Any]
ROUNDING = 2e-4  # three numbers of 64 that go to the other step, behind the mean
X: Array = np.random.default_rng(3).uniform(-1, 1, (4, 3, 8, 8)).astype(np.float32)
METHODS = ("srd", "saliency", "gradcam", "scorecam", "rise:masks=4")


def net(*, float_weights: bool = False) -> ModelProto:
    """Two quantised convolutions and a mean; the weights of the last channels are a hundredth of the first one's.

    Weights are int8 with a scale for each channel, or the same numbers in float.
    """
    rng, nodes = np.random.default_rng(0), []
    small = np.array([1, 0.01, 0.01, 0.01])
    scales = {"first": small * 0.02, "second": np.full(4, 0.01)}
    whole = {
        "first": rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
        "second": rng.integers(-127, 128, (4, 4, 1, 1)).astype(np.int8),
    }
    # The first channel speaks for no class: the scores are those of the small ones, enlarged again.
    whole["second"][:, 0] = 0
    stored: dict[str, Array] = {"zero": np.array(0, np.int8), "zeros": np.zeros(4, np.int8)}

    def pair(real: str, name: str, scale: float) -> str:
        stored[f"{name}/scale"] = np.array(scale, np.float32)
        nodes.append(
            helper.make_node(
                "QuantizeLinear", [real, f"{name}/scale", "zero"], [f"{name}/q"], name=f"{name}/Q"
            )
        )
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}/q", f"{name}/scale", "zero"], [name], name=name)
        )
        return name

    def weights(name: str) -> str:
        real = (whole[name] * scales[name].reshape(4, 1, 1, 1)).astype(np.float32)
        if float_weights:
            stored[f"{name}/w"] = real
        else:
            stored[f"{name}/words"], stored[f"{name}/each"] = whole[name], scales[name].astype(np.float32)
            inputs = [f"{name}/words", f"{name}/each", "zeros"]
            nodes.append(
                helper.make_node("DequantizeLinear", inputs, [f"{name}/w"], name=f"{name}/W", axis=0)
            )
        return f"{name}/w"

    h = pair("input", "in", 1 / 127)
    nodes.append(helper.make_node("Conv", [h, weights("first")], ["c"], name="conv1", pads=[1, 1, 1, 1]))
    h = pair("c", "hidden", 0.004)
    nodes.append(helper.make_node("Conv", [h, weights("second")], ["d"], name="conv2"))
    h = pair("d", "late", 0.004)
    nodes.append(helper.make_node("GlobalAveragePool", [h], ["p"], name="pool"))
    nodes.append(helper.make_node("Flatten", ["p"], ["output"], name="flatten"))
    return model_of(nodes, stored, (["N", 3, 8, 8], ["N", 4]), opset=19)


def expected(model: ModelProto) -> Array:
    """By onnx's own reference."""
    return np.concatenate([reference(model, {"input": x[None]}, ["output"])[0] for x in X])


def explainer(model: ModelProto, method: str = "srd", **options: Any) -> Explainer:
    return Explainer(model, method=method, layout="NCHW", providers="cpu", threads=1, **options)


def alone(model: bytes, *, fused: bool = True) -> Array:
    """By ONNX Runtime, as anybody runs a file; not fused, each node by itself."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not fused:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model, options, providers=[CPU])
    return np.concatenate([run(session, ["output"], {"input": x[None]})[0] for x in X])


@pytest.mark.parametrize("float_weights", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_the_numbers_of_the_file(method: str, *, float_weights: bool) -> None:
    model = net(float_weights=float_weights)
    found = np.array([one.logits for one in explainer(model, method).explain(X, 0)])
    np.testing.assert_allclose(found, expected(model), atol=ROUNDING)
    np.testing.assert_allclose(forward_of(explainer(model))(X), expected(model), atol=ROUNDING)


def test_weights_that_onnx_runtime_quantises_anew_would_be_noticed() -> None:
    model = net()
    simplified, _ = simplify(model, {"input": (1, 3, 8, 8)})
    session = make_session(simplified.SerializeToString(), [CPU], as_written=False)
    wrong = np.concatenate([session.run(None, {"input": x[None]})[0] for x in X])
    assert np.abs(wrong - expected(model)).max() > 10 * ROUNDING


def test_a_compiled_file_gives_the_numbers_of_the_original_and_has_its_weights() -> None:
    model = net()
    compiled = explainer(model, preset="paper").compile()
    np.testing.assert_allclose(alone(compiled.SerializeToString()), expected(model), atol=ROUNDING)
    stored = {t.name: numpy_helper.to_array(t) for t in compiled.graph.initializer}
    for one in model.graph.initializer:
        if one.name.endswith("/words"):
            np.testing.assert_array_equal(stored[one.name], numpy_helper.to_array(one))
    assert not {"first/w", "second/w"} & set(stored)
    own = explainer(model, preset="paper").explain(X[:1], 1)[0].relevance
    session = make_session(compiled.SerializeToString(), [CPU])
    (theirs,) = session.run(["relevance"], {"input": X[:1], "target": np.array([1])})
    np.testing.assert_allclose(theirs[0], own, atol=1e-4 * np.abs(own).max())
    onnx.checker.check_model(compiled, full_check=True)


def test_weights_that_something_was_folded_into_stay() -> None:
    model = net()
    simplified, _ = simplify(model, {"input": (1, 3, 8, 8)})
    changed = ModelProto()
    changed.CopyFrom(simplified)
    (weights,) = (t for t in changed.graph.initializer if t.name == "first/w")
    weights.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(weights), "first/w"))
    before = alone(changed.SerializeToString(), fused=False)
    restored = with_weights_of(model, changed)
    names = {t.name for t in restored.graph.initializer}
    assert "first/w" in names
    assert "second/w" not in names
    assert "second/words" in names
    np.testing.assert_allclose(alone(restored.SerializeToString(), fused=False), before, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_another_prediction_of_the_deployed_model_is_a_warning(method: str) -> None:
    model = net(float_weights=True)
    tops = alone(model.SerializeToString()).argmax(axis=1)
    found = explainer(model, method).explain(X)
    assert [one.target for one in found] == list(expected(model).argmax(axis=1))
    differ = [bool(one.target != top) for one, top in zip(found, tops, strict=True)]
    assert 0 < sum(differ) < len(X)
    for one, other, top in zip(found, differ, tops, strict=True):
        said = f"run alone, in integer kernels, the model predicts class {top}."
        assert [said in text for text in one.warnings if "hangs on rounding" in text] == [True] * other
        assert one.meta.get("deployed", {}).get("index") == (top if other else None)


def test_it_is_said_of_many_targets_and_of_classes_only() -> None:
    one = explainer(net(float_weights=True))
    assert all("deployed" in each.meta for each in one.explain(X[1:2], [0, 1, 2, 3]))
    assert all("deployed" in each.meta for each in one.explain(X[1:2], Contrast(2, 3)))
    assert not any("deployed" in each.meta for each in one.explain(X[1:2], At("d", 1)))


def test_a_model_that_agrees_is_not_warned_of_and_one_without_integers_not_run() -> None:
    found = explainer(net()).explain(X)
    assert not any("rounding" in text for one in found for text in one.warnings)
    plain = model_of(
        [helper.make_node("Relu", ["input"], ["output"], name="r")], {}, (["N", 3, 8, 8], ["N", 3, 8, 8])
    )
    assert not is_quantised(plain)
    assert as_deployed(explainer(plain)) is None
    assert is_quantised(net())


def test_equal_scores_are_no_other_prediction() -> None:
    def label(_: int) -> None:
        return None

    scores = np.array([1.0, 2.0, 3.0])
    assert "deployed" not in tops_of(scores, None, label)
    assert "deployed" not in tops_of(scores, np.array([0.0, 5.0, 5.0]), label)
    assert "deployed" not in tops_of(scores, np.array([9.0, 1.0]), label)  # of other things than classes
    assert tops_of(scores, np.array([0.0, 5.0, 4.0]), label)["deployed"]["index"] == 1
