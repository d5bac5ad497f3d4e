"""Complexity: one position has everything, all have the same, and in between by the definitions as loops."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from srd_onnx.metrics import metric_named
from srd_onnx.metrics.complexity import complexity, effective_complexity, sparseness
from tests.metric_probes import explained, linear

Array = NDArray[Any]
ONE = np.zeros((5, 5))
ONE[2, 3] = -4.0
FLAT = np.full((5, 5), -0.3)
SPREAD = np.random.default_rng(1).standard_normal((5, 5))


def gini_by_loops(relevance: Array) -> float:
    """Half the mean difference of all pairs, as a part of the mean."""
    sizes = [abs(float(v)) for v in relevance.ravel()]
    pairs = sum(abs(a - b) for a in sizes for b in sizes)
    return pairs / (2 * len(sizes) * sum(sizes))


def entropy_by_loops(relevance: Array) -> float:
    sizes = [abs(float(v)) for v in relevance.ravel()]
    return -sum(s / sum(sizes) * math.log(s / sum(sizes)) for s in sizes if s > 0)


def test_best_and_worst() -> None:
    assert sparseness(ONE) == pytest.approx(1 - 1 / 25, abs=1e-15)
    assert sparseness(FLAT) == pytest.approx(0, abs=1e-15)
    assert complexity(ONE) == 0
    assert complexity(FLAT) == pytest.approx(math.log(25))
    assert effective_complexity(ONE) == 1
    assert effective_complexity(FLAT) == 25


def test_in_between() -> None:
    assert sparseness(SPREAD) == pytest.approx(gini_by_loops(SPREAD), rel=1e-12)
    assert complexity(SPREAD) == pytest.approx(entropy_by_loops(SPREAD), rel=1e-12)
    assert effective_complexity(np.array([[1.0, -0.5, 0.4, 0.0]]), eps=0.45) == 2


@pytest.mark.parametrize("factor", [1e-150, -3.0, 1e150])
def test_scale_and_sign_play_no_part(factor: float) -> None:
    for score in (sparseness, complexity, effective_complexity):
        assert score(SPREAD * factor) == pytest.approx(score(SPREAD), rel=1e-9)


@pytest.mark.parametrize("score", [sparseness, complexity, effective_complexity])
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_no_relevance_and_no_numbers_give_nan(score: Callable[[Array], float], value: float) -> None:
    relevance = np.zeros((3, 3))
    relevance[0, 0] = value
    assert np.isnan(score(relevance))


def test_the_metrics_take_the_map() -> None:
    one = explained(linear(np.ones((1, 1, 5, 5))), np.ones((1, 5, 5), np.float32), SPREAD)
    assert metric_named("sparseness").score(one) == sparseness(SPREAD)
    assert metric_named("complexity").score(one) == complexity(SPREAD)
    assert metric_named("effective-complexity:eps=0.5").score(one) == effective_complexity(SPREAD, 0.5)
    assert metric_named("effective-complexity:eps=0.5").parameters == {"eps": 0.5}
