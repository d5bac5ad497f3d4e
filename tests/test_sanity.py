"""Warnings of an explanation: each fires where it must, and only there."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from srd_onnx import Explainer
from srd_onnx.engine.compiling import Case
from srd_onnx.engine.plan import Plan
from srd_onnx.engine.rival import likeness, strongest_other
from srd_onnx.explanation import Explanation, load_meta
from srd_onnx.methods import Attributed, Method
from srd_onnx.sanity import LIKENESS, RESIDUAL, warnings_of
from srd_onnx.subject import Subject
from srd_onnx.targets import Contrast
from tests.cli_tools import run
from tests.nets import model_of

Array = NDArray[Any]
make = helper.make_node
CLASS, MISSED, BOOKED = "barely changes with the class", "miss the seed", "not in the map"
CHANNELS, SIDE, CLASSES = 6, 5, 4
X: Array = np.random.default_rng(1).standard_normal((3, 2, SIDE, SIDE)).astype(np.float32)


def net(head: Array | None = None, bias: float = 0.0, side: int = SIDE) -> onnx.ModelProto:
    """Convolution, ReLU, mean, matrix: what enters at the ReLU is the head's row times the activation."""
    rng = np.random.default_rng(0)
    if head is None:
        head = rng.standard_normal((CLASSES, CHANNELS))
    weights: dict[str, Any] = {
        "w": rng.standard_normal((CHANNELS, 2, 3, 3)).astype(np.float32),
        "b": np.zeros(CHANNELS, np.float32),
        "head": np.asarray(head, np.float32),
        "bias": np.full(len(head), bias, np.float32),
    }
    nodes = [
        make("Conv", ["input", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        make("Relu", ["c"], ["r"], name="relu"),
        make("GlobalAveragePool", ["r"], ["p"], name="pool"),
        make("Flatten", ["p"], ["f"], name="flatten"),
        make("Gemm", ["f", "head", "bias"], ["output"], name="head", transB=1),
    ]
    return model_of(nodes, weights, (["N", 2, side, side], ["N", len(head)]))


def explainer(model: onnx.ModelProto | None = None, **options: Any) -> Explainer:
    return Explainer(model or net(), providers="cpu", layout="NCHW", **{"preset": "paper"} | options)


def parts(found: Explanation) -> list[str]:
    """Which warnings there are."""
    return [part for part in (CLASS, MISSED, BOOKED) if any(part in text for text in found.warnings)]


# What the numbers say


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((10.0, 10.0, 0.0), []),
        ((10.0, 10.0 * (1 - 0.9 * RESIDUAL), 0.0), []),
        ((10.0, 10.0 * (1 - 1.1 * RESIDUAL), 0.0), [MISSED]),
        ((-10.0, -10.0 * (1 - 1.1 * RESIDUAL), 0.0), [MISSED]),
        ((10.0, 5.1, 4.9), []),
        ((10.0, 4.9, 5.1), [BOOKED]),
        ((10.0, -5.0, 15.0), [BOOKED]),
        ((10.0, 15.0, -5.0), []),
        ((10.0, 2.0, 5.0), [MISSED, BOOKED]),
        ((0.0, 0.0, 0.0), []),
    ],
)
def test_residual_and_ledger(numbers: tuple[float, float, float], expected: list[str]) -> None:
    texts = list(warnings_of(*numbers))
    assert len(texts) == len(expected)
    assert all(part in text for part, text in zip(expected, texts, strict=True))
    assert not list(warnings_of(*numbers, complete=False))


@pytest.mark.parametrize(
    ("found", "fires"),
    [(None, False), (-1.0, False), (LIKENESS - 1e-6, False), (LIKENESS + 1e-6, True), (1.0, True)],
)
@pytest.mark.parametrize("label", [None, "tabby"])
def test_likeness(found: float | None, *, fires: bool, label: str | None) -> None:
    texts = list(warnings_of(1, 1, 0, rival={"index": 281, "label": label, "likeness": found}))
    assert len(texts) == fires
    assert not fires or f"for {'tabby (281)' if label else 'class 281'} it starts from" in texts[0]


