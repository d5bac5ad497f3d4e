"""What the rows of `quality` come to: means, ranks, and whether the aims are met."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from benchmarks.quality_inputs import FINER, OURS
from benchmarks.quality_parts import KINDS, Part, metrics_of
from srd_onnx.evaluation.numbers import Row
from srd_onnx.evaluation.ranking import ALL, Interval, averages, interval, mean_ranks
from srd_onnx.methods import METHODS, SRD
from srd_onnx.metrics import METRICS, Metric
from srd_onnx.metrics.metric import Family

AXIOMATIC = "axiomatic"
FIVE = tuple(family for family in get_args(Family) if family != AXIOMATIC)
FAITHFUL, POINTING, RANDOMISED = "insertion-minus-deletion", "grid-pointing-game", "mprt-last-layer"
CAM, CONTROL = "activation map", "control"
MARGIN, UNLIKE = 1.2, 0.5  # the aims: times the best peer; at most
Ranks = dict[str, dict[str, Interval]]


@dataclass(frozen=True, eq=False)
class Figures:
    """Of one model.

    Attributes:
        rows: of all methods.
        metrics: those that were asked, by name.
        means: by method and metric.
        ranks: by method and family, `ALL` being over FIVE; of the methods that were measured on everything.
        left_out: why methods cannot explain this model.
        missing: methods that have not been measured, or not on everything.
        images: names of the pictures.
    """

    model: str
    rows: tuple[Row, ...]
    metrics: dict[str, Metric]
    means: dict[tuple[str, str], Interval]
    ranks: Ranks
    left_out: dict[str, str]
    missing: tuple[str, ...]
    images: tuple[str, ...]

    @property
    def ranked(self) -> list[str]:
        """Methods, the best first."""
        return sorted(self.ranks, key=lambda method: self.ranks[method][ALL].mean)

    def best(self, metric: str, methods: Sequence[str]) -> str | None:
        """The method with the best mean of those; None if there is none."""
        known = [method for method in methods if (method, metric) in self.means]
        sign = -1 if METRICS[metric]().better == "higher" else 1
        return min(known, key=lambda method: sign * self.means[method, metric].mean, default=None)

    @property
    def undefined(self) -> dict[str, str]:
        """By method of what it has no value where another one has: how often, the metrics, and why, in words."""
        known = {(row.metric, row.image) for row in self.rows if row.value is not None}
        found: dict[str, dict[str, list[str]]] = {}
        for row in self.rows:
            if row.value is None and (row.metric, row.image) in known:
                found.setdefault(row.method, {}).setdefault(row.metric, []).append(row.error or "")
        return {
            method: "; ".join(f"{name} of {len(all_)} pictures: {all_[0]}" for name, all_ in by.items())
            for method, by in found.items()
        }

    def difference(self, metric: str, one: str, other: str) -> Interval | None:
        """The mean over the images of what one method has more than another; None without common images."""
        found: dict[str, dict[str, list[float]]] = {}
        for row in self.rows:
            if row.metric == metric and row.method in (one, other) and row.value is not None:
                found.setdefault(row.image, {}).setdefault(row.method, []).append(row.value)
        both = [np.mean(v[one]) - np.mean(v[other]) for v in found.values() if one in v and other in v]
        return interval(np.array(both)) if both else None

    def hindsight(self, metric: str) -> float:
        """The mean over the images of the best that any method has there: more than what any one can have."""
        sign = 1 if METRICS[metric]().better == "higher" else -1
        best: dict[str, float] = {}
        for row in self.rows:
            if row.metric == metric and row.value is not None:
                best[row.image] = max(best.get(row.image, -np.inf), sign * row.value)
        return sign * float(np.mean([*best.values()]))


def figures_of(model: str, parts: Sequence[Part], contenders: Sequence[str], seed: int) -> Figures | None:
    """Of the parts of one model; None if there are none."""
    own = [part for part in parts if part.model == model]
    rows = tuple(row for part in own for row in part.rows)
    if not rows:
        return None
    left_out = {part.contender: part.left_out for part in own if part.left_out}
    rows = tuple(row for row in rows if row.method not in left_out)
    masked = any("mask" in METRICS[row.metric]().needs for row in rows)
    metrics = {name: one for kind in KINDS for name, one in metrics_of(kind, masked=masked).items()}
    asked: dict[str, set[tuple[str, str]]] = {}
    for row in rows:
        asked.setdefault(row.method, set()).add((row.metric, row.image))
    everything = set.union(*asked.values())
    whole = {name for name, of in asked.items() if of == everything}
    if {metric for metric, _ in everything} != {*metrics}:
        whole = set()
    return Figures(
        model,
        rows,
        metrics,
        averages(rows, seed=seed),
        _ranks([row for row in rows if row.method in whole], metrics, seed),
        left_out,
        tuple(name for name in contenders if name not in whole and name not in left_out),
        tuple(dict.fromkeys(row.image for row in rows)),
    )


def _ranks(rows: Sequence[Row], metrics: dict[str, Metric], seed: int) -> Ranks:
    """By family, and over FIVE; the axiomatic ones beside them."""
    of_five = {name: one for name, one in metrics.items() if one.family in FIVE}
    found = mean_ranks([row for row in rows if row.metric in of_five], of_five, seed=seed)
    others = mean_ranks([row for row in rows if row.metric not in of_five], metrics, seed=seed)
    return {method: others.get(method, {}) | found[method] for method in found}


def kind_of(contender: str) -> str:
    """The family of its method; SRD's own is "srd"."""
    name = contender.partition(":")[0].removesuffix(FINER)
    return SRD if name == SRD else METHODS[name]().family


