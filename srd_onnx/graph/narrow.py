"""float16 folded in float32 and written back: what ONNX Runtime folds on the CPU is full of Casts to float32 otherwise.

Where the model runs elsewhere (CUDA) there are kernels for float16, and it is to be explained in it. Folding keeps the
names of the tensors that survive, so each gets back the type that it had; what is new gets that of what it goes into.
"""

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from srd_onnx.graph.external_data import subgraphs
from srd_onnx.graph.opset import default_opset
from srd_onnx.graph.widen import said_of, widen
from srd_onnx.ort.weights import light

_F16, _F32 = TensorProto.FLOAT16, TensorProto.FLOAT
_MADE = (
    "to",
    "dtype",
    "output_dtype",
    "output_datatype",
)  # attributes that name the type of what a node makes


def says_half(model: ModelProto) -> bool:
    """Whether anything in a model is said to be float16."""
    return bool(said_of(model, {_F16}))


def folded_in_half(model: ModelProto, fold: Callable[[ModelProto], ModelProto]) -> ModelProto:
    """What `fold` makes of a model; of one with float16 it is given the model in float32, and float16 is written back.

    A model of which onnx cannot tell all types, or with nodes that have bodies or are of other domains, is given as it
    is: ONNX Runtime then puts Casts around what it has no kernel for.
    """
    kinds = _kinds_of(model) if says_half(model) else {}
    if _F16 not in kinds.values():
        return fold(model)
    wide = ModelProto()
    wide.CopyFrom(model)
    widen(wide, {_F16})
    folded = fold(wide)
    real = {name for name, kind in _kinds_of(folded).items() if kind == _F32}
    if not real:
        return fold(model)
    return _Narrowing(
        folded, real, {name: kind == _F16 for name, kind in kinds.items() if name in real}
    ).done()


def _kinds_of(model: ModelProto) -> dict[str, int]:
    """The element type of every tensor, by name; none where one is not known."""
    if any(node.domain or any(subgraphs(node)) for node in model.graph.node):
        return {}
    graph = onnx.shape_inference.infer_shapes(light(model)[0]).graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    if not all(found.get(name) for node in graph.node for name in node.output if name):
        return {}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


class _Narrowing:
    """Writes float16 back into a model of float32, node by node.

    Attributes:
        real: the tensors that are float32 in it.
        half: of those that have their type whether it is float16; constants that folding made get theirs where they
            are used.
    """

    def __init__(self, model: ModelProto, real: set[str], half: dict[str, bool]) -> None:
        self.model, self.real, self.half = model, real, half
        self.opset = default_opset(model)
        self.casts: dict[tuple[str, bool], str] = {}

    def done(self) -> ModelProto:
        """The model, its types written back."""
        graph = self.model.graph
        made = [one for node in graph.node for one in (*self._typed(node), node)]
        nodes = [NodeProto.FromString(node.SerializeToString()) for node in made]
        del graph.node[:], graph.value_info[:]
        graph.node.extend(nodes)
        for tensor in graph.initializer:
            if self.half.get(tensor.name):
                tensor.CopyFrom(_halved(tensor))
        for value in (*graph.input, *graph.output):
            if self.half.get(value.name):
                value.type.tensor_type.elem_type = _F16
        return self.model

    def _typed(self, node: NodeProto) -> Iterator[NodeProto]:
        """Give a node its types; and the Casts that it needs, where folding has dropped one that did nothing."""
        schema = onnx.defs.get_schema(node.op_type, self.opset, "")
        made = [i for i, name in enumerate(node.output) if name in self.real]
        known = [i for i in made if node.output[i] in self.half]
        # What is new computes in the type of what it reads.
        half = (
            self.half[node.output[known[0]]]
            if known
            else any(self.half.get(name, False) for name in node.input)
        )
        self.half |= {node.output[i]: half for i in made if i not in known}
        variables = [one.type_str for one in schema.inputs]
        variables += variables[-1:] * (len(node.input) - len(variables))
        own = schema.outputs[min(known[0] if known else 0, len(schema.outputs) - 1)].type_str
        for variable in dict.fromkeys(variables):
            places = [
                i for i, name in enumerate(node.input) if name in self.real and variables[i] == variable
            ]
            types = {self.half[node.input[i]] for i in places if node.input[i] in self.half}
            if variable == own and made:
                wanted = half
            elif variable.startswith("tensor("):
                wanted = variable == "tensor(float16)"
            else:
                wanted = all(types) if types else half
            for i in places:
                if self.half.setdefault(node.input[i], wanted) != wanted:
                    yield from self._cast(node, i, half=wanted)
        if half:
            _make_half(node)

    def _cast(self, node: NodeProto, index: int, *, half: bool) -> Iterator[NodeProto]:
        name = node.input[index]
        if (name, half) not in self.casts:
            cast = self.casts[name, half] = f"{name}/{'float16' if half else 'float32'}"
            yield helper.make_node("Cast", [name], [cast], name=cast, to=_F16 if half else _F32)
        node.input[index] = self.casts[name, half]


def _make_half(node: NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name in _MADE and attribute.i == _F32:
            attribute.i = _F16
        if attribute.HasField("t") and attribute.t.data_type == _F32:
            attribute.t.CopyFrom(_halved(attribute.t))


def _halved(tensor: TensorProto) -> TensorProto:
    with np.errstate(over="ignore"):
        return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
