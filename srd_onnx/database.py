"""SQLite files of our own: opened for one process alone, every write on the disk when it returns, errors in words."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from srd_onnx.errors import OutputError


@dataclass(frozen=True)
class FileKind:
    """What a file of this kind is.

    Attributes:
        application: four bytes in its header that tell it from other databases.
        version: of its tables.
        tables: the statements that make them.
        command: which writes it, as the user types it.
        contents: what is in it and can be computed again, in the plural.
    """

    application: int
    version: int
    tables: Sequence[str]
    command: str
    contents: str


def open_database(path: Path, kind: FileKind) -> sqlite3.Connection:
    """Open the file, or make it; nobody else can use it meanwhile.

    Raises:
        OutputError: another run uses it; it is damaged, something else, or of another version of srd-onnx; or it
            cannot be written.
    """
    with in_words(path, kind):
        path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(path, timeout=1)
        try:
            _prepare(database, path, kind)
        except BaseException:
            database.close()
            raise
    return database


def _prepare(database: sqlite3.Connection, path: Path, kind: FileKind) -> None:
    left = path.with_name(f"{path.name}-journal").exists()  # by a run that was killed
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("BEGIN EXCLUSIVE")
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables == 0:
        database.execute(f"PRAGMA application_id = {kind.application}")
        database.execute(f"PRAGMA user_version = {kind.version}")
        for table in kind.tables:
            database.execute(table)
    elif application != kind.application:
        raise OutputError(f"{path} is a database, but not one of srd-onnx. Choose another --out.")
    elif version != kind.version:
        raise OutputError(
            f"{path} was written by another version of srd-onnx (format {version}, this is {kind.version}). Use that, "
            f"choose another --out, or delete the file: its {kind.contents} are then computed again."
        )
    elif (found := database.execute("PRAGMA quick_check(1)").fetchone()) != ("ok",):
        raise sqlite3.DatabaseError(*found)
    if left:
        database.execute(
            f"PRAGMA user_version = {kind.version}"
        )  # a write, after which closing removes the journal
    database.commit()


@contextmanager
def in_words(path: Path, kind: FileKind) -> Iterator[None]:
    """Turn what SQLite or the file system says into one message.

    Raises: OutputError.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise OutputError(
                f"{path} is in use: another `{kind.command}` writes there. Wait for it, or choose another --out."
            ) from error
        raise OutputError(
            f"{path}: cannot be written: {error}. Choose another --out, or free some space."
        ) from error
    except sqlite3.DatabaseError as error:
        raise OutputError(
            f"{path} is damaged, or no database: {error}. Delete it (its {kind.contents} are then computed again), or "
            "choose another --out."
        ) from error
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written: {error.strerror or error}. Choose another --out."
        ) from error
