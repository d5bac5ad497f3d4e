"""An audit: its rows, what goes wrong with images, disks and names, and what is gone on with."""

import csv
import dataclasses
import os
import re
import resource
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from PIL import Image

from srd_onnx.audit.config import Asked, Config, Data
from srd_onnx.audit.images import read_truth
from srd_onnx.audit.maps import open_maps
from srd_onnx.audit.output import CSV, HTML, IMAGES, MAPS, STATE
from srd_onnx.audit.places import outlying, places_of
from srd_onnx.audit.run import run_audit
from srd_onnx.audit.state import open_state
from srd_onnx.audit.verify import verify
from srd_onnx.audit.work import work
from srd_onnx.errors import AuditError, ImageError, OptionError, OutputError
from srd_onnx.evaluation.inputs import seed_of
from srd_onnx.inputs.preprocess import read_image
from srd_onnx.methods import method_named
from srd_onnx.metrics import metric_named
from srd_onnx.metrics.metric import Explained
from srd_onnx.metrics.probe import probe_of
from tests.audit_tools import QUICK, SHOWN, audited, colours, document, folder, rows, small
from tests.cli_tools import HOSTILE, run
from tests.evaluation_nets import photo_of


def test_rows_are_what_the_library_gives(tmp_path: Path) -> None:
    asked = dataclasses.replace(QUICK, targets=("top2",), methods=("srd", "saliency"))
    audited(tmp_path, explain=asked)
    explainer = colours(tmp_path / "model.onnx")
    with open_state(tmp_path / "out" / STATE) as state:
        images, numbers = state.images(), state.numbers()
        found = [row for image in images for row in state.explanations(image.id)]
    assert len(found) == 4 * 2 * 2
    assert (
        len(numbers) == 4 * 2 * 2 * 2 + 2 * 4
    )  # and one image's first target, by four sanity metrics and two methods
    maps = open_maps(tmp_path / "out" / MAPS, 16, read_only=True)
    for row in found:
        path = tmp_path / "images" / images[row.image].name
        method = explainer if row.method == "srd" else explainer.with_method(method_named("saliency"))
        (one,) = method.explain(path, row.target)
        kept = maps.read(row.row, row.shape, row.digest)
        assert kept is not None
        np.testing.assert_array_equal(kept, one.relevance)
        assert (row.score, row.residual, row.label) == (one.score, one.residual, one.label)
        assert dict(row.ledger) == one.ledger
        assert row.booked == pytest.approx(sum(one.ledger.values()), abs=1e-6)
        probe, data = probe_of(method), explainer.preprocess(read_image(path)).transpose(2, 0, 1)
        asked_of = Explained(
            probe,
            data,
            int(row.target),
            one.relevance.astype(np.float64),
            seed_of(0, images[row.image].sha256),
            row.seed,
        )
        own = {
            n.metric: n.value
            for n in numbers
            if (n.image, n.method, n.target) == (row.image, row.method, row.target)
        }
        expected = metric_named("sparseness").score(asked_of)
        assert own["sparseness"] == (None if np.isnan(expected) else pytest.approx(expected))
    assert sum(number.value is not None for number in numbers) > 16


def test_a_rerun_computes_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = audited(tmp_path)
    before = {table: rows(tmp_path / "out", table) for table in ("work", "explanations", "numbers")}
    html = (tmp_path / "out" / HTML).read_bytes()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it was done before")

    monkeypatch.setattr("srd_onnx.audit.work._Worker.begin", refuse)
    monkeypatch.setattr("srd_onnx.audit.work._Worker.keep", refuse)
    monkeypatch.setattr("srd_onnx.audit.work._Worker._number", refuse)
    assert audited(tmp_path).answer == first.answer
    assert {table: rows(tmp_path / "out", table) for table in before} == before
    assert (tmp_path / "out" / HTML).read_bytes() == html


