"""Metrics that ask a model equal those of Quantus with the same network, inputs, maps and parameters."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import quantus
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from quantus.functions.perturb_func import noisy_linear_imputation

from srd_onnx.metrics import Explained, metric_named
from srd_onnx.metrics.axiomatic import holds
from srd_onnx.metrics.changes import drawing
from srd_onnx.metrics.curves import area, flipping_curve, road_curve
from srd_onnx.metrics.faithfulness import subsets_of, sufficiency
from srd_onnx.metrics.imputation import imputed
from tests.metric_probes import NumpyProbe

Array = NDArray[Any]
N, SIDE, CLASSES = 4, 16, 5
PLAIN: dict[str, Any] = {"disable_warnings": True, "display_progressbar": False, "normalise": False}
RNG = np.random.default_rng(0)
MAPS = RNG.standard_normal((N, SIDE, SIDE))
TARGETS = np.array([0, 3, 1, 4])


def network(channels: int) -> torch.nn.Module:
    torch.manual_seed(channels)
    body = [
        torch.nn.Conv2d(channels, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3),
        torch.nn.ReLU(),
    ]
    return torch.nn.Sequential(*body, torch.nn.Flatten(), torch.nn.LazyLinear(CLASSES)).eval()


def setting(channels: int) -> tuple[torch.nn.Module, Array, list[Explained]]:
    """The network, inputs, and these as our metrics take them."""
    model = network(channels)
    x = np.random.default_rng(channels).standard_normal((N, channels, SIDE, SIDE)).astype(np.float32) * 3

    def scores(inputs: Array) -> Array:
        with torch.no_grad():
            found: Array = model(torch.from_numpy(inputs.astype(np.float32))).numpy()
        return found

    scores(x)
    ones = [
        Explained(NumpyProbe(scores), row, int(t), m, 0, 0.0)
        for row, t, m in zip(x, TARGETS, MAPS, strict=True)
    ]
    return model, x, ones


def run(metric: Any, model: torch.nn.Module, x: Array, maps: Array = MAPS, **options: Any) -> Any:
    return metric(
        model=model,
        x_batch=x.copy(),
        y_batch=TARGETS,
        a_batch=maps[:, None].copy(),
        channel_first=True,
        **options,
    )


def ours(text: str, ones: list[Explained]) -> Array:
    return np.array([metric_named(text).score(one) for one in ones])


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("baseline", ["black", "zero"])
@pytest.mark.parametrize("of", ["probability", "logit"])
def test_pixel_flipping(channels: int, baseline: str, of: str) -> None:
    model, x, ones = setting(channels)
    theirs = quantus.PixelFlipping(
        features_in_step=channels * 32, perturb_baseline=0.0 if baseline == "zero" else "black", **PLAIN
    )
    expected = np.array(run(theirs, model, x, softmax=of == "probability"))
    found = [flipping_curve(one, 8, baseline, of) for one in ones]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    areas = [np.trapezoid(curve) / 7 for curve in expected]
    text = f"pixel-flipping:steps=8,baseline={baseline},of={of}"
    np.testing.assert_allclose(ours(text, ones), areas, rtol=1e-4, atol=1e-5)
    wrong = [area(flipping_curve(one, 8, "mean", of)) for one in ones]
    assert np.abs(np.subtract(wrong, areas)).max() > 1e-3


@pytest.mark.parametrize("channels", [1, 3])
def test_faithfulness_correlation(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quantus draws elements where we draw positions with all their channels: it is handed ours."""
    model, x, ones = setting(channels)
    rows = iter(np.repeat(subsets_of(SIDE * SIDE, 20, 30, seed=0), N, axis=0))  # the same for every input
    plane = np.arange(channels)[:, None] * SIDE * SIDE
    monkeypatch.setattr(np.random, "choice", lambda *_, **__: (plane + next(rows)).ravel())
    theirs = quantus.FaithfulnessCorrelation(
        nr_runs=30, subset_size=20 * channels, return_aggregate=False, **PLAIN
    )
    expected = run(theirs, model, x)
    found = ours("faithfulness-correlation:runs=30,subset=20", ones)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found) > 0.05


def alone(x: Array) -> Callable[..., Array]:
    """What replaces one patch of the input by its least number: Quantus by itself leaves earlier patches replaced."""

    def change(arr: Array, indices: Array, **_: Any) -> Array:
        found = x.reshape(len(x), -1).copy()
        np.put_along_axis(found, indices, found.min(axis=1, keepdims=True), axis=1)
        return found

    return change


