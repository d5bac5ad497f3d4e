"""`Probe` over an `Explainer`: scores by the plain model, maps by its method, and the same with redrawn weights."""

from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from srd_onnx.errors import OptionError, ShapeError, UnknownTensorError
from srd_onnx.explainer import Explainer
from srd_onnx.graph.ir import Array
from srd_onnx.metrics import randomised
from srd_onnx.ort.forward import BATCH, Forward, cast_to, forward_of

_MOST, _BYTES = 8, 512 << 20  # redrawn models that are kept: so many, and so many bytes of weights


@dataclass(frozen=True, eq=False)
class ExplainerProbe:
    """A model and a method as metrics see them; see `srd_onnx.metrics.metric.Probe`.

    Attributes:
        explainer: computes the maps, one input at a time, so that none depends on what runs beside it.
        forward: computes the scores.
        batch: how many inputs `forward` runs at once.
    """

    explainer: Explainer
    forward: Forward
    batch: int
    _redrawn: OrderedDict[tuple[tuple[str, ...], int], "ExplainerProbe"] = field(default_factory=OrderedDict)

    @property
    def channel_axis(self) -> int:
        """The channel axis of one input, without the batch.

        Raises:
            OptionError: there is not exactly one.
        """
        axes = self.forward.channel_axes
        if len(axes) != 1:
            raise OptionError(
                "it changes positions with all their channels, which takes an input with one channel axis; input "
                f"'{self.forward.name}' has the layout {self.explainer.layout}"
            )
        return axes[0]

    def scores(self, inputs: Array) -> NDArray[np.float64]:
        """Logits [M, K] of inputs [M, *input], the tensor before a softmax at the model's end."""
        return self.forward(inputs)

    def probabilities(self, inputs: Array) -> NDArray[np.float64]:
        """Softmax of the logits, [M, K]."""
        return np.asarray(softmax(self.scores(inputs), axis=1), np.float64)

    def maps(self, inputs: Array, targets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Maps [M, *positions] of inputs [M, *input] for targets [M]."""
        if len(inputs) != len(targets):
            raise ShapeError(f"{len(inputs)} inputs, but {len(targets)} targets")
        rows = cast_to(inputs, self.forward.dtype)
        positions = tuple(self.forward.shape[axis] for axis in self.forward.position_axes)
        found = np.empty((len(rows), *positions), np.float64)
        for index, (row, target) in enumerate(zip(rows, targets, strict=True)):
            source = row[None] if self.explainer.ports[0].has_batch else row
            found[index] = self.explainer.explain({self.forward.name: source}, int(target))[0].relevance
        return found

    def randomised(self, layers: int | str, seed: int) -> "ExplainerProbe":
        """The same method on the model with redrawn weights; the last few are kept for the next input.

        Args:
            layers: how many layers with weights, from the output on (cascading); or one layer alone, by its name.
            seed: of the new weights.

        Raises:
            OptionError: there are not so many layers.
            UnknownTensorError: there is no such layer.
        """
        names = self.weighted_layers()
        if isinstance(layers, str) and layers not in names:
            raise UnknownTensorError(
                f"no layer with weights is called '{layers}'; there is: {', '.join(names)}"
            )
        if isinstance(layers, int) and not 0 <= layers <= len(names):
            raise OptionError(f"layers={layers}: the model has {len(names)} layers with weights")
        chosen = (layers,) if isinstance(layers, str) else tuple(names[:layers])
        if (chosen, seed) not in self._redrawn:
            proto = randomised.randomised_model(self.explainer.model.proto, chosen, seed)
            while len(self._redrawn) >= max(1, min(_MOST, _BYTES // proto.ByteSize())):
                self._redrawn.popitem(last=False)
            redrawn = probe_of(self.explainer.with_model(proto), self.forward.shape, self.batch)
            self._redrawn[chosen, seed] = redrawn
        return self._redrawn[chosen, seed]

    def weighted_layers(self) -> list[str]:
        """Original names of the layers with weights, from the output to the input."""
        return randomised.weighted_layers(self.explainer.model.proto)


def probe_of(
    explainer: Explainer,
    shape: tuple[int, ...] | None = None,
    batch: int = BATCH,
    forward: Forward | None = None,
) -> ExplainerProbe:
    """A probe of an explainer's model and method.

    Args:
        explainer: of a model with one input.
        shape: of one input, without the batch; as the model declares it if left out.
        batch: how many inputs the plain model runs at once, where it leaves that open.
        forward: the plain model of this shape, where it is compiled already.

    Raises:
        OptionError: the model has several inputs.
    """
    forward = forward or forward_of(explainer, shape, batch)
    return ExplainerProbe(explainer, forward, batch)
