"""The images of an audit: which there are, what they are by their bytes, and what class each truly is."""

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from srd_onnx.errors import ImageError, OptionError
from srd_onnx.files import sha256_of
from srd_onnx.inputs.sources import ARRAY_FILES
from srd_onnx.text import printable

SUFFIXES = (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp", *ARRAY_FILES)


@dataclass(frozen=True)
class ImageFile:
    """One file.

    Attributes:
        name: relative to the folder, with slashes; bytes that are no text as escapes.
        sha256: of its bytes; empty if it cannot be read.
    """

    name: str
    path: Path
    sha256: str


def images_in(
    folder: Path, *, without: Sequence[Path] = (), advance: Callable[[], None] = lambda: None
) -> list[ImageFile]:
    """All images of a folder and the folders in it, by name.

    Args:
        folder: it; links to folders are not followed.
        without: folders that are left out.
        advance: called after each image.

    Raises:
        ImageError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder of images. Check the spelling.")
    left_out, found = {one.resolve() for one in without}, []
    for path in sorted(_files(folder, left_out), key=lambda one: os.fsencode(one)):
        found.append(ImageFile(printable(path.relative_to(folder).as_posix()), path, _digest(path)))
        advance()
    if not found:
        raise ImageError(f"{folder} is a folder without images ({', '.join(s[1:] for s in SUFFIXES)}).")
    return found


def _files(folder: Path, left_out: set[Path]) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise ImageError(f"{error.filename}: the folder cannot be read: {error.strerror or error}") from error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if (Path(place) / name).resolve() not in left_out]
        yield from (Path(place) / name for name in names if Path(name).suffix.lower() in SUFFIXES)


def _digest(path: Path) -> str:
    try:
        return sha256_of(path) if path.is_file() else ""
    except OSError:
        return ""  # reading it for the model says why, in a row of its own


def read_truth(path: Path, names: Sequence[str], labels: Sequence[str] | None) -> dict[str, int]:
    """The true class of each image that the file names.

    Args:
        path: a CSV with the columns file and class, with or without a heading; the class is an index or a label.
        names: of the images.
        labels: the model's class names.

    Raises:
        OptionError: it cannot be read, names an image that is not there or one twice, or what is no class.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise OptionError(f"true classes: {path} cannot be read as a CSV: {error}") from error
    if rows and [cell.strip().lower() for cell in rows[0]] == ["file", "class"]:
        rows = rows[1:]
    known = _by_label(labels)
    there, found = set(names), dict[str, int]()
    for number, row in enumerate(rows, start=1):
        if len(row) != 2:
            raise OptionError(f"true classes: {path}, row {number}: {len(row)} columns; it takes file, class")
        name, text = row[0].strip(), row[1].strip()
        if name not in there:
            raise OptionError(f"true classes: {path}, row {number}: there is no image '{name}' in the folder")
        if name in found:
            raise OptionError(f"true classes: {path}, row {number}: '{name}' has a class already")
        found[name] = _class(text, known, f"true classes: {path}, row {number}")
    return found


def _by_label(labels: Sequence[str] | None) -> dict[str, list[int]]:
    """Indices by label, and by each of the names that a label has with commas."""
    found: dict[str, list[int]] = {}
    for index, label in enumerate(labels or ()):
        for name in {label, *(part.strip() for part in label.split(","))}:
            found.setdefault(name.casefold(), []).append(index)
    return found


def _class(text: str, known: Mapping[str, list[int]], where: str) -> int:
    if text.isdecimal():
        return int(text)
    indices = known.get(text.casefold(), [])
    if len(indices) != 1:
        said = "names several classes" if indices else "is no class of the model"
        raise OptionError(f"{where}: '{text}' {said}; write its index")
    return indices[0]


def listed(images: Iterable[tuple[str, str]]) -> bytes:
    """Names and digests of images as `sha256sum --check` reads them in their folder, where there is a digest."""
    lines = []
    for name, sha256 in images:
        escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        if sha256:
            lines.append(f"{'' if escaped == name else chr(92)}{sha256}  {escaped}\n")
    return "".join(lines).encode("utf-8", "backslashreplace")
