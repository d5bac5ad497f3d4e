"""Layouts, and how the roles of axes travel through moves of elements."""

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import helper

from graph_rules import RULES
from srd_onnx.errors import LayoutError, UnsupportedCaseError
from srd_onnx.graph.ir import Value
from srd_onnx.graph.roles import Axes, Role, guess_layout, parse_layout, propagate
from srd_onnx.graph.simplify import simplify
from tests.nets import model_of

make = helper.make_node


def roles_of(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    shape: Sequence[int],
    layout: str = "NCHW",
    opset: int = 18,
) -> dict[str, str]:
    """The letters of every tensor's axes, with * behind those of a gate."""
    model = model_of(nodes, weights, (list(shape), []), opset)
    rules = {key: rule for key, rule in RULES.items() if key.op_type != "Sin"}
    _, graph = simplify(model, {"input": shape})
    start = {"input": parse_layout(layout, "input", tuple(shape))}
    return {
        name: f"{axes}{'*' if axes.gate else ''}" for name, axes in propagate(graph, start, rules).items()
    }


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


# Layouts


@pytest.mark.parametrize(
    ("layout", "expected"),
    [("NCHW", "NCPP"), ("NHWC", "NPPC"), ("NTC", "NPC"), ("NCDHW", "NCPPP"), ("BLC", "NPC"), ("NC", "NC")],
)
def test_letters_stand_for_roles(layout: str, expected: str) -> None:
    assert str(parse_layout(layout, "x", (1,) * len(layout))) == expected


@pytest.mark.parametrize(
    ("layout", "shape", "message"),
    [
        ("NCXY", (1, 3, 8, 8), "layout 'NCXY': unknown letter X, Y; use N (batch), C (channel), H W D T L"),
        (
            "nchw",
            (1, 3, 8, 8),
            "layout 'nchw': unknown letter c, h, n, w; use N (batch), C (channel), H W D T L",
        ),
        ("NCH", (None, 3, 8, 8), "layout 'NCH' has 3 axes, but input 'x' has [?, 3, 8, 8]"),
        ("", (1,), "layout '' has 0 axes, but input 'x' has [1]"),
        (
            "HWNC",
            (8, 8, 1, 3),
            "layout 'HWNC': only the first axis can be the batch (N)",
        ),
    ],
)
def test_a_layout_that_cannot_be_is_refused(layout: str, shape: tuple[int | None, ...], message: str) -> None:
    with pytest.raises(LayoutError) as caught:
        parse_layout(layout, "x", shape)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((None, 3, 224, 224), "NCHW"),
        ((None, 224, 224, 3), "NHWC"),
        ((1, None, None, 1), "NHWC"),
        ((1, 1, 28, 28), "NCHW"),
        ((1, 3, 3, 3), "NCHW"),
        ((None, None, None, None), "NCHW"),
        ((1, 8, 8, 8, 3), "NDHWC"),
        ((1, 3, 8, 8, 8), "NCDHW"),
        ((1, 16, 3), "NCT"),
        ((1, 16), "NC"),
        ((), ""),
    ],
)
def test_the_usual_layout_is_guessed(shape: tuple[int | None, ...], layout: str) -> None:
    assert guess_layout(shape, "x") == layout
    parse_layout(layout, "x", shape)


@pytest.mark.parametrize("rank", [1, 6])
def test_no_layout_is_guessed_for_an_unusual_rank(rank: int) -> None:
    with pytest.raises(LayoutError) as caught:
        guess_layout((1,) * rank, "x")
    assert str(caught.value) == (
        f"input 'x' has {rank} axes: no usual layout; say which with --layout / layout= (e.g. NTC)"
    )


def test_axes_count_positions_and_keep_their_shape() -> None:
    axes = Axes((Role.BATCH, Role.CHANNEL, Role.POSITION, Role.POSITION))
    value = Value("x", (2, 3, 4, 5), np.dtype(np.float32))
    assert (axes.channels, axes.positions, axes.count(value)) == ((1,), (2, 3), 20)
    assert axes.position_shape(value) == (2, 1, 4, 5)


# Propagation


