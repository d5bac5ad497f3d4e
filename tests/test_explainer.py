"""The facade: batches, targets, bad data, the session cache, meta."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from srd_onnx import Explainer, Explanation
from srd_onnx.engine import compiling
from srd_onnx.errors import OptionError, UnknownTargetError
from srd_onnx.inputs.preprocess import Preprocess
from srd_onnx.targets import split_targets
from tests.nets import model_of, small_cnn

make = helper.make_node
Array = NDArray[Any]
LABELS = [f"class number {i}" for i in range(10)]
DATA = np.random.default_rng(0).standard_normal((7, 3, 32, 32)).astype(np.float32)
PHOTOS = np.random.default_rng(1).integers(0, 256, (4, 40, 36, 3)).astype(np.uint8)
SMALL = Preprocess(resize=(32, 32), mean=(127.0,), std=(64.0,))


def make_explainer(model: onnx.ModelProto | None = None, **options: Any) -> Explainer:
    return Explainer(model or small_cnn(), providers="cpu", **options)


def assert_same(found: Sequence[Explanation], expected: Sequence[Explanation]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.target == b.target
        scale = float(np.abs(b.relevance).max())
        np.testing.assert_allclose(a.relevance, b.relevance, rtol=1e-5, atol=1e-5 * scale)
        np.testing.assert_allclose(a.logits, b.logits, rtol=1e-5, atol=1e-5)


# Batches


def in_one_run(
    explainer: Explainer, data: Any, target: int | str = "top1", batch: int = 0
) -> list[Explanation]:
    """As on a GPU: so many inputs (all of them) in a run."""
    wanted, found = split_targets(target), []
    for chunk, size in explainer.chunks(data, batch or len(data)):
        (rows,) = explainer.explained(chunk, size, wanted)
        found += [one for row in rows for one in row]
    return found


@pytest.mark.parametrize("batch_size", [1, 3, 5, 16])
def test_a_batch_gives_what_single_inputs_give(batch_size: int) -> None:
    single = [make_explainer().explain(row)[0] for row in DATA]
    assert_same(make_explainer().explain(DATA, batch_size=batch_size), single)
    assert_same(in_one_run(make_explainer(), DATA, batch=batch_size), single)


@pytest.mark.parametrize("bias", ["distribute", "ledger"])
@pytest.mark.parametrize("seed", ["logit", "logprob", "contrast"])
def test_a_batch_gives_what_single_inputs_give_under_every_option(bias: str, seed: str) -> None:
    options: dict[str, Any] = {"bias": bias, "seed": seed, "sign": "positive"}
    single = [make_explainer(**options).explain(row, [2, "top2"])[0] for row in DATA]
    together = in_one_run(make_explainer(**options), DATA, 2, batch=4)
    assert_same(together, single)
    for a, b in zip(together, single, strict=True):
        assert set(a.ledger) == set(b.ledger)
        assert sum(a.ledger.values()) == pytest.approx(sum(b.ledger.values()), rel=1e-4, abs=1e-5)


def test_a_list_of_arrays_is_a_stack_of_them() -> None:
    assert_same(make_explainer().explain(list(DATA), batch_size=3), make_explainer().explain(DATA))


def test_a_model_with_a_fixed_batch_explains_any_number() -> None:
    fixed = make_explainer(small_cnn(batch=4)).explain(DATA)
    assert_same(fixed, make_explainer().explain(DATA))


def pooled(layout: str = "NCHW") -> onnx.ModelProto:
    """A model of open size, channels first or (behind a Transpose) last."""
    rng = np.random.default_rng(3)
    weights: dict[str, Array] = {
        "w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "w2": rng.standard_normal((5, 4, 3, 3)).astype(np.float32),
    }
    start = (
        [] if layout == "NCHW" else [make("Transpose", ["input"], ["x"], perm=[0, 3, 1, 2], name="to_nchw")]
    )
    nodes = [
        *start,
        make("Conv", ["x" if start else "input", "w"], ["c"], name="conv", strides=[2, 2]),
        make("Relu", ["c"], ["r"], name="relu"),
        make("Conv", ["r", "w2"], ["z"], name="conv2"),
        make("GlobalAveragePool", ["z"], ["g"], name="gap"),
        make("Flatten", ["g"], ["output"], name="flatten"),
    ]
    sizes: dict[str, int | str] = {"N": "N", "C": 3, "H": "H", "W": "W"}
    return model_of(nodes, weights, ([sizes[axis] for axis in layout], ["N", 5]))


def test_inputs_of_several_shapes_come_back_in_their_order() -> None:
    rng = np.random.default_rng(4)
    sizes = [(16, 16), (16, 16), (20, 24), (16, 16), (20, 24)]
    inputs = [rng.standard_normal((3, *size)).astype(np.float32) for size in sizes]
    found = make_explainer(pooled()).explain(inputs, batch_size=2)
    assert [e.relevance.shape for e in found] == sizes
    assert_same(found, [make_explainer(pooled()).explain(x)[0] for x in inputs])


def test_channels_last_arrays_give_the_map_of_channels_first_ones() -> None:
    data = DATA[:2, :, :16, :18]
    last = make_explainer(pooled("NHWC"))
    assert (last.layout, last.layout_guessed) == ("NHWC", True)
    assert_same(last.explain(data.transpose(0, 2, 3, 1)), make_explainer(pooled()).explain(data))


def test_paths_photos_and_preprocessed_data_are_the_same_input(tmp_path: Path) -> None:
    paths = []
    for number, photo in enumerate(PHOTOS):
        paths.append(tmp_path / f"photo {number}.png")
        cv2.imwrite(str(paths[-1]), photo[:, :, ::-1])
    explain = make_explainer(preprocess=SMALL).explain
    by_path = explain(paths, batch_size=3)
    assert [e.name for e in by_path] == ["photo 0", "photo 1", "photo 2", "photo 3"]
    assert [e.name for e in explain(list(PHOTOS))] == ["image0", "image1", "image2", "image3"]
    assert_same(explain(list(PHOTOS)), by_path)
    ready = np.stack([SMALL(photo).transpose(2, 0, 1) for photo in PHOTOS])
    assert_same(explain(ready), by_path)
    assert_same(explain([paths[0], PHOTOS[1], ready[2], str(paths[3])], batch_size=2), by_path)


def test_nothing_gives_nothing() -> None:
    assert make_explainer().explain([]) == []
    assert make_explainer().explain(DATA[:0]) == []


def test_explanations_can_be_taken_one_by_one() -> None:
    found = make_explainer().explain_each((row for row in DATA), "top2")  # type: ignore[arg-type]
    first = next(found)
    assert first.target == int(first.logits.argmax())


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_of_nothing_is_refused(size: int) -> None:
    with pytest.raises(OptionError) as caught:
        make_explainer().explain(DATA, batch_size=size)
    assert str(caught.value) == f"batch_size={size}: it must be at least 1"


# Targets


def test_several_targets_come_input_by_input_in_the_order_asked_for() -> None:
    found = make_explainer(labels=LABELS).explain(DATA[:2], [4, "class number 7", "top1"])
    tops = [int(e.logits.argmax()) for e in found[::3]]
    assert [e.target for e in found] == [4, 7, tops[0], 4, 7, tops[1]]
    assert found[0].label == "class number 4"
    assert_same(found[1:2], make_explainer().explain(DATA[0], 7))


def test_inputs_may_have_different_numbers_of_targets() -> None:
    """ "top1" and 4 are one target where 4 is the top class."""
    explain = make_explainer()
    tops = [e.target for e in explain.explain(DATA)]
    found = explain.explain(DATA, ["top1", tops[0]], batch_size=7)
    expected = [t for top in tops for t in dict.fromkeys([top, tops[0]])]
    assert [e.target for e in found] == expected
    assert_same(found, [e for row in DATA for e in make_explainer().explain(row, ["top1", tops[0]])])


def test_the_map_depends_on_the_target() -> None:
    a, b = make_explainer(boundary="relu3").explain(DATA[0], [1, 2])
    assert float(np.abs(a.relevance - b.relevance).max()) > 0.1 * float(np.abs(a.relevance).max())


def test_a_target_that_does_not_exist_is_refused() -> None:
    with pytest.raises(
        UnknownTargetError, match=r"^target 10 does not exist: the model has 10 scores, 0 to 9$"
    ):
        make_explainer().explain(DATA, 10)


def test_a_label_is_refused_where_no_labels_are_known() -> None:
    with pytest.raises(
        UnknownTargetError, match=r"^target 'cat' is a label, but the model's labels are not known; "
    ):
        make_explainer().explain(DATA, "cat")


# The cache


def test_a_second_input_of_the_same_shape_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    real = compiling.compile_model

    def counted(*args: Any, **kwargs: Any) -> Any:
        compiled.append(args[1].shapes)
        return real(*args, **kwargs)

    monkeypatch.setattr("srd_onnx.explaining.compile_model", counted)
    subject = make_explainer(pooled())
    subject.explain(DATA[:3])
    subject.explain(DATA[3], ["top2", 0])
    assert compiled == [{"input": (1, 3, 32, 32)}]
    in_one_run(subject, DATA[:2])
    in_one_run(subject, DATA[2:5], batch=2)
    assert compiled == [{"input": (1, 3, 32, 32)}, {"input": (2, 3, 32, 32)}]
    subject.preactivations(DATA[:2])
    assert len(compiled) == 2


def sides(key: Any) -> int:
    (((_, shape),), *_) = key
    return int(shape[-1])


def test_the_cache_keeps_only_the_last_shapes() -> None:
    subject = make_explainer(pooled())
    for side in range(10, 20):
        subject.explain(DATA[0, :, :side, :side])
    assert [sides(key) for key in subject._sessions] == [16, 17, 18, 19]
    for side in (16, 20):
        subject.explain(DATA[0, :, :side, :side])
    assert [sides(key) for key in subject._sessions] == [18, 19, 16, 20]


def test_the_photo_and_what_was_done_are_in_the_explanation() -> None:
    found = make_explainer(preset="paper", preprocess=SMALL, labels=LABELS).explain(PHOTOS[0], 3)[0]
    assert found.image is not None
    assert (found.image.shape, found.target, found.label) == ((32, 32, 3), 3, "class number 3")
    meta = found.meta
    assert meta["preprocess"] == SMALL.to_dict()
    assert (meta["layout"], meta["layout_guessed"], meta["preprocess_assumed"]) == ("NCHW", True, False)
    assert meta["options"] == {
        "boundary": "encoder", "seed": "logit", "sign": "signed", "bias": "distribute", "focus": "none", "smooth": 0.0,
    }  # fmt: skip
    assert (meta["preset"], meta["boundary"], meta["provider"]) == (
        "paper",
        ["relu5"],
        "CPUExecutionProvider",
    )
    assert meta["seed_value"] == pytest.approx(found.score, rel=1e-6)
    assert meta["sum_relevance"] + meta["sum_ledger"] + found.residual == pytest.approx(meta["seed_value"])
    assert [t["index"] for t in meta["top5"]] == [int(i) for i in np.argsort(-found.logits)[:5]]
