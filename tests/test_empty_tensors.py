"""A tensor without any positions in a network takes no part in what is explained, in whatever way."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from srd_onnx import Explainer
from srd_onnx.graph.ir import Array
from tests.nets import model_of


def net(*, empty: bool) -> onnx.ModelProto:
    """A convolution whose output is joined to a part of it: to no row at all, if there is one that is empty."""
    make = helper.make_node
    nothing = [
        make("Slice", ["r", "zero", "zero", "axis"], ["none"], name="slice"),
        make("Relu", ["none"], ["still none"], name="cut off"),
        make("Concat", ["r", "still none"], ["all"], name="join", axis=2),
    ]
    nodes = [
        make("Conv", ["input", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        make("Relu", ["c"], ["r"], name="relu"),
        *(nothing if empty else [make("Identity", ["r"], ["all"], name="join")]),
        make("MaxPool", ["all"], ["m"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        make("Flatten", ["m"], ["f"], name="flatten"),
        make("MatMul", ["f", "v"], ["output"], name="fc"),
    ]
    rng = np.random.default_rng(0)
    weights: dict[str, Any] = {
        "w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "v": rng.standard_normal((4 * 3 * 4, 5)).astype(np.float32),
        "zero": np.array([0]),
        "axis": np.array([2]),
    }
    return model_of(nodes, weights, (["N", 3, 6, 8], ["N", 5]))


def found(explainer: Explainer, way: str, x: Array) -> list[Array]:
    """Maps, or whatever arrays a way of looking gives."""
    targets = list(range(5))
    if way == "explain":
        return [one.relevance for one in explainer.explain(x, 2)]
    if way == "many targets":
        return [one.relevance for one in explainer.explain(x, targets)]
    if way == "forward":
        return [one.relevance for one in explainer.explain_forward(x, targets)]
    if way == "inside":
        return [one.explanation.relevance for one in explainer.inside(x, 2)]
    if way == "fields":
        return list(explainer.erf(x[:1], "pool", [(0, 1), (2, 3)])[0].maps)
    return [one.logits for one in explainer.apop(x, x[::-1])]


@pytest.mark.parametrize("preset", ["paper", "joint"])
@pytest.mark.parametrize("way", ["explain", "many targets", "forward", "inside", "fields", "apop"])
def test_it_changes_nothing(way: str, preset: str) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 8)).astype(np.float32)
    one, other = (
        found(Explainer(net(empty=empty), preset=preset, providers="cpu"), way, x) for empty in (True, False)
    )
    assert len(one) == len(other) > 0
    for array, right in zip(one, other, strict=True):
        assert np.abs(right).max() > 0
        np.testing.assert_allclose(array, right, atol=1e-5 * np.abs(right).max())


def test_its_layers_are_listed() -> None:
    explainer = Explainer(net(empty=True), providers="cpu")
    assert {one.name for one in explainer.layers()} >= {"conv", "join"}
