"""`Explaining`: from items of one shape and targets to explanations; what lies behind the front door."""

import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self, Unpack

import numpy as np
import onnx

from graph_rules import EXPANSIONS, RULES
from srd_onnx.bounded.choosing import make_bounded
from srd_onnx.cache.keys import all_ours, key_of
from srd_onnx.cache.sessions import kept_single
from srd_onnx.describe import describe
from srd_onnx.engine.compiling import compile_model
from srd_onnx.engine.options import DEFAULT_PRESET
from srd_onnx.engine.reading import Result
from srd_onnx.engine.seed import TOP_CLASS
from srd_onnx.explanation import Explanation
from srd_onnx.graph.roles import Role
from srd_onnx.inputs.sources import Item, require_channels
from srd_onnx.methods import SRD, Method, method_named, peer_settings, require_its_own
from srd_onnx.methods.run import Attributing
from srd_onnx.ort.deployed import as_deployed, tops_of
from srd_onnx.runs import SEVERAL, Ready, Run, make_several
from srd_onnx.sanity import warnings_of
from srd_onnx.sharing.several import Way
from srd_onnx.subject import Settings, Subject
from srd_onnx.targets import At, Contrast, Wanted, resolve_classes, resolve_contrast


class Explaining(Subject):
    """A model and the method that explains it; see `srd_onnx.explainer.Explainer`."""

    def __init__(
        self,
        model: str | Path | bytes | onnx.ModelProto,
        *,
        method: str | Method = SRD,
        **settings: Unpack[Settings],
    ) -> None:
        self.method = method_named(method) if isinstance(method, str) else method
        if self.method is not None:
            settings = peer_settings(self.method, settings)
        super().__init__(model, **settings)

    def with_method(self, method: Method | None, preset: str = DEFAULT_PRESET, **changes: Any) -> Self:
        """The same model, explained by another method; by SRD (None) with these options.

        Raises:
            OptionError: an option means nothing, or nothing to this method.
        """
        if method is not None:
            require_its_own(method, changes)
        other = self.with_options("paper" if method else preset, **changes)
        other.method = method
        return other

    def explained(
        self, items: list[Item], size: int, wanted: Wanted, way: Way | None = None
    ) -> Iterator[list[list[Explanation]]]:
        """For each kind of target the explanations of each input.

        Args:
            items: of the same shapes.
            size: how many the model takes at once.
            wanted: the targets.
            way: how many targets at once are carried, where that is not by passes.
        """
        if wanted.classes:
            yield self._classes(items, size, wanted, way)
        if wanted.contrasts:
            yield self._contrasts(items, size, wanted.contrasts, way)
        for tensor in dict.fromkeys(at.tensor for at in wanted.selections):
            alike = [at for at in wanted.selections if at.tensor == tensor]
            yield self._selections(items, size, alike, way)

    def _classes(
        self, items: list[Item], size: int, wanted: Wanted, way: Way | None
    ) -> list[list[Explanation]]:
        run = self._run(
            items, size, None, free=False, several=way is not None or wanted.class_count >= SEVERAL
        )
        first = wanted.classes[0]
        # An index needs no prediction first.
        scores = run.scores(first if isinstance(first, int) and first >= 0 else TOP_CLASS)
        rows = [resolve_classes(wanted.classes, scores[i], self.labels) for i in range(len(items))]
        columns = [[row[min(c, len(row) - 1)] for row in rows] for c in range(max(map(len, rows)))]
        seeds = [np.array(c + [c[-1]] * (size - len(items)), np.int64) for c in columns]
        results = run.results(seeds, way)
        return [
            [self._explanation(run, results[c], i, item, t, self.label(t)) for c, t in enumerate(rows[i])]
            for i, item in enumerate(items)
        ]

    def _contrasts(
        self, items: list[Item], size: int, wanted: Sequence[Contrast], way: Way | None
    ) -> list[list[Explanation]]:
        run = self._run(items, size, None, free=True, several=way is not None or len(wanted) >= SEVERAL)
        scores = run.scores(None)
        rows = [[resolve_contrast(one, scores[i], self.labels) for one in wanted] for i in range(len(items))]
        seeds = [np.zeros((size, scores.shape[1]), scores.dtype) for _ in wanted]
        for i, row in enumerate(rows):
            for seed, (of, over) in zip(seeds, row, strict=True):
                seed[i, of], seed[i, over] = 1, -1
        results = run.results(seeds, way)
        return [
            [
                self._explanation(run, result, i, item, f"{of}-over-{over}", self._rather(of, over))
                for result, (of, over) in zip(results, rows[i], strict=True)
            ]
            for i, item in enumerate(items)
        ]

    def _rather(self, of: int, over: int) -> str:
        names = (f"class {c}" if self.label(c) is None else f"{self.label(c)} ({c})" for c in (of, over))
        return " rather than ".join(names)

    def _selections(
        self, items: list[Item], size: int, wanted: Sequence[At], way: Way | None
    ) -> list[list[Explanation]]:
        """Explanations of some elements of one tensor."""
        run = self._run(
            items, size, wanted[0].tensor, free=True, several=way is not None or len(wanted) >= SEVERAL
        )
        target = run.outline.target
        has_batch = run.outline.roles[target.name].roles[:1] == (Role.BATCH,)
        shape = target.shape[1:] if has_batch else target.shape
        seeds = [np.tile(at.direction(shape), (size, 1)).astype(target.dtype) for at in wanted]
        results = run.results(seeds, way)
        return [
            [
                self._explanation(run, result, i, item, str(at), None)
                for result, at in zip(results, wanted, strict=True)
            ]
            for i, item in enumerate(items)
        ]

    def _run(self, items: list[Item], size: int, explained: str | None, *, free: bool, several: bool) -> Run:
        """What explains these items: pass by pass, or several targets by their ratios."""
        shapes = self.shapes(items[0], size)
        several = several and self.method is None
        make = functools.partial(self._compiled, shapes, explained, free=free, several=several)
        key = (tuple(sorted(shapes.items())), explained, free, several)
        return Run(self.kept(key, make), self.feeds(items, size), None if explained else as_deployed(self))

    def _compiled(
        self, shapes: dict[str, tuple[int, ...]], explained: str | None, *, free: bool, several: bool
    ) -> Ready:
        require_channels(shapes[self.ports[0].name], self.ports[0])
        case = self.case(shapes, explained, free=free)
        if self.method is not None:
            began = time.perf_counter()
            return Attributing(self.method.make(self, case), time.perf_counter() - began)
        given = self.model.proto, case, RULES, EXPANSIONS
        if self.max_memory is not None:
            bounded = make_bounded(*given, self.providers, self.threads, self.max_memory)
            if bounded is not None:
                return bounded
        if several:
            return make_several(*given, self.providers, self.threads)
        key = functools.partial(key_of, self.model, self.fixed, case, self.providers)
        sizes = {name: list(shape) for name, shape in shapes.items()}
        about = {"model": str(self.model.path or ""), "preset": self.preset, "shapes": sizes}
        make = functools.partial(compile_model, *given)
        store = self.store if all_ours(RULES, EXPANSIONS) else None
        return kept_single(store, key, about, make, self.providers, self.threads)

    def _explanation(
        self, run: Run, result: Result, row: int, item: Item, target: int | str, label: str | None
    ) -> Explanation:
        ledger: dict[str, float] = {}
        for name, amount in zip(result.booked, result.ledger[row], strict=True):
            ledger[name] = ledger.get(name, 0.0) + float(amount)
        maps = {name: np.asarray(array[row], np.float32) for name, array in result.relevance.items()}
        seed, total = float(result.seed[row]), float(result.totals[row])
        scores = np.asarray(result.scores[row], np.float32)
        is_class = isinstance(target, int)
        if row not in run.facts:
            tops = (
                tops_of(scores, run.deployed_scores(row), self.label) if is_class or label else {"top5": []}
            )
            run.facts[row] = describe(self, run.outline, item, self.method) | tops
        sums = {"seed_value": seed, "sum_relevance": total, "sum_ledger": sum(ledger.values())}
        rival = result.rival.of(row, self.label) if result.rival else None
        complete, deployed = not self.method or self.method.complete, run.facts[row].get("deployed")
        finite = result.scores[row][np.isfinite(result.scores[row])]
        rounding = float(np.finfo(run.outline.target.dtype).eps) * float(np.abs(finite).max(initial=0))
        warned = warnings_of(
            *sums.values(), complete=complete, rounding=rounding, rival=rival, deployed=deployed
        )
        how = {"rival": rival, "warnings": list(warned), "bounded": run.bounded, "seconds": run.seconds}
        meta = run.facts[row] | sums | how
        return Explanation(
            relevance=next(iter(maps.values())),
            relevances=maps,
            target=target,
            logits=scores if is_class else np.array([seed], np.float32),
            ledger=ledger,
            residual=seed - total - sum(ledger.values()),
            meta=meta,
            image=item.image,
            label=label,
            name=item.name,
        )
