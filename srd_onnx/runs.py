"""One or several targets on the same inputs: pass by pass, or by ratios that are computed once."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnxruntime
from onnx import ModelProto

from srd_onnx.bounded.recomputed import Recomputed
from srd_onnx.bounded.tiles import Tiled
from srd_onnx.engine.compiling import Case, Compiled, of_batch, plan_for
from srd_onnx.engine.outline import Outline
from srd_onnx.engine.plan import Plan
from srd_onnx.engine.reading import Reading, Result, is_finite, require_finite, run_reading
from srd_onnx.engine.rival import Rival, has_rival
from srd_onnx.engine.rule import RuleTable
from srd_onnx.engine.seed import TOP_CLASS, elements
from srd_onnx.errors import OptionError, SrdOnnxError
from srd_onnx.graph.expand import ExpansionTable
from srd_onnx.graph.ir import Array
from srd_onnx.ort.runtime import Tensor
from srd_onnx.sharing.ratios import LayerRatios, run_ratios
from srd_onnx.sharing.several import (
    AT_ONCE,
    SeveralSession,
    Way,
    carried,
    compile_several,
    scores_of,
    with_rivals,
)

SEVERAL = 4  # targets from which ratios are cheaper than passes


class Passing(Protocol):
    """What explains one target at a time: by SRD, or another method."""

    @property
    def outline(self) -> Outline:
        """What it does."""

    @property
    def seconds(self) -> float:
        """That it took to compile."""

    def __call__(self, feeds: Mapping[str, Array], seed: Array) -> Result:
        """Explain one batch.

        Args:
            feeds: the graph's inputs, of the compiled shapes.
            seed: targets, int64 [N], -1 for the top class; or directions [N, K], if it was compiled for these.

        Raises:
            NonFiniteError: if an activation or the relevance is not finite.
        """


@dataclass(frozen=True, eq=False)
class Single:
    """A session that explains one target by SRD.

    Attributes:
        reading: how to read what it gives.
        seconds: that it took to compile.
        compiled: makes what the session runs; asked for where a result is refused, to say why.
    """

    reading: Reading
    session: onnxruntime.InferenceSession
    seconds: float
    compiled: Callable[[], Compiled]

    @property
    def outline(self) -> Outline:
        """What it does."""
        return self.reading.outline

    def __call__(self, feeds: Mapping[str, Array], seed: Array) -> Result:
        """Explain one batch; see `Passing`."""
        result = run_reading(self.session, self.reading, feeds, seed)
        if not is_finite(result):
            compiled = self.compiled()
            require_finite(result, compiled.plan, compiled.forward, feeds, self.session.get_providers())
        return result


@dataclass(frozen=True, eq=False)
class Many:
    """Sessions that explain many targets, the seconds that they took to compile, and `Case.rival`."""

    plan: Plan
    forward: ModelProto
    sessions: SeveralSession
    seconds: float
    rival: bool = True

    @property
    def outline(self) -> Outline:
        """What they do."""
        return self.plan.outline


Ready = Passing | Many


def make_several(
    model: ModelProto,
    case: Case,
    rules: RuleTable,
    expansions: ExpansionTable,
    providers: Sequence[str],
    threads: int | None,
) -> Many:
    """Compile for many targets at once; raises as `compile_model` does."""
    began = time.perf_counter()
    forward, plan = plan_for(model, case, rules, expansions)
    wide = _wide_plan(model, case, rules, expansions) if plan.batch == 1 else None
    sessions = compile_several(plan, forward, providers, threads, free=case.free, wide=wide)
    return Many(plan, forward, sessions, time.perf_counter() - began, case.rival)


def _wide_plan(model: ModelProto, case: Case, rules: RuleTable, expansions: ExpansionTable) -> Plan | None:
    """The plan for a batch of as many inputs as the head takes targets; None where the model does not take a batch."""
    wide = of_batch(model, case, AT_ONCE)
    if wide is None:
        return None
    try:
        return plan_for(model, wide, rules, expansions)[1]
    except SrdOnnxError:
        # Something inside is made for one item. One target after the other is right for any model.
        return None


@dataclass(eq=False)
class Run:
    """Explains targets on the inputs that it was made with.

    Attributes:
        ready: what was compiled.
        feeds: the inputs.
        deployed: of a quantised model whose classes are explained, the model alone: from feeds to its output.
        facts: what is the same for all targets of an input, by its row.
    """

    ready: Ready
    feeds: Mapping[str, Array]
    deployed: Callable[[Mapping[str, Array]], Array] | None = None
    facts: dict[int, dict[str, Any]] = field(default_factory=dict)
    _began: float = field(default_factory=time.perf_counter)
    _first: Result | None = None
    _deployed: Array | None = None
    _ratios: tuple[tuple[LayerRatios, ...], dict[str, Tensor]] | None = None

    @property
    def outline(self) -> Outline:
        """What is done."""
        return self.ready.outline

    @property
    def bounded(self) -> str | None:
        """How `max_memory` was kept, in words; None where everything is held at once."""
        return self.ready.bounded if isinstance(self.ready, Recomputed | Tiled) else None

    @property
    def seconds(self) -> dict[str, float]:
        """How long compiling took, and everything since this was made."""
        return {"compile": self.ready.seconds, "run": time.perf_counter() - self._began}

    def scores(self, target: int | None) -> Array:
        """[N, K]; found by explaining `target` where that is what comes next (None for a free direction)."""
        if isinstance(self.ready, Many):
            return scores_of(self.ready.sessions, self._by_ratios(self.ready)[1])
        batch, explained = self.outline.batch, self.outline.target
        count = elements(explained, batch)
        if target is None:
            seed: Array = np.zeros((batch, count), explained.dtype)
        else:
            seed = np.full(batch, target if target < count else TOP_CLASS, np.int64)
        self._first = self.ready(self.feeds, seed)
        return self._first.scores

    def deployed_scores(self, row: int) -> Array | None:
        """What the model alone says to an input, [K']; None where that is not asked for."""
        if self._deployed is None and self.deployed is not None:
            self._deployed = self.deployed(self.feeds).reshape(self.outline.batch, -1)
        return None if self._deployed is None else self._deployed[row]

    def results(self, seeds: Sequence[Array], way: Way | None = None) -> list[Result]:
        """Explanations of T seeds, each int64 [N] targets or directions [N, K].

        With ratios they go the `way` that is given: `raised` from the input up, or from the target back.

        Raises:
            NonFiniteError: if one of them is not finite.
            OptionError: a `way` is asked for where there are no ratios.
        """
        if isinstance(self.ready, Many):
            return self._several(self.ready, seeds, way or carried)
        if way is not None:
            raise OptionError(
                "only SRD, on the whole input, has layers of sharing ratios to look into: leave out the method, "
                "or max_memory"
            )
        return [self._pass(self.ready, seed) for seed in seeds]

    def _pass(self, ready: Passing, seed: Array) -> Result:
        first = self._first
        if first is not None and first.chosen is not None and (first.chosen == seed).all():
            return first
        return ready(self.feeds, seed)

    def _several(self, ready: Many, seeds: Sequence[Array], way: Way) -> list[Result]:
        layers, found = self._by_ratios(ready)
        compared: Sequence[Rival | None] = [None] * len(seeds)
        if ready.rival and seeds[0].ndim == 1 and has_rival(ready.plan):
            several, compared = with_rivals(way, ready.sessions, layers, found, seeds)
        else:
            several = way(ready.sessions, layers, found, seeds)
        results = []
        for t in range(len(seeds)):
            relevance = {name: maps[t] for name, maps in several.relevance.items()}
            result = Result(
                relevance,
                several.totals[t],
                several.seed[t],
                several.scores,
                several.ledger[t],
                several.booked,
                rival=compared[t],
            )
            require_finite(
                result, ready.plan, ready.forward, self.feeds, ready.sessions.heads[0].session.get_providers()
            )
            results.append(result)
        return results

    def _by_ratios(self, ready: Many) -> tuple[tuple[LayerRatios, ...], dict[str, Tensor]]:
        if self._ratios is None:
            self._ratios = run_ratios(ready.sessions.ratios, self.feeds)
        return self._ratios
