"""Elementwise operators that onnx.reference (1.23) computes in single precision, or not at all.

Erf   is computed in double and rounded to single
Gelu  is expanded with constants in single precision
Mean  adds in the place of its first operand, which must then have the shape of the result
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

Array = NDArray[Any]


def _erf(x: Array) -> Array:
    return np.array([math.erf(float(v)) for v in x.ravel()]).reshape(x.shape).astype(x.dtype)


class Erf(OpRun):
    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (_erf(x),)


class Gelu(OpRun):
    op_domain = ""

    def _run(self, x: Array, approximate: Any = None) -> tuple[Array]:
        if approximate == "tanh":
            inner = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
        else:
            inner = _erf(x / math.sqrt(2))
        return ((x * (1 + inner) / 2).astype(x.dtype),)


class Mean(OpRun):
    op_domain = ""

    def _run(self, *operands: Array) -> tuple[Array]:
        return (np.asarray(sum(operands[1:], operands[0]) / len(operands)).astype(operands[0].dtype),)


CORRECTED: list[type[OpRun]] = [Erf, Gelu, Mean]
