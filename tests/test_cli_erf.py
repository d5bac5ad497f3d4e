"""`srd-onnx erf`: contact sheets of the PFVs that matter to a decision."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srd_onnx import Explainer
from srd_onnx.inside.contact import Choice, contacts
from srd_onnx.zoo import sample_photo
from tests.cli_tools import HOSTILE, check_refused, document, photo, run, saved, small
from tests.nets import small_cnn


def test_a_sheet_its_numbers_and_the_fields(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    result = run("erf", "squeezenet11", sample_photo(), "--layer", "/fires.3/Concat", "-o", out)
    assert result.exit_code == 0
    assert result.stderr == ""
    for said in ("/fires.3/Concat: Egyptian cat (class 285), logit 30.", "of the decision", "3 files are in"):
        assert said in result.stdout
    names = [f"chelsea.fires.3_Concat.erf.{kind}" for kind in ("json", "npz", "png")]
    assert sorted(path.name for path in out.iterdir()) == names
    with Image.open(out / names[2]) as picture:
        assert picture.width > 1500
    (right,) = contacts(Explainer("squeezenet11"), sample_photo(), "/fires.3/Concat", Choice())
    numbers = json.loads((out / names[0]).read_text())
    assert [one["position"] for one in numbers["pfvs"]] == right.erf.positions.tolist()
    assert [one["share"] for one in numbers["pfvs"]] == pytest.approx(right.shares.tolist(), rel=1e-4)
    with np.load(out / names[1]) as archive:
        assert set(archive.files) == {"positions", "maps", "relevance", "shares", "layer"}
        np.testing.assert_allclose(archive["maps"], right.erf.maps, rtol=1e-4, atol=1e-6)
        assert archive["maps"].shape == (12, 227, 227)


def test_positions_grids_and_a_target(tmp_path: Path) -> None:
    arguments = (
        "erf",
        small(tmp_path),
        photo(tmp_path / "a.png"),
        "-l",
        "add",
        "-o",
        tmp_path / "o",
        "--json",
    )
    some = document(run(*arguments, "--position", "3,4", "--position", "0, 15", "--contrast", "1", "2"))
    assert set(some) == {"command", "folder", "notes", "sheets"}
    (sheet,) = some["sheets"]
    assert (sheet["target"], sheet["layer"], sheet["of"]) == ("1-over-2", "add", 256)
    assert [one["position"] for one in sheet["pfvs"]] == [[3, 4], [0, 15]]
    assert sheet["files"]["png"] == "a.add.erf.png"
    (sheet,) = document(run(*arguments, "--grid", "2", "-t", "3"))["sheets"]
    assert [one["position"] for one in sheet["pfvs"]] == [[4, 4], [4, 12], [12, 4], [12, 12]]
    (sheet,) = document(run(*arguments, "--top", "5"))["sheets"]
    assert len(sheet["pfvs"]) == 5


def test_a_wildcard_writes_a_sheet_for_each_layer(tmp_path: Path) -> None:
    found = document(
        run("erf", small(tmp_path), photo(tmp_path / "a.png"), "-l", "relu*", "-o", tmp_path / "o", "--json")
    )
    assert [one["layer"] for one in found["sheets"]] == ["relu1", "relu2", "relu3", "relu4", "relu5"]
    assert len(list((tmp_path / "o").iterdir())) == 15


def test_the_encoder_is_the_default_and_hostile_names_do_no_harm(tmp_path: Path) -> None:
    model = small_cnn()
    for node in model.graph.node:
        node.name = f"../{HOSTILE}" if node.name == "relu5" else node.name
    result = run("erf", saved(model, tmp_path / "m.onnx"), photo(tmp_path / "a.png"), "-o", tmp_path / "o")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert len(list((tmp_path / "o").iterdir())) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png", "-l", "nope"], "'nope' is no layer that relevance crosses"),
        (["a.png", "-l", "rellu5"], "did you mean 'relu5'"),
        (["a.png", "--position", "8,0"], "position (8, 0) lies outside 'relu5', which has 8 × 8 positions"),
        (["a.png", "--position", "3"], "has 2 coordinates (8 × 8), not 1"),
        (["a.png", "--position", "x,3"], "--position 'x,3': give whole numbers, row and column, as 3,4"),
        (["a.png", "--position", "1,1", "--grid", "2"], "--position and --grid: give one of them"),
        (["a.png", "--top", "0"], "Invalid value for '--top'"),
        (["a.png", "-t", "1,2"], "fields are shown for one target, but 2 were given"),
        (["a.png", "-t", "top2"], "fields are shown for one target, but 'top2' is 2"),
        (["missing.png"], "missing.png: there is no such file"),
        (["bad.png"], "bad.png: not an image"),
        (["a.png", "-o", "a.png"], "a.png is a file, not a folder"),
    ],
)
def test_what_has_no_fields_is_said(tmp_path: Path, arguments: list[str], message: str) -> None:
    check_refused(tmp_path, "erf", arguments, message)


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    model, image = small(tmp_path), photo(tmp_path / "a.png")
    (tmp_path / "o" / "a.add.erf.json").mkdir(parents=True)
    result = run("erf", model, image, "-l", "add", "-o", tmp_path / "o")
    assert result.exit_code == 2
    assert "a.add.erf.json: a folder of that name is there" in result.stderr
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["a.add.erf.json"]
