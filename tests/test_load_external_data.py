"""Weights in files beside the model: read into it, from its folder alone."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from srd_onnx.errors import ExternalDataError
from srd_onnx.graph.load import load_model
from tests.nets import small_cnn, two_nodes
from tests.test_load import computed, with_external_data


def test_external_data_ends_up_inside_and_in_the_hash(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    loaded = load_model(path)
    assert all(tensor.data_location == TensorProto.DEFAULT for tensor in loaded.proto.graph.initializer)
    np.testing.assert_array_equal(computed(loaded.proto)[0], computed(two_nodes())[0])
    both = path.read_bytes() + (tmp_path / "weights.bin").read_bytes()
    assert loaded.sha256 == hashlib.sha256(both).hexdigest()
    assert loaded.parameters == 20


def test_external_data_as_onnx_writes_it_loads(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(small_cnn(), path, save_as_external_data=True, location="sub.data", size_threshold=0)
    np.testing.assert_array_equal(computed(load_model(path).proto)[0], computed(small_cnn())[0])


@pytest.mark.parametrize(
    "location", ["../weights.bin", "a/../../weights.bin", "/etc/passwd", "C:\\weights.bin", "..\\w.bin", ""]
)
def test_a_path_out_of_the_folder_is_refused_by_its_looks(tmp_path: Path, location: str) -> None:
    path = with_external_data(tmp_path / "inner", location)
    (tmp_path / "weights.bin").write_bytes(bytes(72))
    with pytest.raises(ExternalDataError, match=r"tensor 'w' .* not a plain path below the model's folder"):
        load_model(path)


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path, linked: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "weights.bin").write_bytes(bytes(72))
    path = with_external_data(tmp_path / "inner", "link" if linked == "file" else "link/weights.bin")
    target = outside / "weights.bin" if linked == "file" else outside
    (tmp_path / "inner" / "link").symlink_to(target)
    with pytest.raises(ExternalDataError, match="a link that leads out of the model's folder"):
        load_model(path)


def test_a_link_within_the_folder_is_fine(tmp_path: Path) -> None:
    path = with_external_data(tmp_path, "link")
    (tmp_path / "link").symlink_to("weights.bin")
    np.testing.assert_array_equal(computed(load_model(path).proto)[0], computed(two_nodes())[0])


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ExternalDataError, match=r"tensor 'w' .* 'weights\.bin', but there is no such file"):
        load_model(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("offset", "4"), ("offset", "-4"), ("length", "68"), ("length", "1e3"), ("length", "-1")],
)
def test_a_place_outside_the_file_or_of_another_size_is_refused(tmp_path: Path, key: str, value: str) -> None:
    path = with_external_data(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == key:
            entry.value = value
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ExternalDataError, match=r"weights\.bin: tensor 'w'"):
        load_model(path)


def test_external_data_that_is_too_short_is_refused(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    (tmp_path / "weights.bin").write_bytes(bytes(40))
    with pytest.raises(ExternalDataError, match=r"needs 72 bytes; .* the file has 40\. It is too short"):
        load_model(path)


def test_external_data_without_a_path_is_refused(tmp_path: Path) -> None:
    data = with_external_data(tmp_path).read_bytes()
    for source in (data, onnx.load_model_from_string(data)):
        with pytest.raises(ExternalDataError, match="came without a path"):
            load_model(source)


def test_a_size_of_minus_one_is_an_open_one() -> None:
    model = two_nodes()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert not load_model(model).proto.graph.input[0].type.tensor_type.shape.dim[0].WhichOneof("value")
