"""Resize from the text of ONNX, one output index at a time."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.oracle_types import Array, Attrs, Oracle, Replay, as_stored


def _operand(operands: Sequence[Any], index: int) -> Any:
    given = operands[index] if len(operands) > index else None
    return None if given is None or given.size == 0 else given


def _geometry(attrs: Attrs, operands: Sequence[Any]) -> list[tuple[int, int, int, float]]:
    """(axis, old size, new size, scale) of each axis named."""
    shape = operands[0].shape
    axes = [a % len(shape) for a in attrs.get("axes", range(len(shape)))]
    scales, sizes = _operand(operands, 2), _operand(operands, 3)
    if scales is not None:
        return [
            (a, shape[a], math.floor(shape[a] * float(s)), float(s))
            for a, s in zip(axes, scales, strict=True)
        ]
    policy = attrs.get("keep_aspect_ratio_policy", "stretch")
    ratios = [int(s) / shape[a] for a, s in zip(axes, sizes, strict=True)]
    if policy == "stretch":
        return [(a, shape[a], int(s), r) for a, s, r in zip(axes, sizes, ratios, strict=True)]
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    return [(a, shape[a], math.floor(ratio * shape[a] + 0.5), ratio) for a in axes]


def _origin(mode: str, out: int, old: int, new: int, scale: float, region: tuple[float, float]) -> float:
    if mode == "align_corners":
        return 0.0 if new == 1 else out * (old - 1) / (new - 1)
    if mode == "asymmetric":
        return out / scale
    if mode == "tf_crop_and_resize":
        start, end = region
        if new == 1:
            return 0.5 * (start + end) * (old - 1)
        return start * (old - 1) + out * (end - start) * (old - 1) / (new - 1)
    if mode == "pytorch_half_pixel" and new == 1:
        return 0.0
    middle = (out + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        return old / 2 * (1 - new / (scale * old)) + middle
    return middle


def _index(mode: str, at: float) -> int:
    low, high = math.floor(at), math.ceil(at)
    if mode == "floor" or (mode == "round_prefer_floor" and at - low <= 0.5):
        return low
    if mode == "ceil" or at - low >= 0.5:
        return high
    return low


def _weight(mode: str, distance: float, a: float) -> float:
    x = abs(distance)
    if mode == "linear":
        return 1 - x if x < 1 else 0.0
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def _row(attrs: Attrs, at: float, old: int, scale: float) -> Array:
    """How much of each input index an output index at this coordinate is made of."""
    row = np.zeros(old)
    mode = attrs.get("mode", "nearest")
    if mode == "nearest":
        row[min(max(_index(attrs.get("nearest_mode", "round_prefer_floor"), at), 0), old - 1)] = 1
        return row
    squeeze = min(scale, 1.0) if attrs.get("antialias") else 1.0
    reach = math.ceil((1 if mode == "linear" else 2) / squeeze) + 1
    total = 0.0
    for tap in range(math.floor(at) - reach, math.ceil(at) + reach + 1):
        weight = _weight(mode, squeeze * (tap - at), as_stored(attrs.get("cubic_coeff_a", -0.75)))
        if attrs.get("exclude_outside") and not 0 <= tap < old:
            continue
        row[min(max(tap, 0), old - 1)] += weight
        total += weight
    return row / total


def _rows(attrs: Attrs, operands: Sequence[Any]) -> tuple[list[tuple[int, Array]], Array]:
    """(axis, weights [new, old]) per axis named, and which output elements are extrapolated."""
    mode = attrs.get("coordinate_transformation_mode", "half_pixel")
    geometry, roi = _geometry(attrs, operands), _operand(operands, 1)
    made, outside = [], np.zeros((1,) * operands[0].ndim, bool)
    for i, (axis, old, new, scale) in enumerate(geometry):
        region = (0.0, 1.0) if roi is None else (float(roi[i]), float(roi[i + len(geometry)]))
        places = [_origin(mode, out, old, new, scale, region) for out in range(new)]
        made.append((axis, np.array([_row(attrs, at, old, scale) for at in places]).reshape(new, old)))
        if mode == "tf_crop_and_resize":
            beyond = np.array([not 0 <= at <= old - 1 for at in places])
            outside = outside | beyond.reshape([-1 if a == axis else 1 for a in range(operands[0].ndim)])
    return made, outside


def resize(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    rows, outside = _rows(attrs, operands)
    fill = as_stored(attrs.get("extrapolation_value", 0.0))

    def replay(z: Sequence[Any]) -> list[Array]:
        y = z[0]
        for axis, weights in rows:
            y = np.moveaxis(np.tensordot(weights, y, (1, axis)), 0, axis)
        return [np.where(outside, fill, y)]

    return replay


def structure(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
    rows, outside = _rows(attrs, operands)

    def replay(z: Sequence[Any]) -> list[Array]:
        y = z[0]
        for axis, weights in rows:
            y = np.moveaxis(np.tensordot((abs(weights) > 1e-9) * 1.0, y, (1, axis)), 0, axis)
        return [np.where(outside, 0.0, y)]

    return replay


RESIZE = {"Resize": Oracle(resize, structure)}
