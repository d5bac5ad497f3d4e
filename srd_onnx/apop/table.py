"""APOP over a folder: how often a prediction survives on other inputs, per kind of input and kind of pattern.

The kinds of input and of pattern are ours, see docs/apop.md.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srd_onnx.apop.pattern_run import Pattern
from srd_onnx.apop.results import ApopResult, PatternSession, pattern_session
from srd_onnx.errors import InputError, OptionError
from srd_onnx.inputs.sources import Item, Source, read_items
from srd_onnx.subject import Subject

Array = NDArray[Any]

# What the network is run on.
INPUTS: Mapping[str, str] = {
    "itself": "the photo itself, as a check: under its exact pattern all predictions must stay",
    "colour": "the photo's own average colour everywhere",
    "mean": "the average of all other photos",
    "zeros": "zeros",
    "noise": "Gaussian noise, of each channel's mean and standard deviation over all photos",
    "another": "the next photo",
}
NEED_OTHERS = ("mean", "another")

# What is taken from the photo.
PATTERNS: Mapping[str, Pattern] = {
    "exact": Pattern(),
    "active": Pattern("active"),
    "first 75 %": Pattern(layers=0.75),
    "first 50 %": Pattern(layers=0.5),
    "first 25 %": Pattern(layers=0.25),
    "none": Pattern(layers=0),
}


@dataclass
class Cell:
    """Of `count` photos, how many kept their top class, and how many have it among the top five."""

    count: int = 0
    top1: int = 0
    top5: int = 0

    def add(self, result: ApopResult) -> None:
        """Count one result."""
        self.count += 1
        self.top1 += result.top1
        self.top5 += result.top5


@dataclass(frozen=True, eq=False)
class Example:
    """A photo, and what was run under its exact pattern: the data and the result, by kind of input."""

    item: Item
    runs: Mapping[str, tuple[Item, ApopResult]]


@dataclass(eq=False)
class ApopTable:
    """The table: `cells[kind of input, kind of pattern]`.

    Attributes:
        seed: of the noise.
        layers: by kind of pattern how many nonlinear layers follow it, and how many there are.
        names: of the photos that were counted.
        examples: the first few photos.
        errors: (photo, what is wrong with it), of those that were left out.
    """

    seed: int
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)
    layers: dict[str, tuple[int, int]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    errors: list[tuple[Source, InputError]] = field(default_factory=list)

    @property
    def inputs(self) -> list[str]:
        """The kinds of input that were run, in order."""
        return list(dict.fromkeys(kind for kind, _ in self.cells))

    @property
    def patterns(self) -> list[str]:
        """The kinds of pattern, in order."""
        return list(dict.fromkeys(kind for _, kind in self.cells))

    def to_dict(self) -> dict[str, Any]:
        """As plain data for a report."""
        return {
            "photos": self.names,
            "seed": self.seed,
            "inputs": {kind: INPUTS[kind] for kind in self.inputs},
            "patterns": {
                kind: {"layers": self.layers[kind][0], "of": self.layers[kind][1]} for kind in self.patterns
            },
            "agreement": [
                {"input": kind, "pattern": pattern, "count": c.count, "top1": c.top1, "top5": c.top5}
                for (kind, pattern), c in self.cells.items()
            ],
        }


def apop_table(
    subject: Subject,
    photos: Sequence[Source],
    *,
    seed: int = 0,
    examples: int = 3,
    advance: Callable[[], None] = lambda: None,
) -> ApopTable:
    """Run every photo's pattern on every kind of input.

    Args:
        subject: the model; it must have one input, of real numbers.
        photos: paths, photos or arrays, as `Explainer.explain` takes them, all of one size for the model.
        seed: of the noise.
        examples: how many photos to keep for a picture.
        advance: called after each photo.

    Raises:
        OptionError: the model has other inputs than photos.
        InputError: no photo can be used, or they have different sizes.
        UnsupportedOpError, UnsupportedCaseError: what is crossed has no rule.
    """
    if len(subject.ports) != 1 or subject.ports[0].dtype.kind != "f":
        raise OptionError(
            "the table is for models with one input, of real numbers; see Explainer.apop for others"
        )
    table = ApopTable(seed)
    folder = _Folder(subject, photos, table.errors)
    sessions: dict[str, PatternSession] = {}
    for index, (item, following) in enumerate(folder.pairs()):
        if not sessions:
            sessions = {name: pattern_session(subject, item, p) for name, p in PATTERNS.items()}
            table.layers = {name: (s.run.count, s.run.total) for name, s in sessions.items()}
        news = folder.inputs_for(item, following, np.random.default_rng([seed, index]))
        try:
            results = {(kind, p): s(item, new) for kind, new in news.items() for p, s in sessions.items()}
        except InputError as problem:  # of this photo
            table.errors.append((item.name, problem))
            continue
        for key, result in results.items():
            table.cells.setdefault(key, Cell()).add(result)
        table.names.append(item.name)
        if len(table.examples) < examples:
            table.examples.append(Example(item, {k: (new, results[k, "exact"]) for k, new in news.items()}))
        advance()
    return table


class _Folder:
    """Photos that can be read, and what they have in common: their sum, each channel's mean and deviation."""

    def __init__(
        self, subject: Subject, photos: Sequence[Source], errors: list[tuple[Source, InputError]]
    ) -> None:
        self.subject, self.port = subject, subject.ports[0]
        self.positions = tuple(axis - self.port.has_batch for axis in self.port.axes.positions)
        self.sources: list[Source] = []
        self.count = 0
        self.total: Array = np.zeros(())
        squares: Array = np.zeros(())
        for source in photos:
            try:
                items = list(self._read(source))
            except InputError as problem:
                errors.append((source, problem))
                continue
            self.sources.append(source)
            for item in items:
                data = self._data(item)
                if self.count and data.shape != self.total.shape:
                    raise InputError(
                        f"{item.name} has the shape {list(data.shape)}, the photos before it {list(self.total.shape)}: "
                        "they must have one size, by a crop or an exact resize"
                    )
                self.count += 1
                self.total = self.total + data
                squares = squares + data**2
        if not self.count:
            return
        first, second = (
            s.mean(axis=self.positions, keepdims=True) / self.count for s in (self.total, squares)
        )
        self.centre, self.spread = first, np.sqrt(np.maximum(second - first**2, 0))

    def _read(self, source: Source) -> Iterator[Item]:
        return read_items([source], self.subject.ports, self.subject.preprocess)

    def _data(self, item: Item) -> Array:
        return np.asarray(item.data[self.port.name], np.float64)

    def pairs(self) -> Iterator[tuple[Item, Item | None]]:
        """Each photo and the next one, the first after the last; None if there is but one."""
        items = (item for source in self.sources for item in self._read(source))
        first = before = next(items, None)
        for item in items:
            assert before is not None
            yield before, item
            before = item
        if before is not None:
            yield before, first if self.count > 1 else None

    def inputs_for(self, item: Item, following: Item | None, rng: np.random.Generator) -> dict[str, Item]:
        """The new inputs by their kind, in the order of `INPUTS`."""
        data = self._data(item)
        made = {
            "colour": np.broadcast_to(data.mean(axis=self.positions, keepdims=True), data.shape),
            "zeros": np.zeros(data.shape),
            "noise": self.centre + self.spread * rng.standard_normal(data.shape),
        }
        if following is not None:
            made["mean"] = (self.total - data) / (self.count - 1)
        found = {kind: self._item(kind, array) for kind, array in made.items()} | {"itself": item}
        if following is not None:
            found["another"] = following
        return {kind: found[kind] for kind in INPUTS if kind in found}

    def _item(self, kind: str, data: Array) -> Item:
        return Item({self.port.name: np.asarray(data, np.float32)}, kind)
