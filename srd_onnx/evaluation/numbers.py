"""Which method explains a model best? All methods, by all metrics, on all images: number by number, resumable."""

import math
import time
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from srd_onnx.errors import InputError, OptionError, SrdOnnxError
from srd_onnx.evaluation.contenders import Contender
from srd_onnx.evaluation.inputs import Loaded, Question, questions_of
from srd_onnx.evaluation.masks import Masks
from srd_onnx.evaluation.store import Number, Place, Store
from srd_onnx.explainer import Explainer
from srd_onnx.explanation import as_picture
from srd_onnx.files import to_json
from srd_onnx.metrics.metric import Explained, Metric, Probe
from srd_onnx.metrics.probe import probe_of
from srd_onnx.ort.forward import kept_forward
from srd_onnx.ort.runtime import versions
from srd_onnx.pictures.render import clip_value

UNDEFINED = "not defined for this map"


@dataclass(frozen=True)
class Row:
    """One number: what a metric says of a method's map of an image; or why there is none.

    Attributes:
        image: its path. sha256: of the file.
        target: the explained class; None if the image cannot be read.
        label: the name of the class.
        method, metric: by their names.
        value: None if there is none; then `error` says why.
        seconds: what the metric took. map_seconds: what the map took, shared by all metrics on it.
        grid: of the Grid Pointing Game, the photos of the grid.
    """

    image: str
    sha256: str
    target: int | None
    label: str | None
    method: str
    metric: str
    value: float | None
    error: str | None
    seconds: float = 0.0
    map_seconds: float = 0.0
    grid: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """What a bootstrap draws from: the image."""
        return self.image


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All that is to be done; `numbers` does it.

    Attributes:
        base: the model.
        contenders: the methods.
        metrics: by name; of the optional ones those that the images allow.
        questions: see `questions_of`.
        seed: of everything random.
        optional: the metrics that are left out, rather than an error, where they are not for the model.
        unfit: the metrics that are left out already, and why.
    """

    base: Explainer
    contenders: tuple[Contender, ...]
    metrics: Mapping[str, Metric]
    questions: tuple[Question, ...]
    seed: int
    optional: frozenset[str] = frozenset()
    unfit: Mapping[str, SrdOnnxError] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many rows there will be."""
        return len(self.contenders) * sum(len(question.asks) for question in self.questions)

    def without(self, names: Container[str]) -> "Evaluation":
        """The same without some metrics."""
        return replace(self, metrics={k: one for k, one in self.metrics.items() if k not in names})

    def setup(self) -> dict[str, Any]:
        """What all numbers depend on, as plain data."""
        base = self.base
        return {
            "model": base.model.sha256,
            "layout": base.layout,
            "fixed": base.fixed,
            "seed": self.seed,
            "provider": base.provider,
            "versions": versions(),
        }


