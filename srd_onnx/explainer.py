"""`Explainer`: the library's front door. It joins the engine to the rules, the zoo and the photos."""

import time
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import ArrayLike, NDArray

from graph_rules import EXPANSIONS, RULES
from srd_onnx import runtime, zoo
from srd_onnx.engine import (
    Case,
    Compiled,
    Result,
    compile_model,
    explanation_session,
    exposing_session,
    plan_for,
    run_explanation,
    standalone,
    values_named,
)
from srd_onnx.errors import OptionError, UnknownTargetError
from srd_onnx.explanation import Explanation
from srd_onnx.files import atomic_write
from srd_onnx.fixed import with_fixed
from srd_onnx.inputs import (
    Item,
    Sources,
    Transform,
    read_items,
    require_channels,
    stacked,
    usual_preprocess,
)
from srd_onnx.load import load_model
from srd_onnx.options import DEFAULT_PRESET, Options, options_of
from srd_onnx.plan import Plan
from srd_onnx.ports import ports_of
from srd_onnx.preprocess import Preprocess
from srd_onnx.roles import Role
from srd_onnx.seed import TOP_CLASS
from srd_onnx.targets import At, Target, resolve_classes, split_targets

Array = NDArray[Any]
_KEPT_SHAPES = 4  # compiled sessions that are kept, the last used ones


@dataclass(frozen=True, eq=False)
class _Ready:
    """A session for one set of input shapes, and the seconds it took to compile and load."""

    compiled: Compiled
    session: onnxruntime.InferenceSession
    seconds: float

    @property
    def scores(self) -> int:
        """How many scores there are."""
        return self.compiled.backward.seeded.shape[1]


