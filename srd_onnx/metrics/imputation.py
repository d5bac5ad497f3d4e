"""Noisy linear imputation (Rong et al. 2022, arXiv 2202.00449, section 4.2).

What is removed becomes the weighted mean of its eight neighbours, removed or not, plus some noise, so that the model
cannot read off what was removed.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csc_array
from scipy.sparse.linalg import splu

from srd_onnx.graph.ir import Array

WEIGHTS = {
    (dy, dx): 1 / 6 if dy == 0 or dx == 0 else 1 / 12
    for dy in (-1, 0, 1)
    for dx in (-1, 0, 1)
    if (dy, dx) != (0, 0)
}


def imputed(
    picture: Array, removed: NDArray[np.bool_], channel_axis: int, noise: NDArray[np.float64] | None = None
) -> Array:
    """The picture with the removed positions filled in.

    At each removed position p ``Σ_q w_pq (x_p - x_q) = 0`` over its neighbours q within the picture, with w = 1/6 along
    rows and columns and 1/12 along diagonals; then the noise is added.

    Args:
        picture: one input with two position axes, without the batch.
        removed: bool [H, W].
        channel_axis: of the picture.
        noise: what is added to removed positions, [C, H, W]; nothing if left out.

    Returns:
        float32. Where everything is removed, the mean of each channel, which is a solution too.
    """
    channels = np.moveaxis(picture, channel_axis, 0).astype(np.float64)
    filled = channels.copy()
    if removed.all():
        filled[:] = channels.mean(axis=(1, 2), keepdims=True)
    elif removed.any():
        matrix, right = _system(channels, removed)
        # Symmetric and diagonally dominant: it needs no pivots, and an order for such halves the time.
        solved = splu(
            matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        ).solve(right)
        filled[:, removed] = solved.T
    if noise is not None:
        filled[:, removed] += noise[:, removed]
    return np.moveaxis(filled, 0, channel_axis).astype(np.float32)


def _system(channels: NDArray[np.float64], removed: NDArray[np.bool_]) -> tuple[csc_array, Array]:
    """The matrix [M, M] and the right sides [M, C] for the M removed positions in raster order."""
    height, width = removed.shape
    ys, xs = np.nonzero(removed)
    number = np.full(removed.shape, -1)
    number[removed] = np.arange(len(ys))
    diagonal = np.zeros(len(ys))
    right = np.zeros((len(ys), len(channels)))
    rows, columns, values = [], [], []
    for (dy, dx), weight in WEIGHTS.items():
        inside = (ys + dy >= 0) & (ys + dy < height) & (xs + dx >= 0) & (xs + dx < width)
        at = np.nonzero(inside)[0]
        y, x = ys[at] + dy, xs[at] + dx
        diagonal[at] += weight
        unknown = removed[y, x]
        rows.append(at[unknown])
        columns.append(number[y, x][unknown])
        values.append(np.full(int(unknown.sum()), -weight))
        right[at[~unknown]] += weight * channels[:, y[~unknown], x[~unknown]].T
    rows.append(np.arange(len(ys)))
    columns.append(np.arange(len(ys)))
    values.append(diagonal)
    places = np.concatenate(rows), np.concatenate(columns)
    matrix = coo_array((np.concatenate(values), places), shape=(len(ys), len(ys)))
    return csc_array(matrix), right
