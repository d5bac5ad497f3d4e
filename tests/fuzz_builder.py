"""What grown networks are written with: features, and a builder of nodes and constants."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

Array = NDArray[Any]


@dataclass(frozen=True)
class Feature:
    """A tensor of the graph: one letter and one size per axis."""

    name: str
    layout: str
    shape: tuple[int, ...]

    @property
    def channel(self) -> int:
        return self.layout.index("C")

    @property
    def channels(self) -> int:
        return self.shape[self.channel]

    @property
    def positions(self) -> tuple[int, ...]:
        return tuple(i for i, letter in enumerate(self.layout) if letter not in "NC")

    def like(self, name: str, shape: tuple[int, ...] | None = None) -> "Feature":
        """Another tensor with these axes; of this shape if no other is given."""
        return Feature(name, self.layout, self.shape if shape is None else shape)

    def per_channel(self) -> tuple[int, ...]:
        """The shape of one number for each channel."""
        return tuple(n if i == self.channel else 1 for i, n in enumerate(self.shape))

    def at(self, axis: int, size: int) -> tuple[int, ...]:
        """The shape with another size of one axis."""
        return (*self.shape[:axis], size, *self.shape[axis + 1 :])


@dataclass
class Builder:
    """Nodes and constants, made by calls: ``y = g("Mul", x, 0.5)``; the numbers come from `rng`."""

    draw: st.DrawFn
    opset: int
    open_batch: bool
    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    recipe: list[str] = field(default_factory=list)

    def __call__(self, op: str, *inputs: Any, outputs: int = 1, **attrs: Any) -> Any:
        names = [v if isinstance(v, str) else self.constant(v) for v in inputs]
        stem = f"t{len(self.nodes)}"
        made = [stem] if outputs == 1 else [f"{stem}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, names, made, name=f"{op}_{stem}", **attrs))
        return made[0] if outputs == 1 else made

    def constant(self, data: Any) -> str:
        name, array = f"c{len(self.constants)}", np.asarray(data)
        self.constants[name] = array.astype(np.float32) if array.dtype.kind == "f" else array
        return name

    def ints(self, *numbers: int) -> Array:
        return np.array(numbers, np.int64)

    def weights(self, *shape: int, fan_in: int) -> Array:
        return np.asarray(self.rng.standard_normal(shape) * math.sqrt(1.6 / max(1, fan_in)))

    def small(self, *shape: int) -> Array:
        return np.asarray(self.rng.standard_normal(shape) * 0.3)

    def around_one(self, *shape: int) -> Array:
        return np.asarray(self.rng.uniform(0.5, 1.5, shape))

    def integer(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def yes(self) -> bool:
        return bool(self.draw(st.booleans()))

    def one_of(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def reduced(self, op: str, x: str, axes: Sequence[int], *, keep: bool) -> str:
        since = 13 if op == "ReduceSum" else 18
        if self.opset < since:
            return str(self(op, x, axes=list(axes), keepdims=int(keep)))
        return str(self(op, x, self.ints(*axes), keepdims=int(keep)))

    def split(self, x: str, axis: int, sizes: Sequence[int]) -> list[str]:
        if len(sizes) == 1:
            return [x]
        return list(self("Split", x, self.ints(*sizes), axis=axis, outputs=len(sizes)))

    def reshape(self, f: Feature, layout: str, shape: Sequence[int], name: str = "") -> Feature:
        """With 0 for the batch half of the time, so that it may be of any size."""
        wanted = [0, *shape[1:]] if self.open_batch or self.yes() else list(shape)
        if -1 not in wanted and self.yes():
            wanted[-1] = -1
        return Feature(self("Reshape", name or f.name, self.ints(*wanted)), layout, tuple(shape))

    def transpose(self, f: Feature, layout: str) -> Feature:
        order = [f.layout.index(letter) for letter in layout]
        return Feature(self("Transpose", f.name, perm=order), layout, tuple(f.shape[axis] for axis in order))


Block = Callable[[Builder, Feature], Feature]
