"""A probe made of plain functions, so that metrics have known answers."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srd_onnx.metrics.metric import Explained

Array = NDArray[Any]
Real = NDArray[np.float64]
NAN = float("nan")


def still(x: Array) -> Real:
    return np.array([2.0, 1.0, 0.0])


@dataclass(frozen=True, eq=False)
class FakeProbe:
    """`method(x, target, redrawn)`; `redrawn` is (layers, seed), or None for the model as it is."""

    method: Callable[[Array, int, Any], Real]
    logits: Callable[[Array], Real] = still
    names: tuple[str, ...] = ("last", "middle", "first")
    channel_axis: int = 0
    redrawn: Any = None
    seen: list[Array] = field(default_factory=list)

    def scores(self, inputs: Array) -> Real:
        return np.stack([self.logits(x.astype(np.float64)) for x in inputs])

    def probabilities(self, inputs: Array) -> Real:
        powers = np.exp(self.scores(inputs))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)

    def maps(self, inputs: Array, targets: NDArray[np.int64]) -> Real:
        self.seen.extend(inputs)
        pairs = zip(inputs, targets, strict=True)
        return np.stack([self.method(x.astype(np.float64), int(t), self.redrawn) for x, t in pairs])

    def randomised(self, layers: int | str, seed: int) -> "FakeProbe":
        return replace(self, redrawn=(layers, seed))

    def weighted_layers(self) -> list[str]:
        return list(self.names)


def explained(
    method: Callable[[Array, int, Any], Real], x: Array, *, target: int = 0, seed: int = 0, **probe: Any
) -> Explained:
    made = FakeProbe(method, **probe)
    relevance = method(x.astype(np.float64), target, None)
    return Explained(made, x, target, relevance, seed, float(relevance.sum()))
