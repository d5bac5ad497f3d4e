"""`Emitter` makes the backward nodes: every one carries its origin, and equal ones are made once."""

import copy
import hashlib
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from srd_onnx.graph.ir import Array, Graph, Node, Value
from srd_onnx.graph.roles import Axes, Role, Roles

FORWARD_NODE = "srd.forward_node"
RULE = "srd.rule"
BLOCK = 16  # channels: ONNX Runtime's blocks are of 8 or 16


class Emitter:
    """Collects backward nodes and their constants; tensors are named by plain strings.

    Calling it emits one node: ``y = emit("Mul", a, b)``. Forward tensors are used by their own names. A call that
    repeats an earlier one gives the earlier result, so rules may ask for the same norm twice at no cost.

    Attributes:
        roles: axes of every forward tensor that depends on the input.
        tangent: true for the true derivative, false for the map with the activation pattern held fixed.
        prefix: of the names of what it makes.
        plain: every node by its VJP, as the definition is written; not by what is cheaper (docs/speed.md).
        blocks: what is emitted is for ONNX Runtime's CPU provider, see `blocked`.
        masked: numbers may be infinite where nothing flows (scores under a mask); by default where a constant of the
            graph is, or a sum of few such constants would be.
        forward: every tensor of the forward graph, constants included, by name.
        readers: the forward nodes that read a tensor, by its name.
        producers: the forward node that computes a tensor, by its name.
        outputs: names of the outputs of the forward graph.
        opset: of the forward graph, and of what is emitted.
    """

    def __init__(
        self,
        graph: Graph,
        roles: Roles,
        *,
        tangent: bool = False,
        masked: bool | None = None,
        plain: bool = False,
        blocks: bool = True,
        prefix: str = "srd",
    ) -> None:
        self._prefix = prefix
        self.roles = roles
        self.tangent = tangent
        self.plain = plain
        self.blocks = blocks and not plain
        self.masked = graph.masked if masked is None else masked
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._vectors: dict[str, Array] = {}
        self._derived: dict[tuple[int, Hashable], tuple[Array, str]] = {}
        self._repeated: dict[str, tuple[str, tuple[int, ...]]] = {}
        self.forward = {v.name: v for node in graph.nodes for v in node.inputs if v} | graph.values
        self.readers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for value in node.inputs:
                if value is not None:
                    self.readers.setdefault(value.name, []).append(node)
        self.producers = graph.producers
        self.outputs = frozenset(value.name for value in graph.outputs)
        self.opset = graph.opset
        self._taken = set(self.forward)
        self._made: dict[Any, tuple[str, ...]] = {}
        self._origin = ("", "")

    @contextmanager
    def origin(self, node: str, rule: str) -> Iterator[None]:
        """Nodes emitted inside are recorded as made for this forward node by this rule."""
        before, self._origin = self._origin, (node, rule)
        yield
        self._origin = before

    def view(self, roles: Roles, *, tangent: bool) -> "Emitter":
        """The same emitter, into which goes what is emitted, for a graph with other roles."""
        other = copy.copy(self)
        other.roles, other.tangent = roles, tangent
        return other

    def renamed(self, names: Mapping[str, str]) -> "Emitter":
        """The same emitter, into which goes what is emitted, for a node that reads some tensors as Casts of them.

        What is known of a tensor is known of its Cast, `names` giving the one by the other. No Cast is in blocks.
        """
        other = copy.copy(self)
        other.roles = {
            **self.roles,
            **{new: self.roles[old] for old, new in names.items() if old in self.roles},
        }
        other.readers = self.readers | {new: self.readers.get(old, []) for old, new in names.items()}
        other.blocks = False
        return other

    def __call__(self, op_type: str, *inputs: str, **attrs: Any) -> str:
        """Emit a node with one output and give that output's name."""
        return self.many(op_type, *inputs, outputs=1, **attrs)[0]

    def many(self, op_type: str, *inputs: str, outputs: int, **attrs: Any) -> tuple[str, ...]:
        """Emit a node with several outputs and give their names."""
        key = (op_type, inputs, outputs, tuple(sorted((k, _hashable(v)) for k, v in attrs.items())))
        if key not in self._made:
            names = tuple(self.fresh(op_type) for _ in range(outputs))
            node = helper.make_node(op_type, inputs, names, name=names[0], **attrs)
            for prop, text in zip((FORWARD_NODE, RULE), self._origin, strict=True):
                node.metadata_props.add(key=prop, value=text)
            self.nodes.append(node)
            self._made[key] = names
        return self._made[key]

    def adopt(self, node: NodeProto) -> None:
        """Take a node that another emitter made, its origin being the one recorded here."""
        for prop, text in zip((FORWARD_NODE, RULE), self._origin, strict=True):
            node.metadata_props.add(key=prop, value=text)
        self.nodes.append(node)

    def const(self, data: Any, dtype: np.dtype[Any] | type | None = None) -> str:
        """An initializer with this data; equal ones are stored once."""
        array = np.ascontiguousarray(np.asarray(data, dtype))
        array = array.reshape(np.shape(data))  # ascontiguousarray turns a scalar into a vector
        key = ("const", array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest())
        if key not in self._made:
            name = self.fresh("const")
            self.initializers.append(numpy_helper.from_array(array, name))
            if array.size == max(array.shape, default=1):
                self._vectors[name] = array
            self._made[key] = (name,)
        return self._made[key][0]

    def derived(self, source: Array, what: Hashable, make: Callable[[], Array]) -> str:
        """An initializer that is made from an array, once however many passes ask for it: large weights take time.

        Args:
            source: the array itself, such as the constant of a node.
            what: says how it is made from that.
            make: makes it.
        """
        key = (id(source), what)
        if key not in self._derived:
            # With the source, or another array might get its place in memory, and with it its id.
            self._derived[key] = source, self.const(make())
        return self._derived[key][1]

    def ints(self, data: Sequence[int]) -> str:
        """An int64 vector: shapes, axes, pads."""
        return self.const(np.asarray(data, np.int64))

    def fresh(self, hint: str) -> str:
        """A name that no tensor has yet."""
        name = f"{self._prefix}/{hint}_{len(self._taken)}"
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def varies(self, value: Value | None) -> bool:
        """Whether the model's input flows through the tensor; if not it is a constant to the rules."""
        return value is not None and value.name in self.roles and not self.roles[value.name].inert

    def axes(self, value: Value) -> Axes:
        """The roles of a forward tensor's axes."""
        return self.roles[value.name]

    def blocked(self, value: Value) -> bool:
        """Whether ONNX Runtime's CPU provider can keep a tensor in blocks of channels, as it does behind convolutions.

        Then a sum over channels and a factor for each position are better written as convolutions with ones, which
        stay in that layout; anything else has to be brought out of it and back.
        """
        return (
            self.blocks
            and value.rank == 4
            and value.dtype == np.float32
            and value.shape[1] % BLOCK == 0
            and math.prod(value.shape[2:]) > 1
            and self.axes(value).channels == (1,)
        )

    # The few sums and products that rules and engine share.

    def reshape(self, tensor: str, shape: Sequence[int]) -> str:
        """`tensor` with this concrete shape (a 0 means size 0)."""
        return (
            self("Reshape", tensor, self.ints(shape), allowzero=1)
            if 0 in shape
            else self("Reshape", tensor, self.ints(shape))
        )

    def cast(self, tensor: str, dtype: np.dtype[Any]) -> str:
        """`tensor` in another precision. By Cast: CastLike has no kernel of its own in ONNX Runtime."""
        return self("Cast", tensor, to=helper.np_dtype_to_tensor_dtype(dtype))

    def weighed(self, tensor: str, weight: str) -> str:
        """``tensor * weight``, and 0 where the weight is 0 though the number is infinite: a score under a mask."""
        if self.masked:
            tensor = self("Where", self("Cast", weight, to=TensorProto.BOOL), tensor, weight)
        return self("Mul", tensor, weight)

    def total(self, tensor: str, axes: Sequence[int], *, keepdims: bool = True) -> str:
        """The sum over `axes`; the tensor itself if there are none (ReduceSum would sum over all)."""
        if not axes:
            return tensor
        return self("ReduceSum", tensor, self.ints(axes), keepdims=int(keepdims))

    def repeated(self, tensor: str, shape: Sequence[int], result: Sequence[int]) -> str:
        """A tensor of `shape` repeated along its axes of size 1 to the shape `result`; `unrepeated` remembers it."""
        name = self("Expand", tensor, self.ints(result))
        self._repeated[name] = (tensor, tuple(shape))
        return name

    def unrepeated(self, tensor: str) -> tuple[str, tuple[int, ...]] | None:
        """What `repeated` made a tensor from, and its shape; None for any other tensor."""
        return self._repeated.get(tensor)

    def weighted_sum(self, tensor: str, shape: Sequence[int], axes: Sequence[int], weights: Array) -> str:
        """The sum over `axes` of a tensor of `shape`, each element times the weight of its place along them.

        They stay with size 1. As a matrix product, which is several times faster than ReduceSum on a CPU.

        Args:
            tensor: what is summed.
            shape: its shape.
            axes: one after the other, such as (1,), or none.
            weights: one for each place, in the precision of the tensor.
        """
        before, after = math.prod(shape[: axes[0]]), math.prod(shape[axes[-1] + 1 :])
        if after == 1:
            flat = self.reshape(tensor, [before, weights.size])
            summed = self("MatMul", flat, self.const(weights.reshape(-1, 1)))
        else:
            flat = self.reshape(tensor, [before, weights.size, after])
            summed = self("MatMul", self.const(weights.reshape(1, -1)), flat)
        return self.reshape(summed, [1 if axis in axes else size for axis, size in enumerate(shape)])

    def over_channels(self, tensor: str, value: Value) -> str:
        """The sum over the channel axes of a tensor of the shape and axes of `value`; they stay with size 1."""
        channels = self.axes(value).channels
        if not channels or 0 in value.shape or channels[-1] - channels[0] >= len(channels):
            return self.total(tensor, channels)
        count = math.prod(value.shape[axis] for axis in channels)
        if self.blocked(value):
            return self("Conv", tensor, self.const(np.ones((1, count, 1, 1), value.dtype)))
        return self.weighted_sum(tensor, value.shape, channels, np.ones(count, value.dtype))

    def along(self, tensor: str, value: Value, vector: str) -> str:
        """The inner product, over the channels of `value`, of a tensor shaped like it with another that fits it."""
        array = self._vectors.get(vector)
        if array is not None and self.blocked(value) and array.shape == (1, value.shape[1], 1, 1):
            return self("Conv", tensor, vector)
        return self.over_channels(self("Mul", tensor, vector), value)

    def scaled(self, tensor: str, value: Value, factors: str) -> str:
        """A tensor shaped like `value`, each position times its factor, [N, 1, *positions]."""
        if self.blocked(value):
            factors = self("Conv", factors, self.const(np.ones((value.shape[1], 1, 1, 1), value.dtype)))
        return self("Mul", tensor, factors)

    def per_item(self, tensor: str, value: Value) -> str:
        """The sum over all axes but the batch, [N]; `tensor` has the axes of `value`. [1] where none is the batch."""
        roles = self.axes(value).roles
        summed = [axis for axis, role in enumerate(roles) if role is not Role.BATCH]
        total = self.total(tensor, summed, keepdims=False)
        return total if len(summed) < len(roles) else self.reshape(total, [1])

    def sum(self, tensors: Sequence[str]) -> str:
        """The elementwise sum of one or more tensors of one shape."""
        return tensors[0] if len(tensors) == 1 else self("Sum", *tensors)

    def unbroadcast(self, tensor: str, shape: Sequence[int], target: Sequence[int]) -> str:
        """The adjoint of broadcasting: sum a tensor of `shape` over the axes along which `target` was repeated."""
        lead = len(shape) - len(target)
        padded = (1,) * lead + tuple(target)
        axes = [i for i, (s, t) in enumerate(zip(shape, padded, strict=True)) if t == 1 and s != 1]
        summed = self.total(tensor, axes)
        return self.reshape(summed, target) if lead else summed

    def zeros(self, shape: Sequence[int], dtype: np.dtype[Any]) -> str:
        """A tensor of zeros, made at run time so that it does not swell the file."""
        value = numpy_helper.from_array(np.zeros(1, dtype))
        return self("ConstantOfShape", self.ints(shape), value=value)

    def added(
        self, shape: Sequence[int], dtype: np.dtype[Any], places: str, parts: str, axis: int | None = None
    ) -> str:
        """Zeros of this shape, with parts added in their places; half ones in float32, as any sum of many.

        Args:
            shape: of the result.
            dtype: of the parts.
            places: indices along `axis` (ScatterElements); of slices, if that is left out (ScatterND).
            parts: what is added.
            axis: see `places`.
        """
        half = dtype.itemsize == 2
        zeros = self.zeros(shape, np.dtype(np.float32) if half else dtype)
        single = self("Cast", parts, to=TensorProto.FLOAT) if half else parts
        made = (
            self("ScatterND", zeros, places, single, reduction="add")
            if axis is None
            else self("ScatterElements", zeros, places, single, axis=axis, reduction="add")
        )
        return self("Cast", made, to=helper.np_dtype_to_tensor_dtype(dtype)) if half else made

    def like(self, value: Value, data: Any) -> str:
        """A constant of the dtype of `value`."""
        return self.const(np.asarray(data, value.dtype))


def _hashable(value: Any) -> Any:
    if isinstance(value, TensorProto | GraphProto):
        return value.SerializeToString()
    return tuple(value) if isinstance(value, list) else value
