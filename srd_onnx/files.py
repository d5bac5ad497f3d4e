"""Writing files so that nothing half-written is ever seen, and reading their digests."""

import contextlib
import hashlib
import io
import json
import math
import os
import secrets
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from srd_onnx.errors import OutputError


def atomic_write(path: str | Path, data: bytes) -> Path:
    """Write ``data`` to ``path``: afterwards the file is complete, or it is what it was before.

    Raises: OutputError if the folder or the file cannot be written.
    """
    atomic_write_all({Path(path): data})
    return Path(path)


def atomic_write_all(contents: Mapping[Path, bytes]) -> None:
    """Write several files, none of which appears before the bytes of all of them are on the disk.

    Missing folders are made. Each file is written under a temporary name in its own folder and renamed.

    Raises: OutputError naming the file that could not be written; the temporary files are gone then.
    """
    pending: list[tuple[Path, Path]] = []
    try:
        for path, data in contents.items():
            with _writing(path):
                temporary = _temporary(path)
                pending.append((temporary, path))
                with temporary.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
        for temporary, path in pending:
            with _writing(path):
                temporary.replace(path)
    finally:
        for temporary, _ in pending:
            _remove_quietly(temporary)


def atomic_write_each(path: str | Path, pieces: Iterable[bytes]) -> Path:
    """As `atomic_write`, of pieces that are written as they come, so that a long file needs no memory.

    What `pieces` raises is raised as it is, and nothing is written.

    Raises: OutputError if the folder or the file cannot be written.
    """
    path = Path(path)
    with _writing(path):
        temporary = _temporary(path)
        file = temporary.open("xb")
    try:
        for piece in pieces:
            with _writing(path):
                file.write(piece)
        with _writing(path):
            file.flush()
            os.fsync(file.fileno())
            file.close()
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # of a full disk, which was said already
            file.close()
        _remove_quietly(temporary)
    return path


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What goes wrong in the block is said of ``path``."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot write {path}: {reason}. Choose another folder, "
            "or make this one writable and free some space."
        ) from error


def _temporary(path: Path) -> Path:
    """A name in the folder of ``path``, which is made, that no other file has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(21, "a folder of that name is there")
    return path.parent / f".{secrets.token_hex(8)}.tmp"


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits.

    Raises: OSError as it comes; the caller knows what the file is for.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json(value: Any, indent: int | None = None) -> str:
    """Return ``value`` as valid JSON text; numpy values, paths and mappings are written as what they hold.

    NaN and the infinities, which JSON does not have, become the strings "nan", "inf" and "-inf".

    Raises: TypeError for a value that has no JSON form.
    """
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def to_npz(arrays: Mapping[str, Any]) -> bytes:
    """Return an archive that `numpy.load` reads, compressed; any name may be one of an array, "file" too."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no JSON form: {value!r}")


def _remove_quietly(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the error that led here is the one to report
