"""Where cotangents become sharing ratios: the encoder boundary of many heads, and boundaries by name."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from graph_rules import RULES
from srd_onnx.engine.options import Options
from srd_onnx.engine.plan import Plan, make_plan
from srd_onnx.errors import UnknownTensorError
from srd_onnx.explainer import Explainer
from srd_onnx.graph.roles import parse_layout
from srd_onnx.graph.simplify import simplify
from srd_onnx.graph.walk import walk
from tests.attention_nets import TOKENS, WIDTH, attend, layer_norm, linear, mlp, split_qkv
from tests.nets import model_of, small_cnn
from tests.small_nets import Net

make = helper.make_node
RNG = np.random.default_rng(0)
BODY = [
    make("Conv", ["input", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
    make("Relu", ["c"], ["r"], name="relu"),
]
WEIGHTS = {
    "w": RNG.standard_normal((4, 3, 3, 3)).astype(np.float32),
    "w3": RNG.standard_normal((4, 3, 1, 1)).astype(np.float32),
    "w4": RNG.standard_normal((4, 4, 3, 3)).astype(np.float32),
    "w1": RNG.standard_normal((5, 4, 1, 1)).astype(np.float32),
    "fc": RNG.standard_normal((4, 5)).astype(np.float32),
    "fc8": RNG.standard_normal((8, 5)).astype(np.float32),
    "fc256": RNG.standard_normal((256, 5)).astype(np.float32),
    "hw": np.array([2, 3]),
    "flat": np.array([2, -1]),
}


def model(nodes: list[onnx.NodeProto], shape: Sequence[int | str] = (2, 3, 8, 8)) -> onnx.ModelProto:
    used = {name for node in nodes for name in node.input}
    return model_of(nodes, {n: v for n, v in WEIGHTS.items() if n in used}, (list(shape), []), 18)


def planned(
    nodes: list[onnx.NodeProto],
    boundary: str = "encoder",
    shape: Sequence[int] = (2, 3, 8, 8),
    layout: str = "NCHW",
) -> Plan:
    _, graph = simplify(model(nodes, shape), {"input": shape})
    start = {"input": parse_layout(layout, "input", tuple(shape))}
    return make_plan(graph, start, RULES, Options(boundary=boundary))


def forms(plan: Plan) -> dict[str, str]:
    return {step.node.name: step.form for step in plan.steps}


# The encoder's end


def test_a_global_average_pool_ends_the_encoder() -> None:
    nodes = [*BODY, make("GlobalAveragePool", ["r"], ["g"]), make("Flatten", ["g"], ["f"])]
    plan = planned([*nodes, make("MatMul", ["f", "fc"], ["output"])])
    assert plan.boundary == ("r",)
    assert plan.shares == {"r", "c", "input"}


def test_a_mean_over_positions_ends_the_encoder() -> None:
    nodes = [
        *BODY,
        make("ReduceMean", ["r", "hw"], ["g"], keepdims=0),
        make("MatMul", ["g", "fc"], ["output"]),
    ]
    assert planned(nodes).boundary == ("r",)


@pytest.mark.parametrize("view", [make("Flatten", ["r"], ["f"]), make("Reshape", ["r", "flat"], ["f"])])
def test_a_flatten_ends_the_encoder(view: onnx.NodeProto) -> None:
    assert planned([*BODY, view, make("MatMul", ["f", "fc256"], ["output"])]).boundary == ("r",)


def test_a_convolution_over_a_single_position_is_head() -> None:
    nodes = [*BODY, make("GlobalAveragePool", ["r"], ["g"]), make("Conv", ["g", "w1"], ["z"], name="classes")]
    plan = planned([*nodes, make("Flatten", ["z"], ["output"])])
    assert plan.boundary == ("r",)
    assert forms(plan)["classes"] == "cotangent"


def test_class_maps_that_are_pooled_last_are_the_boundary() -> None:
    """SqueezeNet's head: the last convolution still has positions."""
    nodes = [*BODY, make("Conv", ["r", "w1"], ["z"], name="classes"), make("GlobalAveragePool", ["z"], ["g"])]
    plan = planned([*nodes, make("Flatten", ["g"], ["output"])])
    assert plan.boundary == ("z",)
    assert forms(plan)["classes"] == "routes"


