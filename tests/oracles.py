"""What each operator does under a fixed activation pattern, in numpy and loops; shares nothing with graph_rules."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.oracle_attention import ATTENTION
from tests.oracle_contractions import CONTRACTIONS
from tests.oracle_elementwise import ELEMENTWISE
from tests.oracle_mathematics import MATHEMATICS
from tests.oracle_moving import MOVING
from tests.oracle_normalised import NORMALISED
from tests.oracle_recurrent import RECURRENT
from tests.oracle_resize import RESIZE
from tests.oracle_sampling import SAMPLING
from tests.oracle_signals import SIGNALS
from tests.oracle_stamps import STAMPS
from tests.oracle_types import Array, Attrs, Freeze, Oracle, Replay
from tests.oracle_windows import average_pool, conv, global_average_pool, global_max_pool, max_pool

# Layout


def _gathered(move: Callable[[Array], list[Array]]) -> Freeze:
    """An operator that only moves elements."""

    def freeze(_attrs: Attrs, _operands: Sequence[Any], _held: frozenset[int]) -> Replay:
        return lambda z: move(z[0])

    return freeze


def _reshape(attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    x = operands[0]
    shape = [
        x.shape[i] if s == 0 and not attrs.get("allowzero") else int(s) for i, s in enumerate(operands[1])
    ]
    return _gathered(lambda z: [z.reshape(shape)])(attrs, operands, held)


def _flatten(attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    shape = operands[0].shape
    axis = attrs.get("axis", 1)
    axis += len(shape) if axis < 0 else 0
    flat = (math.prod(shape[:axis]), math.prod(shape[axis:]))
    return _gathered(lambda z: [z.reshape(flat)])(attrs, operands, held)


def _squeeze(attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    axes = tuple(int(a) for a in operands[1]) if len(operands) > 1 else None
    return _gathered(lambda z: [np.squeeze(z, axes)])(attrs, operands, held)


def _unsqueeze(attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    axes = tuple(int(a) for a in operands[1])
    return _gathered(lambda z: [np.expand_dims(z, axes)])(attrs, operands, held)


def _transpose(attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    return _gathered(lambda z: [np.transpose(z, attrs.get("perm"))])(attrs, operands, held)


def _slice(attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    x, starts, ends, axes, steps = [*operands, None, None][:5]
    kept = [list(range(n)) for n in x.shape]
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = int(axes[i]) if axes is not None else i
        axis += x.ndim if axis < 0 else 0
        size, step = x.shape[axis], int(steps[i]) if steps is not None else 1
        low, high = (0, size) if step > 0 else (-1, size - 1)
        # The ONNX text: add the size to negative bounds, then clamp.
        first, last = (int(b) + size if b < 0 else int(b) for b in (start, end))
        first = min(max(first, 0), high)
        last = min(max(last, low), size if step > 0 else high)
        kept[axis] = list(range(first, last, step))
    return _gathered(lambda z: [z[np.ix_(*kept)]])(attrs, operands, held)


def _split(attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    axis = attrs.get("axis", 0)
    size = operands[0].shape[axis]
    if len(operands) > 1 and operands[1] is not None:
        sizes = [int(s) for s in operands[1]]
    else:
        count = attrs["num_outputs"]
        part = math.ceil(size / count)
        sizes = [part] * (count - 1) + [size - part * (count - 1)]
    ends = list(itertools.accumulate(sizes))
    return _gathered(lambda z: np.split(z, ends[:-1], axis))(attrs, operands, held)


def _concat(attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    return lambda z: [
        np.concatenate([operands[i] if i in held else v for i, v in enumerate(z)], attrs["axis"])
    ]


def _reduced(*, mean: bool) -> Freeze:
    def freeze(attrs: Attrs, operands: Sequence[Any], _held: frozenset[int]) -> Replay:
        x = operands[0]
        given = operands[1] if len(operands) > 1 else None
        if given is None or len(given) == 0:
            axes = () if attrs.get("noop_with_empty_axes") else tuple(range(x.ndim))
        else:
            axes = tuple(int(a) for a in given)
        count = math.prod(x.shape[a] for a in axes) if mean else 1
        keep = bool(attrs.get("keepdims", 1))
        return lambda z: [np.sum(z[0], axis=axes, keepdims=keep) / count if axes else z[0]]

    return freeze


def _positive(freeze: Freeze) -> Freeze:
    """The same map with every real operand positive, so that no response cancels."""

    def structure(attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
        ones = [np.ones_like(o) if o is not None and o.dtype.kind == "f" else o for o in operands]
        positive = dict(attrs) | {k: 1.0 for k in ("alpha", "beta") if k in attrs}
        return freeze(positive, ones, held)

    return structure


def linear(freeze: Freeze) -> Oracle:
    return Oracle(freeze, _positive(freeze))


ORACLES: dict[str, Oracle] = {
    **ELEMENTWISE,
    **ATTENTION,
    **CONTRACTIONS,
    **NORMALISED,
    **MATHEMATICS,
    **MOVING,
    **RECURRENT,
    **RESIZE,
    **SAMPLING,
    **SIGNALS,
    **STAMPS,
    "Conv": linear(conv),
    "AveragePool": linear(average_pool),
    "MaxPool": Oracle(max_pool, _positive(average_pool)),
    "GlobalAveragePool": linear(global_average_pool),
    "GlobalMaxPool": Oracle(global_max_pool, _positive(global_average_pool)),
    "Reshape": linear(_reshape),
    "Flatten": linear(_flatten),
    "Squeeze": linear(_squeeze),
    "Unsqueeze": linear(_unsqueeze),
    "Transpose": linear(_transpose),
    "Slice": linear(_slice),
    "Split": linear(_split),
    "Concat": linear(_concat),
    "ReduceSum": linear(_reduced(mean=False)),
    "ReduceMean": linear(_reduced(mean=True)),
}
