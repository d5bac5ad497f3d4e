"""`Forward`: the plain model in batches of bounded size, for what asks it thousands of times: metrics, black boxes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srd_onnx.engine.seed import elements
from srd_onnx.errors import NonFiniteError, OptionError
from srd_onnx.graph.ir import Array
from srd_onnx.methods.scoring import Scorer, compile_scorer
from srd_onnx.subject import Subject, at_least_one

BATCH = 8


@dataclass(frozen=True, eq=False)
class Forward:
    """The plain model from its one input to what is explained (before a softmax at its end).

    Attributes:
        name: of the input.
        shape: of one input, without the batch.
        dtype: what the model takes; to integers inputs are rounded and clipped.
        channel_axes, position_axes: of one input, without the batch.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    channel_axes: tuple[int, ...]
    position_axes: tuple[int, ...]
    _scorers: tuple[Scorer, ...]

    def __call__(self, inputs: Array) -> NDArray[np.float64]:
        """Scores [M, K] of inputs [M, *shape], the target tensor flattened.

        Raises:
            InputError: the inputs have another shape.
            NonFiniteError: a score is NaN.
        """
        rows, found, start = cast_to(inputs, self.dtype), [], 0
        while start < len(rows):
            # What is left at the end runs one by one where that is less than a padded batch.
            left = len(rows) - start
            scorer = next((s for s in self._scorers if left > s.size // 2), self._scorers[-1])
            found.append(scorer.changed({}, self.name, rows[start : start + scorer.size]).scores)
            start += scorer.size
        if not found:
            plan = self._scorers[0].plan
            return np.zeros((0, elements(plan.target, plan.batch)))
        scores = np.concatenate(found).astype(np.float64)
        if np.isnan(scores).any():
            raise NonFiniteError("the model gives NaN for a changed input; check the preprocessing")
        return scores


def forward_of(subject: Subject, shape: tuple[int, ...] | None = None, batch: int = BATCH) -> Forward:
    """The plain model of a subject.

    Args:
        subject: a model with one input.
        shape: of one input, without the batch; as the model declares it if left out.
        batch: how many inputs run at once, where the model leaves that open.

    Raises:
        OptionError: the model has several inputs.
    """
    if len(subject.ports) > 1:
        names = ", ".join(repr(port.name) for port in subject.ports)
        raise OptionError(f"the model has the inputs {names}: this needs a model with one, see `fixed`")
    port = subject.ports[0]
    whole = subject.input_shape
    one = shape if shape is not None else whole[1:] if port.has_batch else whole
    first = int(port.has_batch)
    return Forward(
        port.name,
        tuple(one),
        port.dtype,
        tuple(axis - first for axis in port.axes.channels),
        tuple(axis - first for axis in port.axes.positions),
        _scorers(subject, tuple(one), at_least_one("batch", batch)),
    )


def kept_forward(subject: Subject, shape: tuple[int, ...]) -> Forward:
    """As `forward_of`, compiled once for the subject: for what asks again and again, method by method."""
    return subject.kept(("forward", shape), lambda: forward_of(subject, shape))


def cast_to(inputs: Array, dtype: np.dtype[Any]) -> Array:
    """Inputs as the model takes them: to integers rounded and clipped to what these hold."""
    if dtype.kind not in "iu" or np.asarray(inputs).dtype.kind in "iu":
        return np.asarray(inputs, dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(inputs), limits.min, limits.max).astype(dtype)


def _scorers(subject: Subject, shape: tuple[int, ...], batch: int) -> tuple[Scorer, ...]:
    """Of falling size: of a batch, and of one input where the model takes that."""
    port = subject.ports[0]
    case = subject.case({port.name: (subject.at_once(1), *shape) if port.has_batch else shape})
    wide = compile_scorer(subject, case, rows=batch)
    return (wide,) if wide.size == wide.plan.batch else (wide, compile_scorer(subject, case, rows=1))
