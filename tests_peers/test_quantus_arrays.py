"""Metrics of a map alone, or of a map and a mask, equal those of Quantus on the same arrays."""

from typing import Any

import numpy as np
import pytest
import quantus
from numpy.typing import NDArray

from srd_onnx.metrics.complexity import complexity, effective_complexity, sparseness
from srd_onnx.metrics.localisation import (
    pointing_game,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    top_k_intersection,
)

Array = NDArray[Any]
N = 8
RNG = np.random.default_rng(0)
MAPS = RNG.standard_normal((N, 20, 24))
MASKS = np.stack([RNG.random((20, 24)) < share for share in np.linspace(0.05, 0.9, N)])
PLAIN: dict[str, Any] = {"disable_warnings": True, "display_progressbar": False}


def by_quantus(kind: str, maps: Array = MAPS, masks: Array = MASKS, **options: Any) -> Array:
    metric = getattr(quantus, kind)(**PLAIN, **options)
    given = {"x_batch": np.zeros((len(maps), 1, 20, 24)), "y_batch": np.zeros(len(maps), int)}
    found = metric(
        model=None,
        a_batch=maps[:, None].copy(),
        s_batch=masks[:, None].copy(),
        channel_first=True,
        **given,
    )
    return np.asarray(found, np.float64).ravel()


def each(score: Any, *more: Any) -> Array:
    return np.array([score(m, s, *more) for m, s in zip(MAPS, MASKS, strict=True)])


def test_pointing_game() -> None:
    found = each(pointing_game)
    np.testing.assert_array_equal(found, by_quantus("PointingGame"))
    assert 0 < found.mean() < 1


@pytest.mark.parametrize("k", [1, 10, 100, 400])
def test_top_k_intersection(k: int) -> None:
    np.testing.assert_allclose(each(top_k_intersection, k), by_quantus("TopKIntersection", k=k), rtol=1e-12)


def test_relevance_rank_accuracy() -> None:
    np.testing.assert_allclose(each(relevance_rank_accuracy), by_quantus("RelevanceRankAccuracy"), rtol=1e-12)


def test_relevance_mass_accuracy() -> None:
    found = by_quantus("RelevanceMassAccuracy", maps=np.maximum(MAPS, 0))
    np.testing.assert_allclose(each(relevance_mass_accuracy), found, rtol=1e-9)
    found = by_quantus("RelevanceMassAccuracy", abs=True)
    np.testing.assert_allclose(each(relevance_mass_accuracy, "absolute"), found, rtol=1e-9)
    found = by_quantus("RelevanceMassAccuracy")
    np.testing.assert_allclose(each(relevance_mass_accuracy, "signed"), found, rtol=1e-9)


def test_attribution_localisation() -> None:
    found = by_quantus("AttributionLocalisation")
    np.testing.assert_allclose(each(relevance_mass_accuracy, "absolute"), found, rtol=1e-9)
    found = by_quantus("AttributionLocalisation", abs=False, positive_attributions=True)
    np.testing.assert_allclose(each(relevance_mass_accuracy, "positive"), found, rtol=1e-9)


def test_sparseness_up_to_what_quantus_adds() -> None:
    found = np.array([sparseness(m) for m in MAPS])
    np.testing.assert_allclose(found, by_quantus("Sparseness"), rtol=1e-5)
    assert np.ptp(found) > 1e-3


def test_complexity() -> None:
    np.testing.assert_allclose([complexity(m) for m in MAPS], by_quantus("Complexity"), rtol=1e-8)


@pytest.mark.parametrize("eps", [1e-5, 0.1, 0.4])
def test_effective_complexity(eps: float) -> None:
    """One map at a time: Quantus takes eps as a part of the greatest number of all maps that it is given together."""
    expected = [by_quantus("EffectiveComplexity", m[None], MASKS[:1], eps=eps)[0] for m in MAPS]
    np.testing.assert_array_equal([effective_complexity(m, eps) for m in MAPS], expected)


def test_what_we_do_otherwise() -> None:
    """Where nearly all is equal Quantus counts a hit as soon as one of the greatest is in the mask."""
    flat, mask = np.ones((1, 20, 24)), np.zeros((1, 20, 24), bool)
    flat[0, -1, -1] = 0
    mask[0, 0] = True
    assert by_quantus("PointingGame", flat, mask) == 1
    assert pointing_game(flat[0], mask[0]) == pytest.approx(24 / 479)
    assert relevance_rank_accuracy(flat[0], mask[0]) == pytest.approx(24 / 479)
