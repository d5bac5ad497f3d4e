"""`MethodRun`: explains targets by a method other than SRD, as `srd_onnx.runs.Run` does by SRD."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from srd_onnx.engine import Result
from srd_onnx.errors import NonFiniteError, OptionError
from srd_onnx.ir import Array
from srd_onnx.methods.method import Attribute
from srd_onnx.plan import Plan
from srd_onnx.seed import TOP_CLASS


@dataclass(frozen=True, eq=False)
class Attributing:
    """A compiled method, and the seconds that it took to compile."""

    attribute: Attribute
    seconds: float


@dataclass(eq=False)
class MethodRun:
    """Explains targets on the inputs that it was made with; see `srd_onnx.runs.Run` for its attributes."""

    ready: Attributing
    feeds: Mapping[str, Array]
    batch: int
    facts: dict[int, dict[str, Any]] = field(default_factory=dict)
    _began: float = field(default_factory=time.perf_counter)
    _first: tuple[Array, Result] | None = None

    @property
    def plan(self) -> Plan:
        """What is done."""
        return self.ready.attribute.plan

    @property
    def seconds(self) -> dict[str, float]:
        """How long compiling took, and everything since this was made."""
        return {"compile": self.ready.seconds, "run": time.perf_counter() - self._began}

    def scores(self, target: int | None) -> Array:
        """[N, K]; found by explaining `target` where that is what comes next (None for a free direction)."""
        count = int(np.prod(self.plan.target.shape)) // self.batch
        if target is None:
            seed: Array = np.zeros((self.batch, count), self.plan.target.dtype)
        else:
            seed = np.full(self.batch, target if target < count else TOP_CLASS, np.int64)
        result = self._pass(seed)
        if seed.ndim == 1:
            chosen = np.where(seed < 0, result.scores.argmax(axis=1), seed)
            self._first = chosen, result
        return result.scores

    def results(self, seeds: Sequence[Array], way: object = None) -> list[Result]:
        """Explanations of T seeds, each int64 [N] targets or directions [N, K].

        Raises:
            NonFiniteError: if one of them is not finite.
            OptionError: a `way` through sharing ratios was asked for.
        """
        if way is not None:
            raise OptionError("only SRD has layers of sharing ratios to look into: leave out the method")
        return [self._pass(seed) for seed in seeds]

    def _pass(self, seed: Array) -> Result:
        if self._first is not None and seed.ndim == 1 and (self._first[0] == seed).all():
            return self._first[1]
        found = self.ready.attribute(self.feeds, seed)
        totals: Array = sum(
            m.reshape(self.batch, -1).sum(axis=1, dtype=np.float64) for m in found.maps.values()
        )
        if not np.isfinite(totals).all():
            raise NonFiniteError("the map is not finite; check the preprocessing and the weights")
        columns = [np.asarray(c, np.float64) for c in found.ledger.values()]
        ledger = np.stack(columns, axis=1) if columns else np.zeros((self.batch, 0))
        return Result(found.maps, totals, found.seed, found.scores, ledger, tuple(found.ledger))
