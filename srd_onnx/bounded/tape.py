"""An explained model as a list of nodes that can be cut: the forward pass, then the backward pass."""

import math
from dataclasses import dataclass
from functools import cached_property

from onnx import ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, helper, shape_inference

from srd_onnx.engine.assemble import pruned
from srd_onnx.engine.compiling import Compiled, weightless
from srd_onnx.engine.emit import FORWARD_NODE
from srd_onnx.engine.seed import DIRECTION, TARGET
from srd_onnx.graph.ir import Array
from srd_onnx.graph.walk import captured

_SEEDS = frozenset({TARGET, DIRECTION})


@dataclass(frozen=True, eq=False)
class Tape:
    """An explained model, node by node.

    Attributes:
        nodes: of both passes, in topological order.
        forward: which of them are of the forward pass and depend on the input.
        constants: the initializers, by name, the large ones without their data,
        weights: which are here.
        kinds: the type of every tensor, and its shape as far as it is known.
        outputs: what the model gives.
        empty: a model of the same versions, without nodes.
    """

    nodes: tuple[NodeProto, ...]
    forward: tuple[int, ...]
    constants: dict[str, TensorProto]
    weights: dict[str, Array]
    kinds: dict[str, ValueInfoProto]
    outputs: tuple[str, ...]
    empty: ModelProto

    @cached_property
    def index(self) -> dict[str, int]:
        """The place in `nodes` of what computes each tensor."""
        return {name: i for i, node in enumerate(self.nodes) for name in node.output if name}

    @cached_property
    def place(self) -> dict[str, int]:
        """The place in `forward` of what computes each tensor of the forward pass."""
        return {n: i for i, index in enumerate(self.forward) for n in self.nodes[index].output if n}

    @cached_property
    def origins(self) -> dict[str, int]:
        """A place in `forward`, by what backward nodes say that they were made for: a node, a tensor, an input."""
        inputs = {name: 0 for name in self.kinds if name not in self.index}
        return inputs | self.place | {self.nodes[index].name: i for i, index in enumerate(self.forward)}

    @cached_property
    def reads(self) -> tuple[tuple[str, ...], ...]:
        """What each of `nodes` reads besides constants."""
        read = (dict.fromkeys((*node.input, *captured(node))) for node in self.nodes)
        return tuple(tuple(name for name in one if name and name not in self.constants) for one in read)

    @cached_property
    def seeded(self) -> frozenset[str]:
        """The tensors that depend on what is explained; the others depend on the input alone."""
        found = set(_SEEDS)
        for node, read in zip(self.nodes, self.reads, strict=True):
            if not found.isdisjoint(read):
                found.update(node.output)
        return frozenset(found - _SEEDS)

    @cached_property
    def _sizes(self) -> dict[str, float]:
        tensors = {name: kind.type.tensor_type for name, kind in self.kinds.items()}
        return {
            name: _bytes_of(one) for name, one in tensors.items() if one.elem_type and one.HasField("shape")
        }

    @cached_property
    def made_for(self) -> tuple[int | None, ...]:
        """The place in `forward` that each of `nodes` was emitted for; None for those of the forward pass itself."""
        found = (dict((one.key, one.value) for one in node.metadata_props) for node in self.nodes)
        return tuple(self.origins.get(one.get(FORWARD_NODE, "")) for one in found)

    def known_size(self, name: str) -> float:
        """Bytes of a tensor; none where they depend on the data."""
        size = self.size(name)
        return size if size < math.inf else 0.0

    def size(self, name: str) -> float:
        """Bytes of a tensor; infinite where they depend on the data."""
        return self._sizes.get(name, math.inf)


def _bytes_of(tensor: TypeProto.Tensor) -> float:
    dims = [dim.dim_value if dim.HasField("dim_value") else math.inf for dim in tensor.shape.dim]
    return math.prod(dims) * helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize


def tape_of(compiled: Compiled) -> Tape:
    """The nodes of a compiled model that its outputs need, ready to be cut."""
    model, weights = weightless(compiled)
    del model.graph.output[: len(compiled.forward.graph.output)]
    graph = pruned(model).graph
    constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name != TARGET}
    inferred = shape_inference.infer_shapes(model).graph.value_info
    own = {name for node in compiled.forward.graph.node for name in node.output}
    varying = {value.name for value in graph.input if value.name not in constants}
    moving = []
    for index, node in enumerate(graph.node):
        if not varying.isdisjoint([*node.input, *captured(node)]):
            varying.update(node.output)
            moving += [index] if not own.isdisjoint(node.output) else []
    return Tape(
        tuple(graph.node),
        tuple(moving),
        constants,
        {name: array for name, array in weights.items() if name in constants},
        {value.name: value for value in [*inferred, *graph.input, *graph.output]},
        tuple(compiled.outputs),
        helper.make_model(
            helper.make_graph([], "piece", [], []),
            opset_imports=list(model.opset_import),
            ir_version=model.ir_version,
        ),
    )
