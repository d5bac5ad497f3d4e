"""Models of other opsets than those that run: converted, or refused."""

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from srd_onnx.errors import OpsetError
from srd_onnx.graph.load import load_model, to_opset
from srd_onnx.ort import runtime
from tests.nets import model_of, small_cnn, two_nodes
from tests.test_load import computed

OLD_WEIGHT = np.array([1.5, 2.0, 3.0], np.float32)


def old_norm(opset: int) -> onnx.ModelProto:
    """BatchNormalization and a broadcasting Add as opset 6 has them, with the weights as inputs."""
    weights: dict[str, NDArray[np.generic]] = {name: OLD_WEIGHT for name in ("s", "b", "m", "v")}
    weights["a"] = np.ones((4, 4), np.float32)
    proto = model_of(
        [
            helper.make_node(
                "BatchNormalization", ["input", "s", "b", "m", "v"], ["t"], name="bn", is_test=1
            ),
            helper.make_node("Add", ["t", "a"], ["u"], name="add", broadcast=1),
            helper.make_node("Relu", ["u"], ["output"], name="relu"),
        ],
        weights,
        ([2, 3, 4, 4], [2, 3, 4, 4]),
        opset,
    )
    proto.ir_version = 3
    for name, value in weights.items():
        proto.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape))
    return proto


def test_an_old_opset_is_converted_and_computes_what_it_meant() -> None:
    loaded = load_model(old_norm(6))
    assert loaded.opset == 6
    assert [(entry.domain, entry.version) for entry in loaded.proto.opset_import] == [("", 18)]
    onnx.checker.check_model(loaded.proto, full_check=True)
    assert {"bn", "add", "relu"} <= {node.name for node in loaded.proto.graph.node}
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4), np.float32)
    s = OLD_WEIGHT[:, None, None]
    wanted = np.maximum(s * (x - s) / np.sqrt(s + 1e-5) + s + 1, 0)
    np.testing.assert_allclose(computed(loaded.proto)[0], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opset", range(7, 27))
def test_opsets_that_run_here_stay_as_they_are(opset: int) -> None:
    loaded = load_model(two_nodes(opset=opset))
    assert (loaded.opset, loaded.proto.opset_import[0].version) == (opset, opset)


def test_an_opset_newer_than_onnx_runtime_is_brought_down_to_one_it_runs() -> None:
    newest = onnx.defs.onnx_opset_version()
    proto = two_nodes(opset=newest)
    proto.ir_version = onnx.IR_VERSION
    loaded = load_model(proto)
    assert loaded.opset == newest
    assert loaded.proto.opset_import[0].version == min(newest, runtime.newest_opset())
    np.testing.assert_array_equal(computed(loaded.proto)[0], computed(two_nodes())[0])


def test_an_opset_that_onnx_does_not_know_is_refused() -> None:
    proto = two_nodes(opset=99)
    with pytest.raises(OpsetError, match=r"has opset 99; onnx .* knows 1 to .* older opset"):
        load_model(proto)


def test_no_way_between_opsets_is_an_opset_error() -> None:
    proto = model_of([helper.make_node("Gelu", ["input"], ["output"])], {}, ([3], [3]), 20)
    with pytest.raises(OpsetError, match=r"has opset 20 and cannot be converted to 13: .*Gelu"):
        to_opset(proto, 13)


def test_a_model_without_the_standard_domain_is_refused() -> None:
    proto = model_of(
        [helper.make_node("Gelu", ["input"], ["output"], domain="com.microsoft")], {}, ([3], [3])
    )
    proto.opset_import[0].CopyFrom(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(OpsetError, match="imports no opset of the standard domain"):
        load_model(proto)


def test_conversion_keeps_names_metadata_and_foreign_nodes_and_strips_unused_domains() -> None:
    proto = small_cnn(opset=13)
    proto.opset_import.extend(helper.make_opsetid(name, 1) for name in ("com.microsoft", "ai.onnx.training"))
    proto.graph.node.append(helper.make_node("Gelu", ["relu1"], ["extra"], "gelu", domain="com.microsoft"))
    proto.graph.output.append(helper.make_tensor_value_info("extra", TensorProto.FLOAT, None))
    proto.graph.output[1].type.tensor_type.shape.SetInParent()
    proto.graph.output[1].type.tensor_type.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in "NCHW")
    for node in proto.graph.node:
        node.metadata_props.add(key="origin", value=f"was {node.name}")
    result = to_opset(proto, 18)
    assert {(entry.domain, entry.version) for entry in result.opset_import} == {
        ("", 18),
        ("com.microsoft", 1),
    }
    assert [node.name for node in result.graph.node] == [node.name for node in proto.graph.node]
    assert [node.output for node in result.graph.node] == [node.output for node in proto.graph.node]
    assert [node.metadata_props for node in result.graph.node] == [n.metadata_props for n in proto.graph.node]
    for got, wanted in zip(computed(result), computed(proto), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_nodes_added_by_the_conversion_are_named() -> None:
    nodes_13 = [helper.make_node("ReduceMean", ["input"], ["output"], name="mean", axes=[2, 3])]
    result = to_opset(model_of(nodes_13, {}, (["N", 3, 4, 4], ["N", 3, 1, 1]), 13), 18)
    names = [node.name for node in result.graph.node]
    assert "mean" in names
    assert len(names) == 2
    assert all(names)
