"""Where a model keeps its weights: the layers that have some, and the stored tensors that each of them reads."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from srd_onnx.errors import ExternalDataError
from srd_onnx.graph.ir import Array

# By operator type, whatever its domain: the inputs that weigh what the others bring, and the biases beside them.
_WEIGHTS: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = MappingProxyType(
    {
        "Conv": ((1,), (2,)),
        "ConvTranspose": ((1,), (2,)),
        "DeformConv": ((1,), (3,)),
        "FusedConv": ((1,), (2,)),
        "ConvInteger": ((1,), ()),
        "QLinearConv": ((3,), (8,)),
        "Gemm": ((0, 1), (2,)),
        "FusedGemm": ((0, 1), (2,)),
        "QGemm": ((0, 3), (6,)),
        "MatMul": ((0, 1), ()),
        "FusedMatMul": ((0, 1), ()),
        "MatMulInteger": ((0, 1), ()),
        "MatMulIntegerToFloat": ((0, 1), (6,)),
        "DynamicQuantizeMatMul": ((1,), (4,)),
        "QLinearMatMul": ((0, 3), ()),
        "Einsum": ((0, 1, 2), ()),
        "RNN": ((1, 2), (3,)),
        "GRU": ((1, 2), (3,)),
        "LSTM": ((1, 2), (3, 7)),
        "Attention": ((1,), (2,)),
        "QAttention": ((1,), (2,)),
        "Gather": ((0,), ()),
        "EmbedLayerNormalization": ((2, 3, 4), (5, 6)),
    }
)
# What belongs to the layer before: statistics, scales and offsets, one for each channel.
_FOLLOWING: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "BatchNormalization": (1, 2, 3, 4),
        "InstanceNormalization": (1, 2),
        "LayerNormalization": (1, 2),
        "GroupNormalization": (1, 2),
        "RMSNormalization": (1,),
        "SimplifiedLayerNormalization": (1,),
        "SkipLayerNormalization": (2, 3, 4),
        "SkipSimplifiedLayerNormalization": (2, 3),
        "BiasGelu": (1,),
        "FastGelu": (1,),
        "PRelu": (1,),
        "Add": (0, 1),
        "Sub": (0, 1),
        "Mul": (0, 1),
        "Div": (0, 1),
    }
)
_ARITHMETIC = ("Add", "Sub", "Mul", "Div")
_MASK = 1e4  # numbers as large as this in a sum are a mask over positions, not a bias


@dataclass(frozen=True)
class Operand:
    """A constant input of a node, and the stored tensor behind it.

    Attributes:
        node: index of the node in the graph.
        input: index of the input.
        stored: the initializer, or the output of the Constant node, that holds the data; of several from which the
            input is computed (numbers, scale and zero point) the largest.
    """

    node: int
    input: int
    stored: str


@dataclass(frozen=True)
class WeightedLayer:
    """A node with weights, by its original name, and all that is redrawn with it, its own operands first."""

    name: str
    operands: tuple[Operand, ...]


@dataclass(frozen=True)
class Constants:
    """What the main graph of a model holds and computes without its inputs.

    Attributes:
        stored: initializers and the tensors of Constant nodes, by name.
        makers: the node, by its index, that computes each other tensor that depends on these alone.
    """

    stored: Mapping[str, TensorProto]
    makers: Mapping[str, int]
    nodes: Sequence[NodeProto] = field(repr=False)

    def __contains__(self, name: str) -> bool:
        return name in self.stored or name in self.makers

    def behind(self, name: str) -> str | None:
        """The largest stored tensor that a constant is computed from, the first of equal ones; None for no constant."""
        found = [n for n in self._roots(name) if self.stored[n].data_type != TensorProto.STRING]
        return max(found, key=lambda n: math.prod(self.stored[n].dims), default=None)

    def _roots(self, name: str) -> Iterator[str]:
        if name in self.stored:
            yield name
        elif name in self.makers:
            for one in self.nodes[self.makers[name]].input:
                yield from self._roots(one)


def constants_of(proto: ModelProto) -> Constants:
    """Every constant of the main graph; the bodies of its branches and loops are not looked into."""
    graph = proto.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    makers: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        if node.op_type == "Constant" and node.domain == "":
            tensor = next((a.t for a in node.attribute if a.name == "value"), None)
            if tensor is not None:
                stored[node.output[0]] = tensor
            continue
        read = [name for name in node.input if name]
        if read and all(name in stored or name in makers for name in read):
            makers |= dict.fromkeys(node.output, index)
    return Constants(stored, makers, graph.node)


def array_of(tensor: TensorProto) -> Array:
    """The numbers of a stored tensor.

    Raises:
        ExternalDataError: they lie in a file beside the model.
    """
    if tensor.data_location == TensorProto.EXTERNAL:
        raise ExternalDataError(
            f"tensor '{tensor.name}' keeps its data in a file beside the model. Read the model with "
            "`load_model`, which takes it in."
        )
    return numpy_helper.to_array(tensor)


def layers_of(proto: ModelProto) -> list[WeightedLayer]:
    """The layers with weights that the first output depends on, from the output to the input.

    A layer is a node that weighs what depends on the model's input by a stored tensor whose numbers are not all the
    same: convolutions, matrix products, recurrent cells, embeddings. With it go its biases and what follows it up
    to the next layer: the statistics, scales and offsets of normalisations, and vectors that are added or
    multiplied. What comes before the first layer (the preprocessing) belongs to none.

    Args:
        proto: as `load_model` gives it: nodes in topological order, each with a name of its own.

    Raises:
        ExternalDataError: weights lie outside the model.
    """
    constants, graph = constants_of(proto), proto.graph
    operands: dict[int, list[Operand]] = {}
    owners: dict[str, int] = {}  # of each tensor: the layer that it comes from
    for index, node in enumerate(graph.node):
        computed = [name for name in node.input if name and name not in constants]
        if not computed:
            continue
        own = list(_own(constants, index, node))
        owner = index if own else max((owners[n] for n in computed if n in owners), default=None)
        if owner is not None:
            operands.setdefault(owner, []).extend(own or _following(constants, index, node))
            owners |= dict.fromkeys(node.output, owner)
    used = _used(proto)
    return [
        WeightedLayer(graph.node[index].name, tuple(operands[index]))
        for index in sorted(operands, reverse=True)
        if index in used
    ]


def _own(constants: Constants, index: int, node: NodeProto) -> Iterator[Operand]:
    """Weights, and with them biases; nothing of a node that has no weights."""
    weights, biases = _WEIGHTS.get(node.op_type, ((), ()))
    found = [one for one in _operands(constants, index, node, weights) if _is_weight(constants, node, one)]
    if found:
        yield from found
        yield from _operands(constants, index, node, biases)


def _is_weight(constants: Constants, node: NodeProto, operand: Operand) -> bool:
    tensor = constants.stored[operand.stored]
    if node.op_type == "Gather" and (len(tensor.dims) < 2 or array_of(tensor).dtype.kind in "iub"):
        return False  # a shape or an index, not an embedding
    array = array_of(tensor)
    return bool((array != array.flat[0]).any()) if array.size else False


def _following(constants: Constants, index: int, node: NodeProto) -> Iterator[Operand]:
    for operand in _operands(constants, index, node, _FOLLOWING.get(node.op_type, ())):
        array = array_of(constants.stored[operand.stored])
        if node.op_type not in _ARITHMETIC or _is_vector(array):
            yield operand


def _is_vector(array: Array) -> bool:
    """A number for each channel: not a grid (positions, a mask over pairs), nor a count or a mask."""
    if array.dtype.kind in "iub" or sum(size > 1 for size in array.shape) != 1:
        return False
    return float(np.abs(array.astype(np.float64)).max()) < _MASK


def _operands(constants: Constants, index: int, node: NodeProto, inputs: Sequence[int]) -> Iterator[Operand]:
    for i in inputs:
        stored = constants.behind(node.input[i]) if i < len(node.input) else None
        if stored is not None and math.prod(constants.stored[stored].dims) > 1:
            yield Operand(index, i, stored)


def _used(proto: ModelProto) -> set[int]:
    """Indices of the nodes that the first output depends on."""
    graph = proto.graph
    needed, found = {graph.output[0].name}, set()
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if not needed.isdisjoint(node.output):
            found.add(index)
            needed.update(node.input)
    return found
