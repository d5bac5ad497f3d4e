"""Faithfulness by comparison, on linear models: a right map, a wrong one, and the definitions as loops."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from srd_onnx.correlation import pearson
from srd_onnx.errors import OptionError
from srd_onnx.metrics import Explained, metric_named
from srd_onnx.metrics.faithfulness import infidelity, patches_of, subsets_of, sufficiency
from tests.metric_probes import NumpyProbe, explained, linear

Array = NDArray[Any]
RNG = np.random.default_rng(0)
X: Array = RNG.standard_normal((2, 8, 8)).astype(np.float32)
WEIGHTS = RNG.standard_normal((3, 2, 8, 8))
GIVES = (WEIGHTS[1] * X).sum(axis=0)


def case(relevance: Array, seed: int = 0) -> Explained:
    return explained(linear(WEIGHTS), X, relevance, target=1, seed=seed)


def score(text: str, one: Explained) -> float:
    return metric_named(text).score(one)


# Correlation


def test_pearson_by_the_definition() -> None:
    a, b = np.random.default_rng(1).standard_normal((2, 30))
    x = [float(v) - sum(a) / 30 for v in a]
    y = [float(v) - sum(b) / 30 for v in b]
    top = sum(p * q for p, q in zip(x, y, strict=True))
    expected = top / (sum(p * p for p in x) * sum(q * q for q in y)) ** 0.5
    assert pearson(a, b) == pytest.approx(expected, rel=1e-12)
    assert pearson(a, -3 * a + 1) == pytest.approx(-1)
    assert pearson(a * 1e-200, b * 1e200) == pytest.approx(expected, rel=1e-9)
    for flat in (np.zeros(30), np.full(30, 0.1), np.full(30, np.nan)):
        assert np.isnan(pearson(flat, b))
        assert np.isnan(pearson(a, flat))


def test_a_map_that_says_what_positions_give_correlates_fully() -> None:
    text = "faithfulness-correlation:subset=9,baseline=zero"
    assert score(text, case(GIVES)) == pytest.approx(1, abs=1e-6)
    assert score(text, case(-2 * GIVES + 0.5)) == pytest.approx(-1, abs=1e-6)
    other = np.random.default_rng(9).standard_normal((8, 8))
    assert abs(score(text, case(other))) < 0.5
    assert (
        score("faithfulness-correlation:subset=9", case(GIVES)) < 0.99
    )  # with another baseline they give other things


def test_correlation_by_loops() -> None:
    relevance = np.random.default_rng(2).standard_normal((8, 8))
    sums, drops = [], []
    for row in subsets_of(64, 5, 20, seed=3):
        assert len(set(row)) == 5
        changed = X.astype(np.float64).copy()
        for i in row:
            changed[:, i // 8, i % 8] = X.min()
        sums.append(sum(float(relevance.ravel()[i]) for i in row))
        drops.append(float((WEIGHTS[1] * (X - changed)).sum()))
    expected = pearson(np.array(sums), np.array(drops))
    found = score("faithfulness-correlation:runs=20,subset=5", case(relevance, seed=3))
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_flat_map_and_a_map_smaller_than_the_subset_have_no_correlation() -> None:
    assert np.isnan(score("faithfulness-correlation:subset=9", case(np.ones((8, 8)))))
    assert np.isnan(score("faithfulness-correlation:subset=64", case(GIVES)))
    assert np.isnan(score("faithfulness-correlation:subset=9", case(GIVES * np.nan)))


# Infidelity


def test_patches_tile_the_map() -> None:
    expected = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]]
    np.testing.assert_array_equal(patches_of((3, 4), 2), expected)
    assert sorted(np.bincount(patches_of((10, 7), 3).ravel())) == [6, 6, 6, 6, 8, 8, 9, 9, 12]
    np.testing.assert_array_equal(patches_of((2, 3), 7), np.arange(6).reshape(2, 3))


def test_a_map_that_says_what_patches_cost_is_not_unfaithful() -> None:
    text = "infidelity:grid=4,baseline=zero"
    assert score(text, case(GIVES)) == pytest.approx(0, abs=1e-9)
    assert score(text, case(-7 * GIVES)) == pytest.approx(0, abs=1e-9)  # the best factor is negative
    assert score(text + ",scaled=false", case(GIVES)) == pytest.approx(0, abs=1e-9)
    assert score(text, case(np.zeros((8, 8)))) == 1
    some = score(text, case(GIVES + np.random.default_rng(3).standard_normal((8, 8)) * 2))
    assert 0.05 < some < 0.95


@pytest.mark.parametrize("kind", ["global", "local"])
def test_infidelity_by_loops(kind: str) -> None:
    relevance = np.random.default_rng(4).standard_normal((8, 8))
    expected, drops = [], []
    for top in range(0, 8, 4):
        for left in range(0, 8, 4):
            changed = X.astype(np.float64).copy()
            changed[:, top : top + 4, left : left + 4] = X.min()
            drops.append(float((WEIGHTS[1] * (X - changed)).sum()))
            weights = (X - changed).sum(axis=0) if kind == "local" else (changed != X).any(axis=0)
            expected.append(float((relevance * weights).sum()))
    plain = sum((e - d) ** 2 for e, d in zip(expected, drops, strict=True)) / 4
    factors = np.linspace(-5, 5, 100_001)
    best = min(((np.array(expected) * f - drops) ** 2).sum() for f in factors) / (np.array(drops) ** 2).sum()
    text = f"infidelity:grid=2,kind={kind}"
    assert score(text + ",scaled=false", case(relevance)) == pytest.approx(plain, rel=1e-4)
    assert score(text, case(relevance)) == pytest.approx(best, rel=1e-4)


def test_infidelity_that_is_not_defined() -> None:
    ones = np.ones(3)
    assert np.isnan(infidelity(ones, 0 * ones, scaled=True))
    assert infidelity(ones, 0 * ones, scaled=False) == 1
    assert np.isnan(infidelity(ones * np.nan, ones, scaled=True))
    assert infidelity(1e-200 * ones, 1e200 * ones, scaled=True) == pytest.approx(0)


# What the model said is kept for the next method


def test_another_method_needs_no_more_passes() -> None:
    one = case(GIVES)
    probe = one.probe
    assert isinstance(probe, NumpyProbe)
    texts = ["faithfulness-correlation:subset=9", "infidelity"]
    first = [score(text, one) for text in texts]
    assert probe.count == 101 + 50
    second = [score(text, replace(one, map=np.roll(GIVES, 3))) for text in texts]
    assert probe.count == 101 + 50
    assert first != second
    assert second == [score(text, case(np.roll(GIVES, 3))) for text in texts]


# Sufficiency


def sufficiency_by_loops(maps: Array, classes: list[int], threshold: float) -> list[float]:
    flat = np.abs(maps).reshape(len(maps), -1)
    deviation = [np.std(column, ddof=1) for column in flat.T]
    distance = [
        [sum(((a - b) / d) ** 2 for a, b, d in zip(p, q, deviation, strict=True)) ** 0.5 for q in flat]
        for p in flat
    ]
    limit = threshold * max(map(max, distance))
    found = []
    for i in range(len(maps)):
        near = [j for j in range(len(maps)) if j != i and distance[i][j] <= limit]
        found.append(sum(classes[j] == classes[i] for j in near) / len(near) if near else np.nan)
    return found


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.8, 1.0])
def test_sufficiency_by_loops(threshold: float) -> None:
    rng = np.random.default_rng(0)
    maps, classes = rng.standard_normal((9, 3, 2)), rng.integers(0, 2, 9)
    found = sufficiency(maps, classes, threshold)
    np.testing.assert_array_equal(found, sufficiency_by_loops(maps, classes.tolist(), threshold))


def test_sufficiency_at_its_ends() -> None:
    alike = np.stack([np.ones((2, 2)), np.ones((2, 2)) + 1e-3, np.full((2, 2), 9.0), np.full((2, 2), 9.5)])
    np.testing.assert_array_equal(sufficiency(alike, np.array([0, 0, 1, 1]), 0.5), 1)
    np.testing.assert_array_equal(sufficiency(alike, np.array([0, 1, 0, 1]), 0.5), 0)
    lonely = sufficiency(np.stack([np.zeros((1, 1)), np.ones((1, 1))]), np.array([0, 0]), 0.5)
    assert np.isnan(lonely).all()
    np.testing.assert_array_equal(sufficiency(np.ones((3, 2, 2)), np.array([1, 1, 2]), 0.6), [0.5, 0.5, 0])


def test_sufficiency_looks_at_noisy_copies() -> None:
    weights = np.zeros((2, 1, 4, 4))
    weights[0], weights[1] = 1, -1
    x = np.full((1, 4, 4), 0.2, np.float32)
    x[0, 0, 0] = 4  # its sum is far from 0: no small noise changes the prediction
    stable = linear(weights)
    assert stable.attribute is not None
    one = explained(stable, x, stable.attribute(x, 0))
    assert score("sufficiency", one) == 1
    rest = [r for r in stable.asked if len(r) == 13]
    assert len(rest) == 1
    deviations = (rest[0] - x).std(axis=(1, 2, 3)) / x.std()
    assert deviations[0] == 0
    np.testing.assert_allclose(deviations[1:], 0.3 * np.arange(1, 13) / 12, rtol=0.6)
    # A constant map is similar to that of every copy, though predictions change.
    fickle = linear(weights)
    fickle.attribute = lambda x, t: np.ones(x.shape[1:])
    near_zero = (x - x.mean() + 0.01).astype(np.float32)
    assert 0.1 < score("sufficiency:samples=40", explained(fickle, near_zero, np.ones((4, 4)))) < 0.9


def test_sufficiency_refuses_what_means_nothing() -> None:
    with pytest.raises(OptionError, match=r"noise=0.0, threshold=0.6: positive noise"):
        metric_named("sufficiency:noise=0")
    with pytest.raises(OptionError, match="samples=0"):
        metric_named("sufficiency:samples=0")
    with pytest.raises(OptionError, match="kind='both' is not one of global, local"):
        metric_named("infidelity:kind=both")
    with pytest.raises(OptionError, match="metric 'infidelity': scaled='no' is neither true nor false"):
        metric_named("infidelity:scaled=no")
