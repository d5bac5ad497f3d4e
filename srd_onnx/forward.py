"""`Forward`: the plain model in batches of bounded size, for what asks it thousands of times: metrics, black boxes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from srd_onnx import runtime
from srd_onnx.assemble import exposed, pruned
from srd_onnx.errors import NonFiniteError, OptionError, SrdOnnxError
from srd_onnx.ir import Array
from srd_onnx.plan import Plan
from srd_onnx.subject import Subject, at_least_one

BATCH = 8


@dataclass(frozen=True, eq=False)
class _Run:
    """A session for so many inputs at once."""

    size: int
    session: onnxruntime.InferenceSession
    plan: Plan

    def __call__(self, name: str, rows: Array, *, batched: bool) -> Array:
        """Scores [M, K] of at most `size` rows; a short batch is filled up with its last row."""
        full = np.concatenate([rows, np.repeat(rows[-1:], self.size - len(rows), axis=0)])
        feed = np.ascontiguousarray(full if batched else full[0])
        (found,) = runtime.run(self.session, [self.plan.target.name], {name: feed})
        scores: Array = found.reshape(self.size, -1)
        return scores[: len(rows)]


@dataclass(frozen=True, eq=False)
class Forward:
    """The plain model from its one input to what is explained (before a softmax at its end).

    Attributes:
        name: of the input.
        shape: of one input, without the batch.
        dtype: what the model takes; to integers inputs are rounded and clipped.
        batched: whether the input has a batch axis.
        channel_axes, position_axes: of one input, without the batch.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    batched: bool
    channel_axes: tuple[int, ...]
    position_axes: tuple[int, ...]
    _runs: tuple[_Run, ...]

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
            run = next((r for r in self._runs if left > r.size // 2), self._runs[-1])
            found.append(run(self.name, rows[start : start + run.size], batched=self.batched))
            start += run.size
        if not found:
            return np.zeros((0, int(np.prod(self._runs[0].plan.target.shape)) // self._runs[0].size))
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
        port.has_batch,
        tuple(axis - first for axis in port.axes.channels),
        tuple(axis - first for axis in port.axes.positions),
        _sessions(subject, tuple(one), at_least_one("batch", batch)),
    )


def cast_to(inputs: Array, dtype: np.dtype[Any]) -> Array:
    """Inputs as the model takes them: to integers rounded and clipped to what these hold."""
    if dtype.kind not in "iu" or np.asarray(inputs).dtype.kind in "iu":
        return np.asarray(inputs, dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(inputs), limits.min, limits.max).astype(dtype)


def _sessions(subject: Subject, shape: tuple[int, ...], batch: int) -> tuple[_Run, ...]:
    """Sessions of falling size: of a batch, and of one input where the model takes that."""
    size = subject.at_once(batch)
    if size == 1 or subject.at_once(1) > 1:
        return (_session(subject, shape, size),)
    one = _session(subject, shape, 1)
    try:
        return (_session(subject, shape, size), one)
    except SrdOnnxError:
        return (one,)  # something inside is made for one item


def _session(subject: Subject, shape: tuple[int, ...], size: int) -> _Run:
    port = subject.ports[0]
    shapes = {port.name: (size, *shape) if port.has_batch else shape}
    forward, plan = subject.planned(subject.case(shapes))
    model = pruned(exposed(forward, [plan.target]))
    return _Run(
        size, runtime.make_session(model.SerializeToString(), subject.providers, subject.threads), plan
    )
