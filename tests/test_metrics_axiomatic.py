"""Completeness, on maps that account for the score, that miss a known part of it, and for all that is there."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from srd_onnx import Explainer
from srd_onnx.errors import OptionError
from srd_onnx.metrics import METRICS, Explained, metric_named
from srd_onnx.metrics.axiomatic import gap, holds
from srd_onnx.metrics.probe import probe_of
from tests.metric_probes import explained, linear
from tests.nets import small_cnn

Array = NDArray[Any]
X: Array = np.random.default_rng(0).standard_normal((1, 3, 3)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).standard_normal((2, 1, 3, 3))
GIVES = (WEIGHTS[0] * X).sum(axis=0)
TOTAL = float(GIVES.sum())


def case(relevance: Array, booked: float = 0.0) -> Explained:
    return Explained(linear(WEIGHTS), X, 0, np.asarray(relevance, np.float64), 0, TOTAL, booked)


def test_completeness_is_what_is_missing() -> None:
    metric = metric_named("completeness")
    assert metric.score(case(GIVES)) == pytest.approx(0, abs=1e-15)
    assert metric.score(case(np.zeros((3, 3)))) == pytest.approx(1)
    assert metric.score(case(GIVES * 0.75)) == pytest.approx(0.25)
    assert metric.score(case(GIVES * 0.75, booked=TOTAL * 0.25)) == pytest.approx(0, abs=1e-15)
    assert metric.score(case(-GIVES)) == pytest.approx(2)


def test_a_gap_that_is_not_defined() -> None:
    assert np.isnan(gap(1.0, 0.0, 0.0))
    assert np.isnan(gap(np.nan, 0.0, 1.0))
    assert gap(-1.5, 0.0, -2.0) == 0.25


def test_srd_accounts_for_the_score_of_a_real_network_and_saliency_does_not() -> None:
    x = np.random.default_rng(2).standard_normal((3, 32, 32)).astype(np.float32)
    found = {}
    for method in ("srd", "saliency"):
        explainer = Explainer(small_cnn(), providers="cpu", method=method)
        made = explainer.explain(x, 3)[0]
        one = Explained(
            probe_of(explainer),
            x,
            3,
            made.relevance.astype(np.float64),
            0,
            made.meta["seed_value"],
            made.meta["sum_ledger"],
        )
        found[method] = metric_named("completeness").score(one)
    assert found["srd"] < 1e-4
    assert found["saliency"] > 0.05


@pytest.mark.parametrize("baseline", ["zero", "black", "mean"])
def test_completeness_against_a_baseline(baseline: str) -> None:
    text = f"completeness-to-baseline:baseline={baseline}"
    value = {"zero": 0.0, "black": X.min(), "mean": X.mean()}[baseline]
    relevance = (WEIGHTS[0] * (X - value)).sum(axis=0)
    assert metric_named(text).score(explained(linear(WEIGHTS), X, relevance)) == 1
    assert metric_named(text).score(explained(linear(WEIGHTS), X, relevance * 1.02)) == 0
    assert metric_named(text + ",tolerance=2").score(explained(linear(WEIGHTS), X, relevance * 1.02)) == 1


def test_exactness_is_exact() -> None:
    assert holds(0.5, 0.5, 0.0)
    assert not holds(0.5, float(np.nextafter(0.5, 1)), 0.0)
    assert holds(-0.995, -1.0, 0.01)
    assert not holds(-0.98, -1.0, 0.01)
    assert np.isnan(metric_named("completeness-to-baseline").score(case(GIVES * np.nan)))


def test_a_negative_tolerance_is_refused() -> None:
    with pytest.raises(OptionError, match=r"tolerance=-1.0: it must not be negative"):
        METRICS["completeness-to-baseline"](tolerance=-1.0)
