"""The layers of a decision that a report lets its reader look into."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from srd_onnx.inputs.sources import Source
from srd_onnx.inside.contact import Choice
from srd_onnx.inside.decision import INPUT, Decision
from srd_onnx.inside.erf import Erf
from srd_onnx.report.content import Layer

if TYPE_CHECKING:
    from srd_onnx.explainer import Explainer

MOST_LAYERS, GRID = 6, 8


@dataclass
class LookInside:
    """Finds the layers of decisions about one input; fields, which do not depend on the target, are computed once.

    Attributes:
        most: so many layers at most, evenly from the input to the boundary.
        grid: so many PFVs along each axis of a layer.
    """

    explainer: "Explainer"
    source: Source
    most: int = MOST_LAYERS
    grid: int = GRID
    _fields: dict[str, Erf] = field(default_factory=dict)

    def layers(self, decision: Decision) -> tuple[Layer, ...]:
        """The relevance of some layers, and the fields of a grid of their PFVs.

        Args:
            decision: of this input, from `Explainer.inside`.
        """
        shares = [one for one in decision.shown if one.op != INPUT]
        chosen = np.unique(np.linspace(0, len(shares) - 1, min(self.most, len(shares))).round().astype(int))
        return tuple(self._layer(decision, shares[i].name, shares[i].tensor) for i in chosen if shares)

    def _layer(self, decision: Decision, name: str, tensor: str) -> Layer:
        relevance = decision.relevance[name]
        if tensor not in self._fields:
            positions = Choice(grid=self.grid).of(relevance)
            (self._fields[tensor],) = self.explainer.erf(self.source, tensor, positions)
        erf = self._fields[tensor]
        return Layer(name, relevance, erf.positions, erf.maps)
