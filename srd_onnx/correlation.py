"""Pearson's correlation: of maps, of what enters at a boundary, of ranks."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
_FLAT = 1e-12  # of the greatest number: what differs less is rounding


def pearson(a: Numbers, b: Numbers) -> float:
    """Pearson's correlation of two arrays of one shape; NaN where one of them is constant or not finite."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return np.nan
    x, y = a - a.mean(), b - b.mean()
    if any(np.abs(c).max() <= _FLAT * np.abs(whole).max() for c, whole in ((x, a), (y, b))):
        return np.nan
    x, y = x / np.abs(x).max(), y / np.abs(y).max()  # squares do not underflow
    return float(np.clip((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()), -1, 1))