def test_a_transpose_takes_the_roles_along() -> None:
    roles = roles_of(
        [make("Transpose", ["input"], ["t"], perm=[0, 2, 3, 1]), make("Relu", ["t"], ["output"])],
        {},
        (2, 3, 4, 5),
    )
    assert roles == {"input": "NCPP", "t": "NPPC", "output": "NPPC"}


@pytest.mark.parametrize(
    ("shape", "to", "expected"),
    [
        ((2, 3, 4, 5), (2, 3, 20), "NCP"),  # positions merged
        ((2, 3, 20), (2, 3, 4, 5), "NCPP"),  # positions split
        ((2, 6, 4, 5), (2, 2, 3, 4, 5), "NCCPP"),  # channels split, as in a channel shuffle
        ((2, 3, 4, 5), (2, 60), "NC"),  # flattened: positions became channels
        ((2, 3, 1, 1), (2, 3), "NC"),  # axes of size 1 dropped
        ((2, 3, 4, 5), (2, 3, 1, 4, 5), "NCPPP"),  # a new axis of size 1 joins the one after it
        ((1, 3, 4, 5), (1, 3, 4, 5), "NCPP"),
    ],
)
def test_a_reshape_keeps_the_roles_of_what_it_merges_or_splits(
    shape: tuple[int, ...], to: tuple[int, ...], expected: str
) -> None:
    layout = "NCHW"[: len(shape)]
    roles = roles_of(
        [make("Relu", ["input"], ["r"]), make("Reshape", ["r", "s"], ["v"]), make("Relu", ["v"], ["output"])],
        {"s": ints(*to)},
        shape,
        layout,
    )
    assert roles["output"] == expected


def test_a_reshape_that_merges_the_batch_is_refused() -> None:
    nodes = [make("Relu", ["input"], ["r"]), make("Reshape", ["r", "s"], ["output"], name="merge")]
    with pytest.raises(UnsupportedCaseError) as caught:
        roles_of(nodes, {"s": ints(6, 20)}, (2, 3, 4, 5))
    assert str(caught.value) == (
        "ai.onnx::Reshape v14, node 'merge': it merges the batch axis with others: [2, 3, 4, 5] (NCPP) to [6, 20]"
    )


@pytest.mark.parametrize("axis", [1, -3])
def test_a_flatten_makes_positions_channels(axis: int) -> None:
    roles = roles_of(
        [make("Relu", ["input"], ["r"]), make("Flatten", ["r"], ["output"], axis=axis)], {}, (2, 3, 4, 5)
    )
    assert roles["output"] == "NC"


def test_squeeze_and_unsqueeze_keep_the_other_roles() -> None:
    nodes = [
        make("GlobalAveragePool", ["input"], ["g"]),
        make("Squeeze", ["g", "spatial"], ["q"]),
        make("Unsqueeze", ["q", "spatial"], ["u"]),
        make("Relu", ["u"], ["output"]),
    ]
    roles = roles_of(nodes, {"spatial": ints(2, 3)}, (2, 3, 4, 5))
    assert roles["g"] == "NCPP"
    assert roles["q"] == "NC"


@pytest.mark.parametrize("channels", [3, 1])
def test_a_pixel_shuffle_by_reshape_and_transpose_makes_positions(channels: int) -> None:
    """[N, C·r·r, H, W] to [N, C, H·r, W·r], the way that torch exported it once."""
    nodes = [
        make("Relu", ["input"], ["x"]),
        make("Reshape", ["x", "split"], ["a"]),
        make("Transpose", ["a"], ["b"], perm=[0, 1, 4, 2, 5, 3]),
        make("Reshape", ["b", "join"], ["c"]),
        make("Relu", ["c"], ["output"]),
    ]
    split, join = ints(2, channels, 2, 2, 4, 5), ints(2, channels, 8, 10)
    roles = roles_of(nodes, {"split": split, "join": join}, (2, 4 * channels, 4, 5))
    assert (roles["a"], roles["b"], roles["output"]) == ("NCCCPP", "NCPCPC", "NCPP")


