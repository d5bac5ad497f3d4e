"""Sanity checks on this very model, over a sample of its images, and what they mean in plain words."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from srd_onnx.audit.found import Found
from srd_onnx.evaluation.ranking import Interval, interval
from srd_onnx.sanity import RESIDUAL

Verdict = Literal["passed", "weak", "failed", "not known"]
CLEAR, HARDLY = (
    0.5,
    0.8,
)  # rank correlations (ours): a quarter, and two thirds, of the ranks' variance is shared


@dataclass(frozen=True)
class Check:
    """One check of one method.

    Attributes:
        asked: what it asks, as a question.
        found: mean and interval over the sample; None if there is no number.
        said: what that means.
    """

    metric: str
    method: str
    asked: str
    found: Interval | None
    verdict: Verdict
    said: str


_ASKED = {
    "mprt-last-layer": "Does the map change when the weights of the last layer are redrawn?",
    "mprt": "Does it change when more and more layers, up to all, are redrawn?",
    "random-logit": "Does it change with the class that is explained?",
    "completeness": "Do map and ledger account for the explained number?",
}
_OF = {
    "mprt-last-layer": "what the last layer has learnt",
    "mprt": "what the layers have learnt",
    "random-logit": "the class",
}


def checks_of(found: Found) -> tuple[Check, ...]:
    """All checks, by method."""
    audit = found.audit
    names = [name for name in _ASKED if name in audit.sanity or name in audit.metrics]
    return tuple(_check(found, one.name, name) for one in audit.contenders for name in names)


def _check(found: Found, method: str, metric: str) -> Check:
    rows = [one for one in found.rows if one.metric == metric and one.method == method]
    by_image: dict[int, list[float]] = {}
    for one in rows:
        if one.value is not None:
            by_image.setdefault(one.image, []).append(one.value)
    if not by_image:
        why = next((one.error for one in rows if one.error), "no image of the sample could be explained")
        return Check(metric, method, _ASKED[metric], None, "not known", f"There is no number: {why}.")
    values = np.array([np.mean(values) for values in by_image.values()], np.float64)
    mean = interval(values, seed=found.audit.config.explain.seed)
    verdict, said = (
        _completeness(found, method, mean) if metric == "completeness" else _correlation(metric, mean)
    )
    return Check(metric, method, _ASKED[metric], mean, verdict, said)


def _correlation(metric: str, mean: Interval) -> tuple[Verdict, str]:
    of = _OF[metric]
    kept = f"the rank correlation of the two maps is {mean.mean:.2f} (0: another map, 1: the same)"
    if mean.mean <= CLEAR:
        return "passed", f"Yes: {kept}. The map depends on {of}."
    if mean.mean <= HARDLY:
        return "weak", f"In part: {kept}. Much of the map does not depend on {of}."
    return "failed", f"Hardly: {kept}. Do not read the map as evidence of {of}."


def _completeness(found: Found, method: str, mean: Interval) -> tuple[Verdict, str]:
    contender = next(one for one in found.audit.contenders if one.name == method)
    if contender.method is not None and not contender.method.complete:
        return "not known", "The method does not claim to: its maps have no unit."
    if mean.mean <= RESIDUAL:
        return "passed", f"Yes: they miss it by {mean.mean:.1e} of it on average, which is rounding."
    return (
        "failed",
        f"No: they miss it by {mean.mean:.1e} of it on average (rounding in float32 stays below {RESIDUAL:g}).",
    )
