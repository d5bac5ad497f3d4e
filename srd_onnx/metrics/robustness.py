"""Does the map stay when the input hardly changes? The definitions of Quantus, on perturbations drawn here."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from srd_onnx.graph.ir import Array
from srd_onnx.metrics.changes import drawing, once
from srd_onnx.metrics.metric import Explained, Metric

Real = NDArray[np.float64]
_EPS = 1e-6  # what Quantus divides by in place of a zero, in the relative stabilities
_EPS_LIPSCHITZ = 1e-10  # the same, in the Lipschitz estimate


@dataclass(frozen=True)
class Noise:
    """Additive noise, drawn anew for each sample.

    Attributes:
        kind: "gaussian" with a standard deviation of `size`, or "uniform" in ±`size`.
        size: as a part of the input's range (greatest minus least number), so that it means the same for inputs in
            0..1, in -128..128, and standardised ones.
        samples: how many.
    """

    kind: Literal["gaussian", "uniform"]
    size: float
    samples: int


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Perturbed inputs [S, *input], and the maps [S, *positions] of the explained class there."""

    inputs: Array
    maps: Real


def perturbed(explained: Explained, noise: Noise) -> Array:
    """Inputs [S, *input] near the explained one; by its seed, the same for every method."""
    x = explained.input.astype(np.float64)
    rng = drawing(explained.seed, noise.kind)
    shape, size = (noise.samples, *x.shape), noise.size * float(x.max() - x.min())
    drawn = rng.normal(0, size, shape) if noise.kind == "gaussian" else rng.uniform(-size, size, shape)
    return (x + drawn).astype(explained.input.dtype)


def neighbours(explained: Explained, noise: Noise) -> Neighbours:
    """Perturbed inputs and their maps, computed once for all metrics: the maps are what costs."""

    def make() -> Neighbours:
        inputs = perturbed(explained, noise)
        targets = np.full(noise.samples, explained.target, np.int64)
        return Neighbours(inputs, explained.probe.maps(inputs, targets))

    return once(explained.own, ("neighbours", noise, explained.probe, explained.target, explained.seed), make)


def local_lipschitz_estimate(samples: int = 10, size: float = 0.02) -> Metric:
    """``max |e(x) - e(x')| / |x - x'|``, Euclidean, of maps divided by their greatest magnitude.

    Alvarez-Melis, Jaakkola 2018. Quantus: `LocalLipschitzEstimate`, with its defaults but for the noise: its 0.1 in
    standardised inputs, whose range is 4.7, is 0.02 of the range.
    """
    noise = Noise("gaussian", size, samples)

    def score(explained: Explained) -> float:
        near = neighbours(explained, noise)
        moved = _norms(_scaled(explained.map[None]) - _scaled(near.maps))
        away = _norms(explained.input.astype(np.float64) - near.inputs.astype(np.float64))
        return float((moved / (away + _EPS_LIPSCHITZ)).max())

    return _metric(
        "local-lipschitz-estimate",
        "LocalLipschitzEstimate",
        "how fast the map changes in the worst direction that was tried",
        "Alvarez-Melis, Jaakkola 2018, arXiv 1806.08049",
        score,
        noise,
    )


def max_sensitivity(samples: int = 10, size: float = 0.04) -> Metric:
    """``max |e(x) - e(x')| / |e(x)|``, Euclidean.

    Yeh et al. 2019, definition 2.4. Quantus: `MaxSensitivity`, with its defaults but for the noise: its 0.2 in
    standardised inputs, whose range is 4.7, is 0.04 of the range.
    """
    noise = Noise("uniform", size, samples)
    return _metric(
        "max-sensitivity",
        "MaxSensitivity",
        "by which part of itself the map changes at worst",
        "Yeh et al. 2019, arXiv 1901.09392",
        lambda explained: float(_sensitivities(explained, noise).max()),
        noise,
    )


def avg_sensitivity(samples: int = 10, size: float = 0.04) -> Metric:
    """``mean |e(x) - e(x')| / |e(x)|``, Euclidean; as `max_sensitivity`. Quantus: `AvgSensitivity`."""
    noise = Noise("uniform", size, samples)
    return _metric(
        "avg-sensitivity",
        "AvgSensitivity",
        "by which part of itself the map changes on average",
        "Yeh et al. 2019, arXiv 1901.09392; Bhatt et al. 2020, arXiv 2005.00631",
        lambda explained: float(_sensitivities(explained, noise).mean()),
        noise,
    )


