"""Localisation: whether relevance lies on the object.

Of positions of equal relevance none comes first: what a ranking leaves open counts with its expectation under a random
order, so that a flat map scores the share of the mask. NaN: an empty mask, none at all, or no relevance to share out.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from srd_onnx.errors import ShapeError
from srd_onnx.metrics.metric import Explained, Metric, Need
from srd_onnx.named import require_one_of
from srd_onnx.subject import at_least_one

Map = NDArray[np.float64]
Mask = NDArray[np.bool_]

PARTS = ("positive", "absolute", "signed")


def pointing_game(relevance: Map, mask: Mask) -> float:
    """1 where the greatest relevance lies in the mask, else 0; among equal ones the share that does."""
    if not _usable(relevance, mask):
        return np.nan
    return float(mask[relevance == relevance.max()].mean())


def top_k_intersection(relevance: Map, mask: Mask, k: int) -> float:
    """The share of the k most relevant positions that lies in the mask; NaN if there are fewer positions."""
    if not _usable(relevance, mask) or k > relevance.size:
        return np.nan
    threshold = np.partition(relevance, -k, axis=None)[-k]
    above, level = relevance > threshold, relevance == threshold
    return float((mask[above].sum() + (k - above.sum()) * mask[level].mean()) / k)


def relevance_rank_accuracy(relevance: Map, mask: Mask) -> float:
    """`top_k_intersection` with as many positions as the mask has."""
    return top_k_intersection(relevance, mask, int(mask.sum())) if mask.any() else np.nan


def relevance_mass_accuracy(relevance: Map, mask: Mask, part: str = "positive") -> float:
    """The share of relevance that lies in the mask: of its positive part, its absolute value, or as it is."""
    if not _usable(relevance, mask):
        return np.nan
    mass = {"positive": np.maximum(relevance, 0), "absolute": np.abs(relevance), "signed": relevance}[part]
    total = mass.sum()
    return float(mass[mask].sum() / total) if total != 0 else np.nan


def _usable(relevance: Map, mask: Mask) -> bool:
    if relevance.shape != mask.shape:
        raise ShapeError(f"the mask has shape {list(mask.shape)}, the map {list(relevance.shape)}")
    return bool(mask.any() and np.isfinite(relevance).all())


def _masked(score: Callable[[Map, Mask], float]) -> Callable[[Explained], float]:
    return lambda one: np.nan if one.mask is None else score(one.map, one.mask)


def _metric(
    name: str,
    title: str,
    meaning: str,
    source: str,
    score: Callable[[Map, Mask], float],
    *,
    need: Need = "mask",
    **parameters: object,
) -> Metric:
    least = -np.inf if parameters.get("part") == "signed" else 0.0
    bounds = (least, -least if least else 1.0)
    return Metric(
        name,
        title,
        "localisation",
        meaning,
        bounds,
        "higher",
        source,
        _masked(score),
        parameters,
        frozenset[Need]({need}),
    )


_ARRAS = "Arras, Osman, Samek 2022, arXiv 2003.07258"


def pointing_game_metric() -> Metric:
    """PointingGame."""
    return _metric(
        "pointing-game",
        "PointingGame",
        "is the most relevant position on the object",
        "Zhang, Bargal, Lin, Brandt, Shen, Sclaroff 2018, arXiv 1608.00507",
        pointing_game,
    )


def attribution_localisation_metric(part: str = "absolute") -> Metric:
    """AttributionLocalisation."""
    require_one_of("part", part, PARTS)
    return _metric(
        "attribution-localisation",
        "AttributionLocalisation",
        "share of all relevance, for and against, that is on the object",
        "Kohlbrenner, Bauer, Nakajima, Binder, Samek, Lapuschkin 2020, arXiv 1910.09840",
        lambda relevance, mask: relevance_mass_accuracy(relevance, mask, part),
        part=part,
    )


def relevance_rank_accuracy_metric() -> Metric:
    """RelevanceRankAccuracy."""
    return _metric(
        "relevance-rank-accuracy",
        "RelevanceRankAccuracy",
        "share of the K most relevant positions on the object, which has K positions",
        _ARRAS,
        relevance_rank_accuracy,
    )


def relevance_mass_accuracy_metric(part: str = "positive") -> Metric:
    """RelevanceMassAccuracy."""
    require_one_of("part", part, PARTS)
    return _metric(
        "relevance-mass-accuracy",
        "RelevanceMassAccuracy",
        "share of the relevance for the class that is on the object",
        _ARRAS,
        lambda relevance, mask: relevance_mass_accuracy(relevance, mask, part),
        part=part,
    )


def top_k_intersection_metric(k: int = 1000) -> Metric:
    """TopKIntersection."""
    at_least_one("k", k)
    return _metric(
        "top-k-intersection",
        "TopKIntersection",
        "share of the k most relevant positions that is on the object",
        "Theiner, Müller-Budack, Ewerth 2022, arXiv 2104.14995",
        lambda relevance, mask: top_k_intersection(relevance, mask, k),
        k=k,
    )


def grid_pointing_game_metric() -> Metric:
    """The Grid Pointing Game: inputs of several classes side by side, one of which is explained."""
    return _metric(
        "grid-pointing-game",
        "Grid Pointing Game",
        "share of the relevance for the class that is in the cell of that class, of a grid of inputs",
        "Böhle, Fritz, Schiele 2021, arXiv 2104.00032",
        relevance_mass_accuracy,
        need="grid",
    )
