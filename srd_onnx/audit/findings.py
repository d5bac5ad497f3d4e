"""What an audit found that somebody should look at: one sentence each, for the report and for CI systems."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from srd_onnx.audit.found import Found
from srd_onnx.audit.sanity import Check

Level = Literal["error", "warning", "note"]

RULES = {
    "unusable-image": "An image could not be read or explained.",
    "failed-method": "A method could not explain an image.",
    "wrong-prediction": "The model predicts another class than the true one.",
    "shortcut-suspect": "There is less positive relevance per position on the object than around it.",
    "explanation-warning": "An explanation warns of itself.",
    "outlier": "A number of an explanation lies far from those of all other images.",
    "missing-mask": "There is no usable mask of an image.",
    "sanity-check": "A sanity check on this model did not pass.",
    "changed-prediction": "Two models predict different classes.",
    "drift": "The explanations of two models differ more than allowed.",
}


@dataclass(frozen=True)
class Finding:
    """One of them.

    Attributes:
        rule: a key of `RULES`.
        image: its name; None for what is about the model.
    """

    rule: str
    level: Level
    message: str
    image: str | None = None


def findings_of(found: Found, checks: tuple[Check, ...]) -> tuple[Finding, ...]:
    """All of them: first those about the model, then image by image."""
    return (*_of_checks(checks), *(one for image in found.images for one in _of_image(found, image.id)))


def _of_checks(checks: tuple[Check, ...]) -> Iterator[Finding]:
    for one in checks:
        if one.verdict in ("failed", "weak"):
            level: Level = "warning" if one.verdict == "failed" else "note"
            yield Finding("sanity-check", level, f"{one.method}: {one.asked} {one.said}")


def _of_image(found: Found, number: int) -> Iterator[Finding]:
    image = found.images[number]
    if error := found.image_error(image):
        yield Finding("unusable-image", "error", error, image.name)
        return
    for contender in found.audit.contenders:
        if failed := found.errors.get((number, contender.name)):
            yield Finding("failed-method", "error", f"{contender.name}: {failed}", image.name)
    if found.right(image) is False:
        index, label, _ = image.top5[0]
        predicted = f"class {index}" if label is None else f"{label} ({index})"
        true = found.audit.base.label(image.truth) if image.truth is not None else None
        named = f"class {image.truth}" if true is None else f"{true} ({image.truth})"
        yield Finding("wrong-prediction", "note", f"predicted {predicted}, but it is {named}", image.name)
    for row in found.explanations.get(number, ()):
        where = row.places
        if row.method == found.leading.name and where.inside is not None and where.area is not None:
            if where.inside < where.area:
                said = f"{where.inside:.0%} of the positive relevance lies on the object, which takes {where.area:.0%}"
                yield Finding("shortcut-suspect", "warning", f"{said} of the picture", image.name)
        elif row.method == found.leading.name and row.no_mask:
            yield Finding("missing-mask", "note", row.no_mask, image.name)
        for text in row.warnings:
            yield Finding(
                "explanation-warning",
                "warning",
                f"{row.method}, {row.label or row.target}: {text}",
                image.name,
            )
    if number in found.outliers:
        names = ", ".join(found.outliers[number])
        yield Finding("outlier", "note", f"far from all others by: {names}", image.name)
