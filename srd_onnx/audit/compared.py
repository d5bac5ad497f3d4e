"""What a comparison has found, and the findings that somebody should look at."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from srd_onnx.audit.comparing import (
    CORRELATION,
    DISTANCE,
    FLIPPED,
    LAYER,
    RANKS,
    RELEVANCE,
    SCORE,
    A,
    B,
    Comparison,
)
from srd_onnx.audit.findings import Finding
from srd_onnx.audit.state import ExplanationRow, ImageRow, State
from srd_onnx.evaluation.ranking import Interval, interval

_MOST = 10  # images that are said to have changed most, but never more than half of all


@dataclass(frozen=True, eq=False)
class Compared:
    """All rows.

    Attributes:
        errors: by image.
        explanations: of each image by A and B.
        numbers: by image and name.
    """

    comparison: Comparison
    images: tuple[ImageRow, ...]
    errors: Mapping[int, str]
    explanations: Mapping[int, Mapping[str, ExplanationRow]]
    numbers: Mapping[int, Mapping[str, float | None]]

    @property
    def usable(self) -> tuple[ImageRow, ...]:
        """Images that both models were asked about."""
        return tuple(image for image in self.images if image.id in self.explanations)

    def drift(self, image: ImageRow) -> float:
        """1 − the correlation of the two maps; NaN where that is not defined."""
        value = self.numbers.get(image.id, {}).get(CORRELATION)
        return math.nan if value is None else 1 - value

    def flipped(self, image: ImageRow) -> bool:
        """Whether the models predict different classes."""
        return self.numbers.get(image.id, {}).get(FLIPPED) == 1

    @cached_property
    def flips(self) -> tuple[ImageRow, ...]:
        """The images on which they do."""
        return tuple(image for image in self.usable if self.flipped(image))

    @cached_property
    def changed_most(self) -> tuple[ImageRow, ...]:
        """From the greatest drift on; those without one are left out."""
        known = [image for image in self.usable if not math.isnan(self.drift(image))]
        return tuple(sorted(known, key=lambda image: (-self.drift(image), image.id)))

    @property
    def most(self) -> tuple[ImageRow, ...]:
        """Those that are said to have changed most."""
        return self.changed_most[: min(_MOST, len(self.changed_most) // 2)]

    @cached_property
    def mean_drift(self) -> float:
        """The mean drift; NaN if there is none."""
        values = [self.drift(image) for image in self.changed_most]
        return float(np.mean(values)) if values else math.nan

    def mean(self, name: str) -> Interval | None:
        """Of a number over the images, with its interval; None if there is none."""
        values = [value for row in self.numbers.values() if (value := row.get(name)) is not None]
        return interval(np.array(values, np.float64), seed=self.comparison.seed) if values else None

    def keys(self, image: ImageRow) -> dict[str, float]:
        """The numbers that images are sorted by."""
        row = self.numbers.get(image.id, {})
        named = {name: row.get(name) for name in (RANKS, DISTANCE, SCORE)}
        return {"drift": self.drift(image)} | {k: math.nan if v is None else v for k, v in named.items()}

    def flags(self, image: ImageRow) -> tuple[str, ...]:
        """Short words for it."""
        said = {
            "error": image.id in self.errors,
            "flipped": self.flipped(image),
            "changed most": image in self.most,
        }
        return tuple(word for word, holds in said.items() if holds)

    def selected(self, count: int) -> tuple[ImageRow, ...]:
        """So many images: flipped ones, those that changed most, those with errors, then the first ones."""
        failed = [image for image in self.images if image.id in self.errors]
        groups = (self.flips, self.most, failed, self.images)
        return tuple(dict.fromkeys(image for group in groups for image in group))[:count]

    @cached_property
    def layers(self) -> tuple[tuple[str, str, Interval, Interval | None], ...]:
        """Name, operator, mean distance of what is computed, mean correlation of relevance; from the input on."""
        found = []
        for one in self.comparison.layers:
            distance = self.mean(LAYER + one.name)
            if distance is not None:
                found.append((one.name, one.op, distance, self.mean(RELEVANCE + one.name)))
        return tuple(found)


def compared_in(comparison: Comparison, state: State) -> Compared:
    """Read all rows."""
    explanations: dict[int, dict[str, ExplanationRow]] = {}
    for row in state.explanations():
        explanations.setdefault(row.image, {})[row.method] = row
    numbers: dict[int, dict[str, float | None]] = {}
    for number in sorted(state.numbers(), key=lambda one: (one.image, one.metric)):
        numbers.setdefault(number.image, {})[number.metric] = number.value
    errors = {image: error for (image, _), error in state.work().items() if error is not None}
    return Compared(comparison, tuple(state.images()), errors, explanations, numbers)


def comparison_findings(
    found: Compared, max_drift: float | None, max_flips: int | None
) -> tuple[Finding, ...]:
    """Those about the whole first: a threshold that is passed."""
    return (
        *_passed(found, max_drift, max_flips),
        *(one for image in found.images for one in _of_image(found, image)),
    )


def _passed(found: Compared, max_drift: float | None, max_flips: int | None) -> Iterator[Finding]:
    if max_flips is not None and len(found.flips) > max_flips:
        yield Finding(
            "changed-prediction", "error", f"{len(found.flips)} predictions changed, more than {max_flips}"
        )
    # Maps of which no drift is known are no reason to be content.
    if max_drift is not None and not found.mean_drift <= max_drift:
        yield Finding(
            "drift", "error", f"the mean drift of maps is {found.mean_drift:.4f}, more than {max_drift:g}"
        )


def _of_image(found: Compared, image: ImageRow) -> Iterator[Finding]:
    if image.id in found.errors:
        yield Finding("unusable-image", "error", found.errors[image.id], image.name)
    if found.flipped(image):
        index, label, _ = image.top5[0]
        was = f"class {index}" if label is None else f"{label} ({index})"
        yield Finding("changed-prediction", "warning", f"{A} predicts {was}, {B} another class", image.name)
    for name in (A, B):
        row = found.explanations.get(image.id, {}).get(name)
        for text in row.warnings if row else ():
            yield Finding("explanation-warning", "warning", f"{name}: {text}", image.name)
