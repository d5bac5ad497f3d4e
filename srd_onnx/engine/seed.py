"""What is explained, as a direction in the space of the scores: an extra input of the emitted model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.options import Seed
from srd_onnx.graph.ir import Value

TARGET = "target"
DIRECTION = "direction"
TOP_CLASS = -1
_BOOL = 9  # TensorProto.BOOL


@dataclass(frozen=True)
class Seeded:
    """The emitted seed.

    Attributes:
        scores: tensor [N, K], the target value flattened.
        direction: tensor [N, K]; its inner product with the scores is the seed.
        chosen: tensor [N] int64, the index that is explained (the top class resolved); None for a free direction.
        shape: N and K.
        dtype: of the scores and the direction.
    """

    scores: str
    direction: str
    chosen: str | None
    shape: tuple[int, int]
    dtype: np.dtype[Any]


def along_direction(emit: Emitter, target: Value, batch: int) -> Seeded:
    """Any direction: the input `direction`, [N, K] like the flattened scores."""
    shape = (batch, elements(target, batch))
    return Seeded(emit.reshape(target.name, shape), DIRECTION, None, shape, target.dtype)


def of_class(emit: Emitter, target: Value, batch: int, kind: Seed, *, rival: bool = False) -> Seeded:
    """One score: the input `target`, int64 [N], -1 for the greatest. See `Options.seed` for the kinds.

    With `rival` the strongest other score in its place.
    """
    count = elements(target, batch)
    scores = emit.reshape(target.name, [batch, count])
    top = emit("ArgMax", scores, axis=1, keepdims=0)
    chosen = emit("Where", emit("Less", TARGET, emit.ints([0])), top, TARGET)
    one, zero = emit.like(target, 1.0), emit.like(target, 0.0)

    def onehot(index: str) -> str:
        hit = emit("Equal", emit.ints(range(count)), emit("Unsqueeze", index, emit.ints([1])))
        return emit("Where", hit, one, zero)

    if rival:
        chosen = _strongest_other(emit, target, scores, onehot(chosen))
    direction = onehot(chosen)
    makers: dict[Seed, Callable[[], str]] = {
        "logit": lambda: direction,
        "logprob": lambda: emit("Sub", direction, emit("Softmax", scores, axis=1)),
        "contrast": lambda: emit("Sub", direction, onehot(_strongest_other(emit, target, scores, direction))),
        # The softmax over one score alone would be 1: there the score is the log-odds itself.
        "logodds": lambda: (
            direction
            if count == 1
            else emit(
                "Sub", direction, emit("Softmax", _others(emit, target, scores, direction, -np.inf), axis=1)
            )
        ),
    }
    return Seeded(scores, makers[kind](), chosen, (batch, count), target.dtype)


def elements(target: Value, batch: int) -> int:
    """K: how many scores there are for each input."""
    return int(np.prod(target.shape, dtype=np.int64)) // batch


def _strongest_other(emit: Emitter, target: Value, scores: str, chosen: str) -> str:
    lowest = float(np.finfo(target.dtype).min)
    return emit("ArgMax", _others(emit, target, scores, chosen, lowest), axis=1, keepdims=0)


def _others(emit: Emitter, target: Value, scores: str, chosen: str, instead: float) -> str:
    """The scores, with another number instead of the chosen one."""
    return emit("Where", emit("Cast", chosen, to=_BOOL), emit.like(target, instead), scores)