def test_two_pools_of_one_tensor_share_their_boundary() -> None:
    nodes = [
        *BODY,
        make("GlobalAveragePool", ["r"], ["a"]),
        make("GlobalMaxPool", ["r"], ["b"]),
        make("Concat", ["a", "b"], ["k"], axis=1),
        make("Flatten", ["k"], ["f"]),
        make("MatMul", ["f", "fc8"], ["output"]),
    ]
    assert planned(nodes).boundary == ("r",)


@pytest.mark.parametrize(("second", "boundary"), [("r", {"half", "deep"}), ("half", {"half"})])
def test_branches_pooled_apart_have_a_boundary_each_unless_one_is_made_of_the_other(
    second: str, boundary: set[str]
) -> None:
    nodes = [
        *BODY,
        make("MaxPool", ["r"], ["half"], name="half", kernel_shape=[2, 2], strides=[2, 2]),
        make("Relu" if second == "half" else "Sigmoid", [second], ["deep"], name="deep"),
        make("GlobalAveragePool", ["half"], ["a"]),
        make("GlobalAveragePool", ["deep"], ["b"]),
        make("Concat", ["a", "b"], ["k"], axis=1),
        make("Flatten", ["k"], ["f"]),
        make("MatMul", ["f", "fc8"], ["output"]),
    ]
    plan = planned(nodes)
    assert set(plan.boundary) == boundary
    data = RNG.standard_normal((2, 3, 8, 8)).astype(np.float32)
    for explanation in Explainer(model(nodes, ["N", 3, 8, 8]), preset="paper", providers="cpu").explain(data):
        assert abs(explanation.residual) < 1e-5 * max(1, abs(explanation.score))


def test_below_an_output_with_positions_the_boundary_is_where_one_of_them_needs_several() -> None:
    wide = make("Conv", ["r", "w4"], ["wide"], name="wide", pads=[1, 1, 1, 1])
    plan = planned([*BODY, wide, make("Conv", ["wide", "w1"], ["output"], name="classes")])
    assert plan.boundary == ("r",)
    assert forms(plan) == {"classes": "cotangent", "wide": "cotangent", "relu": "routes", "conv": "position"}


def test_what_mixes_no_positions_has_its_boundary_at_the_input() -> None:
    plan = planned([make("Conv", ["input", "w3"], ["h"]), make("Relu", ["h"], ["output"])])
    assert plan.boundary == ("input",)


def test_tokens_that_are_averaged_end_the_encoder() -> None:
    weights = make("MatMul", ["input", "fc"], ["t"], name="embed")
    nodes = [weights, make("ReduceMean", ["t", "axis"], ["output"], keepdims=0)]
    shape = (2, 6, 4)
    built = model_of(nodes, {"fc": WEIGHTS["fc"], "axis": np.array([1])}, (list(shape), []), 18)
    _, graph = simplify(built, {"input": shape})
    assert make_plan(graph, {"input": parse_layout("NTC", "input", shape)}, RULES, Options()).boundary == (
        "t",
    )


def two_blocks(how: str, *, pool: str) -> tuple[Net, str]:
    """A small vision transformer, and the tensor that ends its encoder."""
    net = Net(f"{how} {pool}", (1, TOKENS, WIDTH), "NTC")
    tokens, entering = "x", ""
    for _ in range(2):
        entering = tokens
        attended = attend(net, split_qkv(net, layer_norm(net, tokens, fused=True), how))
        tokens = net.add("Add", tokens, linear(net, attended, WIDTH, WIDTH))
        tokens = net.add("Add", tokens, mlp(net, layer_norm(net, tokens, fused=True)))
    normed = layer_norm(net, tokens, fused=True)
    if pool == "mean":
        return net.classify(net.add("ReduceMean", normed, net.ints(1), keepdims=0, out="NC"), WIDTH), normed
    first = net.add("Slice", normed, net.ints(0), net.ints(1), net.ints(1))
    return net.classify(net.add("Squeeze", first, net.ints(1), out="NC"), WIDTH), entering


