"""`Explainer`: the library's front door. It joins the engine to the rules, the zoo and the photos."""

import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from graph_rules import EXPANSIONS, RULES
from srd_onnx import runtime
from srd_onnx.engine import (
    Compiled,
    Result,
    compile_model,
    explanation_session,
    exposing_session,
    run_explanation,
    standalone,
    values_named,
)
from srd_onnx.explanation import Explanation
from srd_onnx.files import atomic_write
from srd_onnx.inputs import (
    Item,
    Sources,
    require_channels,
)
from srd_onnx.ir import Value
from srd_onnx.preprocess import Preprocess
from srd_onnx.roles import Role
from srd_onnx.seed import TOP_CLASS
from srd_onnx.subject import Subject, at_least_one
from srd_onnx.targets import At, Target, resolve_classes, split_targets

Array = NDArray[Any]


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


class Explainer(Subject):
    """Explains one ONNX model by sharing ratio decomposition.

    Made with what `Subject` takes:

    `Explainer(model, *, preprocess, layout, preset, boundary, seed, sign, bias, labels, providers, threads, fixed)`
    """

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
        for chunk, size in self.chunks(inputs, at_least_one("batch_size", batch_size)):
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
        for exposed in self.preactivations_each(inputs, names):
            for name, array in exposed.items():
                found.setdefault(name, []).append(array)
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def preactivations_each(
        self, inputs: Sources, names: str | Sequence[str] | None = None
    ) -> Iterator[dict[str, Array]]:
        """As `preactivations`, one run after the other, so that thousands of inputs need no memory."""
        wanted = [names] if isinstance(names, str) else names
        for chunk, size in self.chunks(inputs, 1):
            shapes = self.shapes(chunk[0], size)
            key = ("exposing", tuple(sorted(shapes.items())), tuple(wanted or ()))
            values, session = self.kept(key, functools.partial(self._exposing, shapes, wanted))
            arrays = runtime.run(session, None, self.feeds(chunk, size))
            by_value = dict(zip(dict.fromkeys(values), arrays, strict=True))
            shown = wanted or [v.name for v in values]
            yield {n: by_value[v][: len(chunk)] for n, v in zip(shown, values, strict=True)}

    def _exposing(
        self, shapes: dict[str, tuple[int, ...]], names: Sequence[str] | None
    ) -> tuple[list[Value], onnxruntime.InferenceSession]:
        forward, plan = self.planned(self.case(shapes))
        values = list(plan.preactivations) if names is None else values_named(plan.graph, names)
        return values, exposing_session(forward, list(dict.fromkeys(values)), self.providers)

    def compile(self, path: str | Path | None = None, *, batch: int | None = None) -> onnx.ModelProto:
        """The explained model as one ordinary ONNX model: the original outputs plus `relevance`.

        Its extra input `target` (int64 [batch], -1 for the top class) is optional. Written to `path` if given. The
        batch is 1 where neither it nor the model says otherwise. With several explained inputs there is one output
        `relevance/NAME` for each.

        Raises:
            OutputError: the file cannot be written.
        """
        shapes = self.shown_shapes()
        if batch is not None:
            at_least_one("batch", batch)
            shapes |= {p.name: (batch, *shapes[p.name][1:]) for p in self.ports if p.has_batch}
        with runtime.enough_memory():
            model = standalone(compile_model(self.model.proto, self.case(shapes), RULES, EXPANSIONS))
        onnx.checker.check_model(model)
        if path is not None:
            atomic_write(path, model.SerializeToString())
        return model

    # Inside

    def _classes(self, items: list[Item], size: int, wanted: Sequence[int | str]) -> list[list[Explanation]]:
        """For each input the explanations of its classes."""
        ready = self._ready(self.shapes(items[0], size))
        feeds = self.feeds(items, size)
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
        ready = self._ready(self.shapes(items[0], size), at.tensor)
        target = ready.compiled.plan.target
        shape = (
            target.shape[1:]
            if ready.compiled.plan.roles[target.name].roles[:1] == (Role.BATCH,)
            else target.shape
        )
        direction = np.tile(at.direction(shape), (size, 1)).astype(target.dtype)
        began = time.perf_counter()
        result = run_explanation(ready.session, ready.compiled, self.feeds(items, size), direction)
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
        def make() -> _Ready:
            require_channels(shapes[self.ports[0].name], self.ports[0])
            began = time.perf_counter()
            compiled = compile_model(self.model.proto, self.case(shapes, explained), RULES, EXPANSIONS)
            session = explanation_session(compiled, self.providers, self.threads)
            return _Ready(compiled, session, time.perf_counter() - began)

        return self.kept((tuple(sorted(shapes.items())), explained), make)


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
