"""Half precision: norms do not overflow, small relevance does not underflow, and the map is that of the float32 model.

ONNX Runtime's CPU provider computes float16 in float32 wherever it has no kernel, which hides both. So the emitted
model is also evaluated by onnx.reference, which rounds every tensor to float16.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from graph_rules import RULES
from srd_onnx import Explainer, subject, zoo
from srd_onnx.engine import half as half_precision
from srd_onnx.engine import mixing
from srd_onnx.engine.assemble import combined, pruned
from srd_onnx.engine.backward import build
from srd_onnx.engine.compiling import relevance_outputs
from srd_onnx.engine.options import Options
from srd_onnx.engine.plan import Plan, make_plan
from srd_onnx.engine.rule import RuleTable
from srd_onnx.graph.roles import parse_layout
from srd_onnx.graph.walk import walk
from srd_onnx.sanity import warnings_of
from srd_onnx.sharing.ratios import LayerRatios, decoded, ratio_model
from tests.nets import model_of

SIDE, CHANNELS = 16, 64
X = np.random.default_rng(0).uniform(0, 1, (2, 3, SIDE, SIDE)).astype(np.float32)


def halves(model: onnx.ModelProto, kind: int = TensorProto.FLOAT16) -> onnx.ModelProto:
    """The model in float16, or bfloat16."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    half = onnx.ModelProto()
    half.CopyFrom(model)
    attributes = (a for node in half.graph.node for a in node.attribute)
    constants = [a.t for a in attributes if a.type == a.TENSOR]
    for tensor in (*half.graph.initializer, *constants):
        if tensor.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor).astype(dtype)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for value in (*half.graph.input, *half.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = kind
    del half.graph.value_info[:]
    return half


def net(gain: float, score: float) -> onnx.ModelProto:
    """Two convolutions with activations around `gain`, a sum, a pooling; scores around `score`."""
    rng = np.random.default_rng(1)

    def weights(out: int, into: int, scale: float) -> NDArray[np.float32]:
        drawn = rng.standard_normal((out, into, 3, 3)) * scale / np.sqrt(9 * into)
        return np.asarray(drawn, np.float32)

    stored: dict[str, NDArray[np.generic]] = {
        "w1": weights(CHANNELS, 3, gain),
        "b1": (rng.standard_normal(CHANNELS) * gain / 10).astype(np.float32),
        "w2": weights(CHANNELS, CHANNELS, 1),
        "fc": (rng.standard_normal((CHANNELS, 5)) * score / gain).astype(np.float32),
    }
    same: dict[str, Any] = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["input", "w1", "b1"], ["c1"], name="conv1", **same),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="conv2", **same),
        helper.make_node("Add", ["c2", "r1"], ["a"], name="add"),
        helper.make_node("Relu", ["a"], ["r2"], name="relu2"),
        helper.make_node("MaxPool", ["r2"], ["m"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["m"], ["g"], name="mean"),
        helper.make_node("Flatten", ["g"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "fc"], ["output"], name="fc"),
    ]
    return model_of(nodes, stored, ([2, 3, SIDE, SIDE], [2, 5]), opset=18)


def planned(model: onnx.ModelProto, rules: RuleTable = RULES, bias: Any = "distribute") -> Plan:
    graph = walk(onnx.shape_inference.infer_shapes(model, data_prop=True))
    axes = parse_layout("NCHW", "input", [2, 3, SIDE, SIDE])
    return make_plan(graph, {"input": axes}, rules, Options(bias=bias))


def evaluated(model: onnx.ModelProto, **feeds: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What onnx.reference computes, node by node, of X in the model's own precision."""
    dtype = helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
    names = [output.name for output in model.graph.output]
    with np.errstate(all="ignore"):
        found: Any = ReferenceEvaluator(model).run(names, {"input": X.astype(dtype), **feeds})
    return dict(zip(names, found, strict=True))


def referred(model: onnx.ModelProto, bias: Any = "distribute") -> NDArray[np.floating]:
    plan = planned(model, bias=bias)
    backward = build(plan)
    whole = pruned(combined(model, backward, relevance_outputs(plan, backward)))
    onnx.checker.check_model(whole, full_check=True)
    return evaluated(whole, target=np.array([3, 1]))["relevance"]


# Squared norms of activations of 100 pass 65504; what is expanded of a score of 0.1 over 256 positions, divided by the
# length of a PFV, is around 1e-7.
CASES = {"usual": (1.0, 10.0), "large": (100.0, 10.0), "faint": (500.0, 0.1)}


@pytest.mark.parametrize("bias", ["distribute", "ledger"])
@pytest.mark.parametrize("case", CASES)
def test_the_map_in_half_precision_is_that_in_single(case: str, bias: str) -> None:
    model = net(*CASES[case])
    single, half = referred(model, bias), referred(halves(model), bias)
    assert half.dtype == np.float32
    scale = np.abs(single).max()
    np.testing.assert_allclose(half / scale, single / scale, atol=0.02)


def test_without_it_the_norms_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half_precision, "is_half", lambda _: False)
    model = net(*CASES["large"])
    single, half = referred(model), referred(halves(model))
    with pytest.raises(AssertionError, match=r"Not equal|nan location"):
        np.testing.assert_allclose(half, single, atol=0.02 * np.abs(single).max())


