"""Models with redrawn weights (Adebayo et al. 2018, "Sanity checks for saliency maps", arXiv 1810.03292).

New weights are the old ones in random order: a permutation keeps the layer's own distribution exactly, needs no
guess at how it was initialised, leaves variances positive, and works for quantised and packed weights as it does
for floats.
"""

import difflib
import zlib
from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from srd_onnx.engine.assemble import pruned
from srd_onnx.errors import UnknownTensorError
from srd_onnx.metrics.weights import Constants, Operand, array_of, constants_of, layers_of


def weighted_layers(proto: ModelProto) -> list[str]:
    """Original names of the layers with weights, from the output to the input; see `layers_of`.

    Args:
        proto: as `load_model` gives it.

    Raises:
        ExternalDataError: weights lie outside the model.
    """
    return [layer.name for layer in layers_of(proto)]


def randomised_model(proto: ModelProto, names: Sequence[str], seed: int) -> ModelProto:
    """A copy in which the weights of these layers, and what goes with them, are in random order.

    A layer gets the same new weights whatever other layers are redrawn with it, so that stages of a cascade build
    on each other. A tensor that two layers read is redrawn for the named one alone: nothing else changes.

    Args:
        proto: as `load_model` gives it.
        names: of `weighted_layers`.
        seed: of the orders.

    Raises:
        UnknownTensorError: naming what is no layer with weights.
        ExternalDataError: weights lie outside the model.
    """
    layers = {layer.name: layer for layer in layers_of(proto)}
    if missing := [name for name in names if name not in layers]:
        close = difflib.get_close_matches(missing[0], list(layers), n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise UnknownTensorError(
            f"no layer with weights is called {', '.join(map(repr, missing))}{hint}"
            f" There is: {', '.join(layers) or 'none'}"
        )
    model = ModelProto()
    model.CopyFrom(proto)
    rewiring = _Rewiring(model)
    for name in dict.fromkeys(names):
        for position, operand in enumerate(layers[name].operands):
            rewiring.redraw(operand, np.random.default_rng([seed, zlib.crc32(name.encode()), position]))
    rewiring.finish()
    return pruned(model)


class _Rewiring:
    """Gives nodes constants of their own; what others read stays as it is."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.constants: Constants = constants_of(model)
        self.before: dict[int, list[NodeProto]] = {}
        self.taken = {*self.constants.stored, *(n for node in self.graph.node for n in node.output)}
        self.taken |= {node.name for node in self.graph.node} | {i.name for i in self.graph.input}

    def redraw(self, operand: Operand, rng: np.random.Generator) -> None:
        node = self.graph.node[operand.node]
        array = array_of(self.constants.stored[operand.stored])
        mixed = rng.permutation(array.reshape(-1)).reshape(array.shape)
        fresh = self._fresh(f"{operand.stored}/redrawn")
        self.graph.initializer.append(numpy_helper.from_array(mixed, fresh))
        node.input[operand.input] = self._rebuilt(
            node.input[operand.input], operand.stored, fresh, operand.node
        )

    def _rebuilt(self, name: str, stored: str, fresh: str, index: int) -> str:
        """The constant `name` computed with `fresh` in place of `stored`."""
        if name == stored:
            return fresh
        if name not in self.constants.makers:
            return name
        copy = NodeProto()
        copy.CopyFrom(self.graph.node[self.constants.makers[name]])
        inputs = [self._rebuilt(one, stored, fresh, index) for one in copy.input]
        if inputs == list(copy.input):
            return name
        new = {one: self._fresh(f"{one}/redrawn") for one in copy.output if one}
        copy.name = self._fresh(f"{copy.name}/redrawn")
        del copy.input[:], copy.output[:]
        copy.input.extend(inputs)
        copy.output.extend(new.get(one, "") for one in self.graph.node[self.constants.makers[name]].output)
        self.before.setdefault(index, []).append(copy)
        return new[name]

    def finish(self) -> None:
        """Put the copies before the nodes that read them."""
        for index in sorted(self.before, reverse=True):
            for offset, node in enumerate(self.before[index]):
                self.graph.node.insert(index + offset, node)

    def _fresh(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name
