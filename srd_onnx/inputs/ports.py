"""The inputs of a model as the file declares them, and what their axes mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from srd_onnx.errors import LayoutError, ShapeError
from srd_onnx.graph.roles import Axes, Role, guess_layout, parse_layout

_ASSUMED = {Role.BATCH: 1, Role.CHANNEL: 3, Role.POSITION: 224}  # for sizes that nothing says


@dataclass(frozen=True)
class Port:
    """One graph input.

    Attributes:
        declared: its sizes, None where any goes.
        layout: one letter per axis; `guessed` if nobody said it.
    """

    name: str
    dtype: np.dtype[Any]
    declared: tuple[int | None, ...]
    layout: str
    guessed: bool

    @property
    def axes(self) -> Axes:
        """The meaning of its axes."""
        return parse_layout(self.layout, self.name, self.declared)

    @property
    def has_batch(self) -> bool:
        """Whether its first axis counts independent inputs."""
        return self.axes.roles[:1] == (Role.BATCH,)

    def shape(self, picture: tuple[int, ...] = (), tokens: int = 16) -> tuple[int, ...]:
        """A concrete shape: as declared, open positions from `picture`, else 224 (or `tokens` on a single axis)."""
        axes, sizes = self.axes, iter(picture)
        single = len(axes.positions) == 1
        found = []
        for size, role in zip(self.declared, axes.roles, strict=True):
            usual = tokens if single and role is Role.POSITION else _ASSUMED[role]
            found.append(size if size is not None else next(sizes, usual) if role is Role.POSITION else usual)
        return tuple(found)


def ports_of(
    model: onnx.ModelProto, layout: str | Mapping[str, str] | None, known: str | None
) -> tuple[Port, ...]:
    """The model's inputs in order.

    Args:
        model: as `load_model` returns it.
        layout: of the first input, or of any by name; guessed where it is left out.
        known: the layout of the first input that the zoo knows.

    Raises:
        LayoutError: a layout is unknown, does not fit, or is for an input that does not exist.
        ShapeError: an input declares no shape.
    """
    values = list(model.graph.input)
    said = dict(layout) if isinstance(layout, Mapping) else {values[0].name: layout} if layout else {}
    if unknown := set(said) - {value.name for value in values}:
        raise LayoutError(
            f"layout for {', '.join(map(repr, sorted(unknown)))}: the model's inputs are "
            f"{', '.join(repr(value.name) for value in values)}"
        )
    if known:
        said.setdefault(values[0].name, known)
    return tuple(_port(value, said.get(value.name)) for value in values)


def _port(value: onnx.ValueInfoProto, layout: str | None) -> Port:
    declared = _declared_shape(value)
    kind = value.type.tensor_type.elem_type
    if kind not in helper.get_all_tensor_dtypes():
        raise ShapeError(
            f"input '{value.name}' declares an element type, {kind}, that ONNX does not know; export it again"
        )
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    integers = dtype.kind in "iub" and dtype.itemsize != 1
    chosen = guess_layout(declared, value.name, integers=integers) if layout is None else layout
    port = Port(value.name, dtype, declared, chosen, layout is None)
    parse_layout(chosen, value.name, declared)
    return port


def _declared_shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    tensor = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type":
        raise ShapeError(f"input '{value.name}' is no tensor but a {value.type.WhichOneof('value')}")
    if not tensor.HasField("shape"):
        raise ShapeError(
            f"input '{value.name}' declares no shape at all; set one, e.g. with onnx.tools.update_model_dims"
        )
    return tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim
    )
