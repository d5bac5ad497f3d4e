"""A report as a PDF to print and archive: what the page says and shows, without what moves."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from srd_onnx.errors import SrdOnnxError
from srd_onnx.explanation import as_picture
from srd_onnx.files import atomic_write
from srd_onnx.pictures.render import colours
from srd_onnx.report import guide
from srd_onnx.report.content import Figure, Item, Report, Section, Shown, Table, plain
from srd_onnx.report.encode import drawn, indexed_png, overlay_jpeg, photo_jpeg
from srd_onnx.report.views import headline, numeric, together
from srd_onnx.report.words import whereabouts

if TYPE_CHECKING:
    from srd_onnx.report.paper import Paper, Picture

PICTURED = 300  # images with pictures: what a PDF holds lies in memory until it is written
MOST_ROWS = 1000  # of a table
_SIDE = 256
_NAMES = {"audit": "Audit", "comparison": "Comparison", "explanation": "Explanation"}


def write_pdf(report: Report, path: Path) -> None:
    """Write the PDF, A4; equal reports give equal bytes but for `made`.

    The images are taken one after the other; after `PICTURED` of them they are told without pictures, and the PDF
    says so.

    Raises: OutputError if the file cannot be written.
    """
    from srd_onnx.report.paper import Paper

    with Paper(report.title, _when(report.made)) as paper:
        _report(paper, report)
        atomic_write(path, paper.finished())


def _report(paper: "Paper", report: Report) -> None:
    paper.small(f"{_NAMES[report.kind]} by srd-onnx  ·  made {report.made}")
    paper.heading(report.title, 0)
    paper.boxed("Answer", report.answer)
    place = guide.place_of(report)
    for section in report.before[:place]:
        _section(paper, section)
    _guide(paper)
    for section in report.before[place:]:
        _section(paper, section)
    paper.heading("The image" if report.kind == "explanation" else "The images", 1)
    for number, item in enumerate(report.items, start=1):
        if number == PICTURED + 1:
            paper.text(f"From here on without pictures: there are more than {PICTURED} images.")
        _item(paper, item, number, report, pictured=number <= PICTURED)
    for section in report.after:
        _section(paper, section)


def _when(made: str) -> datetime:
    """The time of an ISO 8601 text; where it is none the first of all times, so that the bytes stay the same."""
    try:
        return datetime.fromisoformat(made)
    except ValueError:
        return datetime(1970, 1, 1, tzinfo=UTC)


def _section(paper: "Paper", section: Section) -> None:
    paper.heading(section.title, 1)
    for text in section.paragraphs:
        paper.text(text)
    paper.facts(section.facts)
    for table in section.tables:
        _table(paper, table)
    paper.pictures([_figure(figure) for figure in section.figures], 4)


def _table(paper: "Paper", table: Table) -> None:
    rows = [[plain(cell) for cell in row] for row in table.rows[:MOST_ROWS]]
    paper.table(table.caption, table.columns, rows, numeric(table))
    left = len(table.rows) - len(rows)
    paper.note(f"{left} more rows are not printed. {table.note}" if left else table.note)


def _figure(figure: Figure) -> "Picture":
    from srd_onnx.report.paper import Picture

    if figure.map.ndim == 3:
        return Picture(photo_jpeg(np.asarray(figure.map, np.uint8), _SIDE), figure.caption, figure.alt)
    found = drawn(as_picture(np.asarray(figure.map, np.float32))[0], _SIDE)
    return Picture(found.png, f"{figure.caption}  ±1 = {plain(found.clip)}", figure.alt)


def _guide(paper: "Paper") -> None:
    from srd_onnx.report.paper import Picture

    paper.heading("How to read the pictures", 1)
    paper.text(guide.INTRODUCTION)
    wheel = np.rint(colours()).astype(np.uint8)
    bar = indexed_png(np.arange(256, dtype=np.uint8)[None].repeat(12, axis=0), wheel)
    ends = "−1 at the left, 0 in the middle, +1 at the right"
    paper.pictures([Picture(bar, ends, guide.SCALE_ALT)], 2)
    paper.text("".join(word + rest for word, _, rest in guide.SCALE) + guide.SCALE_END)
    paper.facts(guide.WORDS)


def _item(paper: "Paper", item: Item, number: int, report: Report, *, pictured: bool) -> None:
    paper.heading(f"{number}  {item.name}", 2)
    if item.flags:
        paper.text("Flags: " + ", ".join(item.flags))
    if item.error:
        paper.warning(f"Not explained: {item.error}")
    says = tuple((label, plain(score)) for label, score in item.predictions)
    paper.facts((*item.facts, *((name, plain(value)) for name, value in item.keys.items())))
    paper.facts((("sha256", item.sha256),) if item.sha256 else ())
    paper.table("What the model says", ("class", "score"), [list(pair) for pair in says], [False, True])
    for place, shown in enumerate(item.shown):
        _shown(paper, item, shown, report, pictured=pictured, first=place == 0)


def _shown(paper: "Paper", item: Item, shown: Shown, report: Report, *, pictured: bool, first: bool) -> None:
    name = shown.label or shown.target
    asked = f"target {shown.target}  ·  " if shown.label else ""
    paper.heading(name, 3, room=90.0 if pictured else 40.0)
    paper.small(f"{asked}{headline(shown)}  ·  {shown.method}")
    for warning in shown.warnings:
        paper.warning(f"Warning: {warning}")
    if pictured:
        try:
            paper.pictures(list(_seen(item, shown, report, first=first)), 3)
            paper.pictures(list(_inside(shown)), 6)
        except SrdOnnxError as problem:
            paper.warning(f"Not drawn: {problem}")
    if shown.complete:
        paper.table(
            "Where the explained number went", ("part", "amount"), list(_account(shown)), [False, True]
        )
    else:
        paper.note(guide.INCOMPLETE)
    numbers = [[metric, plain(value)] for metric, value in shown.numbers.items()]
    paper.table("Measured on this explanation", ("metric", "value"), numbers, [False, True])


def _seen(item: Item, shown: Shown, report: Report, *, first: bool) -> Iterator["Picture"]:
    from srd_onnx.report.paper import Picture

    flat, _ = as_picture(np.asarray(shown.relevance, np.float32))
    found = drawn(flat, _SIDE, report.scales.get(shown.method))
    where = whereabouts(flat)
    over = overlay_jpeg(item.photo, flat, _SIDE)
    if item.photo is not None and first:
        height, width = item.photo.shape[:2]
        alt = f"Photo {item.name}, as the model saw it."
        yield Picture(photo_jpeg(item.photo, _SIDE), f"Photo, as the model saw it, {width} × {height}", alt)
    if over is not None:
        yield Picture(over, "Overlay, smoothed", f"Overlay for {shown.label or shown.target}: {where}.")
    yield Picture(
        found.png,
        f"Signed map, ±1 = {plain(found.clip)}",
        f"Signed map for {shown.label or shown.target}: {where}.",
    )


def _inside(shown: Shown) -> Iterator["Picture"]:
    from srd_onnx.report.paper import Picture

    for layer in shown.layers:
        found = drawn(as_picture(np.asarray(layer.relevance, np.float32))[0], 112)
        yield Picture(
            found.png, f"{layer.name}  ±1 = {plain(found.clip)}", f"Relevance in layer {layer.name}."
        )


def _account(shown: Shown) -> Iterator[list[str]]:
    total = float(np.sum(shown.relevance, dtype=np.float64))
    yield ["The map", plain(total)]
    for name, amount in shown.ledger:
        yield [f"Ledger: {name}", plain(amount)]
    yield ["Residual", plain(shown.residual)]
    yield ["Together", plain(together(shown))]
