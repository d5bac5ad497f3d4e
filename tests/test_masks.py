"""Masks of -inf, from target to input in ONNX Runtime: what is hidden receives nothing, and nothing is NaN."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graph_rules import RULES
from srd_onnx import Explainer
from srd_onnx.engine.compiling import Case, compile_model, explanation_session, run_explanation
from srd_onnx.engine.options import Options
from srd_onnx.errors import NonFiniteError
from srd_onnx.graph.roles import parse_layout
from srd_onnx.ort.runtime import CPU, make_session
from tests.attention_nets import DEEP, TOKENS, WIDTH, constant, layer_norm, linear, split_qkv
from tests.small_nets import Net

Array = NDArray[Any]
HIDDEN = -np.inf
ASKED = 2  # the token whose class is asked for
LATER = np.where(np.tri(TOKENS), 0.0, HIDDEN)


def added(net: Net, scores: str) -> str:
    return net.add("Add", scores, constant(net, LATER))


def chosen(net: Net, scores: str) -> str:
    net.constants["visible"] = np.tri(TOKENS, dtype=bool)
    return net.add("Where", "visible", scores, constant(net, HIDDEN), out=net.layouts[scores])


Mask = Callable[[Net, str], str]
every_mask = pytest.mark.parametrize("mask", [added, chosen], ids=lambda mask: mask.__name__)


def causal(mask: Mask, layers: int = 2) -> Net:
    """Layers of causal attention and of a gated perceptron; a class for the token ASKED."""
    net = Net("causal", (2, TOKENS, WIDTH), "NTC")
    tokens = "x"
    for _ in range(layers):
        query, key, value = split_qkv(net, layer_norm(net, tokens, fused=True), "separate")
        scores = net.add(
            "MatMul", query, net.add("Transpose", key, perm=[0, 1, 3, 2], out="NCCT"), out="NCTS"
        )
        scores = mask(net, net.add("Mul", scores, constant(net, DEEP**-0.5)))
        mixed = net.add("MatMul", net.add("Softmax", scores, axis=-1), value, out="NCTC", held=[0])
        joined = net.add(
            "Reshape",
            net.add("Transpose", mixed, perm=[0, 2, 1, 3], out="NTCC"),
            net.ints(0, 0, -1),
            out="NTC",
        )
        tokens = net.add("Add", tokens, linear(net, joined, WIDTH, WIDTH))
        hidden = linear(net, layer_norm(net, tokens, fused=True), WIDTH, WIDTH)
        tokens = net.add("Add", tokens, net.add("Mul", hidden, net.add("Sigmoid", hidden), held=[1]))
    one = net.add("Slice", tokens, net.ints(ASKED), net.ints(ASKED + 1), net.ints(1))
    return net.classify(net.add("Squeeze", one, net.ints(1), out="NC"), WIDTH)


def explain(net: Net, *, boundary: str = "encoder", tangent: bool = False, target: int = 1) -> Array:
    """Relevance [N, T], after what it must add up to has been checked."""
    case = Case(
        {"x": net.shape},
        {"x": parse_layout(net.layout, "x", net.shape)},
        Options(boundary=boundary),
        tangent=tangent,
    )
    compiled = compile_model(net.model(), case, RULES)
    session = explanation_session(compiled, [CPU], 1)
    result = run_explanation(session, compiled, {"x": net.photo()}, np.full(len(net.photo()), target))
    found = result.relevance["x"]
    total = found.reshape(len(found), -1).sum(axis=1) + result.ledger.sum(axis=1)
    if not tangent:
        np.testing.assert_allclose(total, result.seed, rtol=0, atol=1e-9 * np.abs(found).sum())
    return found


def slopes(net: Net, target: int = 1) -> Array:
    """What scaling each token changes, by central differences."""
    session, x, step = make_session(net.model().SerializeToString(), [CPU]), net.photo(), 1e-5
    found = np.zeros(x.shape[:2])
    for token in range(x.shape[1]):
        moved = []
        for sign in (1, -1):
            nudged = x.copy()
            nudged[:, token] *= 1 + sign * step
            moved.append(session.run(["logits"], {"x": nudged})[0][:, target])
        found[:, token] = (moved[0] - moved[1]) / (2 * step)
    return found


@pytest.mark.parametrize("boundary", ["encoder", "x"])
@every_mask
def test_no_relevance_reaches_a_token_behind_the_mask(mask: Mask, boundary: str) -> None:
    found = explain(causal(mask), boundary=boundary)
    assert np.abs(found[:, : ASKED + 1]).min() > 0
    assert not found[:, ASKED + 1 :].any()


@every_mask
def test_the_tangent_through_a_mask_is_the_derivative(mask: Mask) -> None:
    net = causal(mask)
    expected = slopes(net)
    got = explain(net, boundary="x", tangent=True)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@every_mask
def test_attention_weights_under_a_mask_can_be_explained(mask: Mask) -> None:
    """The weights are what is asked for, so that the softmax is a feature: it is frozen, not held."""
    net = Net("weights", (1, TOKENS, WIDTH), "NTC")
    scores = mask(
        net, net.add("MatMul", "x", net.add("Transpose", "x", perm=[0, 2, 1], out="NCT"), out="NTC")
    )
    doubled = net.add("Mul", net.add("Softmax", scores, axis=-1), constant(net, 2.0))
    one = net.add("Slice", doubled, net.ints(ASKED), net.ints(ASKED + 1), net.ints(1))
    net.classify(net.add("Squeeze", one, net.ints(1), out="NC"), TOKENS)
    for boundary in ("encoder", "x"):
        assert np.abs(explain(net, boundary=boundary)).max() > 0


def test_a_query_that_sees_no_key_and_is_replaced_leaves_no_nan() -> None:
    """Its softmax is NaN, and a Where puts zeros in its place, as the body of ONNX's Attention does."""
    net = Net("blind", (1, TOKENS, WIDTH), "NTC")
    query, key, value = split_qkv(net, "x", "separate")
    scores = net.add("MatMul", query, net.add("Transpose", key, perm=[0, 1, 3, 2], out="NCCT"), out="NCTS")
    blind = np.arange(TOKENS)[:, None] == ASKED
    scores = net.add("Add", scores, constant(net, np.where(blind, HIDDEN, LATER)))
    net.constants["blind"] = blind
    weights = net.add("Softmax", scores, axis=-1)
    safe = net.add("Where", "blind", constant(net, 0.0), weights, out="NCTS")
    mixed = net.add(
        "Transpose", net.add("MatMul", safe, value, out="NCTC", held=[0]), perm=[0, 2, 1, 3], out="NTCC"
    )
    flat = net.add("Reshape", mixed, net.ints(1, -1), out="NC")
    net.classify(flat, TOKENS * WIDTH)
    assert np.isfinite(explain(net)).all()
    expected = slopes(net)
    got = explain(net, boundary="x", tangent=True)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceLogSumExp"])
