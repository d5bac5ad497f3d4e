"""A method other than SRD, compiled, as `srd_onnx.runs.Run` takes it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from srd_onnx.engine.outline import Outline
from srd_onnx.engine.reading import Result
from srd_onnx.errors import NonFiniteError
from srd_onnx.graph.ir import Array
from srd_onnx.methods.method import Attribute


@dataclass(frozen=True, eq=False)
class Attributing:
    """A compiled method, and the seconds that it took to compile."""

    attribute: Attribute
    seconds: float

    @property
    def outline(self) -> Outline:
        """What it does."""
        return self.attribute.plan.outline

    def __call__(self, feeds: Mapping[str, Array], seed: Array) -> Result:
        """Explain one batch; see `srd_onnx.runs.Passing`.

        Raises:
            NonFiniteError: if a map is not finite.
        """
        found = self.attribute(feeds, seed)
        maps, batch = found.maps, len(found.scores)
        totals: Array = sum(m.reshape(batch, -1).sum(axis=1, dtype=np.float64) for m in maps.values())
        if not np.isfinite(totals).all():
            raise NonFiniteError("the map is not finite; check the preprocessing and the weights")
        columns = [np.asarray(c, np.float64) for c in found.ledger.values()]
        ledger = np.stack(columns, axis=1) if columns else np.zeros((batch, 0))
        chosen = np.where(seed < 0, found.scores.argmax(axis=1), seed) if seed.ndim == 1 else None
        return Result(maps, totals, found.seed, found.scores, ledger, tuple(found.ledger), chosen)
