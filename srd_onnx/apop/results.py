"""APOP, activation-pattern-only prediction: how much of a prediction lies in the activation pattern alone.

The pattern of one input is recorded, and the network is run on another one with that pattern, in one session.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from graph_rules import RULES
from srd_onnx.apop.pattern_run import Pattern, PatternRun, pattern_run
from srd_onnx.errors import InputError, NonFiniteError, ShapeError
from srd_onnx.inputs.sources import Item, Sources, read_items, require_channels
from srd_onnx.ort import runtime
from srd_onnx.subject import Subject

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class ApopResult:
    """One input run under the activation pattern of another.

    Shapes: original and logits [K] float32: the scores of the input that made the pattern, and those of the other one
    under its pattern.

    Attributes:
        name: of the input that made the pattern.
        run_on: of the other one.
        pattern: what of it was held fixed.
        layers: how many nonlinear layers followed it, and how many there are.
    """

    name: str
    run_on: str
    pattern: Pattern
    layers: tuple[int, int]
    original: NDArray[np.float32]
    logits: NDArray[np.float32]

    @property
    def predicted(self) -> int:
        """The top class of the input that made the pattern."""
        return int(self.original.argmax())

    @property
    def top1(self) -> bool:
        """Whether it is also the top class under the pattern."""
        return int(self.logits.argmax()) == self.predicted

    @property
    def top5(self) -> bool:
        """Whether it is among the top five under the pattern."""
        return self.predicted in self.best()

    def best(self, count: int = 5) -> list[int]:
        """The top classes under the pattern."""
        return [int(i) for i in np.argsort(-self.logits, kind="stable")[:count]]


def pattern_results(
    subject: Subject, pattern_from: Sources, run_on: Sources, pattern: Pattern
) -> Iterator[ApopResult]:
    """Input by input; `run_on` has one input for each, or one for all.

    Raises:
        InputError: the numbers of inputs or their shapes differ, or the data does not fit the model.
        UnsupportedOpError, UnsupportedCaseError: what is crossed has no rule.
    """
    items, others = (
        list(read_items(sources, subject.ports, subject.preprocess)) for sources in (pattern_from, run_on)
    )
    if len(others) not in (1, len(items)):
        raise InputError(
            f"{len(items)} inputs make patterns, but {len(others)} are to be run under them: give one for each, "
            "or one for all"
        )
    for index, item in enumerate(items):
        key = ("apop", tuple(sorted(item.shapes.items())), pattern)
        session = subject.kept(key, partial(pattern_session, subject, item, pattern))
        yield session(item, others[index if len(others) > 1 else 0])


@dataclass(frozen=True, eq=False)
class PatternSession:
    """A session that runs inputs of one shape under the pattern of others.

    Attributes:
        subject: the model.
        pattern: what is held fixed.
        run: the compiled model.
        session: of that model.
    """

    subject: Subject
    pattern: Pattern
    run: PatternRun
    session: onnxruntime.InferenceSession

    def __call__(self, item: Item, other: Item) -> ApopResult:
        """`other` under the pattern of `item`.

        Raises:
            ShapeError: if their shapes differ.
            NonFiniteError: if the scores are not finite.
        """
        if item.shapes != other.shapes:
            raise ShapeError(
                f"{other.name} {other.shapes} cannot be run under the pattern of {item.name} {item.shapes}: "
                "they must have the same shape"
            )
        size = self.subject.at_once()
        feeds, news = self.subject.feeds([item], size), self.subject.feeds([other], size)
        feeds |= {value.name: news[name].astype(value.dtype) for name, value in self.run.inputs.items()}
        found = runtime.run(self.session, [self.run.scores, self.run.replayed], feeds)
        rows = [np.asarray(scores[0], np.float32) for scores in found]
        for row, name in zip(
            rows, (item.name, f"{other.name} under the pattern of {item.name}"), strict=True
        ):
            if not np.isfinite(row).all():
                raise NonFiniteError(
                    f"{name}: NaN or infinity in the scores; check the preprocessing and the weights"
                )
        return ApopResult(item.name, other.name, self.pattern, (self.run.count, self.run.total), *rows)


def pattern_session(subject: Subject, item: Item, pattern: Pattern) -> PatternSession:
    """For inputs such as this one.

    Raises:
        UnsupportedOpError, UnsupportedCaseError: what is crossed has no rule.
    """
    shapes = subject.shapes(item, subject.at_once())
    require_channels(shapes[subject.ports[0].name], subject.ports[0])
    with runtime.enough_memory():
        made = pattern_run(*subject.planned(subject.case(shapes)), RULES, pattern)
        session = runtime.make_session(made.model.SerializeToString(), subject.providers, subject.threads)
    return PatternSession(subject, pattern, made, session)
