"""Faithfulness by curves: the score as positions are taken away, or come back, in the order of their relevance."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from srd_onnx.errors import OptionError
from srd_onnx.graph.ir import Array
from srd_onnx.metrics.changes import (
    BASELINES,
    OUTCOMES,
    cuts_of,
    drawing,
    is_finite,
    map_key,
    once,
    outcomes,
    outcomes_where,
    ranks_of,
)
from srd_onnx.metrics.imputation import imputed
from srd_onnx.metrics.metric import Explained, Metric
from srd_onnx.named import require_one_of
from srd_onnx.subject import at_least_one

_RISE = "Petsiuk, Das, Saenko 2018, arXiv 1806.07421"


def insertion_curve(one: Explained, steps: int, baseline: str) -> NDArray[np.float64]:
    """The target's probability with the most relevant positions on the baseline: steps + 1, from none to all."""
    return once(
        one.own,
        ("insertion", map_key(one), steps, baseline),
        lambda: _curve(one, steps, baseline, revealed=True),
    )


def deletion_curve(one: Explained, steps: int, baseline: str) -> NDArray[np.float64]:
    """The target's probability without the most relevant positions: steps + 1, from the whole input to the baseline."""
    return once(
        one.own,
        ("deletion", map_key(one), steps, baseline),
        lambda: _curve(one, steps, baseline, revealed=False),
    )


def area(curve: NDArray[np.float64]) -> float:
    """Under the curve over the unit interval, by the trapezoid rule."""
    return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))


def _curve(one: Explained, steps: int, baseline: str, *, revealed: bool) -> NDArray[np.float64]:
    """Between the ends, which are the same for every map."""
    ranks = ranks_of(one.map, one.seed)
    inner = cuts_of(ranks.size, steps)[1:-1]
    between = outcomes_where(one, ((ranks < cut) == revealed for cut in inner), baseline, "probability")
    ends = once(one.shared, ("ends", one.target, baseline), partial(_ends, one, baseline))
    nothing, everything = ends
    return np.array(
        [nothing, *between, everything] if revealed else [everything, *between, nothing], np.float64
    )


def _ends(one: Explained, baseline: str) -> Array:
    keeps = [np.full(one.map.shape, whole) for whole in (False, True)]
    return outcomes_where(one, keeps, baseline, "probability")


def flipping_curve(one: Explained, steps: int, baseline: str, of: str) -> NDArray[np.float64]:
    """As Quantus has it: the score after each step of removing the most relevant positions, `steps` numbers."""
    ranks = ranks_of(one.map, one.seed)
    cuts = cuts_of(ranks.size, steps)[1:]
    return outcomes_where(one, (ranks >= cut for cut in cuts), baseline, of)


def road_curve(one: Explained, percentages: Array, order: str, noise: float, of: str) -> NDArray[np.float64]:
    """The score after removing each percentage of the positions by noisy linear imputation.

    Args:
        one: with a map of two axes.
        percentages: of positions that are removed.
        order: "morf", the most relevant first, or "lerf", the least relevant.
        noise: standard deviation of the noise, in standard deviations of the input.
        of: see `outcomes`.
    """
    ranks = ranks_of(one.map if order == "morf" else -one.map, one.seed)
    axis = one.probe.channel_axis
    channels = np.moveaxis(one.input, axis, 0)
    scale = noise * float(channels.std(dtype=np.float64))
    drawn = drawing(one.seed, "noise").standard_normal(channels.shape) * scale

    def changed() -> Iterator[Array]:
        for percentage in percentages:
            removed = ranks < int(ranks.size * percentage / 100)
            yield imputed(one.input, removed, axis, drawn)

    return outcomes(one.probe, changed(), one.target, of)


def insertion_metric(steps: int = 28, baseline: str = "blur") -> Metric:
    """Insertion."""
    _checked(steps, baseline)
    return Metric(
        "insertion",
        "Insertion",
        "faithfulness",
        "mean probability of the class as the most relevant positions come back",
        (0.0, 1.0),
        "higher",
        _RISE,
        lambda one: area(insertion_curve(one, steps, baseline)) if is_finite(one) else np.nan,
        {"steps": steps, "baseline": baseline},
    )


