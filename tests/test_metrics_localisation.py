"""Localisation: worst, best and in between; ties; what is not defined."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from srd_onnx.errors import OptionError, ShapeError
from srd_onnx.metrics import METRICS, Explained, metric_named
from srd_onnx.metrics.localisation import (
    pointing_game,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    top_k_intersection,
)
from tests.metric_probes import explained, linear

Array = NDArray[Any]
MASK = np.zeros((4, 6), bool)
MASK[1:3, 1:4] = True  # 6 of 24
IN, OUT = np.where(MASK, 1.0, 0.0), np.where(MASK, 0.0, 1.0)
SPREAD = np.random.default_rng(0).permutation(24).reshape(4, 6).astype(np.float64)


def shared_by_loop(order: list[int], mask: Array, k: int) -> float:
    return sum(bool(mask.ravel()[i]) for i in order[:k]) / k


def test_the_best_map_lies_in_the_mask() -> None:
    assert pointing_game(IN, MASK) == 1
    assert top_k_intersection(IN, MASK, 3) == 1
    assert relevance_rank_accuracy(IN, MASK) == 1
    for part in ("positive", "absolute", "signed"):
        assert relevance_mass_accuracy(IN, MASK, part) == 1


def test_the_worst_map_lies_outside() -> None:
    assert pointing_game(OUT, MASK) == 0
    assert top_k_intersection(OUT, MASK, 3) == 0
    assert relevance_rank_accuracy(OUT, MASK) == 0
    for part in ("positive", "absolute", "signed"):
        assert relevance_mass_accuracy(OUT, MASK, part) == 0


@pytest.mark.parametrize("k", [1, 5, 23, 24])
def test_in_between_by_loops(k: int) -> None:
    order = sorted(range(24), key=lambda i: -SPREAD.ravel()[i])
    assert top_k_intersection(SPREAD, MASK, k) == pytest.approx(shared_by_loop(order, MASK, k), abs=1e-15)
    assert relevance_rank_accuracy(SPREAD, MASK) == shared_by_loop(order, MASK, 6)
    assert pointing_game(SPREAD, MASK) == MASK.ravel()[order[0]]
    backwards = shared_by_loop(order[::-1], MASK, k)
    assert k == 24 or backwards != shared_by_loop(order, MASK, k)  # the other order would be noticed


def test_mass_by_hand() -> None:
    relevance, mask = np.array([[3.0, -1.0, 2.0, -4.0]]), np.array([[True, True, False, False]])
    assert relevance_mass_accuracy(relevance, mask, "positive") == 3 / 5
    assert relevance_mass_accuracy(relevance, mask, "absolute") == 4 / 10
    assert np.isnan(relevance_mass_accuracy(relevance, mask, "signed"))  # it sums to 0
    assert relevance_mass_accuracy(relevance + 1, mask, "signed") == 4 / 4
    assert relevance_mass_accuracy(relevance + 2, mask, "signed") == 6 / 8


def test_a_flat_map_scores_the_share_of_the_mask_wherever_that_lies() -> None:
    for mask in (MASK, np.roll(MASK, 2, axis=1), MASK[::-1, ::-1], np.arange(24).reshape(4, 6) < 6):
        flat = np.full(mask.shape, 0.7)
        assert pointing_game(flat, mask) == pytest.approx(0.25)
        assert top_k_intersection(flat, mask, 7) == pytest.approx(0.25)
        assert relevance_rank_accuracy(flat, mask) == pytest.approx(0.25)
        assert relevance_mass_accuracy(flat, mask) == pytest.approx(0.25)


def test_ties_at_the_cut_count_with_their_expectation() -> None:
    relevance, mask = np.array([[5.0, 2.0, 2.0, 2.0, 0.0]]), np.array([[True, True, False, False, False]])
    assert top_k_intersection(relevance, mask, 2) == pytest.approx((1 + 1 / 3) / 2)
    rng, drawn = np.random.default_rng(0), []
    for _ in range(4000):
        order = np.lexsort((rng.random(5), -relevance.ravel()))
        drawn.append(mask.ravel()[order[:2]].mean())
    assert np.mean(drawn) == pytest.approx((1 + 1 / 3) / 2, abs=0.02)


@pytest.mark.parametrize(
    "score",
    [
        pointing_game,
        relevance_rank_accuracy,
        relevance_mass_accuracy,
        lambda m, s: top_k_intersection(m, s, 2),
    ],
)
def test_what_is_not_defined_is_nan(score: Callable[[Array, Array], float]) -> None:
    assert np.isnan(score(SPREAD, np.zeros((4, 6), bool)))
    assert np.isnan(score(np.where(MASK, np.nan, 1.0), MASK))
    with pytest.raises(ShapeError, match=r"mask has shape \[3, 6\], the map \[4, 6\]"):
        score(SPREAD, MASK[:3])


def test_more_special_cases_without_a_number() -> None:
    assert np.isnan(top_k_intersection(SPREAD, MASK, 25))
    assert np.isnan(relevance_mass_accuracy(-IN, MASK, "positive"))
    assert np.isnan(relevance_mass_accuracy(np.zeros((4, 6)), MASK, "absolute"))


def case(relevance: Array, mask: Array | None) -> Explained:
    probe = linear(np.ones((1, 1, 4, 6)))
    one = explained(probe, np.ones((1, 4, 6), np.float32), relevance)
    return Explained(one.probe, one.input, 0, one.map, 0, 1.0, mask=mask)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pointing-game", pointing_game(SPREAD, MASK)),
        ("attribution-localisation", relevance_mass_accuracy(SPREAD - 12, MASK, "absolute")),
        ("attribution-localisation:part=positive", relevance_mass_accuracy(SPREAD - 12, MASK, "positive")),
        ("relevance-rank-accuracy", relevance_rank_accuracy(SPREAD, MASK)),
        ("relevance-mass-accuracy", relevance_mass_accuracy(SPREAD - 12, MASK, "positive")),
        ("relevance-mass-accuracy:part=absolute", relevance_mass_accuracy(SPREAD - 12, MASK, "absolute")),
        ("top-k-intersection:k=7", top_k_intersection(SPREAD, MASK, 7)),
        ("grid-pointing-game", relevance_mass_accuracy(SPREAD - 12, MASK, "positive")),
    ],
)
def test_the_metrics_take_map_and_mask(text: str, expected: float) -> None:
    metric = metric_named(text)
    assert metric.score(case(SPREAD - 12, MASK)) == expected
    assert np.isnan(metric.score(case(SPREAD - 12, None)))
    assert metric.needs == {"grid" if text.startswith("grid") else "mask"}
    assert metric.family == "localisation"


def test_parameters_that_mean_nothing_are_refused() -> None:
    with pytest.raises(OptionError, match="part='all' is not one of positive, absolute, signed"):
        METRICS["relevance-mass-accuracy"](part="all")
    with pytest.raises(OptionError, match="k=0: it must be at least 1"):
        metric_named("top-k-intersection:k=0")
