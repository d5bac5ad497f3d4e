"""Inputs that are settings become constants, and the branches that they decide fold away."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from srd_onnx import Explainer
from srd_onnx.errors import OptionError

make = helper.make_node


def branching() -> onnx.ModelProto:
    """`x` times 2 where the input `mode` is 1, else minus `x`."""
    double = helper.make_graph(
        [make("Add", ["x", "x"], ["twice"], name="double")],
        "yes",
        [],
        [helper.make_tensor_value_info("twice", TensorProto.FLOAT, [1, 3])],
    )
    negate = helper.make_graph(
        [make("Neg", ["x"], ["less"], name="negate")],
        "no",
        [],
        [helper.make_tensor_value_info("less", TensorProto.FLOAT, [1, 3])],
    )
    nodes = [
        make("Equal", ["mode", "one"], ["chosen"], name="compare"),
        make("If", ["chosen"], ["y"], name="branch", then_branch=double, else_branch=negate),
    ]
    graph = helper.make_graph(
        nodes,
        "branching",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3]),
            helper.make_tensor_value_info("mode", TensorProto.INT64, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor("one", TensorProto.INT64, [], [1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize(("mode", "factor"), [(1, 2.0), (0, -1.0)])
def test_a_setting_chooses_the_branch_that_is_explained(mode: int, factor: float) -> None:
    explainer = Explainer(branching(), preset="paper", fixed={"mode": mode}, layout="NT", providers="cpu")
    data = np.array([[1.0, 2.0, 3.0]], np.float32)
    (found,) = explainer.explain(data, targets=1)
    assert found.relevance == pytest.approx([0.0, 2.0 * factor, 0.0])
    assert found.meta["fixed"] == {"mode": mode}
    assert [port.name for port in explainer.ports] == ["x"]


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"sr": 1}, r"^fixed: 'sr' is no input; the inputs are \['x', 'mode'\]$"),
        ({"mode": 1, "x": [[0, 0, 0]]}, "^fixed: an input must be left to explain$"),
        ({"mode": [1]}, r"^fixed: 'mode' has 0 axes, the value \[1\] has 1$"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(fixed: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Explainer(branching(), preset="paper", fixed=fixed, providers="cpu")  # type: ignore[arg-type]
