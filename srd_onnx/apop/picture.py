"""The picture of an APOP table: a few photos, what was run under their pattern and what came of it; all as bars."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srd_onnx.apop.table import ApopTable, Example
from srd_onnx.inputs.preprocess import Preprocess
from srd_onnx.inputs.sources import Item
from srd_onnx.subject import Subject
from srd_onnx.text import readable, shorten

_INK, _MUTED, _FRAME = "#1b1f24", "#59636e", "#d0d7de"
_KEPT, _OTHER = "#1a7f37", "#8c959f"
_COLOURS = ("#0550ae", "#54aeff", "#8250df", "#bf3989", "#d4a72c", "#8c959f")
_DPI = 110
_MARGIN, _CELL, _GAP, _HEAD, _CHART = 0.4, 2.0, 0.35, 1.0, 3.2  # inches
_THUMB, _BARS, _ROW = 1.7, 1.05, 3.35
_BEST = 5


def picture(subject: Subject, table: ApopTable) -> bytes:
    """Return a PNG: a row for each example that is a photo, and the whole table as bars."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = [kind for kind in table.inputs if kind != "itself"]
    examples = [example for example in table.examples if example.item.image is not None]
    columns = 1 + len(kinds)
    width = 2 * _MARGIN + columns * _CELL + (columns - 1) * _GAP
    height = _HEAD + len(examples) * _ROW + _CHART + 2 * _MARGIN
    with mpl.rc_context():
        mpl.rcdefaults()  # the user's matplotlibrc must not reach the picture
        figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
        FigureCanvasAgg(figure)
        left = _MARGIN / width
        title = "Only the activation pattern is kept"
        _text(
            figure, (left, 1 - 0.42 / height), title, width - 2 * _MARGIN, size=15, weight="bold", color=_INK
        )
        said = "Run on the picture shown, under the exact pattern of the photo on the left. Green: the photo's class."
        if examples:
            _text(figure, (left, 1 - 0.72 / height), said, width - 2 * _MARGIN, size=10, color=_MUTED)
        for row, example in enumerate(examples):
            _row(figure, subject, example, kinds, height - _HEAD - row * _ROW)
        _chart(figure, table, kinds)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": "srd-onnx"})
    return buffer.getvalue()


def _row(figure: Any, subject: Subject, example: Example, kinds: list[str], top: float) -> None:
    """One example; `top` is its upper edge in inches from the bottom of the figure."""
    itself = next(iter(example.runs.values()))[1]
    cells = [(example.item.name, example.item, itself.original)]
    cells += [(kind, item, result.logits) for kind, (item, result) in example.runs.items() if kind in kinds]
    width, height = figure.get_size_inches()
    for column, (name, item, logits) in enumerate(cells):
        left = _MARGIN + column * (_CELL + _GAP)
        at = (left / width, (top - 0.2) / height)
        _text(figure, at, name, _CELL, size=10, weight="bold", color=_INK)
        shown = figure.add_axes(
            (left / width, (top - 0.28 - _THUMB) / height, _CELL / width, _THUMB / height), anchor="NW"
        )
        shown.imshow(_pixels(subject, item))
        shown.set_xticks([])
        shown.set_yticks([])
        for spine in shown.spines.values():
            spine.set_color(_FRAME)
        bars = figure.add_axes(
            (left / width, (top - 0.38 - _THUMB - _BARS) / height, _CELL / width, _BARS / height)
        )
        _best(bars, subject, logits, itself.predicted)


def _best(axes: Any, subject: Subject, logits: NDArray[np.float32], seen: int) -> None:
    """The five best classes by their softmax, the names in the bars."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    shares = powers / powers.sum()
    best = np.argsort(-logits, kind="stable")[:_BEST]
    for place, index in enumerate(map(int, best)):
        colour = _KEPT if index == seen else _OTHER
        axes.barh(place, shares[index], height=0.86, color=colour, alpha=0.45)
        text = f"{100 * shares[index]:.0f} %  {subject.label(index) or f'class {index}'}"
        _label(axes, (0.01, place), text, _CELL - 0.05, color=_INK)
    axes.set_xlim(0, 1)
    axes.set_ylim(_BEST - 0.5, -0.5)
    axes.axis("off")


def _chart(figure: Any, table: ApopTable, kinds: list[str]) -> None:
    """Groups: kinds of input; bars: kinds of pattern, top-1 in full colour, top-5 behind it."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes(
        (
            (_MARGIN + 0.3) / width,
            (_MARGIN + 0.3) / height,
            1 - (2 * _MARGIN + 0.3) / width,
            (_CHART - 0.75) / height,
        )
    )
    count, patterns = len(table.names), table.patterns
    step = 0.86 / len(patterns)
    for number, pattern in enumerate(patterns):
        colour = _COLOURS[number % len(_COLOURS)]
        at = [group - 0.43 + (number + 0.5) * step for group in range(len(kinds))]
        cells = [table.cells[kind, pattern] for kind in kinds]
        axes.bar(at, [100 * c.top5 / c.count for c in cells], width=0.92 * step, color=colour, alpha=0.25)
        axes.bar(at, [100 * c.top1 / c.count for c in cells], width=0.92 * step, color=colour, label=pattern)
    axes.set_xticks(range(len(kinds)), kinds, fontsize=10)
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 50, 100], ["0", "50", "100 %"], fontsize=9, color=_MUTED)
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_FRAME)
    axes.grid(axis="y", color=_FRAME, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=len(patterns), fontsize=8.5, frameon=False)
    said = f"Photos of {count} that keep their class (pale: among the top five)"
    at_text = ((_MARGIN) / width, (_MARGIN + _CHART - 0.1) / height)
    _text(figure, at_text, said, width - 2 * _MARGIN, size=10, weight="bold", color=_INK)


def _pixels(subject: Subject, item: Item) -> NDArray[np.uint8]:
    """What the data of an input would be as a photo: the preprocessing backwards."""
    if item.image is not None:
        return item.image
    port, preprocess = subject.ports[0], subject.preprocess
    data = np.moveaxis(item.data[port.name], port.axes.channels[0] - port.has_batch, -1).astype(np.float64)
    if isinstance(preprocess, Preprocess):
        data = (data * np.array(preprocess.std) + np.array(preprocess.mean)) / preprocess.scale
        data = data[..., ::-1] if preprocess.channel_order == "BGR" else data
    pixels = np.clip(np.rint(data), 0, 255).astype(np.uint8)
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def _text(figure: Any, at: tuple[float, float], text: str, room: float, **style: Any) -> None:
    """One line, shortened to `room` inches."""
    _fitted(figure, figure.text(*at, "", parse_math=False, usetex=False, **style), text, room)


def _label(axes: Any, at: tuple[float, float], text: str, room: float, **style: Any) -> None:
    drawn = axes.text(*at, "", parse_math=False, usetex=False, va="center", size=8, **style)
    _fitted(axes.figure, drawn, text, room)


def _fitted(figure: Any, drawn: Any, text: str, room: float) -> None:
    from srd_onnx.pictures.fonts import drawable, families

    drawn.set_family(families())
    line = drawable(readable(text))

    def fits(candidate: str) -> bool:
        drawn.set_text(candidate)
        return bool(drawn.get_window_extent().width <= room * figure.dpi)

    drawn.set_text(shorten(line, fits))
