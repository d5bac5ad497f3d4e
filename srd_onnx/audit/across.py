"""What the images say together: accuracy, where relevance lies, mean maps, the ends of lists, outliers, suspects."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from srd_onnx.audit.findings import RULES
from srd_onnx.audit.found import Found
from srd_onnx.audit.maps import Maps
from srd_onnx.audit.state import ExplanationRow, ImageRow
from srd_onnx.evaluation.ranking import interval
from srd_onnx.explanation import as_picture
from srd_onnx.report.content import Figure, Section, Table

_CLASSES = 8  # mean maps that are shown
_LEAST = 2  # images of a class, so that there is a mean
_FOLDED = 10  # rows from which a table is closed
_LONGEST = 50  # rows of a list that may be as long as the folder

Real = NDArray[np.float64]


def across_section(found: Found, maps: Maps) -> Section:
    """All of it."""
    paragraphs, tables = [], [_classes(found), _whereabouts(found)]
    paragraphs.append(
        "Numbers are of the first target of each image, explained by the first method. A mean map is the mean of maps "
        "that are each divided by Σ|R|, so that no image counts more than another."
    )
    if found.faithfulness is not None:
        most, least = found.ends
        tables += [_ranked(found, most, "most"), _ranked(found, least, "least")]
    tables += [one for one in (_outliers(found), _suspects(found), _warned(found)) if one.rows]
    return Section("across", "Across all images", tuple(paragraphs), (), tuple(tables), _figures(found, maps))


def accuracy(found: Found, within: int) -> tuple[int, int]:
    """How many predictions are right, of how many whose true class is known."""
    known = [found.right(image, within) for image in found.usable]
    return sum(one is True for one in known), sum(one is not None for one in known)


def _classes(found: Found) -> Table:
    """Of each class that is true or predicted: how often, how often rightly."""
    true = Counter(image.truth for image in found.usable if image.truth is not None)
    right = Counter(image.truth for image in found.usable if found.right(image))
    rows = [
        (
            index,
            found.audit.base.label(index),
            found.classes[index],
            true[index] if true else None,
            right[index] if true else None,
        )
        for index in sorted(set(true) | set(found.classes))
    ]
    columns = ("class", "label", "predicted", "truly", "of these predicted rightly")
    return Table("Classes", columns, tuple(rows), folded=len(rows) > _FOLDED)


def _whereabouts(found: Found) -> Table:
    asked: list[tuple[str, float | None, Callable[[ExplanationRow], float | None]]] = [
        ("in the outer tenth of each side", 0.36, lambda row: row.places.border),
        ("in the middle half of each side", 0.25, lambda row: row.places.centre),
    ]
    if found.audit.masks is not None:
        areas = _known(found.main.values(), lambda row: row.places.area)
        mean = float(areas.mean()) if areas.size else None
        asked.append(("on the object", mean, lambda row: row.places.inside))
    rows = []
    for name, chance, part in asked:
        values = _known(found.main.values(), part)
        if values.size:
            one = interval(values, seed=found.audit.config.explain.seed)
            rows.append((name, one.mean, one.low, one.high, chance, one.count))
    return Table(
        "Where the positive relevance lies, as a part of it",
        ("where", "mean", "low", "high", "of a map that does not care", "images"),
        tuple(rows),
        "Low and high: a 95 % bootstrap interval over images. What a map that does not care has is the part of the "
        "picture's area.",
    )


def _known(rows: Iterable[ExplanationRow], part: Callable[[ExplanationRow], float | None]) -> Real:
    return np.array([value for row in rows if (value := part(row)) is not None], np.float64)


def _ranked(found: Found, images: Sequence[ImageRow], which: str) -> Table:
    name = found.faithfulness
    assert name is not None
    rows = tuple(
        (image.name, _class(found, image), found.value(found.main[image.id], name)) for image in images
    )
    return Table(f"The {which} faithful explanations", ("file", "explained", name), rows)


def _class(found: Found, image: ImageRow) -> str:
    row = found.main[image.id]
    return str(row.target) if row.label is None else row.label


def _outliers(found: Found) -> Table:
    rows = [
        (image.name, ", ".join(found.outliers[image.id]))
        for image in found.usable
        if image.id in found.outliers
    ]
    return _shortened(
        "Outliers",
        ("file", "far from all others by"),
        rows,
        "More than 3.5 robust z-scores from the median of all images (Iglewicz and Hoaglin 1993).",
    )


def _suspects(found: Found) -> Table:
    suspects = [image for image in found.usable if found.suspect(image)]
    rows = []
    for image in suspects:
        at = found.main[image.id].places
        rows.append((image.name, _class(found, image), at.inside, at.area))
    rows.sort(key=lambda row: (row[2] or 0) / (row[3] or 1))
    columns = ("file", "explained", "positive relevance on the object", "area of the object")
    return _shortened("Shortcut suspects", columns, rows, RULES["shortcut-suspect"])


def _warned(found: Found) -> Table:
    rows = [
        (image.name, row.method, str(row.target) if row.label is None else row.label, text)
        for image in found.usable
        for row in found.explanations[image.id]
        for text in row.warnings
    ]
    return _shortened("Warnings", ("file", "method", "target", "warning"), rows, "")


def _shortened(
    caption: str, columns: tuple[str, ...], rows: Sequence[tuple[str | float | None, ...]], note: str
) -> Table:
    left = len(rows) - _LONGEST
    more = f"{left} more are in report.csv." if left > 0 else ""
    said = " ".join(one for one in (note, more) if one)
    return Table(caption, columns, tuple(rows[:_LONGEST]), said, folded=len(rows) > _FOLDED)


@dataclass(eq=False)
class _Mean:
    """A mean of maps of one shape."""

    total: Real
    count: int = 0
    names: list[str] = field(default_factory=list)


def _figures(found: Found, maps: Maps) -> tuple[Figure, ...]:
    """Mean maps: of all images, and of the classes that are predicted most; read one map at a time."""
    shapes = [row.shape for row in found.main.values()]
    if not shapes:
        return ()
    shape = max(sorted(set(shapes)), key=shapes.count)
    often = [index for index, count in found.classes.most_common(_CLASSES) if count >= _LEAST]
    means: dict[int | None, _Mean] = {}
    for image, relevance in _scaled(found, maps, shape):
        predicted = image.top5[0][0] if image.top5 else None
        for key in {None, predicted} & {None, *often}:
            mean = means.setdefault(key, _Mean(np.zeros(relevance.shape)))
            mean.total += relevance
            mean.count += 1
    order = [key for key in (None, *sorted(often)) if key in means]
    return tuple(_figure(found, key, means[key]) for key in order)


def _scaled(found: Found, maps: Maps, shape: tuple[int, ...]) -> Iterator[tuple[ImageRow, Real]]:
    for image in found.usable:
        row = found.main.get(image.id)
        if row is None or row.shape != shape:
            continue
        relevance = maps.read(row.row, row.shape, row.digest)
        size = 0.0 if relevance is None else float(np.abs(relevance).sum(dtype=np.float64))
        if relevance is not None and size > 0:
            yield image, as_picture(relevance)[0].astype(np.float64) / size


def _figure(found: Found, key: int | None, mean: _Mean) -> Figure:
    if key is None:
        what = f"all {mean.count} images"
    else:
        label = found.audit.base.label(key)
        what = f"{mean.count} images predicted as {f'class {key}' if label is None else label}"
    caption = f"Mean map of {what}"
    relevance = (mean.total / mean.count).astype(np.float32)
    row, column = np.unravel_index(int(relevance.argmax()), relevance.shape)
    down, across = ((at + 0.5) / size for at, size in zip((row, column), relevance.shape, strict=True))
    alt = f"{caption}: it is highest {down:.0%} from the top, {across:.0%} from the left."
    return Figure(caption, relevance, alt)
