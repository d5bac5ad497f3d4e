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

from srd_onnx.database import FileKind, in_words, open_database
from srd_onnx.files import to_json

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
_KIND = FileKind(0x53524445, 1, _TABLES, "srd-onnx evaluate", "numbers")  # "SRDE"


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
        with in_words(self.path, _KIND):
            yield


def open_store(path: str | Path) -> Store:
    """Open the file, or make it.

    Raises:
        OutputError: as `srd_onnx.database.open_database`.
    """
    path = Path(path)
    return Store(path, open_database(path, _KIND))
