"""load_model: what it returns, and that nothing but a clear error comes out of a bad file."""

import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from srd_onnx.errors import (
    EmptyGraphError,
    InvalidModelError,
    ModelError,
    ModelTooLargeError,
    NotAnOnnxFileError,
    SrdOnnxError,
)
from srd_onnx.graph.external_data import nodes
from srd_onnx.graph.load import load_model
from srd_onnx.ort import runtime
from tests.nets import model_of, two_nodes

SQUEEZENET = next((Path(__file__).parents[1] / "models").glob("squeezenet*.onnx"))
TWO_NODES = two_nodes().SerializeToString()


def computed(proto: onnx.ModelProto, seed: int = 0) -> list[NDArray[Any]]:
    """The outputs of a model on fixed noise, every free dimension taken as 2."""
    session = runtime.make_session(proto.SerializeToString(), [runtime.CPU], threads=1, optimise=False)
    rng = np.random.default_rng(seed)
    feeds = {
        value.name: rng.standard_normal([d if isinstance(d, int) else 2 for d in value.shape], np.float32)
        for value in session.get_inputs()
    }
    return runtime.run(session, None, feeds)


def with_external_data(folder: Path, location: str = "weights.bin") -> Path:
    """The two-node model in `folder`, its kernel in `location` (72 bytes) and its bias inside."""
    proto = two_nodes()
    kernel = proto.graph.initializer[0]
    data = kernel.raw_data
    kernel.ClearField("raw_data")
    kernel.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(data)))):
        kernel.external_data.add(key=key, value=value)
    folder.mkdir(exist_ok=True)
    (folder / "weights.bin").write_bytes(data)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


# What comes back


def test_a_file_is_described_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(TWO_NODES)
    loaded = load_model(path)
    assert loaded.path == path
    assert loaded.sha256 == hashlib.sha256(TWO_NODES).hexdigest()
    assert (loaded.opset, loaded.producer, loaded.parameters) == (17, "tests 1", 20)
    assert loaded.proto.SerializeToString() == TWO_NODES


def test_path_text_bytes_and_proto_are_the_same_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(TWO_NODES)
    protos = [load_model(source).proto for source in (path, str(path), TWO_NODES, two_nodes())]
    assert all(proto == protos[0] for proto in protos)


def test_the_callers_proto_is_not_changed() -> None:
    proto = two_nodes(opset=5)
    for node in proto.graph.node:
        node.name = "same"
    before = proto.SerializeToString(deterministic=True)
    load_model(proto)
    assert proto.SerializeToString(deterministic=True) == before


def test_every_node_gets_a_name_of_its_own_in_subgraphs_too() -> None:
    value = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Relu", ["t"], ["inner"], name="r")], "branch", [], [value])
    branch.output[0].type.tensor_type.shape.SetInParent()
    proto = model_of(
        [
            helper.make_node("Relu", ["input"], ["s"], name="r"),
            helper.make_node("Neg", ["s"], ["t"]),
            helper.make_node("If", ["yes"], ["output"], then_branch=branch, else_branch=branch),
        ],
        {"yes": np.array(True)},
        ([3], [3]),
    )
    loaded = load_model(proto)
    assert [node.name for node in nodes(loaded.proto.graph)] == ["r", "Neg(t)", "If(output)", "r_1", "r_2"]


def test_an_invented_name_avoids_those_that_exist() -> None:
    proto = model_of(
        [
            helper.make_node("Neg", ["input"], ["t"], name="Relu(output)"),
            helper.make_node("Relu", ["t"], ["output"]),
        ],
        {},
        ([3], [3]),
    )
    assert [node.name for node in load_model(proto).proto.graph.node] == ["Relu(output)", "Relu(output)_1"]


def test_initializers_among_the_inputs_are_dropped_from_them() -> None:
    proto = two_nodes(opset=8)
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    loaded = load_model(proto).proto
    assert [value.name for value in loaded.graph.input] == ["input"]
    onnx.checker.check_model(loaded)
    np.testing.assert_array_equal(computed(loaded)[0], computed(two_nodes(opset=8))[0])


def test_parameters_count_floats_and_quantised_weights_but_no_shapes() -> None:
    constants = {"value": numpy_helper.from_array(np.ones((2, 3), np.float16))}
    proto = model_of(
        [
            helper.make_node("Reshape", ["input", "shape"], ["r"]),
            helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]),
            helper.make_node("MatMul", ["r", "w"], ["output"]),
            helper.make_node("Constant", [], ["unused"], **constants),
            helper.make_node("Constant", [], ["unused2"], value_floats=[1.0, 2.0]),
        ],
        {"q": np.ones((3, 4), np.int8), "scale": np.array(1, np.float32), "shape": np.array([2, 3])},
        ([6], [2, 4]),
    )
    assert load_model(proto).parameters == 12 + 1 + 6 + 2


