"""What all pictures share: a figure that no matplotlibrc reaches, its texts and its colours."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from srd_onnx.text import readable, shorten

INK, MUTED, EDGE = "#1b1f24", "#59636e", "#d0d7de"
DPI = 150


@contextmanager
def figure_of(width: float, height: float, into: io.BytesIO) -> Iterator[Any]:
    """A white figure of this size in inches, which is written as PNG when the block is done."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()  # the user's matplotlibrc must not reach an audit picture
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        yield figure
        figure.savefig(into, format="png", dpi=DPI, metadata={"Software": "srd-onnx"})


def write(figure: Any, text: str, at: tuple[float, float], room: float, **style: Any) -> None:
    """Write one line at ``at`` (figure fractions), shortened until it takes at most ``room`` inches."""
    from srd_onnx.pictures.fonts import drawable, families

    line = drawable(readable(text))
    drawn = figure.text(*at, line, parse_math=False, usetex=False, family=families(), **style)

    def fits(candidate: str) -> bool:
        drawn.set_text(candidate)
        return bool(drawn.get_window_extent().width <= room * figure.dpi)

    drawn.set_text(shorten(line, fits))


def frame(axes: Any) -> None:
    """Axes of a picture: a thin edge, nothing else."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(EDGE)