class Explainer:
    """Explains one ONNX model by sharing ratio decomposition.

    Args:
        model: a path, a name from the zoo, the bytes of a model, or a ModelProto.
        preprocess: makes the model's input from a photo. Left out: what the zoo knows, else the torchvision
            convention, and `meta["preprocess_assumed"]` says so.
        layout: the axes of the first input, such as "NCHW" or "NHWC", or of any input by name; guessed if left out.
        preset: a named set of options.
        boundary, seed, sign, bias: single options that differ from the preset, see `Options`.
        labels: class names, or a file of them.
        providers: "auto" (CUDA where it works, else CPU), "cuda" or "cpu".
        threads: of the CPU provider; its own choice if left out.
        fixed: values of inputs that are settings (a sampling rate), by name; they are inputs no more, and an If that
            they decide becomes the branch that it takes.

    Raises:
        ModelError: the model cannot be used.
        LayoutError: the layout cannot be guessed or does not fit.
        OptionError: an option means nothing.
        ProviderError: CUDA was asked for and does not work.
    """

    def __init__(
        self,
        model: str | Path | bytes | onnx.ModelProto,
        *,
        preprocess: Transform | None = None,
        layout: str | Mapping[str, str] | None = None,
        preset: str = DEFAULT_PRESET,
        boundary: str | None = None,
        seed: str | None = None,
        sign: str | None = None,
        bias: str | None = None,
        labels: Sequence[str] | str | Path | None = None,
        providers: str = "auto",
        threads: int | None = None,
        fixed: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        entry = zoo.find(model) if isinstance(model, str) else None
        self.model = load_model(entry.path if entry else model)
        entry = entry or zoo.find_by_sha256(self.model.sha256)
        self.fixed = {name: np.asarray(value).tolist() for name, value in (fixed or {}).items()}
        if fixed:
            self.model = with_fixed(self.model, fixed)
        self.preset = preset
        self.options: Options = options_of(preset, boundary=boundary, seed=seed, sign=sign, bias=bias)
        self.providers, self.provider_note = runtime.choose_providers(providers)
        self._threads = threads
        self.ports = ports_of(self.model.proto, layout, entry.layout if entry else None)
        self.preprocess_assumed = preprocess is None and entry is None
        self.preprocess: Transform = preprocess or (
            entry.preprocess if entry else usual_preprocess(self.ports[0])
        )
        self.labels = _labels(labels, entry)
        self._sessions: OrderedDict[Hashable, _Ready] = OrderedDict()

    # Looking at the model

    @property
    def layout(self) -> str:
        """One letter for each axis of the first input."""
        return self.ports[0].layout

    @property
    def layout_guessed(self) -> bool:
        """Whether nobody said the layout."""
        return any(port.guessed for port in self.ports)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of the first input for which `plan` and `graph` are shown: open sizes filled in, batch 1."""
        return self._shown_shapes()[self.ports[0].name]

    @property
    def plan(self) -> Plan:
        """What would be done for `input_shape`, node by node; `print` it."""
        with runtime.enough_memory():
            return plan_for(self.model.proto, self._case(self._shown_shapes()), RULES, EXPANSIONS)[1]

    @property
    def graph(self) -> Any:
        """The simplified graph as a networkx.MultiDiGraph; see `srd_onnx.ir.Graph.dag`."""
        return self.plan.graph.dag

    @property
    def provider(self) -> str:
        """The execution provider that sessions really run on."""
        return self.providers[0]

    def label(self, target: int) -> str | None:
        """The class name of an index, where it is known."""
        return self.labels[target] if self.labels and target < len(self.labels) else None

    # Explaining

    def explain(
        self,
        inputs: Sources,
        targets: Target | Sequence[Target] | None = None,
        *,
        batch_size: int = 1,
    ) -> list[Explanation]:
        """Explanations, input by input, and for each in the order of its targets.

        Args:
            inputs: paths of photos; photos, uint8 [H, W, 3]; or preprocessed data, N×... or a list of them; for a
                model with several inputs a dictionary from their names to arrays.
            targets: a class by index, label or "top3"; any elements as `At("output", index)` or "output[3, 4:]"; or
                several; the prediction if left out.
            batch_size: inputs per run; the maps do not depend on it.

        Raises:
            InputError: the data does not fit the model, or leads to NaN.
            UnknownTargetError: a target does not exist.
            UnsupportedOpError, UnsupportedCaseError: relevance would reach what no rule covers.
        """
        return list(self.explain_each(inputs, targets, batch_size=batch_size))

    def explain_each(
        self,
        inputs: Sources,
        targets: Target | Sequence[Target] | None = None,
        *,
        batch_size: int = 1,
    ) -> Iterator[Explanation]:
        """As `explain`, one after the other, so that thousands need no memory."""
        classes, selections = split_targets(targets)
        for chunk, size in self._chunks(inputs, _at_least_one("batch_size", batch_size)):
            with runtime.enough_memory():
                explained = [self._classes(chunk, size, classes)] if classes else []
                explained += [self._selection(chunk, size, at) for at in selections]
            for row in range(len(chunk)):
                for by_row in explained:
                    yield from by_row[row]

    def preactivations(self, inputs: Sources, names: str | Sequence[str] | None = None) -> dict[str, Array]:
        """Inner tensors of the graph, by name: the augmented outputs.

        Args:
            inputs: as for `explain`.
            names: tensors, or original names of nodes; the preactivations that relevance crosses (the inputs of
                its nonlinearities) if left out.

        Returns:
            arrays N×..., keyed by the names given (or the tensors' names).

        Raises:
            UnknownTensorError: naming what is not in the simplified graph.
        """
        found: dict[str, list[Array]] = {}
        names = [names] if isinstance(names, str) else names
        sessions: dict[Hashable, Any] = {}
        for chunk, size in self._chunks(inputs, 1):
            shapes = self._shapes(chunk[0], size)
            key = tuple(sorted(shapes.items()))
            if key not in sessions:
                forward, plan = plan_for(self.model.proto, self._case(shapes), RULES, EXPANSIONS)
                values = list(plan.preactivations) if names is None else values_named(plan.graph, names)
                unique = list(dict.fromkeys(values))
                sessions[key] = (values, unique, exposing_session(forward, unique, self.providers))
            values, unique, session = sessions[key]
            arrays = runtime.run(session, [v.name for v in unique], self._feeds(chunk, size))
            by_value = dict(zip(unique, arrays, strict=True))
            for name, value in zip(names or [v.name for v in values], values, strict=True):
                found.setdefault(name, []).append(by_value[value][: len(chunk)])
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def compile(self, path: str | Path | None = None, *, batch: int | None = None) -> onnx.ModelProto:
        """The explained model as one ordinary ONNX model: the original outputs plus `relevance`.

        Its extra input `target` (int64 [batch], -1 for the top class) is optional. Written to `path` if given. The
        batch is 1 where neither it nor the model says otherwise. With several explained inputs there is one output
        `relevance/NAME` for each.

        Raises:
            OutputError: the file cannot be written.
        """
        shapes = self._shown_shapes()
        if batch is not None:
            _at_least_one("batch", batch)
            shapes |= {p.name: (batch, *shapes[p.name][1:]) for p in self.ports if p.has_batch}
        with runtime.enough_memory():
            model = standalone(compile_model(self.model.proto, self._case(shapes), RULES, EXPANSIONS))
        onnx.checker.check_model(model)
        if path is not None:
            atomic_write(path, model.SerializeToString())
        return model

    # Inside

    def _chunks(self, inputs: Sources, batch_size: int) -> Iterator[tuple[list[Item], int]]:
        """Items of the same shapes, and how many the model takes at once."""
        fixed = [port.declared[0] for port in self.ports if port.has_batch and port.declared[0]]
        size = fixed[0] if fixed else batch_size
        if not all(port.has_batch for port in self.ports):
            size = 1
        for _, alike in groupby(
            read_items(inputs, self.ports, self.preprocess), key=lambda item: item.shapes
        ):
            while chunk := list(islice(alike, size)):
                yield chunk, size

    def _classes(self, items: list[Item], size: int, wanted: Sequence[int | str]) -> list[list[Explanation]]:
        """For each input the explanations of its classes."""
        ready = self._ready(self._shapes(items[0], size))
        feeds = self._feeds(items, size)
        began = time.perf_counter()
        # An index needs no prediction first.
        first = wanted[0] if isinstance(wanted[0], int) and 0 <= wanted[0] < ready.scores else TOP_CLASS
        top = run_explanation(ready.session, ready.compiled, feeds, np.full(size, first, np.int64))
        assert top.chosen is not None
        rows = [resolve_classes(wanted, top.scores[i], self.labels) for i in range(len(items))]
        results = []
        for column in range(max(map(len, rows))):
            indices = [row[min(column, len(row) - 1)] for row in rows]
            asked = np.array(indices + [indices[-1]] * (size - len(items)), np.int64)
            same = (asked[: len(items)] == top.chosen[: len(items)]).all()
            results.append(top if same else run_explanation(ready.session, ready.compiled, feeds, asked))
        seconds = {"compile": ready.seconds, "run": time.perf_counter() - began}
        return [
            [
                self._explanation(ready.compiled, results[c], i, item, t, seconds)
                for c, t in enumerate(rows[i])
            ]
            for i, item in enumerate(items)
        ]

    def _selection(self, items: list[Item], size: int, at: At) -> list[list[Explanation]]:
        """For each input the explanation of some elements of a tensor."""
        ready = self._ready(self._shapes(items[0], size), at.tensor)
        target = ready.compiled.plan.target
        shape = (
            target.shape[1:]
            if ready.compiled.plan.roles[target.name].roles[:1] == (Role.BATCH,)
            else target.shape
        )
        direction = np.tile(at.direction(shape), (size, 1)).astype(target.dtype)
        began = time.perf_counter()
        result = run_explanation(ready.session, ready.compiled, self._feeds(items, size), direction)
        seconds = {"compile": ready.seconds, "run": time.perf_counter() - began}
        return [
            [self._explanation(ready.compiled, result, i, item, at, seconds)] for i, item in enumerate(items)
        ]

    def _explanation(
        self,
        compiled: Compiled,
        result: Result,
        row: int,
        item: Item,
        target: int | At,
        seconds: dict[str, float],
    ) -> Explanation:
        ledger: dict[str, float] = {}
        for name, amount in zip(compiled.booked, result.ledger[row], strict=True):
            ledger[name] = ledger.get(name, 0.0) + float(amount)
        maps = {name: np.asarray(array[row], np.float32) for name, array in result.relevance.items()}
        seed, total = float(result.seed[row]), sum(float(m.sum(dtype=np.float64)) for m in maps.values())
        scores = np.asarray(result.scores[row], np.float32)
        is_class = isinstance(target, int)
        meta = describe(self, compiled, item) | {
            "top5": self._top(scores) if is_class else [],
            "seed_value": seed,
            "sum_relevance": total,
            "sum_ledger": sum(ledger.values()),
            "seconds": seconds,
        }
        return Explanation(
            relevance=next(iter(maps.values())),
            relevances=maps,
            target=target if isinstance(target, int) else str(target),
            logits=scores if is_class else np.array([seed], np.float32),
            ledger=ledger,
            residual=seed - total - sum(ledger.values()),
            meta=meta,
            image=item.image,
            label=self.label(target) if isinstance(target, int) else None,
            name=item.name,
        )

    def _top(self, scores: Array) -> list[dict[str, Any]]:
        best = [int(i) for i in np.argsort(-scores, kind="stable")[:5]]
        return [{"index": i, "label": self.label(i), "logit": float(scores[i])} for i in best]

    def _ready(self, shapes: dict[str, tuple[int, ...]], explained: str | None = None) -> _Ready:
        key = (tuple(sorted(shapes.items())), explained)
        if key not in self._sessions:
            require_channels(shapes[self.ports[0].name], self.ports[0])
            began = time.perf_counter()
            compiled = compile_model(self.model.proto, self._case(shapes, explained), RULES, EXPANSIONS)
            session = explanation_session(compiled, self.providers, self._threads)
            self._sessions[key] = _Ready(compiled, session, time.perf_counter() - began)
            while len(self._sessions) > _KEPT_SHAPES:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(key)
        return self._sessions[key]

    def _case(self, shapes: Mapping[str, tuple[int, ...]], explained: str | None = None) -> Case:
        start = {port.name: port.axes for port in self.ports}
        return Case(shapes, start, self.options, explained, free=explained is not None)

    def _shapes(self, item: Item, size: int) -> dict[str, tuple[int, ...]]:
        given = item.shapes
        return {p.name: (size, *given[p.name]) if p.has_batch else given[p.name] for p in self.ports}

    def _shown_shapes(self) -> dict[str, tuple[int, ...]]:
        crop = self.preprocess.crop if isinstance(self.preprocess, Preprocess) else None
        return {port.name: port.shape(crop or ()) for port in self.ports}

    def _feeds(self, items: list[Item], size: int) -> dict[str, Array]:
        return {port.name: stacked(items, size, port) for port in self.ports}


def describe(explainer: Explainer, compiled: Compiled, item: Item) -> dict[str, Any]:
    """What is needed to make an explanation again, as plain data."""
    plan, loaded = compiled.plan, explainer.model
    source, preprocess = plan.sources[0], explainer.preprocess
    return {
        "model": {
            "path": str(loaded.path) if loaded.path else None,
            "sha256": loaded.sha256,
            "opset": loaded.opset,
            "producer": loaded.producer,
            "parameters": loaded.parameters,
        },
        "input": {"name": source.name, "shape": list(source.shape), **(item.origin or {})},
        "layout": explainer.layout,
        "layout_guessed": explainer.layout_guessed,
        "fixed": explainer.fixed,
        "preprocess": preprocess.to_dict() if isinstance(preprocess, Preprocess) else "custom",
        "preprocess_assumed": explainer.preprocess_assumed,
        "preset": explainer.preset,
        "options": explainer.options.to_dict(),
        "target_tensor": plan.target.name,
        "boundary": list(plan.boundary),
        "approximate": {s.node.origins[0]: s.approximate for s in plan.steps if s.approximate},
        "provider": explainer.provider,
        "versions": runtime.versions(),
    }


def _at_least_one(name: str, number: int) -> int:
    if number < 1:
        raise OptionError(f"{name}={number}: it must be at least 1")
    return number


def _labels(given: Sequence[str] | str | Path | None, entry: zoo.ZooModel | None) -> tuple[str, ...] | None:
    if isinstance(given, str | Path):
        return zoo.read_labels(given)
    if given is not None:
        if not all(isinstance(name, str) for name in given):
            raise UnknownTargetError("labels must be a list of class names, or the path of a file of them")
        return tuple(given)
    return zoo.read_labels(entry.labels_path) if entry else None
