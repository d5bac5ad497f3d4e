"""Counted costs against sums by hand."""

import json
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from srd_onnx import Explainer
from srd_onnx.cost import Cost, costs, multiply_adds, total
from tests.cli_tools import run


def small() -> bytes:
    """Conv 3 -> 4 of 3 × 3 on 8 × 8, Relu, mean, Gemm 4 -> 5."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((4, 3, 3, 3)),
        "v": rng.standard_normal((4, 5)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="mean"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "v"], ["y"], name="gemm"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


def costs_of(explainer: Explainer) -> dict[str, Cost]:
    return costs(explainer.compiled(explainer.case(explainer.shown_shapes())))


def test_what_the_forward_pass_costs_is_the_sum_by_hand() -> None:
    found = costs_of(Explainer(small(), preset="paper", providers="cpu"))
    assert found["conv"].forward == 64 * 4 * 3 * 9
    assert found["gemm"].forward == 4 * 5
    assert found["relu"].forward == 0
    # Its VJP has as many as itself, and no form of it has fewer.
    assert found["conv"].backward >= found["conv"].forward
    assert total(found).forward == 64 * 4 * 3 * 9 + 20


def test_a_routing_node_costs_nothing_and_everything_adds_up() -> None:
    found = costs_of(Explainer("squeezenet11", preset="paper", providers="cpu"))
    assert found["/fires.0/sq/Conv"].backward == found["/fires.0/sq/Conv"].written == 0
    assert total(found).backward == sum(one.backward for one in found.values()) > 0


@pytest.mark.parametrize(
    ("op", "shapes", "attributes", "expected"),
    [
        ("Conv", {"a": (1, 8, 5, 5), "b": (6, 2, 3, 3), "y": (1, 6, 5, 5)}, {"group": 4}, 150 * 18),
        ("ConvTranspose", {"a": (1, 8, 5, 5), "b": (8, 3, 2, 2), "y": (1, 3, 10, 10)}, {}, 200 * 12),
        ("MatMul", {"a": (2, 3, 4), "b": (4, 5), "y": (2, 3, 5)}, {}, 30 * 4),
        ("Gemm", {"a": (4, 3), "b": (4, 5), "y": (3, 5)}, {"transA": 1}, 15 * 4),
        ("Relu", {"a": (4, 3), "y": (4, 3)}, {}, 0),
    ],
)
def test_multiply_adds(
    op: str, shapes: dict[str, tuple[int, ...]], attributes: dict[str, Any], expected: int
) -> None:
    node = helper.make_node(op, [n for n in shapes if n != "y"], ["y"], **attributes)
    assert multiply_adds(node, shapes) == expected


def test_check_shows_them() -> None:
    result = run("check", "squeezenet11", "--cost", "--preset", "paper")
    assert result.exit_code == 0
    assert "multiply-adds: " in result.stdout
    counted = json.loads(run("check", "squeezenet11", "--cost", "--json").stdout)["cost"]
    assert counted["backward"] > counted["forward"] > 0
    assert json.loads(run("check", "squeezenet11", "--json").stdout)["cost"] is None
