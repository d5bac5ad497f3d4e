"""Insertion, deletion, pixel flipping and ROAD on models whose every answer is a sum: best, worst, in between."""

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from srd_onnx.errors import OptionError
from srd_onnx.metrics import METRICS, Explained, metric_named
from srd_onnx.metrics.changes import AT_ONCE, baseline_of, cuts_of, ranks_of
from srd_onnx.metrics.curves import area, deletion_curve, flipping_curve, insertion_curve
from srd_onnx.metrics.imputation import imputed
from tests.metric_probes import NumpyProbe, explained, linear

Array = NDArray[Any]
RNG = np.random.default_rng(0)
X: Array = RNG.standard_normal((2, 3, 4)).astype(np.float32)
WEIGHTS = np.stack([RNG.standard_normal((2, 3, 4)), np.zeros((2, 3, 4))])
GIVES = (WEIGHTS[0] * X).sum(axis=0)  # what each position adds to the logit, with a baseline of zero


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def case(relevance: Array = GIVES, seed: int = 0) -> Explained:
    return explained(linear(WEIGHTS), X, relevance, seed=seed)


def score(text: str, one: Explained) -> float:
    return metric_named(text).score(one)


def trapezoid(curve: list[float]) -> float:
    return sum((a + b) / 2 for a, b in itertools.pairwise(curve)) / (len(curve) - 1)


