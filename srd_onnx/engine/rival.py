"""How far what enters at the boundary for a target is what enters for its rival, the class that scores best beside it.

Below the boundary the ratios are the same for every class. So what enters there is all that tells the map of one class
from that of another; comparing it costs one more pass over the head, and no second explanation.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srd_onnx.correlation import pearson_rows
from srd_onnx.engine.half import account_type
from srd_onnx.engine.outline import Outline
from srd_onnx.engine.plan import Plan
from srd_onnx.engine.seed import elements
from srd_onnx.graph.ir import Array, Value
from srd_onnx.graph.roles import Axes, Role

FEWEST = 8  # positions of the boundary: of fewer a correlation is high by chance too often


@dataclass(frozen=True, eq=False)
class Rival:
    """The strongest other class of N inputs, int64 [N], and the likeness [N]: Pearson's correlation, or NaN."""

    index: NDArray[np.int64]
    likeness: NDArray[np.float64]

    def of(self, row: int, label: Callable[[int], str | None]) -> dict[str, Any]:
        """Of one input, as plain data; the likeness is None where it is NaN."""
        index, found = int(self.index[row]), float(self.likeness[row])
        return {"index": index, "label": label(index), "likeness": None if math.isnan(found) else found}


def has_rival(plan: Plan) -> bool:
    """Whether there are another class and enough positions to compare."""
    positions = sum(int(np.prod(entered_value(plan, name).shape)) for name in plan.boundary) // plan.batch
    return elements(plan.target, plan.batch) >= 2 and positions >= FEWEST


def entered_value(plan: Plan, name: str) -> Value:
    """Shape and type of what enters at a tensor of the boundary."""
    value = plan.graph.values[name]
    return Value("", plan.roles[name].position_shape(value), account_type(value))


def by_item(axes: Axes, value: Value, batch: int, amount: Array) -> Array:
    """[J, T] over the positions of a tensor as [N, positions of an item, T]; the batch may be any of its axes."""
    grid = amount.reshape(*axes.position_shape(value), amount.shape[1])
    if Role.BATCH in axes.roles:
        grid = np.moveaxis(grid, axes.roles.index(Role.BATCH), 0)
    return grid.reshape(batch, -1, amount.shape[1])


def likeness(outline: Outline, own: Mapping[str, Array], other: Mapping[str, Array]) -> NDArray[np.float64]:
    """Pearson's correlation [N] over all positions of the boundary; NaN where one side is flat or not finite."""

    def joined(side: Mapping[str, Array]) -> NDArray[np.float64]:
        found = [
            by_item(outline.roles[v.name], v, outline.batch, side[v.name].reshape(-1, 1))
            for v in outline.boundary
        ]
        return np.concatenate(found, axis=1, dtype=np.float64)[..., 0]

    return pearson_rows(joined(own), joined(other))


def strongest_other(scores: Array, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """The class [N] that scores best in [N, K] beside the chosen one [N]."""
    others = np.array(scores, np.float64)
    others[np.arange(len(others)), chosen] = -np.inf
    return np.asarray(others.argmax(axis=1), np.int64)
