"""The SHA-256 of model files that were hashed before and have not changed since, as the file system says."""

import contextlib
import json
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SETTLED = 2  # seconds without a change, more than the clock of any file system is coarse
_MOST = 200  # files remembered


@dataclass(frozen=True)
class Digests:
    """Remembered in one small file, which may vanish at any time.

    A file counts as unchanged if it is the same inode of the same size whose content and status were last changed at
    the same nanosecond. Unlike the time of the content, that of the status cannot be set back; where the system has
    none (Windows) nothing is remembered.

    Attributes:
        path: where.
        by: who loaded and checked the models: digest and versions of the code.
    """

    path: Path
    by: str

    def find(self, model: Path) -> str | None:
        """The digest of a file, if it is remembered and the file has not changed."""
        entry = self._entries().get(str(model.absolute()))
        if not isinstance(entry, dict) or entry.get("by") != self.by or entry.get("stamp") != stamp_of(model):
            return None
        return str(entry.get("sha256"))

    def remember(self, model: Path, stamp: Sequence[int], digest: str) -> None:
        """Keep the digest of a file that was loaded and found right; `stamp` is of before it was read."""
        if os.name == "nt" or time.time() - max(stamp[-2:]) / 1e9 < _SETTLED:
            return
        entries = self._entries()
        entries.pop(str(model.absolute()), None)
        entries[str(model.absolute())] = {"by": self.by, "stamp": stamp, "sha256": digest}
        kept = dict(list(entries.items())[-_MOST:])
        temporary = self.path.parent / f".{secrets.token_hex(8)}.tmp"
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.write_text(json.dumps(kept))
            temporary.replace(self.path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def _entries(self) -> dict[str, Any]:
        try:
            found = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def stamp_of(path: Path) -> list[int] | None:
    """What a file system says of a file, the times of its last changes last; None where it says nothing."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
