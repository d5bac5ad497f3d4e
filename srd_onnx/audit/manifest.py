"""The manifest of a report: the SHA-256 of every file in its folder, and its own in a file beside it.

`manifest.json.sha256` has the form that `sha256sum --check` reads.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srd_onnx.errors import AuditError
from srd_onnx.files import atomic_write_all, sha256_of, to_json
from srd_onnx.text import printable

MANIFEST, OWN = "manifest.json", "manifest.json.sha256"
FORMAT = 1
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")  # what `atomic_write` leaves behind if it is killed


@dataclass(frozen=True)
class Manifest:
    """What it says.

    Attributes:
        about: of what kind the report is, and when it was made.
        files: (bytes, sha256) by name, relative to the folder.
    """

    about: Mapping[str, Any]
    files: Mapping[str, tuple[int, str]]


def write_manifest(folder: Path, about: Mapping[str, Any]) -> None:
    """Remove what killed runs left half-written, and write the manifest of everything else.

    Raises:
        OutputError: it cannot be written.
    """
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink()
    files = {
        name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for name, path in sorted(files_in(folder).items())
        if name not in (MANIFEST, OWN)
    }
    text = to_json({"format": FORMAT, **about, "files": files}, indent=2) + "\n"
    data = text.encode("utf-8", "backslashreplace")

    own = f"{hashlib.sha256(data).hexdigest()}  {MANIFEST}\n".encode()
    atomic_write_all({folder / MANIFEST: data, folder / OWN: own})


def read_manifest(folder: Path) -> Manifest:
    """Read it.

    Raises:
        AuditError: it is not there, or not what was written.
    """
    path = folder / MANIFEST
    try:
        own, found = (folder / OWN).read_text(encoding="ascii"), sha256_of(path)
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AuditError(
            f"{error.filename} is not there: this is no report of srd-onnx, or it was not finished, or it was removed."
        ) from error
    except OSError as error:
        raise AuditError(f"{error.filename} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise AuditError(f"{path} is damaged: {error}") from error
    if own != f"{found}  {MANIFEST}\n":
        raise AuditError(f"{path} was changed: its sha256 is {found}, not what {OWN} says.")
    if content.get("format") != FORMAT:
        raise AuditError(f"{path} is of another version of srd-onnx (format {content.get('format')}).")
    files = {name: (one["bytes"], one["sha256"]) for name, one in content.pop("files").items()}
    return Manifest(content, files)


def differences(folder: Path, manifest: Manifest) -> Iterator[str]:
    """What is not as the manifest says, a sentence for each file."""
    there = files_in(folder)
    for name, (size, sha256) in manifest.files.items():
        path = there.get(name)
        if path is None:
            yield f"{name} is missing"
        elif path.is_symlink():
            yield f"{name} is a link, not the file that was written"
        elif (found := path.stat().st_size) != size:
            yield f"{name} was changed: it has {found} bytes, not {size}"
        elif (digest := sha256_of(path)) != sha256:
            yield f"{name} was changed: its sha256 is {digest}, not {sha256}"
    for name in sorted(set(there) - set(manifest.files) - {MANIFEST, OWN}):
        yield f"{name} is not of this report: it was added"


def files_in(folder: Path) -> dict[str, Path]:
    """Every file and link in a folder and the folders in it, by its name relative to it, with slashes."""
    found = {}
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in (*names, *links):
            path = Path(place) / name
            found[printable(path.relative_to(folder).as_posix())] = path
    return found
