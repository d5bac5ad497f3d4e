"""What `explain` leaves on the disk: a picture and an archive per image and target, and one explanations.json."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srd_onnx.cli.interrupt import uninterrupted
from srd_onnx.errors import ImageError, OutputError, SrdOnnxError
from srd_onnx.files import atomic_write, to_json
from srd_onnx.text import safe_file_name

if TYPE_CHECKING:
    from srd_onnx.explanation import Explanation

FILE = "explanations.json"
# What `Explanation.meta` says about the run rather than about one image.
_OF_THE_RUN = (
    "model",
    "layout",
    "layout_guessed",
    "precision",
    "fixed",
    "preprocess",
    "preprocess_assumed",
    "method",
    "preset",
    "options",
    "provider",
    "versions",
)


@dataclass
class Record:
    """A run as it goes on; `entries` and `errors` are the lists of the same names in the JSON."""

    folder: Path
    command: Sequence[str]
    run: dict[str, Any] = field(default_factory=dict)
    entries: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    announced: set[str] = field(default_factory=set)

    def save(self, explanation: "Explanation", image: Path, name: str) -> None:
        """Write picture and archive under `name`, and remember them.

        Raises: OutputError if they cannot be written.
        """
        with uninterrupted():
            paths = replace(explanation, name=name).save(self.folder)
            meta = dict(explanation.meta)
            self.run = {key: meta.pop(key) for key in _OF_THE_RUN}
            entry = {
                "image": str(image),
                "name": name,
                "target": explanation.target,
                "label": explanation.label,
                "logit": explanation.score,
                "files": {kind: path.name for kind, path in paths.items()},
                "residual": explanation.residual,
            }
            self.entries.append(entry | meta | {"ledger": explanation.ledger})

    def fail(self, image: Path, error: SrdOnnxError) -> None:
        """Remember that this image could not be explained."""
        self.errors.append({"image": str(image), "error": type(error).__name__, "message": str(error)})

    def note(self, text: str, *, announced: bool = False) -> None:
        """Remember a note, once; `announced`: the user has read it already."""
        if text not in self.notes:
            self.notes.append(text)
        if announced:
            self.announced.add(text)

    def document(self, *, complete: bool = True) -> dict[str, Any]:
        """Return the whole as plain data; the names of files are relative to the folder."""
        return {
            "command": list(self.command),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "folder": str(self.folder),
            **self.run,
            "notes": self.notes,
            "complete": complete,
            "explanations": self.entries,
            "errors": self.errors,
        }

    def write(self, *, complete: bool = True) -> str:
        """Write explanations.json and return its text; `complete`: every image had its turn.

        Raises: OutputError if it cannot be written.
        """
        text = to_json(self.document(complete=complete), indent=2)
        # A path that is no valid text holds lone surrogates, which "backslashreplace" writes as JSON does.
        with uninterrupted():
            atomic_write(self.folder / FILE, (text + "\n").encode("utf-8", "backslashreplace"))
        return text


def existing(images: Sequence[Path]) -> None:
    """Refuse before any work.

    Raises: ImageError naming every path that is no file.
    """
    bad = [str(path) for path in images if not path.is_file()]
    if len(bad) == 1:
        raise ImageError(f"{bad[0]}: there is no such file. Check the spelling and the folder.")
    if bad:
        raise ImageError(
            "\n".join([f"{len(bad)} of {len(images)} images are not there:", *(f"  {b}" for b in bad)])
        )


def usable(folder: Path) -> None:
    """Refuse before any work a folder that cannot be made.

    Raises: OutputError naming what is in the way.
    """
    for there in (folder, *folder.parents):
        if there.is_dir():
            return
        if there.exists() or there.is_symlink():
            raise OutputError(
                f"cannot write to {folder}: {there} is a file, not a folder. Choose another --out."
            )


def unique_names(images: Sequence[Path], folder: Path) -> list[str]:
    """A name for each image that no other has, and whose files replace none of the images."""
    kept = {path.name.casefold() for path in images if path.resolve().parent == folder.resolve()}
    taken: set[str] = set()
    found = []
    for path in images:
        name, number = path.stem, 1
        while (low := safe_file_name(name).casefold()) in taken or _hits(low, kept):
            number += 1
            name = f"{safe_file_name(path.stem, 70)}-{number}"
        taken.add(low)
        found.append(name)
    return found


def _hits(name: str, kept: set[str]) -> bool:
    return any(re.fullmatch(re.escape(name) + r"\..+\.(png|npz)", other) for other in kept)
