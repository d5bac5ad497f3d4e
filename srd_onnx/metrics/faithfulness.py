"""Faithfulness by comparison: whether relevance says by how much the score changes without a position."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from srd_onnx.correlation import pearson
from srd_onnx.errors import OptionError
from srd_onnx.graph.ir import Array
from srd_onnx.metrics.changes import (
    BASELINES,
    OUTCOMES,
    baseline_of,
    drawing,
    is_finite,
    once,
    outcomes_where,
)
from srd_onnx.metrics.metric import Explained, Metric
from srd_onnx.named import require_one_of
from srd_onnx.subject import at_least_one

Numbers = NDArray[np.float64]


def infidelity(expected: Numbers, drops: Numbers, *, scaled: bool) -> float:
    """The mean square of what the map expects each change to cost less what it costs.

    Args:
        expected: the relevance of what is taken away, change by change.
        drops: by how much the score falls.
        scaled: first multiply the map by the factor that fits best (Yeh et al. 2019, section 4), and give the rest as a
            part of the mean square of the drops: 0 where relevance is proportional to the drop, 1 where it says
            nothing about it. NaN where no change costs anything.
    """
    if not np.isfinite([*expected, *drops]).all():
        return np.nan
    if not scaled:
        return float(((expected - drops) ** 2).mean())
    size, scale = np.abs(drops).max(), np.abs(expected).max()
    if size == 0:
        return np.nan
    b = drops / size
    if scale == 0:
        return 1.0
    a = expected / scale
    return float(((a * ((a * b).sum() / (a * a).sum()) - b) ** 2).sum() / (b * b).sum())


def sufficiency(maps: Numbers, classes: NDArray[np.int64], threshold: float) -> Numbers:
    """For each of N inputs the share, among the others with a similar map, that have the same prediction.

    Similar: the Euclidean distance of the magnitudes, each position in units of its standard deviation over the N, is
    at most `threshold` of the greatest distance between any two. NaN for an input that no other is similar to (Quantus
    has 0 there).

    Shapes: maps [N, *positions], classes [N].
    """
    flat = np.abs(maps).reshape(len(maps), -1)
    flat = flat[:, np.ptp(flat, axis=0) > 0]  # where all agree there is no distance, and no deviation
    if not flat.size:
        near = np.ones((len(maps), len(maps)), bool)
    else:
        deviations = flat.std(axis=0, ddof=1)
        distances = cdist(flat / deviations, flat / deviations)
        near = distances <= threshold * distances.max()
    np.fill_diagonal(near, val=False)
    same = classes[None] == classes[:, None]
    counts = near.sum(axis=1)
    return np.where(counts > 0, (near & same).sum(axis=1) / np.maximum(counts, 1), np.nan)


def subsets_of(count: int, size: int, runs: int, seed: int) -> NDArray[np.int64]:
    """[runs, size]: each row some of `count` positions, all different."""
    rng = drawing(seed, "subsets")
    return np.stack([rng.choice(count, size, replace=False) for _ in range(runs)])


def patches_of(shape: tuple[int, ...], grid: int) -> NDArray[np.int64]:
    """[*shape]: the number of the patch of each position, where a grid cuts every axis in so many parts."""
    number: NDArray[np.int64] = np.zeros(shape, np.int64)
    for axis, size in enumerate(shape):
        parts = min(grid, size)
        part = np.arange(size) * parts // size
        number = number * parts + part.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return number


def drops_where(one: Explained, taken: Array, baseline: str, of: str) -> Numbers:
    """By how much the score falls when these positions [M, *positions] are taken away."""
    whole = np.zeros((1, *one.map.shape), bool)
    scores = outcomes_where(one, (~take for take in np.concatenate([whole, taken])), baseline, of)
    return np.asarray(scores[0] - scores[1:], np.float64)


def faithfulness_correlation_metric(
    runs: int = 100, subset: int = 224, baseline: str = "black", of: str = "logit"
) -> Metric:
    """FaithfulnessCorrelation."""
    for name, number in (("runs", runs), ("subset", subset)):
        at_least_one(name, number)
    require_one_of("baseline", baseline, BASELINES)
    require_one_of("of", of, OUTCOMES)

    def score(one: Explained) -> float:
        if subset >= one.map.size or not is_finite(one):
            return np.nan
        at = subsets_of(one.map.size, subset, runs, one.seed)

        def drops() -> Array:
            taken = np.zeros((runs, one.map.size), bool)
            np.put_along_axis(taken, at, values=True, axis=1)
            return drops_where(one, taken.reshape(runs, *one.map.shape), baseline, of)

        found = once(one.shared, ("subsets", one.target, one.seed, runs, subset, baseline, of), drops)
        return pearson(one.map.ravel()[at].sum(axis=1), found)

    return Metric(
        "faithfulness-correlation",
        "FaithfulnessCorrelation",
        "faithfulness",
        "correlation of the relevance of random positions with what the score loses without them",
        (-1.0, 1.0),
        "higher",
        "Bhatt, Weller, Moura 2020, arXiv 2005.00631",
        score,
        {"runs": runs, "subset": subset, "baseline": baseline, "of": of},
    )


def infidelity_metric(
    grid: int = 7, baseline: str = "black", of: str = "logit", kind: str = "global", *, scaled: bool = True
) -> Metric:
    """Infidelity, with the patches of a grid taken away one by one ("square removal").

    Args:
        grid: patches along each axis.
        baseline: what takes their place.
        of: what falls.
        kind: what the map is: "global", shares of the score, so that the relevance of a patch is what it should cost;
            "local", a slope, to be multiplied by the change of the input (Quantus).
        scaled: see `infidelity`.
    """
    at_least_one("grid", grid)
    require_one_of("baseline", baseline, BASELINES)
    require_one_of("of", of, OUTCOMES)
    require_one_of("kind", kind, ("global", "local"))

    def score(one: Explained) -> float:
        patches = patches_of(one.map.shape, grid)
        count = int(patches.max()) + 1

        def drops() -> Array:
            taken = patches == np.arange(count).reshape(-1, *[1] * patches.ndim)
            return drops_where(one, taken, baseline, of)

        relevance = one.map if kind == "global" else one.map * _change(one, baseline)
        expected = np.bincount(patches.ravel(), relevance.ravel(), count).astype(np.float64)
        return infidelity(
            expected, once(one.shared, ("patches", one.target, grid, baseline, of), drops), scaled=scaled
        )

    return Metric(
        "infidelity",
        "Infidelity",
        "faithfulness",
        "mean square of what the map says that patches cost less what they cost",
        (0.0, 1.0 if scaled else np.inf),
        "lower",
        "Yeh, Hsieh, Suggala, Inouye, Ravikumar 2019, arXiv 1901.09392",
        score,
        {"grid": grid, "baseline": baseline, "of": of, "kind": kind, "scaled": scaled},
    )


def _change(one: Explained, baseline: str) -> Numbers:
    """At each position what the baseline takes from the input, summed over channels."""
    axis = one.probe.channel_axis
    other = baseline_of(one.input, axis, baseline)
    return np.asarray((one.input.astype(np.float64) - other).sum(axis=axis), np.float64)


def sufficiency_metric(samples: int = 12, noise: float = 0.3, threshold: float = 0.6) -> Metric:
    """Sufficiency, among noisy copies of the input.

    Args:
        samples: copies, with noise that grows from one to the next.
        noise: of the noisiest copy, in standard deviations of the input.
        threshold: see `sufficiency`.
    """
    at_least_one("samples", samples)
    if noise <= 0 or not 0 <= threshold <= 1:
        raise OptionError(
            f"noise={noise}, threshold={threshold}: positive noise and a part of 1 as the threshold"
        )

    def score(one: Explained) -> float:
        if not is_finite(one):
            return np.nan
        rng = drawing(one.seed, "copies")
        sizes = noise * one.input.std(dtype=np.float64) * np.arange(1, samples + 1) / samples
        drawn = rng.standard_normal((samples, *one.input.shape)) * sizes.reshape(-1, *[1] * one.input.ndim)
        copies = (one.input + drawn).astype(np.float32)
        classes = one.probe.scores(np.concatenate([one.input[None], copies])).argmax(axis=1)
        maps = one.probe.maps(copies, np.full(samples, one.target))
        return float(sufficiency(np.concatenate([one.map[None], maps]), classes, threshold)[0])

    return Metric(
        "sufficiency",
        "Sufficiency",
        "faithfulness",
        "share of noisy copies with a similar map that have the same prediction",
        (0.0, 1.0),
        "higher",
        "Dasgupta, Frost, Moshkovitz 2022, arXiv 2202.00734",
        score,
        {"samples": samples, "noise": noise, "threshold": threshold},
    )