def test_infidelity() -> None:
    """Quantus takes the map for a slope. It knows one channel: of several it changes the first alone."""
    model, x, ones = setting(1)
    theirs = quantus.Infidelity(perturb_patch_sizes=[4], n_perturb_samples=1, perturb_func=alone(x), **PLAIN)
    expected = np.array(run(theirs, model, x))
    found = ours("infidelity:grid=4,kind=local,scaled=false", ones)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.abs(ours("infidelity:grid=4,scaled=false", ones) / expected - 1).max() > 0.1


@pytest.mark.parametrize("threshold", [0.75, 0.85, 0.95])
def test_sufficiency(threshold: float) -> None:
    rng = np.random.default_rng(1)
    model = network(1)
    x = rng.standard_normal((12, 1, SIDE, SIDE)).astype(np.float32) * 3
    centres = rng.standard_normal((3, SIDE, SIDE))
    maps = centres[np.arange(12) % 3] + 0.5 * rng.standard_normal((12, SIDE, SIDE))
    classes = model(torch.from_numpy(x)).argmax(dim=1).numpy()
    theirs = quantus.Sufficiency(threshold=threshold, disable_warnings=True)
    expected = np.array(
        theirs(
            model=model,
            x_batch=x,
            y_batch=classes,
            a_batch=maps[:, None].copy(),
            channel_first=True,
        )
    )
    found = sufficiency(maps, classes, threshold)
    np.testing.assert_allclose(np.nan_to_num(found), expected, atol=1e-12)
    assert np.isfinite(found).any()
    assert 0 < np.nanmean(found) < 1


# ROAD


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.95])
def test_linear_imputation_is_that_of_quantus_and_of_the_authors(share: float) -> None:
    rng = np.random.default_rng(0)
    x, removed = rng.standard_normal((3, 20, 20)), rng.random((20, 20)) < share
    found = imputed(x, removed, 0)
    by_quantus = noisy_linear_imputation(x, np.flatnonzero(removed), noise=0.0)
    np.testing.assert_allclose(found, by_quantus, atol=1e-5)
    by_authors = NoisyLinearImputer(noise=0.0)(
        torch.from_numpy(x).float(), torch.from_numpy(~removed).float()
    )
    np.testing.assert_allclose(found, by_authors.numpy(), atol=1e-5)
    assert np.abs(found - x).max() > 0.5


def test_road() -> None:
    """Accuracy at each percentage, of all inputs together in Quantus; which knows maps of one channel only."""
    model, x, ones = setting(1)
    percentages = [5, 10, 20, 30, 40, 50, 60, 70, 80, 90]
    theirs = quantus.ROAD(percentages=percentages, noise=0.0, **PLAIN)
    expected = run(theirs, model, x)
    curves = [road_curve(one, np.array(percentages), "morf", 0.0, "accuracy") for one in ones]
    found = np.mean(curves, axis=0)
    np.testing.assert_allclose(found, [expected[p] for p in percentages])
    assert np.ptp(found) > 0
    probabilities = [road_curve(one, np.array(percentages), "lerf", 0.0, "probability") for one in ones]
    assert np.abs(np.mean(probabilities, axis=0) - found).max() > 0.01


def test_the_noise_of_imputation_has_the_size_of_quantus() -> None:
    x = np.random.default_rng(0).standard_normal((3, 40, 40))
    removed = np.random.default_rng(1).random((40, 40)) < 0.5
    drawn = drawing(0, "noise").standard_normal(x.shape) * 0.1
    mine = imputed(x, removed, 0, drawn) - imputed(x, removed, 0)
    theirs = noisy_linear_imputation(x, np.flatnonzero(removed), noise=0.1) - imputed(x, removed, 0)
    assert mine[:, removed].std() == pytest.approx(theirs[:, removed].std(), rel=0.1)


# Completeness


def test_completeness() -> None:
    """Quantus asks for equality to the last bit: so the maps are made of its own numbers."""
    model, x, ones = setting(1)
    black = np.broadcast_to(x.min(axis=(1, 2, 3), keepdims=True), x.shape).copy()
    with torch.no_grad():
        here, there = (model(torch.from_numpy(a)).numpy()[np.arange(N), TARGETS] for a in (x, black))
    maps = np.zeros((N, SIDE, SIDE), np.float32)
    maps[:, 3, 5] = here - there
    maps[2:, 3, 5] *= np.float32(1.001)
    theirs = quantus.Completeness(**PLAIN)
    expected = run(theirs, model, x, maps=maps)
    assert list(expected) == [True, True, False, False]
    found = [holds(float(m.sum()), float(d), 0.0) for m, d in zip(maps, here - there, strict=True)]
    assert found == list(expected)
    for one, m, true in zip(ones, maps, expected, strict=True):
        again = Explained(one.probe, one.input, one.target, m.astype(np.float64), 0, 0.0)
        assert metric_named("completeness-to-baseline:tolerance=0.0001").score(again) == true
