"""Probes in plain numpy, so that what a metric must give is known in closed form."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srd_onnx.metrics import Explained

Array = NDArray[Any]


@dataclass(eq=False)
class NumpyProbe:
    """Any function from inputs [M, *input] to scores [M, K]; its map of class t is ``function.map(x, t)``."""

    function: Callable[[Array], Array]
    channel_axis: int = 0
    attribute: Callable[[Array, int], Array] | None = None
    asked: list[Array] = field(default_factory=list)

    def scores(self, inputs: Array) -> NDArray[np.float64]:
        self.asked.append(np.array(inputs))
        return np.asarray(self.function(inputs.astype(np.float64)), np.float64)

    def probabilities(self, inputs: Array) -> NDArray[np.float64]:
        scores = self.scores(inputs)
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)

    def maps(self, inputs: Array, targets: NDArray[np.int64]) -> NDArray[np.float64]:
        assert self.attribute is not None
        return np.stack([self.attribute(x, int(t)) for x, t in zip(inputs, targets, strict=True)])

    def randomised(self, layers: int | str, seed: int) -> "NumpyProbe":
        raise NotImplementedError

    def weighted_layers(self) -> list[str]:
        return []

    @property
    def count(self) -> int:
        """How many inputs it has been asked for."""
        return sum(map(len, self.asked))


def linear(weights: Array, channel_axis: int = 0) -> NumpyProbe:
    """``scores = Σ weights[k] x``; the map is gradient × input, which says exactly what each position gives."""

    def attribute(x: Array, target: int) -> Array:
        return np.asarray((weights[target] * x).sum(axis=channel_axis), np.float64)

    return NumpyProbe(lambda x: np.einsum("mchw,kchw->mk", x, weights), channel_axis, attribute)


def explained(probe: NumpyProbe, x: Array, relevance: Array, target: int = 0, seed: int = 0) -> Explained:
    score = float(probe.function(x[None].astype(np.float64))[0, target])
    return Explained(probe, x, target, np.asarray(relevance, np.float64), seed, score)