# The class


def entered(model: onnx.ModelProto, x: Array, target: int) -> Array:
    """By definition: each position of the activation times the head's row of the class, over the positions."""
    stored = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    activation = np.maximum(np.einsum("chwij,ocij->ohw", windows, stored["w"]), 0)
    found = np.einsum("o,ohw->hw", stored["head"][target], activation) / activation[0].size
    return np.asarray(found).ravel()


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("sign", ["signed", "positive"])
def test_likeness_by_definition(batch_size: int, *, several: bool, sign: str) -> None:
    model = net()
    targets = [0, 1, 2, 3] if several else [0, 2]
    found = explainer(model, sign=sign).explain(X, targets, batch_size=batch_size)
    rows = iter(found)
    for x in X:
        for target in targets:
            one = next(rows)
            order = [int(c) for c in np.argsort(-one.logits) if c != target]
            a, b = entered(model, x, target), entered(model, x, order[0])
            if sign == "positive":
                a, b = np.maximum(a, 0), np.maximum(b, 0)
            assert one.meta["rival"]["index"] == order[0]
            flat = not a.any() or not b.any()
            right = None if flat else pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-5)
            assert one.meta["rival"]["likeness"] == right
            assert one.meta["rival"]["likeness"] != pytest.approx(-1 if flat else np.corrcoef(a, -b)[0, 1])


@pytest.mark.parametrize("targets", [0, [0, 1, 2, 3]])
def test_two_classes_that_read_the_same_are_warned_of(targets: Any) -> None:
    row = np.abs(np.random.default_rng(2).standard_normal(CHANNELS)) + 1
    alike = np.stack([row, 0.9 * row, -row, -row])
    found = explainer(net(alike), labels=list("abcd")).explain(X[0], targets)[0]
    assert found.meta["rival"] == {"index": 1, "label": "b", "likeness": pytest.approx(1)}
    assert parts(found) == [CLASS]
    assert found.warnings == tuple(found.meta["warnings"])
    assert "for b (1) it starts from nearly the same (correlation 1.000, more than 0.95)" in found.warnings[0]


def test_what_tells_them_apart_is_not_warned_of() -> None:
    row = np.abs(np.random.default_rng(2).standard_normal(CHANNELS)) + 1
    alike = np.stack([row, 0.9 * row + np.arange(CHANNELS) % 2, -row, -row])
    for options in ({"seed": "logprob"}, {"seed": "contrast"}):
        found = explainer(net(alike), **options).explain(X[0], 0)[0]
        assert found.meta["rival"]["likeness"] < 0
        assert CLASS not in parts(found)
    (contrast,) = explainer(net(alike)).explain(X[0], Contrast(0, 1))
    assert contrast.meta["rival"] is None
    assert CLASS not in parts(contrast)


def test_it_can_be_switched_off() -> None:
    on, off = explainer(), explainer(compare=False)
    for targets in (None, [0, 1, 2, 3]):
        one, other = on.explain(X[0], targets)[0], off.explain(X[0], targets)[0]
        assert one.meta["rival"] is not None
        assert other.meta["rival"] is None
        np.testing.assert_array_equal(one.relevance, other.relevance)


def test_without_another_class_or_with_few_positions_there_is_nothing_to_compare() -> None:
    alone = net(np.ones((1, CHANNELS)))
    assert explainer(alone).explain(X[0], 0)[0].meta["rival"] is None
    for side, none in ((2, True), (3, False)):
        found = explainer(net(side=side)).explain(X[:1, :, :side, :side], [0, 1, 2, 3])
        assert [one.meta["rival"] is None for one in found] == [none] * 4


