"""`srd-onnx preactivations`: archives of inner tensors, image by image."""

from pathlib import Path

import numpy as np
import pytest

from srd_onnx import Explainer
from srd_onnx.zoo import sample_photo
from tests.cli_tools import HOSTILE, check_refused, document, photo, run, saved, small
from tests.nets import small_cnn


def test_an_archive_for_each_image_with_the_arrays_of_the_python_api(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    arguments = ("-l", "/pool/MaxPool", "-l", "/fires.[01]/Concat", "-o", out)
    result = run("preactivations", "squeezenet11", sample_photo(), *arguments)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "/fires.1/Concat_output_0" in result.stdout
    assert "NAME.preactivations.npz for 1 of 1 images in" in result.stdout
    wanted = Explainer("squeezenet11").preactivations(sample_photo(), ["/pool/MaxPool", "/fires.[01]/Concat"])
    with np.load(out / "chelsea.preactivations.npz", allow_pickle=False) as archive:
        assert archive.files == list(wanted)
        for name, array in wanted.items():
            np.testing.assert_allclose(archive[name], array, rtol=1e-5, atol=1e-5)


def test_folders_and_several_images_by_default_the_inputs_of_nonlinearities(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    photos = [photo(folder / "a.png", 1), photo(folder / "b.png", 2)]
    model = small(tmp_path)
    found = document(run("preactivations", model, folder, "-o", tmp_path / "o", "--json"))
    assert set(found) == {"command", "folder", "notes", "archives", "errors"}
    assert [one["image"] for one in found["archives"]] == [str(path) for path in photos]
    assert [one["file"] for one in found["archives"]] == ["a.preactivations.npz", "b.preactivations.npz"]
    names = ["bn1", "relu1", "bn2", "add", "bn4", "bn5"]
    assert list(found["archives"][0]["arrays"]) == names
    assert found["archives"][0]["arrays"]["add"] == {"shape": [1, 8, 16, 16], "dtype": "float32"}
    assert found["notes"][0].startswith("preprocessing ASSUMED")
    with np.load(tmp_path / "o" / "b.preactivations.npz") as archive:
        assert archive.files == names


def test_an_array_of_several_inputs_is_one_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 3, 32, 32), np.float32))
    found = document(
        run("preactivations", small(tmp_path), tmp_path / "x.npy", "-l", "add", "-o", tmp_path, "--json")
    )
    assert found["archives"][0]["arrays"]["add"]["shape"] == [3, 8, 16, 16]


@pytest.mark.parametrize("name", ["../../evil", "file", HOSTILE, "/abs"])
def test_any_name_of_a_tensor_is_one_of_an_array(tmp_path: Path, name: str) -> None:
    model = small_cnn()
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [name if one == "add" else one for one in names]
    path = saved(model, tmp_path / "m.onnx")
    result = run("preactivations", path, photo(tmp_path / "a.png"), "-l", name, "-o", tmp_path / "o")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["a.preactivations.npz"]
    with np.load(tmp_path / "o" / "a.preactivations.npz") as archive:
        assert archive[name].shape == (1, 8, 16, 16)


def test_one_bad_image_among_several_is_reported_and_the_others_are_done(tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    photos = [photo(tmp_path / "a.png", 1), bad, photo(tmp_path / "b.png", 2)]
    result = run("preactivations", small(tmp_path), *photos, "-o", tmp_path / "o", "--json")
    assert result.exit_code == 2
    found = document(result)
    assert len(found["archives"]) == 2
    (error,) = found["errors"]
    assert (error["image"], error["error"]) == (str(bad), "ImageError")
    assert "1 of 3 images could not be read" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png", "-l", "nope", "-l", "x*"], "has no tensor or node 'nope', 'x*'"),
        (["missing.png"], "missing.png: there is no such file"),
        (["a.png", "--out", "a.png"], "a.png is a file, not a folder"),
        (["bad.png"], "bad.png: not an image"),
    ],
)
def test_what_cannot_be_written_is_said(tmp_path: Path, arguments: list[str], message: str) -> None:
    check_refused(tmp_path, "preactivations", ["-o", "o", *arguments], message)


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    model, image = small(tmp_path), photo(tmp_path / "a.png")
    (tmp_path / "o" / "a.preactivations.npz").mkdir(parents=True)
    result = run("preactivations", model, image, "-o", tmp_path / "o")
    assert result.exit_code == 2
    assert "a.preactivations.npz: a folder of that name is there" in result.stderr
