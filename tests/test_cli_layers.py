"""`srd-onnx layers`: the list, and what each layer carries of a decision."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srd_onnx import Explainer
from srd_onnx.inputs.preprocess import Preprocess
from srd_onnx.targets import Contrast
from srd_onnx.zoo import sample_photo
from tests.cli_tools import HOSTILE, check_refused, document, photo, run, saved, small
from tests.nets import small_cnn


def test_the_layers_that_mix_and_the_encoder_are_listed(tmp_path: Path) -> None:
    result = run("layers", small(tmp_path))
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines() if "x" in line]
    assert ["conv1", "bn1", "Conv", "32x32", "8", "1x1", "3x3", "mixes"] in rows
    assert ["depthwise", "bn4", "Conv", "8x8", "8", "4x4", "16x16", "mixes"] in rows
    assert ["relu5", "Relu", "8x8", "16", "4x4", "16x16", "encoder"] in rows
    assert "relu1" not in result.stdout
    assert "layers, for an input of 1x3x32x32 (NCHW)" in result.stdout
    assert "layout NCHW is guessed" in result.stderr


def test_all_lists_every_layer_and_the_json_is_the_python_api(tmp_path: Path) -> None:
    path = small(tmp_path)
    found = document(run("layers", path, "--all", "--json"))
    expected = Explainer(path).layers()
    assert (found["input_shape"], found["layout"]) == ([1, 3, 32, 32], "NCHW")
    assert [one.pop("encoder") for one in found["layers"]] == [layer.tensor == "relu5" for layer in expected]
    assert [tuple(one.items()) for one in found["layers"]] == [
        tuple((k, list(v) if isinstance(v, tuple) else v) for k, v in asdict(layer).items())
        for layer in expected
    ]
    assert "relu1" in run("layers", path, "--all").stdout


def test_the_boundary_is_the_encoder_of_the_list(tmp_path: Path) -> None:
    found = document(run("layers", small(tmp_path), "--boundary", "pool1", "--json"))
    assert [one["name"] for one in found["layers"] if one["encoder"]] == ["pool1"]


def test_hostile_names_of_layers_do_no_harm(tmp_path: Path) -> None:
    model = small_cnn()
    for node in model.graph.node:
        node.name = HOSTILE if node.name == "conv2" else node.name
    result = run("layers", saved(model, tmp_path / "m.onnx"))
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--layout", "NHWC"], "layout"), (["--boundary", "nope"], "boundary 'nope' is not a tensor")],
)
def test_what_cannot_be_listed_is_said(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run("layers", small(tmp_path), *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_relevance_writes_a_strip_its_numbers_and_the_maps(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    result = run("layers", "squeezenet11", sample_photo(), "--relevance", "-o", out)
    assert result.exit_code == 0
    assert result.stderr == ""
    for said in (
        "chelsea: Egyptian cat (class 285), logit 30.",
        "/fires.7/e3/Conv",
        "boundary",
        "3 files are in",
    ):
        assert said in result.stdout
    assert "/fires.7/e1/Conv" not in result.stdout
    names = [f"chelsea.285.layers.{kind}" for kind in ("json", "npz", "png")]
    assert sorted(path.name for path in out.iterdir()) == names
    with Image.open(out / names[2]) as picture:
        assert picture.width > 1500
    (decision,) = Explainer("squeezenet11").inside(sample_photo())
    numbers = json.loads((out / names[0]).read_text())
    assert [one["name"] for one in numbers["layers"]] == list(decision.relevance)
    with np.load(out / names[1]) as archive:
        assert set(archive.files) == set(decision.relevance)
        for name, right in decision.relevance.items():
            np.testing.assert_allclose(archive[name], right, rtol=1e-4, atol=1e-5)


def test_the_json_of_several_targets_is_the_python_api(tmp_path: Path) -> None:
    path, image = small(tmp_path), photo(tmp_path / "a.png")
    settled = ("--scale", "1/255", "--resize", "32x32", "--channel-order", "RGB", "--layout", "nchw")
    arguments = ("-t", "3", "--contrast", "1", "2", "--bias", "ledger", *settled, "-o", tmp_path / "o")
    found = document(run("layers", path, image, "--relevance", "--json", *arguments))
    data = np.asarray(Image.open(image).convert("RGB"))
    assert [one["target"] for one in found["decisions"]] == [3, "1-over-2"]
    assert found["decisions"][0]["files"]["png"] == "a.3.layers.png"
    assert found["decisions"][0]["image"] == str(image)
    usual = Preprocess(resize=(32, 32), crop=None, scale=1 / 255, mean=(0.0,), std=(1.0,))
    explainer = Explainer(path, bias="ledger", preprocess=usual)
    for one, decision in zip(found["decisions"], explainer.inside(data, [3, Contrast(1, 2)]), strict=True):
        assert one["ledger"] == pytest.approx(dict(decision.ledger), rel=1e-4)
        for row, share in zip(one["layers"], decision.layers, strict=True):
            assert row["positions"] == list(decision.relevance[share.name].shape)
            for name in ("active", "inactive", "bias", "relevance", "booked"):
                right = getattr(share, name)
                assert row[name] == (None if right is None else pytest.approx(right, rel=1e-3, abs=1e-5))
    said = run("layers", path, image, "--relevance", "--all", *arguments).stdout
    assert "relu1" in said
    assert "booked besides: " in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png"], "--relevance explains an IMAGE layer by layer: give both, or neither"),
        (["--relevance"], "--relevance explains an IMAGE layer by layer: give both, or neither"),
        (["-t", "3"], "--relevance explains an IMAGE layer by layer: give both, or neither and no target"),
        (["missing.png", "--relevance"], "missing.png: there is no such file"),
        (["bad.png", "--relevance"], "bad.png: not an image"),
        (["a.png", "--relevance", "-t", "77"], "target 77 does not exist"),
        (["a.png", "--relevance", "-o", "a.png"], "a.png is a file, not a folder"),
        (["a.png", "--relevance", "--boundary", "nope"], "boundary 'nope' is not a tensor"),
    ],
)
def test_what_cannot_be_looked_into_is_said(tmp_path: Path, arguments: list[str], message: str) -> None:
    check_refused(tmp_path, "layers", arguments, message)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    model, image = small(tmp_path), photo(tmp_path / "a.png")
    (tmp_path / "o" / "a.3.layers.json").mkdir(parents=True)
    result = run("layers", model, image, "--relevance", "-t", 3, "-o", tmp_path / "o")
    assert result.exit_code == 2
    assert "a.3.layers.json: a folder of that name is there. Choose another folder" in result.stderr
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["a.3.layers.json"]


def test_an_array_has_a_strip_too(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32))
    found = document(
        run("layers", small(tmp_path), tmp_path / "x.npy", "--relevance", "--json", "-o", tmp_path)
    )
    assert [one["name"] for one in found["decisions"]] == ["x_0", "x_1"]
    assert all((tmp_path / one["files"]["png"]).is_file() for one in found["decisions"])
