"""From where derivatives end to the inputs: elsewhere only for inputs of integers (pictures of bytes, token ids)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from srd_onnx.engine.backward import relevance_shape
from srd_onnx.engine.plan import Plan
from srd_onnx.graph.ir import Array
from srd_onnx.sharing.carrying import backward
from srd_onnx.sharing.ratios import LayerRatios, structure_of


@dataclass(frozen=True, eq=False)
class Entrance:
    """Carries maps of the boundary of a plan to its inputs.

    Integers have no derivative. It ends where they become real numbers, behind a cast or an embedding, and from there
    what a position has goes where the nodes between move the position.

    Attributes:
        plan: its boundary is where derivatives end.
        layers: what moves positions between the inputs and the boundary; nothing where inputs are real numbers.
    """

    plan: Plan
    layers: Sequence[LayerRatios]

    def __call__(self, maps: Mapping[str, Array]) -> dict[str, Array]:
        """Maps of the tensors of the boundary as maps of the inputs, float32 [N, *positions]; uses of one add up."""
        start = {name: one.reshape(-1, 1) for name, one in maps.items()}
        names = [source.name for source in self.plan.sources]
        found = backward(self.layers, start, "distribute", keep=names).shares
        return {
            source.name: np.asarray(
                found[source.name].reshape(relevance_shape(self.plan, source)), np.float32
            )
            for source in self.plan.sources
        }


def entrance_of(plan: Plan) -> Entrance:
    """How maps of the boundary come to the inputs.

    Raises:
        UnsupportedCaseError: naming a node on the way that does more than to move positions, or moves them as the data
            says.
    """
    moves = structure_of(plan)
    for step, layer in moves:
        step.node.require(
            step.routes and bool(layer.incoming),  # nothing comes in where data decides that
            "what it does with integers, which have no derivative, is not known before the model runs: use SRD, an "
            "activation map or a black box",
        )
    return Entrance(plan, [layer for _, layer in moves])
