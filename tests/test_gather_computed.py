"""Indices that the model works out itself are held fixed: the flows are those of the same indices as a constant."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from graph_rules import RULES
from srd_onnx import Explainer
from srd_onnx.engine.emit import Emitter
from srd_onnx.errors import UnsupportedCaseError
from srd_onnx.graph.ir import Graph
from srd_onnx.graph.roles import Axes, parse_layout, propagate
from srd_onnx.graph.walk import walk
from tests.harness import info, reference

Array = NDArray[Any]
# Operator, attributes, layout and shape of the data, indices.
CASES: dict[str, tuple[str, dict[str, Any], str, tuple[int, ...], Any]] = {
    "one_token": ("Gather", {"axis": 1}, "NTC", (2, 4, 3), 2),
    "tokens": ("Gather", {"axis": -2}, "NTC", (2, 4, 3), [3, 0, 0]),
    "matrix": ("Gather", {"axis": 2}, "NCHW", (2, 3, 4, 2), [[1, -1], [0, 1]]),
    "channels": ("Gather", {"axis": 1}, "NCHW", (2, 3, 4, 2), [2, 2]),
    "end_of_text": ("GatherND", {}, "NTC", (1, 4, 3), [[0, 2]]),
    "several": ("GatherND", {}, "NTC", (1, 4, 3), [[[0, 2], [0, 1], [0, 2]]]),
}


def model_of(name: str, *, computed: bool, batch: int | None = None) -> ModelProto:
    op, attrs, _, shape, indices = CASES[name]
    data = np.array(indices, np.int64)
    node = helper.make_node(op, ["x", "i"], ["y"], name="node", **attrs)
    inputs = [info("x", np.float64, (batch or shape[0], *shape[1:]))]
    inputs += [info("i", np.int64, data.shape)] if computed else []
    stored = [] if computed else [numpy_helper.from_array(data, "i")]
    graph = helper.make_graph([node], name, inputs, [onnx.ValueInfoProto(name="y")], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def graph_and_roles(name: str, model: ModelProto) -> tuple[Graph, dict[str, Axes]]:
    graph, (_, _, layout, shape, _) = walk(model), CASES[name]
    return graph, propagate(graph, {"x": parse_layout(layout, "x", shape)}, RULES)


def flow(name: str, what: str, *, computed: bool) -> tuple[Array, bool, str]:
    """What the rule emits, whether it routes, and the roles of the output."""
    model = model_of(name, computed=computed)
    graph, roles = graph_and_roles(name, model)
    node, emit = graph.nodes[0], Emitter(graph, roles)
    rule, y = RULES[node.key], node.output()
    shape = y.shape if what == "vjp" else roles["y"].position_shape(y)
    (made, *rest) = (rule.vjp if what == "vjp" else rule.spread)(emit, node, ["g"])
    assert made is not None
    assert not any(rest)
    assert rule.carriers(node, roles) == (0,)
    model.graph.node.extend(emit.nodes)
    model.graph.initializer.extend(emit.initializers)
    model.graph.input.append(info("g", np.float64, shape))
    model.graph.output.append(onnx.ValueInfoProto(name=made))
    feeds = {"g": np.random.default_rng(0).standard_normal(shape), "x": np.ones(node.input(0).shape)}
    feeds |= {"i": np.array(CASES[name][4], np.int64)} if computed else {}
    (got,) = reference(model, feeds, [made])
    return got, rule.routes(node, roles), str(roles["y"])


@pytest.mark.parametrize("what", ["vjp", "spread"])
@pytest.mark.parametrize("name", CASES)
def test_computed_indices_give_what_constant_ones_give(name: str, what: str) -> None:
    got, routes, roles = flow(name, what, computed=True)
    want, wanted_routes, wanted_roles = flow(name, what, computed=False)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    assert (routes, roles) == (wanted_routes, wanted_roles)


def test_computed_indices_over_several_batch_items_are_refused() -> None:
    with pytest.raises(UnsupportedCaseError, match="choose batch items too; explain one at a time"):
        graph_and_roles("end_of_text", model_of("end_of_text", computed=True, batch=2))


def text_encoder() -> ModelProto:
    """As CLIP: the features of the token with the greatest id are the text's."""
    rng = np.random.default_rng(2)
    weights: dict[str, Array] = {
        "table": rng.standard_normal((20, 6)).astype(np.float32),
        "mix": rng.standard_normal((9, 9)).astype(np.float32),
        "fc": rng.standard_normal((6, 4)).astype(np.float32),
        "zero": np.zeros((1, 1), np.int64),
        "last": np.array([-1]),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["words"], name="words"),
        helper.make_node("MatMul", ["mix", "words"], ["mixed"], name="mix"),
        helper.make_node("Relu", ["mixed"], ["active"], name="relu"),
        helper.make_node("ArgMax", ["ids"], ["end"], name="end", axis=1, keepdims=0),
        helper.make_node("Unsqueeze", ["end", "last"], ["at"], name="at"),
        helper.make_node("Concat", ["zero", "at"], ["place"], name="place", axis=1),
        helper.make_node("GatherND", ["active", "place"], ["text"], name="text"),
        helper.make_node("MatMul", ["text", "fc"], ["logits"], name="fc"),
    ]
    stored = [numpy_helper.from_array(data, name) for name, data in weights.items()]
    out = [helper.make_tensor_value_info("logits", 1, [1, 4])]
    graph = helper.make_graph(nodes, "text", [info("ids", np.int64, (1, 9))], out, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_the_end_of_a_text_is_where_relevance_comes_from() -> None:
    explainer = Explainer(text_encoder(), preset="paper", layout="NT", providers="cpu")
    ids = np.array([[4, 7, 0, 19, 7, 2, 11, 3, 5]])
    for target in range(4):
        (explanation,) = explainer.explain({"ids": ids}, target)
        scale = np.abs(explanation.relevance).sum()
        assert np.count_nonzero(explanation.relevance) == 9
        assert abs(explanation.residual) <= 1e-5 * scale


@pytest.mark.parametrize("op", ["Tile", "Expand", "Gather"])
def test_token_ids_stay_token_ids_where_they_are_moved(op: str) -> None:
    """Two copies of a text, or the same token twice: their relevance adds up."""
    ids = np.array([[4, 7, 0]])
    operand = {"Tile": [1, 2, 1], "Expand": [1, 4, 3], "Gather": [0, 0, 0]}[op]
    attrs: dict[str, Any] = {"axis": 1} if op == "Gather" else {}
    nodes = [
        helper.make_node("Unsqueeze", ["ids", "one"], ["row"], name="row"),
        helper.make_node(op, ["row", "operand"], ["many"], name="many", **attrs),
        helper.make_node("Gather", ["table", "many"], ["words"], name="words"),
        helper.make_node("ReduceMean", ["words", "both"], ["mean"], name="mean", keepdims=0),
        helper.make_node("Relu", ["mean"], ["active"], name="relu"),
        helper.make_node("MatMul", ["active", "fc"], ["logits"], name="fc"),
    ]
    rng = np.random.default_rng(5)
    weights: dict[str, Array] = {
        "table": rng.standard_normal((20, 6)).astype(np.float32),
        "fc": rng.standard_normal((6, 4)).astype(np.float32),
        "one": np.array([1]),
        "both": np.array([1, 2]),
        "operand": np.array(operand),
    }
    stored = [numpy_helper.from_array(data, name) for name, data in weights.items()]
    out = [helper.make_tensor_value_info("logits", 1, [1, 4])]
    graph = helper.make_graph(nodes, "text", [info("ids", np.int64, (1, 3))], out, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (got,) = Explainer(model, preset="paper", layout="NT", providers="cpu").explain({"ids": ids}, 1)
    assert np.count_nonzero(got.relevance) == 3
    assert abs(got.residual) <= 1e-5 * np.abs(got.relevance).sum()
