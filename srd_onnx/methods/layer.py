"""The layer that class activation maps are made at: its activations as [N, channels, positions], and back."""

import math
from dataclasses import dataclass, replace

import numpy as np
from onnx import ModelProto

from srd_onnx.engine.boundary import tensor_named
from srd_onnx.engine.compiling import Case
from srd_onnx.engine.plan import Plan
from srd_onnx.errors import LayoutError, OptionError, UnsupportedCaseError
from srd_onnx.graph.ir import Array, Value
from srd_onnx.graph.roles import Role
from srd_onnx.methods.grid import resized
from srd_onnx.methods.places import Grid, grid_of, require_single_source
from srd_onnx.subject import Subject


@dataclass(frozen=True)
class Turn:
    """The axes of a tensor brought to the order batch, channels, positions, and back.

    Attributes:
        order: of the axes; a batch axis first, if there is one.
        shape: of the tensor.
        channels, positions: how many there are.
        batched: whether there is a batch axis.
    """

    order: tuple[int, ...]
    shape: tuple[int, ...]
    channels: int
    positions: int
    batched: bool

    def __call__(self, array: Array) -> Array:
        """[N, channels, positions] of a tensor."""
        return array.transpose(self.order).reshape(-1, self.channels, self.positions)

    def back(self, array: Array) -> Array:
        """The tensor from [N, channels, positions]; N is 1 where it has no batch axis."""
        behind = [self.shape[axis] for axis in self.order[self.batched :]]
        turned = array.reshape(*([len(array)] if self.batched else []), *behind)
        return np.ascontiguousarray(turned.transpose(np.argsort(self.order)))


def turn_of(plan: Plan, value: Value) -> Turn:
    """How the axes of a tensor are turned.

    Raises:
        LayoutError: if the items of a batch are not told apart there.
    """
    axes = plan.roles[value.name]
    batch = tuple(axis for axis, role in enumerate(axes.roles) if role is Role.BATCH)
    if len(batch) > 1 or math.prod(value.shape[axis] for axis in batch) != plan.batch:
        raise LayoutError(
            f"'{value.name}' {list(value.shape)} has axes {axes}: the items of the batch of {plan.batch} are not apart "
            "there; explain one input at a time, or choose another layer with boundary="
        )
    channels, positions = (math.prod(value.shape[i] for i in one) for one in (axes.channels, axes.positions))
    return Turn((*batch, *axes.channels, *axes.positions), value.shape, channels, positions, bool(batch))


@dataclass(frozen=True, eq=False)
class Layer:
    """One tensor of a plan, and how its positions lie over the input.

    Attributes:
        forward: the simplified model.
        plan: what SRD would cross; its boundary is this tensor.
    """

    forward: ModelProto
    plan: Plan
    value: Value
    grid: Grid

    @property
    def source(self) -> Value:
        """The explained input."""
        return self.plan.sources[0]

    @property
    def sides(self) -> tuple[int, ...]:
        """The sizes of the positions of the input."""
        return tuple(self.source.shape[axis] for axis in self.plan.roles[self.source.name].positions)

    def enlarged(self, maps: Array) -> Array:
        """Maps [N, *grid] over the input: [N, *positions]."""
        return resized(maps, self.sides)


def layer_of(subject: Subject, case: Case) -> Layer:
    """The layer that the option `boundary` names: a tensor, or the one where an encoder ends.

    Raises:
        OptionError: if that is several tensors.
        LayoutError: if its positions cannot be laid over the input.
        UnsupportedCaseError: if it holds integers, or the model has several explained inputs.
        SrdOnnxError: what keeps the model from being planned.
    """
    forward, plan = subject.planned(replace(case, tangent=False))
    plan.require_complete()
    wanted = case.options.boundary
    names = plan.boundary if wanted == "encoder" else (tensor_named(plan.graph, wanted),)
    if len(names) != 1:
        raise OptionError(
            f"a class activation map is made at one layer, but the encoder ends at {len(names)}: choose one with "
            f"boundary= ({', '.join(map(repr, names))})"
        )
    value = plan.graph.values[names[0] or ""]
    require_single_source(plan)
    if not value.is_float:
        raise UnsupportedCaseError(
            f"the layer '{value.name}' holds integers ({value.dtype}): choose a tensor of real numbers with boundary="
        )
    turn_of(plan, value)
    return Layer(forward, replace(plan, boundary=(value.name,)), value, grid_of(plan, value.name))
