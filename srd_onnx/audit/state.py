"""What an audit has done so far, in one SQLite file: a row for each image, method, target and metric.

Every row is on the disk when the call that adds it returns, and is never computed again: an audit that is killed goes
on at the first row that is not there.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Self

from srd_onnx.audit.places import Places
from srd_onnx.database import FileKind, in_words, open_database
from srd_onnx.files import to_json

KIND = FileKind(
    0x53524441,  # "SRDA"
    1,
    (
        "CREATE TABLE setup (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        """CREATE TABLE images (
            id INTEGER PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL, truth INTEGER, sanity INTEGER NOT NULL,
            top5 TEXT)""",
        """CREATE TABLE work (
            image INTEGER NOT NULL REFERENCES images, method TEXT NOT NULL, error TEXT, seconds REAL NOT NULL,
            PRIMARY KEY (image, method)) WITHOUT ROWID""",
        """CREATE TABLE explanations (
            image INTEGER NOT NULL REFERENCES images, method TEXT NOT NULL, target TEXT NOT NULL,
            place INTEGER NOT NULL, label TEXT, score REAL NOT NULL, seed REAL NOT NULL, total REAL NOT NULL,
            residual REAL NOT NULL, ledger TEXT NOT NULL, warnings TEXT NOT NULL,
            border REAL, centre REAL, inside REAL, area REAL, no_mask TEXT,
            shape TEXT NOT NULL, row INTEGER NOT NULL, digest TEXT NOT NULL,
            PRIMARY KEY (image, method, target)) WITHOUT ROWID""",
        """CREATE TABLE numbers (
            image INTEGER NOT NULL REFERENCES images, method TEXT NOT NULL, target TEXT NOT NULL, metric TEXT NOT NULL,
            value REAL, error TEXT, seconds REAL NOT NULL,
            PRIMARY KEY (image, method, target, metric)) WITHOUT ROWID""",
    ),
    "srd-onnx audit",
    "rows",
)
_COLUMNS = (
    "image, method, target, place, label, score, seed, total, residual, ledger, warnings, border, centre, inside, "
    "area, no_mask, shape, row, digest"
)


_NUMBER = "INSERT INTO numbers VALUES (?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True)
class ImageRow:
    """One image.

    Attributes:
        truth: its true class, where that is known.
        sanity: whether it is one of the sample that is also asked about redrawn weights.
        top5: (index, label, score) of the best classes; empty until it was explained, or where no class was.
    """

    id: int
    name: str
    sha256: str
    truth: int | None
    sanity: bool
    top5: tuple[tuple[int, str | None, float], ...] = ()


@dataclass(frozen=True)
class ExplanationRow:
    """One target of one image by one method.

    Attributes:
        target: a class, or what is explained in words.
        place: its number among the targets.
        seed: the explained number; `score` the class's own.
        total: the sum of the map.
        ledger: (what it is booked against, how much), the largest first; empty where all rows were asked for.
        no_mask: why there is no mask.
        shape: of the map.
        row: where it is, and `digest` what it is, see `Maps`.
    """

    image: int
    method: str
    target: int | str
    place: int
    label: str | None
    score: float
    seed: float
    total: float
    residual: float
    ledger: tuple[tuple[str, float], ...]
    warnings: tuple[str, ...]
    places: Places
    no_mask: str | None
    shape: tuple[int, ...]
    row: int
    digest: str

    @property
    def booked(self) -> float:
        """The sum of the ledger."""
        return self.seed - self.total - self.residual


@dataclass(frozen=True)
class NumberRow:
    """One number; None where there is none, and `error` says why."""

    image: int
    method: str
    target: int | str
    metric: str
    value: float | None
    error: str | None

    @property
    def unit(self) -> str:
        """What a bootstrap draws from: the image."""
        return str(self.image)


@dataclass(eq=False)
class State:
    """An open file; nobody else can use it meanwhile. `with` closes it."""

    path: Path
    _database: Connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    # Beginning

    def setup(self) -> dict[str, Any]:
        """What `begin` was given; empty before that."""
        return {
            key: json.loads(value) for key, value in self._all("SELECT key, value FROM setup ORDER BY key")
        }

    def begin(self, setup: Mapping[str, Any], images: Sequence[ImageRow]) -> None:
        """Write down what the audit is of: all of it or nothing."""
        with self._guarded(), self._database:
            self._database.executemany(
                "INSERT INTO setup VALUES (?, ?)", [(key, to_json(value)) for key, value in setup.items()]
            )
            self._database.executemany(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?, NULL)",
                [(one.id, one.name, one.sha256, one.truth, one.sanity) for one in images],
            )

    def note(self, key: str, value: Any) -> Any:
        """A value that the first call decides; it stays so."""
        self._write("INSERT OR IGNORE INTO setup VALUES (?, ?)", (key, to_json(value)))
        return self.setup()[key]

    # Adding

    def add_work(
        self,
        image: int,
        method: str,
        explanations: Sequence[ExplanationRow],
        top5: Sequence[tuple[int, str | None, float]],
        error: str | None,
        seconds: float,
        numbers: Sequence[NumberRow] = (),
    ) -> None:
        """What a method makes of an image: all its targets, or why there is nothing; and numbers that came with it."""
        with self._guarded(), self._database:
            execute = self._database.execute
            execute("INSERT INTO work VALUES (?, ?, ?, ?)", (image, method, error, seconds))
            for one in explanations:
                execute(f"INSERT INTO explanations VALUES ({', '.join('?' * 19)})", _as_columns(one))
            for number in numbers:
                execute(_NUMBER, _number_columns(number, 0.0))
            if top5:
                execute("UPDATE images SET top5 = ? WHERE id = ? AND top5 IS NULL", (to_json(top5), image))

    def add_number(self, number: NumberRow, seconds: float) -> None:
        """One number."""
        self._write(_NUMBER, _number_columns(number, seconds))

    def forget_work(self, image: int, method: str) -> None:
        """As if a method had not had this image: a map of it is damaged."""
        with self._guarded(), self._database:
            for table in ("work", "explanations", "numbers"):
                self._database.execute(f"DELETE FROM {table} WHERE image = ? AND method = ?", (image, method))

    # Asking

    def images(self) -> list[ImageRow]:
        """All of them, in order."""
        query = "SELECT id, name, sha256, truth, sanity, top5 FROM images ORDER BY id"
        return [
            ImageRow(key, name, sha256, truth, bool(sanity), _tops(top5))
            for key, name, sha256, truth, sanity, top5 in self._all(query)
        ]

    def work(self, image: int | None = None) -> dict[tuple[int, str], str | None]:
        """What was done, by image and method: the error, None where there is none."""
        query, values = _of("SELECT image, method, error FROM work", image)
        return {(key, method): error for key, method, error in self._all(query, values)}

    def explanations(self, image: int | None = None) -> list[ExplanationRow]:
        """Of one image, or of all, in the order of images, methods' names and targets.

        Those of all come without their ledgers, which would be large.
        """
        columns = _COLUMNS if image is not None else _COLUMNS.replace("ledger", "'[]'")
        query, values = _of(f"SELECT {columns} FROM explanations", image)
        return [_as_row(columns) for columns in self._all(f"{query} ORDER BY image, method, place", values)]

    def numbers(self, image: int | None = None) -> list[NumberRow]:
        """Of one image, or of all."""
        query, values = _of("SELECT image, method, target, metric, value, error FROM numbers", image)
        return [
            NumberRow(key, method, json.loads(target), metric, value, error)
            for key, method, target, metric, value, error in self._all(query, values)
        ]

    def seconds(self) -> list[tuple[int, float]]:
        """What each image has taken so far."""
        query = (
            "SELECT image, sum(seconds) FROM "
            "(SELECT image, seconds FROM work UNION ALL SELECT image, seconds FROM numbers) GROUP BY image"
        )
        return [(image, seconds) for image, seconds in self._all(query)]

    def _all(self, query: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        with self._guarded():
            yield from self._database.execute(query, values).fetchall()

    def _write(self, command: str, values: tuple[Any, ...]) -> None:
        with self._guarded(), self._database:
            self._database.execute(command, values)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with in_words(self.path, KIND):
            yield


def open_state(path: Path) -> State:
    """Open the file, or make it; raises as `srd_onnx.database.open_database`."""
    return State(path, open_database(path, KIND))


def _of(query: str, image: int | None) -> tuple[str, tuple[Any, ...]]:
    return (query, ()) if image is None else (f"{query} WHERE image = ?", (image,))


def _tops(text: str | None) -> tuple[tuple[int, str | None, float], ...]:
    return tuple((index, label, score) for index, label, score in json.loads(text or "[]"))


def _number_columns(one: NumberRow, seconds: float) -> tuple[Any, ...]:
    return one.image, one.method, to_json(one.target), one.metric, one.value, one.error, seconds


def _as_columns(one: ExplanationRow) -> tuple[Any, ...]:
    at = one.places
    return (
        one.image, one.method, to_json(one.target), one.place, one.label, one.score, one.seed, one.total, one.residual,
        to_json(one.ledger), to_json(one.warnings), at.border, at.centre, at.inside, at.area, one.no_mask,
        to_json(one.shape), one.row, one.digest,
    )  # fmt: skip


def _as_row(columns: tuple[Any, ...]) -> ExplanationRow:
    image, method, target, place, label, score, seed, total, residual, ledger, warnings, *rest = columns
    border, centre, inside, area, no_mask, shape, row, digest = rest
    return ExplanationRow(
        image, method, json.loads(target), place, label, score, seed, total, residual,
        tuple((name, amount) for name, amount in json.loads(ledger)), tuple(json.loads(warnings)),
        Places(border, centre, inside, area), no_mask, tuple(json.loads(shape)), row, digest,
    )  # fmt: skip
