"""Normalisations that onnx.reference (1.23) computes wrongly, done right in numpy for `new_ops=`.

GroupNormalization         is expanded for version 18, whose scale is per group
LpNormalization            takes the sum of x^p without absolute values; axis 0 is read as the last
LRN                        walks over the channels by the size of the batch; knows four axes only
MeanVarianceNormalization  is expanded with constants in single precision, and takes E[x²] - E[x]² for the variance
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

Array = NDArray[Any]


class GroupNormalization(OpRun):
    op_domain = ""

    def _run(
        self,
        x: Array,
        scale: Array,
        shift: Array,
        epsilon: Any = None,
        num_groups: Any = None,
        stash_type: Any = None,
    ) -> tuple[Array]:
        groups = x.reshape(x.shape[0], num_groups, -1)
        apart = groups - groups.mean(axis=2, keepdims=True)
        y = apart / np.sqrt((apart**2).mean(axis=2, keepdims=True) + (1e-5 if epsilon is None else epsilon))
        along = (-1, *[1] * (x.ndim - 2))
        return ((y.reshape(x.shape) * scale.reshape(along) + shift.reshape(along)).astype(x.dtype),)


class LpNormalization(OpRun):
    op_domain = ""

    def _run(self, x: Array, axis: Any = None, p: Any = None) -> tuple[Array]:
        norm = np.linalg.norm(x, ord=2 if p is None else p, axis=-1 if axis is None else axis, keepdims=True)
        return ((x / np.where(norm == 0, 1, norm)).astype(x.dtype),)


class LRN(OpRun):
    op_domain = ""

    def _run(
        self, x: Array, alpha: Any = None, beta: Any = None, bias: Any = None, size: Any = None
    ) -> tuple[Array]:
        alpha, beta, bias = float(alpha), float(beta), float(bias)  # given in single precision
        before = (size - 1) // 2
        padded = np.pad(x**2, [(0, 0), (before, size - 1 - before), *[(0, 0)] * (x.ndim - 2)])
        squares = sum(padded[:, k : k + x.shape[1]] for k in range(size))
        return ((x / (bias + alpha / size * squares) ** beta).astype(x.dtype),)


class MeanVarianceNormalization(OpRun):
    op_domain = ""

    def _run(self, x: Array, axes: Any = None) -> tuple[Array]:
        over = (0, 2, 3) if axes is None else tuple(axes)
        wide = x.astype(np.float64)
        return (
            ((wide - wide.mean(over, keepdims=True)) / (wide.std(over, keepdims=True) + 1e-9)).astype(
                x.dtype
            ),
        )


CORRECTED: list[type[OpRun]] = [GroupNormalization, LRN, LpNormalization, MeanVarianceNormalization]
