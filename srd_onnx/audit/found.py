"""What an audit has found: all rows of its state, and what stands out in them."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from srd_onnx.audit.places import outlying
from srd_onnx.audit.plan import Audit
from srd_onnx.audit.state import ExplanationRow, ImageRow, NumberRow, State
from srd_onnx.evaluation.contenders import Contender
from srd_onnx.sanity import RESIDUAL

_ENDS = 5  # explanations at either end of a list that are shown


@dataclass(frozen=True, eq=False)
class Found:
    """All rows.

    Attributes:
        images: in order.
        errors: of an image and method, where there is one.
        explanations: by image.
        numbers: values by (image, method, target) and metric; None where there is none.
        rows: the same, row by row, in order.
    """

    audit: Audit
    images: tuple[ImageRow, ...]
    errors: Mapping[tuple[int, str], str]
    explanations: Mapping[int, tuple[ExplanationRow, ...]]
    numbers: Mapping[tuple[int, str, int | str], Mapping[str, float | None]]
    rows: tuple[NumberRow, ...]

    @property
    def leading(self) -> Contender:
        """The method that images are sorted and selected by: the first one."""
        return self.audit.contenders[0]

    def image_error(self, image: ImageRow) -> str | None:
        """Why there is nothing of an image at all."""
        errors = [self.errors.get((image.id, one.name)) for one in self.audit.contenders]
        return errors[0] if all(errors) else None

    @cached_property
    def problems(self) -> Mapping[tuple[int, str, int | str, str], str]:
        """Why there is no number, by image, method, target and metric."""
        return {(row.image, row.method, row.target, row.metric): row.error for row in self.rows if row.error}

    @cached_property
    def usable(self) -> tuple[ImageRow, ...]:
        """Images of which there is something."""
        return tuple(image for image in self.images if self.explanations.get(image.id))

    @cached_property
    def main(self) -> Mapping[int, ExplanationRow]:
        """The first target of each image by the leading method."""
        found = {}
        for image, rows in self.explanations.items():
            own = [row for row in rows if row.method == self.leading.name]
            if own:
                found[image] = min(own, key=lambda row: row.place)
        return found

    def value(self, row: ExplanationRow, metric: str) -> float | None:
        """A number of an explanation."""
        return self.numbers.get((row.image, row.method, row.target), {}).get(metric)

    @cached_property
    def faithfulness(self) -> str | None:
        """The metric that tells faithful explanations from others: the first of its family; None if there is none."""
        family = (name for name, one in self.audit.metrics.items() if one.family == "faithfulness")
        return next(family, None)

    @cached_property
    def ranked(self) -> tuple[ImageRow, ...]:
        """Images from the most faithful to the least; those without the number are left out."""
        if self.faithfulness is None:
            return ()
        sign = -1 if self.audit.metrics[self.faithfulness].better == "higher" else 1
        known = {}
        for image in self.usable:
            value = self.value(self.main[image.id], self.faithfulness) if image.id in self.main else None
            if value is not None:
                known[image.id] = sign * value
        return tuple(sorted((i for i in self.usable if i.id in known), key=lambda i: (known[i.id], i.id)))

    @cached_property
    def ends(self) -> tuple[tuple[ImageRow, ...], tuple[ImageRow, ...]]:
        """The most and the least faithful ones, the ends first."""
        count = min(_ENDS, len(self.ranked) // 2)
        return self.ranked[:count], self.ranked[::-1][:count]

    # What there is of an image

    def right(self, image: ImageRow, within: int = 1) -> bool | None:
        """Whether its true class is among the best; None if it is not known."""
        if image.truth is None or not image.top5:
            return None
        return image.truth in [index for index, _, _ in image.top5[:within]]

    def suspect(self, image: ImageRow) -> bool:
        """Whether an explanation has less positive relevance per position on the object than elsewhere."""
        return any(
            row.places.inside is not None
            and row.places.area is not None
            and row.places.inside < row.places.area
            for row in self.explanations.get(image.id, ())
            if row.method == self.leading.name
        )

    def warned(self, image: ImageRow) -> bool:
        """Whether an explanation warns."""
        return any(row.warnings for row in self.explanations.get(image.id, ()))

    def keys(self, image: ImageRow) -> dict[str, float]:
        """The numbers that images are sorted by, of the first target by the leading method; NaN for none."""
        row = self.main.get(image.id)
        if row is None:
            return dict.fromkeys(self.key_names, math.nan)
        values: dict[str, float | None] = {
            "score": row.score,
            "residual": abs(row.residual) / abs(row.seed) if row.seed else None,
            "border": row.places.border,
            "centre": row.places.centre,
        }
        if self.audit.masks is not None:
            values["on the object"] = row.places.inside
        values |= {name: self.value(row, name) for name in self.audit.metrics}
        return {name: math.nan if one is None else one for name, one in values.items()}

    @cached_property
    def key_names(self) -> tuple[str, ...]:
        """Of `keys`."""
        masked = ("on the object",) if self.audit.masks is not None else ()
        return ("score", "residual", "border", "centre", *masked, *self.audit.metrics)

    @cached_property
    def outliers(self) -> Mapping[int, tuple[str, ...]]:
        """Of images the numbers of `keys` by which they lie far from all others."""
        rows = [self.keys(image) for image in self.usable]
        found: dict[int, list[str]] = {}
        for name in self.key_names:
            values = np.array([row[name] for row in rows], np.float64)
            far = outlying(values)
            if name == "residual":  # rounding; far from the others means nothing below what matters
                far &= values > RESIDUAL
            for image, out in zip(self.usable, far, strict=True):
                if out:
                    found.setdefault(image.id, []).append(name)
        return {image: tuple(names) for image, names in found.items()}

    def flags(self, image: ImageRow) -> tuple[str, ...]:
        """Short words for it."""
        most, least = self.ends
        said = {
            "error": self.image_error(image) is not None,
            "wrong": self.right(image) is False,
            "shortcut suspect": self.suspect(image),
            "warning": self.warned(image),
            "outlier": image.id in self.outliers,
            "most faithful": image in most,
            "least faithful": image in least,
        }
        return tuple(word for word, holds in said.items() if holds)

    def selected(self, count: int) -> tuple[ImageRow, ...]:
        """So many images, what stands out first: see `RULE`."""
        most, least = self.ends
        groups = [
            most,
            least,
            [image for image in self.images if image.id in self.outliers],
            [image for image in self.images if self.suspect(image)],
            [image for image in self.images if self.warned(image)],
            [image for image in self.images if self.right(image) is False],
            [image for image in self.images if self.image_error(image) is not None],
            self.images,
        ]
        found = dict.fromkeys(image for group in groups for image in group)
        return tuple(found)[:count]

    @cached_property
    def classes(self) -> Counter[int]:
        """How often each class is predicted."""
        return Counter(image.top5[0][0] for image in self.usable if image.top5)


RULE = (
    f"the {_ENDS} most and the {_ENDS} least faithful explanations, outliers, shortcut suspects, images with "
    "warnings, wrong predictions, images that could not be explained, then the first ones"
)


def found_in(audit: Audit, state: State) -> Found:
    """Read all rows."""
    explanations: dict[int, list[ExplanationRow]] = {}
    for row in state.explanations():
        explanations.setdefault(row.image, []).append(row)
    order = {one.name: number for number, one in enumerate(audit.contenders)}
    numbers: dict[tuple[int, str, int | str], dict[str, float | None]] = {}
    metrics = {name: number for number, name in enumerate((*audit.metrics, *audit.sanity))}
    rows = sorted(
        state.numbers(), key=lambda one: (one.image, order[one.method], str(one.target), metrics[one.metric])
    )
    for number in rows:
        numbers.setdefault((number.image, number.method, number.target), {})[number.metric] = number.value
    return Found(
        audit,
        tuple(state.images()),
        {key: error for key, error in state.work().items() if error is not None},
        {
            image: tuple(sorted(some, key=lambda row: (row.place, order[row.method])))
            for image, some in explanations.items()
        },
        numbers,
        tuple(rows),
    )
