"""A4 pages: headings, text, tables and rows of pictures, by fpdf2."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Self

import cv2
import numpy as np
from fpdf import FPDF
from fpdf.enums import XPos, YPos
from fpdf.fonts import FontFace, TTFFont
from fpdf.util import Padding

from srd_onnx.report.words import honest

_FAMILY = "Text"
_SIZES = (19.0, 14.0, 11.5, 10.0)  # of headings, by level
_TEXT, _SMALL, _TINY = 9.5, 8.5, 7.5
_INK, _MUTED, _EDGE, _SUNK = (23, 27, 33), (84, 93, 104), (213, 218, 224), (240, 242, 245)
_WARNING = (255, 245, 220)
_GAP = 4.0  # between pictures, mm


@dataclass(frozen=True)
class Picture:
    """The bytes of a PNG or JPEG, what stands below it, and what it is in words."""

    data: bytes
    caption: str
    alt: str


class Paper:
    """Pages that fill from the top; text that the fonts do not have is written as its code points.

    To be used in a `with` block, after which the files of the fonts are closed.
    """

    def __init__(self, title: str, made: datetime) -> None:
        self._pdf = pdf = _Pages()
        for style, path in zip(("", "B"), _faces(), strict=True):
            pdf.add_font(_FAMILY, style, path)
        pdf.set_margin(18)
        pdf.set_auto_page_break(auto=True, margin=18)
        pdf.set_lang("en")
        pdf.set_title(honest(title))
        pdf.set_creator("srd-onnx")
        pdf.set_creation_date(made)
        pdf.add_page()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        for font in self._pdf.fonts.values():
            if isinstance(font, TTFFont):
                font.ttfont.close()

    def finished(self) -> bytes:
        """The file."""
        return bytes(self._pdf.output())

    def heading(self, text: str, level: int, room: float = 40.0) -> None:
        """A heading, which the outline of the PDF lists too; on a page with so much room (mm), it included."""
        pdf = self._pdf
        self._need(room)
        pdf.ln((0, 5, 4, 2)[level])
        pdf.start_section(_written(text), level)
        self._write(text, _SIZES[level], "B")
        pdf.ln(1)

    def text(self, text: str) -> None:
        """A paragraph."""
        if text:
            self._write(text, _TEXT)
            self._pdf.ln(1.5)

    def small(self, text: str) -> None:
        """A muted line."""
        if text:
            self._write(text, _SMALL, colour=_MUTED)

    def note(self, text: str) -> None:
        """What stands below a table."""
        self.small(text)
        self._pdf.ln(1.5)

    def warning(self, text: str) -> None:
        """A paragraph on a ground that is seen."""
        self._filled(text, _WARNING)
        self._pdf.ln(1.5)

    def boxed(self, title: str, paragraphs: Sequence[str]) -> None:
        """Paragraphs below a title, on a ground of their own."""
        pdf = self._pdf
        pdf.ln(2)
        pdf.start_section(_written(title), 1)
        self._filled(title, _SUNK, _SIZES[2], "B")
        for text in paragraphs:
            self._filled(text, _SUNK)
        pdf.ln(2)

    def facts(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Names and values in two columns."""
        pdf = self._pdf
        left = 38.0
        for name, value in pairs:
            self._need(8)
            top, page = pdf.get_y(), pdf.page
            self._write(name, _SMALL, colour=_MUTED, width=left - 2)
            below, after = pdf.get_y(), pdf.page
            pdf.page = page
            pdf.set_xy(pdf.l_margin + left, top)
            self._write(value, _SMALL, width=pdf.epw - left)
            if pdf.page == after:
                pdf.set_y(max(pdf.get_y(), below))
            pdf.ln(0.6)
        if pairs:
            pdf.ln(2)

    def table(
        self, caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]
    ) -> None:
        """A table as wide as its text needs; nothing where it has no rows.

        Args:
            caption: above it.
            columns: their headings.
            rows: of text.
            right: of each column, whether it is aligned to the right.
        """
        if not rows:
            return
        pdf = self._pdf
        self._need(16 + 6 * min(len(rows), 12))
        self._write(caption, _SMALL, "B")
        pdf.ln(0.5)
        self._style(_SMALL)
        written = [[_written(cell) for cell in row] for row in rows]
        head = [_written(column) for column in columns]
        widths = self._widths([head, *written])
        pdf.set_draw_color(*_EDGE)
        pdf.set_fill_color(255)
        with pdf.table(
            col_widths=widths,
            width=min(sum(widths), pdf.epw),  # a sum may be greater by rounding
            align="LEFT",
            text_align=["RIGHT" if one else "LEFT" for one in right],
            borders_layout="HORIZONTAL_LINES",
            headings_style=FontFace(emphasis="", color=_MUTED, fill_color=_SUNK),
            line_height=4.6,
            padding=(0.7, 1.5),
        ) as table:
            for row in [head, *written]:
                table.row(row)
        pdf.ln(2.5)

    def pictures(self, pictures: Sequence[Picture], columns: int) -> None:
        """Rows of pictures with captions; of one height at most their width."""
        for first in range(0, len(pictures), columns):
            self._row(pictures[first : first + columns], columns)

    def _row(self, pictures: Sequence[Picture], columns: int) -> None:
        pdf = self._pdf
        width = (pdf.epw - _GAP * (columns - 1)) / columns
        self._style(_TINY)
        captions = [_written(one.caption) for one in pictures]
        lines = [self._lines(one, width) for one in captions]
        sizes = [_size(one.data, width) for one in pictures]
        tall = max(height for _, height in sizes)
        self._need(tall + 3.4 * max(lines) + 4)
        top = pdf.get_y()
        for place, (one, caption, (wide, high)) in enumerate(zip(pictures, captions, sizes, strict=True)):
            left = pdf.l_margin + place * (width + _GAP)
            pdf.image(one.data, x=left, y=top, w=wide, h=high, alt_text=_written(one.alt))
            pdf.set_xy(left, top + tall + 1)
            self._style(_TINY, colour=_MUTED)
            pdf.multi_cell(width, 3.4, caption, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        pdf.set_xy(pdf.l_margin, top + tall + 1 + 3.4 * max(lines) + 3)

    def _lines(self, text: str, width: float) -> int:
        lines = self._pdf.multi_cell(width, 3.4, text, align="L", dry_run=True, output="LINES")
        assert isinstance(lines, list)  # as was asked for
        return len(lines)

    def _need(self, height: float) -> None:
        """Begin a page unless so much of this one is left."""
        if self._pdf.will_page_break(height):
            self._pdf.add_page()

    def _style(self, size: float, emphasis: str = "", colour: tuple[int, int, int] = _INK) -> None:
        self._pdf.set_font(_FAMILY, emphasis, size)
        self._pdf.set_text_color(*colour)

    def _write(
        self,
        text: str,
        size: float,
        emphasis: str = "",
        colour: tuple[int, int, int] = _INK,
        width: float = 0.0,
    ) -> None:
        self._style(size, emphasis, colour)
        self._pdf.multi_cell(
            width, size * 0.5, _written(text), align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT
        )

    def _filled(
        self, text: str, ground: tuple[int, int, int], size: float = _TEXT, emphasis: str = ""
    ) -> None:
        self._style(size, emphasis)
        self._pdf.set_fill_color(*ground)
        self._pdf.multi_cell(
            0,
            size * 0.5,
            _written(text),
            align="L",
            fill=True,
            padding=Padding(1.2, 3.0, 1.2, 3.0),
            new_x=XPos.LMARGIN,
            new_y=YPos.NEXT,
        )

    def _widths(self, rows: Sequence[Sequence[str]]) -> list[float]:
        """Of each column what its longest cell needs, shrunk where all together do not fit."""
        room, pad = self._pdf.epw, 3.4
        wanted = [
            pad
            + max(self._pdf.get_string_width(line) for cell in column for line in (cell.split("\n") or [""]))
            for column in zip(*rows, strict=True)
        ]
        if sum(wanted) <= room:
            return wanted
        # Narrow columns keep their width, wide ones share what is left.
        fair, small = room / len(wanted), 0.0
        for _ in wanted:
            small = sum(one for one in wanted if one <= fair)
            wide = sum(one > fair for one in wanted)
            fair = (room - small) / max(wide, 1)
        over = sum(one for one in wanted if one > fair)
        return [one if one <= fair else one * (room - small) / over for one in wanted]


class _Pages(FPDF):
    """A4, each page with its number."""

    def footer(self) -> None:
        """The number of the page."""
        self.set_y(-12)
        self.set_font(_FAMILY, "", _TINY)
        self.set_text_color(*_MUTED)
        self.cell(0, 5, str(self.page_no()), align="R")


def _size(data: bytes, width: float) -> tuple[float, float]:
    """Width and height in mm of a picture in a square slot; a strip is made thick enough to be seen."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None  # we encoded it
    height_px, width_px = decoded.shape[:2]
    scale = width / max(height_px, width_px)
    return max(width_px * scale, 3.0), max(height_px * scale, 3.0)


def _written(text: str) -> str:
    """Text with nothing hidden in it, and with code points for characters that no font of ours has."""
    known = _characters()
    # A tab would be no wider than a space.
    return "".join(
        c if c == "\n" or ord(c) in known else f"⟨U+{ord(c):04X}⟩" for c in honest(text).replace("\t", "  ")
    )


@cache
def _faces() -> tuple[Path, Path]:
    """The regular and the bold face of the font that comes with matplotlib."""
    import matplotlib as mpl

    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    return folder / "DejaVuSans.ttf", folder / "DejaVuSans-Bold.ttf"


@cache
def _characters() -> frozenset[int]:
    from matplotlib import font_manager

    return frozenset.intersection(
        *(frozenset(font_manager.get_font(str(path)).get_charmap()) for path in _faces())
    )