def test_without_a_unit_small_relevance_underflows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "_longest", lambda emit, node, *_: emit.like(node.output(), [1.0]))
    model = net(*CASES["faint"])
    single, half = referred(model), referred(halves(model))
    with pytest.raises(AssertionError, match="Not equal"):
        np.testing.assert_allclose(half, single, atol=0.02 * np.abs(single).max())


# Of the Add by its parts, of the windows by their taps; or of everything by its VJP, comb by comb.
WAYS = {
    "as emitted": RULES,
    "by VJP": {key: replace(rule, taps=None, parts=None) for key, rule in RULES.items()},
}


def layers_of(model: onnx.ModelProto, rules: RuleTable) -> tuple[LayerRatios, ...]:
    made = ratio_model(planned(model, rules), model)
    return decoded(made, evaluated(made.model))


def check_layers(case: str, rules: RuleTable) -> None:
    model = net(*CASES[case])
    for one, other in zip(layers_of(model, rules), layers_of(halves(model), rules), strict=True):
        np.testing.assert_allclose(other.total, 1, atol=1e-3)
        if one.op.startswith("ai.onnx::MaxPool"):
            continue  # of equal numbers another one wins
        for own, there in zip(one.incoming, other.incoming, strict=True):
            np.testing.assert_array_equal(there.feeds.parts, own.feeds.parts)
            np.testing.assert_allclose(there.taps, own.taps, atol=1e-3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_ratios_in_half_precision_are_those_in_single(case: str, way: str) -> None:
    check_layers(case, WAYS[way])


@pytest.mark.parametrize("way", WAYS)
def test_without_it_the_norms_of_ratios_overflow(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half_precision, "is_half", lambda _: False)
    with pytest.raises(AssertionError, match="nan location"):
        check_layers("large", WAYS[way])


@pytest.mark.parametrize("case", CASES)
def test_many_targets_fields_and_the_forward_pass_agree_with_single(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of float16 as it is elsewhere than on the CPU: what has a kernel here stays so, the rest is between Casts."""
    monkeypatch.setattr(subject, "widened", lambda loaded, _: loaded)
    model = net(*CASES[case])
    single, half = (
        Explainer(m, providers="cpu", preset="paper", layout="NCHW") for m in (model, halves(model))
    )

    def check(found: NDArray[Any], wanted: NDArray[Any], part: float = 0.02) -> None:
        np.testing.assert_allclose(found, wanted, atol=part * np.abs(wanted).max())

    for explain in (Explainer.explain, Explainer.explain_forward):
        every = (explain(one, X, [0, 1, 2, 3, 4]) for one in (single, half))
        for one, other in zip(*every, strict=True):
            check(other.relevance, one.relevance)
            assert abs(other.residual) <= 2e-3 * np.abs(other.logits).max()
    for own, there in zip(single.erf(X), half.erf(X), strict=True):
        check(there.maps, own.maps, 0.04)  # of numbers that float16 makes equal another one wins
    for decision, beside in zip(single.inside(X, 3), half.inside(X, 3), strict=True):
        for layer, same in zip(decision.shown, beside.shown, strict=True):
            assert same.relevance == pytest.approx(layer.relevance, rel=0.02, abs=0.02)
            assert same.active == (None if layer.active is None else pytest.approx(layer.active, abs=0.02))


def test_the_runtime_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "widened", lambda loaded, _: loaded)
    for gain, score in CASES.values():
        model = net(gain, score)
        options: dict[str, Any] = {"providers": "cpu", "preset": "paper", "layout": "NCHW"}
        single, half = (Explainer(m, **options).explain(X, 3) for m in (model, halves(model)))
        for one, other in zip(single, half, strict=True):
            scale = np.abs(one.relevance).max()
            np.testing.assert_allclose(other.relevance / scale, one.relevance / scale, atol=0.02)


@pytest.mark.parametrize("preset", ["paper", "joint"])
@pytest.mark.parametrize("name", ["squeezenet11", "efficientnet_lite0"])
def test_a_real_model(name: str, preset: str) -> None:
    entry = zoo.find(name)
    assert entry is not None
    half = halves(onnx.load(entry.path))
    options: dict[str, Any] = {"providers": "cpu", "preset": preset}
    single = Explainer(name, **options).explain(zoo.sample_photo())[0]
    found = Explainer(half, preprocess=entry.preprocess, **options).explain(
        zoo.sample_photo(), single.target
    )[0]
    assert found.score == pytest.approx(single.score, rel=2e-3)
    assert np.corrcoef(found.relevance.ravel(), single.relevance.ravel())[0, 1] > 0.99
    assert not any("miss the seed" in said for said in found.warnings)


def test_rounding_of_the_scores_is_no_error_and_more_is() -> None:
    assert not list(warnings_of(0.1, 0.09, 0.0, rounding=0.01))
    assert "miss the seed" in next(warnings_of(0.1, 0.05, 0.0, rounding=0.01))
    assert "miss the seed" in next(warnings_of(0.1, 0.09, 0.0))
