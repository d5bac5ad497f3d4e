"""The model zoo: the table ``models/zoo.toml``, and the files that ship with it."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from srd_onnx.errors import OptionError
from srd_onnx.inputs.preprocess import Preprocess, preprocess_from_dict

_KEYS = {"file", "source", "licence", "sha256", "preprocess", "labels", "layout", "note"}


@dataclass(frozen=True)
class ZooModel:
    """One row of the table; ``sha256`` is that of the file at ``path``, 64 hex digits."""

    name: str
    path: Path
    source: str
    licence: str
    sha256: str
    preprocess: Preprocess
    labels_path: Path
    layout: str
    note: str


def zoo() -> Mapping[str, ZooModel]:
    """Return the models that ship, by name, in the order of the table."""
    return _table()[0]


def find(name: str) -> ZooModel | None:
    """Return the model of that zoo name, None if there is none."""
    return zoo().get(name)


def find_by_sha256(sha256: str) -> ZooModel | None:
    """Return the zoo model whose file has this SHA-256, wherever the user's copy of it lies."""
    return next((model for model in zoo().values() if model.sha256 == sha256.lower()), None)


def sample_photo() -> Path:
    """Return the photo that the demo explains."""
    return _table()[1]


def read_labels(path: str | Path) -> tuple[str, ...]:
    """Return the class names in a file, in the order of the model's outputs.

    The file is text with one name per line, a JSON list of names, or a JSON object from index to name that
    has every index from 0 on.

    Raises: OptionError if the file cannot be read or is none of these.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise OptionError(f"{path}: cannot read the labels: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise OptionError(f"{path}: the labels are not UTF-8 text. Save the file as UTF-8.") from error
    # Looked at, not only named: a JSON list is often saved as .txt.
    if Path(path).suffix.lower() == ".json" or text.lstrip()[:1] in ("{", "["):
        return _json_labels(text, path)
    lines = [line.strip() for line in text.rstrip().split("\n")]
    for number, line in enumerate(lines, start=1):
        if not line:
            where = "it is empty" if len(lines) == 1 else f"line {number} is empty"
            raise OptionError(f"{path}: {where}; a label file has one class name per line, without gaps.")
    return tuple(lines)


def _json_labels(text: str, path: str | Path) -> tuple[str, ...]:
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise OptionError(f"{path}: not valid JSON: {error}") from error
    if isinstance(content, dict):
        indices = {str(index): index for index in range(len(content))}
        if set(content) != set(indices):
            strange = sorted(set(content) - set(indices)) + sorted(set(indices) - set(content), key=int)
            raise OptionError(
                f"{path}: the keys must be the class indices 0 to {len(content) - 1}; "
                f"{strange[0]!r} is not one of them, or is missing."
            )
        content = [content[index] for index in indices]
    if not isinstance(content, list) or not content or not all(isinstance(name, str) for name in content):
        raise OptionError(
            f"{path}: the JSON must be a list of class names, or an object from index to class name."
        )
    return tuple(content)


@cache
def _table() -> tuple[Mapping[str, ZooModel], Path]:
    folder = _folder()
    content = tomllib.loads((folder / "zoo.toml").read_text(encoding="utf-8"))
    models = {name: _row(folder, name, row) for name, row in content["models"].items()}
    return MappingProxyType(models), folder / content["sample_photo"]


def _folder() -> Path:
    """Return where the table lies: inside the installed package, or, in a checkout, beside it."""
    package = Path(__file__).resolve().parent
    installed = package / "_models"
    return installed if installed.is_dir() else package.parent / "models"


def _row(folder: Path, name: str, row: Mapping[str, Any]) -> ZooModel:
    if set(row) != _KEYS:
        raise OptionError(f"zoo.toml, models.{name}: wrong or missing keys {sorted(set(row) ^ _KEYS)}")
    return ZooModel(
        name=name,
        path=folder / row["file"],
        source=row["source"],
        licence=row["licence"],
        sha256=row["sha256"],
        preprocess=preprocess_from_dict(row["preprocess"], f"zoo.toml, models.{name}.preprocess"),
        labels_path=folder / row["labels"],
        layout=row["layout"],
        note=row["note"],
    )
