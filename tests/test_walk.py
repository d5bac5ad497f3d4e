"""walk: a ModelProto becomes frozen nodes and values, and a networkx DAG of them."""

from typing import Any

import networkx as nx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from srd_onnx.errors import UnsupportedCaseError
from srd_onnx.graph.ir import UNKNOWN, Graph, Node, OpKey, Value
from srd_onnx.graph.walk import walk
from tests.nets import model_of, small_cnn


def walked(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray] | None = None,
    shapes: tuple[list[int | str], list[int | str]] = ([1, 3, 4, 4], [1, 3, 4, 4]),
    opset: int = 17,
) -> Graph:
    return walk(shape_inference.infer_shapes(model_of(nodes, weights or {}, shapes, opset)))


def only(graph: Graph, name: str) -> Node:
    (found,) = (node for node in graph.nodes if node.name == name)
    return found


# Attributes


@pytest.mark.parametrize(
    ("op_type", "opset", "since", "name", "value"),
    [
        ("LeakyRelu", 17, 16, "alpha", np.float32(0.01)),
        ("HardSigmoid", 17, 6, "beta", 0.5),
        ("Softmax", 12, 11, "axis", 1),
        ("Softmax", 13, 13, "axis", -1),
        ("Flatten", 17, 13, "axis", 1),
    ],
)
def test_an_attribute_left_out_has_the_default_of_its_schema(
    op_type: str, opset: int, since: int, name: str, value: float
) -> None:
    node = walked([helper.make_node(op_type, ["input"], ["output"], name="n")], opset=opset).nodes[0]
    assert node.key == OpKey("", op_type, since)
    assert np.float32(node.attrs[name]) == np.float32(value)


def test_a_given_attribute_wins_over_the_default() -> None:
    node = walked([helper.make_node("LeakyRelu", ["input"], ["output"], alpha=0.25)]).nodes[0]
    assert dict(node.attrs) == {"alpha": 0.25}


def test_strings_are_text_and_lists_are_tuples() -> None:
    graph = walked(
        [helper.make_node("Conv", ["input", "w"], ["output"], auto_pad="SAME_UPPER", strides=[1, 1])],
        {"w": np.ones((3, 3, 1, 1), np.float32)},
    )
    attrs = graph.nodes[0].attrs
    assert (attrs["auto_pad"], attrs["strides"], attrs["group"]) == ("SAME_UPPER", (1, 1), 1)


def test_the_default_string_is_text_too() -> None:
    graph = walked(
        [helper.make_node("Conv", ["input", "w"], ["output"])], {"w": np.ones((3, 3, 1, 1), np.float32)}
    )
    assert graph.nodes[0].attrs["auto_pad"] == "NOTSET"
    assert "pads" not in graph.nodes[0].attrs  # the schema states no default


def test_tensor_attributes_are_arrays() -> None:
    value = numpy_helper.from_array(np.array([2.5], np.float32))
    graph = walked(
        [
            helper.make_node("ConstantOfShape", ["s"], ["k"], name="fill", value=value),
            helper.make_node("Add", ["input", "k"], ["output"]),
        ],
        {"s": np.array([1, 3, 4, 4])},
    )
    np.testing.assert_array_equal(only(graph, "fill").attrs["value"], np.array([2.5], np.float32))


def test_attributes_cannot_be_changed() -> None:
    node = walked([helper.make_node("LeakyRelu", ["input"], ["output"])]).nodes[0]
    with pytest.raises(TypeError, match="does not support item assignment"):
        node.attrs["alpha"] = 1.0  # type: ignore[index]


def test_the_long_name_of_the_default_domain_is_the_short_one() -> None:
    model = model_of([helper.make_node("Relu", ["input"], ["output"])], {}, ([1, 3], [1, 3]))
    model.graph.node[0].domain = "ai.onnx"
    assert walk(model).nodes[0].key == OpKey("", "Relu", 14)


def test_a_node_of_another_domain_keeps_its_domain_and_only_given_attributes() -> None:
    model = model_of(
        [helper.make_node("Relu", ["input"], ["output"], domain="com.example", slope=0.5)],
        {},
        ([1, 3], [1, 3]),
    )
    model.opset_import.append(helper.make_opsetid("com.example", 4))
    node = walk(model).nodes[0]
    assert node.key == OpKey("com.example", "Relu", 4)
    assert dict(node.attrs) == {"slope": 0.5}


