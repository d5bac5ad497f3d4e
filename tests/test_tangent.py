"""A plan for the true derivative goes through gates and statistics, which the fixed pattern leaves out."""

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

from graph_rules import RULES
from srd_onnx.engine.assemble import combined
from srd_onnx.engine.backward import build
from srd_onnx.engine.compiling import Case, plan_for, relevance_outputs
from srd_onnx.engine.options import Options
from srd_onnx.graph.roles import parse_layout
from srd_onnx.ort.runtime import CPU, make_session, run
from tests.nets import model_of

make = helper.make_node
SHAPE = (1, 3, 4)


def gradient_times_input(*, tangent: bool) -> NDArray[np.float32]:
    """Of ``Σ x · sigmoid(mean over positions of x)`` at x, per position."""
    nodes = [
        make("ReduceMean", ["input", "axis"], ["mean"], keepdims=1),
        make("Sigmoid", ["mean"], ["gate"]),
        make("Mul", ["input", "gate"], ["gated"]),
        make("ReduceSum", ["gated", "axis"], ["output"], keepdims=0),
    ]
    model = model_of(nodes, {"axis": np.array([2])}, (list(SHAPE), []), 18)
    axes = parse_layout("NCT", "input", SHAPE)
    case = Case({"input": SHAPE}, {"input": axes}, Options(boundary="input"), free=True, tangent=tangent)
    forward, plan = plan_for(model, case, RULES)
    backward = build(plan, free=True)
    outputs = relevance_outputs(plan, backward)
    session = make_session(combined(forward, backward, outputs).SerializeToString(), [CPU])
    (found,) = run(session, list(outputs), {"input": X, "direction": np.ones((1, 3), np.float32)})
    return np.asarray(found[0], np.float32)


X = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def test_the_derivative_goes_through_the_gate() -> None:
    gate = 1 / (1 + np.exp(-X.mean(2, keepdims=True)))
    own = X * gate
    through = X * gate * (1 - gate) * X.mean(2, keepdims=True)
    assert gradient_times_input(tangent=False) == pytest.approx(own.sum(1)[0], rel=1e-5)
    assert gradient_times_input(tangent=True) == pytest.approx((own + through).sum(1)[0], rel=1e-5)
