"""Small audits for tests."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import onnx

from srd_onnx.audit.config import Asked, Config, Data, Shown
from srd_onnx.audit.output import STATE
from srd_onnx.audit.run import Outcome, run_audit
from srd_onnx.explainer import Explainer
from srd_onnx.inputs.preprocess import Preprocess
from tests.evaluation_nets import COLOURS, colour_net, photos
from tests.nets import small_cnn

QUICK = Asked(metrics=("sparseness", "insertion-minus-deletion:steps=2"), sanity_images=1)
SHOWN = Shown(explored=1, pdf=False)


def colours(path: Path) -> Explainer:
    """The colour net, from a file."""
    if not path.exists():
        onnx.save(colour_net(), path)
    return Explainer(
        path,
        preprocess=Preprocess(scale=1 / 255),
        layout="NCHW",
        labels=list(COLOURS),
        providers="cpu",
        threads=1,
    )


def small(path: Path) -> Explainer:
    """The small network with the usual parts, from a file; photos of any size."""
    if not path.exists():
        onnx.save(small_cnn(), path)
    seen = Preprocess(resize=(32, 32), scale=1 / 255)
    return Explainer(path, preprocess=seen, layout="NCHW", providers="cpu", threads=1)


def folder(path: Path, count: int = 4) -> Path:
    """So many photos, of one colour after the other."""
    names = list(COLOURS)
    photos(path, *(names[number % len(names)] for number in range(count)))
    return path


def audited(
    place: Path, *, explain: Asked = QUICK, data: Data | None = None, count: int = 4, name: str = "out"
) -> Outcome:
    """The colour net on photos of colours."""
    images = place / "images"
    if not images.exists():
        folder(images, count)
    config = Config(explain, data or Data(), report=SHOWN)
    return run_audit(
        colours(place / "model.onnx"), images, config, place / name, command=("srd-onnx", "audit")
    )


def document(out: Path) -> dict[str, Any]:
    """report.json."""
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def rows(out: Path, table: str) -> list[tuple[Any, ...]]:
    """Of the state, without what they took."""
    with sqlite3.connect(out / STATE) as database:
        names = [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")]
        kept = ", ".join(name for name in names if name != "seconds")
        found = database.execute(f"SELECT {kept} FROM {table} ORDER BY {kept}").fetchall()
    database.close()
    return found