def test_local_functions_are_inlined() -> None:
    body = [helper.make_node("Neg", ["a"], ["q"]), helper.make_node("Relu", ["q"], ["b"])]
    function = helper.make_function("mine", "F", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    proto = model_of([helper.make_node("F", ["input"], ["output"], domain="mine")], {}, ([3], [3]))
    proto.functions.append(function)
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    loaded = load_model(proto).proto
    assert [node.op_type for node in loaded.graph.node] == ["Neg", "Relu"]
    assert not loaded.functions


def test_custom_domains_pass_and_the_long_name_of_the_default_domain_is_made_short() -> None:
    proto = model_of(
        [
            helper.make_node("Gelu", ["input"], ["t"], domain="com.microsoft"),
            helper.make_node("Relu", ["t"], ["output"], domain="ai.onnx"),
        ],
        {},
        ([3], [3]),
    )
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    proto.opset_import[0].domain = "ai.onnx"
    loaded = load_model(proto)
    assert [node.domain for node in loaded.proto.graph.node] == ["com.microsoft", ""]
    assert loaded.opset == 17
    assert computed(loaded.proto)[0].shape == (3,)


# Not a model


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"just some text\n", "do not parse"),
        (b'{"json": 1}', "do not parse"),
        (b"\x89HDF\r\n\x1a\n rest", "HDF5"),
        (b"PK\x03\x04 rest", "zip archive"),
        (b"\x80\x02 rest", "pickle"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x08\x07", "has no graph and no opset_import"),
    ],
)
def test_a_file_of_another_kind_is_named_as_such(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "thing.onnx"
    path.write_bytes(content)
    with pytest.raises(NotAnOnnxFileError, match=said) as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotAnOnnxFileError, match=r"nothing\.onnx does not exist"):
        load_model(tmp_path / "nothing.onnx")
    with pytest.raises(NotAnOnnxFileError, match="is a folder"):
        load_model(tmp_path)
    with pytest.raises(NotAnOnnxFileError, match="does not exist"):
        load_model("a\0b")
    with pytest.raises(NotAnOnnxFileError, match=r"cannot be read: .*too long"):
        load_model("a" * 300)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotAnOnnxFileError, match="not a regular file"):
        load_model(tmp_path / "pipe")


def test_a_real_file_cut_short_anywhere_is_refused() -> None:
    data = SQUEEZENET.read_bytes()
    rng = random.Random(0)
    cuts = [rng.randrange(len(data)) for _ in range(50)] + [len(data) - n for n in (1, 2, 3, 4, 5, 8, 16)]
    for cut in cuts:
        with pytest.raises(ModelError):
            load_model(data[:cut])


def test_a_small_file_cut_short_at_every_byte_is_refused() -> None:
    for cut in range(len(TWO_NODES)):
        with pytest.raises(ModelError):
            load_model(TWO_NODES[:cut])


@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, len(TWO_NODES) - 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 4),
)
def test_damaged_bytes_never_raise_anything_else(changes: list[tuple[int, int]], dropped: int) -> None:
    data = bytearray(TWO_NODES)
    for place, value in changes:
        data[place] = value
    del data[changes[0][0] : changes[0][0] + dropped]
    try:
        loaded = load_model(bytes(data))
    except SrdOnnxError as error:
        assert len(str(error)) > 20  # noqa: PT017 - either outcome is right, only another exception is not
    else:
        onnx.checker.check_model(loaded.proto)


@pytest.mark.parametrize("part", ["node", "input", "output"])
def test_an_empty_graph_is_refused(part: str) -> None:
    proto = two_nodes()
    proto.graph.ClearField(part)
    with pytest.raises(EmptyGraphError, match=f"has no {part}, so there is nothing to explain"):
        load_model(proto)


def test_inputs_that_are_all_initializers_are_no_inputs() -> None:
    proto = two_nodes()
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((1, 1, 4, 4), np.float32), "input"))
    with pytest.raises(EmptyGraphError, match="has no input"):
        load_model(proto)


def _cycle(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "output"


def _missing_output(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].name = "nowhere"


def _unknown_operator(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].op_type = "NoSuchOp"


def _short_tensor(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[0] = 1000


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_cycle, r"onnx\.checker refuses it: .*topological"),
        (_missing_output, "Graph output 'nowhere' is not an output of any node"),
        (_unknown_operator, "No Op registered for NoSuchOp"),
        (_short_tensor, "raw_data size .* too small"),
    ],
)
def test_a_model_that_makes_no_sense_is_invalid(spoil: Callable[[onnx.ModelProto], None], said: str) -> None:
    proto = two_nodes()
    spoil(proto)
    with pytest.raises(InvalidModelError, match=said):
        load_model(proto)


def test_names_that_are_not_text_are_invalid() -> None:
    with pytest.raises(InvalidModelError, match="field 'name' of a NodeProto is not UTF-8 text"):
        load_model(TWO_NODES.replace(b"relu", b"\xff\xfe\xfd\xfc"))


# Size


def test_a_file_over_2_gb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "big.onnx"
    with path.open("wb") as file:
        file.truncate(2**31 + 10)  # sparse: takes no room on the disk
    with pytest.raises(ModelTooLargeError, match=r"big\.onnx: the model with its weights has 2\.15 GB"):
        load_model(path)


def test_external_data_counts_before_it_is_read(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    with (tmp_path / "weights.bin").open("r+b") as file:
        file.truncate(2**31 - 100)
    with pytest.raises(ModelTooLargeError, match="in half precision"):
        load_model(path)


def test_many_tensors_on_one_file_cannot_multiply_it_over_the_limit(tmp_path: Path) -> None:
    proto = two_nodes()
    size = 2**29
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(size)
    for index in range(4):
        tensor = proto.graph.initializer.add(name=f"t{index}", data_type=TensorProto.FLOAT, dims=[size // 4])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.bin")
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelTooLargeError):
        load_model(path)
