"""What metrics do to an input: replace positions by a baseline, in the order of their relevance, and ask the model."""

import hashlib
import zlib
from collections.abc import Callable, Hashable, Iterable
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from srd_onnx.graph.ir import Array
from srd_onnx.metrics.metric import Explained, Probe

T = TypeVar("T")
BASELINES = ("blur", "mean", "zero", "black")
OUTCOMES = ("probability", "logit", "accuracy")
SIGMA = 1 / 20  # of the shorter side: RISE's 5 px leaves photos of 224 px recognisable
AT_ONCE = 32  # changed inputs in memory


def baseline_of(x: Array, channel_axis: int, kind: str) -> Array:
    """What stands in for the input where it is taken away.

    Args:
        x: one input, without the batch.
        channel_axis: of it.
        kind: "blur", by a Gaussian along the positions, of a twentieth of the shorter side or 1; "mean", of each
            channel; "zero"; "black", the least number in the whole input (as Quantus has it).

    Returns:
        float32, of the same shape.
    """
    axes = tuple(axis for axis in range(x.ndim) if axis != channel_axis % x.ndim)
    if kind == "blur":
        side = min((x.shape[axis] for axis in axes), default=0)
        return np.asarray(gaussian_filter(x.astype(np.float32), max(1, side * SIGMA), axes=axes), np.float32)
    if kind == "mean":
        return np.broadcast_to(x.mean(axis=axes, keepdims=True, dtype=np.float64), x.shape).astype(np.float32)
    return np.full(x.shape, 0 if kind == "zero" else x.min(), np.float32)


def ranks_of(relevance: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """The place of each position in falling order of relevance, from 0; equal ones in an order drawn by `seed`."""
    chance = drawing(seed, "ties").random(relevance.size)
    ranks = np.empty(relevance.size, np.int64)
    ranks[np.lexsort((chance, -relevance.ravel()))] = np.arange(relevance.size)
    return ranks.reshape(relevance.shape)


def drawing(seed: int, purpose: str) -> np.random.Generator:
    """A generator for one purpose, so that what two of them draw with the same seed has nothing in common."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def cuts_of(count: int, steps: int) -> NDArray[np.int64]:
    """How many of `count` positions are changed, in equal steps from none to all: steps + 1 numbers."""
    return np.linspace(0, count, steps + 1).astype(np.int64)


def mixed(x: Array, baseline: Array, keep: NDArray[np.bool_], channel_axis: int) -> Array:
    """The input where `keep` [*positions], else the baseline."""
    return np.where(np.expand_dims(keep, channel_axis), x, baseline).astype(np.float32)


def outcomes(probe: Probe, inputs: Iterable[Array], target: int, of: str) -> NDArray[np.float64]:
    """What the model says to the target for changed inputs, few of them in memory at a time.

    Args:
        probe: the model.
        inputs: one after the other, without the batch.
        target: a class.
        of: its "probability", its "logit", or "accuracy": 1 where it is the prediction, else 0.
    """
    found, left = [], iter(inputs)
    while rows := list(islice(left, AT_ONCE)):
        stacked = np.stack(rows)
        if of == "probability":
            found.append(probe.probabilities(stacked)[:, target])
        else:
            scores = probe.scores(stacked)
            found.append(scores[:, target] if of == "logit" else scores.argmax(axis=1) == target)
    return np.concatenate(found).astype(np.float64) if found else np.zeros(0)


def outcomes_where(
    one: Explained, keeps: Iterable[NDArray[np.bool_]], baseline: str, of: str
) -> NDArray[np.float64]:
    """`outcomes` of the explained input, each time kept in other positions and elsewhere at the baseline."""
    axis = one.probe.channel_axis
    other = once(one.own, ("baseline", baseline), lambda: baseline_of(one.input, axis, baseline))
    return outcomes(one.probe, (mixed(one.input, other, keep, axis) for keep in keeps), one.target, of)


def once(found: dict[Hashable, Any], key: Hashable, make: Callable[[], T]) -> T:
    """What `make` gives; from `found`, which is `shared` or `own` of an `Explained`, if it is there."""
    if key not in found:
        found[key] = make()
    known: T = found[key]
    return known


def map_key(one: Explained) -> tuple[str, int, int]:
    """What stands for the map, the target and the seed in keys of `once`."""
    digest = hashlib.blake2b(np.ascontiguousarray(one.map).tobytes(), digest_size=16).hexdigest()
    return digest, one.target, one.seed


def is_finite(one: Explained) -> bool:
    """Whether the map has a number everywhere: an order needs that."""
    return bool(np.isfinite(one.map).all())
