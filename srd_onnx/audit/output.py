"""Writing a report: its pages, tables and manifest, in this order, so that only a finished one verifies."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from srd_onnx.audit.manifest import write_manifest
from srd_onnx.errors import OutputError
from srd_onnx.explainer import Explainer
from srd_onnx.files import atomic_write_all
from srd_onnx.inputs.preprocess import Preprocess
from srd_onnx.report.content import Item, Report, Table

HTML, PDF, CSV, JSON, IMAGES = "report.html", "report.pdf", "report.csv", "report.json", "images.sha256"
LISTED = 1000  # rows of a table of images; fpdf2 takes minutes for ten thousand
STATE, MAPS = Path("state", "rows.sqlite"), Path("state", "maps.zarr")


@dataclass(frozen=True, eq=False)
class Written:
    """What is written of a report.

    Attributes:
        report: for the page, whose items are taken once; `printed` gives them again for the PDF, None for no PDF.
        csv: all rows.
        document: what decided them, as JSON.
        images: their names and digests, see `srd_onnx.audit.images.listed`.
    """

    report: Report
    printed: Callable[[], Iterator[Item]] | None
    csv: bytes
    document: bytes
    images: bytes


def write_pages(written: Written, out: Path) -> None:
    """All but the manifest.

    Raises:
        OutputError: something cannot be written.
    """
    from srd_onnx.report.html import write_html

    with _in_words(out):
        (out / PDF).unlink(missing_ok=True)
    write_html(written.report, out / HTML)
    if written.printed is not None:
        from srd_onnx.report.pdf import write_pdf

        write_pdf(replace(written.report, items=written.printed()), out / PDF)
    atomic_write_all({out / CSV: written.csv, out / JSON: written.document, out / IMAGES: written.images})


def finish(out: Path, kind: str, made: str) -> None:
    """The manifest, once nothing else is open."""
    with _in_words(out):
        write_manifest(out, {"kind": kind, "made": made})


def how_to_remake(base: Explainer, contender: str, seed: int) -> Mapping[str, Any]:
    """What `verify` needs to compute maps of a method again."""
    path, preprocess = base.model.path, base.preprocess
    return {
        "model": str(path.resolve()) if path else None,
        "sha256": base.model.sha256,
        "layout": {port.name: port.layout for port in base.ports},
        "fixed": base.fixed,
        "preset": base.preset,
        "options": base.options.to_dict(),
        "preprocess": preprocess.to_dict() if isinstance(preprocess, Preprocess) else None,
        "provider": base.provider,
        "method": contender,
        "seed": seed,
    }


@contextlib.contextmanager
def _in_words(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{out}: cannot be written: {error.strerror or error}. Choose another --out."
        ) from error


def images_table(columns: tuple[str, ...], rows: Sequence[tuple[str | int | float | None, ...]]) -> Table:
    """A row for each image; of very many the first ones."""
    left = len(rows) - LISTED
    note = f"{left} more are in {CSV}; the digests of all are in {IMAGES}." if left > 0 else ""
    return Table("Every image", columns, tuple(rows[:LISTED]), note, folded=True)


def images_digest(images: bytes) -> tuple[str, str]:
    """A fact: what identifies all images together."""
    return f"sha256 of {IMAGES}, which has that of each", hashlib.sha256(images).hexdigest()