def deletion_metric(steps: int = 28, baseline: str = "blur") -> Metric:
    """Deletion."""
    _checked(steps, baseline)
    return Metric(
        "deletion",
        "Deletion",
        "faithfulness",
        "mean probability of the class as the most relevant positions go",
        (0.0, 1.0),
        "lower",
        _RISE,
        lambda one: area(deletion_curve(one, steps, baseline)) if is_finite(one) else np.nan,
        {"steps": steps, "baseline": baseline},
    )


def insertion_minus_deletion_metric(
    steps: int = 28, insertion_baseline: str = "blur", deletion_baseline: str = "blur"
) -> Metric:
    """Insertion less deletion."""
    for baseline in (insertion_baseline, deletion_baseline):
        _checked(steps, baseline)

    def score(one: Explained) -> float:
        if not is_finite(one):
            return np.nan
        gained = area(insertion_curve(one, steps, insertion_baseline))
        return gained - area(deletion_curve(one, steps, deletion_baseline))

    return Metric(
        "insertion-minus-deletion",
        "Insertion − Deletion",
        "faithfulness",
        "what insertion has more than deletion; 0 in expectation for a random map",
        (-1.0, 1.0),
        "higher",
        _RISE,
        score,
        {"steps": steps, "insertion_baseline": insertion_baseline, "deletion_baseline": deletion_baseline},
    )


def pixel_flipping_metric(steps: int = 28, baseline: str = "black", of: str = "probability") -> Metric:
    """PixelFlipping."""
    _checked(steps, baseline)
    require_one_of("of", of, OUTCOMES)
    unbounded = of == "logit"
    return Metric(
        "pixel-flipping",
        "PixelFlipping",
        "faithfulness",
        "mean score of the class as the most relevant positions turn black",
        (-np.inf, np.inf) if unbounded else (0.0, 1.0),
        "lower",
        "Bach, Binder, Montavon, Klauschen, Müller, Samek 2015, PLOS ONE 10(7)",
        lambda one: area(flipping_curve(one, steps, baseline, of)) if is_finite(one) else np.nan,
        {"steps": steps, "baseline": baseline, "of": of},
    )


def road_morf_metric(steps: int = 5, noise: float = 0.01, of: str = "probability") -> Metric:
    """ROAD, the most relevant positions removed first."""
    return _road("morf", steps, noise, of)


def road_lerf_metric(steps: int = 5, noise: float = 0.01, of: str = "probability") -> Metric:
    """ROAD, the least relevant positions removed first."""
    return _road("lerf", steps, noise, of)


def _road(order: str, steps: int, noise: float, of: str) -> Metric:
    at_least_one("steps", steps)
    require_one_of("of", of, OUTCOMES)
    percentages = (np.arange(steps) + 0.5) * 100 / steps  # 10, 30, ... 90 for five

    def score(one: Explained) -> float:
        if one.map.ndim != 2 or not is_finite(one):
            return np.nan
        return float(road_curve(one, percentages, order, noise, of).mean())

    most = order == "morf"
    return Metric(
        f"road-{order}",
        "ROAD, MoRF" if most else "ROAD, LeRF",
        "faithfulness",
        f"mean score of the class as the {'most' if most else 'least'} relevant positions are filled in from around",
        (-np.inf, np.inf) if of == "logit" else (0.0, 1.0),
        "lower" if most else "higher",
        "Rong, Leemann, Borisov, Kasneci, Kasneci 2022, arXiv 2202.00449",
        score,
        {"percentages": percentages.tolist(), "order": order, "noise": noise, "of": of},
    )


def _checked(steps: int, baseline: str) -> None:
    if steps < 2:
        raise OptionError(f"steps={steps}: a curve takes at least 2")
    require_one_of("baseline", baseline, BASELINES)
