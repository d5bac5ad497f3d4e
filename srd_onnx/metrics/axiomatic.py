"""Axioms: whether the map accounts for the score."""

import numpy as np

from srd_onnx.errors import OptionError
from srd_onnx.metrics.changes import BASELINES, baseline_of
from srd_onnx.metrics.metric import Explained, Metric
from srd_onnx.named import require_one_of

_SOURCE = "Sundararajan, Taly, Yan 2017, arXiv 1703.01365"


def gap(total: float, booked: float, explained: float) -> float:
    """``|total + booked - explained| / |explained|``, NaN where nothing is explained."""
    if explained == 0 or not np.isfinite([total, booked, explained]).all():
        return np.nan
    return abs(total + booked - explained) / abs(explained)


def holds(total: float, difference: float, tolerance: float) -> bool:
    """Whether a sum is the difference of two scores, but for this part of it (0: exactly, as Quantus asks)."""
    return abs(total - difference) <= tolerance * abs(difference)


def completeness_metric() -> Metric:
    """Completeness, as the error relative to the explained number."""
    return Metric(
        "completeness",
        "Completeness",
        "axiomatic",
        "what map and ledger miss of the explained score, as a part of it",
        (0.0, np.inf),
        "lower",
        _SOURCE,
        lambda one: gap(float(one.map.sum()), one.booked, one.seed_value),
    )


def completeness_to_baseline_metric(baseline: str = "black", tolerance: float = 0.01) -> Metric:
    """Completeness as Quantus has it: yes or no, the map alone, and against the score of a baseline."""
    require_one_of("baseline", baseline, BASELINES)
    if tolerance < 0:
        raise OptionError(f"tolerance={tolerance}: it must not be negative")

    def score(one: Explained) -> float:
        if not np.isfinite(one.map).all():
            return np.nan
        other = baseline_of(one.input, one.probe.channel_axis, baseline)
        here, there = one.probe.scores(np.stack([one.input, other]))[:, one.target]
        return float(holds(float(one.map.sum()), float(here - there), tolerance))

    return Metric(
        "completeness-to-baseline",
        "Completeness",
        "axiomatic",
        "1 where the map sums to the logit less that of the baseline, else 0",
        (0.0, 1.0),
        "higher",
        _SOURCE,
        score,
        {"baseline": baseline, "tolerance": tolerance},
    )
