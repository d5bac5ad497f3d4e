"""Bad input: one clear message on stderr, exit code 2, nothing written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from srd_onnx.zoo import zoo
from tests.cli_tools import head, photo, run, saved, small
from tests.nets import small_cnn

Args = list[object]


def not_onnx(folder: Path) -> Path:
    (folder / "m.onnx").write_bytes(b"this is no model at all")
    return folder / "m.onnx"


def empty(folder: Path) -> Path:
    (folder / "m.onnx").touch()
    return folder / "m.onnx"


def cut(folder: Path) -> Path:
    (folder / "m.onnx").write_bytes(zoo()["squeezenet11"].path.read_bytes()[:100_000])
    return folder / "m.onnx"


def traversal(folder: Path) -> Path:
    inside = folder / "inside"
    inside.mkdir()
    onnx.save(
        small_cnn(), inside / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0,
        all_tensors_to_one_file=True,
    )  # fmt: skip
    (inside / "w.bin").rename(folder / "x.bin")
    data = (inside / "m.onnx").read_bytes()
    model = onnx.ModelProto.FromString(data)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../x.bin"
    (inside / "m.onnx").write_bytes(model.SerializeToString())
    return inside / "m.onnx"


def without_nodes(folder: Path) -> Path:
    model = small_cnn()
    del model.graph.node[:]
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


def too_large(folder: Path) -> Path:
    with (folder / "m.onnx").open("wb") as file:
        file.truncate((1 << 31) + 1)  # a hole: takes no room on the disk
    return folder / "m.onnx"


def missing(folder: Path) -> Path:
    return folder / "m.onnx"


def four_channels(folder: Path) -> Path:
    return saved(head(helper.make_node("Relu", ["input"], ["m"], name="r"), channels=4), folder / "m.onnx")


def without_rule(folder: Path) -> Path:
    """Twice an operator that has no rule."""
    nodes = (
        helper.make_node("MaxRoiPool", ["input", "box"], ["s"], name="the inner box", pooled_shape=[8, 8]),
        helper.make_node("MaxRoiPool", ["s", "box"], ["m"], name="the outer box", pooled_shape=[8, 8]),
    )
    weights: dict[str, Any] = {"box": np.array([[0, 0, 0, 8, 8]], np.float32)}
    return saved(head(*nodes, weights=weights), folder / "m.onnx")


def unreachable(folder: Path) -> Path:
    nodes = (
        helper.make_node("Shape", ["input"], ["s"], name="shape"),
        helper.make_node("ConstantOfShape", ["s"], ["m"], name="zeros"),
    )
    return saved(head(*nodes), folder / "m.onnx")


def overflowing(folder: Path) -> Path:
    weights = {"big": np.full((3, 3, 1, 1), 3e38, np.float32)}
    node = helper.make_node("Conv", ["input", "big"], ["m"], name="blown")
    return saved(head(node, weights=weights), folder / "m.onnx")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (missing, "m.onnx does not exist. Check the path; `srd-onnx models` lists the zoo."),
        (not_onnx, "m.onnx is not an ONNX model, or only a part of one"),
        (empty, "m.onnx is empty (0 bytes). Copy or export it again."),
        (cut, "m.onnx is not an ONNX model, or only a part of one: 100000 bytes that do not parse."),
        (traversal, "below the model's folder. Do not trust this file"),
        (without_nodes, "has no node, so there is nothing to explain."),
        (too_large, "can have no more than 2.15 GB"),
        (four_channels, "the data has 3 channels, but input 'input' with the axes NCPP takes 4"),
        (unreachable, "does not depend on the input 'input'"),
        (overflowing, "in the activation"),
    ],
)
def test_a_bad_model(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    refused(tmp_path, [make(tmp_path), photo(tmp_path / "a.png")], message)


def test_operators_without_a_rule_are_all_named(tmp_path: Path) -> None:
    said = refused(
        tmp_path, [without_rule(tmp_path), photo(tmp_path / "a.png")], "2 of 4 nodes have no relevance rule:"
    )
    assert "ai.onnx::MaxRoiPool v1  node 'the inner box'  (no version is covered)" in said
    assert "ai.onnx::MaxRoiPool v1  node 'the outer box'  (no version is covered)" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-t", "10"], "target 10 does not exist: the model has 10 scores, 0 to 9"),
        (["-t", "-1"], "target -1 does not exist: the model has 10 scores, 0 to 9"),
        (["-t", "top11"], "target 'top11': the model has 10 scores"),
        (["-t", "cat"], "target 'cat' is a label, but the model's labels are not known"),
        (["--boundary", "pol1"], "boundary 'pol1' is not a tensor of the simplified graph; did you mean 'pool1'"),
        (["--seed", "x"], "seed='x' is not one of logit, logprob, contrast"),
        (["--sign", "x"], "sign='x' is not one of signed, positive"),
        (["--bias", "x"], "bias='x' is not one of distribute, ledger"),
        (["--preset", "x"], "there is no preset 'x'; there is: "),
        (["--layout", "NCQ"], "layout 'NCQ': unknown letter Q"),
        (["--layout", "NHWC"], "the data has 3 channels, but input 'input' with the axes NPPC takes 32"),
        (["--provider", "tpu"], "provider 'tpu' is not known; choose 'auto', 'cuda' or 'cpu'"),
        (["--labels", "/nowhere/l.txt"], "/nowhere/l.txt: cannot read the labels: No such file or directory"),
        (["--preprocess", "/nowhere/p.toml"], "/nowhere/p.toml: cannot read the preprocessing"),
        (["--resize", "2x"], "--resize '2x': give pixels as 256"),
        (["--crop", "20"], "input 'input' has shape [1, 3, 20, 20], but the model declares ['N', 3, 32, 32]"),
        (["--crop", "99"], "the crop of 99 x 99 pixels is larger than the image"),
        (["--std", "0"], "preprocessing: std divides, so it must not contain 0"),
        (["--scale", "1e38"], "a: NaN or infinity at index"),
    ],
)  # fmt: skip
def test_an_option_that_means_nothing(tmp_path: Path, options: list[str], message: str) -> None:
    refused(tmp_path, [small(tmp_path), photo(tmp_path / "a.png"), *options], message)


def text(folder: Path) -> list[Path]:
    (folder / "a.png").write_text("no picture")
    return [folder / "a.png"]


def cut_photo(folder: Path) -> list[Path]:
    data = photo(folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(data[: len(data) // 2])
    return [folder / "a.png"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (text, "a.png: not an image that OpenCV reads, or cut off or damaged (10 bytes"),
        (cut_photo, "a.png: the PNG is cut off after"),
        (
            lambda folder: [folder / "none.png"],
            "none.png: there is no such file. Check the spelling and the folder.",
        ),
        (lambda folder: [folder], " is a folder without photos (avif, bmp, gif, jp2, jpeg, jpg, png, tif"),
        (
            lambda folder: [photo(folder / "a.png"), folder / "b.png", folder / "c"],
            "2 of 3 images are not there:\n  {0}/b.png\n  {0}/c",
        ),
    ],
)
def test_a_bad_image(tmp_path: Path, make: Callable[[Path], list[Path]], message: str) -> None:
    refused(tmp_path, [small(tmp_path), *make(tmp_path)], message.format(tmp_path))


def test_all_of_several_images_bad(tmp_path: Path) -> None:
    (tmp_path / "b.png").touch()
    said = refused(
        tmp_path, [small(tmp_path), *text(tmp_path), tmp_path / "b.png"], "a.png: not an image", messages=2
    )
    assert "2 of 2 images could not be explained" in said


def test_a_folder_that_cannot_be_made_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("explain", "squeezenet11", photo(tmp_path / "a.png"), "-o", tmp_path / "file" / "out")
    assert (result.exit_code, result.stdout) == (2, "")
    said = (
        f"cannot write to {tmp_path}/file/out: {tmp_path}/file is a file, not a folder. Choose another --out."
    )
    assert result.stderr == f"error: {said}\n"


def test_a_failure_to_write_in_the_middle_leaves_a_list_of_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "o" / "b.3.png").mkdir(parents=True)
    photos = [photo(tmp_path / f"{name}.png") for name in "abc"]
    result = run("explain", small(tmp_path), *photos, "-t", "3", "-o", tmp_path / "o")
    assert result.exit_code == 2
    assert "b.3.png: a folder of that name is there" in result.stderr
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [
        "a.3.npz", "a.3.png", "b.3.png", "explanations.json",
    ]  # fmt: skip
    assert '"complete": false' in (tmp_path / "o" / "explanations.json").read_text()


@pytest.mark.parametrize(
    "arguments", [["explain"], ["explain", "m.onnx"], ["compile", "m.onnx"], ["expain"], ["--nope"]]
)
def test_a_wrong_use_is_code_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage: " in result.stderr


def refused(folder: Path, arguments: Args, message: str, messages: int = 1) -> str:
    """Run `explain` and insist on the manner of its refusal; what it said."""
    result = run("explain", *arguments, "-o", folder / "out")
    errors = result.stderr.count("error: ")
    assert (result.exit_code, result.stdout, errors) == (2, "", messages), result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (folder / "out").exists()
    return str(result.stderr)
