"""Relevance and effective receptive fields carried by sharing ratios: sparse matrices of scalars, no network any more.

    backward  R_i = Σ_j μ_{i->j} R_j            any number of columns R at once
    forward   ERF_j = Σ_i μ_{i->j} ERF_i        from the unit map at each input position upward

The share of the bias goes the way that `bias` says: spread over the positions that feed, or booked.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from srd_onnx.graph.ir import Array
from srd_onnx.sharing.ratios import Incoming, LayerRatios

_LOST = 1e-6  # a part of the relevance below this is rounding, not a position that nothing feeds
_DENSE = 0.2  # the share of entries from which a matrix is cheaper stored dense


@dataclass(frozen=True, eq=False)
class Carried:
    """What a backward pass by ratios gives for C columns.

    Attributes:
        shares: relevance [J, C] of each tensor passed, by name, positions flat.
        ledger: (layer, [positions of its output, C] booked) in the order of the walk.
    """

    shares: Mapping[str, Array]
    ledger: tuple[tuple[LayerRatios, Array], ...]


def backward(
    layers: Sequence[LayerRatios], start: Mapping[str, Array], bias: str, keep: Sequence[str] | None = None
) -> Carried:
    """Carry relevance from some tensors back to the input.

    Args:
        layers: the ratios, from the target back.
        start: relevance [J, C] that enters at each tensor, by name.
        bias: "distribute" or "ledger".
        keep: the tensors whose relevance is wanted, so that the others' memory is freed; all if left out.
    """
    shares: dict[str, Array] = dict(start)
    ledger = []
    for layer in layers:
        arrived = shares.get(layer.tensor)
        if arrived is None:
            continue
        for one in layer.incoming:
            flow = arrived if is_through(layer, one) else matrix(layer, one, bias) @ arrived
            shares[one.tensor] = shares[one.tensor] + flow if one.tensor in shares else flow
        booked = unplaced(layer, bias)
        if booked is not None:
            ledger.append((layer, booked[:, None] * arrived))
        if keep is not None and layer.tensor not in keep:
            del shares[layer.tensor]
    return Carried(shares, tuple(ledger))


@dataclass(frozen=True, eq=False)
class Fields:
    """The effective receptive fields of all positions of one tensor.

    Attributes:
        tensor: its name.
        fields: [I, J]: for each of J positions its field over I input positions, one column each; a scipy.sparse array,
            or a dense one where that is smaller.
        booked: [J]: the part of each PFV that no input position holds.
    """

    tensor: str
    fields: Any
    booked: Array


def forward(layers: Sequence[LayerRatios], source: str, size: int, bias: str) -> Iterator[Fields]:
    """Effective receptive fields from the input upward, layer by layer.

    Args:
        layers: the ratios, from the target back.
        source: the input whose positions the fields are made of.
        size: I, how many positions it has.
        bias: "distribute" or "ledger".
    """
    from scipy.sparse import eye_array

    start = Fields(source, eye_array(size, format="csr", dtype=np.float32), np.zeros(size, np.float32))
    found = {source: start}
    uses = Counter(one.tensor for layer in layers for one in layer.incoming)
    yield start
    for layer in reversed(layers):
        parts = [(one, found[one.tensor]) for one in layer.incoming if one.tensor in found]
        if parts:
            found[layer.tensor] = _raised(layer, parts, bias)
            yield found[layer.tensor]
        uses.subtract(one.tensor for one in layer.incoming)
        for one in layer.incoming:
            if not uses[one.tensor]:
                found.pop(one.tensor, None)


def _raised(layer: LayerRatios, parts: Sequence[tuple[Incoming, Fields]], bias: str) -> Fields:
    """The fields of a layer from those of its operands."""
    fields = None
    lost = unplaced(layer, bias)
    booked = np.zeros(math.prod(layer.shape), np.float32) if lost is None else lost
    for one, below in parts:
        if is_through(layer, one):
            flow, more = below.fields, below.booked
        else:
            taps = matrix(layer, one, bias)
            flow, more = _product(below.fields, taps), taps.T @ below.booked
        fields = flow if fields is None else _sum(fields, flow)
        booked = booked + more
    return Fields(layer.tensor, fields, booked)


def matrix(layer: LayerRatios, one: Incoming, bias: str) -> Any:
    """The part of a layer's relevance that goes from each output to each input position: sparse [I, J]."""
    taps = one.taps
    if bias == "distribute" and layer.undirected is not None:
        taps = taps + layer.undirected * one.feeds.parts
    return one.feeds.matrix(taps)


def unplaced(layer: LayerRatios, bias: str) -> Array | None:
    """The part of the relevance at each output position that goes to no input position, [J]; None where there is none.

    That is the bias, if it is to be booked; and what has no position in bounds to go to.
    """
    if layer.undirected is not None and bias == "ledger":
        return layer.undirected
    lost = 1 - np.asarray(sum(one.feeds.placed for one in layer.incoming))
    if layer.undirected is not None:
        lost = lost * layer.undirected
    return lost if (np.abs(lost) > _LOST).any() else None


def is_through(layer: LayerRatios, one: Incoming) -> bool:
    """Whether every position of the operand is wholly what the position of the layer is."""
    return not layer.mixes and one.feeds.is_identity


def _product(below: Any, taps: Any) -> Any:
    """[I, J'] times [J', J]; dense from where that is smaller."""
    found = below @ taps
    if not isinstance(found, np.ndarray) and found.nnz > _DENSE * found.shape[0] * found.shape[1]:
        return found.toarray()
    return found


def _sum(a: Any, b: Any) -> Any:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return (a if isinstance(a, np.ndarray) else a.toarray()) + (
            b if isinstance(b, np.ndarray) else b.toarray()
        )
    return a + b