def is_peer(contender: str) -> bool:
    """A method that is neither ours nor a control."""
    return kind_of(contender) not in (SRD, CONTROL)


@dataclass(frozen=True)
class Aim:
    """Of one model: whether it is met, None if that is not known (yet); and the numbers in words."""

    title: str
    met: bool | None
    said: str


def aims_of(figures: Figures) -> list[Aim]:
    """The four aims that were set before anything was measured."""
    known = dict.fromkeys(row.method for row in figures.rows)
    peers = [name for name in (*known, *figures.missing) if is_peer(name)]
    cams = [name for name in peers if kind_of(name) == CAM]
    return [
        _first(figures),
        _against(figures, f"{FAITHFUL} at least {MARGIN:g} times the best peer's", FAITHFUL, peers, MARGIN),
        _against(figures, f"{POINTING} at least the best CAM's", POINTING, cams, 1.0),
        _at_most(figures),
    ]


def _first(figures: Figures) -> Aim:
    title = "best mean rank over the five families"
    ranked = figures.ranked
    if OURS not in ranked:
        return Aim(title, None, "not measured on everything")
    means = {method: figures.ranks[method][ALL] for method in ranked}
    place = 1 + sum(one.mean < means[OURS].mean for one in means.values())
    said = f"place {place} of {len(ranked)}, mean rank {spread(means[OURS], 2)}"
    other = next((method for method in ranked if method != OURS), None)
    if other is not None:
        said += f"; the best other is `{other}`, {spread(means[other], 2)}"
    if figures.missing:
        said += f"; {len(figures.missing)} methods are not ranked yet"
    return Aim(title, _so_far(figures.missing, met=place == 1), said)


def _so_far(unmeasured: Sequence[str], *, met: bool) -> bool | None:
    """Methods that have not been measured may still be better, but cannot make up for one that is."""
    return None if met and unmeasured else met


def _against(figures: Figures, title: str, metric: str, others: Sequence[str], factor: float) -> Aim:
    """More than others by a factor; the paired difference says how sure it is that there is any."""
    best = figures.best(metric, others)
    if (OURS, metric) not in figures.means or best is None:
        return Aim(title, None, "not measured")
    own, peer = figures.means[OURS, metric].mean, figures.means[best, metric].mean
    said = f"{own:.3f}; the best is `{best}`, {peer:.3f}"
    if peer > 0:
        said += f", a ratio of {own / peer:.2f}"
    if (more := figures.difference(metric, OURS, best)) is not None:
        said += f"; difference {spread(more, 3)}"
    met = own >= factor * peer if peer > 0 else own > 0
    if not met and factor > 1:
        said += f"; {_out_of_reach(figures, metric, factor * peer)}"
    unmeasured = [name for name in others if (name, metric) not in figures.means]
    return Aim(title, _so_far(unmeasured, met=met), said)


def _out_of_reach(figures: Figures, metric: str, wanted: float) -> str:
    """How far away what is wanted is."""
    greatest = METRICS[metric]().bounds[1]
    if wanted > greatest:
        there_is = f"{greatest:g} is the most that there is"
    else:
        chosen = figures.hindsight(metric)
        there_is = f"whoever chose the best of all methods picture by picture would have {chosen:.3f}"
    return f"{wanted:.3f} is wanted, and {there_is}"


def _at_most(figures: Figures) -> Aim:
    title = f"{RANDOMISED} at most {UNLIKE:g}"
    found = figures.means.get((OURS, RANDOMISED))
    if found is None:
        return Aim(title, None, "not measured")
    return Aim(title, found.mean <= UNLIKE, spread(found, 3))


def spread(found: Interval, digits: int) -> str:
    """`0.43 (0.35 to 0.51)`; an interval takes two images."""
    mean = f"{found.mean:.{digits}f}"
    if found.low is None or found.high is None:
        return mean
    return f"{mean} ({found.low:.{digits}f} to {found.high:.{digits}f})"
