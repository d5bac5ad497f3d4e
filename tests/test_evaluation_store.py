"""The store: what is in it, who may use it, and what a process that is killed leaves behind."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from srd_onnx.errors import OutputError
from srd_onnx.evaluation.store import Number, Place, Store, open_store

PLACE = Place("input", 3, '{"name": "srd"}')


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out" / "kept.sqlite"


def filled(path: Path) -> Store:
    store = open_store(path)
    store.use({"seed": 0})
    return store


def test_a_number_comes_back_as_it_was(path: Path) -> None:
    values = [0.1, -1e-300, float("inf"), None]
    with filled(path) as store:
        for index, value in enumerate(values):
            store.add(PLACE, str(index), Number(value, 0.5, 0.25))
    with filled(path) as store:
        assert [store.number(PLACE, str(i)) for i in range(4)] == [Number(v, 0.5, 0.25) for v in values]
        assert store.number(PLACE, "other") is None
        assert store.number(Place("input", 4, PLACE.method), "0") is None
        assert store.count() == 4
        store.use({"seed": 1})
        assert store.number(PLACE, "0") is None
        assert store.count() == 0


def test_a_map_comes_back_in_255_levels(path: Path) -> None:
    drawn = np.random.default_rng(0).uniform(-1, 1, (7, 5))
    with filled(path) as store:
        assert store.map(PLACE) is None
        store.add_map(PLACE, drawn)
        found = store.map(PLACE)
    assert found is not None
    np.testing.assert_allclose(found, drawn, rtol=0, atol=0.5 / 127 + 1e-6)


def test_two_at_a_time_are_refused(path: Path) -> None:
    with (
        filled(path),
        pytest.raises(OutputError, match=r"kept.sqlite is in use: another `srd-onnx evaluate` writes there"),
    ):
        open_store(path)
    filled(path).__exit__()


def test_a_foreign_a_newer_and_a_damaged_file_are_refused(path: Path) -> None:
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE cats (name TEXT)")
    other.commit()
    other.close()
    with pytest.raises(OutputError, match="is a database, but not one of srd-onnx"):
        open_store(path)
    path.write_bytes(b"no database at all, " * 100)
    with pytest.raises(OutputError, match="is damaged, or no database"):
        open_store(path)
    path.unlink()
    filled(path).__exit__()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(OutputError, match=r"another version of srd-onnx \(format 99, this is 1\)"):
        open_store(path)


def test_a_damaged_page_is_found(path: Path) -> None:
    with filled(path) as store:
        for index in range(500):
            store.add(PLACE, f"{index}", Number(1.0, 0.0, 0.0))
    data = bytearray(path.read_bytes())
    data[8192:12288] = os.urandom(4096)
    path.write_bytes(data)
    with pytest.raises(OutputError, match="is damaged"):
        open_store(path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        open_store(tmp_path / "file" / "kept.sqlite")
    (tmp_path / "kept.sqlite").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        open_store(tmp_path / "kept.sqlite")


KILLED = """
import os, signal, sys
from srd_onnx.evaluation.store import Number, Place, open_store
store = open_store(sys.argv[1])
store.use({"seed": 0})
for index in range(int(sys.argv[2])):
    store.add(Place("input", 3, "srd"), str(index), Number(index, 0.0, 0.0))
store._database.execute("INSERT INTO numbers VALUES (1, 'half', 3, 'srd', 'x', 0.0, 0.0, 0.0)")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_process_killed_within_a_number_leaves_those_before_it(path: Path, count: int) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(count)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    with filled(path) as store:
        assert store.count() == count
        assert store.number(Place("half", 3, "srd"), "x") is None
