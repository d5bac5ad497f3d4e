"""Inner tensors of the graph by name: the augmented outputs."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from srd_onnx import Explainer
from srd_onnx.errors import UnknownTensorError
from tests.nets import small_cnn

DATA = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)


def make_explainer(model: onnx.ModelProto | None = None, **options: Any) -> Explainer:
    return Explainer(model or small_cnn(), providers="cpu", **options)


def test_the_default_preactivations_are_the_inputs_of_the_nonlinearities() -> None:
    model = small_cnn()
    found = make_explainer(model).preactivations(DATA[:3])
    assert list(found) == ["bn1", "relu1", "bn2", "add", "bn4", "bn5"]
    names = list(found)
    for name in names:
        model.graph.output.append(helper.make_tensor_value_info(name, 1, None))
    expected = ReferenceEvaluator(model).run(names, {"input": DATA[:3]})
    for name, array in zip(names, expected, strict=True):
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5 * float(np.abs(array).max()))


def test_preactivations_go_by_tensor_or_original_node_and_keep_the_name_given() -> None:
    subject = make_explainer()
    found = subject.preactivations(list(DATA[:2]), ["conv1", "bn1", "input", "output"])
    assert {name: array.shape for name, array in found.items()} == {
        "conv1": (2, 8, 32, 32),
        "bn1": (2, 8, 32, 32),
        "input": (2, 3, 32, 32),
        "output": (2, 10),
    }
    np.testing.assert_array_equal(found["conv1"], found["bn1"])
    np.testing.assert_array_equal(found["input"], DATA[:2])
    np.testing.assert_array_equal(subject.preactivations(DATA[:2], "output")["output"], found["output"])


def test_preactivations_of_a_model_with_a_fixed_batch_are_those_of_the_inputs_given() -> None:
    found = make_explainer(small_cnn(batch=4)).preactivations(DATA[:3], ["add"])["add"]
    np.testing.assert_allclose(
        found, make_explainer().preactivations(DATA[:3], ["add"])["add"], rtol=1e-5, atol=1e-6
    )


def test_wildcards_fit_tensors_and_original_nodes_and_go_by_the_tensors_names() -> None:
    subject = make_explainer()
    found = subject.preactivations(DATA[:2], ["relu*", "conv?", "add", "*put"])
    assert list(found) == [
        *(f"relu{i}" for i in range(1, 6)), "bn1", "bn2", "bn3", "add", "input", "output",
    ]  # fmt: skip
    exact = subject.preactivations(DATA[:2], list(found))
    for name, array in found.items():
        np.testing.assert_array_equal(array, exact[name])
    assert len(subject.preactivations(DATA[:1], "*")) > len(found)


def test_a_tensor_whose_name_looks_like_a_wildcard_is_meant_itself() -> None:
    model = small_cnn()
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["relu[12]" if name == "relu3" else name for name in names]
    found = make_explainer(model).preactivations(DATA[:1], "relu[12]")
    assert {name: array.shape for name, array in found.items()} == {"relu[12]": (1, 8, 16, 16)}


def test_unknown_tensors_are_all_named() -> None:
    with pytest.raises(UnknownTensorError) as caught:
        make_explainer().preactivations(DATA[:1], ["relu1", "nope", "conv9*"])
    assert str(caught.value) == (
        "the simplified graph has no tensor or node 'nope', 'conv9*': the name is wrong, or "
        "it was folded into another node. `srd-onnx check MODEL` lists the names that are left."
    )
