"""Rank correlations after weights or the class change: known answers, and a real model whose maps must change."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from srd_onnx import Explainer
from srd_onnx.metrics.metric import Explained, Metric
from srd_onnx.metrics.probe import probe_of
from srd_onnx.metrics.randomisation import (
    mprt,
    mprt_independent,
    mprt_last_layer,
    random_logit,
    rank_correlation,
    spread,
)
from tests.fake_probes import explained
from tests.nets import small_cnn

Real = NDArray[np.float64]
X = np.random.default_rng(0).standard_normal((3, 40, 40)).astype(np.float32)
WEIGHTS: list[Callable[[], Metric]] = [mprt, mprt_last_layer, mprt_independent]
MAKERS: list[Callable[[], Metric]] = [*WEIGHTS, random_logit]


def grain(*what: Any) -> Real:
    """Noise that depends on all that is given."""
    seed = [ord(letter) for letter in repr(what)]
    return np.random.default_rng(seed).standard_normal((40, 40))


@pytest.mark.parametrize("make", MAKERS)
def test_a_map_that_depends_on_the_input_alone_is_the_worst(make: Callable[[], Metric]) -> None:
    assert make().score(explained(lambda x, *_: x[0], X)) == pytest.approx(1.0) == make().bounds[1]


@pytest.mark.parametrize("make", MAKERS)
def test_a_map_that_only_turns_its_sign_has_not_changed(make: Callable[[], Metric]) -> None:
    def turned(x: Real, target: int, redrawn: Any) -> Real:
        return np.asarray(x[0] if redrawn is None and target == 0 else -x[0], np.float64)

    assert make().score(explained(turned, X)) == pytest.approx(1.0)


@pytest.mark.parametrize("make", MAKERS)
def test_a_map_that_is_another_each_time_is_near_zero(make: Callable[[], Metric]) -> None:
    """|Spearman| of 1600 independent numbers has the mean sqrt(2 / (pi * 1599)), which is 0.02."""
    assert make().score(explained(lambda x, *what: grain(*what), X)) < 0.06


def blend(share: float) -> Callable[[Real, int, Any], Real]:
    """Pearson's correlation with the original map is sqrt(share) as the model or the class changes."""

    def method(x: Real, target: int, redrawn: Any) -> Real:
        fixed, own = grain("fixed"), grain(target, redrawn)
        same = redrawn is None and target == 0
        return fixed if same else math.sqrt(share) * fixed + math.sqrt(1 - share) * own

    return method


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_in_between_it_is_the_rank_correlation_of_normal_numbers(
    make: Callable[[], Metric], share: float
) -> None:
    """Spearman's of normal numbers is 6/π asin(r/2), with Pearson's r."""
    expected = 6 / math.pi * math.asin(math.sqrt(share) / 2)
    assert make().score(explained(blend(share), X)) == pytest.approx(expected, abs=0.03)


def test_the_stages_are_those_of_the_cascade() -> None:
    """Each stage has a correlation of its own; the metric is the mean over those that were asked for."""
    names = tuple("abcdefgh")

    def method(x: Real, target: int, redrawn: Any) -> Real:
        return grain("map") if redrawn is None else blend(1 / redrawn[0])(x, 1, redrawn)

    def of(stages: list[int]) -> float:
        found = [rank_correlation(grain("map"), method(grain(), 0, (n, 7))) for n in stages]
        return sum(found) / len(found)

    one = explained(method, X, names=names, seed=7)
    assert mprt(stages=0).score(one) == pytest.approx(of([1, 2, 3, 4, 5, 6, 7, 8]))
    assert mprt(stages=3).score(one) == pytest.approx(of([1, 4, 8]))
    assert mprt(stages=1).score(one) == mprt_last_layer().score(one) == pytest.approx(of([1]))


def test_the_independent_one_redraws_by_name() -> None:
    stays = {"last": 1.0, "middle": 0.5, "first": 0.0}

    def method(x: Real, target: int, redrawn: Any) -> Real:
        return blend(1.0 if redrawn is None else stays[redrawn[0]])(x, 1, redrawn)

    one = explained(method, X)
    half = 6 / math.pi * math.asin(math.sqrt(0.5) / 2)
    assert mprt_independent(layers=0).score(one) == pytest.approx((1 + half) / 3, abs=0.03)
    assert mprt_independent(layers=1).score(one) == pytest.approx(1)
    assert mprt_independent(layers=2).score(one) == pytest.approx(0.5, abs=0.03)


