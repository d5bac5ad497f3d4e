"""Robustness under small noise: definitions as loops, closed forms, best and worst, and wrong ones noticed."""

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from srd_onnx.metrics.metric import Metric
from srd_onnx.metrics.robustness import (
    Noise,
    avg_sensitivity,
    local_lipschitz_estimate,
    max_sensitivity,
    perturbed,
    relative_input_stability,
    relative_output_stability,
)
from tests.fake_probes import FakeProbe, explained

Real = NDArray[np.float64]
X = np.random.default_rng(1).uniform(-2, 3, (3, 6, 5)).astype(np.float32)
MAKERS: list[Callable[..., Metric]] = [
    local_lipschitz_estimate,
    max_sensitivity,
    avg_sensitivity,
    relative_input_stability,
    relative_output_stability,
]
MATRIX = np.random.default_rng(2).standard_normal((3, 3))


def channel_sum(x: Real, target: int, redrawn: Any) -> Real:
    return np.asarray(x.sum(axis=0) + 20, np.float64)


def curved(x: Real, target: int, redrawn: Any) -> Real:
    return np.asarray(np.sin(3 * x).sum(axis=0) + x[0] ** 2, np.float64)


def constant(x: Real, target: int, redrawn: Any) -> Real:
    return np.arange(30, dtype=np.float64).reshape(6, 5)


def logits(x: Real) -> Real:
    return np.asarray(np.array([50.0, 0, 0]) + MATRIX @ x.mean(axis=(1, 2)), np.float64)


def norm(values: Any) -> float:
    return math.sqrt(sum(float(v) ** 2 for v in np.ravel(values)))


def scaled(relevance: Real) -> Real:
    return relevance / max(abs(v) for v in relevance.ravel())


def of_unit_power(relevance: Real) -> Real:
    return relevance / (norm(relevance) / math.sqrt(relevance.size))


def by_definition(name: str, kind: Any, size: float, samples: int) -> float:
    one = explained(curved, X, logits=logits, seed=3)
    e = one.map
    found = []
    for moved in perturbed(one, Noise(kind, size, samples)):
        x, other = X.astype(np.float64), moved.astype(np.float64)
        f = curved(other, 0, None)
        if name == "local-lipschitz-estimate":
            found.append(norm(scaled(e) - scaled(f)) / norm(x - other))
        elif name.endswith("sensitivity"):
            found.append(norm(e - f) / norm(e))
        else:
            away = norm((x - other) / x) if "input" in name else norm(logits(x) - logits(other))
            p, q = of_unit_power(e), of_unit_power(f)
            found.append(norm((p - q) / p) / away)
    return sum(found) / len(found) if name == "avg-sensitivity" else max(found)


@pytest.mark.parametrize("make", MAKERS)
def test_each_is_its_definition(make: Callable[..., Metric]) -> None:
    metric = make(samples=7, size=0.05)
    kind = metric.parameters["kind"]
    found = metric.score(explained(curved, X, logits=logits, seed=3))
    np.testing.assert_allclose(found, by_definition(metric.name, kind, 0.05, 7), rtol=1e-9)


@pytest.mark.parametrize("make", MAKERS)
def test_the_definition_notices_other_noise_and_another_norm(make: Callable[..., Metric]) -> None:
    right = by_definition(make().name, make().parameters["kind"], 0.05, 7)
    larger = make(samples=7, size=0.06).score(explained(curved, X, logits=logits, seed=3))
    reseeded = make(samples=7, size=0.05).score(explained(curved, X, logits=logits, seed=4))
    for wrong in (larger, reseeded):
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            np.testing.assert_allclose(wrong, right, rtol=1e-9)


@pytest.mark.parametrize("make", MAKERS)
def test_a_map_that_never_changes_is_the_best(make: Callable[..., Metric]) -> None:
    assert make().score(explained(constant, X, logits=logits)) == 0.0 == make().bounds[0]


@pytest.mark.parametrize("make", MAKERS)
def test_a_map_of_zeros_has_no_robustness(make: Callable[..., Metric]) -> None:
    assert math.isnan(make().score(explained(lambda *_: np.zeros((6, 5)), X, logits=logits)))


@pytest.mark.parametrize("make", MAKERS)
def test_a_map_of_noise_is_worse_than_a_smooth_one(make: Callable[..., Metric]) -> None:
    def noise(x: Real, target: int, redrawn: Any) -> Real:
        return np.random.default_rng(zlib.crc32(x.tobytes())).standard_normal((6, 5)) + 0.0

    assert make().score(explained(noise, X, logits=logits)) > make().score(
        explained(channel_sum, X, logits=logits)
    )


def test_a_linear_map_has_the_lipschitz_constant_of_its_matrix() -> None:
    """The map is a * x, one channel, its greatest element held apart so that the scale stays: |a| / max."""
    x = np.random.default_rng(3).uniform(-1, 1, (1, 4, 4)).astype(np.float32)

    def linear(x: Real, target: int, redrawn: Any) -> Real:
        return np.concatenate([0.25 * x[0], np.full((1, 4), 8.0)])

    found = local_lipschitz_estimate(samples=5).score(explained(linear, x))
    np.testing.assert_allclose(found, 0.25 / 8, rtol=1e-6)


