"""Which position of the input's grid a position of a layer stands for: the tokens of a picture on the picture again."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from srd_onnx.engine.plan import Plan
from srd_onnx.errors import LayoutError, UnsupportedCaseError
from srd_onnx.graph.ir import Array, Value
from srd_onnx.graph.roles import Role
from srd_onnx.sharing.feeds import one_to_one, position_shape


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the positions of a layer lie.

    Attributes:
        sizes: of a grid over the whole input, with as many axes as that has.
        index: int64 [T]: the flat place in the grid of each position of the layer, -1 for none (a class token); each
            place has one.
    """

    sizes: tuple[int, ...]
    index: Array

    @property
    def token_of(self) -> Array:
        """The position of the layer that stands at each place of the grid, int64 [places]."""
        found = np.zeros(math.prod(self.sizes), np.int64)
        found[self.index[self.index >= 0]] = np.flatnonzero(self.index >= 0)
        return found

    def __call__(self, values: Array) -> Array:
        """Values [..., T] on the grid: [..., *sizes]."""
        return values[..., self.token_of].reshape(*values.shape[:-1], *self.sizes)


def grid_of(plan: Plan, name: str) -> Grid:
    """The grid that the positions of a tensor stand for.

    They are a grid if there is a path from the input on which every tensor has as many position axes as the input: a
    convolutional network. Tokens stand for those positions of such a tensor that they were made from, one for one,
    along a path that mixes none (the skip connections of a transformer).

    Raises:
        LayoutError: if they stand for no grid, or not every place of it has a position.
    """
    source, value = plan.sources[0], plan.graph.values[name]
    axes = plan.roles[name]
    grids = _grids(plan)
    if name in grids:
        sizes = tuple(value.shape[axis] for axis in axes.positions)
        return Grid(sizes, np.arange(math.prod(sizes)))
    found = traced(plan, name, lambda one: one.name in grids)
    if found is not None:
        tensor, index = found
        base = plan.graph.values[tensor]
        sizes = tuple(base.shape[axis] for axis in plan.roles[tensor].positions)
        index = first_item(plan, value, base, index)
        if sorted(index[index >= 0]) == list(range(math.prod(sizes))):
            return Grid(sizes, index)
    raise LayoutError(
        f"the positions of '{name}' {list(value.shape)} (axes {axes}) cannot be laid over the input "
        f"'{source.name}' {list(source.shape)}: choose another layer with boundary=, one whose positions are a grid or "
        "tokens that were made from one. `srd-onnx check MODEL` lists the layers."
    )


def require_single_source(plan: Plan) -> None:
    """Refuse a plan with several explained inputs for a method whose map lies over one.

    Raises:
        UnsupportedCaseError: naming them.
    """
    if len(plan.sources) > 1:
        raise UnsupportedCaseError(
            "a map of a layer lies over one input, but relevance reaches "
            + ", ".join(f"'{source.name}'" for source in plan.sources)
            + ": hold the others fixed (fixed=), or choose another method"
        )


def _grids(plan: Plan) -> set[str]:
    """Tensors on a path from the input on which all have as many position axes as that."""
    rank = len(plan.roles[plan.sources[0].name].positions)
    found = {source.name for source in plan.sources}
    for step in reversed(plan.steps):
        if any(step.node.input(i).name in found for i in step.carriers):
            outputs = [v.name for v in step.node.outputs if v is not None and v.name in plan.roles]
            found.update(name for name in outputs if len(plan.roles[name].positions) == rank)
    return found


def traced(plan: Plan, name: str, wanted: Callable[[Value], bool]) -> tuple[str, Array] | None:
    """The nearest tensor before another one that is wanted and whose positions became those of that one for one.

    Returns:
        its name, and int64 [J] its flat position for each one of `name`, -1 for none (both with the batch as in
        `Feeds`); None if there is no such tensor.
    """
    makers = {
        v.name: (step, i) for step in plan.steps for i, v in enumerate(step.node.outputs) if v is not None
    }
    start = plan.graph.values[name]
    open_paths = [(name, np.arange(math.prod(position_shape(plan, start))))]
    seen = set()
    while open_paths:
        here, index = open_paths.pop(0)
        if wanted(plan.graph.values[here]):
            return here, index
        if here in seen or here not in makers:
            continue
        seen.add(here)
        step, output = makers[here]
        for i, fed in one_to_one(plan, step, output).items():
            through = np.where(index >= 0, fed[np.maximum(index, 0)], -1)
            if (through >= 0).any():
                open_paths.append((step.node.input(i).name, through))
    return None


def first_item(plan: Plan, value: Value, base: Value, index: Array) -> Array:
    """What `traced` gives for the first item of the batch alone: int64 [T], places among the positions of `base`."""
    own = np.asarray(index).reshape(position_shape(plan, value))
    roles = plan.roles[value.name].roles
    if Role.BATCH in roles:
        own = own.take(0, axis=roles.index(Role.BATCH))
    own, shape, roles = own.reshape(-1), position_shape(plan, base), plan.roles[base.name].roles
    if Role.BATCH not in roles:
        return own
    places = list(np.unravel_index(np.maximum(own, 0), shape))
    axis = roles.index(Role.BATCH)
    del places[axis]
    rest = shape[:axis] + shape[axis + 1 :]
    flat = np.ravel_multi_index(places, rest) if rest else np.zeros(len(own), np.int64)
    return np.where(own >= 0, flat, -1)