def test_a_flat_side_has_no_likeness() -> None:
    head = np.stack([np.ones(CHANNELS), np.zeros(CHANNELS)])
    found = explainer(net(head)).explain(X[0], 0)[0]
    assert found.meta["rival"] == {"index": 1, "label": None, "likeness": None}
    assert not found.warnings


def test_likeness_and_the_rival_by_hand() -> None:
    plan = explainer().plan.outline
    name = plan.boundary[0].name
    a, b = np.random.default_rng(0).standard_normal((2, SIDE * SIDE))
    assert likeness(plan, {name: a}, {name: b})[0] == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert likeness(plan, {name: a}, {name: 2 * a + 1})[0] == pytest.approx(1)
    assert np.isnan(likeness(plan, {name: a}, {name: b * np.inf})[0])
    assert list(strongest_other(np.array([[1, 3, 2], [5, 4, 4]]), np.array([1, 2]))) == [2, 0]


# The ledger, and the residual


def test_most_of_the_relevance_in_the_ledger() -> None:
    apart = np.stack([np.ones(CHANNELS), np.arange(CHANNELS) % 2 - 0.5])
    booked = explainer(net(apart, bias=1000.0)).explain(X[0], 0)[0]
    assert parts(booked) == [BOOKED]
    assert "it sums to " in booked.warnings[0]
    assert parts(explainer(net(np.eye(2, CHANNELS))).explain(X[0], 0)[0]) == []


@dataclass(frozen=True, eq=False)
class Scaled:
    """A map of one number, which is to be the score."""

    plan: Plan
    factor: float

    def __call__(self, feeds: Mapping[str, Array], seed: Array) -> Attributed:
        scores = np.full((1, CLASSES), 2.0)
        spread = np.full((1, SIDE, SIDE), 2.0 / SIDE**2 * self.factor, np.float32)
        return Attributed({"input": spread}, np.array([2.0]), scores)


def scaled(factor: float, *, complete: bool) -> Method:
    def compiled(subject: Subject, case: Case) -> Scaled:
        return Scaled(subject.planned(case)[1], factor)

    return Method("scaled", "Scaled", "control", "this test", compiled, complete=complete)


@pytest.mark.parametrize(
    ("factor", "complete", "expected"),
    [(1.0, True, []), (1.01, True, [MISSED]), (1.01, False, []), (0.0, False, [])],
)
def test_other_methods_are_held_to_what_they_promise(
    factor: float, *, complete: bool, expected: list[str]
) -> None:
    method = scaled(factor, complete=complete)
    found = Explainer(net(), method=method, providers="cpu", layout="NCHW").explain(X[0], 0)[0]
    assert parts(found) == expected
    assert found.meta["rival"] is None


# Where it is told


def test_the_picture_and_the_archive_tell(tmp_path: Path) -> None:
    warned = explainer(net(np.ones((2, CHANNELS)), bias=1000.0)).explain(X[0], 0)[0]
    paths = warned.save(tmp_path)
    assert load_meta(paths["npz"])["warnings"] == list(warned.warnings)
    silent = Explanation(**{**vars(warned), "meta": dict(warned.meta) | {"warnings": []}})
    assert silent.warnings == ()
    assert silent.png() != warned.png()


def test_the_command_line_tells(tmp_path: Path) -> None:
    head = np.ones((2, CHANNELS))
    model, data = tmp_path / "model.onnx", tmp_path / "one.npy"
    onnx.save(net(head, bias=1000.0), str(model))
    np.save(data, X[0])
    options = ("--layout", "NCHW", "--target", "0", "--preset", "paper")
    result = run("explain", model, data, *options, "--out", tmp_path / "out")
    assert result.exit_code == 0
    lines = [line for line in result.stderr.splitlines() if line.startswith("one, class 0: ")]
    assert [part for line in lines for part in (CLASS, MISSED, BOOKED) if part in line] == [CLASS, BOOKED]
    listed = run("explain", model, data, *options, "--out", tmp_path / "out", "--json")
    assert BOOKED in listed.stdout
