"""Does the map depend on the model and on the class? Rank correlations after weights or the class are changed.

All numbers are |Spearman| of signed maps: 1 for a map that does not care, near 0 for one that does. A flat map has
no ranks: stages at which the map is flat are left out.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from srd_onnx.correlation import pearson
from srd_onnx.metrics.metric import Explained, Metric

Real = NDArray[np.float64]
_SANITY = "Adebayo et al. 2018, arXiv 1810.03292"


def mprt(stages: int = 4) -> Metric:
    """Model parameter randomisation, cascading: the last layer, then more and more, up to all (Adebayo et al. 2018).

    The mean over the stages. Quantus: `MPRT(similarity_func=correlation_spearman, abs=False)`, but that its mean
    counts the model as it is, which always gives 1, as a stage.

    Args:
        stages: how many of them, evenly from the last layer alone to all layers; 0 for one after each layer.
    """

    def score(explained: Explained) -> float:
        count = len(explained.probe.weighted_layers())
        return _mean(randomised_correlation(explained, n) for n in spread(count, stages))

    return _metric(
        "mprt",
        "MPRT",
        "how much of the map stays when the model's weights are redrawn from the output down",
        _SANITY,
        score,
        {"order": "cascading", "stages": stages},
    )


def mprt_last_layer() -> Metric:
    """As `mprt`, of the first stage alone: the layer that tells the classes apart is redrawn, no other."""
    return _metric(
        "mprt-last-layer",
        "MPRT, last layer",
        "how much of the map stays when the weights of the last layer are redrawn",
        _SANITY,
        lambda explained: _mean(
            randomised_correlation(explained, 1) for _ in explained.probe.weighted_layers()[:1]
        ),
        {"order": "cascading", "stages": 1},
    )


def mprt_independent(layers: int = 4) -> Metric:
    """As `mprt`, but one layer alone is redrawn at a time. Quantus: `MPRT(layer_order="independent")`.

    Args:
        layers: how many, evenly from the last to the first; 0 for each.
    """

    def score(explained: Explained) -> float:
        names = explained.probe.weighted_layers()
        return _mean(randomised_correlation(explained, names[n - 1]) for n in spread(len(names), layers))

    return _metric(
        "mprt-independent",
        "MPRT, independent",
        "how much of the map stays when the weights of one layer are redrawn",
        _SANITY,
        score,
        {"order": "independent", "layers": layers},
    )


def random_logit(classes: int = 4) -> Metric:
    """The map of the class against those of other classes, drawn at random (Sixt, Granz, Landgraf 2020, section 5).

    Quantus: `RandomLogit(similarity_func=correlation_spearman, normalise=False)` draws one class.

    Args:
        classes: how many others, or as many as there are.
    """

    def score(explained: Explained) -> float:
        count = explained.probe.scores(explained.input[None]).shape[1]
        others = np.delete(np.arange(count), explained.target)
        rng = np.random.default_rng(explained.seed)
        drawn = rng.choice(others, min(classes, len(others)), replace=False)
        if not len(drawn):
            return float("nan")
        maps = explained.probe.maps(np.stack([explained.input] * len(drawn)), drawn)
        return _mean(rank_correlation(explained.map, one) for one in maps)

    return _metric(
        "random-logit",
        "RandomLogit",
        "how much the map of the class is like that of any other class",
        "Sixt, Granz, Landgraf 2020, arXiv 1912.09818",
        score,
        {"classes": classes},
    )


def randomised_correlation(explained: Explained, layers: int | str) -> float:
    """|Spearman| of the map and that of the model with redrawn weights; see `Probe.randomised`."""
    redrawn = explained.probe.randomised(layers, explained.seed)
    found = redrawn.maps(explained.input[None], np.array([explained.target], np.int64))
    return rank_correlation(explained.map, found[0])


def rank_correlation(a: Real, b: Real) -> float:
    """|Spearman|, ties sharing their mean rank; NaN where one map is flat."""
    return abs(pearson(rankdata(a).astype(np.float64), rankdata(b).astype(np.float64)))


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` of the numbers 1..count, the first and the last among them, evenly; all of them for 0."""
    if not wanted or wanted >= count:
        return list(range(1, count + 1))
    return sorted({round(n) for n in np.linspace(1, count, wanted).tolist()})


def _mean(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else float("nan")


def _metric(
    name: str,
    title: str,
    meaning: str,
    source: str,
    score: Callable[[Explained], float],
    parameters: dict[str, int | str],
) -> Metric:
    return Metric(name, title, "randomisation", meaning, (0.0, 1.0), "lower", source, score, parameters)
