"""The shipped models on the shipped photo: what is known of them, and what the method promises."""

import functools
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from srd_onnx import Explainer, Explanation, zoo
from tests.golden import make as golden
from tests.squeezenet_srd import explain as explain_in_numpy

NAMES = sorted(zoo.zoo())
TOP = {"squeezenet11": (285, "Egyptian cat"), "efficientnet_lite0": (282, "tiger cat")}
OPTIONS: list[dict[str, Any]] = [
    {"seed": seed, "sign": sign, "bias": bias}
    for seed in ("logit", "logprob", "contrast")
    for sign in ("signed", "positive")
    for bias in ("distribute", "ledger")
]


@functools.cache
def explained(name: str, target: int | None = None, **options: str) -> Explanation:
    settings: dict[str, Any] = {"preset": "paper", **options}
    return Explainer(name, providers="cpu", **settings).explain(zoo.sample_photo(), target)[0]


def total(explanation: Explanation) -> float:
    return float(explanation.relevance.sum(dtype=np.float64))


def test_every_shipped_model_is_tested() -> None:
    assert set(TOP) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_photo_is_seen_for_the_cat_it_shows(name: str) -> None:
    index, label = TOP[name]
    found = explained(name)
    assert found.target == index
    assert found.label is not None
    assert label in found.label


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options.values()))
def test_relevance_and_ledger_add_up_to_the_seed(name: str, options: dict[str, str]) -> None:
    found = explained(name, **options)
    assert np.isfinite(found.relevance).all()
    booked = sum(found.ledger.values())
    seed = found.meta["seed_value"]
    # What the sum is made of: entries of both signs, far larger than their sum under logprob and contrast.
    assert total(found) + booked == pytest.approx(seed, rel=1e-3)
    assert found.residual == pytest.approx(seed - total(found) - booked, abs=1e-6 * abs(seed))


@pytest.mark.parametrize("target", [None, 281, 0, 999])
def test_squeezenet_conserves_the_logit_to_single_precision(target: int | None) -> None:
    found = explained("squeezenet11", target)
    assert total(found) == pytest.approx(found.score, rel=1e-5)
    assert found.ledger == {}


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_is_what_was_asked_for(name: str) -> None:
    found = {seed: explained(name, seed=seed) for seed in ("logit", "logprob", "contrast")}
    logits = found["logit"].logits.astype(np.float64)
    target = int(found["logit"].target)
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    expected = {
        "logit": logits[target],
        "logprob": logits[target] - float(probabilities @ logits),
        "contrast": logits[target] - np.sort(logits)[-2],
    }
    for seed, value in expected.items():
        assert found[seed].meta["seed_value"] == pytest.approx(value, rel=1e-4), seed


@pytest.mark.parametrize("name", NAMES)
def test_the_positive_sign_books_the_negative_part_at_the_boundary(name: str) -> None:
    found = explained(name, seed="contrast", sign="positive")
    (boundary,) = found.meta["boundary"]
    assert found.ledger[f"negative part at {boundary}"] < 0
    assert "negative part" not in " ".join(explained(name, seed="contrast").ledger)


@pytest.mark.parametrize("name", NAMES)
def test_the_ledger_is_by_nodes_of_the_file(name: str) -> None:
    nodes = {node.name for node in onnx.load(zoo.zoo()[name].path).graph.node}
    booked = explained(name, bias="ledger").ledger
    assert booked
    assert set(booked) <= nodes


@pytest.mark.parametrize("name", NAMES)
def test_the_map_is_that_of_the_target(name: str) -> None:
    cat, fish = explained(name), explained(name, 0)
    difference = np.abs(cat.relevance / total(cat) - fish.relevance / (total(fish) or 1.0))
    assert float(difference.sum()) > 0.05


def test_the_encoder_of_squeezenet_ends_at_its_last_maps_and_that_of_lite0_at_its_head() -> None:
    assert explained("squeezenet11").meta["boundary"] == ["/Relu_1_output_0"]
    assert len(explained("efficientnet_lite0").meta["boundary"]) == 1


@pytest.mark.parametrize(("target", "larger"), [(285, 1.0), (281, 1.0), (285, 50.0)])
def test_squeezenet_is_explained_as_numpy_does_it_from_the_definition(target: int, larger: float) -> None:
    """Its biases are small beside inputs of ±128; made larger, the third case shows where they go."""
    model = onnx.load(zoo.zoo()["squeezenet11"].path)
    for tensor in model.graph.initializer:
        if tensor.name.endswith(".bias"):
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(larger), tensor.name)
            )
    image = Explainer("squeezenet11", providers="cpu").preactivations(zoo.sample_photo(), "input")["input"]
    found, ledger = (
        Explainer(model, preset="paper", bias=bias, providers="cpu").explain(image, target)[0].relevance
        for bias in ("distribute", "ledger")
    )
    expected, logits = explain_in_numpy(model, image[0].astype(np.float64), target)
    assert expected.sum() == pytest.approx(logits[target], rel=1e-10)
    tolerance = 1e-5 * float(np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=tolerance)
    # The check can fail: it tells another treatment of the bias apart.
    assert float(np.abs(ledger - expected).max()) > 4 * tolerance


def test_the_maps_are_those_of_last_time() -> None:
    with np.load(golden.FILE) as stored:
        expected = {name: stored[name].astype(np.float64) for name in stored.files}
    found = golden.maps()
    assert set(found) == set(expected)
    for name, array in found.items():
        # float16 has 11 bits.
        np.testing.assert_allclose(
            array, expected[name], rtol=1e-3, atol=1e-3 * float(np.abs(array).max()), err_msg=name
        )


def test_the_golden_maps_would_notice_another_bias_rule() -> None:
    with np.load(golden.FILE) as stored:
        paper, ledger = (
            stored[f"efficientnet_lite0.{case}"].astype(np.float64) for case in ("paper", "ledger")
        )
    assert float(np.abs(paper - ledger).max()) > 0.01 * float(np.abs(paper).max())
