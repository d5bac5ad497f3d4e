"""A report as one HTML file that asks for nothing from anywhere: styles, script and pictures are inside."""

import base64
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from srd_onnx.files import atomic_write_each
from srd_onnx.pictures.render import colours
from srd_onnx.report import guide
from srd_onnx.report.content import Report, plain
from srd_onnx.report.encode import as_uri, indexed_png
from srd_onnx.report.views import figure_view, headline, numbered, numeric
from srd_onnx.report.words import honest

TEMPLATES = Path(__file__).parent / "templates"
_SCRIPTS = ("maps.js", "stage.js", "layers.js", "gallery.js", "main.js")
_PIECE = 1 << 16  # bytes that are written at once


def write_html(report: Report, path: Path) -> None:
    """Write the page; equal reports give equal bytes but for `made`.

    The images are taken and written one after the other.

    Raises:
        OutputError: the file cannot be written.
        NonFiniteError: a figure of a section holds NaN or infinity.
    """
    atomic_write_each(path, _pieces(report))


def _pieces(report: Report) -> Iterator[bytes]:
    """The bytes of the page, some at a time. A lone surrogate, which no file can hold, was written out before."""
    waiting, size = list[str](), 0
    for text in _environment().get_template("report.html").generate(_page(report)):
        waiting.append(text)
        size += len(text)
        if size >= _PIECE:
            yield "".join(waiting).encode()
            waiting, size = [], 0
    yield "".join(waiting).encode()


def _page(report: Report) -> dict[str, Any]:
    style = _source("report.css")
    script = '"use strict";\n(() => {\n' + "".join(_source(name) for name in _SCRIPTS) + "})();\n"
    wheel = np.rint(colours()).astype(np.uint8)
    return {
        "report": report,
        "place": guide.place_of(report),
        "items": numbered(report),
        "style": style,
        "script": script,
        "policy": _policy(style, script),
        "colours": wheel.tobytes().hex(),
        "bar": as_uri("png", indexed_png(np.arange(256, dtype=np.uint8)[None], wheel)),
    }


def _policy(style: str, script: str) -> str:
    """The Content-Security-Policy: this style, this script, pictures of the page itself, and no network."""
    return "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            "connect-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        """Text of the report is shown as it is, hidden characters included; Markup is ours."""
        return honest(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plain": plain, "signed": _signed, "ours": Markup}
    environment.globals |= {"view_of": figure_view, "headline": headline, "numeric": numeric, "guide": guide}
    return environment


def _signed(value: float) -> str:
    """Four digits, with a sign that lines up."""
    return f"{value:+.4g}".replace("-", "−") if math.isfinite(value) else str(value)