def relative_input_stability(samples: int = 10, size: float = 0.04) -> Metric:
    """``max |(e(x) - e(x')) / e(x)| / |(x - x') / x|``, element by element, then Euclidean; over x' of the same class.

    Agarwal et al. 2022, equation 2. Quantus: `RelativeInputStability(normalise=True)`, which gives every map a mean
    square of 1: a zero is replaced by 1e-6, which in maps of other units would mean something else. Its noise is
    one-sided, and it gives NaN as soon as one sample changes the class; here the others count, as in the paper.
    """
    noise = Noise("uniform", size, samples)

    def score(explained: Explained) -> float:
        near = neighbours(explained, noise)
        x = explained.input.astype(np.float64)
        away = _norms((x - near.inputs.astype(np.float64)) / _not_zero(x))
        return _worst_of_same_class(explained, near, away)

    return _metric(
        "relative-input-stability",
        "RelativeInputStability",
        "how much the map changes for a change of the input, both relative, at worst",
        "Agarwal et al. 2022, arXiv 2203.06877",
        score,
        noise,
    )


def relative_output_stability(samples: int = 10, size: float = 0.04) -> Metric:
    """``max |(e(x) - e(x')) / e(x)| / |z(x) - z(x')|`` with the logits z; over x' of the same class.

    Agarwal et al. 2022, equation 5. Quantus: `RelativeOutputStability(normalise=True)`, but for what
    `relative_input_stability` says.
    """
    noise = Noise("uniform", size, samples)

    def score(explained: Explained) -> float:
        near = neighbours(explained, noise)
        logits = explained.probe.scores(explained.input[None])
        return _worst_of_same_class(explained, near, _norms(logits - explained.probe.scores(near.inputs)))

    return _metric(
        "relative-output-stability",
        "RelativeOutputStability",
        "how much the map changes, relative to itself, for a change of the logits, at worst",
        "Agarwal et al. 2022, arXiv 2203.06877",
        score,
        noise,
    )


def _metric(
    name: str, title: str, meaning: str, source: str, score: Callable[[Explained], float], noise: Noise
) -> Metric:
    def defined(explained: Explained) -> float:
        # Nothing is as stable as a map of zeros, which explains nothing.
        return score(explained) if explained.map.any() else float("nan")

    bounds = (0.0, float("inf"))
    return Metric(name, title, "robustness", meaning, bounds, "lower", source, defined, asdict(noise))


def _sensitivities(explained: Explained, noise: Noise) -> Real:
    moved = _norms(explained.map - neighbours(explained, noise).maps)
    return np.asarray(moved / np.linalg.norm(explained.map), np.float64)


def _worst_of_same_class(explained: Explained, near: Neighbours, away: Real) -> float:
    """The greatest relative change of the map over `away`, where the prediction stays; NaN where it nowhere does."""
    before = explained.probe.scores(explained.input[None]).argmax(axis=1)
    same = explained.probe.scores(near.inputs).argmax(axis=1) == before
    scaled = _of_unit_power(explained.map[None])
    moved = _norms((scaled - _of_unit_power(near.maps)) / _not_zero(scaled))
    ratios = moved / np.where(away == 0, _EPS, away)
    return float(ratios[same].max()) if same.any() else float("nan")


def _scaled(maps: Real) -> Real:
    """Each map divided by its greatest magnitude; zeros stay."""
    greatest = np.abs(maps).max(axis=tuple(range(1, maps.ndim)), keepdims=True)
    return np.asarray(maps / np.where(greatest == 0, 1, greatest), np.float64)


def _of_unit_power(maps: Real) -> Real:
    """Each map divided by the root of its mean square (Binder et al. 2022, arXiv 2211.12486); zeros stay."""
    power = np.sqrt(np.square(maps).mean(axis=tuple(range(1, maps.ndim)), keepdims=True))
    return np.asarray(maps / np.where(power == 0, 1, power), np.float64)


def _not_zero(array: Real) -> Real:
    return np.where(array == 0, _EPS, array)


def _norms(arrays: Real) -> Real:
    """Of each of [S, ...] its Euclidean norm."""
    return np.asarray(np.linalg.norm(arrays.reshape(len(arrays), -1), axis=1), np.float64)