def by_loops(order: list[int], steps: int, *, revealed: bool) -> list[float]:
    """The curve with a baseline of zero: sums of what is there, one position after the other."""
    gives = GIVES.ravel()
    curve = []
    for step in range(steps + 1):
        first = order[: step * len(order) // steps]
        there = first if revealed else [i for i in range(12) if i not in first]
        curve.append(sigmoid(sum(float(gives[i]) for i in there)))
    return curve


@pytest.mark.parametrize("steps", [12, 5, 2])
def test_curves_and_areas_by_loops(steps: int) -> None:
    relevance = np.random.default_rng(3).permutation(12).reshape(3, 4).astype(np.float64)
    order = sorted(range(12), key=lambda i: -relevance.ravel()[i])
    one = case(relevance)
    inserted, deleted = (by_loops(order, steps, revealed=r) for r in (True, False))
    np.testing.assert_allclose(insertion_curve(one, steps, "zero"), inserted, rtol=1e-5)
    np.testing.assert_allclose(deletion_curve(one, steps, "zero"), deleted, rtol=1e-5)
    up, down = trapezoid(inserted), trapezoid(deleted)
    assert score(f"insertion:steps={steps},baseline=zero", one) == pytest.approx(up, rel=1e-5)
    assert score(f"deletion:steps={steps},baseline=zero", one) == pytest.approx(down, rel=1e-5)
    both = f"insertion-minus-deletion:steps={steps},insertion_baseline=zero,deletion_baseline=zero"
    assert score(both, one) == pytest.approx(up - down, abs=1e-5)
    reversed_curve = by_loops(order[::-1], steps, revealed=False)
    assert np.abs(np.subtract(reversed_curve, deleted)).max() > 0.01  # the other order would be noticed


def test_the_map_that_says_what_each_position_gives_is_best_and_its_opposite_worst() -> None:
    """On four positions, against every order that there is."""
    probe = linear(WEIGHTS[:, :, :2, :2])
    x = X[:, :2, :2]
    gives = GIVES[:2, :2]
    for name, best in (("insertion", max), ("deletion", min)):
        text = f"{name}:steps=4,baseline=zero"
        maps = [np.array(p, np.float64).reshape(2, 2) for p in itertools.permutations(range(4))]
        found = [score(text, explained(probe, x, one)) for one in maps]
        assert score(text, explained(probe, x, gives)) == pytest.approx(best(found))
        worst = {max: min, min: max}[best]
        assert score(text, explained(probe, x, -gives)) == pytest.approx(worst(found))
        assert min(found) < np.median(found) < max(found)
    assert score("insertion-minus-deletion", case()) > 0.1
    assert score("insertion-minus-deletion", case(-GIVES)) < -0.1


def test_a_flat_map_scores_nothing_on_average_and_not_by_its_place() -> None:
    """With raster order the first row would go first; here it carries everything."""
    weights = np.zeros((2, 1, 6, 6))
    weights[0, 0, 0] = 1
    x = np.ones((1, 6, 6), np.float32)
    probe, text = linear(weights), "insertion-minus-deletion:insertion_baseline=zero,deletion_baseline=zero"
    flat = [score(text, explained(probe, x, np.zeros((6, 6)), seed=seed)) for seed in range(60)]
    assert abs(np.mean(flat)) < 0.03
    assert score(text, explained(probe, x, np.arange(36.0)[::-1].reshape(6, 6))) > 0.3


def test_ties_are_broken_by_the_seed() -> None:
    relevance = np.array([[1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0]])
    ranks = ranks_of(relevance, 5)
    assert ranks[0, 3] == 0
    assert ranks[0, 0] == 1
    assert sorted(ranks.ravel()) == list(range(8))
    np.testing.assert_array_equal(ranks, ranks_of(relevance, 5))
    places = np.stack([ranks_of(relevance, seed) for seed in range(300)])
    np.testing.assert_allclose(places.mean(axis=0)[0, [1, 2, 4, 5, 6, 7]], 4.5, atol=0.4)


def test_cuts_go_from_none_to_all() -> None:
    assert cuts_of(12, 5).tolist() == [0, 2, 4, 7, 9, 12]


# Baselines


def blurred_by_loops(plane: Array, sigma: float) -> Array:
    """A Gaussian cut off at 4 σ, the edge mirrored: one axis after the other."""
    reach = int(4 * sigma + 0.5)
    kernel = [math.exp(-(d**2) / (2 * sigma**2)) for d in range(-reach, reach + 1)]
    found = plane.astype(np.float64)
    for axis in (0, 1):
        found = np.moveaxis(found, axis, 0)
        size, out = len(found), np.zeros_like(found)
        for i in range(size):
            for d, weight in zip(range(-reach, reach + 1), kernel, strict=True):
                j = (i + d) % (2 * size)
                out[i] += weight / sum(kernel) * found[j if j < size else 2 * size - 1 - j]
        found = np.moveaxis(out, 0, axis)
    return found


def test_baselines_by_their_definitions() -> None:
    x = np.random.default_rng(0).standard_normal((3, 20, 30)).astype(np.float32)
    np.testing.assert_allclose(
        baseline_of(x, 0, "blur"), np.stack([blurred_by_loops(plane, 1.0) for plane in x]), atol=1e-5
    )
    np.testing.assert_array_equal(baseline_of(x, 0, "zero"), np.zeros_like(x))
    np.testing.assert_array_equal(baseline_of(x, 0, "black"), np.full_like(x, x.min()))
    for plane, mean in zip(x, baseline_of(x, 0, "mean"), strict=True):
        np.testing.assert_allclose(mean, plane.mean(), atol=1e-6)
    for kind in ("blur", "mean", "zero", "black"):
        last = baseline_of(np.ascontiguousarray(x.transpose(1, 2, 0)), 2, kind)
        assert last.dtype == np.float32
        np.testing.assert_allclose(last.transpose(2, 0, 1), baseline_of(x, 0, kind), atol=1e-5)


def test_each_baseline_gives_another_number() -> None:
    x = np.random.default_rng(0).standard_normal((2, 20, 20)).astype(np.float32) + 0.5
    probe = linear(np.random.default_rng(1).standard_normal((2, 2, 20, 20)) / 20)
    found = [
        score(f"deletion:baseline={kind}", explained(probe, x, (x**2).sum(axis=0)))
        for kind in ("blur", "mean", "zero", "black")
    ]
    assert min(abs(a - b) for a, b in itertools.combinations(found, 2)) > 1e-4


# What it costs


def test_few_inputs_are_in_memory_and_none_is_asked_for_twice() -> None:
    one = case()
    for name in ("insertion", "deletion", "insertion-minus-deletion"):
        score(name, one)
    probe = one.probe
    assert isinstance(probe, NumpyProbe)
    assert probe.count == 2 * 27 + 2
    assert max(map(len, probe.asked)) <= AT_ONCE
    other = replace(one, map=-one.map, own={})  # another method on the same input: the same dictionary
    assert other.shared is one.shared
    assert score("deletion", other) != score("deletion", one)
    assert probe.count == 3 * 27 + 2


def test_what_is_shared_is_what_would_be_computed() -> None:
    warm = case()
    for name in METRICS:
        score(name, warm)
    other = replace(warm, map=np.roll(warm.map, 1), seed=4)
    fresh = replace(other, shared={}, own={})
    for name in (
        "insertion",
        "deletion:baseline=mean",
        "faithfulness-correlation:subset=3",
        "infidelity:grid=2",
    ):
        assert score(name, other) == score(name, fresh) != score(name, warm)
        assert score(name, replace(warm, shared={}, own={})) == score(name, warm)


# Pixel flipping


def test_pixel_flipping_is_the_curve_of_quantus() -> None:
    one = case()
    black = float(X.min())
    order = sorted(range(12), key=lambda i: -GIVES.ravel()[i])
    x, curve = X.astype(np.float64).copy(), []
    for i in order:
        x[:, i // 4, i % 4] = black
        curve.append(float((x * WEIGHTS[0]).sum()))
    np.testing.assert_allclose(flipping_curve(one, 12, "black", "logit"), curve, rtol=1e-4, atol=1e-5)
    expected = trapezoid([sigmoid(z) for z in curve])
    assert score("pixel-flipping:steps=12", one) == pytest.approx(expected, rel=1e-4)
    assert score("pixel-flipping:steps=12,of=logit", one) == pytest.approx(trapezoid(curve), rel=1e-4)
    hits = [float(z > 0) for z in curve]
    assert score("pixel-flipping:steps=12,of=accuracy", one) == pytest.approx(trapezoid(hits))
    assert 0 < score("pixel-flipping:steps=12,baseline=zero", case()) < 1
    best, worst = (score("pixel-flipping:steps=12,baseline=zero", case(m)) for m in (GIVES, -GIVES))
    assert best < worst


# ROAD


def road_by_hand(one: Explained, sign: int, percentages: list[int]) -> list[float]:
    order = sorted(range(one.map.size), key=lambda i: -sign * one.map.ravel()[i])
    found = []
    for percentage in percentages:
        removed = np.zeros(one.map.size, bool)
        removed[order[: one.map.size * percentage // 100]] = True
        filled = imputed(one.input, removed.reshape(one.map.shape), 0)
        found.append(float(one.probe.probabilities(filled[None])[0, one.target]))
    return found


def large() -> Explained:
    x = np.random.default_rng(5).standard_normal((3, 10, 10)).astype(np.float32)
    probe = linear(np.random.default_rng(6).standard_normal((2, 3, 10, 10)) / 4)
    assert probe.attribute is not None
    return explained(probe, x, probe.attribute(x, 0))


def test_road_in_both_orders() -> None:
    one = large()
    for name, sign in (("morf", 1), ("lerf", -1)):
        expected = np.mean(road_by_hand(one, sign, [10, 30, 50, 70, 90]))
        assert score(f"road-{name}:noise=0", one) == pytest.approx(expected, rel=1e-5)
        assert metric_named(f"road-{name}").parameters["percentages"] == [10, 30, 50, 70, 90]
    assert score("road-lerf", one) > score("road-morf", one) + 0.2
    opposite = replace(one, map=-one.map, shared={}, own={})
    assert score("road-morf:noise=0", opposite) == pytest.approx(score("road-lerf:noise=0", one))


def test_road_counts_predictions_as_its_authors_do() -> None:
    one = large()
    expected = [p > 0.5 for p in road_by_hand(one, 1, [10, 30, 50, 70, 90])]
    assert score("road-morf:noise=0,of=accuracy", one) == np.mean(expected)


def test_the_noise_of_road_is_in_units_of_the_input_and_drawn_by_the_seed() -> None:
    one = large()
    noisy = score("road-morf:noise=0.1", one)
    assert noisy == score("road-morf:noise=0.1", replace(one, shared={}, own={}))
    assert noisy != score("road-morf:noise=0.1", replace(one, seed=1))
    assert isinstance(one.probe, NumpyProbe)
    one.probe.asked.clear()
    score("road-morf:noise=0.1,steps=1", one)
    score("road-morf:noise=0,steps=1", one)
    noise = one.probe.asked[0][0] - one.probe.asked[1][0]
    removed = ranks_of(one.map, 0) < 50
    np.testing.assert_array_equal(noise[:, ~removed], 0)
    assert noise[:, removed].std() == pytest.approx(0.1 * one.input.std(), rel=0.15)


def test_road_needs_a_picture() -> None:
    probe = NumpyProbe(lambda x: x.sum(axis=2))
    one = Explained(probe, np.ones((2, 5), np.float32), 0, np.arange(5.0), 0, 1.0)
    assert np.isnan(score("road-morf", one))
    assert np.isfinite(score("deletion:baseline=zero", one))


# What is not defined


@pytest.mark.parametrize(
    "name",
    ["insertion", "deletion", "insertion-minus-deletion", "pixel-flipping", "road-morf", "road-lerf"],
)
def test_a_map_that_is_no_number_has_no_order(name: str) -> None:
    assert np.isnan(score(name, case(np.where(GIVES > 0, np.nan, 1.0))))


def test_parameters_that_mean_nothing_are_refused() -> None:
    with pytest.raises(OptionError, match="baseline='grey' is not one of blur, mean, zero, black"):
        metric_named("insertion:baseline=grey")
    with pytest.raises(OptionError, match="steps=1: a curve takes at least 2"):
        metric_named("deletion:steps=1")
    with pytest.raises(OptionError, match="of='logits' is not one of probability, logit, accuracy"):
        metric_named("road-morf:of=logits")


def test_the_area_of_a_constant_is_the_constant() -> None:
    assert area(np.full(29, 0.3)) == pytest.approx(0.3)
