"""LRP against its formulas written as loops over pairs of neurons, in double precision."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from srd_onnx import Explainer, Preprocess
from srd_onnx.errors import InputError, OptionError, UnsupportedCaseError
from srd_onnx.methods import METHODS
from srd_onnx.methods.lrp import PATENT, lrp_composite, lrp_epsilon, lrp_gamma
from tests.dense_nets import SHAPE, DenseNet, Matrix, Real, dense_net, inputs
from tests.nets import model_of

# Pixels of 0..255 become -2..2, -1.5..2.5 and -1..3, channel by channel.
MEAN = (2.0, 1.5, 1.0)
PIXELS = Preprocess(scale=4 / 255, mean=MEAN)
LAYER = Callable[[Matrix, Real, Real], Real]


def _stabilised(total: float, epsilon: float) -> float:
    return total + (epsilon if total >= 0 else -epsilon)


def by_pairs(
    layer: Matrix,
    x: Real,
    relevance: Real,
    part: Callable[[float, float, float], float],
    bias: Callable[[float, float], float],
    epsilon: float = 1e-6,
) -> Real:
    """``R_i = Σ_j part(w_ji, x_i, y_j) / (Σ_i part + bias(b_j, y_j)) R_j``."""
    found = np.zeros(len(x))
    y = layer.w @ x + layer.b
    for j in range(len(y)):
        parts = [part(layer.w[j, i], x[i], y[j]) if layer.linked[j, i] else 0.0 for i in range(len(x))]
        whole = _stabilised(sum(parts) + bias(layer.b[j], y[j]), epsilon)
        for i in range(len(x)):
            found[i] += parts[i] / whole * relevance[j]
    return found


def epsilon_loop(epsilon: float) -> LAYER:
    return lambda layer, x, r: by_pairs(layer, x, r, lambda w, x, _y: w * x, lambda b, _y: b, epsilon)


def zplus_loop(layer: Matrix, x: Real, r: Real) -> Real:
    return by_pairs(layer, x, r, lambda w, x, _y: max(w * x, 0.0), lambda b, _y: max(b, 0.0))


def gamma_loop(gamma: float) -> LAYER:
    def favoured(z: float, y: float) -> float:
        return 0.0 if y == 0 else z + gamma * (max(z, 0.0) if y > 0 else min(z, 0.0))

    return lambda layer, x, r: by_pairs(layer, x, r, lambda w, x, y: favoured(w * x, y), favoured)


def box_loop(layer: Matrix, x: Real, r: Real) -> Real:
    found = np.zeros(len(x))
    size = SHAPE[1] * SHAPE[2]
    for j in range(len(r)):
        parts = []
        for i, w in enumerate(layer.w[j]):
            low, high = -MEAN[i // size], 4 - MEAN[i // size]
            parts.append(w * x[i] - max(w, 0.0) * low - min(w, 0.0) * high)
        found += np.array(parts) / _stabilised(sum(parts), 1e-6) * r[j]
    return found


def flat_loop(layer: Matrix, x: Real, r: Real) -> Real:
    return by_pairs(layer, x, r, lambda _w, _x, _y: 1.0, lambda _b, _y: 0.0)


def lrp_loop(net: DenseNet, x: Real, target: int, first: LAYER, inner: LAYER, head: LAYER) -> Real:
    """The relevance of the pixels, summed over channels."""
    at = net.forward(x)
    none = epsilon_loop(1e-9)
    seed = np.zeros(len(at["scores"]))
    seed[target] = at["scores"][target]
    pooled = head(net.gemm, at["pooled"], seed)
    v2 = none(net.mean, at["h2"], pooled)
    shares = [v2[i] / _stabilised(at["v2"][i], 1e-9) for i in range(len(v2))]
    branch = at["branch"] * shares
    h1 = at["h1"] * shares + inner(net.conv2, at["h1"], branch)
    pixels = first(net.conv1, at["x"], h1)
    summed: Real = pixels.reshape(SHAPE).sum(axis=0)
    return summed


TINY = epsilon_loop(1e-6)
# Of each method: the rules of the first convolution, the other one, and the head.
RULES: dict[str, tuple[LAYER, LAYER, LAYER]] = {
    "lrp-epsilon": (TINY, TINY, TINY),
    "lrp-epsilon:epsilon=0.5": (epsilon_loop(0.5),) * 3,
    "lrp-zplus": (zplus_loop, zplus_loop, zplus_loop),
    "lrp-gamma": (gamma_loop(0.25),) * 3,
    "lrp-gamma:gamma=3": (gamma_loop(3.0),) * 3,
    "lrp-epsilon-plus:epsilon=0.1": (zplus_loop, zplus_loop, epsilon_loop(0.1)),
    "lrp-composite:first=gamma,gamma=0.5": (gamma_loop(0.5), gamma_loop(0.5), TINY),
    "lrp-composite:first=flat": (flat_loop, gamma_loop(0.25), TINY),
    "lrp-composite": (box_loop, gamma_loop(0.25), TINY),
}


def ours(net: DenseNet, method: str, x: NDArray[Any], targets: int | None = None) -> list[Real]:
    explainer = Explainer(net.model, method=method, preprocess=PIXELS, providers="cpu")
    found = explainer.explain(x, targets=targets, batch_size=len(x))
    return [np.asarray(one.relevance, np.float64) for one in found]


@pytest.mark.parametrize("method", RULES)
def test_the_map_is_that_of_the_formulas(method: str) -> None:
    net, x = dense_net(), inputs()
    for row, found in zip(x.astype(np.float64), ours(net, method, x, 2), strict=True):
        expected = lrp_loop(net, row, 2, *RULES[method])
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("method", "other"), list(zip(RULES, [*list(RULES)[1:], "lrp-epsilon"], strict=True))
)
def test_the_comparison_notices_the_rules_of_another_method(method: str, other: str) -> None:
    net, x = dense_net(), inputs(1)
    (found,), expected = ours(net, method, x, 2), lrp_loop(net, x[0].astype(np.float64), 2, *RULES[other])
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("method", [m for m in RULES if "epsilon=" not in m])
def test_without_biases_relevance_is_conserved(method: str) -> None:
    net, x = dense_net(bias=False), inputs()
    explainer = Explainer(net.model, method=method, preprocess=PIXELS, providers="cpu")
    for one in explainer.explain(x, targets=1):
        assert one.residual == pytest.approx(0, abs=1e-4 * abs(one.score))


def test_with_biases_relevance_is_missing_and_nothing_says_that_it_adds_up() -> None:
    explainer = Explainer(dense_net().model, method="lrp-epsilon", preprocess=PIXELS, providers="cpu")
    (one,) = explainer.explain(inputs(1), targets=1)
    assert abs(one.residual) > 0.01 * abs(one.score)
    assert one.meta["method"]["complete"] is False


@pytest.mark.parametrize("method", RULES)
def test_the_same_alone_and_in_a_batch(method: str) -> None:
    net, x = dense_net(), inputs()
    together = ours(net, method, x)
    for row, found in zip(x, together, strict=True):
        (alone,) = ours(net, method, row[None])
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-6 * np.abs(alone).max())


def test_every_lrp_method_carries_the_note_on_the_patent() -> None:
    methods = [make() for name, make in METHODS.items() if name.startswith("lrp-")]
    assert len(methods) == 5
    assert {method.note for method in methods} == {PATENT}
    assert "patented" in PATENT
    assert "free for personal and scientific use" in PATENT


def test_a_saturated_relu6_hands_relevance_on() -> None:
    """What is cut off is no bias of it: LRP goes through activations unchanged."""
    clip = [
        helper.make_node("Gemm", ["input", "w"], ["v"], name="gemm", transB=1),
        helper.make_node("Clip", ["v", "low", "high"], ["h"], name="clip"),
        helper.make_node("Gemm", ["h", "ones"], ["output"], name="sum", transB=1),
    ]
    weights = {
        "w": np.array([[3, 1], [1, 1]], np.float32),
        "low": np.float32(0),
        "high": np.float32(6),
        "ones": np.ones((1, 2), np.float32),
    }
    stored = {name: np.asarray(value) for name, value in weights.items()}
    model = model_of(clip, dict(stored), (["N", 2], ["N", 1]))
    x = np.array([[2, 3]], np.float32)  # v = 9, 5; h = 6, 5; the score is 11
    (one,) = Explainer(model, method="lrp-epsilon", layout="NL", providers="cpu").explain(x, targets=0)
    np.testing.assert_allclose(one.relevance, [6 * 6 / 9 + 2, 6 * 3 / 9 + 3], rtol=1e-5)


def test_quantising_hands_relevance_on() -> None:
    """A pair of QuantizeLinear and DequantizeLinear that loses little changes little."""
    net, x = dense_net(), inputs(1)
    nodes = list(net.model.graph.node)
    nodes[0].input[0], nodes[4].output[0] = "pixels", "real"

    def pair(real: str, whole: str, back: str, zero: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("QuantizeLinear", [real, "scale", zero], [whole], name=whole),
            helper.make_node("DequantizeLinear", [whole, "scale", zero], [back], name=back),
        ]

    nodes = [
        *pair("input", "q0", "pixels", "half"),
        *nodes[:5],
        *pair("real", "q1", "h2", "zero"),
        *nodes[5:],
    ]
    stored = {t.name: numpy_helper.to_array(t) for t in net.model.graph.initializer}
    stored |= {"scale": np.array(16 / 255, np.float32), "zero": np.array(0, np.uint8)}
    stored["half"] = np.array(128, np.uint8)
    model = model_of(nodes, dict(stored), (["N", *SHAPE], ["N", 4]))
    method = "lrp-composite"
    (one,) = Explainer(model, method=method, preprocess=PIXELS, providers="cpu").explain(x, targets=2)
    (expected,) = ours(dense_net(), method, x, 2)
    assert net.forward(x[0].astype(np.float64))["h2"].max() < 16
    np.testing.assert_allclose(one.relevance, expected, rtol=0, atol=0.05 * np.abs(expected).max())


def test_a_pixel_outside_of_the_box_is_refused() -> None:
    explainer = Explainer(dense_net().model, method="lrp-composite", preprocess=PIXELS, providers="cpu")
    x = inputs(1)
    x[0, 2, 0, 0] = -1.5  # inside of the first two channels' boxes only
    with pytest.raises(InputError, match=r"outside of what the preprocessing makes of pixels"):
        explainer.explain(x)


def test_the_box_needs_a_preprocessing_that_is_known() -> None:
    explainer = Explainer(
        dense_net().model, method="lrp-composite", preprocess=lambda image: image, providers="cpu"
    )
    with pytest.raises(OptionError, match=r"use first=flat or first=gamma, or give a Preprocess"):
        explainer.explain(inputs(1))


def test_what_changes_the_pixels_before_the_first_convolution_is_refused_by_name() -> None:
    nodes = [
        helper.make_node("Exp", ["input"], ["pixels"], name="bright"),
        helper.make_node("Conv", ["pixels", "w"], ["v"], name="conv"),
        helper.make_node("GlobalAveragePool", ["v"], ["output"], name="pool"),
    ]
    weights = {"w": np.ones((2, 3, 2, 2), np.float32)}
    model = model_of(nodes, dict(weights), (["N", *SHAPE], ["N", 2, 1, 1]))
    explainer = Explainer(model, method="lrp-composite:first=flat", providers="cpu")
    with pytest.raises(UnsupportedCaseError, match=r"node 'bright'.*use first=gamma"):
        explainer.explain(inputs(1))


def test_relevance_of_black_pixels_goes_where_they_are_in_a_model_of_channels_last() -> None:
    net = dense_net()
    nodes = [helper.make_node("Transpose", ["input"], ["first"], name="move", perm=[0, 3, 1, 2])]
    moved = [*nodes, *net.model.graph.node]
    moved[1].input[0] = "first"
    graph = net.model.graph
    stored = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    model = model_of(moved, dict(stored), (["N", 4, 4, 3], ["N", 4]))
    x = inputs(1)
    x[0, :, 1, 1] = 0
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    method = "lrp-composite"
    explainer = Explainer(model, method=method, preprocess=PIXELS, layout="NHWC", providers="cpu")
    (one,) = explainer.explain(last, targets=2)
    (expected,) = ours(dense_net(), method, x, 2)
    assert abs(expected[1, 1]) > 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(one.relevance, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_a_factor_that_turns_the_weights_is_refused() -> None:
    nodes = [helper.make_node("Gemm", ["input", "w"], ["output"], name="turned", transB=1, alpha=-1.0)]
    model = model_of(nodes, {"w": np.ones((2, 3), np.float32)}, (["N", 3], ["N", 2]))
    explainer = Explainer(model, method="lrp-zplus", providers="cpu")
    with pytest.raises(UnsupportedCaseError, match=r"node 'turned'.*turns the sign of its weights"):
        explainer.explain(np.ones((1, 3), np.float32))


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf")])
def test_an_epsilon_that_means_nothing_is_refused(epsilon: float) -> None:
    with pytest.raises(OptionError, match=r"epsilon=.*must be a number above 0"):
        lrp_epsilon(epsilon)


def test_other_parameters_that_mean_nothing_are_refused() -> None:
    with pytest.raises(OptionError, match=r"gamma=-1: it must be a number above 0"):
        lrp_gamma(-1)
    with pytest.raises(OptionError, match=r"first='w2' is not one of box, flat, gamma"):
        lrp_composite(first="w2")