@pytest.mark.parametrize("pool", ["class token", "mean"])
@pytest.mark.parametrize("how", ["split", "gather", "slice", "separate"])
def test_the_tokens_that_enter_the_last_attention_end_the_encoder_or_those_that_are_averaged(
    how: str, pool: str
) -> None:
    """And nothing else does: queries and keys, which receive nothing, are on no side of it."""
    net, wanted = two_blocks(how, pool=pool)
    plan = make_plan(walk(net.model()), {"x": parse_layout("NTC", "x", net.shape)}, RULES, Options())
    assert plan.boundary == (wanted,)
    assert {step.form for step in plan.steps} == {"cotangent", "position", "routes"}


def test_without_any_position_the_input_is_the_boundary() -> None:
    nodes = [make("MatMul", ["input", "fc"], ["h"]), make("Relu", ["h"], ["output"])]
    plan = planned(nodes, shape=(2, 4), layout="NC")
    assert plan.boundary == ("input",)
    data = RNG.standard_normal((2, 4)).astype(np.float32)
    for explanation in Explainer(model(nodes, ["N", 4]), preset="paper", providers="cpu").explain(data):
        assert explanation.relevance.shape == ()
        assert explanation.relevance == pytest.approx(explanation.score, rel=1e-5)


def test_an_input_of_one_position_is_the_boundary_too() -> None:
    nodes = [*BODY, make("GlobalAveragePool", ["r"], ["g"]), make("Flatten", ["g"], ["output"])]
    assert planned(nodes, shape=(2, 3, 1, 1)).boundary == ("input",)


# By name


@pytest.mark.parametrize("name", ["relu3", "add", "bn4", "conv1", "bn1", "pool1"])
def test_a_boundary_is_found_by_tensor_or_by_original_node(name: str) -> None:
    """conv1 is no tensor any more, since bn1 is folded into it: the name of the node still leads there."""
    _, graph = simplify(small_cnn(), {"input": (1, 3, 32, 32)})
    start = {"input": parse_layout("NCHW", "input", (1, 3, 32, 32))}
    plan = make_plan(graph, start, RULES, Options(boundary=name))
    assert plan.boundary[-1] == {"conv1": "bn1"}.get(name, name)


def test_above_a_named_boundary_relevance_is_a_cotangent_and_below_it_a_share() -> None:
    _, graph = simplify(small_cnn(), {"input": (1, 3, 32, 32)})
    start = {"input": parse_layout("NCHW", "input", (1, 3, 32, 32))}
    plan = make_plan(graph, start, RULES, Options(boundary="relu2"))
    form = forms(plan)
    assert form["conv3"] == "cotangent"
    assert form["relu2"] == "routes"
    assert form["conv2"] == "position"
    assert set(plan.boundary) == {"relu2", "pool1"}  # the skip connection enters at its own tensor


def test_the_input_as_boundary_is_gradient_times_input() -> None:
    data = RNG.standard_normal((1, 3, 32, 32)).astype(np.float32)
    explained = Explainer(small_cnn(), preset="paper", boundary="input", providers="cpu").explain(data, 3)[0]
    other = Explainer(small_cnn(), preset="paper", boundary="input", providers="cpu").explain(
        data * (1 + 1e-3), 3
    )[0]
    # Piecewise linear: the directional derivative along the image is the sum of gradient times input.
    slope = (other.score - explained.score) / 1e-3
    assert float(explained.relevance.sum(dtype=np.float64)) == pytest.approx(slope, rel=0.02)
    assert explained.residual == pytest.approx(0, abs=1e-5)


