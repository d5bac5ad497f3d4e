"""The model alone, run on many changed inputs: what black-box methods see of it."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from onnx import ModelProto
from scipy.special import expit, softmax

from graph_rules import EXPANSIONS, RULES
from srd_onnx.engine.assemble import exposed, pruned
from srd_onnx.engine.compiling import Case, of_batch
from srd_onnx.engine.options import Seed
from srd_onnx.engine.plan import Plan, forward_plan
from srd_onnx.errors import SrdOnnxError
from srd_onnx.graph.ir import Array, Value
from srd_onnx.graph.roles import Role
from srd_onnx.graph.simplify import simplify
from srd_onnx.ort.runtime import make_session, run
from srd_onnx.subject import Subject

_MOST_ROWS = 32
_MOST_NUMBERS = 1 << 22  # of an input, that one run takes: 27 photos of 224 × 224


@dataclass(frozen=True, eq=False)
class Scored:
    """What the model says of M inputs.

    Shapes: scores [M, K], the target tensor flattened; probabilities [M, K]: of the classes, as the model gives them or
    by a softmax (a sigmoid of a single score); the scores themselves where another tensor is explained.
    """

    scores: Array
    probabilities: Array

    def taken(self, rows: Array) -> "Scored":
        """These of the M, any of them as often as it is named."""
        return Scored(self.scores[rows], self.probabilities[rows])


def joined(parts: Iterable[Scored]) -> Scored:
    """One after the other."""
    found = list(parts)
    return Scored(
        np.concatenate([one.scores for one in found]), np.concatenate([one.probabilities for one in found])
    )


@dataclass(frozen=True, eq=False)
class Scorer:
    """A session of the model, for a batch that bounds what it needs of memory.

    Attributes:
        plan: inputs and target, for the shapes of the case.
        size: inputs per run.
        batched: the inputs with a batch axis, which is the first.
        outputs: of the session: the target; and the output of the model, where that comes before a softmax or sigmoid.
        classes: whether what is explained are the scores of classes.
    """

    plan: Plan
    session: onnxruntime.InferenceSession
    size: int
    batched: frozenset[str]
    outputs: tuple[str, ...]
    classes: bool

    def __call__(self, feeds: Mapping[str, Array]) -> Scored:
        """Score any number of inputs, `size` at a time.

        Args:
            feeds: the graph's inputs; those with a batch axis with M of them.
        """
        count = next((len(array) for name, array in feeds.items() if name in self.batched), 1)
        parts = []
        for start in range(0, count, self.size):
            taken = min(self.size, count - start)
            found = run(self.session, self.outputs, {n: self._filled(n, a, start) for n, a in feeds.items()})
            parts.append([array.reshape(self.size, -1)[:taken] for array in found])
        scores, *given = (np.concatenate(part) for part in zip(*parts, strict=True))
        if not self.classes:
            return Scored(scores, scores)
        return Scored(scores, _given(given[0]) if given else _likely(scores))

    def changed(self, item: Mapping[str, Array], source: str, rows: Array) -> Scored:
        """Score one item with each of M rows in place of one of its inputs.

        Args:
            item: its inputs, with a batch of one where there is a batch axis.
            source: the name of the input.
            rows: [M, *input].
        """
        if source not in self.batched:
            return joined(self({**item, source: row}) for row in rows)
        others = {n: np.repeat(a, len(rows), axis=0) if n in self.batched else a for n, a in item.items()}
        return self({**others, source: rows})

    def _filled(self, name: str, array: Array, start: int) -> Array:
        """The inputs from `start` on, filled up with the last."""
        if name not in self.batched:
            return array
        part = array[start : start + self.size]
        return np.concatenate([part, np.repeat(part[-1:], self.size - len(part), axis=0)])


def compile_scorer(subject: Subject, case: Case, *, rows: int | None = None) -> Scorer:
    """Compile the model alone.

    Args:
        subject: the model.
        case: its shapes, and what is explained.
        rows: inputs per run, if that is more than the case has and the model takes them; as memory allows if left out.

    Raises:
        SrdOnnxError: whatever keeps the model from being run.
    """
    forward, graph = simplify(subject.model.proto, case.shapes, EXPANSIONS, RULES)
    plan = forward_plan(graph, case.start, RULES, case.options, case.explained)
    batched = frozenset(name for name, axes in case.start.items() if axes.roles[:1] == (Role.BATCH,))
    values, size = told(plan, case), plan.batch
    if batched == case.start.keys() and (rows is None or rows > size):
        rows = rows or rows_at_once(math.prod(plan.sources[0].shape) // plan.batch)
        wide = _wide(subject, case, rows, values)
        if wide is not None:
            (forward, values), size = wide, rows
    session = make_session(
        pruned(exposed(forward, values)).SerializeToString(), subject.providers, subject.threads
    )
    return Scorer(plan, session, size, batched, tuple(v.name for v in values), case.explained is None)


def told(plan: Plan, case: Case) -> list[Value]:
    """The target; and the output of the model, where what is explained comes before a softmax or sigmoid at its end."""
    output, target = plan.graph.outputs[0], plan.target
    linked = case.explained is None and output.name != target.name and output.known and output.is_float
    return [target, output] if linked and math.prod(output.shape) == math.prod(target.shape) else [target]


def rows_at_once(numbers: int) -> int:
    """How many inputs of so many numbers each one run takes, so that memory is bounded."""
    return max(1, min(_MOST_ROWS, _MOST_NUMBERS // max(numbers, 1)))


def _wide(
    subject: Subject, case: Case, rows: int, wanted: Sequence[Value]
) -> tuple[ModelProto, list[Value]] | None:
    """The simplified model for so many inputs and the same tensors in it; None where the model does not take them."""
    own = of_batch(subject.model.proto, case, rows)
    if own is None:
        return None
    try:
        forward, graph = simplify(subject.model.proto, own.shapes, EXPANSIONS, RULES)
    except SrdOnnxError:
        # Something inside is made for the batch of the case. As many at a time is right for any model.
        return None
    found = [graph.values.get(value.name) for value in wanted]
    values = [value for value in found if value is not None]
    fits = len(values) == len(wanted) and all(
        value.known and value.shape == (rows, *one.shape[1:])
        for value, one in zip(values, wanted, strict=True)
    )
    return (forward, values) if fits else None


def directions(scores: Array, seed: Array, kind: Seed) -> Array:
    """What is explained as directions [N, K] in the space of the scores, as `srd_onnx.engine.seed.of_class` emits them.

    Args:
        scores: [N, K].
        seed: targets, int64 [N], -1 for the top class; or directions, which are taken as they are.
        kind: see `Options.seed`.

    Returns:
        float64; of directions these themselves.
    """
    if seed.ndim == 2:
        return seed
    scores = np.asarray(scores, np.float64)
    every = np.eye(scores.shape[1])
    chosen = every[np.where(seed < 0, scores.argmax(axis=1), seed)]
    others = np.where(chosen > 0, np.finfo(np.float64).min, scores)
    rivals: dict[Seed, Callable[[], Array]] = {
        "logit": lambda: np.zeros_like(scores),
        "logprob": lambda: softmax(scores, axis=1),
        "contrast": lambda: every[others.argmax(axis=1)],
        "logodds": lambda: softmax(others, axis=1) if len(every) > 1 else np.zeros_like(scores),
    }
    return np.asarray(chosen - rivals[kind]())


def _likely(scores: Array) -> Array:
    scores = np.asarray(scores, np.float64)
    return np.asarray(expit(scores) if scores.shape[1] == 1 else softmax(scores, axis=1))


def _given(output: Array) -> Array:
    """Probabilities from the output of the model, which a log-softmax gives the logarithms of."""
    return np.exp(output) if (output < 0).any() else output
