"""Networks that read pictures at computed places, and regions that the model works out itself."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from graph_rules import RULES
from srd_onnx import Explainer
from srd_onnx.engine.options import Bias
from srd_onnx.errors import UnsupportedCaseError
from tests import checks
from tests.case_types import Case, Var, ints
from tests.harness import bench, emitted_vjp
from tests.nets import model_of

make = helper.make_node
SHAPE = (1, 2, 8, 8)
REGIONS = Case(
    "RoiAlign-16-computed",
    "RoiAlign",
    16,
    (Var("NCHW", (1, 3, 5, 6)), Var("TC", (3, 4)), ints(0, 0, 0)),
    ("RCHW",),
    {"output_height": 2, "output_width": 3, "sampling_ratio": 2, "spatial_scale": 1.5},
    frozenset({1}),
)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("bias", ["distribute", "ledger"])
def test_computed_regions_are_held_fixed(mode: str, bias: Bias) -> None:
    case = Case(**{**vars(REGIONS), "attrs": {**REGIONS.attrs, "mode": mode}})
    checks.check_against_definition(case, RULES, bias)
    checks.check_conservation(case, RULES)
    checks.check_adjoint(case, RULES)
    checks.check_runtime(case, RULES)
    checks.check_emitted_graph(case, RULES)


def test_the_derivative_with_respect_to_regions_is_refused() -> None:
    b = bench(REGIONS, RULES)
    with pytest.raises(UnsupportedCaseError, match="derivative with respect to its regions has no rule"):
        emitted_vjp(b, b.cotangents(), tangent=True)


class Weights(dict[str, NDArray[Any]]):
    """Random ones by name and shape; `of` gives the name."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(7)

    def of(self, name: str, *shape: int) -> str:
        self[name] = (self.rng.standard_normal(shape) / 2).astype(np.float32)
        return name


def unpooled(w: Weights) -> list[onnx.NodeProto]:
    """As SegNet: maxima go back to where they came from."""
    return [
        make("Conv", ["input", w.of("w0", 4, 2, 3, 3), w.of("b0", 4)], ["a"], pads=[1] * 4),
        make("MaxPool", ["a"], ["p", "places"], kernel_shape=[2, 2], strides=[2, 2]),
        make("Conv", ["p", w.of("w1", 4, 4, 3, 3), w.of("b1", 4)], ["c"], pads=[1] * 4),
        make("Relu", ["c"], ["d"]),
        make("MaxUnpool", ["d", "places"], ["e"], kernel_shape=[2, 2], strides=[2, 2]),
    ]


def turned(w: Weights) -> list[onnx.NodeProto]:
    """As a spatial transformer: where the picture is read depends on the picture."""
    return [
        make("Conv", ["input", w.of("w0", 4, 2, 3, 3), w.of("b0", 4)], ["a"], pads=[1] * 4),
        make("Conv", ["input", w.of("w1", 2, 2, 2, 2)], ["b"], strides=[2, 2]),
        make("Tanh", ["b"], ["flow"]),
        make("Transpose", ["flow"], ["grid"], perm=[0, 2, 3, 1]),
        make("GridSample", ["a", "grid"], ["e"], mode="bilinear", padding_mode="border"),
    ]


def deformed(w: Weights) -> list[onnx.NodeProto]:
    """A deformable convolution with its gates."""
    return [
        make("Conv", ["input", w.of("w1", 18, 2, 3, 3)], ["offsets"], pads=[1] * 4),
        make("Conv", ["input", w.of("w2", 9, 2, 3, 3)], ["m"], pads=[1] * 4),
        make("Sigmoid", ["m"], ["mask"]),
        make("DeformConv", ["input", w.of("w0", 4, 2, 3, 3), "offsets", w.of("b0", 4), "mask"], ["e"], pads=[1] * 4),
    ]  # fmt: skip


def cut_out(w: Weights) -> list[onnx.NodeProto]:
    """Two regions, each a position among others."""
    w["regions"], w["items"] = np.array([[0, 0, 5, 6], [2, 1, 7, 7]], np.float32), np.zeros(2, np.int64)
    w["shape"] = np.array([1, 4, 4, 2])
    return [
        make("Conv", ["input", w.of("w0", 4, 2, 3, 3), w.of("b0", 4)], ["a"], pads=[1] * 4),
        make("RoiAlign", ["a", "regions", "items"], ["r"], output_height=2, output_width=2, sampling_ratio=2),
        make("Transpose", ["r"], ["t"], perm=[1, 2, 3, 0]),
        make("Unsqueeze", ["t", "front"], ["u"]),
        make("Reshape", ["u", "shape"], ["e"]),
    ]


@pytest.mark.parametrize("bias", ["distribute", "ledger"])
@pytest.mark.parametrize("part", [unpooled, turned, deformed, cut_out])
def test_a_network_is_explained_in_full(part: Any, bias: Bias) -> None:
    weights = Weights()
    weights["front"], weights["both"] = np.array([0]), np.array([2, 3])
    nodes = [
        *part(weights),
        make("Relu", ["e"], ["f"]),
        make("ReduceMean", ["f", "both"], ["mean"], keepdims=0),
        make("MatMul", ["mean", weights.of("fc", 4, 5)], ["output"]),
    ]
    for i, node in enumerate(nodes):
        node.name = f"{node.op_type}_{i}"
    model = model_of(nodes, weights, (list(SHAPE), [1, 5]), 19)
    x = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)
    explainer = Explainer(model, preset="paper", bias=bias, providers="cpu")
    for target in range(5):
        (explanation,) = explainer.explain(x, target)
        scale = float(np.abs(explanation.relevance).sum())
        assert scale > 0
        assert np.isfinite(explanation.relevance).all()
        assert abs(explanation.residual) <= 1e-5 * scale
