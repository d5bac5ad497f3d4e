"""Explanations: what is saved can be read again, and nothing half-written is left."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srd_onnx.errors import InputError, OutputError
from srd_onnx.explanation import Explanation, load_meta
from srd_onnx.files import atomic_write, atomic_write_all, atomic_write_each, sha256_of, to_json
from srd_onnx.pictures.render import overlay

META = {
    "preset": "paper",
    "model": {"sha256": "ab" * 32},
    "opset": 13,
    "ticks": [1, 2.5, None, True],
    "ü": "猫",
}


def explanation(**changes: Any) -> Explanation:
    rng = np.random.default_rng(5)
    given: dict[str, Any] = {
        "relevance": rng.normal(size=(20, 30)).astype(np.float32),
        "target": 2,
        "logits": np.array([0.5, -1, 3.25], np.float32),
        "ledger": {"conv/1": 0.25},
        "residual": 1e-7,
        "meta": META,
        "image": rng.integers(0, 256, (20, 30, 3), np.uint8),
        "label": "cat",
        "name": "chelsea",
    }
    return Explanation(**(given | changes))


def test_both_files_are_written_under_name_and_target(tmp_path: Path) -> None:
    paths = explanation().save(tmp_path / "new" / "folder")
    assert paths == {kind: tmp_path / "new" / "folder" / f"chelsea.2.{kind}" for kind in ("png", "npz")}
    assert sorted(path.name for path in paths["png"].parent.iterdir()) == ["chelsea.2.npz", "chelsea.2.png"]
    assert paths["png"].read_bytes() == explanation().png()


def test_the_archive_holds_everything_without_pickle(tmp_path: Path) -> None:
    saved = explanation()
    path = saved.save(tmp_path)["npz"]
    with np.load(path, allow_pickle=False) as archive:
        assert sorted(archive) == sorted(
            ["relevance", "target", "logits", "residual", "name", "label", "ledger", "meta"]
        )
        assert archive["relevance"].dtype == np.float32
        np.testing.assert_array_equal(archive["relevance"], saved.relevance)
        np.testing.assert_array_equal(archive["logits"], saved.logits)
        assert (int(archive["target"]), float(archive["residual"])) == (2, 1e-7)
        assert (str(archive["name"]), str(archive["label"])) == ("chelsea", "cat")
        assert json.loads(str(archive["ledger"])) == {"conv/1": 0.25}
        assert json.loads(str(archive["meta"])) == META
    assert load_meta(path) == META


def test_the_same_explanation_gives_the_same_bytes() -> None:
    assert explanation().npz() == explanation().npz()


def test_saving_again_replaces(tmp_path: Path) -> None:
    explanation().save(tmp_path)
    path = explanation(residual=2.0).save(tmp_path)["npz"]
    with np.load(path, allow_pickle=False) as archive:
        assert float(archive["residual"]) == 2.0


def test_a_hostile_name_stays_in_the_folder(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    paths = explanation(name="../../x\0/\n" + "y" * 400, label="../../z").save(inner)
    assert all(path.parent == inner for path in paths.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inner"]
    assert all(len(path.name) < 100 for path in paths.values())


def test_title_and_score_name_the_target() -> None:
    assert explanation().title == "cat (class 2)"
    assert explanation(label=None).title == "class 2"
    assert explanation().score == 3.25


def test_the_overlay_is_that_of_the_image() -> None:
    e = explanation()
    assert e.image is not None
    np.testing.assert_array_equal(e.overlay(), overlay(e.image, e.relevance))


def test_without_an_image_there_is_no_overlay_but_a_picture(tmp_path: Path) -> None:
    e = explanation(image=None)
    with pytest.raises(InputError, match=r"^chelsea: there is no image to lay the relevance over"):
        e.overlay()
    assert e.save(tmp_path)["png"].stat().st_size > 1000


def test_an_output_folder_that_is_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("I am a file")
    with pytest.raises(OutputError) as caught:
        explanation().save(tmp_path / "out")
    assert str(caught.value) == (
        f"cannot write {tmp_path / 'out' / 'chelsea.2.png'}: File exists. Choose another folder, "
        "or make this one writable and free some space."
    )


def test_a_full_disk_leaves_nothing_and_keeps_the_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = explanation().save(tmp_path)
    before = {kind: path.read_bytes() for kind, path in old.items()}
    calls: list[int] = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 2:  # the second file: the first one is complete by then
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OutputError, match=r"cannot write .*chelsea\.2\.npz: No space left on device\. Choose"
    ):
        explanation(residual=9.0).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chelsea.2.npz", "chelsea.2.png"]
    assert {kind: path.read_bytes() for kind, path in old.items()} == before


def test_an_interrupt_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "a", b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_the_files_name_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(OutputError, match=r"/b: a folder of that name is there\."):
        atomic_write_all({tmp_path / "a": b"1", tmp_path / "b": b"2"})
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_pieces_are_written_as_they_come_and_seen_together(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a"

    def pieces() -> Iterator[bytes]:
        for number in range(5):
            assert not path.exists()
            yield b"%d" % number

    assert atomic_write_each(path, pieces()).read_bytes() == b"01234"
    assert [one.name for one in path.parent.iterdir()] == ["a"]


def test_pieces_that_cannot_be_written_are_an_error_and_leave_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"before")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*/a: No space left on device"):
        atomic_write_each(tmp_path / "a", iter([b"x"]))
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("a", b"before")]


def test_a_written_file_has_the_usual_permissions_and_digest(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"abc")
    path = atomic_write(tmp_path / "a", b"abc")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_numpy_values_become_json_and_nan_becomes_text() -> None:
    value = {"a": np.float32(0.5), "b": np.arange(2), "c": (Path("x"), float("nan")), 3: np.int64(4)}
    assert json.loads(to_json(value)) == {"a": 0.5, "b": [0, 1], "c": ["x", "nan"], "3": 4}
    with pytest.raises(TypeError, match=r"^object has no JSON form"):
        to_json({"a": object()})