# Inputs and constants


def test_an_omitted_input_is_none_in_the_middle_and_at_the_end() -> None:
    graph = walked(
        [helper.make_node("Clip", ["input", "", "high"], ["output"], name="clip")],
        {"high": np.array(6, np.float32)},
    )
    node = only(graph, "clip")
    assert node.inputs[1] is None
    assert node.optional(1) is None
    assert node.optional(7) is None
    assert node.constant(1) is None
    assert node.constant(2) == np.float32(6)


def test_an_omitted_output_is_none() -> None:
    graph = walked([helper.make_node("Dropout", ["input"], ["output", ""], name="drop")])
    assert only(graph, "drop").outputs == (Value("output", (1, 3, 4, 4), np.dtype(np.float32)), None)


def test_a_required_input_that_was_left_out_is_an_error_naming_the_node() -> None:
    node = walked([helper.make_node("Clip", ["input"], ["output"], name="clip")]).nodes[0]
    with pytest.raises(UnsupportedCaseError) as caught:
        node.input(2)
    assert str(caught.value) == "ai.onnx::Clip v13, node 'clip': input 2 is required"


def test_a_computed_value_where_a_constant_is_wanted_is_an_error_naming_both() -> None:
    node = walked([helper.make_node("Relu", ["input"], ["output"], name="relu")]).nodes[0]
    with pytest.raises(UnsupportedCaseError) as caught:
        node.constant(0)
    assert str(caught.value) == (
        "ai.onnx::Relu v14, node 'relu': input 0 ('input') must be a constant for the rule to apply, "
        "but it is computed at run time"
    )


def test_initializers_are_read_only_constants() -> None:
    graph = walked([helper.make_node("Add", ["input", "b"], ["output"])], {"b": np.ones(4, np.float32)})
    data = graph.nodes[0].constant(1)
    assert data is not None
    with pytest.raises(ValueError, match="assignment destination is read-only"):
        data[0] = 2


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ({"value": numpy_helper.from_array(np.full(4, 2, np.float32))}, np.full(4, 2, np.float32)),
        ({"value_float": 2.0}, np.float32(2)),
        ({"value_floats": [1.0, 2.0, 3.0, 4.0]}, np.array([1, 2, 3, 4], np.float32)),
    ],
)
def test_constant_nodes_are_constants_and_not_nodes(attribute: dict[str, Any], expected: np.ndarray) -> None:
    graph = walked(
        [
            helper.make_node("Constant", [], ["k"], **attribute),
            helper.make_node("Add", ["input", "k"], ["output"], name="add"),
        ]
    )
    assert [node.name for node in graph.nodes] == ["add"]
    found = graph.nodes[0].constant(1)
    assert found is not None
    np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize(
    ("attribute", "expected"), [({"value_int": 3}, [3]), ({"value_ints": [1, 3]}, [1, 3])]
)
def test_integer_constants_are_int64(attribute: dict[str, Any], expected: list[int]) -> None:
    graph = walked(
        [
            helper.make_node("Constant", [], ["k"], **attribute),
            helper.make_node("Expand", ["input", "k"], ["output"], name="expand"),
        ]
    )
    found = graph.nodes[0].constant(1)
    assert found is not None
    assert found.dtype == np.int64
    assert found.ravel().tolist() == expected


def test_a_constant_of_text_is_refused_by_name() -> None:
    model = model_of([helper.make_node("Relu", ["input"], ["output"])], {}, ([1], [1]))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["k"], name="words", value_string="x"))
    with pytest.raises(UnsupportedCaseError) as caught:
        walk(model)
    assert str(caught.value) == "ai.onnx::Constant, node 'words': value_string is not a number"