def prepare(
    base: Explainer,
    images: Sequence[str | Path],
    contenders: Sequence[Contender],
    metrics: Mapping[str, Metric],
    *,
    target: int | str | None = None,
    masks: Masks | None = None,
    seed: int = 0,
    shown: int = 0,
    optional: Iterable[str] = (),
    advance: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Read every image once and predict its class; see `questions_of` for the arguments, `Evaluation` for `optional`.

    Raises:
        OptionError: nothing is to be done, a method is named twice, or as `questions_of`.
    """
    names = [contender.name for contender in contenders]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise OptionError(f"method {', '.join(twice)}: named twice")
    if not names or not metrics:
        raise OptionError("name at least one method and one metric")
    for contender in contenders:
        contender.explainer(base)  # an option that means nothing is said before any work
    may_go = frozenset(optional)
    questions, unfit = questions_of(
        base,
        images,
        metrics,
        target=target,
        masks=masks,
        seed=seed,
        shown=shown,
        optional=may_go,
        advance=advance,
    )
    whole = Evaluation(base, tuple(contenders), dict(metrics), tuple(questions), seed, may_go, unfit)
    return whole.without(unfit)


def numbers(
    evaluation: Evaluation,
    store: Store | None = None,
    left_out: Callable[[str, SrdOnnxError], None] = lambda *_: None,
) -> Iterator[Row]:
    """Every number, method by method, image by image: from the store where it is there, else computed and stored.

    What is wrong with one image is a row without a value; what is wrong with the model or an option ends all, unless it
    is of a method or metric that may be left out. Then there are no more rows of it: `Evaluation.without` drops it.

    Args:
        evaluation: from `prepare`.
        store: where numbers are kept; without it they are computed anew.
        left_out: is told of a contender that cannot explain this model and is not required, and of an optional metric
            that is not for it, by name.

    Raises:
        SrdOnnxError: a required contender cannot explain the model, or a metric that is not optional is not for it.
        OutputError: the store cannot be written.
    """
    if store is not None:
        store.use(evaluation.setup())
    unfit: set[str] = set()

    def refuse(metric: str, why: SrdOnnxError) -> None:
        unfit.add(metric)
        left_out(metric, why)

    for metric, why in evaluation.unfit.items():
        refuse(metric, why)
    shared: list[dict[Hashable, Any]] = [{} for _ in evaluation.questions]
    for contender in evaluation.contenders:
        work = _Work(evaluation, contender, store, contender.identity(evaluation.base), unfit, refuse)
        try:
            for question, known in zip(evaluation.questions, shared, strict=True):
                yield from work.rows(question, known)
        except _UnfitError as error:
            if contender.required:
                raise error.cause from error
            left_out(contender.name, error.cause)


class _UnfitError(Exception):
    """A contender failed at its first map, for another reason than the image."""

    def __init__(self, cause: SrdOnnxError) -> None:
        super().__init__()
        self.cause = cause


@dataclass(frozen=True, eq=False)
class _Map:
    """A map and the seconds that it took; or why there is none."""

    explained: Explained | None
    seconds: float = 0.0
    problem: str = ""


@dataclass(eq=False)
class _Work:
    """One contender; its sessions are compiled when the first map is needed."""

    evaluation: Evaluation
    contender: Contender
    store: Store | None
    method: str
    unfit: Container[str]
    refuse: Callable[[str, SrdOnnxError], None]
    _explainer: Explainer | None = None
    _probes: dict[tuple[int, ...], Probe] = field(default_factory=dict)

    def rows(self, question: Question, shared: dict[Hashable, Any]) -> Iterator[Row]:
        """The answers, one after the other, in the order of what is asked; for `shared` see `Explained`."""
        problem, loaded = question.problem, None
        if not problem:
            try:
                loaded = question.load()
            except InputError as error:
                problem = str(error)
        if loaded is None:
            for name in question.asks:
                if name not in self.unfit:
                    yield self._row(question, name, problem)
            return
        found = self._drawn(question, loaded, shared) if self._to_be_drawn(question, loaded) else None
        for name in question.asks:
            if name in self.unfit:
                continue
            if "mask" in self.evaluation.metrics[name].needs and loaded.mask is None:
                yield self._row(question, name, loaded.no_mask)
                continue
            known: Number | str | None = self._known(question, loaded, name)
            if known is None:
                found = found or self._map(question, loaded, shared)
                try:
                    known = self._score(question, loaded, name, found)
                except SrdOnnxError as error:
                    if name not in self.evaluation.optional:
                        raise
                    self.refuse(name, error)
                    continue
            yield self._row(question, name, known)

    def _known(self, question: Question, loaded: Loaded, name: str) -> Number | None:
        if self.store is None:
            return None
        metric = self.evaluation.metrics[name]
        return self.store.number(
            place_of(self.method, question, loaded, masked=bool(metric.needs)), _described(metric)
        )

    def _to_be_drawn(self, question: Question, loaded: Loaded) -> bool:
        if self.store is None or not question.shown:
            return False
        return self.store.map(place_of(self.method, question, loaded)) is None

    def _drawn(self, question: Question, loaded: Loaded, shared: dict[Hashable, Any]) -> _Map:
        found = self._map(question, loaded, shared)
        if self.store is not None and found.explained is not None:
            flat, _ = as_picture(found.explained.map.astype(np.float32))
            self.store.add_map(place_of(self.method, question, loaded), flat / clip_value(flat))
        return found

    def _score(self, question: Question, loaded: Loaded, name: str, found: _Map) -> Number | str:
        """The number, which is stored; or what is wrong with the input, which may be mended and is not."""
        if found.explained is None:
            return found.problem
        metric = self.evaluation.metrics[name]
        explained = _without_ignored(found.explained, loaded) if metric.needs else found.explained
        began = time.perf_counter()
        try:
            value = float(metric.score(explained))
        except InputError as error:
            return str(error)
        number = Number(None if math.isnan(value) else value, time.perf_counter() - began, found.seconds)
        if self.store is not None:
            place = place_of(self.method, question, loaded, masked=bool(metric.needs))
            self.store.add(place, _described(metric), number)
        return number

    def _map(self, question: Question, loaded: Loaded, shared: dict[Hashable, Any]) -> _Map:
        target, first = question.target, self._explainer is None
        assert target is not None
        try:
            explainer = self._explainer = self._explainer or self.contender.explainer(self.evaluation.base)
            source = loaded.input[None] if explainer.ports[0].has_batch else loaded.input
            (one,) = explainer.explain(source, target)
            probe = self._probe(explainer, loaded.input.shape)
        except InputError as error:
            return _Map(None, problem=str(error))
        except SrdOnnxError as error:
            if first:
                raise _UnfitError(error) from error
            raise
        of_seed, booked = float(one.meta["seed_value"]), float(one.meta["sum_ledger"])
        relevance = one.relevance.astype(np.float64)
        explained = Explained(
            probe, loaded.input, target, relevance, question.seed, of_seed, booked, loaded.mask, shared
        )
        return _Map(explained, float(one.meta["seconds"]["run"]))

    def _probe(self, explainer: Explainer, shape: tuple[int, ...]) -> Probe:
        if shape not in self._probes:
            # The model is the same for every contender.
            forward = kept_forward(self.evaluation.base, shape)
            self._probes[shape] = probe_of(explainer, shape, forward=forward)
        return self._probes[shape]

    def _row(self, question: Question, name: str, found: Number | str) -> Row:
        asked = (question.image, question.sha256, question.target, question.label, self.contender.name, name)
        if isinstance(found, str):
            return Row(*asked, None, found, grid=question.grid)
        error = UNDEFINED if found.value is None else None
        return Row(*asked, found.value, error, found.seconds, found.map_seconds, question.grid)


def _without_ignored(explained: Explained, loaded: Loaded) -> Explained:
    """With no relevance where it is to be ignored, so that it neither gains nor loses by it."""
    if loaded.ignored is None:
        return explained
    return replace(explained, map=np.where(loaded.ignored, 0, explained.map))


def _described(metric: Metric) -> str:
    return to_json({"name": metric.name, "parameters": dict(sorted(metric.parameters.items()))})


def place_of(method: str, question: Question, loaded: Loaded, *, masked: bool = False) -> Place:
    """Where the store keeps what a method, by its identity, makes of a question."""
    assert question.target is not None
    return Place(loaded.digest(masked=masked), question.target, method)
