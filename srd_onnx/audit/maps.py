"""The maps of an audit: float32 arrays in one Zarr group, a chunk for each map, written as a whole or not at all."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srd_onnx.errors import AuditError, OutputError
from srd_onnx.graph.ir import Array

_CODECS = ["bytes", "zstd"]
PARTIAL = ".partial"  # what Zarr calls a chunk that is not written to its end


@dataclass(frozen=True, eq=False)
class Maps:
    """An open group: an array [rows, *shape] for each shape of maps, of which every map has the same row.

    A row that was never written takes no room.
    """

    path: Path
    rows: int
    _group: Any

    def write(self, row: int, relevance: Array) -> str:
        """Keep a map [*positions] in its row; the digest by which `read` knows it again.

        Raises:
            OutputError: it cannot be written.
        """
        found = np.ascontiguousarray(relevance, np.float32)
        with _in_words(self.path):
            self._array(found.shape)[row] = found
        return _digest(found)

    def read(self, row: int, shape: tuple[int, ...], digest: str) -> NDArray[np.float32] | None:
        """The map of a row; None if it is not there as it was written.

        Raises:
            AuditError: where it should be is something else.
        """
        name = _name(shape)
        with _in_words(self.path):
            if name not in self._group:
                return None
            try:
                found = np.asarray(self._checked(name)[row], np.float32).reshape(shape)
            except (RuntimeError, ValueError, IndexError):  # what the codec says of damaged bytes
                return None
        return found if _digest(found) == digest else None

    def _checked(self, name: str) -> Any:
        """An array that was there, if it is one of ours: its file names what decodes it."""
        array = self._group[name]
        codecs = [codec.to_dict()["name"] for codec in getattr(array.metadata, "codecs", ())]
        if codecs != _CODECS or array.dtype != np.float32:
            raise AuditError(f"{self.path / name} is no array of maps that srd-onnx wrote")
        return array

    def _array(self, shape: tuple[int, ...]) -> Any:
        name = _name(shape)
        if name in self._group:
            return self._checked(name)
        return self._group.create_array(
            name,
            shape=(self.rows, *shape),
            chunks=(1, *shape),
            dtype="float32",
            chunk_key_encoding={"name": "v2", "separator": "."},
        )


def open_maps(path: Path, rows: int, *, read_only: bool = False) -> Maps:
    """Open the group, or make it; chunks that a killed run left half-written are removed.

    Args:
        path: a folder.
        rows: how many maps there are at most.
        read_only: it must be there.

    Raises:
        OutputError: it cannot be read or written.
    """
    import zarr

    with _in_words(path):
        if not read_only:
            path.mkdir(parents=True, exist_ok=True)
            for left in path.rglob(f"*{PARTIAL}"):
                left.unlink()
        group = zarr.open_group(path, mode="r" if read_only else "a", zarr_format=3)
    return Maps(path, rows, group)


def _name(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _digest(relevance: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(relevance, "<f4").tobytes()).hexdigest()


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be read or written: {error.strerror or error}. Choose another --out, or free some space."
        ) from error
