"""Operators that onnx defines by others: written out where they have no rule, and reported by their own name."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from graph_rules import RULES
from srd_onnx import Explainer
from srd_onnx.engine.compiling import Case, plan_for
from srd_onnx.engine.options import Options
from srd_onnx.graph.fixed import with_fixed
from srd_onnx.graph.functions import origin, without_rule, write_out
from srd_onnx.graph.load import load_model
from srd_onnx.graph.roles import parse_layout
from srd_onnx.graph.simplify import simplify
from srd_onnx.ort.runtime import CPU, make_session, run
from tests.conformance import cases
from tests.nets import model_of

Array = NDArray[Any]
make = helper.make_node
DEFINED = (
    "AffineGrid",
    "CausalConvWithState",
    "NegativeLogLikelihoodLoss",
    "SoftmaxCrossEntropyLoss",
    "SwiGLU",
)


def of_operators() -> dict[str, Any]:
    """The recorded cases of these operators in single precision, by name."""
    found = {}
    for case in cases():
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in DEFINED:
            arrays = [*case.data_sets[0][0], *case.data_sets[0][1]]
            if all(np.asarray(a).dtype in (np.float32, np.int64) for a in arrays):
                found[case.name] = case
    return found


RECORDED = of_operators()


@pytest.mark.parametrize("name", RECORDED)
def test_what_is_written_out_computes_what_is_recorded(name: str) -> None:
    case = RECORDED[name]
    model, feeds = (
        case.model,
        dict(zip([i.name for i in case.model.graph.input], case.data_sets[0][0], strict=True)),
    )
    simplified, graph = simplify(
        load_model(model).proto, {k: np.shape(a) for k, a in feeds.items()}, rules=RULES
    )
    assert not {node.key.op_type for node in graph.nodes} & set(DEFINED)
    session = make_session(simplified.SerializeToString(), [CPU])
    used = {value.name for value in session.get_inputs()}
    results = run(
        session, [o.name for o in model.graph.output], {k: a for k, a in feeds.items() if k in used}
    )
    for got, want in zip(results, case.data_sets[0][1], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def data_for(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def gated(*, written: bool) -> ModelProto:
    """A gated perceptron on tokens, its gate in one node or in the three that it stands for."""
    weights: dict[str, Array] = {
        "up": data_for((4, 6)),
        "gate": data_for((4, 6), 1),
        "down": data_for((6, 3), 2),
    }
    nodes = [
        make("MatMul", ["input", "up"], ["u"], name="up"),
        make("MatMul", ["input", "gate"], ["g"], name="gate"),
    ]
    if written:
        nodes += [
            make("Sigmoid", ["g"], ["s"]),
            make("Mul", ["g", "s"], ["silu"]),
            make("Mul", ["silu", "u"], ["h"]),
        ]
    else:
        nodes.append(make("SwiGLU", ["g", "u"], ["h"], name="swiglu"))
    nodes += [
        make("MatMul", ["h", "down"], ["d"], name="down"),
        make("ReduceMean", ["d", "axes"], ["output"], name="mean", keepdims=0),
    ]
    return model_of(nodes, weights | {"axes": np.array([1])}, (["N", 5, 4], ["N", 3]), 18 if written else 28)


def test_a_gate_in_one_node_is_explained_as_the_nodes_it_stands_for() -> None:
    found, expected = (
        Explainer(gated(written=written), layout="NTC", providers="cpu").explain(data_for((2, 5, 4), 3), 1)
        for written in (False, True)
    )
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one.relevance).min() > 0
        assert one.residual == pytest.approx(0, abs=1e-5)
        np.testing.assert_allclose(one.relevance, other.relevance, rtol=1e-5, atol=1e-6)


def test_the_parts_are_reported_by_the_name_of_the_node() -> None:
    plan = Explainer(gated(written=False), layout="NTC", providers="cpu").plan
    names = [step.node.origins for step in plan.steps]
    assert set(names) == {("up",), ("gate",), ("swiglu",), ("down",), ("mean",)}
    assert [step.node.name for step in plan.steps if step.node.output().name == "h"] == ["swiglu"]


def loss(op: str, fixed: Mapping[str, Array]) -> Any:
    """A classifier with a loss behind it, for one picture; the label is a setting."""
    log = [make("LogSoftmax", ["z"], ["l"], name="log", axis=1)] if op == "NegativeLogLikelihoodLoss" else []
    nodes = [
        make("Conv", ["input", "w"], ["c"], name="conv"),
        make("Relu", ["c"], ["r"], name="relu"),
        make("GlobalAveragePool", ["r"], ["p"], name="gap"),
        make("Flatten", ["p"], ["z"], name="flat"),
        *log,
        make(op, ["l" if log else "z", "label"], ["output"], name="loss", reduction="none"),
    ]
    model = model_of(nodes, {"w": data_for((4, 3, 2, 2))}, ([1, 3, 5, 5], [1]), 18)
    model.graph.input.append(helper.make_tensor_value_info("label", TensorProto.INT64, [1]))
    return with_fixed(load_model(model), fixed)


@pytest.mark.parametrize("op", ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])
def test_a_loss_is_crossed_down_to_the_picture(op: str) -> None:
    loaded = loss(op, {"label": np.array([2])})
    case = Case({"input": (1, 3, 5, 5)}, {"input": parse_layout("NCHW", "input", (1, 3, 5, 5))}, Options())
    plan = plan_for(loaded.proto, case, RULES)[1]
    assert not plan.gaps
    assert plan.boundary == ("r",)
    assert "loss" in {name for step in plan.steps for name in step.node.origins}


def test_only_what_makes_reals_of_the_input_and_has_no_rule_is_written_out() -> None:
    nodes = [
        make("HardSwish", ["input"], ["a"], name="has a rule"),
        make("GreaterOrEqual", ["a", "zero"], ["b"], name="makes booleans"),
        make("AffineGrid", ["theta", "size"], ["c"], name="does not depend on the input"),
        make("AffineGrid", ["input", "size"], ["output"], name="this one"),
    ]
    weights: dict[str, Array] = {
        "zero": np.zeros(1, np.float32),
        "theta": data_for((1, 2, 3)),
        "size": np.array([1, 1, 2, 2]),
    }
    model = model_of(nodes, weights, ([1, 2, 3], [1, 2, 2, 2]), 20)
    assert [node.name for node in without_rule(RULES, 20)(model)] == ["this one"]
    written = write_out(model, without_rule(RULES, 20))
    kept = [node.name for node in written.graph.node if origin(node) is None]
    assert kept == ["has a rule", "makes booleans", "does not depend on the input"]
    assert {origin(node) for node in written.graph.node} == {None, "this one"}
    assert len({node.name for node in written.graph.node}) == len(written.graph.node)
    onnx.checker.check_model(written, full_check=True)


def test_a_definition_that_loops_stays_what_it_is() -> None:
    model = next(case.model for case in cases() if case.name == "test_linear_attention_linear")
    assert [node.op_type for node in without_rule(RULES, 27)(model)] == ["LinearAttention"]
    assert write_out(model, without_rule(RULES, 27)) is model


def test_random_numbers_stay_what_they_are() -> None:
    model = model_of([make("Bernoulli", ["input"], ["output"], name="dice")], {}, ([1, 3], [1, 3]), 22)
    assert write_out(model, without_rule(RULES, 22)) is model
