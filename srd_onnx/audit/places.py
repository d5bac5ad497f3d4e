"""Where the relevance of a map lies: at the border, in the centre, on an object."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srd_onnx.graph.ir import Array

BORDER = 0.1  # of each side, at both ends
CENTRE = 0.5  # of each side, in the middle
OUTLYING = 3.5  # robust z-scores (Iglewicz and Hoaglin 1993)
_NORMAL = 0.6745  # the median absolute deviation of the standard normal distribution


@dataclass(frozen=True)
class Places:
    """Parts of the positive relevance; None where there is none, or no mask.

    Attributes:
        border: within a tenth of each side. Of a map that does not care: 0.36 in a picture.
        centre: in the middle half of each side; 0.25 likewise.
        inside: on the object, of what is not to be ignored.
        area: the part of the positions that the object takes, which is what a map that does not care has inside.
    """

    border: float | None
    centre: float | None
    inside: float | None = None
    area: float | None = None


def places_of(
    relevance: Array, mask: NDArray[np.bool_] | None = None, ignored: NDArray[np.bool_] | None = None
) -> Places:
    """Where it lies.

    Args:
        relevance: [*positions].
        mask: bool, likewise: the object.
        ignored: bool, likewise: what counts neither inside nor outside.
    """
    positive = np.maximum(np.asarray(relevance, np.float64), 0)
    total = positive.sum()
    if not total > 0:
        return Places(None, None)
    border = float(positive[~_within(positive.shape, BORDER)].sum() / total)
    centre = float(positive[_within(positive.shape, (1 - CENTRE) / 2)].sum() / total)
    if mask is None:
        return Places(border, centre)
    counted = np.ones(mask.shape, bool) if ignored is None else ~ignored
    there = positive[counted].sum()
    inside = float(positive[counted & mask].sum() / there) if there > 0 else None
    return Places(border, centre, inside, float(mask[counted].mean()))


def _within(shape: tuple[int, ...], margin: float) -> NDArray[np.bool_]:
    """What lies farther from either end of each axis than this part of it, by the middles of the positions."""
    found = np.ones(shape, bool)
    for axis, size in enumerate(shape):
        middles = (np.arange(size) + 0.5) / size
        keep = (middles >= margin) & (middles < 1 - margin)
        found &= keep.reshape([-1 if one == axis else 1 for one in range(len(shape))])
    return found


def outlying(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of [N] values lie more than `OUTLYING` robust z-scores from the median; NaN does not.

    z = 0.6745 (x − median) / MAD. Of values of which half are equal none is outlying: there is no scale.
    """
    known = values[np.isfinite(values)]
    if known.size == 0:
        return np.zeros(values.shape, bool)
    middle = np.median(known)
    spread = np.median(np.abs(known - middle))
    if spread == 0:
        return np.zeros(values.shape, bool)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(_NORMAL * (values - middle) / spread) > OUTLYING)
