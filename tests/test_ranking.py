"""Means, intervals and ranks, against small cases done by hand, scipy, and cases that must differ."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import bootstrap

from srd_onnx.evaluation.ranking import ALL, Interval, averages, interval, mean_ranks
from srd_onnx.metrics.metric import Explained, Metric


@dataclass(frozen=True)
class Number:
    unit: str
    method: str
    metric: str
    value: float | None


def never(_: Explained) -> float:
    raise AssertionError


def metric(name: str, family: str, better: str) -> Metric:
    return Metric(name, name, family, "", (0, 1), better, "", never)  # type: ignore[arg-type]


METRICS = {
    "gain": metric("gain", "faithfulness", "higher"),
    "loss": metric("loss", "faithfulness", "lower"),
    "gini": metric("gini", "complexity", "higher"),
}


def numbers(metric: str, table: dict[str, list[float | None]]) -> list[Number]:
    """By method, a value for each image."""
    return [
        Number(f"{i}.png", name, metric, value) for name, row in table.items() for i, value in enumerate(row)
    ]


def test_a_mean_is_over_the_images_that_have_a_value() -> None:
    found = averages(numbers("gain", {"a": [1, 3, None], "b": [None, None, None]}))
    assert list(found) == [("a", "gain")]
    assert (found["a", "gain"].mean, found["a", "gain"].count) == (2, 2)


def test_two_values_of_one_image_count_once() -> None:
    found = averages([Number("x", "a", "gain", v) for v in (0, 1)] + [Number("y", "a", "gain", 3.5)])
    assert (found["a", "gain"].mean, found["a", "gain"].count) == (2, 2)


def test_the_interval_of_two_values_reaches_from_one_to_the_other() -> None:
    """Their resamples have the means 0, 1/2, 1/2, 1 with equal probability."""
    assert interval(np.array([0.0, 1.0])) == Interval(0.5, 0, 1, 2)


def test_one_image_has_no_interval() -> None:
    assert interval(np.array([0.25])) == Interval(0.25, None, None, 1)


def test_equal_values_have_an_interval_of_no_width() -> None:
    found = interval(np.full(9, 0.5))
    assert found.low == pytest.approx(0.5)
    assert found.high == pytest.approx(0.5)


def test_the_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(3).exponential(size=40)
    found = interval(values, resamples=20_000)
    other = bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.low == pytest.approx(other.low, abs=0.01)
    assert found.high == pytest.approx(other.high, abs=0.01)
    wrong = bootstrap(
        (values,),
        np.mean,
        method="percentile",
        confidence_level=0.8,
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert abs(wrong.low - other.low) > 0.05


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        found = interval(rng.normal(size=50), resamples=400)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0 <= found.high
    assert 0.90 < hits / 300 < 0.98


def test_the_seed_decides_the_draws_and_nothing_else_does() -> None:
    values = np.random.default_rng(3).exponential(size=40)
    assert interval(values, seed=1) == interval(values, seed=1) != interval(values, seed=2)


def test_infinite_values_do_no_harm() -> None:
    found = interval(np.array([1.0, np.inf, 2.0]))
    assert (found.mean, found.high) == (np.inf, np.inf)


def test_ranks_follow_the_direction_of_the_metric() -> None:
    table: dict[str, list[float | None]] = {"a": [3, 1], "b": [2, 2], "c": [1, 3]}
    up = mean_ranks(numbers("gain", table), METRICS)
    assert [up[name]["faithfulness"].mean for name in "abc"] == [2, 2, 2]
    table = {"a": [3, 3], "b": [2, 2], "c": [1, 1]}
    up, down = (mean_ranks(numbers(name, table), METRICS) for name in ("gain", "loss"))
    assert [up[name][ALL].mean for name in "abc"] == [1, 2, 3]
    assert [down[name][ALL].mean for name in "abc"] == [3, 2, 1]


def test_ties_share_their_ranks() -> None:
    found = mean_ranks(numbers("gain", {"a": [1.0], "b": [1.0], "c": [0.0]}), METRICS)
    assert [found[name][ALL].mean for name in "abc"] == [1.5, 1.5, 3]


def test_a_method_without_a_value_is_last_and_an_image_without_values_counts_for_none() -> None:
    found = mean_ranks(numbers("loss", {"a": [None, None], "b": [5.0, None], "c": [7.0, None]}), METRICS)
    assert [found[name][ALL].mean for name in "abc"] == [3, 1, 2]
    assert found["a"][ALL].count == 1


def test_each_family_weighs_the_same_however_many_metrics_it_has() -> None:
    a_wins: dict[str, list[float | None]] = {"a": [1.0], "b": [0.0]}
    b_wins: dict[str, list[float | None]] = {"a": [0.0], "b": [1.0]}
    rows = numbers("gain", a_wins) + numbers("loss", b_wins) + numbers("gini", b_wins)
    found = mean_ranks(rows, METRICS)
    assert {k: v.mean for k, v in found["a"].items()} == {"faithfulness": 1, "complexity": 2, ALL: 1.5}
    assert {k: v.mean for k, v in found["b"].items()} == {"faithfulness": 2, "complexity": 1, ALL: 1.5}


def test_the_interval_of_a_rank_is_that_of_its_images() -> None:
    """With one metric a mean rank is a mean of numbers, so that both ways must agree."""
    rng = np.random.default_rng(5)
    values = rng.random((2, 30))
    rows = numbers("gain", {"a": list(values[0]), "b": list(values[1])})
    expected = interval(np.where(values[0] > values[1], 1.0, 2.0), seed=4)
    found = mean_ranks(rows, METRICS, seed=4)["a"][ALL]
    assert (found.mean, found.low, found.high) == pytest.approx((expected.mean, expected.low, expected.high))


def test_nothing_measured_is_nothing_ranked() -> None:
    assert mean_ranks([], METRICS) == {}
    assert mean_ranks(numbers("gain", {"a": [None]}), METRICS) == {"a": {}}
