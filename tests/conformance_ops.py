"""Operators of the conformance cases that tests/reference_ops.py is too slow at, or has not in every form.

ScatterElements       all at once
AveragePool, MaxPool  tap by tap instead of output by output: some cases have pictures of 32×32×32
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

from tests import reference_ops
from tests.oracle_types import here
from tests.oracle_windows import Slide, slide

Array = NDArray[Any]


def _window(x: Array, kernel: Any, attrs: dict[str, Any]) -> Slide:
    known = ("auto_pad", "ceil_mode", "dilations", "pads", "strides")
    return slide({k: attrs[k] for k in known if attrs.get(k) is not None}, x.shape[2:], kernel)


def _seen(window: Slide, plane: Array, fill: Any) -> Iterator[Array]:
    """What each tap of the window sees at all output positions at once; `fill` outside."""
    needed = [
        (r - 1) * s + (k - 1) * d + 1 - b
        for r, s, k, d, b in zip(
            window.result, window.strides, window.kernel, window.dilations, window.begins, strict=True
        )
    ]
    sides = [(b, max(n - size, 0)) for b, n, size in zip(window.begins, needed, window.source, strict=True)]
    padded = np.pad(plane, [(0, 0)] * (plane.ndim - len(sides)) + sides, constant_values=fill)
    for tap in itertools.product(*map(range, window.kernel)):
        at = tuple(
            slice(k * d, k * d + (r - 1) * s + 1, s)
            for k, d, r, s in zip(tap, window.dilations, window.result, window.strides, strict=True)
        )
        yield padded[here(..., *at)]


class MaxPool(OpRun):
    op_domain = ""

    def _run(
        self, x: Array, kernel_shape: Any = None, storage_order: Any = None, **attrs: Any
    ) -> tuple[Array, ...]:
        window = _window(x, kernel_shape, attrs)
        places = np.arange(math.prod(x.shape[2:])).reshape(x.shape[2:], order="F" if storage_order else "C")
        best = np.full((*x.shape[:2], *window.result), -np.inf)
        won = np.full(best.shape, -1)
        for value, place in zip(_seen(window, x, -np.inf), _seen(window, places, -1), strict=True):
            better = (place >= 0) & ((won < 0) | (value > best))
            best, won = np.where(better, value, best), np.where(better, place, won)
        channel = np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *[1] * (x.ndim - 2))
        results = (np.where(won >= 0, best, 0).astype(x.dtype), won + channel * places.size)
        return results[: len(self.output)]


class AveragePool(OpRun):
    op_domain = ""

    def _run(
        self, x: Array, kernel_shape: Any = None, count_include_pad: Any = None, **attrs: Any
    ) -> tuple[Array]:
        window = _window(x, kernel_shape, attrs)
        inside = np.ones(x.shape[2:])
        if count_include_pad:
            inside = np.pad(inside, list(zip(window.begins, window.ends, strict=True)), constant_values=1)
            shifted = Slide(**{**vars(window), "begins": (0,) * inside.ndim, "source": inside.shape})
            count = sum(_seen(shifted, inside, 0.0))
        else:
            count = sum(_seen(window, inside, 0.0))
        return ((sum(_seen(window, x, 0.0)) / np.maximum(count, 1)).astype(x.dtype),)


class ScatterElements(OpRun):
    op_domain = ""

    def _run(
        self, x: Array, indices: Array, updates: Array, axis: Any = None, reduction: Any = None
    ) -> tuple[Array]:
        at = list(np.indices(indices.shape))
        axis = int(axis or 0)
        at[axis] = np.where(indices < 0, indices + x.shape[axis], indices)
        y = x.copy()
        if reduction in (None, "none"):
            y[tuple(at)] = updates
        else:
            how = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[reduction]
            how.at(y, tuple(at), updates)
        return (y,)


_OWN: list[type[OpRun]] = [AveragePool, MaxPool, ScatterElements]
_NAMES = {op.__name__ for op in _OWN}
CONFORMANCE: list[type[OpRun]] = [*_OWN, *(op for op in reference_ops.CORRECTED if op.__name__ not in _NAMES)]
