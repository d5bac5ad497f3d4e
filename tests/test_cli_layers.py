"""`srd-onnx layers`: the list, and what each layer carries of a decision."""

from dataclasses import asdict
from pathlib import Path

import pytest

from srd_onnx import Explainer
from tests.cli_tools import HOSTILE, document, run, saved, small
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