def test_a_pool_over_the_tokens_that_are_visible(op: str) -> None:
    """The tokens that are hidden are -inf, so that they never win."""
    net = Net("masked_pool", (2, TOKENS, WIDTH), "NTC")
    net.constants["visible"] = np.arange(TOKENS)[:, None] < 3
    tokens = net.add("Where", "visible", linear(net, "x", WIDTH, WIDTH), constant(net, HIDDEN), out="NTC")
    net.classify(net.add(op, tokens, net.ints(1), keepdims=0, out="NC"), WIDTH)
    for boundary in ("encoder", "x"):
        found = explain(net, boundary=boundary)
        assert np.abs(found[:, :3]).max() > 0
        assert not found[:, 3:].any()


def masked_scores() -> Net:
    """Classes 0 and 3 are not to be had."""
    net = Net("masked_scores", (2, TOKENS, WIDTH), "NTC")
    pooled = net.add("ReduceMean", linear(net, "x", WIDTH, WIDTH), net.ints(1), keepdims=0, out="NC")
    scores = net.add("Gemm", pooled, net.random(WIDTH, 5))
    net.add("Add", scores, constant(net, [HIDDEN, 0, 0, HIDDEN, 0]))
    return net.done()


@pytest.mark.parametrize("seed", ["logit", "logprob", "contrast"])
def test_a_class_beside_masked_classes_can_be_explained(seed: Any) -> None:
    net = masked_scores()
    explainer = Explainer(net.model(), layout="NTC", seed=seed, providers="cpu")
    found = explainer.explain(net.photo(), 1)[0]
    assert found.residual == pytest.approx(0, abs=1e-6)
    assert found.logits[0] == HIDDEN
    assert {entry["index"] for entry in found.meta["top5"][:3]} == {1, 2, 4}


def test_a_masked_class_cannot() -> None:
    net = masked_scores()
    with pytest.raises(NonFiniteError, match="infinity in the activation 'logits'"):
        Explainer(net.model(), layout="NTC", providers="cpu").explain(net.photo(), 3)
