"""What methods that change the input (or a layer) and look at the scores have in common."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from srd_onnx.engine.plan import Plan
from srd_onnx.graph.ir import Array, Value
from srd_onnx.methods.method import Attributed
from srd_onnx.methods.scoring import Scored, Scorer, directions


@dataclass(frozen=True, eq=False)
class Probed:
    """One item and what the model said of it and of its changed versions.

    Shapes: unchanged [1, K] and changed [M, K] of `Scored`; direction [K], what is explained; activations: of the layer
    that was changed, [C, ...], or none.
    """

    source: Value
    unchanged: Scored
    changed: Scored
    direction: Array
    activations: Array


Kept = tuple[Scored, Array | None]
Probe = Callable[[Scorer, Value, Mapping[str, Array]], Kept]
Combine = Callable[[Plan, Probed], Array]


@dataclass(eq=False)
class Perturbing:
    """An `Attribute`: `probe` scores the changed versions of one item, and `combine` makes its map of them.

    What is scored does not depend on the target, so that it is kept for the next target of the same inputs.
    """

    scorer: Scorer
    probe: Probe
    combine: Combine
    _kept: tuple[dict[str, Array], Scored, dict[tuple[str, int], Kept]] | None = field(default=None)

    @property
    def plan(self) -> Plan:
        """Inputs and target."""
        return self.scorer.plan

    def __call__(self, feeds: Mapping[str, Array], seed: Array) -> Attributed:
        """Maps of one batch, see `Attribute`."""
        plan = self.plan
        base, probed = self._scored(feeds)
        wanted = np.asarray(directions(base.scores, seed, plan.options.seed), np.float64)
        maps = {}
        for source in plan.sources:
            found = []
            for i in range(plan.batch):
                if (source.name, i) not in probed:
                    probed[source.name, i] = self.probe(self.scorer, source, self._item(feeds, i))
                changed, values = probed[source.name, i]
                unchanged = Scored(base.scores[i : i + 1], base.probabilities[i : i + 1])
                given = np.zeros(0) if values is None else values
                found.append(self.combine(plan, Probed(source, unchanged, changed, wanted[i], given)))
            maps[source.name] = np.stack(found).astype(np.float32)
        return Attributed(maps, (wanted * base.scores).sum(axis=1), base.scores)

    def _scored(self, feeds: Mapping[str, Array]) -> tuple[Scored, dict[tuple[str, int], Kept]]:
        """The scores of these inputs, and what is known of their changed versions."""
        if self._kept is None or any((array != self._kept[0][name]).any() for name, array in feeds.items()):
            kept = {name: array.copy() for name, array in feeds.items()}
            self._kept = kept, self.scorer(feeds), {}
        return self._kept[1], self._kept[2]

    def _item(self, feeds: Mapping[str, Array], index: int) -> dict[str, Array]:
        batched = self.scorer.batched
        return {name: a[index : index + 1] if name in batched else a for name, a in feeds.items()}