def test_the_target_as_boundary_collapses_at_once() -> None:
    data = RNG.standard_normal((1, 3, 32, 32)).astype(np.float32)
    explained = Explainer(small_cnn(), preset="paper", boundary="output", providers="cpu").explain(data)[0]
    assert explained.meta["boundary"] == ["output"]
    assert explained.relevance.sum(dtype=np.float64) == pytest.approx(explained.score, rel=1e-5)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            "rellu3",
            "boundary 'rellu3' is not a tensor of the simplified graph; did you mean 'relu3' or 'relu5' or 'relu4'? "
            "`srd-onnx check MODEL` lists what relevance crosses.",
        ),
        (
            "%%%",
            "boundary '%%%' is not a tensor of the simplified graph. "
            "`srd-onnx check MODEL` lists what relevance crosses.",
        ),
    ],
)
def test_an_unknown_boundary_is_told_with_what_is_near(wanted: str, message: str) -> None:
    with pytest.raises(UnknownTensorError) as caught:
        _ = Explainer(small_cnn(), preset="paper", boundary=wanted, providers="cpu").plan
    assert str(caught.value) == message


def test_a_boundary_that_relevance_does_not_cross_is_refused() -> None:
    nodes = [
        *BODY,
        make("Sigmoid", ["r"], ["gate"], name="squash"),
        make("Mul", ["r", "gate"], ["m"]),
        make("GlobalAveragePool", ["m"], ["g"]),
        make("Flatten", ["g"], ["output"]),
    ]
    with pytest.raises(UnknownTensorError) as caught:
        planned(nodes, "squash")
    assert str(caught.value) == (
        "boundary 'squash' is a tensor that relevance does not cross. "
        "`srd-onnx check MODEL` lists what relevance crosses."
    )


def test_a_picture_of_bytes_as_boundary_ends_cotangents_behind_its_cast() -> None:
    """Integers have no cotangent: what the Cast gives is the earliest tensor that has one."""
    conv = make("Conv", ["real", "w"], ["c"], name="conv", pads=[1, 1, 1, 1])
    tail = [make("GlobalAveragePool", ["c"], ["g"]), make("Flatten", ["g"], ["output"])]
    bytes_in = model([make("Cast", ["input"], ["real"], to=1), conv, *tail], ["N", 3, 8, 8])
    bytes_in.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    data = RNG.integers(0, 255, (1, 3, 8, 8)).astype(np.uint8)
    by_input, by_cast = (
        Explainer(bytes_in, preset="paper", boundary=name, providers="cpu").explain(data)[0]
        for name in ("input", "real")
    )
    assert by_input.meta["boundary"] == by_cast.meta["boundary"] == ["real"]
    np.testing.assert_array_equal(by_input.relevance, by_cast.relevance)


def test_a_cast_does_not_hide_how_many_positions_are_needed() -> None:
    wide = make("Conv", ["r", "w4"], ["wide"], name="wide", pads=[1, 1, 1, 1])
    casts = [
        make("Cast", ["wide"], ["exact"], to=onnx.TensorProto.DOUBLE),
        make("Mul", ["exact", "exact"], ["squared"]),
        make("Cast", ["squared"], ["output"], to=onnx.TensorProto.FLOAT),
    ]
    assert planned([*BODY, wide, *casts]).boundary == ("r",)


def test_frames_in_the_place_of_the_batch_are_positions() -> None:
    frames = (4, 3, 8)
    nodes = [make("Conv", ["input", "w"], ["c"]), make("GlobalAveragePool", ["c"], ["output"])]
    weights: dict[str, Any] = {"w": RNG.standard_normal((2, 3, 3)).astype(np.float32)}
    built = model_of(nodes, weights, (list(frames), []), 18)
    data = RNG.standard_normal(frames).astype(np.float32)
    explainer = Explainer(built, preset="paper", layout="DCT", providers="cpu")
    (found,) = explainer.explain(data, targets="output[2, 1]")
    assert found.relevance.shape == (4, 8)
    assert not found.relevance[[0, 1, 3]].any()
    assert abs(found.residual) < 1e-5 * max(1, abs(float(found.meta["seed_value"])))