@pytest.mark.parametrize("threads", [1, 3])
def test_images_side_by_side_give_what_one_after_the_other_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    audited(tmp_path / "one")
    monkeypatch.setattr("srd_onnx.lanes.usable", lambda: threads)
    audited(tmp_path / "more")
    assert not [one for one in threading.enumerate() if one.name.startswith("srd-onnx")]
    for table in ("explanations", "numbers"):
        assert rows(tmp_path / "more" / "out", table) == rows(tmp_path / "one" / "out", table)


def test_a_map_that_was_lost_is_computed_again(tmp_path: Path) -> None:
    audited(tmp_path)
    before = rows(tmp_path / "out", "explanations")
    chunks = sorted((tmp_path / "out" / MAPS / "16x16").glob("[0-9]*"))
    content = [chunk.read_bytes() for chunk in chunks]
    chunks[0].unlink()
    chunks[1].write_bytes(b"")
    chunks[2].write_bytes(content[2][:-3] + b"xyz")
    audited(tmp_path)
    assert [chunk.read_bytes() for chunk in chunks] == content
    assert rows(tmp_path / "out", "explanations") == before


def test_another_model_configuration_or_image_is_refused(tmp_path: Path) -> None:
    audited(tmp_path)
    images = tmp_path / "images"
    kept = (images / "1_green.png").read_bytes()
    photo_of(images / "1_green.png", "red", seed=9)
    (images / "0_red.png").rename(images / "5_red.png")
    with pytest.raises(AuditError) as refused:
        audited(tmp_path, explain=dataclasses.replace(QUICK, seed=3))
    for said in (
        "seed is another: 0 is now 3",
        "1 image is changed: 1_green.png",
        "no longer there: 0_red",
        "new: 5_red",
    ):
        assert said in str(refused.value)
    (images / "5_red.png").rename(images / "0_red.png")
    (images / "1_green.png").write_bytes(kept)
    audited(tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    model.graph.initializer[0].float_data[:] = []
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w"))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(AuditError, match=r"the model has another sha256: .* is now"):
        audited(tmp_path)
    assert verify(tmp_path / "out", sample=0).problems == ()  # what was refused has changed nothing


def test_images_of_every_kind(tmp_path: Path) -> None:
    images = tmp_path / "images"
    (images / "deeper").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (20, 24, 3), np.uint8)
    cv2.imwrite(str(images / "sixteen.png"), rng.integers(0, 65536, (20, 24, 3)).astype(np.uint16))
    Image.fromarray(rgb).convert("CMYK").save(images / "cmyk.jpg")
    Image.fromarray(rgb[:, :, 0]).save(images / "grey.png")
    frames = [Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)) for _ in range(3)]
    frames[0].save(images / "animated.gif", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb).save(images / "deeper" / "turned.jpg", exif=exif)
    (images / "cut.png").write_bytes((images / "grey.png").read_bytes()[:-30])
    (images / "empty.jpg").write_bytes(b"")
    (images / "text.png").write_text("no picture")
    header = (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (100_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    )
    (images / "huge.png").write_bytes(header)
    (images / "link.png").symlink_to(images / "nowhere.png")
    (images / "notes.txt").write_text("not asked about")
    explainer = small(tmp_path / "model.onnx")
    outcome = run_audit(explainer, images, Config(QUICK, report=SHOWN), tmp_path / "out", command=("audit",))
    assert (outcome.images, outcome.usable) == (10, 5)
    found = {one.image: one.message for one in outcome.findings if one.rule == "unusable-image"}
    said = {
        "cut.png": "cut off", "empty.jpg": "is empty", "text.png": "not an image",
        "huge.png": "more than the limit", "link.png": "there is no such file",
    }  # fmt: skip
    assert set(found) == set(said)
    for name, words in said.items():
        assert words in found[name]
    html = (tmp_path / "out" / HTML).read_text()
    assert all(name in html for name in (*said, "sixteen.png", "deeper/turned.jpg"))
    (one,) = explainer.explain(images / "deeper" / "turned.jpg")
    kept = {row[0]: row for row in rows(tmp_path / "out", "images")}
    with open_state(tmp_path / "out" / STATE) as state:
        turned = next(image for image in state.images() if image.name == "deeper/turned.jpg")
        (row,) = state.explanations(turned.id)
    assert row.score == one.score
    assert len(kept) == 10


def test_a_folder_without_images_and_one_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(ImageError, match="is a folder without images"):
        audited(tmp_path)
    with pytest.raises(ImageError, match="is not a folder of images"):
        run_audit(colours(tmp_path / "model.onnx"), tmp_path / "no", Config(), tmp_path / "out")


def test_the_report_in_the_folder_of_images_is_not_audited(tmp_path: Path) -> None:
    folder(tmp_path / "images")
    audited(tmp_path, name="images/out")
    photo_of(tmp_path / "images" / "out" / "picture.png", "red")
    assert audited(tmp_path, name="images/out").images == 4


def test_hostile_names_do_nothing(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    names = [
        "=cmd|' C calc'!A0.png", "<script>alert(1)<_script>.png", '"onload="x.png', "猫\u202egnp.png", "-2+3.png",
        "@SUM(A1).png", "new\nline.png", "..png",
    ]  # fmt: skip
    for number, name in enumerate(names):
        photo_of(tmp_path / "p.png", "red", seed=number)
        shutil.move(tmp_path / "p.png", images / name)
    shutil.copy(images / "-2+3.png", os.fsdecode(os.fsencode(images) + b"/\xff.png"))
    explainer = colours(tmp_path / "model.onnx")
    explainer.labels = (HOSTILE, "</script><img src=x onerror=alert(1)>", "=1+1", "../../x")
    run_audit(explainer, images, Config(QUICK, report=SHOWN), tmp_path / "out", command=("srd-onnx", HOSTILE))
    html = (tmp_path / "out" / HTML).read_text()
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    with (tmp_path / "out" / CSV).open(newline="") as file:
        table = list(csv.DictReader(file))
    assert {row["image"] for row in table} >= {
        "'=cmd|' C calc'!A0.png",
        "'-2+3.png",
        "'@SUM(A1).png",
        "\\xff.png",
    }
    for row in table:
        assert not any(cell.startswith(("=", "@", "+", "\t", "\r", "\n")) for cell in row.values())
        assert all(re.fullmatch(r"-[0-9.e-]+", cell) for cell in row.values() if cell.startswith("-"))
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", tmp_path / "out" / IMAGES],
        cwd=images,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.count(": OK")) == (
        1,
        len(names),
    )  # all but the one whose name is no text
    written = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert written == {"images", "model.onnx", "out"}


def test_a_full_disk_is_one_message_and_nothing_half_done(tmp_path: Path) -> None:
    explainer = colours(tmp_path / "model.onnx")
    folder(tmp_path / "images", 8)
    config = Config(QUICK, report=SHOWN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 2000, 40_000):  # a file that grows beyond it is what a full disk is to a program
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(OutputError, match=r"Choose another|free some space"):
                run_audit(explainer, tmp_path / "images", config, tmp_path / "out", command=("audit",))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "out" / "manifest.json").exists()
    run_audit(explainer, tmp_path / "images", config, tmp_path / "out", command=("audit",))
    assert (tmp_path / "out" / "manifest.json").exists()
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        audited(tmp_path, name="file/out")


