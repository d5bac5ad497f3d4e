"""`srd-onnx evaluate`: what it writes and says; killed, stopped and run again; and `methods`, `metrics`, `--method`."""

import csv
import io
import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from srd_onnx.cli.evaluate import USUAL_METHODS, USUAL_METRICS, several
from srd_onnx.cli.pace import Pace
from srd_onnx.errors import OptionError
from srd_onnx.evaluation.numbers import Row
from srd_onnx.methods import METHODS, SRD
from srd_onnx.metrics import METRICS
from tests.cli_tools import command, document, run, saved
from tests.evaluation_nets import colour_net, photos
from tests.nets import model_of

PLACE = (
    "--scale",
    "1/255",
    "--resize",
    "none",
    "--crop",
    "none",
    "--channel-order",
    "RGB",
    "--layout",
    "NCHW",
)
QUICK = (
    "--methods",
    "srd,saliency,gradient-x-input",
    "--metrics",
    "sparseness,completeness,insertion:steps=4",
)
FILES = {"evaluation.csv", "evaluation.json", "evaluation.png", "evaluation.sqlite"}


def model(folder: Path) -> Path:
    return saved(colour_net(), folder / "colours.onnx")


def table(path: Path, *, timed: bool = False) -> list[dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO((path / "evaluation.csv").read_text())))
    return rows if timed else [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


def test_a_folder_becomes_tables_a_csv_a_json_and_a_sheet(tmp_path: Path) -> None:
    photos(tmp_path / "p", "red", "green", "blue", "white")
    out = tmp_path / "out"
    result = run("evaluate", model(tmp_path), tmp_path / "p", *PLACE, *QUICK, "-o", out)
    assert result.exit_code == 0
    assert result.stderr == ""
    for said in (
        "sparseness ↑",
        "completeness ↓",
        "mean rank of 3",
        "saliency",
        "means over 4 images with 95 %",
    ):
        assert said in result.stdout
    assert {path.name for path in out.iterdir()} == FILES
    rows = table(out)
    assert len(rows) == 4 * 3 * 3
    assert [row["image"] for row in rows] == sorted(row["image"] for row in rows)
    assert rows[2]["metric"] == "insertion:steps=4"
    assert "steps=4" in rows[2]["metric_parameters"]
    assert rows[0]["method_parameters"].startswith("preset=")
    assert {row["label"] for row in rows} == {""}
    with Image.open(out / "evaluation.png") as picture:
        assert picture.width > 1000
        assert picture.height > picture.width


def test_the_json_holds_all_and_is_what_the_file_says(tmp_path: Path) -> None:
    photos(tmp_path / "p", "red", "blue")
    out = tmp_path / "out"
    found = document(
        run("evaluate", model(tmp_path), tmp_path / "p", *PLACE, *QUICK, "-o", out, "--json", "--seed", "5")
    )
    assert json.loads((out / "evaluation.json").read_text()) == found
    assert set(found) == {
        "command", "created", "model", "layout", "fixed", "seed", "provider", "versions", "preprocess", "rows",
        "preprocess_assumed", "notes", "methods", "left_out", "metrics", "interval", "averages", "ranks",
    }  # fmt: skip
    assert found["seed"] == found["interval"]["seed"] == 5
    assert found["metrics"]["insertion:steps=4"]["parameters"]["steps"] == 4
    values = [
        row["value"] for row in found["rows"] if (row["method"], row["metric"]) == ("saliency", "sparseness")
    ]
    (mean,) = (
        one for one in found["averages"] if (one["method"], one["metric"]) == ("saliency", "sparseness")
    )
    assert (mean["mean"], mean["count"]) == (pytest.approx(np.mean(values)), 2)
    assert set(found["ranks"]) == {"srd", "saliency", "gradient-x-input"}
    assert set(found["ranks"]["srd"]) == {"complexity", "axiomatic", "faithfulness", "all"}


def test_what_is_usual_exists_and_runs(tmp_path: Path) -> None:
    assert set(USUAL_METRICS) <= set(METRICS)
    assert set(USUAL_METHODS) <= {SRD, *METHODS}
    photos(tmp_path / "p", "red", "green", "blue", "white")
    found = document(run("evaluate", model(tmp_path), tmp_path / "p", *PLACE, "-o", tmp_path, "--json"))
    assert "grid-pointing-game" in found["metrics"]
    assert "pointing-game" not in found["metrics"]


def test_masks_bring_their_metrics(tmp_path: Path) -> None:
    images = photos(tmp_path / "p", "red", "blue")
    (tmp_path / "m").mkdir()
    ids = np.zeros((16, 16, 3), np.uint8)
    ids[4:9, 2:12, 2], ids[10:, 10:, 2] = 1, 2
    for image in images:
        cv2.imwrite(str(tmp_path / "m" / image.name), ids)
    classes = tmp_path / "classes.txt"
    classes.write_text("0\n2\n")
    arguments = (
        "evaluate",
        model(tmp_path),
        tmp_path / "p",
        *PLACE,
        "--methods",
        "srd",
        "-o",
        tmp_path / "o",
        "--json",
    )
    found = document(run(*arguments, "--masks", tmp_path / "m", "--mask-classes", classes))
    assert "pointing-game" in found["metrics"]
    assert "grid-pointing-game" not in found["metrics"]
    assert all(row["error"] is None for row in found["rows"])
    result = run(*arguments, "--masks", tmp_path / "m")
    assert result.exit_code == 2
    assert "it has the classes 1, 2, and nothing says which of them is explained" in result.stderr
    for more, message in {
        ("--mask-classes", classes): "--mask-classes goes with --masks DIR",
        ("--masks", tmp_path / "nowhere"): "is not a folder",
        ("--metrics", "pointing-game"): "pointing-game: the object must be known; give masks",
    }.items():
        result = run(*arguments, *more)
        assert result.exit_code == 2
        assert message in result.stderr


def without_channels() -> onnx.ModelProto:
    """Of grey pictures without a channel axis, which most ways to change an input cannot do without."""
    nodes = [
        helper.make_node("Flatten", ["input"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "w"], ["output"], name="fc"),
    ]
    weights: dict[str, np.ndarray[Any, Any]] = {
        "w": np.random.default_rng(0).standard_normal((256, 4)).astype(np.float32)
    }
    return model_of(nodes, weights, (["N", 16, 16], ["N", 4]))


def test_all_metrics_are_those_that_fit_and_the_others_say_why(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((1, 16, 16), np.float32))
    flat = saved(without_channels(), tmp_path / "flat.onnx")
    arguments = [
        "evaluate", flat, tmp_path / "x.npy", "--layout", "NHW", "--methods", "srd,saliency", "-o", tmp_path / "out",
    ]  # fmt: skip
    result = run(*arguments, "--metrics", "all")
    assert result.exit_code == 0
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    left = found["left_out"]
    assert left["pointing-game"] == "the object must be known; give masks"
    assert left["grid-pointing-game"] == "a grid takes 4 images of different classes"
    assert left["insertion"].endswith("one channel axis; input 'input' has the layout NHW")
    assert set(found["metrics"]) == set(METRICS) - set(left) >= {"sparseness", "mprt", "completeness"}
    assert {row["metric"] for row in found["rows"]} == set(found["metrics"])
    said = " " + " ".join(result.stderr.split())
    assert all(said.count(f" {name} is left out: {why}") == 1 for name, why in left.items())
    result = run(*arguments, "--metrics", "sparseness,insertion")
    assert result.exit_code == 2
    assert "one channel axis; input 'input' has the layout NHW" in " ".join(result.stderr.split())
    assert not set(METHODS) & set(METRICS)  # what is left out is named alone


def test_a_bad_photo_is_rows_and_exit_2(tmp_path: Path) -> None:
    photos(tmp_path / "p", "red")
    (tmp_path / "p" / "broken.png").write_bytes(b"broken")
    result = run("evaluate", model(tmp_path), tmp_path / "p", *PLACE, *QUICK, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.count("broken.png") == 1
    rows = table(tmp_path / "out")
    assert Counter(bool(row["error"]) for row in rows) == {False: 9, True: 9}


def test_a_photo_in_no_grid_is_a_note(tmp_path: Path) -> None:
    photos(tmp_path / "p", "red", "green", "blue", "white")
    cv2.imwrite(str(tmp_path / "p" / "grey.png"), np.full((16, 16, 3), 8, np.uint8))
    options = ("--methods", "srd", "--metrics", "grid-pointing-game", "-o", tmp_path / "out")
    result = run("evaluate", model(tmp_path), tmp_path / "p", *PLACE, *options)
    assert result.exit_code == 0
    assert "grey.png is in no grid: predicted with probability 0.29, less than 0.5" in result.stderr


def test_a_name_that_is_a_formula_is_harmless_in_a_spreadsheet(tmp_path: Path) -> None:
    (image,) = photos(tmp_path, "red")
    bad = "=HYPERLINK(A1).png"
    image.rename(tmp_path / bad)
    (tmp_path / "labels.txt").write_text("+1\n@x\n-2\nplain\n")
    arguments = command(
        "evaluate", model(tmp_path), bad, *PLACE, *QUICK, "-o", "out", "--labels", tmp_path / "labels.txt"
    )
    subprocess.run(
        arguments, cwd=tmp_path, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": os.getcwd()}
    )
    rows = table(tmp_path / "out")
    assert {(row["image"], row["label"]) for row in rows} == {(f"'{bad}", "'+1")}
    assert all(not text.startswith(("=", "+", "@")) for row in rows for text in row.values())
    assert not any(row["value"].startswith("'") for row in rows)


# Names


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (None, []),
        (["a,b"], ["a", "b"]),
        (["a, b", "c"], ["a", "b", "c"]),
        (["rise:masks=10,seed=2,srd", "a"], ["rise:masks=10,seed=2", "srd", "a"]),
        (["srd:preset=paper,sign=positive,srd"], ["srd:preset=paper,sign=positive", "srd"]),
        (["a,,a"], ["a"]),
        (["all"], ["all"]),
    ],
)
def test_names_with_commas(given: list[str] | None, names: list[str]) -> None:
    assert several(given) == names


