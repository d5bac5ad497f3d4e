"""The cache of compiled models: what comes back is what was made, and damage costs a compilation, never a wrong map."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graph_rules import EXPANSIONS, RULES
from srd_onnx import Explainer, Explanation
from srd_onnx.cache import place
from srd_onnx.cache.keys import all_ours, key_of
from srd_onnx.cache.store import Store
from srd_onnx.engine.compiling import runnable
from srd_onnx.errors import NonFiniteError
from srd_onnx.graph.ir import OpKey
from tests.cli_tools import document, run, saved
from tests.nets import small_cnn

X = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the cache is, in this test."""
    monkeypatch.setenv(place.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "compiled"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each compilation from here on."""
    calls: list[str] = []

    def counting(*given: Any, **named: Any) -> Any:
        calls.append("compiled")
        return runnable(*given, **named)

    monkeypatch.setattr("srd_onnx.cache.sessions.runnable", counting)
    return calls


def explained(model: Any = None, **options: Any) -> list[Explanation]:
    return Explainer(small_cnn() if model is None else model, providers="cpu", threads=1, **options).explain(
        X, [3], batch_size=2
    )


def same(a: list[Explanation], b: list[Explanation]) -> None:
    """Bit for bit, but for what times and dates say."""
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one.relevance, other.relevance, strict=True)
        np.testing.assert_array_equal(one.logits, other.logits, strict=True)
        assert (one.ledger, one.residual, one.target) == (other.ledger, other.residual, other.target)
        assert {k: v for k, v in one.meta.items() if k != "seconds"} == {
            k: v for k, v in other.meta.items() if k != "seconds"
        }


@pytest.mark.parametrize("preset", ["paper", "joint"])
def test_a_kept_model_explains_as_a_fresh_one(
    folder: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    first, second = explained(preset=preset), explained(preset=preset)
    assert len(compiled) == 1
    same(first, second)
    monkeypatch.setenv(place.VARIABLE, "off")
    same(first, explained(preset=preset))
    assert len(compiled) == 2
    assert len(list(folder.iterdir())) == 1


def test_directions_too(folder: Path, compiled: list[str]) -> None:
    first, second = (Explainer(small_cnn(), providers="cpu").explain(X[:1], "output[3]") for _ in range(2))
    assert len(compiled) == 1
    same(first, second)


def test_whatever_changes_the_model_changes_the_key(
    folder: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    explained()
    explained(small_cnn(seed=1))
    explained(preset="paper")
    explained(seed="logit")
    explained(compare=False)
    explained(small_cnn(batch=2))
    assert len(compiled) == 6
    explainer = Explainer(small_cnn(), providers="cpu")
    case = explainer.case(explainer.shown_shapes())

    def key() -> str:
        return key_of(explainer.model, explainer.fixed, case, explainer.providers)

    keys = {key()}
    for name, replaced in {"code": "other", "cpu": "other"}.items():
        monkeypatch.setattr(f"srd_onnx.cache.keys.{name}", lambda replaced=replaced: replaced)
        keys.add(key())
    monkeypatch.setattr("srd_onnx.ort.runtime.versions", dict)
    keys |= {key(), key_of(explainer.model, {"rate": 1}, case, explainer.providers)}
    keys.add(key_of(explainer.model, {}, case, ["CUDAExecutionProvider"]))
    assert len(keys) == 6


def test_rules_from_elsewhere_keep_nothing(folder: Path) -> None:
    assert all_ours(RULES, EXPANSIONS)
    assert not all_ours(RULES, {OpKey("x", "Y", 1): lambda *_: None})


def test_other_weights_under_a_metric_are_not_kept(folder: Path) -> None:
    Explainer(small_cnn(), providers="cpu").with_model(small_cnn(seed=2)).explain(X[:1])
    assert not folder.exists()


def flip(path: Path) -> None:
    """One bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("name", ["model.onnx", "weights.bin", "entry.json"])
@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_a_damaged_entry_is_made_again(
    folder: Path, compiled: list[str], damage: Callable[[Path], None], name: str
) -> None:
    first = explained()
    (entry,) = folder.iterdir()
    damage(entry / name)
    same(first, explained())
    assert len(compiled) == 2
    same(first, explained())
    assert len(compiled) == 2


def test_an_entry_that_fits_its_manifest_but_is_no_model(folder: Path, compiled: list[str]) -> None:
    first = explained()
    (entry,) = folder.iterdir()
    facts = Store(folder).entries()[0].facts
    (entry / "model.onnx").write_bytes(b"nothing")
    pending = Store(folder).pending(0)
    assert pending is not None
    for path in list(entry.iterdir()):
        path.rename(pending / path.name)
    (pending / "entry.json").unlink()
    entry.rmdir()
    Store(folder).keep(entry.name, pending, facts)
    assert Store(folder).find(entry.name) is not None
    same(first, explained())
    assert len(compiled) == 2


def test_where_nothing_can_be_written_nothing_is_kept(
    tmp_path: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(place.VARIABLE, str(tmp_path / "file"))
    same(explained(), explained())
    assert len(compiled) == 2


def test_a_full_disk_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("srd_onnx.cache.store._sum_of", refuse)
    assert explained()
    assert list(folder.iterdir()) == []


def test_why_a_kept_model_gives_nan_is_found_by_compiling_it(folder: Path, compiled: list[str]) -> None:
    explained()
    explainer = Explainer(small_cnn(), providers="cpu", threads=1)
    with pytest.raises(NonFiniteError, match=r"overflow|infinity|NaN"):
        explainer.explain(X * np.float32(1e30), [3], batch_size=2)
    assert len(compiled) == 1


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    store = Store(tmp_path, limit=250)

    def put(key: str) -> None:
        pending = store.pending(100)
        assert pending is not None
        (pending / "data").write_bytes(key.encode() * 100)
        store.keep(key, pending, {})

    put("a")
    put("b")
    os.utime(tmp_path / "b" / "entry.json", (1, 1))
    put("c")
    assert {entry.key for entry in store.entries()} == {"a", "c"}
    os.utime(tmp_path / "a" / "entry.json", (1, 1))
    os.utime(tmp_path / "c" / "entry.json", (2, 2))
    assert store.find("a") is not None  # which counts as a use
    put("d")
    assert {entry.key for entry in store.entries()} == {"a", "d"}
    assert store.pending(251) is None
    abandoned = store.pending(0)
    assert abandoned is not None
    os.utime(abandoned, (1, 1))
    put("e")
    assert not abandoned.exists()


def test_the_second_of_two_that_make_the_same_is_dropped(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for text in ("first", "second"):
        pending = store.pending(1)
        assert pending is not None
        (pending / "data").write_text(text)
        store.keep("k", pending, {"text": text})
    (entry,) = store.entries()
    assert entry.facts == {"text": "first"}
    assert (entry.folder / "data").read_text() == "first"
    assert len(list(tmp_path.iterdir())) == 1


_RACE = """
import hashlib, sys
from srd_onnx import Explainer
import numpy as np
x = np.ones((1, 3, 32, 32), np.float32)
for _ in range(4):
    print(hashlib.sha256(Explainer(sys.argv[1], providers="cpu", threads=1).explain(x, 3)[0].relevance).hexdigest())
"""


def test_processes_at_once_agree(folder: Path, tmp_path: Path) -> None:
    model = saved(small_cnn(), tmp_path / "m.onnx")
    command = [sys.executable, "-c", _RACE, str(model)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len({line for text in said for line in text.split()}) == 1
    assert len(list(folder.iterdir())) == 1


def test_external_data_is_part_of_the_key(folder: Path, tmp_path: Path) -> None:
    found = []
    for seed in (0, 1):
        path = tmp_path / "m.onnx"
        (tmp_path / "w").unlink(missing_ok=True)
        onnx.save(small_cnn(seed=seed), path, save_as_external_data=True, location="w", size_threshold=0)
        found.append(explained(path)[0].relevance)
    assert np.abs(found[0] - found[1]).max() > 0


# The command


def test_the_command_lists_and_clears(folder: Path, tmp_path: Path) -> None:
    model = saved(small_cnn(), tmp_path / "net.onnx")
    explained(model, preset="paper")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.suffix in (".onnx", ".bin"))
    listed = run("cache")
    said = " ".join(listed.stdout.split())
    assert "net.onnx paper input 1x3x32x32" in said
    assert f"1 compiled model, {size / 1e6:.1f} MB, kept; in {folder}" in said
    found = document(run("cache", "list", "--json"))
    assert (found["bytes"], found["folder"], found["cleared"]) == (size, str(folder), False)
    assert found["entries"][0]["model"] == str(model)
    assert "1 compiled model" in run("cache", "clear").stdout
    assert list(folder.iterdir()) == []
    assert document(run("cache", "--json"))["entries"] == []


def test_the_command_where_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(place.VARIABLE, "OFF")
    result = run("cache")
    assert result.exit_code == 0
    assert "SRD_ONNX_CACHE=off" in result.stderr
    assert place.store() is None


def test_the_usual_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(place.VARIABLE)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path)
    found = place.store()
    assert found is not None
    assert found.root == tmp_path / "compiled"


def test_a_manifest_is_plain_json(folder: Path) -> None:
    explained()
    (entry,) = folder.iterdir()
    body = json.loads(json.loads((entry / "entry.json").read_text())["body"])
    assert set(body["files"]) == {"model.onnx", "weights.bin"}
    assert body["facts"]["reading"]["batch"] == 1
