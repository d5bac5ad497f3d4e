"""What an explanation costs, counted node by node: multiply-adds forward and backward, and numbers written."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from onnx import NodeProto, shape_inference

from srd_onnx.engine.compiling import Compiled, weightless
from srd_onnx.engine.emit import FORWARD_NODE

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Cost:
    """Of one forward node, or of all.

    Attributes:
        forward: its multiply-adds; 0 for what only moves or adds.
        backward: those of the nodes that were emitted for it.
        written: numbers that these write, which costs as much where they multiply little.
    """

    forward: int = 0
    backward: int = 0
    written: int = 0


def costs(compiled: Compiled) -> dict[str, Cost]:
    """The cost of each forward node by its original name; what was emitted for none is under ""."""
    model, _ = weightless(compiled)
    graph = shape_inference.infer_shapes(model).graph
    shapes: dict[str, tuple[int, ...]] = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes.setdefault(value.name, tuple(d.dim_value for d in value.type.tensor_type.shape.dim))
    names = {node.name: node.origins[0] for node in compiled.plan.graph.nodes}
    forward, backward, written = Counter[str](), Counter[str](), Counter[str]()
    for node in graph.node:
        origin = next((p.value for p in node.metadata_props if p.key == FORWARD_NODE), None)
        if origin is None:
            forward[names.get(node.name, "")] += multiply_adds(node, shapes)
        else:
            backward[names.get(origin, "")] += multiply_adds(node, shapes)
            written[names.get(origin, "")] += sum(math.prod(shapes.get(name, (0,))) for name in node.output)
    every = dict.fromkeys([*names.values(), *forward, *backward])
    return {name: Cost(forward[name], backward[name], written[name]) for name in every}


def total(found: Mapping[str, Cost]) -> Cost:
    """All of them together."""
    return Cost(
        sum(one.forward for one in found.values()),
        sum(one.backward for one in found.values()),
        sum(one.written for one in found.values()),
    )


def multiply_adds(node: NodeProto, shapes: Shapes) -> int:
    """Of a convolution or a matrix product; 0 of everything else."""
    made = math.prod(shapes.get(node.output[0], (0,)))
    match node.op_type:
        case "Conv":
            return made * math.prod(shapes[node.input[1]][1:])
        case "ConvTranspose":
            return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
        case "MatMul":
            return made * shapes[node.input[0]][-1]
        case "Gemm":
            inner = next((a.i for a in node.attribute if a.name == "transA"), 0)
            return made * shapes[node.input[0]][0 if inner else 1]
        case _:
            return 0
