"""Controls: maps that know nothing of the model."""

import math
from typing import get_args

import numpy as np
import pytest

from srd_onnx import Explainer
from srd_onnx.engine.options import Seed
from srd_onnx.graph.ir import Array
from srd_onnx.methods import Method, method_named
from tests.method_nets import SHAPE, data, linear, regions

CONTROLS = ["random", "sobel", "centre"]
WIDE, HIGH = SHAPE[2], SHAPE[1]


def maps(method: str | Method, inputs: Array, batch_size: int = 1) -> list[Array]:
    explainer = Explainer(linear().model(), method=method, providers="cpu")
    return [one.relevance for one in explainer.explain(inputs, 1, batch_size=batch_size)]


@pytest.mark.parametrize("kind", get_args(Seed))
@pytest.mark.parametrize("targets", [None, 0])
def test_what_is_explained_is_what_srd_explains(kind: Seed, targets: int | None) -> None:
    """The number, in numpy, is the one that the engine emits."""
    methods = [
        Explainer(linear().model(), method=name, seed=kind, providers="cpu") for name in ("srd", "centre")
    ]
    srd, control = ([one.meta["seed_value"] for one in e.explain(data(3), targets)] for e in methods)
    assert control == pytest.approx(srd, rel=1e-4, abs=1e-6)


def test_the_blob_by_its_formula() -> None:
    (found,) = maps("centre", data(1))
    wanted = np.zeros((HIGH, WIDE))
    for i in range(HIGH):
        for j in range(WIDE):
            down, right = (i - 3.5) / (8 / 6), (j - 4.5) / (10 / 6)
            wanted[i, j] = math.exp(-(down**2 + right**2) / 2)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_the_edges_by_loops() -> None:
    x = data(1)
    (found,) = maps("sobel", x)
    grey = x[0].astype(np.float64).mean(axis=0)
    slope, smooth = [-1, 0, 1], [1, 2, 1]
    wanted = np.zeros((HIGH, WIDE))
    for i in range(HIGH):
        for j in range(WIDE):
            down = right = 0.0
            for a in range(3):
                for b in range(3):
                    here = grey[min(max(i + a - 1, 0), HIGH - 1), min(max(j + b - 1, 0), WIDE - 1)]
                    down += slope[a] * smooth[b] * here
                    right += smooth[a] * slope[b] * here
            wanted[i, j] = math.hypot(down, right)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert np.abs(maps("sobel", x[:, ::-1] * [[[[1]], [[2]], [[1]]]])[0] - wanted).max() > 0.1


def test_noise_is_uniform_and_independent_from_input_to_input() -> None:
    x = data(2, (3, 8, 10))
    one, other = maps("random", x)
    assert one.shape == other.shape == (HIGH, WIDE)
    assert 0 <= one.min() < 0.1
    assert 0.9 < one.max() < 1
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.4


def test_noise_by_its_seed() -> None:
    x = data(1)
    first, again, another = (maps(f"random:seed={seed}", x)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != another).all()


@pytest.mark.parametrize("method", CONTROLS)
def test_the_same_map_alone_and_in_a_batch(method: str) -> None:
    x = data(5)
    for alone, together in zip(maps(method, x), maps(method, x, batch_size=3), strict=True):
        np.testing.assert_array_equal(alone, together)


@pytest.mark.parametrize("method", CONTROLS)
def test_the_map_is_the_same_for_every_class_and_model(method: str) -> None:
    x = data(1)
    one, other = Explainer(linear().model(), method=method, providers="cpu").explain(x, [0, 2])
    (elsewhere,) = Explainer(linear(seed=9).model(), method=method, providers="cpu").explain(x, 0)
    np.testing.assert_array_equal(one.relevance, other.relevance)
    np.testing.assert_array_equal(one.relevance, elsewhere.relevance)


@pytest.mark.parametrize("method", CONTROLS)
def test_the_record_says_what_was_explained(method: str) -> None:
    x = data(1)
    (found,) = Explainer(linear().model(), method=method, providers="cpu").explain(x, 2)
    scores = linear()(x[0])
    assert found.meta["method"]["name"] == method
    assert found.meta["seed_value"] == pytest.approx(scores[2], rel=1e-5)
    np.testing.assert_allclose(found.logits, scores, rtol=1e-5)
    made = method_named(method)
    assert made is not None
    assert made.family == "control"
    assert not made.complete


@pytest.mark.parametrize("method", CONTROLS)
def test_no_rules_are_needed(method: str) -> None:
    explainer = Explainer(regions(batch=1), method=method, providers="cpu")
    assert explainer.explain(data(2))[1].relevance.shape == (HIGH, WIDE)


def test_channels_last() -> None:
    x = data(1)
    last = Explainer(linear().model(), method="sobel", providers="cpu", layout="NHWC")
    assert last.explain(x)[0].relevance.shape == (3, 8)
