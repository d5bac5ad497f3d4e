"""The table of the zoo, the files that it names, and label files."""

import json
import re
from pathlib import Path

import onnx
import pytest

from srd_onnx.errors import OptionError
from srd_onnx.files import sha256_of
from srd_onnx.inputs.preprocess import read_image
from srd_onnx.zoo import find, find_by_sha256, read_labels, sample_photo, zoo

ROOT = Path(__file__).parent.parent


def test_every_shipped_file_has_the_sha256_of_the_table() -> None:
    assert list(zoo()) == ["squeezenet11", "efficientnet_lite0"]
    for model in zoo().values():
        assert sha256_of(model.path) == model.sha256


def test_every_model_takes_what_its_preprocessing_makes_and_has_a_label_per_output() -> None:
    for model in zoo().values():
        graph = onnx.load(str(model.path)).graph
        dims = [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
        assert model.layout == "NCHW"
        assert model.preprocess.crop is not None
        assert dims[1:] == [model.preprocess.channels, *model.preprocess.crop]
        assert len(read_labels(model.labels_path)) == graph.output[0].type.tensor_type.shape.dim[1].dim_value


def test_a_model_is_found_by_name_and_by_content() -> None:
    model = find("squeezenet11")
    assert model is not None
    assert model.preprocess.channel_order == "BGR"
    assert find_by_sha256(model.sha256.upper()) is model
    assert find("squeezenet") is None
    assert find_by_sha256("0" * 64) is None


def test_the_sample_photo_is_chelsea() -> None:
    assert read_image(sample_photo()).shape == (300, 451, 3)


def test_the_licence_of_every_file_is_there_in_full() -> None:
    notice = (ROOT / "models" / "NOTICE").read_text()
    for name in [*(model.path.name for model in zoo().values()), sample_photo().name, "imagenet_labels.txt"]:
        assert f"\n{name}\n" in notice
    named = set(re.findall(r"LICENSES/([\w.-]+\.txt)", notice))
    assert named == {path.name for path in (ROOT / "models" / "LICENSES").iterdir()}


def test_the_imagenet_labels_are_in_the_order_of_the_classes() -> None:
    labels = read_labels(ROOT / "models" / "imagenet_labels.txt")
    assert len(labels) == 1000
    assert (labels[0], labels[285], labels[999]) == (
        "tench, Tinca tinca",
        "Egyptian cat",
        "toilet tissue, toilet paper, bathroom tissue",
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "cat\ndog, hound\nпёс\n"),
        ("a.txt", "\ufeffcat\r\ndog, hound\r\nпёс\r\n\r\n"),
        ("a.json", json.dumps(["cat", "dog, hound", "пёс"])),
        ("a.json", json.dumps({"2": "пёс", "0": "cat", "1": "dog, hound"})),
        ("list.txt", '["cat", "dog, hound", "пёс"]'),
    ],
)
def test_labels_are_read_from_text_and_json(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8", newline="")
    assert read_labels(path) == ("cat", "dog, hound", "пёс")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "it is empty; a label file has one class name per line, without gaps."),
        ("a.txt", b"cat\n\ndog", "line 2 is empty; a label file has one class name per line, without gaps."),
        ("a.txt", b"\xff\xfe", "the labels are not UTF-8 text. Save the file as UTF-8."),
        ("a.json", b"cat", "not valid JSON: Expecting value: line 1 column 1 (char 0)"),
        (
            "a.json",
            b"[1, 2]",
            "the JSON must be a list of class names, or an object from index to class name.",
        ),
        ("a.json", b"[]", "the JSON must be a list of class names, or an object from index to class name."),
        (
            "a.json",
            b'{"0": "cat", "2": "dog"}',
            "the keys must be the class indices 0 to 1; '2' is not one of them, or is missing.",
        ),
    ],
)
def test_a_wrong_label_file_is_one_clear_error(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(OptionError) as caught:
        read_labels(path)
    assert str(caught.value) == f"{path}: {message}"


def test_a_missing_label_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"absent\.txt: cannot read the labels: No such file or directory$"):
        read_labels(tmp_path / "absent.txt")