def test_random_logit_takes_other_classes_each_once() -> None:
    seen: list[int] = []

    def method(x: Real, target: int, redrawn: Any) -> Real:
        seen.append(target)
        return grain(target)

    one = explained(method, X, target=2, logits=lambda x: np.arange(6.0))
    random_logit(classes=100).score(one)
    assert sorted(seen[1:]) == [0, 1, 3, 4, 5]
    seen.clear()
    random_logit(classes=2).score(one)
    assert len(set(seen)) == 2
    first = list(seen)
    seen.clear()
    random_logit(classes=2).score(one)
    assert seen == first


@pytest.mark.parametrize("make", MAKERS)
def test_a_flat_map_has_no_ranks(make: Callable[[], Metric]) -> None:
    assert math.isnan(make().score(explained(lambda *_: np.ones((4, 4)), X)))


def test_stages_at_which_the_map_is_flat_are_left_out() -> None:
    def method(x: Real, target: int, redrawn: Any) -> Real:
        return np.zeros((40, 40)) if redrawn and redrawn[0] == 2 else x[0]

    assert mprt(stages=0).score(explained(method, X)) == pytest.approx(1.0)


def test_without_weights_or_other_classes_there_is_nothing_to_say() -> None:
    for make in WEIGHTS:
        assert math.isnan(make().score(explained(lambda x, *_: x[0], X, names=())))
    assert math.isnan(random_logit().score(explained(lambda x, *_: x[0], X, logits=lambda x: np.ones(1))))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 1000], 1),
        ([1, 2, 3, 4], [4, 3, 2, 1], 1),
        ([1, 2, 3, 4, 5], [1, 3, 2, 5, 4], 1 - 6 * 4 / (5 * 24)),
        ([1, 1, 2, 3], [1, 2, 2, 3], 0.75 / (0.9 * 1.0)),
        ([1, 2, 3, 4], [2, 4, 1, 3], 0),
    ],
)
def test_rank_correlation_by_hand(a: list[float], b: list[float], expected: float) -> None:
    """Without ties 1 - 6 Σ d² / (n (n² - 1)); with ties Pearson's of the mean ranks."""
    if len(set(a)) < len(a):  # ranks 1.5 1.5 3 4 and 1 2.5 2.5 4, less 2.5
        expected = (-1 * -1.5 + 0 + 0 + 1.5 * 1.5) / 4.5
    assert rank_correlation(np.array(a, float), np.array(b, float)) == pytest.approx(expected)


def test_spread() -> None:
    assert spread(5, 0) == spread(5, 5) == spread(5, 9) == [1, 2, 3, 4, 5]
    assert spread(26, 4) == [1, 9, 18, 26]
    assert spread(26, 1) == [1]
    assert spread(0, 4) == []


@functools.cache
def of_a_model(method: str) -> Explained:
    explainer = Explainer(small_cnn(), method=method, providers="cpu")
    x = np.random.default_rng(3).standard_normal((3, 32, 32)).astype(np.float32)
    found = explainer.explain(x[None], 4)[0]
    return Explained(
        probe_of(explainer), x, 4, found.relevance.astype(np.float64), 0, found.meta["seed_value"]
    )


@pytest.mark.parametrize(
    ("method", "metric"),
    [
        ("srd", mprt(stages=2)),
        ("srd", mprt_independent(layers=1)),
        ("gradient-x-input", mprt_last_layer()),
        ("gradient-x-input", random_logit()),
    ],
    ids=lambda one: one if isinstance(one, str) else one.name,
)
def test_on_a_model_the_map_changes_but_not_by_chance(method: str, metric: Metric) -> None:
    found = metric.score(of_a_model(method))
    assert 0 < found < 0.99
    assert metric.score(of_a_model(method)) == found


def test_they_say_what_they_are() -> None:
    for make in MAKERS:
        metric = make()
        assert (metric.family, metric.better, metric.bounds) == ("randomisation", "lower", (0.0, 1.0))
        assert metric.source
        assert metric.meaning
    assert len({make().name for make in MAKERS}) == len(MAKERS)
