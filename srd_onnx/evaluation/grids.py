"""2 × 2 grids of photos for the Grid Pointing Game (Böhle, Fritz, Schiele 2021): who is in which, and the pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from srd_onnx.graph.ir import Array

CELLS = 4
CONFIDENT = 0.5  # the least probability of a photo's class, so that there is something of it to point at
_SIDE = 2


@dataclass(frozen=True)
class Grid:
    """Photos by their number, in the order of the cells (rows first), and those of them that are asked for here."""

    members: tuple[int, ...]
    asked: tuple[int, ...]


def grids_of(classes: Sequence[int], seed: int) -> list[Grid]:
    """Grids in which all classes differ, so that every photo is asked for once.

    Each grid takes, in an order drawn by the seed, photos that had no turn yet; the last ones are filled up with
    photos that had. None if there are fewer than four classes.

    Args:
        classes: of each photo.
        seed: of the order.
    """
    if len(set(classes)) < CELLS:
        return []
    waiting = [int(i) for i in np.random.default_rng(seed).permutation(len(classes))]
    order = list(waiting)
    found = []
    while waiting:
        members: list[int] = []
        for candidate in (*waiting, *order):
            if len(members) < CELLS and classes[candidate] not in [classes[i] for i in members]:
                members.append(candidate)
        asked = tuple(i for i in members if i in waiting)
        waiting = [i for i in waiting if i not in members]
        found.append(Grid(tuple(members), asked))
    return found


def joined(inputs: Sequence[Array], positions: tuple[int, int], size: tuple[int, int]) -> Array:
    """Four inputs side by side, as one input.

    Args:
        inputs: of one shape, as the model takes them, without the batch.
        positions: their axes of rows and columns.
        size: rows and columns of the result; where that is the size of one input each is shrunk to half by area.
    """
    moved = [np.moveaxis(np.asarray(one), positions, (0, 1)) for one in inputs]
    result = np.zeros((*size, *moved[0].shape[2:]), moved[0].dtype)
    for one, place in zip(moved, _cells(size), strict=True):
        rows, columns = (part.stop - part.start for part in place)
        flat: Array = np.ascontiguousarray(one.reshape(*one.shape[:2], -1), np.float32)
        if flat.shape[:2] != (rows, columns):
            flat = cv2.resize(flat, (columns, rows), interpolation=cv2.INTER_AREA).reshape(rows, columns, -1)
        if result.dtype.kind in "iu":
            flat = np.rint(flat)
        result[place] = flat.reshape(rows, columns, *result.shape[2:])
    return np.ascontiguousarray(np.moveaxis(result, (0, 1), positions))


def cell_mask(size: tuple[int, int], cell: int) -> NDArray[np.bool_]:
    """Where one of the four cells is: bool [rows, columns]."""
    mask = np.zeros(size, bool)
    mask[_cells(size)[cell]] = True
    return mask


def _cells(size: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Of odd sizes the first half is the smaller one."""
    halves = [(slice(0, one // _SIDE), slice(one // _SIDE, one)) for one in size]
    return [(rows, columns) for rows in halves[0] for columns in halves[1]]
