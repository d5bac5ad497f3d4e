"""`Explainer`: the library's front door. It joins the engine to the rules, the zoo and the photos."""

import functools
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self, Unpack

import numpy as np
import onnx
from numpy.typing import NDArray

from graph_rules import EXPANSIONS, RULES
from srd_onnx.apop.pattern_run import Kind, Pattern
from srd_onnx.apop.results import ApopResult, pattern_results
from srd_onnx.cache.keys import all_ours, key_of
from srd_onnx.cache.sessions import kept_single
from srd_onnx.describe import describe
from srd_onnx.engine.compiling import (
    Result,
    compile_model,
    standalone,
)
from srd_onnx.engine.options import DEFAULT_PRESET, NO_FOCUS
from srd_onnx.engine.seed import TOP_CLASS
from srd_onnx.explanation import Explanation
from srd_onnx.files import atomic_write
from srd_onnx.graph.roles import Role
from srd_onnx.inputs.sources import (
    Item,
    Sources,
    require_channels,
)
from srd_onnx.inside.decision import Decision, decisions
from srd_onnx.inside.erf import Erf, Positions, whole
from srd_onnx.inside.layers import Layer
from srd_onnx.inside.looking import each_erf, each_preactivations, each_ratios, listed
from srd_onnx.methods import SRD, Method, method_named, peer_settings, require_its_own
from srd_onnx.methods.run import Attributing
from srd_onnx.ort import runtime
from srd_onnx.ort.deployed import as_deployed, tops_of, with_weights_of
from srd_onnx.runs import SEVERAL, Ready, Run, Way, make_several
from srd_onnx.sanity import warnings_of
from srd_onnx.sharing.ratios import LayerRatios
from srd_onnx.sharing.several import Passed, carried, raised
from srd_onnx.subject import Settings, Subject, at_least_one
from srd_onnx.targets import (
    At,
    Contrast,
    Target,
    Wanted,
    resolve_classes,
    resolve_contrast,
    split_targets,
)

Array = NDArray[Any]