def test_sensitivity_of_a_linear_map_is_that_of_the_input() -> None:
    """e = 3x: |e(x) - e(x')| / |e(x)| = |x - x'| / |x|, of each sample."""
    one = explained(lambda x, *_: 3 * x[0], X[:1])
    moved = perturbed(one, Noise("uniform", 0.04, 10)).astype(np.float64)
    parts = [norm(other - X[:1].astype(np.float64)) / norm(X[:1]) for other in moved]
    np.testing.assert_allclose(max_sensitivity().score(one), max(parts), rtol=1e-9)
    np.testing.assert_allclose(avg_sensitivity().score(one), sum(parts) / 10, rtol=1e-9)


def test_the_relative_stability_of_a_map_that_turns_round() -> None:
    """e turns its sign with the least change: each of 30 positions changes by twice itself, which is √30 · 2."""
    base = np.arange(1, 31, dtype=np.float64).reshape(6, 5)

    def turning(x: Real, target: int, redrawn: Any) -> Real:
        return base if (x == X).all() else -base

    one = explained(turning, X)
    away = [norm((X - other) / X.astype(np.float64)) for other in perturbed(one, Noise("uniform", 0.04, 10))]
    np.testing.assert_allclose(
        relative_input_stability().score(one), 2 * math.sqrt(30) / min(away), rtol=1e-6
    )


def test_twice_the_logits_is_half_the_output_stability() -> None:
    once = relative_output_stability().score(explained(curved, X, logits=logits))
    twice = relative_output_stability().score(explained(curved, X, logits=lambda x: 2 * logits(x)))
    np.testing.assert_allclose(twice, once / 2, rtol=1e-9)


@pytest.mark.parametrize("make", [relative_input_stability, relative_output_stability])
def test_only_neighbours_of_the_same_class_count(make: Callable[..., Metric]) -> None:
    def changes(x: Real) -> Real:
        return np.array([1e-12, float(x.sum() - X.astype(np.float64).sum())])

    one = explained(curved, X, logits=changes, seed=3)
    moved = perturbed(one, Noise("uniform", 0.04, 10)).astype(np.float64)
    kept = [m for m in moved if changes(m).argmax() == 0]
    assert 0 < len(kept) < 10
    x, e = X.astype(np.float64), of_unit_power(one.map)
    expected = []
    for other in kept:
        top = norm((e - of_unit_power(curved(other, 0, None))) / e)
        away = (
            norm((x - other) / x) if make is relative_input_stability else norm(changes(x) - changes(other))
        )
        expected.append(top / away)
    np.testing.assert_allclose(make().score(one), max(expected), rtol=1e-9)
    assert math.isnan(
        make().score(explained(curved, X, logits=lambda x: np.array([float((x == X).all()), 0.5])))
    )


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("factor", [0.001, 1000.0])
def test_the_units_of_the_map_do_not_matter(make: Callable[..., Metric], factor: float) -> None:
    def sparse(x: Real, target: int, redrawn: Any) -> Real:
        return np.where(x[0] > 0, x[0], 0)

    one = make().score(explained(sparse, X, logits=logits))
    other = make().score(explained(lambda x, *_: factor * sparse(x, 0, None), X, logits=logits))
    np.testing.assert_allclose(other, one, rtol=1e-9)


@pytest.mark.parametrize(("kind", "low", "high"), [("uniform", 0.0195, 0.02), ("gaussian", 0.04, 0.12)])
def test_noise_is_a_part_of_the_range(kind: Any, low: float, high: float) -> None:
    wide = np.linspace(-100, 100, 3 * 40 * 40).reshape(3, 40, 40).astype(np.float32)
    one = explained(lambda x, *_: x[0], wide)
    moved = perturbed(one, Noise(kind, 0.02, 4)) - wide
    assert low <= np.abs(moved).max() / 200 <= high
    assert abs(moved.mean()) < 0.1
    if kind == "gaussian":
        np.testing.assert_allclose(moved.std(), 0.02 * 200, rtol=0.03)


def test_neighbours_are_shared_and_depend_on_the_seed_alone() -> None:
    one = explained(curved, X, logits=logits)
    for make in (max_sensitivity, avg_sensitivity, relative_input_stability, relative_output_stability):
        make().score(one)
    assert isinstance(one.probe, FakeProbe)
    assert len(one.probe.seen) == 10
    other = explained(channel_sum, X)
    noise = Noise("uniform", 0.04, 3)
    np.testing.assert_array_equal(perturbed(one, noise), perturbed(other, noise))
    assert (perturbed(one, noise) != perturbed(explained(curved, X, seed=1), noise)).all()


def test_they_say_what_they_are() -> None:
    for make in MAKERS:
        metric = make(samples=3)
        assert (metric.family, metric.better, metric.bounds) == ("robustness", "lower", (0.0, math.inf))
        assert metric.parameters["samples"] == 3
        assert metric.source
        assert metric.meaning
