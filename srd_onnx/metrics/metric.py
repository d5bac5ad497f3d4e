"""What a metric is: a number for one map of one input, what it means, and which way is better."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from srd_onnx.graph.ir import Array

Family = Literal["localisation", "complexity", "faithfulness", "robustness", "randomisation", "axiomatic"]
Need = Literal["mask", "grid"]


class Probe(Protocol):
    """A model and a method, as metrics see them: one ONNX Runtime session, run in batches."""

    @property
    def channel_axis(self) -> int:
        """The channel axis of one input (without the batch); its other axes are the positions of a map, in order.

        Raises:
            OptionError: there is not exactly one.
        """

    def scores(self, inputs: Array) -> NDArray[np.float64]:
        """Logits [M, K] of inputs [M, *input]."""

    def probabilities(self, inputs: Array) -> NDArray[np.float64]:
        """Softmax of the logits, [M, K]."""

    def maps(self, inputs: Array, targets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Maps [M, *positions] of inputs [M, *input] for targets [M], by the method."""

    def randomised(self, layers: int | str, seed: int) -> "Probe":
        """The same method on the model with redrawn weights.

        Args:
            layers: how many layers with weights, from the output on (cascading); or one layer alone, by its name.
            seed: of the new weights.
        """

    def weighted_layers(self) -> list[str]:
        """Original names of the layers with weights, from the output to the input."""


@dataclass(frozen=True, eq=False)
class Explained:
    """One input, explained: what a metric is given.

    Attributes:
        probe: model and method.
        input: what the model takes, without the batch, float32.
        target: the explained class.
        map: relevance [*positions], float64, signed as the method defines it.
        seed: of everything random.
        seed_value: the explained number; the ledger's and the map's sum is to be this, of a complete method.
        booked: the sum of the ledger.
        mask: bool [*positions], where the object is; of a grid of inputs, the cell of the explained one; None if that
            is not known.
        shared: what metrics have computed of this input and model whatever the method, by everything that decides it: a
            few hundred numbers. A runner may hand the same dictionary to all methods on one input.
        own: likewise, but of this method: maps of other inputs, curves; so that no other metric need compute them.
    """

    probe: Probe
    input: Array
    target: int
    map: NDArray[np.float64]
    seed: int
    seed_value: float
    booked: float = 0.0
    mask: NDArray[np.bool_] | None = None
    shared: dict[Hashable, Any] = field(default_factory=dict, repr=False)
    own: dict[Hashable, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, eq=False)
class Metric:
    """A metric with its parameters.

    Attributes:
        name: as the user writes it, e.g. "pixel-flipping".
        title: as Quantus or its authors call it, e.g. "PixelFlipping".
        family: what it asks.
        meaning: in one line, for one who reads the table.
        bounds: least and greatest value that there is.
        better: which way.
        source: the paper.
        score: computes it; NaN where it is not defined for this input (a flat map), never a guess.
        parameters: everything that decides the number, seeds aside.
        needs: what it cannot do without.
    """

    name: str
    title: str
    family: Family
    meaning: str
    bounds: tuple[float, float]
    better: Literal["higher", "lower"]
    source: str
    score: Callable[[Explained], float] = field(repr=False)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    needs: frozenset[Need] = frozenset()
