"""The PDF of a report: what it says, that hostile text is text, and that it stays the same."""

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pypdf import PdfReader

from srd_onnx.report import pdf
from srd_onnx.report.content import Report, Table
from srd_onnx.report.paper import _written
from srd_onnx.report.pdf import write_pdf
from tests.report_data import HOSTILE, endless, hostile, item, report, shown

ACTIVE = ("/JavaScript", "/JS", "/Launch", "/URI", "/EmbeddedFiles", "/AA")


def read(given: Report, folder: Path) -> tuple[PdfReader, str]:
    """The PDF and its text without line breaks, by another library."""
    write_pdf(given, folder / "report.pdf")
    reader = PdfReader(io.BytesIO((folder / "report.pdf").read_bytes()), strict=True)
    return reader, "".join("".join(page.extract_text().split()) for page in reader.pages)


def squeezed(text: str) -> str:
    """Without white space, as lines may break anywhere."""
    return "".join(text.split())


def test_the_pdf_says_what_the_report_says(tmp_path: Path) -> None:
    reader, text = read(report(), tmp_path)
    for said in (
        "Audit of a model",
        "The model is right in 3 of 4 images.",
        "ab" * 32,
        "0.1235",
        "photo 2.png",
        f"{2:064x}",
        "label of top2",
        "Warning: the map barely changes with the class",
        "Not explained: broken.png: the PNG is cut off",
        "Ledger: /node/8",
        "need not add up",
        "speaks against the target",
    ):
        assert squeezed(said) in text, said
    assert reader.metadata is not None
    assert reader.metadata.title == "Audit of a model"
    assert {"The images", "1  photo 0.png"} <= {entry["/Title"] for entry in _outline(reader)}
    # Of 4 images with 2 targets by 2 methods: a photo each, overlay and map of each, two layers of SRD's; the figure
    # and the colour scale. Equal pictures are stored once.
    assert sum(len(page.images) for page in reader.pages) >= 4 + 8


def _outline(reader: PdfReader) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []

    def walk(entries: list[object]) -> None:
        for entry in entries:
            if isinstance(entry, list):
                walk(entry)
            else:
                found.append(entry)  # type: ignore[arg-type]

    walk(list(reader.outline))
    return found


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text(text: str, tmp_path: Path) -> None:
    reader, said = read(hostile(text), tmp_path)
    assert said.count(squeezed(_written(text))) >= 15
    assert len(reader.pages) < 8
    raw = (tmp_path / "report.pdf").read_bytes()
    assert not [name for name in ACTIVE if name.encode() in raw]
    # A page to begin with, not an action.
    assert re.findall(rb"/OpenAction *(.)", raw) in ([], [b"["])


def test_characters_without_a_glyph_are_written_as_code_points(tmp_path: Path) -> None:
    _, text = read(hostile("猫 é \u202e"), tmp_path)
    assert "⟨U+732B⟩é⟨U+202E⟩" in text


def test_equal_reports_give_equal_bytes(tmp_path: Path) -> None:
    written = []
    for name, made in (("a", "2026-01-01"), ("b", "2026-01-01"), ("c", "2027-02-02")):
        write_pdf(replace(report(), made=made), tmp_path / name)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1] != written[2]


def test_what_is_left_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "PICTURED", 2)
    monkeypatch.setattr(pdf, "MOST_ROWS", 3)
    long = Table("Nodes", ("node",), tuple((f"node {i}",) for i in range(10)))
    before = replace(report().before[0], tables=(long,))
    _, text = read(replace(report(), before=(before,), items=endless(4)), tmp_path)
    assert squeezed("From here on without pictures: there are more than 2 images.") in text
    assert squeezed("7 more rows are not printed.") in text
    assert "node2" in text
    assert "node3" not in text
    assert squeezed("photo 3.png") in text


def test_a_map_that_cannot_be_drawn_is_told(tmp_path: Path) -> None:
    bad = replace(item(0), shown=(replace(shown(), relevance=np.full((60, 60), np.nan)),))
    _, text = read(replace(report(), items=iter([bad])), tmp_path)
    assert squeezed("Not drawn: the relevance map holds 3600 values") in text


def test_wide_tables_and_long_words_stay_on_the_page(tmp_path: Path) -> None:
    wide = Table("Wide", ("a", "b", "c"), (("x" * 300, "short", "words " * 60),))
    before = replace(report().before[0], tables=(wide,))
    reader, text = read(replace(report(), before=(before,), items=()), tmp_path)
    assert text.count("x") >= 300
    assert len(reader.pages) < 5
