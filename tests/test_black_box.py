"""Black boxes by their definitions, as loops in double precision over models that are functions in numpy."""

import math
from typing import Any

import numpy as np
import onnx
import pytest

from srd_onnx import Explainer
from srd_onnx.errors import OptionError, UnsupportedCaseError
from srd_onnx.graph.ir import Array
from srd_onnx.methods.black_box import RiseMasks, occlusion, rise
from srd_onnx.targets import At, Contrast
from tests.attention_nets import block
from tests.method_nets import SHAPE, data, linear, regions, softmax, two_inputs
from tests.small_nets import in_single

HIGH, WIDE = SHAPE[1:]
SMALL = "rise:masks=50,cells=3"


def explained(
    model: onnx.ModelProto, method: Any, inputs: Any, targets: Any = None, **options: Any
) -> list[Array]:
    size = options.pop("batch_size", 1)
    explainer = Explainer(model, method=method, providers="cpu", **options)
    return [one.relevance for one in explainer.explain(inputs, targets, batch_size=size)]


# Occlusion


def occluded(score: Any, x: Array, window: int, stride: int, value: float) -> Array:
    """The mean over the windows at each position of what hiding them takes from the score."""
    total, count = np.zeros((HIGH, WIDE)), np.zeros((HIGH, WIDE))
    top = 0
    while True:
        left = 0
        while True:
            changed = x.astype(np.float64).copy()
            inside = [
                (i, j)
                for i in range(top, min(top + window, HIGH))
                for j in range(left, min(left + window, WIDE))
            ]
            for i, j in inside:
                changed[:, i, j] = value
            for i, j in inside:
                total[i, j] += score(x) - score(changed)
                count[i, j] += 1
            if left + window >= WIDE:
                break
            left += stride
        if top + window >= HIGH:
            break
        top += stride
    return total / count


@pytest.mark.parametrize(("window", "stride", "value"), [(3, 2, 0.0), (4, 4, -1.5), (5, 3, 2.0), (1, 1, 0.0)])
def test_occlusion_by_loops(window: int, stride: int, value: float) -> None:
    net, x = linear(), data(1)
    (found,) = explained(net.model(), occlusion(window=window, stride=stride, value=value), x, 2)
    wanted = occluded(lambda one: net(one)[2], x[0], window, stride, value)
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_occlusion_of_single_positions_is_the_contribution_of_a_linear_model() -> None:
    net, x = linear(), data(1)
    (found,) = explained(net.model(), occlusion(window=1, stride=1), x, 0)
    parts = net.weights[0].reshape(SHAPE) * x[0]
    np.testing.assert_allclose(found, parts.sum(axis=0), atol=2e-5)
    (other,) = explained(linear(seed=8).model(), occlusion(window=1, stride=1), x, 0)
    assert np.abs(other - parts.sum(axis=0)).max() > 0.1  # other weights are noticed


def test_a_window_as_large_as_the_input_takes_all() -> None:
    net, x = linear(), data(1)
    (found,) = explained(net.model(), occlusion(window=100, stride=8), x, 1)
    np.testing.assert_allclose(found, np.full((HIGH, WIDE), net(x[0])[1] - net.bias[1]), rtol=1e-5)


@pytest.mark.parametrize(
    ("seed", "of"),
    [
        ("logit", lambda z, t: np.eye(4)[t]),
        ("logprob", lambda z, t: np.eye(4)[t] - softmax(z)),
        (
            "contrast",
            lambda z, t: np.eye(4)[t] - np.eye(4)[max(set(range(4)) - {t}, key=lambda k: float(z[k]))],
        ),
    ],
)
def test_what_is_explained_is_the_seed(seed: str, of: Any) -> None:
    net, x = linear(), data(1)
    direction = of(net(x[0]), 1)
    explainer = Explainer(net.model(), method="occlusion:window=4,stride=4", providers="cpu", seed=seed)
    (found,) = explainer.explain(x, 1)
    wanted = occluded(lambda one: direction @ net(one), x[0], 4, 4, 0.0)
    np.testing.assert_allclose(found.relevance, wanted, atol=2e-5)
    assert found.meta["seed_value"] == pytest.approx(direction @ net(x[0]), rel=1e-5)


def test_an_inner_tensor_and_a_contrast() -> None:
    net, x = linear(), data(1)
    both, only = explained(net.model(), "occlusion:window=2,stride=2", x, [Contrast(1, 3), At("output", 1)])
    other = explained(net.model(), "occlusion:window=2,stride=2", x, 3)[0]
    np.testing.assert_allclose(both, only - other, atol=2e-5)


