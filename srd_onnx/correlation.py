"""Pearson's correlation: of maps, of what enters at a boundary, of ranks."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
_FLAT = 1e-12  # of the greatest number: what differs less is rounding


def pearson(a: Numbers, b: Numbers) -> float:
    """Pearson's correlation of two arrays of one shape; NaN where one of them is constant or not finite."""
    return float(pearson_rows(a.ravel(), b.ravel()))


def pearson_rows(a: Numbers, b: Numbers) -> Numbers:
    """Of each row along the last axis; the others broadcast."""
    finite = np.isfinite(a).all(axis=-1) & np.isfinite(b).all(axis=-1)
    (x, x_varies), (y, y_varies) = _centred(a), _centred(b)
    found = (x * y).sum(axis=-1) / np.sqrt((x * x).sum(axis=-1) * (y * y).sum(axis=-1))
    return np.where(finite & x_varies & y_varies, np.clip(found, -1, 1), np.nan)


def _centred(a: Numbers) -> tuple[Numbers, NDArray[np.bool_]]:
    """Rows less their mean, scaled so that squares do not underflow; and whether they vary. Ones where they do not."""
    a = np.where(np.isfinite(a).all(axis=-1, keepdims=True), a, 0)
    x = a - a.mean(axis=-1, keepdims=True)
    greatest = np.abs(x).max(axis=-1, keepdims=True)
    varies = greatest > _FLAT * np.abs(a).max(axis=-1, keepdims=True)
    scaled = np.divide(x, greatest, out=np.ones_like(x), where=varies)
    return scaled, varies[..., 0]
