"""Recurrent layers in numpy for `new_ops=`: onnx.reference (1.23) ignores sequence_lens, and knows no relu."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

from tests.oracle_recurrent import forward

Array = NDArray[Any]


class _Recurrent(OpRun):
    op_domain = ""

    def _run(self, *inputs: Any, **attrs: Any) -> tuple[Array, ...]:
        own = {name: value for name, value in attrs.items() if value is not None}
        op = type(self).__name__
        results = forward(op, own, [None if a is None else np.asarray(a) for a in inputs])
        return tuple(r.astype(inputs[0].dtype) for r in results[: len(self.output)])


class LSTM(_Recurrent): ...


class GRU(_Recurrent): ...


class RNN(_Recurrent): ...


CORRECTED: list[type[OpRun]] = [LSTM, GRU, RNN]
