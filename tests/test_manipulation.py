"""The attack on the map: it keeps to its budget and to the prediction, and finds what there is to find."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from srd_onnx.correlation import pearson
from srd_onnx.metrics.manipulation import attack, coarse, manipulation, target_map
from tests.fake_probes import FakeProbe, explained

Real = NDArray[np.float64]
X = np.random.default_rng(0).uniform(-1, 3, (3, 20, 20)).astype(np.float32)
BUDGET = 8 / 255


def constant(x: Real, target: int, redrawn: Any) -> Real:
    return np.arange(400, dtype=np.float64).reshape(20, 20)


def brightness(x: Real, target: int, redrawn: Any) -> Real:
    """How far each position is from where it was: all that the map shows can be made up by the attacker."""
    rest = np.zeros((20, 20))
    rest[:6, :6] = 0.2
    return np.asarray(np.abs(x - X.astype(np.float64)).sum(axis=0) + rest, np.float64)


def fragile(x: Real, target: int, redrawn: Any) -> Real:
    """Becomes its target map as soon as anything changes."""
    before = np.zeros((20, 20))
    before[2:8, 3:9] = np.arange(1, 37).reshape(6, 6)
    return before if (x == X).all() else target_map(before)


def test_a_map_that_never_changes_cannot_be_moved() -> None:
    assert manipulation().score(explained(constant, X)) == 0.0


def test_a_map_that_becomes_the_target_is_the_worst() -> None:
    one = explained(fragile, X)
    before = pearson(coarse(one.map, 14), coarse(target_map(one.map), 14))
    assert manipulation().score(one) == pytest.approx(1 - before)
    found = attack(one, 60, BUDGET, 0.1, 14)
    assert (found.before, found.after) == pytest.approx((before, 1))
    assert found.accepted == 1


def test_in_between_more_queries_find_more() -> None:
    one = explained(brightness, X)
    few, many = (manipulation(queries=n).score(one) for n in (10, 200))
    assert 0.05 < few < many < 1.3


def test_a_larger_budget_moves_a_stiff_map_further() -> None:
    def stiff(x: Real, target: int, redrawn: Any) -> Real:
        moved = x - X.astype(np.float64)
        return np.asarray(constant(x, target, redrawn) / 400 + moved.sum(axis=0), np.float64)

    small, large = (manipulation(budget=b).score(explained(stiff, X)) for b in (BUDGET, 4 * BUDGET))
    assert 0 < small < large


@pytest.mark.parametrize("budget", [2 / 255, 8 / 255])
def test_the_input_stays_within_the_budget_and_the_range(budget: float) -> None:
    one = explained(brightness, X)
    found = attack(one, 60, budget, 0.1, 14)
    assert isinstance(one.probe, FakeProbe)
    span = float(X.max() - X.min())
    for tried in (found.input, *one.probe.seen):
        assert np.abs(tried.astype(np.float64) - X).max() <= budget * span * (1 + 1e-6)
        assert X.min() <= tried.min()
        assert tried.max() <= X.max()
    assert np.abs(found.input - X).max() > 0.5 * budget * span
    np.testing.assert_allclose(
        found.after,
        pearson(
            coarse(brightness(found.input.astype(np.float64), 0, None), 14), coarse(target_map(one.map), 14)
        ),
    )


def test_the_prediction_is_kept() -> None:
    """The logits follow the red channel's mean; steps that move them further than allowed are refused."""

    def logits(x: Real) -> Real:
        return np.array([0.05 + 20 * (x[0].mean() - X[0].astype(np.float64).mean()), 0.0, -3.0])

    one = explained(brightness, X, logits=logits)
    found = attack(one, 100, BUDGET, 0.05, 14)
    before, after = one.probe.probabilities(np.stack([X, found.input]))
    assert found.accepted
    assert after.argmax() == before.argmax() == 0
    assert np.abs(after - before).sum() / 2 <= 0.05 + 1e-6
    free = attack(explained(brightness, X), 100, BUDGET, 0.05, 14).input  # what the limit keeps it from
    assert np.abs(one.probe.probabilities(free[None])[0] - before).sum() / 2 > 0.05


def test_a_prediction_that_any_change_spoils_protects_the_map() -> None:
    def spoiled(x: Real) -> Real:
        return np.array([1.0, 0.0]) if (x == X).all() else np.array([0.0, 1.0])

    assert manipulation().score(explained(fragile, X, logits=spoiled)) == 0.0


def test_a_flat_map_has_no_direction_to_move_in() -> None:
    assert math.isnan(manipulation().score(explained(lambda *_: np.ones((20, 20)), X)))


def test_the_seed_decides() -> None:
    first, again, other = (
        attack(explained(brightness, X, seed=seed), 30, BUDGET, 0.1, 14) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.input, again.input)
    assert (first.input != other.input).any()


@pytest.mark.parametrize(("shape", "axis"), [((20, 20, 3), 2), ((50, 4), 1), ((2, 8, 9, 7), 0)])
def test_other_layouts(shape: tuple[int, ...], axis: int) -> None:
    x = np.random.default_rng(1).uniform(0, 1, shape).astype(np.float32)

    def moved(given: Real, target: int, redrawn: Any) -> Real:
        grid = np.abs(given - x.astype(np.float64)).sum(axis=axis)
        return np.asarray(grid + np.arange(grid.size).reshape(grid.shape) / grid.size / 10, np.float64)

    found = attack(explained(moved, x, channel_axis=axis), 60, BUDGET, 0.1, 14)
    assert found.after > found.before + 0.02


def test_the_target_map_is_the_map_elsewhere() -> None:
    relevance = np.zeros((6, 8))
    relevance[0, 1], relevance[5, 7] = 1, 2
    wanted = target_map(relevance)
    assert (wanted[3, 5], wanted[2, 3], wanted.sum()) == (1, 2, 3)


def test_coarse_is_the_mean_over_cells() -> None:
    relevance = np.random.default_rng(0).standard_normal((7, 3))
    found = coarse(relevance, 3)
    rows = [(0, 2), (2, 4), (4, 7)]
    expected = [[relevance[a:b, c].mean() for c in range(3)] for a, b in rows]
    np.testing.assert_allclose(found, expected)
    np.testing.assert_array_equal(coarse(relevance, 20), relevance)
