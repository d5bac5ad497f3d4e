"""The probe: scores of the plain model however they are batched, maps as the explainer gives them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from srd_onnx import Explainer
from srd_onnx.errors import NonFiniteError, OptionError, ShapeError, UnknownTensorError
from srd_onnx.metrics import randomised
from srd_onnx.metrics.probe import ExplainerProbe, probe_of
from srd_onnx.ort.forward import forward_of
from tests.nets import model_of, small_cnn

Array = NDArray[Any]
DATA: Array = np.random.default_rng(0).standard_normal((11, 3, 32, 32)).astype(np.float32)
make = helper.make_node


def probe(model: ModelProto | None = None, batch: int = 4, **options: Any) -> ExplainerProbe:
    of_map = {} if "method" in options else {"preset": "paper"}
    explainer = Explainer(model or small_cnn(), providers="cpu", **of_map | options)
    return probe_of(explainer, batch=batch)


def by_onnxruntime(model: ModelProto, data: Array) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {session.get_inputs()[0].name: row[None]})[0] for row in data])


def with_softmax() -> ModelProto:
    model = small_cnn()
    model.graph.node[-1].output[0] = "logits"
    model.graph.node.append(make("Softmax", ["logits"], ["output"], name="softmax", axis=1))
    return model


@pytest.mark.parametrize("batch", [1, 4, 8, 11, 32])
@pytest.mark.parametrize("count", [1, 2, 4, 7, 11])
def test_scores_are_the_models_however_they_are_batched(batch: int, count: int) -> None:
    found = probe(batch=batch).scores(DATA[:count])
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, by_onnxruntime(small_cnn(), DATA[:count]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("declared", [1, 3])
def test_a_fixed_batch_is_filled_up(declared: int) -> None:
    model = small_cnn(batch=declared)
    found = probe(model).scores(DATA)
    np.testing.assert_allclose(found, by_onnxruntime(small_cnn(), DATA), rtol=1e-4, atol=1e-5)


def test_nothing_gives_nothing() -> None:
    assert probe().scores(DATA[:0]).shape == (0, 10)


def test_scores_lie_before_the_softmax_and_probabilities_behind_it() -> None:
    one = probe(with_softmax())
    np.testing.assert_allclose(one.scores(DATA), by_onnxruntime(small_cnn(), DATA), rtol=1e-4, atol=1e-5)
    expected = by_onnxruntime(with_softmax(), DATA)
    np.testing.assert_allclose(one.probabilities(DATA), expected, rtol=1e-4, atol=1e-6)


def test_maps_are_the_explainers_for_the_target_of_each() -> None:
    targets = np.arange(5)
    found = probe().maps(DATA[:5], targets)
    explainer = Explainer(small_cnn(), preset="paper", providers="cpu")
    for row, target, one in zip(DATA, targets, found, strict=False):
        np.testing.assert_array_equal(one, explainer.explain(row, int(target))[0].relevance)
    assert found.dtype == np.float64
    assert np.abs(found[0] - probe().maps(DATA[:1], np.array([1]))[0]).max() > 1e-3


def test_maps_do_not_depend_on_what_runs_beside_them() -> None:
    one = probe()
    targets = np.full(6, 2)
    np.testing.assert_array_equal(one.maps(DATA[:6], targets)[3:], one.maps(DATA[3:6], targets[3:]))


def test_another_method_gives_other_maps() -> None:
    targets = np.array([3])
    srd, saliency = (probe(method=name).maps(DATA[:1], targets) for name in ("srd", "saliency"))
    assert (saliency >= 0).all()
    assert np.abs(srd - saliency).max() > 1e-3


def test_channels_may_come_last() -> None:
    model = small_cnn()
    model.graph.input[0].name = "picture"
    for axis, size in enumerate((32, 32, 3), start=1):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
    first = make("Transpose", ["picture"], ["input"], name="to channels first", perm=[0, 3, 1, 2])
    model.graph.node.insert(0, first)
    one = probe(model)
    assert one.channel_axis == 2
    assert one.forward.position_axes == (0, 1)
    data = DATA.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(one.scores(data), by_onnxruntime(small_cnn(), DATA), rtol=1e-4, atol=1e-5)
    assert one.maps(data[:1], np.array([0])).shape == (1, 32, 32)


def test_bytes_are_rounded_not_cut_off() -> None:
    nodes = [
        make("Cast", ["input"], ["x"], name="cast", to=TensorProto.FLOAT),
        make("GlobalAveragePool", ["x"], ["p"], name="pool"),
        make("Flatten", ["p"], ["output"], name="flatten"),
    ]
    model = model_of(nodes, {}, (["N", 2, 4, 4], ["N", 2]))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    found = probe(model, layout="NCHW").scores(np.stack([np.full((2, 4, 4), v) for v in (7.6, -3.0, 300.0)]))
    np.testing.assert_array_equal(found, [[8, 8], [0, 0], [255, 255]])


def test_an_open_size_is_what_is_asked_for() -> None:
    model = small_cnn()
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "side"
    explainer = Explainer(model, providers="cpu", layout="NCHW")
    assert probe_of(explainer, (3, 16, 24)).maps(DATA[:1, :, :16, :24], np.array([0])).shape == (1, 16, 24)


def two_inputs() -> ModelProto:
    model = model_of([make("Add", ["input", "other"], ["output"], name="add")], {}, (["N", 2], ["N", 2]))
    model.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ["N", 2]))
    return model


def test_what_metrics_cannot_deal_with_is_refused() -> None:
    with pytest.raises(OptionError, match="the model has the inputs 'input', 'other'"):
        forward_of(Explainer(two_inputs(), providers="cpu"))
    with pytest.raises(ShapeError, match="2 inputs, but 1 targets"):
        probe().maps(DATA[:2], np.array([0]))
    with pytest.raises(OptionError, match="batch=0: it must be at least 1"):
        probe(batch=0)
    flat = model_of([make("Flatten", ["input"], ["output"], name="f")], {}, (["N", 4, 4], ["N", 16]))
    with pytest.raises(OptionError, match="one channel axis; input 'input' has the layout NHW"):
        _ = probe(flat, layout="NHW").channel_axis


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(NonFiniteError, match="NaN"):
        probe().scores(np.full_like(DATA[:2], np.nan))


# Redrawn weights: the hook


def names_of(_: ModelProto) -> list[str]:
    return ["output", "pointwise", "conv1"]


def zeroed(proto: ModelProto, names: Sequence[str], seed: int) -> ModelProto:
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    for tensor in other.graph.initializer:
        if tensor.name.split(".")[0] in ("fc" if name == "output" else name for name in names):
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(np.full(tuple(tensor.dims), seed, np.float32), tensor.name)
            )
    return other


def test_redrawn_weights_are_those_of_the_layers_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomised, "weighted_layers", names_of)
    monkeypatch.setattr(randomised, "randomised_model", zeroed)
    one = probe(method="saliency")
    np.testing.assert_array_equal(one.randomised(1, 5).scores(DATA[:1]) != one.scores(DATA[:1]), True)
    assert np.ptp(one.randomised("output", 5).scores(DATA[:1])) < 1e-4  # equal weights, equal classes
    assert np.ptp(one.randomised("conv1", 5).scores(DATA[:1])) > 1e-3
    other = one.randomised(3, 7)
    assert other.explainer.method is one.explainer.method
    assert other.explainer.model.sha256 != one.explainer.model.sha256
    before, after = (p.maps(DATA[:1], np.array([0])) for p in (one, one.randomised("conv1", 5)))
    assert np.abs(before - after).max() > 1e-4
    np.testing.assert_array_equal(one.randomised(0, 5).scores(DATA), one.scores(DATA))
    with pytest.raises(UnknownTensorError, match="no layer with weights is called 'conv9'"):
        one.randomised("conv9", 0)
    with pytest.raises(OptionError, match="layers=4: the model has 3 layers with weights"):
        one.randomised(4, 0)


def test_a_redrawn_model_is_compiled_once() -> None:
    base = probe()
    names = base.weighted_layers()
    first = base.randomised(1, 0)
    assert base.randomised(1, 0) is base.randomised(names[0], 0) is first
    assert base.randomised(1, 1) is not first
    assert base.randomised(2, 0) is not first
    for seed in range(2, 20):
        base.randomised(1, seed)
    again = base.randomised(1, 0)
    assert again is not first  # let go, and the same when it is made anew
    np.testing.assert_array_equal(again.scores(DATA[:1]), first.scores(DATA[:1]))
