"""Effective receptive fields: what of the input each PFV of a layer is made of, at input resolution."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from srd_onnx.engine.backward import relevance_shape
from srd_onnx.engine.plan import Plan
from srd_onnx.errors import OptionError
from srd_onnx.graph.ir import Array, Value
from srd_onnx.graph.roles import Role
from srd_onnx.sharing.carrying import backward
from srd_onnx.sharing.feeds import position_shape
from srd_onnx.sharing.ratios import LayerRatios

AT_ONCE = 256  # fields that are carried at once, so that memory stays bounded
Positions = Literal["all"] | Sequence[Sequence[int]]


@dataclass(frozen=True, eq=False)
class Erf:
    """Effective receptive fields of some positions of one layer, for one input.

    A field is signed: where it is negative, that part of the input speaks against the PFV. It adds up to 1, but for
    what is booked (`bias="ledger"`, padding).

    Attributes:
        layer: the tensor.
        positions: int64 [P, D]: places along the D position axes of the layer.
        maps: float32 [P, *positions of the input].
        fields: the same for each explained input by its name; `maps` is the first of them.
        name: of the input.
    """

    layer: str
    positions: Array
    maps: Array
    fields: Mapping[str, Array]
    name: str


def places(plan: Plan, tensor: str, wanted: Positions) -> Array:
    """The positions asked for, int64 [P, D].

    Raises:
        OptionError: if one of them lies outside, or has another number of coordinates.
    """
    value, axes = plan.graph.values[tensor], plan.roles[tensor]
    sizes = [value.shape[axis] for axis in axes.positions]
    if isinstance(wanted, str):
        if wanted != "all":
            raise OptionError(f"positions='{wanted}': give 'all', or a list such as [(3, 4), (5, 6)]")
        return np.argwhere(np.ones(sizes, bool))
    found = np.array([list(np.atleast_1d(one)) for one in wanted], np.int64).reshape(len(wanted), -1)
    if found.shape[1] != len(sizes):
        raise OptionError(
            f"a position in '{tensor}' has {len(sizes)} coordinates ({' × '.join(map(str, sizes))}), "
            f"not {found.shape[1]}"
        )
    outside = found[((found < 0) | (found >= sizes)).any(axis=1)]
    if len(outside):
        raise OptionError(
            f"position {tuple(map(int, outside[0]))} lies outside '{tensor}', which has "
            f"{' × '.join(map(str, sizes))} positions"
        )
    return found


def fields(
    plan: Plan, layers: Sequence[LayerRatios], tensor: str, positions: Array, row: int, name: str
) -> Iterator[Erf]:
    """The fields, `AT_ONCE` at a time.

    Args:
        plan: one that ends in the layer.
        layers: its ratios.
        tensor: the layer.
        positions: as `places` gives them.
        row: the item of the batch.
        name: of the input.
    """
    value, axes = plan.graph.values[tensor], plan.roles[tensor]
    shape = position_shape(plan, value)
    names = [source.name for source in plan.sources]
    for first in range(0, len(positions), AT_ONCE):
        some = positions[first : first + AT_ONCE]
        index = [np.zeros(len(some), np.int64)] * len(shape)
        for column, axis in enumerate(axes.positions):
            index[axis] = some[:, column]
        if Role.BATCH in axes.roles:
            index[axes.roles.index(Role.BATCH)] = np.full(len(some), row)
        start = np.zeros((math.prod(shape), len(some)), np.float32)
        start[np.ravel_multi_index(index, shape), np.arange(len(some))] = 1
        shares = backward(layers, {tensor: start}, plan.options.bias, keep=names).shares
        maps = {s.name: _maps(plan, s, shares[s.name], row) for s in plan.sources if s.name in shares}
        yield Erf(tensor, some, next(iter(maps.values())), maps, name)


def _maps(plan: Plan, source: Value, share: Array, row: int) -> Array:
    """[I, P] to [P, *positions] of one item; a view, not a copy."""
    return share.T.reshape(-1, *relevance_shape(plan, source))[:, row]


def whole(parts: Iterable[Erf]) -> Erf:
    """The parts of one layer and input put together."""
    found = list(parts)
    if len(found) == 1:
        return found[0]
    first = found[0]
    maps = {source: np.concatenate([part.fields[source] for part in found]) for source in first.fields}
    positions = np.concatenate([part.positions for part in found])
    return Erf(first.layer, positions, next(iter(maps.values())), maps, first.name)
