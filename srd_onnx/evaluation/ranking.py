"""From numbers for each image, method and metric to who is best: means and mean ranks, with bootstrap intervals."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from srd_onnx.metrics.metric import Metric

CONFIDENCE = 0.95
RESAMPLES = 2000
ALL = "all"
_AT_ONCE = 1 << 20  # drawn numbers held at a time

Floats = NDArray[np.float64]


class Measured(Protocol):
    """One number: `srd_onnx.evaluation.numbers.Row`, or whatever a benchmark has."""

    @property
    def unit(self) -> str:
        """What the bootstrap draws from: the image."""

    @property
    def method(self) -> str:
        """Whose map."""

    @property
    def metric(self) -> str:
        """What was asked of it."""

    @property
    def value(self) -> float | None:
        """The answer; None where there is none."""


@dataclass(frozen=True)
class Interval:
    """A mean over `count` images, and its bootstrap confidence interval; None of less than two images."""

    mean: float
    low: float | None
    high: float | None
    count: int


def averages(
    rows: Iterable[Measured], *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[tuple[str, str], Interval]:
    """The mean of each (method, metric) over the images where there is a value.

    Several values of one image (the metric had several inputs with it) count as their mean.
    """
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in rows:
        by_unit = found.setdefault((row.method, row.metric), {})
        if row.value is not None:
            by_unit.setdefault(row.unit, []).append(row.value)
    return {
        key: interval(
            np.array([np.mean(values) for values in by_unit.values()]), seed=seed, resamples=resamples
        )
        for key, by_unit in found.items()
        if by_unit
    }


def interval(values: Floats, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The mean of values [N > 0] and its percentile bootstrap interval (Efron 1979).

    The draws depend on the seed and N alone, so that methods measured on the same images share them.
    """

    def mean(weights: Floats) -> Floats:
        # An infinite value that is not drawn takes no part: 0 · ∞ would.
        taken = np.multiply(weights, values, where=weights > 0, out=np.zeros_like(weights))
        return np.asarray(taken.sum(axis=1, keepdims=True) / len(values), np.float64)

    return _intervals(mean, len(values), seed, resamples)[0]


def mean_ranks(
    rows: Iterable[Measured], metrics: Mapping[str, Metric], *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, dict[str, Interval]]:
    """Each method's mean rank, 1 being the best: by family of metrics, and over families as `ALL`.

    Methods are ranked for each image and metric, ties sharing the mean of their ranks. A method without a value
    where another has one is last there: a metric that is undefined for its map is no way to escape. Ranks are
    averaged over images, then over the metrics of a family, then over families, so that a family does not gain
    weight by the number of its metrics. Images are drawn for all methods and metrics together.
    """
    values: dict[str, dict[str, dict[str, float]]] = {}
    methods: dict[str, int] = {}
    units: dict[str, int] = {}
    for row in rows:
        methods.setdefault(row.method, len(methods))
        units.setdefault(row.unit, len(units))
        if row.value is not None:
            values.setdefault(row.metric, {}).setdefault(row.unit, {})[row.method] = row.value
    families: dict[str, list[tuple[Floats, Floats]]] = {}
    for name, by_unit in values.items():
        ranks, present = np.zeros((len(units), len(methods))), np.zeros(len(units))
        for unit, by_method in by_unit.items():
            ranks[units[unit]], present[units[unit]] = (
                _ranks(by_method, list(methods), metrics[name].better),
                1,
            )
        families.setdefault(metrics[name].family, []).append((ranks, present))
    found: dict[str, dict[str, Interval]] = {method: {} for method in methods}
    for family, tables in {
        **{one: [own] for one, own in families.items()},
        ALL: list(families.values()),
    }.items():
        counted = (
            int(np.any([present for own in tables for _, present in own], axis=0).sum()) if tables else 0
        )
        every = (
            _intervals(functools.partial(_over_families, families=tables), len(units), seed, resamples)
            if counted
            else []
        )
        for method, one in zip(methods, every, strict=bool(every)):
            found[method][family] = Interval(one.mean, one.low, one.high, counted)
    return found


def _ranks(values: Mapping[str, float], methods: Sequence[str], better: str) -> Floats:
    """Ranks of all methods on one image, the best being 1."""
    sign = -1 if better == "higher" else 1
    costs = [sign * values[method] if method in values else math.inf for method in methods]
    return np.asarray(rankdata(costs), np.float64)


def _over_families(weights: Floats, families: Sequence[Sequence[tuple[Floats, Floats]]]) -> Floats:
    """Mean ranks [B, methods] under weights [B, units]; NaN where a draw has no image with a rank."""
    return _mean([_mean([_weighted(weights, *table) for table in family]) for family in families])


def _weighted(weights: Floats, ranks: Floats, present: Floats) -> Floats:
    total = weights @ present
    with np.errstate(invalid="ignore"):
        return np.asarray(weights @ ranks / total[:, None], np.float64)


def _mean(parts: Sequence[Floats]) -> Floats:
    """Of those that are not NaN."""
    stack = np.stack(parts)
    there = np.isfinite(stack)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, stack, 0).sum(axis=0) / there.sum(axis=0), np.float64)


def _intervals(
    statistic: Callable[[Floats], Floats], units: int, seed: int, resamples: int
) -> list[Interval]:
    """Of a statistic [B, M] of how often each unit is taken, float [B, units]: M intervals."""
    (means,) = statistic(np.ones((1, units)))
    if units < 2:
        return [Interval(float(mean), None, None, units) for mean in means]
    rng, drawn, size = np.random.default_rng(seed), [], max(1, _AT_ONCE // units)
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        weights = rng.multinomial(units, np.full(units, 1 / units), size=count).astype(np.float64)
        drawn.append(statistic(weights))
    every = np.concatenate(drawn)
    tail = (1 - CONFIDENCE) / 2
    found = []
    for mean, column in zip(means, every.T, strict=True):
        # "inverted_cdf" takes values that were drawn, so that infinite ones do no harm.
        known = column[~np.isnan(column)]
        low, high = np.quantile(known, [tail, 1 - tail], method="inverted_cdf")
        found.append(Interval(float(mean), float(low), float(high), units))
    return found
