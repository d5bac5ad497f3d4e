"""Recurrent layers where ONNX Runtime has no kernel for them, what is refused, and whole networks."""

from typing import Any, get_args

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from graph_rules import RULES
from srd_onnx import Explainer
from srd_onnx.engine.options import Bias
from srd_onnx.errors import LayoutError, UnsupportedCaseError
from tests import checks
from tests.case_types import Case, Const, Var
from tests.cases_recurrent import GATES, ITEMS, STEPS, X, _layer, batchwise
from tests.harness import bench

Array = NDArray[Any]

every = pytest.mark.parametrize("case", list(batchwise()), ids=str)


@every
def test_items_before_times(case: Case) -> None:
    for bias in get_args(Bias):
        checks.check_against_definition(case, RULES, bias)
    checks.check_conservation(case, RULES)
    checks.check_adjoint(case, RULES)
    checks.check_differences(case, RULES)
    checks.check_linearity(case, RULES)
    checks.check_emitted_graph(case, RULES)


# What is refused


def one(op: str, *more: Any, **attrs: Any) -> Case:
    return next(_layer(op, "refused", *more, **attrs))


REFUSED = {
    "clip": (one("GRU", clip=3.0), "clipped gates"),
    "coupled": (one("LSTM", input_forget=1), "coupled gates"),
    "activations": (
        one("LSTM", activations=["HardSigmoid", "Tanh", "Tanh"]),
        "activations hardsigmoid, tanh, tanh",
    ),
    "mixed": (one("RNN", activations=["Relu", "Tanh"], direction="bidirectional"), "activations relu, tanh"),
    "computed lengths": (one("RNN", Var("C", (ITEMS,), dtype="int32")), "must be a constant"),
    "empty": (one("GRU", Const([STEPS, 0], "int32")), "an empty sequence"),
    "batch in front": (one("RNN", x=Var("NTC", X.shape)), "it runs along the batch axis"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_is_not_covered_is_refused(name: str) -> None:
    case, message = REFUSED[name]
    with pytest.raises(UnsupportedCaseError, match=f"{case.op} v14, node 'node': .*{message}"):
        bench(case, RULES)


def test_features_that_are_positions_are_a_wrong_layout() -> None:
    with pytest.raises(LayoutError, match="is its layout right"):
        bench(one("GRU", x=Var("TNW", X.shape)), RULES)


# Whole networks


def classifier(op: str, *, what: str, direction: str = "forward") -> ModelProto:
    """[N, T, C], a layer or two, and a dense layer on its last state, or on the mean of all of them."""
    rng = np.random.default_rng(3)
    ways, gates = 1 + (direction == "bidirectional"), GATES[op]

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((0.5 * rng.standard_normal(shape)).astype(np.float32), name)

    size = 5
    constants = [
        weights("w", ways, gates * size, 4),
        weights("r", ways, gates * size, size),
        weights("b", ways, 2 * gates * size),
        weights("dense", ways * size, 3),
        numpy_helper.from_array(np.array([0, -1]), "flat"),
        numpy_helper.from_array(np.array([0, 0, -1]), "joined"),
    ]
    axes: dict[str, Any] = {"hidden_size": size, "direction": direction}
    nodes = [helper.make_node("Transpose", ["x"], ["xt"], name="in", perm=[1, 0, 2])]
    if what == "state":
        nodes += [
            helper.make_node(op, ["xt", "w", "r", "b"], ["", "h"], name="layer", **axes),
            helper.make_node("Transpose", ["h"], ["ht"], name="out", perm=[1, 0, 2]),
            helper.make_node("Reshape", ["ht", "flat"], ["features"], name="reshape"),
        ]
    else:
        nodes += [
            helper.make_node(op, ["xt", "w", "r", "b"], ["y"], name="layer", **axes),
            helper.make_node("Transpose", ["y"], ["yt"], name="out", perm=[2, 0, 1, 3]),
            helper.make_node("Reshape", ["yt", "joined"], ["all"], name="reshape"),
            helper.make_node("ReduceMean", ["all"], ["features"], name="mean", axes=[1], keepdims=0),
        ]
    nodes.append(helper.make_node("MatMul", ["features", "dense"], ["logits"], name="head"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6, 4])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])
    graph = helper.make_graph(nodes, op, [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    return model


@pytest.mark.parametrize("bias", get_args(Bias))
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("what", ["state", "all"])
@pytest.mark.parametrize("op", list(GATES))
def test_classifier_explains_and_conserves(op: str, what: str, direction: str, bias: Bias) -> None:
    x = np.random.default_rng(1).standard_normal((2, 6, 4)).astype(np.float32)
    explainer = Explainer(
        classifier(op, what=what, direction=direction), preset="paper", layout="NTC", bias=bias
    )
    for one_at_a_time, explanation in zip(x, explainer.explain(x, targets=[1]), strict=True):
        assert explanation.relevance.shape == (6,)
        assert abs(explanation.residual) < 1e-5 * max(1.0, float(np.abs(explanation.relevance).max()))
        (alone,) = explainer.explain(one_at_a_time[None], targets=[1])
        np.testing.assert_allclose(alone.relevance, explanation.relevance, rtol=0, atol=1e-5)


def test_what_comes_after_its_end_gets_nothing_from_a_state() -> None:
    """Of a reverse layer the state at time t has seen t and later ones only."""
    model = classifier("LSTM", what="all", direction="reverse")
    model.graph.node[-2].CopyFrom(
        helper.make_node("Gather", ["all", "at"], ["features"], name="mean", axis=1)
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(4), "at"))
    x = np.random.default_rng(1).standard_normal((1, 6, 4)).astype(np.float32)
    (explanation,) = Explainer(model, preset="paper", layout="NTC", boundary="x").explain(x, targets=[1])
    assert (explanation.relevance[:4] == 0).all()
    assert (explanation.relevance[4:] != 0).all()
