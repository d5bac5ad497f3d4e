"""What a report says, as plain data: audits, comparisons and single explanations fill it, HTML and PDF render it.

All text is plain text from anywhere (labels, file names, a hostile model file): whoever renders it escapes it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from srd_onnx.graph.ir import Array

Kind = Literal["audit", "comparison", "explanation"]


@dataclass(frozen=True)
class Table:
    """Rows of text and numbers under a caption; a float is shown with four digits, None as a dash.

    Attributes:
        note: what a reader must know to read it, below it.
        folded: long, so shown closed in a browser.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float | None, ...], ...]
    note: str = ""
    folded: bool = False


@dataclass(frozen=True, eq=False)
class Figure:
    """A picture with what it shows, for those who do not see it too.

    Attributes:
        map: relevance [H, W] or [T], drawn signed on a scale of its own; or a photo, uint8 [H, W, 3].
        alt: in words.
    """

    caption: str
    map: Array
    alt: str


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, in this order.

    Attributes:
        id: of the heading, for links: letters and hyphens.
        paragraphs: plain words.
        facts: (name, value) pairs.
    """

    id: str
    title: str
    paragraphs: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer below the boundary, to look into.

    Attributes:
        relevance: [h, w] or [t]: of each of its PFVs.
        positions: int64 [P, D]: the PFVs whose fields are given.
        fields: [P, H, W] or [P, T]: their effective receptive fields at the size of the map.
    """

    name: str
    relevance: Array
    positions: NDArray[np.int64]
    fields: Array


@dataclass(frozen=True, eq=False)
class Shown:
    """One target of one image by one method.

    Attributes:
        target: as it was asked for; `label` its name, if there is one.
        score: of the target. Where map, ledger and residual add up to another number (the log odds, if these are
            explained), that one is shown beside it.
        relevance: [H, W] or [T], signed.
        ledger: (what it is booked against, how much), the largest first.
        numbers: metrics by name.
        warnings: sentences.
        layers: from the input to the boundary; empty if not computed.
        complete: whether map, ledger and residual are to add up to the explained number, as the method has it.
    """

    target: str
    label: str | None
    method: str
    score: float
    relevance: Array
    residual: float
    ledger: tuple[tuple[str, float], ...] = ()
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = ()
    complete: bool = True


@dataclass(frozen=True, eq=False)
class Item:
    """One image.

    Attributes:
        name: of its file, relative to the folder.
        sha256: of its file; empty if it could not be read.
        photo: what the model saw, uint8 [H, W, 3]; None where the input is no picture.
        predictions: (label or index, score) of the best classes.
        facts: (name, value) pairs, such as its true class.
        keys: numbers to sort and filter by; the same names for all items.
        flags: short words to filter by, such as "wrong", "shortcut suspect".
        shown: of each target and method; empty where `error` says why there is nothing.
    """

    name: str
    sha256: str
    photo: NDArray[np.uint8] | None
    predictions: tuple[tuple[str, float], ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    keys: Mapping[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    shown: tuple[Shown, ...] = ()
    error: str | None = None


@dataclass(frozen=True, eq=False)
class Report:
    """All of it.

    Attributes:
        answer: what was found, in plain words, first of all.
        before: sections above the images: what was asked, model, data, method, sanity checks.
        items: the images, taken once and one after the other, so that thousands need no memory.
        after: sections below them: metrics, environment, how to reproduce, the files.
        made: when, ISO 8601; the only thing that differs between two equal reports.
        scales: by method, where the colours end on the scale that all images share (a high quantile of |R|); the maps
            of a method that is not named are drawn each on its own scale.
    """

    kind: Kind
    title: str
    answer: tuple[str, ...]
    before: tuple[Section, ...]
    items: Iterable[Item]
    after: tuple[Section, ...]
    made: str
    scales: Mapping[str, float] = field(default_factory=dict)


def plain(value: Any) -> str:
    """A value of a table in words: four digits, a dash for nothing."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
