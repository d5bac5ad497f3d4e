"""Operators of this family that onnx.reference (1.23) computes otherwise than ONNX Runtime, or in single precision.

GridSample            counts places in single precision; knows no bilinear and bicubic of before opset 20; moves places
                      outside to the border before it looks for the taps of a cubic, ONNX Runtime moves the taps
DeformConv            counts places in single precision; divides by 0 in pictures of one row
MaxUnpool             takes the indices for those of the usual size where another one is given
"""

from typing import Any

from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

from tests.oracle_sampling import deform_conv, grid_sample, max_unpool

Array = NDArray[Any]


def _given(**attrs: Any) -> dict[str, Any]:
    return {name: value for name, value in attrs.items() if value is not None}


class GridSample(OpRun):
    op_domain = ""

    def _run(self, x: Array, grid: Array, **attrs: Any) -> tuple[Array]:
        return (grid_sample(_given(**attrs), [x, grid], frozenset({1}))([x])[0].astype(x.dtype),)


class MaxUnpool(OpRun):
    op_domain = ""

    def _run(self, x: Array, places: Array, shape: Any = None, **attrs: Any) -> tuple[Array]:
        return (max_unpool(_given(**attrs), [x, places, shape], frozenset())([x])[0].astype(x.dtype),)


class DeformConv(OpRun):
    op_domain = ""

    def _run(
        self, x: Array, weights: Array, offsets: Array, bias: Any = None, mask: Any = None, **attrs: Any
    ) -> tuple[Array]:
        operands = [x, weights, offsets, bias, mask]
        return (deform_conv(_given(**attrs), operands, frozenset())([x])[0].astype(x.dtype),)


CORRECTED: list[type[OpRun]] = [DeformConv, GridSample, MaxUnpool]