class Explainer(Subject):
    """Explains one ONNX model by sharing ratio decomposition.

    Made with what `Subject` takes:

    `Explainer(model, *, preprocess, layout, preset, boundary, seed, sign, bias, labels, providers, threads, fixed,
    compare)`

    and with `method`: "srd", or another one by its name or as a `Method` (`srd_onnx.methods`), to compare with.
    """

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
            targets: a class by index, label or "top3"; what speaks for one class rather than another as
                `Contrast(285, 282)`; any elements as `At("output", index)` or "output[3, 4:]"; or several, in that
                order; the prediction if left out.
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
        wanted = split_targets(targets)
        for chunk, size in self.chunks(inputs, at_least_one("batch_size", batch_size)):
            with runtime.enough_memory():
                explained = list(self._explained(chunk, size, wanted))
            for row in range(len(chunk)):
                for by_row in explained:
                    yield from by_row[row]

    def explain_forward(
        self, inputs: Sources, targets: Target | Sequence[Target] | None = None
    ) -> list[Explanation]:
        """As `explain`, by the forward pass of the paper: the sum over the PFVs of the boundary of R · ERF.

        The fields are built from the input upward, layer by layer. The maps are those of `explain` but for rounding;
        the ledger books in one what no field holds.
        """
        wanted = split_targets(targets)
        found = []
        for chunk, size in self.chunks(inputs, 1):
            with runtime.enough_memory():
                explained = list(self._explained(chunk, size, wanted, raised))
            found += [one for row in range(len(chunk)) for by_row in explained for one in by_row[row]]
        return found

    # Inside a decision

    def inside(self, inputs: Sources, targets: Target | Sequence[Target] | None = None) -> list[Decision]:
        """As `explain`, with the relevance of every layer from the input to the boundary, and what neurons carry.

        Of a single pass, without focus and smoothing.
        """
        wanted, single = split_targets(targets), self.with_changed(focus=NO_FOCUS, smooth=0.0)
        found = []
        for chunk, size in self.chunks(inputs, 1):
            passes: list[Passed] = []
            with runtime.enough_memory():
                way = functools.partial(carried, watch=passes.append)
                explained = list(single._explained(chunk, size, wanted, way))
                found += list(decisions(single, chunk, self.feeds(chunk, size), explained, passes))
        return found

    def ratios(self, inputs: Sources) -> list[dict[str, LayerRatios]]:
        """The sharing ratios of every layer below the boundary that mixes positions, by its original name.

        They depend on the input alone, not on a target. One dictionary for each run, from the input to the boundary.
        """
        return list(each_ratios(self, inputs))

    def erf(self, inputs: Sources, layer: str = "encoder", positions: Positions = "all") -> list[Erf]:
        """The effective receptive fields of PFVs of a layer, for each input and each layer that the name means.

        Args:
            inputs: as for `explain`.
            layer: a tensor, an original node, a wildcard over these, or "encoder" (the boundary).
            positions: "all", or coordinates along the position axes of the layer, such as [(3, 4), (7, 7)].

        Raises:
            UnknownTensorError: there is no such layer.
            OptionError: a position lies outside.
        """
        with runtime.enough_memory():
            return [whole(parts) for parts in each_erf(self, inputs, layer, positions)]

    def erf_each(
        self, inputs: Sources, layer: str = "encoder", positions: Positions = "all"
    ) -> Iterator[Erf]:
        """As `erf`, a few hundred positions at a time, so that the largest layer needs little memory."""
        yield from itertools.chain.from_iterable(each_erf(self, inputs, layer, positions))

    def layers(self) -> list[Layer]:
        """The layers that relevance crosses, from the input to the target, for `input_shape`."""
        return listed(self)

    def apop(
        self,
        pattern_from: Sources,
        run_on: Sources,
        *,
        pattern: Kind = "exact",
        layers: int | float | None = None,
    ) -> list[ApopResult]:
        """Activation-pattern-only prediction: `run_on` under the activation pattern of `pattern_from`.

        Args:
            pattern_from: inputs, as for `explain`, of which the patterns are.
            run_on: one input for each of them, or one for all.
            pattern: what of it is held fixed, "exact" or "active", see `Pattern`.
            layers: the first so many nonlinear layers alone (a float: this part of them).

        Raises:
            InputError: the data does not fit the model, or the two do not fit each other.
            OptionError: there is no such pattern.
            UnsupportedOpError, UnsupportedCaseError: what lies between input and scores has no rule.
        """
        return list(pattern_results(self, pattern_from, run_on, Pattern(pattern, layers)))

    def preactivations(self, inputs: Sources, names: str | Sequence[str] | None = None) -> dict[str, Array]:
        """Inner tensors of the graph, by name: the augmented outputs.

        Args:
            inputs: as for `explain`.
            names: tensors, original names of nodes, or wildcards over both; the preactivations that relevance crosses
                (the inputs of its nonlinearities) if left out.

        Returns:
            arrays N×..., keyed by the names given; what no name was given for by the tensors' names.

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
        yield from each_preactivations(self, inputs, [names] if isinstance(names, str) else names)

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
            compiled = compile_model(self.model.proto, self.case(shapes), RULES, EXPANSIONS)
            model = with_weights_of(self.model.proto, standalone(compiled))
        onnx.checker.check_model(model)
        if path is not None:
            atomic_write(path, model.SerializeToString())
        return model

    # Inside

    def _explained(
        self, items: list[Item], size: int, wanted: Wanted, way: Way | None = None
    ) -> Iterator[list[list[Explanation]]]:
        """For each kind of target the explanations of each input."""
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
        warned = warnings_of(*sums.values(), complete=complete, rival=rival, deployed=deployed)
        meta = run.facts[row] | sums | {"rival": rival, "warnings": list(warned), "seconds": run.seconds}
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
