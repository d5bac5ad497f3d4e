"""Complexity: how few positions hold the relevance. The sign plays no part; NaN for a map that is zero everywhere."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from srd_onnx.metrics.metric import Explained, Metric

Map = NDArray[np.float64]


def sparseness(relevance: Map) -> float:
    """The Gini index of magnitudes: 0 where all n are equal, 1 - 1/n where one has everything."""
    sizes = np.sort(np.abs(relevance), axis=None)
    total, n = sizes.sum(), sizes.size
    if not 0 < total < np.inf:
        return np.nan
    return float(((2 * np.arange(1, n + 1) - n - 1) * (sizes / total)).sum() / n)


def complexity(relevance: Map) -> float:
    """The entropy of the shares of magnitude, in nats: 0 where one of n has everything, log n where all are equal."""
    sizes = np.abs(relevance)
    total = sizes.sum()
    if not 0 < total < np.inf:
        return np.nan
    shares = sizes[sizes > 0] / total
    shares = shares[shares > 0]  # a ratio may underflow
    return max(0.0, float(-(shares * np.log(shares)).sum()))


def effective_complexity(relevance: Map, eps: float = 1e-5) -> float:
    """How many positions have more than `eps` of the greatest magnitude."""
    sizes = np.abs(relevance)
    greatest = sizes.max()
    return float((sizes > eps * greatest).sum()) if 0 < greatest < np.inf else np.nan


def _of_map(score: Callable[[Map], float]) -> Callable[[Explained], float]:
    return lambda one: score(one.map)


def sparseness_metric() -> Metric:
    """Sparseness."""
    return Metric(
        "sparseness",
        "Sparseness",
        "complexity",
        "Gini index of the magnitudes: is the relevance on few positions",
        (0.0, 1.0),
        "higher",
        "Chalasani, Chen, Roy Chowdhury, Jha, Wu 2020, arXiv 1810.06583",
        _of_map(sparseness),
    )


def complexity_metric() -> Metric:
    """Complexity."""
    return Metric(
        "complexity",
        "Complexity",
        "complexity",
        "entropy of the shares of relevance, in nats",
        (0.0, np.inf),
        "lower",
        "Bhatt, Weller, Moura 2020, arXiv 2005.00631",
        _of_map(complexity),
    )


def effective_complexity_metric(eps: float = 1e-5) -> Metric:
    """EffectiveComplexity."""
    return Metric(
        "effective-complexity",
        "EffectiveComplexity",
        "complexity",
        "how many positions have more than eps of the greatest relevance",
        (0.0, np.inf),
        "lower",
        "Nguyen, Rodríguez Martínez 2020, arXiv 2007.07584",
        lambda one: effective_complexity(one.map, eps),
        {"eps": eps},
    )
