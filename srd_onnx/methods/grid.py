"""Maps over a grid of positions, resized to another: linearly between the centres of its cells."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from srd_onnx.graph.ir import Array, Value
from srd_onnx.graph.roles import Axes, Role

Border = Literal["edge", "mirror"]


def linear(size: int, wanted: int, border: Border = "edge") -> Array:
    """The matrix float64 [wanted, size] of linear interpolation between the centres of cells.

    Args:
        size: of the grid along one axis.
        wanted: the size that it is brought to, larger or smaller (nothing is averaged).
        border: what lies outside the outermost centres: their values ("edge": cv2.resize, torch with
            align_corners=False), or what lies inside, mirrored ("mirror": skimage.transform.resize).
    """
    place = (np.arange(wanted) + 0.5) * size / wanted - 0.5
    place = np.clip(place, 0, size - 1) if border == "edge" else np.abs(place)
    if border == "mirror":
        place = np.where(place > size - 1, 2 * (size - 1) - place, place) if size > 1 else np.zeros(wanted)
    below = np.minimum(place.astype(np.int64), max(size - 2, 0))
    part = place - below
    matrix = np.zeros((wanted, size))
    rows = np.arange(wanted)
    matrix[rows, below] += 1 - part
    matrix[rows, np.minimum(below + 1, size - 1)] += part
    return matrix


def resized(maps: Array, sizes: Sequence[int]) -> Array:
    """Maps [N, *grid] as float64 [N, *sizes], linear along every axis."""
    found = np.asarray(maps, np.float64)
    for axis, wanted in enumerate(sizes, start=1):
        if found.shape[axis] != wanted:
            matrix = linear(found.shape[axis], wanted)
            found = np.moveaxis(np.tensordot(matrix, found, axes=(1, axis)), 0, axis)
    return found


def positions_of(value: Value, axes: Axes) -> tuple[int, ...]:
    """The sizes of the position axes."""
    return tuple(value.shape[axis] for axis in axes.positions)


def over_items(maps: Array, axes: Axes) -> Array:
    """Maps [M, *positions] with axes of size 1 for the channels: they broadcast with M items of an input."""
    behind = [role for role in axes.roles if role is not Role.BATCH]
    sizes = iter(maps.shape[1:])
    return maps.reshape(len(maps), *(next(sizes) if role is Role.POSITION else 1 for role in behind))
