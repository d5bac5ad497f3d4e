"""Can the map be moved while the prediction stays? A targeted attack on the explanation, without gradients.

The aim is that of Dombrowski et al. 2019 ("Explanations can be manipulated and geometry is to blame", arXiv
1906.07983); the search is that of the Square Attack (Andriushchenko et al. 2020, arXiv 1912.00049), which only asks
for maps and scores and so attacks every method alike. What it finds is the least that an attacker can do, not the
most.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srd_onnx.correlation import pearson
from srd_onnx.graph.ir import Array
from srd_onnx.metrics.metric import Explained, Metric

Real = NDArray[np.float64]
_FIRST = 0.5  # of all positions: the first windows
_HALVED = (0.05, 0.15, 0.35, 0.65)  # after these parts of the queries the windows have half as many positions


@dataclass(frozen=True, eq=False)
class Attack:
    """What was found.

    Attributes:
        input: the manipulated input.
        before: the correlation of the map with the target map at the start.
        after: that of the map of `input`.
        accepted: steps that kept the prediction and came nearer.
    """

    input: Array
    before: float
    after: float
    accepted: int


def target_map(relevance: Real) -> Real:
    """The map moved by half of each axis, around the edges: where the attack wants to have it.

    It needs no other image of the run, so that the number depends on this input alone; it has the values of the
    method's own map in other places, so that no method has an easier target than another for being smooth, sparse
    or signed; and it is as far from the map as a map can be moved.
    """
    return np.roll(relevance, tuple(size // 2 for size in relevance.shape), tuple(range(relevance.ndim)))


def manipulation(queries: int = 60, budget: float = 8 / 255, drift: float = 0.1, cells: int = 14) -> Metric:
    """By how much the correlation with a target map rises under a perturbation that keeps the prediction.

    Args:
        queries: proposals; each costs one run of the model, and a map if the prediction stays.
        budget: the greatest change of a number of the input, as a part of its range (greatest minus least).
        drift: half of the sum of absolute changes of the probabilities may be this much; the class stays the same.
        cells: maps are compared as means over so many cells along each axis: where they point, not their grain.
    """

    def score(explained: Explained) -> float:
        found = attack(explained, queries, budget, drift, cells)
        return found.after - found.before

    return Metric(
        "manipulation",
        "Targeted manipulation",
        "robustness",
        "how far a small perturbation that keeps the prediction moves the map towards another one",
        (0.0, 2.0),
        "lower",
        "aim: Dombrowski et al. 2019, arXiv 1906.07983; search: Andriushchenko et al. 2020, arXiv 1912.00049",
        score,
        {"queries": queries, "budget": budget, "drift": drift, "cells": cells},
    )


def attack(explained: Explained, queries: int, budget: float, drift: float, cells: int) -> Attack:
    """Search at random in windows; see `manipulation`. NaN correlations where the map is flat."""
    probe, x = explained.probe, explained.input.astype(np.float64)
    wanted = coarse(target_map(explained.map), cells)
    before = best = pearson(coarse(explained.map, cells), wanted)
    if np.isnan(best):
        return Attack(explained.input, best, best, 0)
    low, high = float(x.min()), float(x.max())
    expected = probe.probabilities(explained.input[None])[0]
    rng = np.random.default_rng(explained.seed)
    target = np.array([explained.target], np.int64)
    change, accepted = np.zeros_like(x), 0
    for query in range(queries):
        tried = change.copy()
        part = _FIRST / 2 ** sum(query >= queries * moment for moment in _HALVED)
        window, signs = _step(rng, x.shape, probe.channel_axis, part)
        tried[window] = signs * budget * (high - low)
        tried = np.clip(x + tried, low, high) - x
        given = (x + tried).astype(explained.input.dtype)[None]
        if not _kept(expected, probe.probabilities(given)[0], drift):
            continue
        reached = pearson(coarse(probe.maps(given, target)[0], cells), wanted)
        if reached > best:
            best, change, accepted = reached, tried, accepted + 1
    return Attack((x + change).astype(explained.input.dtype), before, best, accepted)


def _step(
    rng: np.random.Generator, shape: tuple[int, ...], channel_axis: int, part: float
) -> tuple[tuple[slice, ...], Real]:
    """A window of a part of the positions, over all channels, and a sign for each channel."""
    axes = len(shape) - 1
    window = []
    for axis, size in enumerate(shape):
        if axis == channel_axis:
            window.append(slice(None))
            continue
        side = max(1, round(size * part ** (1 / axes)))
        start = int(rng.integers(0, size - side + 1))
        window.append(slice(start, start + side))
    signs = rng.choice([-1.0, 1.0], [size if axis == channel_axis else 1 for axis, size in enumerate(shape)])
    return tuple(window), signs


def _kept(expected: Real, found: Real, drift: float) -> bool:
    same = bool(found.argmax() == expected.argmax())
    return same and float(np.abs(found - expected).sum()) / 2 <= drift


def coarse(relevance: Real, cells: int) -> Real:
    """Means over at most `cells` cells along each axis."""
    for axis, size in enumerate(relevance.shape):
        count = min(cells, size)
        starts = np.arange(count) * size // count
        sizes = np.diff(np.append(starts, size)).reshape(
            [-1 if a == axis else 1 for a in range(relevance.ndim)]
        )
        relevance = np.add.reduceat(relevance, starts, axis=axis) / sizes
    return relevance
