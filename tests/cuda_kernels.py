"""What ONNX Runtime's CUDA provider has kernels for, as a table, and which nodes of a model have none there.

A kernel fits a node if its versions hold the one in which the operator got its present meaning, and its element types
those of the tensors. A kernel without a last version fits its first alone: that is how ONNX Runtime looks them up.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, defs

from srd_onnx.engine.emit import FORWARD_NODE
from srd_onnx.ort.weights import light

TABLE = Path(__file__).with_name("cuda_kernels.tsv")
_NAMES = {"float": TensorProto.FLOAT, "double": TensorProto.DOUBLE}


@dataclass(frozen=True)
class Kernel:
    """Versions of one operator, and the element types (of TensorProto) of each type that varies, by its name."""

    first: int
    last: int | None
    types: Mapping[str, frozenset[int]]

    def fits(self, since: int, types: Mapping[str, frozenset[int]]) -> bool:
        """Whether it computes the operator as of version `since`; `types` that are not known fit."""
        versions = since == self.first if self.last is None else self.first <= since <= self.last
        return versions and all(types.get(name, frozenset()) <= known for name, known in self.types.items())


@cache
def kernels() -> Mapping[str, tuple[Kernel, ...]]:
    """By operator."""
    found: dict[str, list[Kernel]] = {}
    for line in TABLE.read_text().splitlines():
        if not line.startswith("#"):
            op, first, last, *types = line.split("\t")
            known = dict(one.split("=") for one in types)
            kernel = Kernel(
                int(first),
                None if last == "-" else int(last),
                {name: frozenset(map(_element_type, known[name].split(","))) for name in known},
            )
            found.setdefault(op, []).append(kernel)
    return {op: tuple(of_op) for op, of_op in found.items()}


def without_kernel(model: ModelProto, nodes: Iterable[NodeProto]) -> Iterator[tuple[str, str]]:
    """Those of some nodes of a model that have none: operator and version, and the types of the tensors.

    Args:
        model: the types of its inputs and constants are known.
        nodes: some of its nodes; those of their bodies are looked at, too.
    """
    inferred = onnx.shape_inference.infer_shapes(light(model)[0])
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    yield from _without(inferred.graph, {node.name for node in nodes}, opset, {})


def ours(model: ModelProto) -> list[NodeProto]:
    """The nodes that the engine emitted."""
    return [n for n in model.graph.node if any(entry.key == FORWARD_NODE for entry in n.metadata_props)]


def _without(
    graph: GraphProto, names: set[str] | None, opset: int, outer: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    types = {**outer, **{t.name: t.data_type for t in graph.initializer}}
    types |= {v.name: v.type.tensor_type.elem_type for v in [*graph.input, *graph.output, *graph.value_info]}
    for node in graph.node:
        if names is not None and node.name not in names:
            continue
        schema = defs.get_schema(node.op_type, opset, node.domain)
        given = _types(node, schema, types)
        if node.domain or not any(
            k.fits(schema.since_version, given) for k in kernels().get(node.op_type, ())
        ):
            said = ", ".join(f"{name} {_said(given[name])}" for name in sorted(given))
            yield f"{node.op_type} {schema.since_version}", said
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _without(attribute.g, None, opset, types)


def _types(node: NodeProto, schema: defs.OpSchema, types: Mapping[str, int]) -> dict[str, frozenset[int]]:
    """The element types at hand by the name of the schema's type, or of its parameter."""
    found: dict[str, frozenset[int]] = {}
    for tensors, parameters in ((node.input, schema.inputs), (node.output, schema.outputs)):
        for index, tensor in enumerate(tensors):
            kind = types.get(tensor, 0)
            parameter = parameters[min(index, len(parameters) - 1)]
            if tensor and kind:
                for name in (parameter.type_str, parameter.name):
                    found[name] = found.get(name, frozenset()) | {kind}
    return found


def _element_type(name: str) -> int:
    return _NAMES.get(name) or int(getattr(TensorProto, name.upper()))


def _said(types: Iterable[int]) -> str:
    return "/".join(sorted(TensorProto.DataType.Name(kind).lower() for kind in types))
