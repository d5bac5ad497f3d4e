"""What an evaluation has found, kept in one SQLite file number by number, so that a run that was killed goes on."""

import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from srd_onnx.errors import OutputError
from srd_onnx.files import to_json

APPLICATION = 0x53524445  # "SRDE", in the header of the file
VERSION = 1
_TABLES = (
    "CREATE TABLE setups (id INTEGER PRIMARY KEY, setup TEXT NOT NULL UNIQUE)",
    """CREATE TABLE numbers (
        setup INTEGER NOT NULL REFERENCES setups, input TEXT NOT NULL, target INTEGER NOT NULL, method TEXT NOT NULL,
        metric TEXT NOT NULL, value REAL, seconds REAL NOT NULL, map_seconds REAL NOT NULL,
        PRIMARY KEY (setup, input, target, method, metric)) WITHOUT ROWID""",
    """CREATE TABLE maps (
        setup INTEGER NOT NULL REFERENCES setups, input TEXT NOT NULL, target INTEGER NOT NULL, method TEXT NOT NULL,
        height INTEGER NOT NULL, width INTEGER NOT NULL, pixels BLOB NOT NULL,
        PRIMARY KEY (setup, input, target, method)) WITHOUT ROWID""",
)


@dataclass(frozen=True)
class Number:
    """One finished number: None where the metric is not defined; seconds of the metric and of the map."""

    value: float | None
    seconds: float
    map_seconds: float


@dataclass(frozen=True)
class Place:
    """Whose number it is: the digest of input (and mask), the target, and the method as plain data."""

    input: str
    target: int
    method: str


@dataclass(eq=False)
class Store:
    """An open file; nobody else can use it meanwhile. `with` closes it."""

    path: Path
    _database: sqlite3.Connection
    _setup: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def use(self, setup: Mapping[str, Any]) -> None:
        """From now on numbers are those of this setup: model, seed, versions and whatever else decides them."""
        text = to_json(dict(sorted(setup.items())))
        with self._guarded(), self._database:
            self._database.execute("INSERT OR IGNORE INTO setups (setup) VALUES (?)", (text,))
            query = self._database.execute("SELECT id FROM setups WHERE setup = ?", (text,))
            (self._setup,) = query.fetchone()

    def number(self, place: Place, metric: str) -> Number | None:
        """What was found before."""
        columns = "value, seconds, map_seconds"
        where = "setup = ? AND input = ? AND target = ? AND method = ? AND metric = ?"
        row = self._one(f"SELECT {columns} FROM numbers WHERE {where}", (*self._key(place), metric))
        return None if row is None else Number(*row)

    def add(self, place: Place, metric: str, number: Number) -> None:
        """Keep a number: when this returns it is on the disk."""
        values = (number.value, number.seconds, number.map_seconds)
        self._write(
            "INSERT INTO numbers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*self._key(place), metric, *values)
        )

    def map(self, place: Place) -> NDArray[np.float32] | None:
        """A map that was kept to be drawn, in -1..1."""
        where = "setup = ? AND input = ? AND target = ? AND method = ?"
        row = self._one(f"SELECT height, width, pixels FROM maps WHERE {where}", self._key(place))
        if row is None:
            return None
        pixels = np.frombuffer(zlib.decompress(row[2]), np.int8).reshape(row[0], row[1])
        return np.asarray(pixels / 127, np.float32)

    def add_map(self, place: Place, drawn: NDArray[np.floating[Any]]) -> None:
        """Keep a map [H, W] in -1..1 in 255 levels."""
        height, width = drawn.shape
        pixels = zlib.compress(np.rint(np.clip(drawn, -1, 1) * 127).astype(np.int8).tobytes())
        self._write(
            "INSERT OR REPLACE INTO maps VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*self._key(place), height, width, pixels),
        )

    def count(self) -> int:
        """How many numbers this setup has."""
        (count,) = self._one("SELECT count(*) FROM numbers WHERE setup = ?", (self._setup,)) or (0,)
        return int(count)

    def _key(self, place: Place) -> tuple[int, str, int, str]:
        return self._setup, place.input, place.target, place.method

    def _one(self, query: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        with self._guarded():
            row: tuple[Any, ...] | None = self._database.execute(query, values).fetchone()
        return row

    def _write(self, command: str, values: tuple[Any, ...]) -> None:
        with self._guarded(), self._database:
            self._database.execute(command, values)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with _in_words(self.path):
            yield


def open_store(path: str | Path) -> Store:
    """Open the file, or make it.

    Raises:
        OutputError: another run uses it; it is damaged, something else, or of another version of srd-onnx; or it
            cannot be written.
    """
    path = Path(path)
    with _in_words(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(path, timeout=1)
        try:
            _prepare(database, path)
        except BaseException:
            database.close()
            raise
    return Store(path, database)


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("BEGIN EXCLUSIVE")
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables == 0:
        database.execute(f"PRAGMA application_id = {APPLICATION}")
        database.execute(f"PRAGMA user_version = {VERSION}")
        for table in _TABLES:
            database.execute(table)
    elif application != APPLICATION:
        raise OutputError(f"{path} is a database, but not one of srd-onnx. Choose another --out.")
    elif version != VERSION:
        raise OutputError(
            f"{path} was written by another version of srd-onnx (format {version}, this is {VERSION}). Use that, "
            "choose another --out, or delete the file: its numbers are then computed again."
        )
    elif (found := database.execute("PRAGMA quick_check(1)").fetchone()) != ("ok",):
        raise sqlite3.DatabaseError(*found)
    database.commit()


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise OutputError(
                f"{path} is in use: another `srd-onnx evaluate` writes there. Wait for it, or choose another --out."
            ) from error
        raise OutputError(
            f"{path}: cannot be written: {error}. Choose another --out, or free some space."
        ) from error
    except sqlite3.DatabaseError as error:
        raise OutputError(
            f"{path} is damaged, or no database: {error}. Delete it (its numbers are then computed again), or choose "
            "another --out."
        ) from error
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written: {error.strerror or error}. Choose another --out."
        ) from error
