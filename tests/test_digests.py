"""Digests of model files that were loaded before."""

import hashlib
import json
import os
from pathlib import Path

import onnx
import pytest

from srd_onnx.cache import digests, place
from srd_onnx.cache.digests import Digests
from srd_onnx.graph import load
from srd_onnx.graph.load import load_model
from tests.cli_tools import saved
from tests.nets import small_cnn


@pytest.fixture
def remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Digests:
    """As if every file had been there for long."""
    monkeypatch.setattr(digests, "_SETTLED", -1)
    return Digests(tmp_path / "cache" / "digests.json", "this code")


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each run of onnx.checker from here on."""
    calls: list[str] = []
    check = load._check

    def counting(proto: onnx.ModelProto, data: bytes | None, where: str) -> None:
        calls.append(where)
        check(proto, data, where)

    monkeypatch.setattr(load, "_check", counting)
    return calls


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_was_loaded_before_is_neither_hashed_nor_checked(
    remembered: Digests, checks: list[str], tmp_path: Path
) -> None:
    path = saved(small_cnn(), tmp_path / "m.onnx")
    first, second = load_model(path, remembered), load_model(path, remembered)
    assert first.sha256 == second.sha256 == sha256(path)
    assert first == second
    assert len(checks) == 1


def test_a_change_that_sets_size_and_time_back_is_seen(
    remembered: Digests, checks: list[str], tmp_path: Path
) -> None:
    path = saved(small_cnn(), tmp_path / "m.onnx")
    load_model(path, remembered)
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert load_model(path, remembered).sha256 == sha256(path)
    assert len(checks) == 2


def test_another_file_in_its_place_is_seen(remembered: Digests, tmp_path: Path) -> None:
    path = saved(small_cnn(), tmp_path / "m.onnx")
    load_model(path, remembered)
    saved(small_cnn(seed=1), tmp_path / "other.onnx").replace(path)
    assert load_model(path, remembered).sha256 == sha256(path)


def test_other_code_checks_again(remembered: Digests, checks: list[str], tmp_path: Path) -> None:
    path = saved(small_cnn(), tmp_path / "m.onnx")
    load_model(path, remembered)
    load_model(path, Digests(remembered.path, "other code"))
    assert len(checks) == 2


def test_a_file_of_just_now_is_not_remembered(tmp_path: Path) -> None:
    found = Digests(tmp_path / "digests.json", "this code")
    load_model(saved(small_cnn(), tmp_path / "m.onnx"), found)
    assert not found.path.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"/m": 1}', "\0"])
def test_damage_is_forgotten(remembered: Digests, tmp_path: Path, text: str) -> None:
    path = saved(small_cnn(), tmp_path / "m.onnx")
    remembered.path.parent.mkdir()
    remembered.path.write_text(text.replace("/m", str(path)))
    assert load_model(path, remembered).sha256 == sha256(path)
    assert remembered.find(path) == sha256(path)


def test_only_so_many_are_remembered(
    remembered: Digests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_MOST", 2)
    paths = [saved(small_cnn(seed=seed), tmp_path / f"{seed}.onnx") for seed in range(3)]
    for path in paths:
        load_model(path, remembered)
    assert list(json.loads(remembered.path.read_text())) == [str(path) for path in paths[1:]]


def test_a_folder_that_cannot_be_made_is_no_error(remembered: Digests, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    path = saved(small_cnn(), tmp_path / "m.onnx")
    assert load_model(path, remembered).sha256 == sha256(path)


def test_external_data_is_hashed_each_time(remembered: Digests, checks: list[str], tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(small_cnn(), path, save_as_external_data=True, location="w", size_threshold=0)
    assert load_model(path, remembered).sha256 == load_model(path, remembered).sha256
    assert len(checks) == 2
    assert not remembered.path.exists()


def test_off_means_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(place.VARIABLE, "off")
    assert place.digests("this code") is None