def test_all_stands_alone() -> None:
    with pytest.raises(OptionError, match="'all' stands alone"):
        several(["all,srd"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--methods", "saliensy"), "there is no method 'saliensy'; did you mean 'saliency'?"),
        (("--metrics", "sparsenes"), "there is no metric 'sparsenes'; did you mean 'sparseness'?"),
        (("--metrics", "sparseness:k=1"), "metric 'sparseness' has no parameter 'k'"),
        (("--methods", "srd:x=1"), "method 'srd' has no option 'x'"),
        (("--methods", "saliency:boundary=relu"), "boundary: of SRD and of activation maps"),
        (("--target", "ultraviolet"), "ultraviolet"),
    ],
)
def test_a_wrong_name_is_refused(tmp_path: Path, option: tuple[str, str], message: str) -> None:
    photos(tmp_path / "p", "red")
    result = run("evaluate", model(tmp_path), tmp_path / "p", *PLACE, *option, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert message in result.stderr


def test_methods_and_metrics_are_listed() -> None:
    listed = run("methods").stdout
    assert all(name in listed for name in (SRD, *METHODS))
    assert {one["name"] for one in document(run("methods", "--json"))["methods"]} == {SRD, *METHODS}
    listed = run("metrics").stdout
    assert all(name in listed for name in METRICS)
    found = document(run("metrics", "--json"))["metrics"]
    assert {one["name"] for one in found} == set(METRICS)
    assert {one["better"] for one in found} == {"higher", "lower"}


# explain --method


def test_explain_by_another_method(tmp_path: Path) -> None:
    (image,) = photos(tmp_path, "red")
    arguments = ("explain", model(tmp_path), image, *PLACE, "-o", tmp_path / "out")
    result = run(*arguments, "--method", "saliency")
    assert result.exit_code == 0
    assert "CPU, Saliency, boundary encoder, seed logit, model sha256" in result.stdout
    assert "preset" not in result.stdout
    assert "miss the seed" not in result.stderr
    found = document(run(*arguments, "--method", "saliency", "--json"))
    assert found["method"]["name"] == "saliency"
    with np.load(tmp_path / "out" / f"{image.stem}.0.npz") as archive:
        assert json.loads(str(archive["meta"]))["method"]["title"] == "Saliency"
    assert document(run(*arguments, "--json"))["method"] == {"name": "srd"}


def test_the_picture_says_which_method(tmp_path: Path) -> None:
    (image,) = photos(tmp_path, "red")
    pictures = []
    for name in ("srd", "gradient-x-input"):  # of this network the two maps are equal
        run("explain", model(tmp_path), image, *PLACE, "-o", tmp_path / name, "--method", name)
        pictures.append((tmp_path / name / f"{image.stem}.0.png").read_bytes())
    assert pictures[0] != pictures[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "saliensy"), "there is no method 'saliensy'; did you mean 'saliency'?"),
        (
            ("--method", "saliency", "--preset", "paper"),
            "preset: an option of SRD, which the method 'saliency'",
        ),
        (
            ("--method", "saliency", "--sign", "positive"),
            "sign: an option of SRD, which the method 'saliency'",
        ),
        (
            ("--method", "saliency", "--boundary", "relu"),
            "boundary: of SRD and of activation maps, which are made at a layer; the method 'saliency' has none",
        ),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    (image,) = photos(tmp_path, "red")
    result = run("explain", model(tmp_path), image, *PLACE, "-o", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert message in result.stderr


# How long it takes


def row(method: str, metric: str, seconds: float, map_seconds: float, image: str = "a") -> Row:
    return Row(image, "", 0, None, method, metric, 0.5, None, seconds, map_seconds)


def test_what_is_left_is_told_from_what_was_timed() -> None:
    pace = Pace(
        Counter({(m, k): 3 for m in ("srd", "rise") for k in ("x", "y")}), Counter({"srd": 3, "rise": 3})
    )
    assert pace.in_words() == "at least 0 s left, 2 methods not timed yet"
    pace.add(row("srd", "x", 1, 10))
    pace.add(row("srd", "y", 2, 10))
    assert pace.remaining() == (2 * 1 + 2 * 2 + 2 * 10, 1)
    assert pace.in_words() == "at least 26 s left, 1 method not timed yet"
    for image in "bc":
        pace.add(row("srd", "x", 3, 30, image))
        pace.add(row("srd", "y", 4, 30, image))
    assert pace.remaining() == (0, 1)
    pace.add(row("rise", "x", 100, 1000))
    pace.add(row("rise", "y", 200, 1000))
    assert pace.in_words() == "about 43 min left"
    pace.drop("rise")
    assert pace.in_words() == "about 0 s left"
    assert (pace.done, pace.left.total()) == (8, 0)
