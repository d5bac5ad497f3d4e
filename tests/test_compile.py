"""compile: the explained model as one file, run by nothing but ONNX Runtime."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from srd_onnx import Explainer, zoo
from srd_onnx.errors import OptionError, OutputError, UnsupportedCaseError, UnsupportedOpError
from tests.nets import model_of, small_cnn

make = helper.make_node
DATA = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)


def make_explainer(model: Any = None, **options: Any) -> Explainer:
    return Explainer(model or small_cnn(), providers="cpu", **options)


def run_alone(model: onnx.ModelProto | Path, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """In a plain session with default options (but for the log)."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def assert_close(found: NDArray[Any], expected: NDArray[Any]) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * float(np.abs(expected).max()))


@pytest.mark.parametrize(
    "options", [{}, {"bias": "ledger"}, {"seed": "logprob", "sign": "positive"}, {"boundary": "relu3"}]
)
@pytest.mark.parametrize("target", [None, 4])
def test_the_compiled_model_gives_the_map_of_explain(options: dict[str, Any], target: int | None) -> None:
    subject = make_explainer(**options)
    expected = subject.explain(DATA[0], target)[0]
    feeds: dict[str, NDArray[Any]] = {"input": DATA[:1]}
    if target is not None:
        feeds["target"] = np.array([target], np.int64)
    found = run_alone(subject.compile(), feeds)
    assert list(found) == ["output", "relevance"]
    assert_close(found["relevance"][0], expected.relevance)
    assert_close(found["output"][0], expected.logits)


def test_a_compiled_batch_has_a_target_for_each_input() -> None:
    subject = make_explainer()
    found = run_alone(subject.compile(batch=2), {"input": DATA, "target": np.array([5, -1])})
    expected = [subject.explain(DATA[0], 5)[0].relevance, subject.explain(DATA[1])[0].relevance]
    assert_close(found["relevance"], np.stack(expected))


def test_the_compiled_model_is_ordinary_onnx() -> None:
    model = make_explainer().compile(batch=2)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert [entry.domain for entry in model.opset_import] == [""]
    target = {value.name: value.type.tensor_type for value in model.graph.input}["target"]
    assert (target.elem_type, [d.dim_value for d in target.shape.dim]) == (TensorProto.INT64, [2])
    relevance = model.graph.output[-1]
    assert relevance.name == "relevance"
    assert [d.dim_value for d in relevance.type.tensor_type.shape.dim] == [2, 32, 32]


def test_every_backward_node_says_which_node_and_rule_it_comes_from() -> None:
    model = make_explainer().compile()
    forward = {node.name for node in small_cnn().graph.node}
    backward = [node for node in model.graph.node if node.name not in forward]
    assert backward
    for node in backward:
        if not node.name.startswith("srd/output/"):
            assert {prop.key for prop in node.metadata_props} == {"srd.forward_node", "srd.rule"}, node.name


def test_the_file_holds_nothing_that_no_output_needs() -> None:
    graph = make_explainer(bias="ledger", seed="logprob").compile().graph
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    assert all(used.intersection(node.output) for node in graph.node)
    assert {tensor.name for tensor in graph.initializer} <= used


def test_the_original_outputs_stay_in_their_order() -> None:
    model = small_cnn()
    model.graph.output.append(helper.make_tensor_value_info("relu5", TensorProto.FLOAT, ["N", 16, 8, 8]))
    model.graph.output.append(model.graph.input[0])
    found = run_alone(make_explainer(model).compile(), {"input": DATA[:1]})
    assert list(found) == ["output", "relu5", "input", "relevance"]
    np.testing.assert_array_equal(found["input"], DATA[:1])


def test_a_softmax_at_the_end_stays_the_output() -> None:
    model = small_cnn()
    model.graph.node.append(make("Softmax", ["output"], ["probabilities"], name="softmax"))
    model.graph.output[0].name = "probabilities"
    subject = make_explainer(model)
    found = run_alone(subject.compile(), {"input": DATA[:1]})
    assert float(found["probabilities"].sum()) == pytest.approx(1, rel=1e-5)
    assert_close(found["relevance"][0], make_explainer().explain(DATA[0])[0].relevance)


def test_the_file_is_what_is_returned(tmp_path: Path) -> None:
    path = tmp_path / "explained.onnx"
    model = make_explainer().compile(path)
    assert path.read_bytes() == model.SerializeToString()
    assert_close(
        run_alone(path, {"input": DATA[:1]})["relevance"], run_alone(model, {"input": DATA[:1]})["relevance"]
    )


def test_a_place_where_no_file_can_be_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match=re.escape(str(tmp_path / "file"))):
        make_explainer().compile(tmp_path / "file" / "explained.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "kept"


def test_nothing_is_written_where_a_rule_is_missing(tmp_path: Path) -> None:
    nodes = [
        make("MaxRoiPool", ["input", "rois"], ["d"], name="regions", pooled_shape=[1, 1]),
        make("Flatten", ["d"], ["output"]),
    ]
    model = model_of(nodes, {"rois": np.array([[0, 0, 0, 3, 3]], np.float32)}, ([1, 3, 4, 4], [1, 3]))
    with pytest.raises(
        UnsupportedOpError,
        match=r"^1 of 2 nodes have no relevance rule:\n  ai.onnx::MaxRoiPool v\d+  node 'regions'",
    ):
        make_explainer(model, layout="NCHW").compile(tmp_path / "explained.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_fixed_batch_is_kept() -> None:
    model = make_explainer(small_cnn(batch=4)).compile()
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [4, 3, 32, 32]


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(OptionError) as caught:
        make_explainer().compile(batch=0)
    assert str(caught.value) == "batch=0: it must be at least 1"


def test_a_compiled_model_is_not_compiled_again() -> None:
    with pytest.raises(UnsupportedCaseError) as caught:
        make_explainer(make_explainer().compile()).compile()
    assert str(caught.value) == (
        "the model has a tensor called 'target', a name that the explained model needs for itself: "
        "rename the tensor, e.g. with onnx.compose.add_prefix"
    )


@pytest.mark.parametrize("name", sorted(zoo.zoo()))
def test_the_shipped_models_compile_to_a_file_that_gives_their_map(name: str, tmp_path: Path) -> None:
    subject = make_explainer(name)
    path = tmp_path / "explained.onnx"
    subject.compile(path)
    explained = subject.explain(zoo.sample_photo(), 281)[0]
    ready = subject.preactivations(zoo.sample_photo(), "input")["input"]
    found = run_alone(path, {"input": ready, "target": np.array([281])})
    assert_close(found["relevance"][0], explained.relevance)
    assert int(next(iter(found.values()))[0].argmax()) == int(explained.logits.argmax())
