"""A contact sheet: pictures in rows, each with a name and remarks, under a title; and below them a chart of bars."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from srd_onnx.graph.ir import Array
from srd_onnx.pictures.drawing import EDGE, INK, MUTED, figure_of, frame, write
from srd_onnx.pictures.render import colour_map

_MARGIN, _GAP, _SLOT, _HEAD, _FOOT = 0.35, 0.22, 1.95, 0.92, 0.3  # inches
_LINE, _CHART = 0.16, 2.3
_COLUMNS = (6, 7, 5)
_LEAST = 0.5
_BARS = ("#c2504f", "#2f6fa8", "#b3bac2")


@dataclass(frozen=True, eq=False)
class Cell:
    """One picture of a sheet.

    Attributes:
        image: uint8 [H, W, 3], or a signed map [H, W] in -1..1.
        name: the line above it.
        remarks: smaller lines below the name.
        marks: (x, y, text) at pixels of the image.
    """

    image: Array
    name: str
    remarks: tuple[str, ...] = ()
    marks: tuple[tuple[float, float, str], ...] = ()


@dataclass(frozen=True)
class Chart:
    """Groups of bars: for each group a label and a value for each of the (up to three) series."""

    title: str
    series: tuple[str, ...]
    groups: tuple[tuple[str, tuple[float, ...]], ...]


def sheet(
    cells: Sequence[Cell], title: str, subtitle: str, chart: Chart | None = None, columns: int | None = None
) -> bytes:
    """A PNG of all cells, row by row; a map as thin as a line is stretched to be seen.

    Args:
        cells: from left to right, from top to bottom.
        title: in the first line.
        subtitle: in the second.
        chart: below the cells.
        columns: how many cells make a row; what leaves the fewest places empty if left out.
    """
    columns = columns or _columns(len(cells))
    rows = math.ceil(len(cells) / columns)
    tall = max(min(max(_fitting(cell.image) for cell in cells), 1.5 * _SLOT), _LEAST)
    caption = 0.3 + _LINE * max(len(cell.remarks) for cell in cells)
    width = 2 * _MARGIN + columns * _SLOT + (columns - 1) * _GAP
    below = _CHART if chart else 0.0
    height = _HEAD + rows * (caption + tall + _GAP) + below + _FOOT
    buffer = io.BytesIO()
    with figure_of(width, height, buffer) as figure:
        room = width - 2 * _MARGIN
        left = _MARGIN / width
        write(figure, title, (left, 1 - 0.22 / height), room, size=14, color=INK, weight="bold", va="top")
        write(figure, subtitle, (left, 1 - 0.53 / height), room, size=9.5, color=MUTED, va="top")
        for index, cell in enumerate(cells):
            row, column = divmod(index, columns)
            x = _MARGIN + column * (_SLOT + _GAP)
            top = height - _HEAD - row * (caption + tall + _GAP)
            _draw(figure, cell, (x, top - caption - tall), tall, caption)
        if chart:
            _draw_chart(figure, chart, (width, height))
    return buffer.getvalue()


def _columns(count: int) -> int:
    """How many columns leave the fewest places empty."""
    return count if count <= max(_COLUMNS) else min(_COLUMNS, key=lambda columns: -count % columns)


def _fitting(image: Array) -> float:
    """How tall a picture is that is as wide as its slot."""
    return float(_SLOT * image.shape[0] / image.shape[1])


def _draw(figure: Any, cell: Cell, at: tuple[float, float], tall: float, caption: float) -> None:
    width, height = figure.get_size_inches()
    x, y = at
    line = y + tall + caption - 0.2
    write(figure, cell.name, (x / width, line / height), _SLOT, size=9, color=INK, weight="bold")
    for remark in cell.remarks:
        line -= _LINE
        write(figure, remark, (x / width, line / height), _SLOT, size=7.5, color=MUTED)
    stretched = _fitting(cell.image) < _LEAST
    axes = figure.add_axes((x / width, y / height, _SLOT / width, tall / height), anchor="NW")
    axes.imshow(
        cell.image,
        cmap=colour_map(),
        vmin=-1,
        vmax=1,
        aspect="auto" if stretched else "equal",
        interpolation="nearest",
    )
    for px, py, text in cell.marks:
        axes.text(
            px, py, text, size=5.5, color="white", weight="bold", ha="center", va="center", parse_math=False,
            bbox={"boxstyle": "circle,pad=0.12", "facecolor": "#c2504f", "edgecolor": "white", "linewidth": 0.8},
        )  # fmt: skip
    frame(axes)


def _draw_chart(figure: Any, chart: Chart, size: tuple[float, float]) -> None:
    width, height = size
    left, bottom = 0.8, 0.45
    room = (left / width, bottom / height, (width - left - _MARGIN) / width, (_CHART - 0.75) / height)
    axes = figure.add_axes(room)
    at, bar = np.arange(len(chart.groups)), 0.8 / len(chart.series)
    for number, (name, colour) in enumerate(zip(chart.series, _BARS, strict=False)):
        heights = [100 * values[number] for _, values in chart.groups]
        axes.bar(at + (number - (len(chart.series) - 1) / 2) * bar, heights, bar, color=colour, label=name)
    axes.set_xlim(-0.6, len(chart.groups) - 0.4)
    axes.set_xticks(at, [label for label, _ in chart.groups])
    axes.tick_params(labelsize=8, colors=MUTED, length=2)
    axes.yaxis.set_major_formatter("{x:.0f} %")
    axes.axhline(0, color=MUTED, linewidth=0.6)
    axes.grid(axis="y", color=EDGE, linewidth=0.5)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(EDGE)
    axes.legend(
        ncols=len(chart.series), loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=8,
        labelcolor=MUTED,
    )  # fmt: skip
    top = (bottom + _CHART - 0.75 + 0.1) / height
    write(figure, chart.title, (_MARGIN / width, top), width / 2, size=9, color=INK, weight="bold")