def test_an_image_that_changes_meanwhile_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "images")

    def later(*arguments: Any) -> None:
        photo_of(tmp_path / "images" / "2_blue.png", "white", seed=5)
        work(*arguments)

    monkeypatch.setattr("srd_onnx.audit.run.work", later)
    with pytest.raises(AuditError, match=r"2_blue.png was changed while it was being audited"):
        audited(tmp_path)


def test_true_classes_masks_and_suspects(tmp_path: Path) -> None:
    images = folder(tmp_path / "images")
    truth = tmp_path / "truth.csv"
    truth.write_text("file,class\n0_red.png,red\n1_green.png,0\n2_blue.png,2\n")
    masks = tmp_path / "masks"
    masks.mkdir()
    left = np.zeros((16, 16), np.uint8)
    left[:, :8] = 255
    for name in ("0_red", "1_green"):
        cv2.imwrite(str(masks / f"{name}.png"), left)
    for name, black in (("0_red", slice(0, 8)), ("1_green", slice(8, 16))):
        half = read_image(images / f"{name}.png").copy()
        half[:, black] = 0  # what makes it red is to the right of the mask, what makes it green is in it
        cv2.imwrite(str(images / f"{name}.png"), half[:, :, ::-1])
    outcome = audited(tmp_path, data=Data(truth=truth, masks=masks))
    by_rule = {(one.rule, one.image) for one in outcome.findings}
    assert ("shortcut-suspect", "0_red.png") in by_rule
    assert ("shortcut-suspect", "1_green.png") not in by_rule
    assert ("wrong-prediction", "1_green.png") in by_rule
    assert ("wrong-prediction", "2_blue.png") not in by_rule
    assert ("missing-mask", "2_blue.png") in by_rule
    assert any("2 of 3 images (67%)" in sentence for sentence in outcome.answer)
    assert document(tmp_path / "out")["setup"]["truth"] == {"0_red.png": 0, "1_green.png": 0, "2_blue.png": 2}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.png,0\nnone.png,1", "row 2: there is no image 'none.png'"),
        ("a.png,0\na.png,1", "'a.png' has a class already"),
        ("a.png,tiger", "'tiger' is no class of the model"),
        ("a.png,cat", "'cat' names several classes"),
        ("a.png", "1 columns"),
    ],
)
def test_true_classes_that_are_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(OptionError, match=said):
        read_truth(path, ["a.png"], ["dog", "cat, tabby", "cat"])


