"""The parts of the benchmark of quality: what one process measures, and where it goes on."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import pasted_net, quality_parts
from benchmarks.halves import REPORTING
from benchmarks.pasted import CLASSES, PREPROCESS, SIDE, draw
from benchmarks.quality import parser, run, tasks_of
from benchmarks.quality_figures import FAITHFUL, POINTING, RANDOMISED
from benchmarks.quality_inputs import (
    CONTENDERS,
    OURS,
    Pictures,
    contender_of,
    finer_layer,
    name_for_files,
    pictures_of,
)
from benchmarks.quality_parts import (
    CHEAP,
    FEW,
    KINDS,
    MANY,
    Part,
    Task,
    done,
    load,
    load_all,
    metrics_of,
    save,
)
from srd_onnx.evaluation.masks import read_masks
from srd_onnx.evaluation.numbers import Row
from srd_onnx.inputs.preprocess import read_image
from srd_onnx.metrics import METRICS
from tests.evaluation_nets import explainer, photos
from tests.test_quality import level, parts_of


def test_a_part_survives_its_file_but_for_the_folders(tmp_path: Path) -> None:
    rows = (
        Row("/a/b/x.jpg", "00", 3, "cat", OURS, POINTING, 0.25, None, 1.5, 0.5, ("/a/x.jpg", "/a/y.jpg")),
        Row("/a/b/y.jpg", "", None, None, OURS, FAITHFUL, None, "no"),
        Row("/a/b/x.jpg", "00", 3, "cat", OURS, "max-sensitivity", float("inf"), None),
    )
    part = Part("m", OURS, CHEAP, 1, "ab", {"name": "srd"}, {POINTING: {"k": 1}}, "", "machine", 2.5, rows)
    save(part, tmp_path / "part.json")
    bare = (
        replace(rows[0], image="x.jpg", grid=("x.jpg", "y.jpg")),
        replace(rows[1], image="y.jpg"),
        replace(rows[2], image="x.jpg"),
    )
    assert load(tmp_path / "part.json") == replace(part, rows=bare)


@pytest.mark.parametrize("change", ["model", "seed", "target"])
def test_parts_of_different_models_seeds_or_classes_are_not_put_together(tmp_path: Path, change: str) -> None:
    first, second = parts_of({OURS: level(0.5), "gradcam": level(0.5)})[::2]
    save(first, tmp_path / "m" / "first.json")
    save(second, tmp_path / "m" / "second.json")
    assert len(load_all(tmp_path)) == 2
    other = {
        "model": replace(second, sha256="cd"),
        "seed": replace(second, seed=1),
        "target": replace(second, rows=tuple(replace(row, target=8) for row in second.rows)),
    }[change]
    save(other, tmp_path / "m" / "second.json")
    with pytest.raises(ValueError, match="gradcam"):
        load_all(tmp_path)


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """Of the colour net, with two metrics."""
    some = ("sparseness", FAITHFUL, RANDOMISED)
    monkeypatch.setattr(quality_parts, "base_of", lambda *_: explainer())
    monkeypatch.setattr(
        quality_parts, "metrics_of",
        lambda kind, masked: {k: v for k, v in metrics_of(kind, masked=masked).items() if k in some},
    )  # fmt: skip
    images = tuple(photos(tmp_path / "photos", "red", "green", "blue", "white"))
    return Task("net", "gradient-x-input", CHEAP, Pictures(images), tmp_path / "out", 0, "cpu", 1)


def test_a_task_that_was_stopped_goes_on(task: Task) -> None:
    assert done(replace(task, until=0.0)) is None
    assert not list(task.folder.glob("*/*.json"))
    first = done(task)
    assert first is not None
    again = done(task)
    assert again is not None
    # Seconds and all: what was there is not measured again.
    assert [vars(row) for row in again.rows] == [vars(row) for row in first.rows]
    assert {row.metric for row in first.rows} == {"sparseness", FAITHFUL}
    assert len(first.rows) == 8
    (read,) = load_all(task.folder)
    assert [row.value for row in read.rows] == [row.value for row in first.rows]
    assert "provider: CPUExecutionProvider" in read.machine


def test_metrics_of_many_maps_have_the_first_pictures(task: Task) -> None:
    found = done(replace(task, kind=MANY))
    assert found is not None
    assert [Path(row.image) for row in found.rows] == list(task.pictures.images[:FEW])


def test_what_cannot_explain_the_model_is_left_out_with_its_reason(task: Task) -> None:
    found = done(replace(task, contender="attention-rollout"))
    assert found is not None
    assert not found.rows
    assert "attention" in found.left_out


def test_every_metric_is_of_one_kind() -> None:
    cheap, many = (metrics_of(kind, masked=True) for kind in KINDS)
    assert not {*cheap} & {*many}
    assert {*cheap, *many} == {*METRICS}
    assert many["manipulation"].parameters["queries"] == 30
    assert {RANDOMISED, "random-logit", "max-sensitivity", "sufficiency"} <= {*many}
    assert "pointing-game" not in metrics_of(CHEAP, masked=False)


def test_pasted_pictures_are_those_that_the_network_knows_with_their_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pasted_net, "trained", lambda *_: SimpleNamespace(path=tmp_path))
    monkeypatch.setattr(pasted_net, "known", lambda _, drawn: np.arange(len(drawn.labels)) % 3 > 0)
    found = pictures_of(REPORTING[-1], tmp_path, 5)
    drawn = draw(40, [5, 6])[np.flatnonzero(np.arange(40) % 3)[:20]]
    assert len(found.images) == 20
    assert found.masks is not None
    masks = read_masks(found.masks)
    for row, path in enumerate(found.images):
        np.testing.assert_array_equal(read_image(path), drawn.photos[row])
        mask = masks.of(path, (SIDE, SIDE), PREPROCESS, 0)
        np.testing.assert_array_equal(mask.object, drawn.masks[row])
        assert path.stem.endswith(CLASSES[drawn.labels[row]])


def test_files_of_different_contenders_have_different_names() -> None:
    assert len({name_for_files(name) for name in CONTENDERS}) == len(CONTENDERS)


def test_a_cam_at_a_finer_layer_needs_one() -> None:
    base = explainer()  # its only inner layer has as many positions as its input
    assert finer_layer(base) is None
    assert isinstance(contender_of("gradcam-finer", base, 0), str)


def test_quick_tasks_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.quality.pictures_of", lambda *_: Pictures((Path("a"), Path("b"))))
    given = parser().parse_args(
        ["--out", str(tmp_path), "--methods", "rise:masks=1000,gradcam", "--images", "1"]
    )
    tasks = tasks_of(given, ["m"])
    assert [(t.contender, t.kind) for t in tasks] == [
        ("gradcam", CHEAP), ("gradcam", MANY), ("rise:masks=1000", CHEAP), ("rise:masks=1000", MANY)
    ]  # fmt: skip
    assert tasks[0].pictures.images == (Path("a"),)


def test_an_error_of_one_task_is_reported_and_no_task_begins_late(task: Task) -> None:
    wrong = replace(task, model="no such model")
    ((_, problem),) = run([wrong], 1, None)
    assert isinstance(problem, str)
    assert "no such model" in problem
    assert list(run([wrong], 1, 0.0)) == []
