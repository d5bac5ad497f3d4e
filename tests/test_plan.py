"""make_plan: what relevance crosses, every gap at once, target and boundary."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, shape_inference

from graph_rules import RULES
from srd_onnx.engine.backward import build
from srd_onnx.engine.options import Options
from srd_onnx.engine.plan import Plan, make_plan
from srd_onnx.engine.rule import RuleTable
from srd_onnx.errors import (
    UnreachableTargetError,
    UnsupportedCaseError,
    UnsupportedOpError,
)
from srd_onnx.graph.roles import parse_layout
from srd_onnx.graph.simplify import simplify
from srd_onnx.graph.walk import walk
from tests.nets import model_of, small_cnn

make = helper.make_node
RNG = np.random.default_rng(0)
CONV = make("Conv", ["input", "w"], ["c"], name="conv", pads=[1, 1, 1, 1])
HEAD = [
    make("GlobalAveragePool", ["m"], ["g"], name="gap"),
    make("Flatten", ["g"], ["f"], name="flatten"),
    make("MatMul", ["f", "fc"], ["output"], name="logits"),
]
WEIGHTS = {
    "w": RNG.standard_normal((4, 3, 3, 3)).astype(np.float32),
    "fc": RNG.standard_normal((4, 5)).astype(np.float32),
    "flat": np.array([2, -1]),
    "split": np.array([2, 5, 1]),
    "two": np.array([2]),
    "hw": np.array([2, 3]),
}


def without(*op_types: str) -> RuleTable:
    return {key: rule for key, rule in RULES.items() if key.op_type not in op_types}


NO_SIN = without("Sin")


def planned(
    nodes: list[onnx.NodeProto],
    options: Options | None = None,
    *,
    rules: RuleTable = NO_SIN,
    shape: Sequence[int] = (2, 3, 8, 8),
    layout: str = "NCHW",
    output: int = TensorProto.FLOAT,
) -> Plan:
    used = {name for node in nodes for name in node.input}
    weights = {name: value for name, value in WEIGHTS.items() if name in used}
    model = model_of(nodes, weights, (list(shape), []), 18)
    model.graph.output[0].type.tensor_type.elem_type = output
    return plan_of(model, options, rules=rules, shape=shape, layout=layout)


def plan_of(
    model: onnx.ModelProto,
    options: Options | None = None,
    *,
    rules: RuleTable = RULES,
    shape: Sequence[int],
    layout: str = "NCHW",
) -> Plan:
    _, graph = simplify(model, {"input": shape})
    start = {"input": parse_layout(layout, "input", tuple(shape))}
    return make_plan(graph, start, rules, options or Options())


def crossed(plan: Plan) -> list[str]:
    return [step.node.name for step in plan.steps]


# Gaps


def test_all_gaps_are_listed_at_once_with_original_names() -> None:
    nodes = [
        CONV,
        make("Sin", ["c"], ["e"], name="backbone/first"),
        make("Sin", ["e"], ["m"], name="backbone/last"),
        *HEAD,
    ]
    plan = planned(nodes)
    assert [gap.node.name for gap in plan.gaps] == ["backbone/last", "backbone/first"]
    with pytest.raises(UnsupportedOpError) as caught:
        build(plan)
    assert str(caught.value) == (
        "2 of 6 nodes have no relevance rule:\n"
        "  ai.onnx::Sin v7  node 'backbone/last'  (no version is covered)\n"
        "  ai.onnx::Sin v7  node 'backbone/first'  (no version is covered)\n"
        "Add a rule with @rule(...) in graph_rules/, or cut the graph there."
    )


def test_a_gap_names_the_versions_that_are_covered() -> None:
    rules = {key: rule for key, rule in RULES.items() if key.op_type != "Conv" or key.since != 11}
    plan = planned([CONV, make("Relu", ["c"], ["m"]), *HEAD], rules=rules)
    assert [str(gap) for gap in plan.gaps] == [
        "ai.onnx::Conv v11  node 'conv'  (only versions 22 have a rule)"
    ]


def test_a_gap_that_was_fused_names_all_that_it_was_made_from() -> None:
    model = small_cnn(batch=1)
    _, graph = simplify(model, {"input": (1, 3, 32, 32)})
    renamed = tuple(dataclasses.replace(n, name="fused_7") if n.name == "conv1" else n for n in graph.nodes)
    again = dataclasses.replace(graph, nodes=renamed)
    plan = make_plan(
        again, {"input": parse_layout("NCHW", "input", (1, 3, 32, 32))}, without("Conv"), Options()
    )
    assert str(plan.gaps[-1]) == (
        "ai.onnx::Conv v11  node 'fused_7' (made from conv1, bn1)  (no version is covered)"
    )


@pytest.mark.parametrize("joined", ["Add", "Mul", "Concat"])
def test_a_branch_without_a_rule_is_a_gap_wherever_it_is_joined(joined: str) -> None:
    nodes = [
        CONV,
        make("Sin", ["c"], ["e"], name="sine"),
        make(joined, ["c", "e"], ["m"], name="join"),
        *HEAD,
    ]
    if joined == "Concat":
        nodes[2].attribute.append(helper.make_attribute("axis", 2))
    assert [gap.node.name for gap in planned(nodes).gaps] == ["sine"]


def test_what_lies_behind_a_gap_in_a_longer_branch_is_still_found() -> None:
    nodes = [
        CONV,
        make("Sin", ["c"], ["e"], name="sine"),
        make("Transpose", ["e"], ["e2"], perm=[0, 1, 3, 2]),
        make("Relu", ["e2"], ["e3"]),
        make("Add", ["c", "e3"], ["m"]),
        *HEAD,
    ]
    assert [gap.node.name for gap in planned(nodes).gaps] == ["sine"]


@pytest.mark.parametrize("joined", ["Add", "Mul"])
def test_a_branch_whose_axes_were_lost_at_a_gap_is_still_followed_to_it(joined: str) -> None:
    """Behind Det no axis has a role: were the branch taken for a constant, the map would silently be wrong."""
    nodes = [
        CONV,
        make("Det", ["c"], ["d"], name="det"),
        make("Unsqueeze", ["d", "hw"], ["u"], name="wide"),
        make(joined, ["c", "u"], ["m"], name="join"),
        *HEAD,
    ]
    assert [gap.node.name for gap in planned(nodes, rules=without("Det")).gaps] == ["det"]


def test_an_op_without_a_rule_in_the_branch_of_a_gate_is_no_error() -> None:
    nodes = [
        CONV,
        make("Sin", ["c"], ["e"], name="sine"),
        make("Sigmoid", ["e"], ["s"], name="sigmoid"),
        make("Mul", ["c", "s"], ["m"], name="gated"),
        *HEAD,
    ]
    plan = planned(nodes)
    assert crossed(plan) == ["logits", "flatten", "gap", "gated", "conv"]
    build(plan)


def test_an_op_without_a_rule_behind_the_target_is_no_error() -> None:
    model = model_of(
        [CONV, make("Relu", ["c"], ["m"]), *HEAD, make("ArgMax", ["output"], ["class"], axis=1)],
        {name: WEIGHTS[name] for name in ("w", "fc")},
        ([2, 3, 8, 8], [2, 5]),
    )
    model.graph.output.append(helper.make_tensor_value_info("class", TensorProto.INT64, [2, 1]))
    build(plan_of(model, shape=(2, 3, 8, 8)))


def test_an_op_without_a_rule_on_an_integer_path_is_no_error() -> None:
    nodes = [
        CONV,
        make("ArgMax", ["c"], ["i"], name="argmax", axis=1),
        make("GatherElements", ["c", "i"], ["picked"], name="pick", axis=1),
        make("Softmax", ["picked"], ["soft"], axis=1),
        make("Mul", ["c", "soft"], ["m"], name="gated"),
        *HEAD,
    ]
    plan = planned(nodes)
    assert "argmax" not in crossed(plan)
    build(plan)


def test_a_node_of_a_custom_domain_named_relu_does_not_get_the_rule_of_relu() -> None:
    nodes = [CONV, make("Relu", ["c"], ["m"], name="mine", domain="com.example"), *HEAD]
    model = model_of(nodes, {name: WEIGHTS[name] for name in ("w", "fc")}, ([2, 3, 8, 8], [2, 5]))
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    # Nobody can infer what an unknown operator gives, so the file says it.
    model.graph.value_info.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, [2, 4, 8, 8]))
    graph = walk(shape_inference.infer_shapes(model))
    plan = make_plan(graph, {"input": parse_layout("NCHW", "input", (2, 3, 8, 8))}, RULES, Options())
    assert [str(gap) for gap in plan.gaps] == ["com.example::Relu v1  node 'mine'  (no version is covered)"]


def test_another_table_is_used_without_touching_ours() -> None:
    assert planned([CONV, make("Relu", ["c"], ["m"]), *HEAD], rules=without("Relu")).gaps
    assert not planned([CONV, make("Relu", ["c"], ["m"]), *HEAD]).gaps


# Target


@pytest.mark.parametrize("link", ["Softmax", "LogSoftmax", "Sigmoid"])
@pytest.mark.parametrize(
    "views",
    [
        [],
        [make("Identity", ["p"], ["output"])],
        [make("Reshape", ["p", "flat"], ["output"])],
        [make("Reshape", ["p", "split"], ["q"]), make("Squeeze", ["q", "two"], ["output"])],
    ],
    ids=["bare", "identity", "reshape", "reshape-squeeze"],
)
def test_the_target_is_the_value_before_what_only_rescales_the_scores(
    link: str, views: list[onnx.NodeProto]
) -> None:
    last = make("MatMul", ["f", "fc"], ["z"], name="logits")
    nodes = [
        CONV,
        make("Relu", ["c"], ["m"]),
        *HEAD[:2],
        last,
        make(link, ["z"], ["p" if views else "output"]),
        *views,
    ]
    plan = planned(nodes)
    assert plan.target.name == "z"
    assert crossed(plan)[0] == "logits"


def test_a_softmax_inside_the_network_is_not_the_end() -> None:
    nodes = [*HEAD[:2], make("Softmax", ["f"], ["s"]), make("MatMul", ["s", "fc"], ["output"])]
    plan = planned([CONV, make("Relu", ["c"], ["m"]), *nodes])
    assert plan.target.name == "output"


def test_a_view_at_the_end_without_a_link_stays_the_target() -> None:
    last = make("MatMul", ["f", "fc"], ["z"])
    plan = planned(
        [CONV, make("Relu", ["c"], ["m"]), *HEAD[:2], last, make("Reshape", ["z", "flat"], ["output"])]
    )
    assert plan.target.name == "output"


def test_a_target_that_does_not_depend_on_the_input_is_unreachable() -> None:
    nodes = [make("RandomNormal", [], ["k"], shape=[2, 5], name="random"), make("Relu", ["k"], ["output"])]
    with pytest.raises(UnreachableTargetError) as caught:
        planned([*nodes, make("Relu", ["input"], ["unused"])])
    assert str(caught.value) == (
        "the target 'output' does not depend on the input 'input' along any path that carries "
        "relevance (real numbers, not gates); choose another output"
    )


def test_a_target_behind_integers_alone_is_unreachable() -> None:
    nodes = [make("Cast", ["i"], ["output"], to=TensorProto.FLOAT, name="cast")]
    with pytest.raises(
        UnreachableTargetError, match=r"^the target 'output' does not depend on the input 'input' "
    ):
        planned([make("ArgMax", ["input"], ["i"], axis=1), *nodes])


def test_an_output_that_is_the_input_is_refused() -> None:
    model = model_of([make("Relu", ["input"], ["output"])], {}, ([1, 3, 4, 4], [1, 3, 4, 4]))
    model.graph.output.insert(0, model.graph.input[0])
    with pytest.raises(UnreachableTargetError) as caught:
        plan_of(model, shape=(1, 3, 4, 4))
    assert str(caught.value) == (
        "what is explained of the output 'input' is the input 'input' itself: nothing lies between them"
    )


def test_a_target_without_a_batch_axis_is_that_of_a_single_input() -> None:
    nodes = [make("ReduceSum", ["input"], ["output"], name="all", keepdims=0)]
    plan = planned(nodes, shape=(1, 3, 8, 8))
    assert (plan.target.shape, plan.batch) == ((), 1)
    with pytest.raises(UnsupportedCaseError) as caught:
        planned(nodes, shape=(2, 3, 8, 8))
    assert str(caught.value) == (
        "ai.onnx::ReduceSum v13, node 'all': it sums over the batch axis, so that images are no longer independent"
    )


def test_a_tensor_of_unknown_shape_on_the_way_is_refused_by_name() -> None:
    nodes = [CONV, make("MaxPool", ["c"], ["m"], name="pool", kernel_shape=[12, 12]), *HEAD]
    with pytest.raises(UnsupportedCaseError) as caught:
        planned(nodes)
    assert str(caught.value) == (
        "the shapes of 1 tensors that relevance crosses are not known before the model runs:\n"
        "  ai.onnx::MaxPool v12  node 'pool', tensor 'm'\n"
        "They depend on the data, or the input is too small for these layers. Use a larger input, or "
        "export the model with fixed shapes."
    )


# The plan as text


def test_the_plan_prints_what_happens_at_every_node() -> None:
    nodes = [CONV, make("Relu", ["c"], ["r"], name="relu"), make("Add", ["r", "c"], ["m"], name="add"), *HEAD]
    assert str(planned(nodes)).splitlines() == [
        "target    output [2, 5]",
        "boundary  m",
        "input     input [2, 3, 8, 8] axes NCPP",
        "  cotangent  ai.onnx::MatMul v13              logits",
        "  cotangent  ai.onnx::Flatten v13             flatten",
        "  cotangent  ai.onnx::GlobalAveragePool v1    gap",
        "  position   ai.onnx::Add v14                 add",
        "  routes     ai.onnx::Relu v14                relu",
        "  position   ai.onnx::Conv v11                conv",
    ]


def test_a_plan_with_gaps_prints_them_after_what_is_covered() -> None:
    nodes = [CONV, make("Sin", ["c"], ["m"], name="sine"), *HEAD]
    assert str(planned(nodes)).splitlines() == [
        "target    output [2, 5]",
        "boundary  (none)",
        "input     input [2, 3, 8, 8] axes NCPP",
        "             ai.onnx::MatMul v13              logits",
        "             ai.onnx::Flatten v13             flatten",
        "             ai.onnx::GlobalAveragePool v1    gap",
        "             ai.onnx::Conv v11                conv",
        "  NO RULE    ai.onnx::Sin v7  node 'sine'  (no version is covered)",
    ]


def test_an_approximate_node_says_why() -> None:
    scale, zero = np.array(0.1, np.float32), np.array(0, np.int8)
    nodes = [
        make("Relu", ["input"], ["r"]),
        make("QuantizeLinear", ["r", "scale", "zero"], ["q"], name="quantise"),
        make("DequantizeLinear", ["q", "scale", "zero"], ["output"], name="dequantise"),
    ]
    model = model_of(nodes, {"scale": scale, "zero": zero}, ([1, 3, 4, 4], []), 18)
    steps = {s.node.name: s.approximate for s in plan_of(model, shape=(1, 3, 4, 4)).steps}
    assert steps["quantise"] == (
        "rounding is taken as the identity; what it and saturation change is booked as its bias"
    )
    assert steps["dequantise"] is None


def test_preactivations_are_the_inputs_of_the_nonlinearities_from_input_to_target() -> None:
    plan = plan_of(small_cnn(), shape=(1, 3, 32, 32))
    assert [v.name for v in plan.preactivations] == ["bn1", "relu1", "bn2", "add", "bn4", "bn5"]


@pytest.mark.parametrize("link", ["Softmax", "LogSoftmax", "Sigmoid"])
def test_where_only_the_input_comes_before_a_link_its_output_is_the_target(link: str) -> None:
    assert planned([make(link, ["input"], ["output"])]).target.name == "output"


def test_a_batch_of_one_that_was_merged_with_other_axes_is_the_first_axis_of_the_target() -> None:
    nodes = [
        make("Reshape", ["input", "heads"], ["merged"]),
        make("Reshape", ["merged", "apart"], ["output"]),
    ]
    model = model_of(nodes, {"heads": np.array([8, 3]), "apart": np.array([1, 2, 4, 3])}, ([1, 8, 3], []), 18)
    plan = plan_of(model, shape=(1, 8, 3), layout="NCT")
    assert str(plan.roles["output"]) == "NCCP"


def test_an_output_that_relevance_does_not_come_from_has_no_say_in_the_form_of_its_node() -> None:
    nodes = [
        make("Relu", ["input"], ["r"]),
        make("Split", ["r"], ["a", "b", "c"], name="split", axis=1, num_outputs=3),
        make("Mul", ["b", "sigmoid"], ["gated"]),
        make("GlobalAveragePool", ["gated"], ["output"]),
    ]
    plan = planned([*nodes[:2], make("Sigmoid", ["a"], ["sigmoid"]), *nodes[2:]])
    assert {s.node.name: s.forms for s in plan.steps}["split"] == ("position",)
    assert plan.boundary == ("gated",)