def test_a_channel_shuffle_keeps_channels() -> None:
    nodes = [
        make("Relu", ["input"], ["x"]),
        make("Reshape", ["x", "split"], ["a"]),
        make("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3, 4]),
        make("Reshape", ["b", "join"], ["c"]),
        make("Relu", ["c"], ["output"]),
    ]
    roles = roles_of(nodes, {"split": ints(2, 2, 3, 4, 5), "join": ints(2, 6, 4, 5)}, (2, 6, 4, 5))
    assert (roles["a"], roles["b"], roles["output"]) == ("NCCPP", "NCCPP", "NCPP")


@pytest.mark.parametrize("shape", [(), (1,), (3, 1, 1), (1, 3, 1, 1), (4, 5), (2, 3, 4, 5)])
def test_broadcasting_a_constant_changes_no_role(shape: tuple[int, ...]) -> None:
    roles = roles_of(
        [make("Add", ["input", "b"], ["output"])], {"b": np.ones(shape, np.float32)}, (2, 3, 4, 5)
    )
    assert roles["output"] == "NCPP"


def test_a_scale_per_channel_has_the_roles_of_what_it_scales() -> None:
    nodes = [
        make("GlobalAveragePool", ["input"], ["g"]),
        make("Sigmoid", ["g"], ["s"]),
        make("Mul", ["s", "input"], ["output"]),
    ]
    roles = roles_of(nodes, {}, (2, 3, 4, 5))
    assert (roles["s"], roles["output"]) == ("NCPP*", "NCPP")


def test_a_gate_stays_one_through_views_and_not_through_a_convolution() -> None:
    nodes = [
        make("Sigmoid", ["input"], ["s"]),
        make("Transpose", ["s"], ["t"], perm=[0, 1, 3, 2]),
        make("Conv", ["t", "w"], ["c"]),
        make("Relu", ["c"], ["output"]),
    ]
    roles = roles_of(nodes, {"w": np.ones((2, 3, 1, 1), np.float32)}, (2, 3, 4, 5))
    assert (roles["s"], roles["t"], roles["c"], roles["output"]) == ("NCPP*", "NCPP*", "NCPP", "NCPP")


def test_what_depends_on_no_input_has_no_roles() -> None:
    nodes = [make("RandomNormal", [], ["k"], shape=[2, 3, 4, 5]), make("Add", ["input", "k"], ["output"])]
    assert set(roles_of(nodes, {}, (2, 3, 4, 5))) == {"input", "output"}


def test_a_node_without_a_rule_passes_on_the_roles_if_the_rank_stays() -> None:
    nodes = [
        make("Sin", ["input"], ["e"]),
        make("Sigmoid", ["e"], ["s"]),
        make("Mul", ["input", "s"], ["output"]),
    ]
    assert roles_of(nodes, {}, (2, 3, 4, 5)) == {"input": "NCPP", "e": "NCPP", "s": "NCPP*", "output": "NCPP"}


# Wrong layouts


def test_a_channels_last_model_declared_channels_first_is_told_at_its_convolution() -> None:
    nodes = [
        make("Transpose", ["input"], ["t"], perm=[0, 3, 1, 2], name="to_nchw"),
        make("Conv", ["t", "w"], ["output"], name="stem"),
    ]
    weights = {"w": np.ones((2, 3, 3, 3), np.float32)}
    assert roles_of(nodes, weights, (2, 8, 8, 3), "NHWC")["output"] == "NCPP"
    with pytest.raises(LayoutError) as caught:
        roles_of(nodes, weights, (2, 8, 8, 3), "NCHW")
    assert str(caught.value) == (
        "ai.onnx::Conv v11, node 'stem': slides along axes 2 and up, but its input [2, 3, 8, 8] has axes NPCP "
        "(N batch, C channel, P position); is the layout of the input right? Say it with --layout / layout="
    )


def test_operands_that_disagree_are_told_with_the_node() -> None:
    nodes = [
        make("Transpose", ["input"], ["t"], perm=[0, 2, 1], name="turn"),
        make("Add", ["input", "t"], ["output"], name="add"),
    ]
    with pytest.raises(LayoutError) as caught:
        roles_of(nodes, {}, (2, 4, 4), "NCT")
    assert str(caught.value) == (
        "ai.onnx::Add v14, node 'add': axis 1 is a channel axis of one operand and not of another; "
        "is the layout of the input right?"
    )
