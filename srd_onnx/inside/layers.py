"""The layers of a model as places to look into: names, positions, stride and theoretical receptive field."""

import difflib
import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from srd_onnx.engine.boundary import tensor_named
from srd_onnx.engine.plan import Plan
from srd_onnx.errors import UnknownTensorError
from srd_onnx.graph.ir import Array
from srd_onnx.sharing.carrying import backward
from srd_onnx.sharing.feeds import Feeds, position_shape
from srd_onnx.sharing.ratios import LayerRatios, structure_of

ENCODER = "encoder"
_WILD = "*?["


@dataclass(frozen=True)
class Layer:
    """One tensor with several positions that relevance crosses.

    Attributes:
        name: the original name of the node that computes it.
        op: the type of its operator.
        tensor: its own name.
        shape: of the tensor.
        positions: sizes of its position axes.
        channels: how many numbers its PFVs have.
        mixes: whether the node mixes positions or operands, so that there are sharing ratios.
        stride: input positions from one position to the next along each axis; None where its axes are not those of the
            input any more (tokens).
        field: the theoretical receptive field of its middle position: along each axis of the (first) input the size of
            the box that feeds it, as far as it lies in the input; None where the data decides what feeds it.
    """

    name: str
    op: str
    tensor: str
    shape: tuple[int, ...]
    positions: tuple[int, ...]
    channels: int
    mixes: bool
    stride: tuple[float, ...] | None
    field: tuple[int, ...] | None


def layers_of(plan: Plan) -> list[Layer]:
    """The layers of a plan, from the input to the target.

    Args:
        plan: one whose boundary is the target, so that relevance is a scalar per position throughout.
    """
    structure = structure_of(plan)
    strides = strides_of(plan, [layer for _, layer in structure])
    values = plan.graph.values
    several = [
        (step, layer)
        for step, layer in reversed(structure)
        if plan.roles[layer.tensor].count(values[layer.tensor]) > 1
    ]
    fields = _fields(plan, structure, [layer.tensor for _, layer in several])
    return [
        Layer(
            layer.layer,
            step.node.key.op_type,
            layer.tensor,
            values[layer.tensor].shape,
            sizes_of(plan, layer.tensor),
            math.prod(values[layer.tensor].shape[axis] for axis in plan.roles[layer.tensor].channels),
            not step.routes,
            strides.get(layer.tensor),
            fields[layer.tensor],
        )
        for step, layer in several
    ]


def sizes_of(plan: Plan, tensor: str) -> tuple[int, ...]:
    """Sizes of the position axes of a tensor."""
    shape = plan.graph.values[tensor].shape
    return tuple(shape[axis] for axis in plan.roles[tensor].positions)


def selected(plan: Plan, wanted: str) -> list[str]:
    """The tensors that a name means: of a tensor, of an original node, a wildcard over these, or "encoder".

    Args:
        plan: what relevance crosses.
        wanted: as the user wrote it.

    Raises:
        UnknownTensorError: if there is none, with what is near.
    """
    if wanted == ENCODER:
        return list(plan.boundary)
    crossed = {v.name: step.node.origins for step in plan.steps for v in step.node.outputs if v is not None}
    names = {source.name: () for source in plan.sources} | crossed
    exact = tensor_named(plan.graph, wanted)
    if exact in names:
        return [exact]
    if any(sign in wanted for sign in _WILD):
        found = [
            t for t, origins in names.items() if any(fnmatch.fnmatchcase(n, wanted) for n in (t, *origins))
        ]
        several = [t for t in reversed(found) if plan.roles[t].count(plan.graph.values[t]) > 1]
        if several:
            return several
    every = dict.fromkeys(name for tensor, origins in names.items() for name in (*origins, tensor))
    close = difflib.get_close_matches(wanted, every, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else "."
    raise UnknownTensorError(
        f"'{wanted}' is no layer that relevance crosses{hint} `srd-onnx layers MODEL` lists them."
    )


def _fields(
    plan: Plan, structure: Sequence[tuple[object, LayerRatios]], tensors: Sequence[str]
) -> dict[str, tuple[int, ...] | None]:
    """The box of positions of the first input that feed the middle of each tensor, all in one pass: a column each."""
    source = plan.sources[0]
    start = {}
    for column, tensor in enumerate(tensors):
        shape = position_shape(plan, plan.graph.values[tensor])
        one = np.zeros((math.prod(shape), len(tensors)), np.float32)
        one[np.ravel_multi_index([size // 2 for size in shape], shape), column] = 1
        start[tensor] = one
    layers = [layer for _, layer in structure]
    reached = backward(layers, start, "distribute", keep=[source.name]).shares.get(source.name)
    if reached is None:
        return dict.fromkeys(tensors)
    grid = reached.reshape(*position_shape(plan, source), len(tensors))
    axes = plan.roles[source.name].positions
    return {tensor: _box(grid[..., column], axes) for column, tensor in enumerate(tensors)}


def _box(reached: Array, axes: tuple[int, ...]) -> tuple[int, ...] | None:
    if not reached.any():
        return None
    found = np.nonzero(reached)
    return tuple(int(found[axis].max() - found[axis].min() + 1) for axis in axes)


def strides_of(plan: Plan, layers: Sequence[LayerRatios]) -> dict[str, tuple[float, ...]]:
    """Input positions from one position of a tensor to the next, by its name, where the axes are those of the input.

    Args:
        plan: what relevance crosses.
        layers: its ratios, or the structure of these.
    """
    strides: dict[str, tuple[float, ...]] = {
        source.name: (1.0,) * len(plan.roles[source.name].positions) for source in plan.sources
    }
    for layer in reversed(layers):
        for one in layer.incoming:
            before, steps = strides.get(one.tensor), _steps(plan, layer, one.tensor, one.feeds)
            if before is not None and steps is not None and len(before) == len(steps):
                whole = tuple(b * s for b, s in zip(before, steps, strict=True))
                strides[layer.tensor] = max(whole, strides.get(layer.tensor, whole))
    return strides


def _steps(plan: Plan, layer: LayerRatios, tensor: str, feeds: Feeds) -> tuple[float, ...] | None:
    """How far apart, along each position axis, what feeds two neighbours is; None if the axes are others, or empty."""
    own, below = plan.roles[layer.tensor].positions, plan.roles[tensor].positions
    shape = position_shape(plan, plan.graph.values[tensor])
    if len(own) != len(below) or not math.prod((*shape, *layer.shape)):
        return None
    fed = feeds.index >= 0
    counts = fed.sum(axis=0)
    coordinates = np.unravel_index(np.maximum(feeds.index, 0), shape)
    steps = []
    for axis, source in zip(own, below, strict=True):
        with np.errstate(invalid="ignore"):
            centre = np.where(fed, coordinates[source], 0).sum(axis=0) / counts
        # At the border a window is cut, which moves its centre.
        whole = np.where(counts == counts.max(), centre, np.nan)
        gaps = [np.diff(c.reshape(layer.shape), axis=axis) for c in (whole, centre)]
        known = [gap[np.isfinite(gap)] for gap in gaps]
        step = next((float(np.median(gap)) for gap in known if gap.size), 1.0)
        if step <= 0:
            return None
        steps.append(round(step, 3))
    return tuple(steps)