def test_what_cannot_be_asked_is_said_before_any_work(tmp_path: Path) -> None:
    for asked, said in (
        (Asked(metrics=("grid-pointing-game",)), "evaluate"),
        (Asked(metrics=("pointing-game",)), "give masks"),
        (Asked(metrics=("beauty",)), "beauty"),
        (Asked(methods=("srd", "srd")), "named twice"),
        (Asked(methods=("magic",)), "magic"),
    ):
        with pytest.raises(OptionError, match=said):
            audited(tmp_path, explain=asked)
    assert not (tmp_path / "out").exists()


def test_places_by_hand() -> None:
    relevance = np.zeros((10, 10))
    relevance[0, 0], relevance[5, 5], relevance[2, 7], relevance[9, 9] = 1, 2, 3, -7
    mask, ignored = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    mask[5, 5], ignored[0, 0] = True, True
    found = places_of(relevance, mask, ignored)
    assert found.border == pytest.approx(1 / 6)
    assert found.centre == pytest.approx(2 / 6)
    assert found.inside == pytest.approx(2 / 5)
    assert found.area == pytest.approx(1 / 99)
    flat = places_of(np.ones((10, 10)))
    assert flat.border == pytest.approx(0.36)
    assert flat.centre == pytest.approx(0.25)
    assert places_of(-relevance * 0).border is None


def test_outlying_by_hand() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 30.0, np.nan])
    # median 3.5, deviations 2.5 1.5 0.5 0.5 1.5 26.5: MAD 1.5, so that 30 has z = 0.6745 · 26.5 / 1.5 = 11.9
    assert outlying(values).tolist() == [False] * 5 + [True, False]
    assert not outlying(np.array([1.0, 1.0, 1.0, 9.0])).any()


def test_the_command(tmp_path: Path) -> None:
    folder(tmp_path / "images")
    colours(tmp_path / "model.onnx")
    (tmp_path / "images" / "bad.png").write_text("bad")
    config = tmp_path / "a.toml"
    config.write_text(
        '[explain]\nmetrics = ["sparseness"]\nsanity_images = 0\n[report]\nexplored = 0\npdf = false\n'
    )
    done = run(
        "audit", tmp_path / "model.onnx", tmp_path / "images", "-o", tmp_path / "o", "--config", config,
        "--scale", "1/255", "--resize", "none", "--crop", "none", "--channel-order", "RGB", "--layout", "NCHW",
        "--target", "1",
    )  # fmt: skip
    assert done.exit_code == 1
    assert "4 of 5 images were explained" in done.stdout
    assert document(tmp_path / "o")["setup"]["targets"] == ["1"]
    assert run("audit").exit_code == 2
