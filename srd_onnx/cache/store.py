"""A folder of entries on the disk, each of a few files: bounded in size, safe under concurrent processes and damage.

An entry is a folder, named by its key, that appears at once, by a rename; a process that comes second leaves it as it
is. Its manifest holds the size and the CRC-32 of every file, and one of itself; an entry that does not fit its manifest
is removed. Where the disk is full or may not be written, nothing is kept, and that is no error. Nothing is unpickled.
"""

import json
import os
import secrets
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT = 4 << 30  # bytes of all entries
_MANIFEST, _PENDING = "entry.json", "pending-"
_ABANDONED = 3600  # seconds after which a pending folder belongs to no living process
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """What is kept under a key.

    Attributes:
        key: its name.
        folder: where its files are.
        facts: the plain data that it was kept with.
        size: bytes of its files.
        used: when it was last used, in seconds since 1970.
    """

    key: str
    folder: Path
    facts: Mapping[str, Any]
    size: int
    used: float


@dataclass(frozen=True)
class Store:
    """The entries in a folder; those used longest ago go where they take more than `limit` bytes."""

    root: Path
    limit: int = LIMIT

    def find(self, key: str) -> Entry | None:
        """The entry, its files checked, and marked as used; None where there is none or it was damaged."""
        folder = self.root / key
        try:
            entry = _read(folder)
            if entry is not None and _intact(folder):
                os.utime(folder / _MANIFEST)
                return entry
        except OSError:
            pass  # it is not there, a part of it is missing, or it cannot be read: as good as damaged
        self.discard(key)
        return None

    def pending(self, size: int) -> Path | None:
        """A new folder to write the files of an entry into; None where about `size` bytes do not fit or may not be."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if size > self.limit or shutil.disk_usage(self.root).free < 2 * size:
                return None
            return Path(tempfile.mkdtemp(prefix=_PENDING, dir=self.root))
        except OSError:
            return None

    def keep(self, key: str, pending: Path, facts: Mapping[str, Any]) -> None:
        """Make an entry of what was written into a folder from `pending`; or drop that."""
        try:
            files = {path.name: _sum_of(path) for path in sorted(pending.iterdir())}
            body = json.dumps({"files": files, "facts": facts})
            (pending / _MANIFEST).write_text(json.dumps({"crc": zlib.crc32(body.encode()), "body": body}))
            if sum(size for size, _ in files.values()) <= self.limit:
                pending.rename(self.root / key)
        except OSError:
            pass  # another process was first, or the disk is full
        self.drop(pending)
        self._shrink()

    def drop(self, pending: Path) -> None:
        """Give up a folder from `pending`, if it is still there."""
        shutil.rmtree(pending, ignore_errors=True)

    def discard(self, key: str) -> None:
        """Remove an entry, if it is there and may be removed."""
        trash = self.root / f"{_PENDING}{secrets.token_hex(8)}"
        try:
            (self.root / key).rename(trash)
        except OSError:
            return
        shutil.rmtree(trash, ignore_errors=True)

    def entries(self) -> list[Entry]:
        """All of them, the last used first; their files are not checked."""
        found = (_readable(folder) for folder in self._folders())
        return sorted((one for one in found if one is not None), key=lambda one: one.used, reverse=True)

    def clear(self) -> None:
        """Remove every entry, and what was left half written."""
        for folder in self._folders(pending=True):
            shutil.rmtree(folder, ignore_errors=True)

    def _folders(self, *, pending: bool = False) -> Iterator[Path]:
        try:
            found = sorted(self.root.iterdir())
        except OSError:
            return
        for folder in found:
            if folder.is_dir() and (pending or not folder.name.startswith(_PENDING)):
                yield folder

    def _shrink(self) -> None:
        total = 0
        for entry in self.entries():
            total += entry.size
            if total > self.limit:
                self.discard(entry.key)
        for folder in self._folders(pending=True):
            try:
                abandoned = folder.stat().st_mtime < time.time() - _ABANDONED
            except OSError:
                continue
            if abandoned and folder.name.startswith(_PENDING):
                shutil.rmtree(folder, ignore_errors=True)


def _readable(folder: Path) -> Entry | None:
    try:
        return _read(folder)
    except OSError:
        return None


def _read(folder: Path) -> Entry | None:
    """What the manifest says; None where it is damaged."""
    manifest = folder / _MANIFEST
    body = _body(manifest)
    if body is None:
        return None
    size = sum(size for size, _ in body["files"].values())
    return Entry(folder.name, folder, body["facts"], size, manifest.stat().st_mtime)


def _body(manifest: Path) -> dict[str, Any] | None:
    try:
        whole = json.loads(manifest.read_bytes())
    except ValueError:
        return None
    body = whole.get("body") if isinstance(whole, dict) else None
    if not isinstance(body, str) or zlib.crc32(body.encode("utf-8", "replace")) != whole.get("crc"):
        return None
    found: dict[str, Any] = json.loads(body)
    return found


def _intact(folder: Path) -> bool:
    body = _body(folder / _MANIFEST)
    return body is not None and all(
        _sum_of(folder / name) == tuple(expected) for name, expected in body["files"].items()
    )


def _sum_of(path: Path) -> tuple[int, int]:
    """The size and the CRC-32 of a file."""
    size, crc = 0, 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            size += len(block)
            crc = zlib.crc32(block, crc)
    return size, crc