def test_what_a_subgraph_uses_from_outside_is_an_input_of_its_node() -> None:
    def branch(name: str, op_type: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3])
        return helper.make_graph([helper.make_node(op_type, ["hidden"], [name])], name, [], [out])

    model = model_of(
        [
            helper.make_node("Relu", ["input"], ["hidden"], name="relu"),
            helper.make_node(
                "If",
                ["flag"],
                ["output"],
                name="if",
                then_branch=branch("a", "Neg"),
                else_branch=branch("b", "Exp"),
            ),
        ],
        {"flag": np.array(True)},
        ([1, 3], [1, 3]),
    )
    graph = walk(shape_inference.infer_shapes(model))
    assert [v.name for v in only(graph, "if").inputs if v] == ["flag", "hidden"]
    assert graph.dag.has_edge("relu", "if")


# Shapes


def test_values_have_shape_and_dtype() -> None:
    graph = walked(
        [helper.make_node("Shape", ["input"], ["s"]), helper.make_node("Relu", ["input"], ["output"])]
    )
    assert graph.values["input"] == Value("input", (1, 3, 4, 4), np.dtype(np.float32))
    assert graph.values["s"] == Value("s", (4,), np.dtype(np.int64))
    assert (graph.values["input"].is_float, graph.values["s"].is_float) == (True, False)


def test_a_shape_that_depends_on_the_data_is_marked_unknown() -> None:
    graph = walked(
        [
            helper.make_node("NonZero", ["input"], ["where"], name="nonzero"),
            helper.make_node("Relu", ["input"], ["output"]),
        ]
    )
    value = graph.values["where"]
    assert (value.known, value.dtype) == (False, UNKNOWN)
    assert graph.values["input"].known


def test_bfloat16_is_a_real_number_and_bool_is_not() -> None:
    bfloat16 = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
    assert Value("x", (), bfloat16).is_float
    assert not Value("x", (), np.dtype(bool)).is_float


# The DAG


def test_the_dag_has_a_vertex_per_node_input_and_output() -> None:
    graph = walk(shape_inference.infer_shapes(small_cnn(batch=1)))
    assert set(graph.dag) == {"input:input", "output:output", *(node.name for node in graph.nodes)}
    assert all(graph.dag.nodes[node.name]["node"] is node for node in graph.nodes)


def test_the_dag_is_acyclic_and_nodes_come_after_what_they_use() -> None:
    graph = walk(shape_inference.infer_shapes(small_cnn(batch=1)))
    assert nx.is_directed_acyclic_graph(graph.dag)
    place = {
        name: i for i, name in enumerate(["input:input", *(n.name for n in graph.nodes), "output:output"])
    }
    assert all(place[a] < place[b] for a, b in graph.dag.edges())


def test_there_is_one_edge_per_use_of_a_tensor() -> None:
    graph = walked(
        [
            helper.make_node("Relu", ["input"], ["r"], name="relu"),
            helper.make_node("Add", ["r", "r"], ["output"], name="twice"),
        ]
    )
    edges = [(a, b, key) for a, b, key in graph.dag.edges(keys=True)]
    assert edges == [
        ("input:input", "relu", ("input", 0)),
        ("relu", "twice", ("r", 0)),
        ("relu", "twice", ("r", 1)),
        ("twice", "output:output", ("output", 0)),
    ]
    assert graph.dag.edges["relu", "twice", ("r", 1)]["value"] == graph.values["r"]


def test_a_graph_input_that_is_an_output_is_joined_directly() -> None:
    model = model_of([helper.make_node("Relu", ["input"], ["output"])], {}, ([1, 3], [1, 3]))
    model.graph.output.append(model.graph.input[0])
    assert walk(model).dag.has_edge("input:input", "output:input")


def test_producers_say_which_node_computes_a_tensor() -> None:
    graph = walked([helper.make_node("Relu", ["input"], ["output"], name="relu")])
    assert graph.producers == {"output": graph.nodes[0]}


def test_origins_are_given_or_the_node_itself() -> None:
    nodes = [
        helper.make_node("Relu", ["input"], ["r"], name="one"),
        helper.make_node("Neg", ["r"], ["output"], name="two"),
    ]
    graph = walk(model_of(nodes, {}, ([1, 3], [1, 3])), {"two": ("two", "folded")})
    assert [node.origins for node in graph.nodes] == [("one",), ("two", "folded")]
