"""Gather of a constant table by token ids: relevance in position form passes to the tokens, a cotangent cannot."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from graph_rules import RULES
from srd_onnx import Explainer
from srd_onnx.engine.emit import Emitter
from srd_onnx.errors import UnsupportedCaseError
from srd_onnx.graph.ir import Graph
from srd_onnx.graph.roles import Axes, parse_layout, propagate
from srd_onnx.graph.walk import walk
from tests.harness import info, reference

IDS = np.array([[3, 1, 1, 6], [0, 2, 5, 4]])


def lookup(axis: int = 0, ids: str = "ids") -> ModelProto:
    table = np.random.default_rng(3).standard_normal((7, 5))
    node = helper.make_node("Gather", ["table", ids], ["y"], name="words", axis=axis)
    graph = helper.make_graph(
        [node],
        "lookup",
        [info("ids", np.int64, IDS.shape)],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def graph_and_roles(model: ModelProto, layout: str = "NT") -> tuple[Graph, dict[str, Axes]]:
    graph = walk(model)
    return graph, propagate(graph, {"ids": parse_layout(layout, "ids", IDS.shape)}, RULES)


def test_the_rows_of_the_table_are_channels_and_the_ids_carry() -> None:
    graph, roles = graph_and_roles(lookup())
    node, rule = graph.nodes[0], RULES[graph.nodes[0].key]
    assert str(roles["y"]) == "NPC"
    assert not roles["y"].inert
    assert rule.carriers(node, roles) == (1,)
    assert rule.routes(node, roles)
    assert not rule.lossy(node)


def test_ids_that_are_inert_carry_nothing() -> None:
    graph, roles = graph_and_roles(lookup())
    inert = {name: Axes(axes.roles, inert=True) for name, axes in roles.items()}
    assert RULES[graph.nodes[0].key].carriers(graph.nodes[0], inert) == ()


def test_relevance_of_an_embedding_is_that_of_its_token() -> None:
    model = lookup()
    graph, roles = graph_and_roles(model)
    node, emit = graph.nodes[0], Emitter(graph, roles)
    flows = RULES[node.key].spread(emit, node, ["r"])
    assert flows[0] is None
    assert flows[1] is not None
    model.graph.node.extend(emit.nodes)
    model.graph.initializer.extend(emit.initializers)
    model.graph.input.append(info("r", np.float64, (2, 4, 1)))
    model.graph.output.append(onnx.ValueInfoProto(name=flows[1]))
    relevance = np.random.default_rng(0).standard_normal((2, 4, 1))
    (got,) = reference(model, {"ids": IDS, "r": relevance}, [flows[1]])
    np.testing.assert_array_equal(got, relevance[:, :, 0])


def test_a_cotangent_at_token_ids_is_refused_in_words() -> None:
    graph, roles = graph_and_roles(lookup())
    node = graph.nodes[0]
    with pytest.raises(UnsupportedCaseError, match=r"node 'words': the cotangent ends at its token ids"):
        RULES[node.key].vjp(Emitter(graph, roles), node, ["g"])


def test_a_table_read_along_another_axis_is_refused() -> None:
    with pytest.raises(UnsupportedCaseError, match="an embedding along axis 1 of its table has no rule"):
        graph_and_roles(lookup(axis=1))


def classifier() -> ModelProto:
    """Embedding, positions, a convolution over three tokens, mean, three classes."""
    rng = np.random.default_rng(11)
    weights: dict[str, Any] = {
        "table": rng.standard_normal((20, 6)),
        "places": rng.standard_normal((1, 9, 6)),
        "mix": rng.standard_normal((8, 6, 3)),
        "shift": rng.standard_normal(8),
        "fc": rng.standard_normal((8, 3)),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["words"], name="words"),
        helper.make_node("Add", ["words", "places"], ["placed"], name="add"),
        helper.make_node("Transpose", ["placed"], ["turned"], name="turn", perm=[0, 2, 1]),
        helper.make_node("Conv", ["turned", "mix", "shift"], ["mixed"], name="conv", pads=[1, 1]),
        helper.make_node("Relu", ["mixed"], ["active"], name="relu"),
        helper.make_node("ReduceMean", ["active", "time"], ["mean"], name="mean", keepdims=0),
        helper.make_node("MatMul", ["mean", "fc"], ["logits"], name="fc"),
    ]
    stored = [numpy_helper.from_array(data.astype(np.float32), name) for name, data in weights.items()]
    stored.append(numpy_helper.from_array(np.array([2]), "time"))
    graph = helper.make_graph(
        nodes,
        "text",
        [info("ids", np.int64, (1, 9))],
        [onnx.helper.make_tensor_value_info("logits", 1, [1, 3])],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize("bias", ["distribute", "ledger"])
def test_a_text_classifier_is_explained_token_by_token(bias: str) -> None:
    explainer = Explainer(classifier(), preset="paper", layout="NT", bias=bias, providers="cpu")
    ids = np.array([[4, 19, 0, 7, 7, 2, 11, 3, 5]])
    for target in range(3):
        (explanation,) = explainer.explain({"ids": ids}, target)
        assert explanation.relevance.shape == (9,)
        assert np.isfinite(explanation.relevance).all()
        assert np.count_nonzero(explanation.relevance) == 9
        scale = np.abs(explanation.relevance).sum() + sum(map(abs, explanation.ledger.values()))
        assert abs(explanation.residual) <= 1e-5 * scale