@pytest.mark.parametrize(("window", "stride"), [(0, 1), (3, 0), (3, 4), (-1, 1)])
def test_windows_that_leave_gaps_are_refused(window: int, stride: int) -> None:
    with pytest.raises(OptionError, match=r"window=|stride="):
        occlusion(window=window, stride=stride)


# RISE


def mask(coarse: Array, shifts: tuple[int, int]) -> Array:
    """One mask by loops: linear between the centres of the cells, mirrored at the border, cut out at the shift."""
    cells = len(coarse)
    width = [math.ceil(HIGH / cells), math.ceil(WIDE / cells)]

    def around(pixel: int, axis: int) -> list[tuple[int, float]]:
        place = abs((pixel + 0.5) * cells / ((cells + 1) * width[axis]) - 0.5)
        place = 2 * (cells - 1) - place if place > cells - 1 else place
        low = math.floor(place)
        return [(low, low + 1 - place), (min(low + 1, cells - 1), place - low)]

    found = np.zeros((HIGH, WIDE))
    for i in range(HIGH):
        for j in range(WIDE):
            for row, part in around(i + shifts[0], 0):
                for column, other in around(j + shifts[1], 1):
                    found[i, j] += part * other * coarse[row, column]
    return found


def drawn(count: int, cells: int, keep: float, seed: int) -> list[Array]:
    """The masks that the seed leads to, by the order in which the numbers are drawn."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((count, cells, cells)) < keep
    down = rng.integers(0, math.ceil(HIGH / cells), count)
    right = rng.integers(0, math.ceil(WIDE / cells), count)
    return [mask(coarse[m].astype(np.float64), (down[m], right[m])) for m in range(count)]


@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_masks_by_loops(at_once: int) -> None:
    found = np.concatenate(list(RiseMasks(20, 3, 0.4, 5)((HIGH, WIDE), at_once)))
    np.testing.assert_allclose(found, drawn(20, 3, 0.4, 5), atol=1e-6)


def test_the_masks_are_kept_in_the_mean_and_lie_between_0_and_1() -> None:
    found = np.concatenate(list(RiseMasks(4000, 7, 0.3, 0)((28, 21), 500)))
    assert found.min() >= 0
    assert found.max() <= 1
    np.testing.assert_allclose(found.mean(axis=0), np.full((28, 21), 0.3), atol=0.05)


def test_rise_by_loops() -> None:
    net, x = linear(), data(1)
    (found,) = explained(net.model(), rise(masks=40, cells=3, keep=0.4, seed=5), x, 2)
    wanted = np.zeros((HIGH, WIDE))
    for one in drawn(40, 3, 0.4, 5):
        wanted += softmax(net(x[0] * one))[2] * one / (40 * 0.4)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    (other,) = explained(linear(seed=8).model(), rise(masks=40, cells=3, keep=0.4, seed=5), x, 2)
    assert np.abs(other - wanted).max() > 0.01


@pytest.mark.parametrize("end", ["Softmax", "LogSoftmax"])
def test_a_model_that_ends_with_probabilities_gives_the_same_map(end: str) -> None:
    net, x = linear(), data(1)
    with_end, without = (explained(net.model(end=e), SMALL, x, 1)[0] for e in (end, ""))
    np.testing.assert_allclose(with_end, without, rtol=1e-5)


def test_a_model_that_ends_with_a_sigmoid_is_taken_at_its_word() -> None:
    net, x = linear(), data(1)
    (found,) = explained(net.model(end="Sigmoid"), rise(masks=30, cells=3, seed=2), x, 1)
    wanted = np.zeros((HIGH, WIDE))
    for one in drawn(30, 3, 0.5, 2):
        wanted += one / (1 + np.exp(-net(x[0] * one)[1])) / 15
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_single_score_is_read_as_one_probability() -> None:
    net, x = linear(classes=1), data(1)
    (found,) = explained(net.model(), rise(masks=30, cells=3, seed=2), x, 0)
    wanted = np.zeros((HIGH, WIDE))
    for one in drawn(30, 3, 0.5, 2):
        wanted += one / (1 + np.exp(-net(x[0] * one)[0])) / 15
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_rise_of_another_tensor_reads_its_values() -> None:
    net, x = linear(), data(1)
    (found,) = explained(net.model(), rise(masks=30, cells=3, seed=2), x, At("output", 3))
    wanted = sum(net(x[0] * one)[3] * one / 15 for one in drawn(30, 3, 0.5, 2))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("given", [{"masks": 0}, {"cells": 0}, {"keep": 0.0}, {"keep": 1.0}])
def test_numbers_out_of_range_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(given))):
        rise(**given)


def test_rise_has_no_seed_but_the_logit() -> None:
    with pytest.raises(
        OptionError, match=r"rise explains the probability of a class: seed='logprob' means nothing"
    ):
        explained(linear().model(), SMALL, data(1), seed="logprob")


# Both

METHODS = ["occlusion:window=4,stride=2", SMALL]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("batch", ["N", 1, 4])
def test_the_same_map_alone_and_in_a_batch(method: str, batch: int | str) -> None:
    net, x = linear(), data(5)
    alone = [explained(net.model(), method, one[None], 1)[0] for one in x]
    for one, other in zip(alone, explained(net.model(batch), method, x, 1, batch_size=3), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_several_targets_and_inputs_do_not_mix(method: str) -> None:
    net, x = linear(), data(3)
    explainer = Explainer(net.model(), method=method, providers="cpu")
    together = explainer.explain(x, [0, 1, 3], batch_size=2)
    single = [explained(net.model(), method, one[None], t)[0] for one in x for t in (0, 1, 3)]
    for one, other in zip(together, single, strict=True):
        np.testing.assert_allclose(one.relevance, other, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_no_rules_are_needed(method: str) -> None:
    """The region is cut from the first item: more than one at a time would be wrong, and the shape says so."""
    for batch in ("N", 1):
        explainer = Explainer(regions(batch), method=method, providers="cpu")
        first, second = explainer.explain(data(2))
        assert np.abs(first.relevance - second.relevance).max() > 1e-3
        assert first.meta["approximate"] == {}
        assert first.meta["boundary"] == []


@pytest.mark.parametrize("method", METHODS)
def test_a_model_made_for_one_item_is_run_one_by_one(method: str) -> None:
    """Its class token was exported for a batch of two: any other is refused by the model itself."""
    net = block("split")
    explainer = Explainer(in_single(net), method=method, layout="NTC", providers="cpu")
    x = np.stack([net.photo()[0], net.photo()[1]])
    both = explainer.explain(x, 0)
    swapped = explainer.explain(x[::-1], 0)
    np.testing.assert_allclose(both[0].relevance, swapped[1].relevance, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_channels_last(method: str) -> None:
    net, x = linear(), data(1)
    columns = net.weights.reshape(4, 3, 8, 10).transpose(0, 2, 3, 1).reshape(4, -1)
    turned = type(net)(columns, net.bias).model()
    for dim, size in zip(turned.graph.input[0].type.tensor_type.shape.dim[1:], (8, 10, 3), strict=True):
        dim.dim_value = size
    (found,) = explained(turned, method, x.transpose(0, 2, 3, 1), 1, layout="NHWC")
    np.testing.assert_allclose(found, explained(net.model(), method, x, 1)[0], atol=1e-5)


def test_each_input_of_a_model_has_its_map() -> None:
    model = two_inputs()
    explainer = Explainer(model, method="occlusion:window=1,stride=1", providers="cpu")
    a, b = data(2), data(2, (6,), seed=7)
    first, second = explainer.explain({"a": a, "b": b}, 1)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    for one, x, y in zip((first, second), a, b, strict=True):
        parts = (weights["w"][:, 1].reshape(SHAPE) * x).sum(axis=0)
        np.testing.assert_allclose(one.relevances["a"], parts, atol=1e-5)
        np.testing.assert_allclose(one.relevances["b"], weights["v"][:, 1] @ y, rtol=1e-4)


def test_counts_cannot_be_dimmed() -> None:
    nodes = [
        onnx.helper.make_node("Gather", ["table", "input"], ["e"], name="embedding"),
        onnx.helper.make_node("ReduceMean", ["e", "axis"], ["output"], name="mean", keepdims=0),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "words",
        [onnx.helper.make_tensor_value_info("input", onnx.TensorProto.INT64, ["N", 6])],
        [onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, ["N", 3])],
        [
            onnx.numpy_helper.from_array(np.random.default_rng(0).random((9, 3), np.float32), "table"),
            onnx.numpy_helper.from_array(np.array([1]), "axis"),
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    ids = np.array([[1, 2, 3, 4, 5, 6]])
    with pytest.raises(
        UnsupportedCaseError, match=r"the input 'input' holds integers \(int64\).*occlusion replaces"
    ):
        explained(model, SMALL, ids)
    (found,) = explained(model, "occlusion:window=1,stride=1", ids, 0)
    table = onnx.numpy_helper.to_array(graph.initializer[0])
    np.testing.assert_allclose(found, (table[ids[0], 0] - table[0, 0]) / 6, rtol=1e-4, atol=1e-6)
