"""Inner tensors of a simplified model: which a name means, and what they hold (the augmented outputs)."""

import fnmatch
from collections.abc import Mapping, Sequence

import onnxruntime
from onnx import ModelProto

from srd_onnx.engine.assemble import exposed
from srd_onnx.engine.boundary import tensor_named
from srd_onnx.errors import UnknownTensorError
from srd_onnx.graph.ir import Array, Graph, Value
from srd_onnx.ort.runtime import make_session, run


def exposing_session(
    forward: ModelProto, values: Sequence[Value], providers: Sequence[str]
) -> onnxruntime.InferenceSession:
    """A session of the simplified model whose outputs are these tensors (the augmented outputs)."""
    return make_session(exposed(forward, values).SerializeToString(), providers)


def expose(
    forward: ModelProto, values: Sequence[Value], feeds: Mapping[str, Array], providers: Sequence[str]
) -> list[Array]:
    """The values of inner tensors for one input, in the order asked for."""
    if not values:
        return []
    return run(exposing_session(forward, values, providers), [v.name for v in values], feeds)


def values_named(graph: Graph, names: Sequence[str]) -> dict[str, Value]:
    """Tensors by their names, by the original names of the nodes that compute them, or by wildcards over both.

    Returns:
        by the name given; what a wildcard finds by the tensor's own name, from the input on.

    Raises:
        UnknownTensorError: naming all that do not exist in the simplified graph.
    """
    values, found, missing = graph.values, dict[str, Value](), []
    for name in names:
        tensor = tensor_named(graph, name)
        matching = [name] if tensor is not None else _matching(graph, name)
        found |= {one: values[tensor if tensor is not None else one] for one in matching}
        missing += [] if matching else [name]
    if missing:
        raise UnknownTensorError(
            f"the simplified graph has no tensor or node {', '.join(map(repr, missing))}: the name is wrong, or "
            "it was folded into another node. `srd-onnx check MODEL` lists the names that are left."
        )
    return found


def _matching(graph: Graph, wildcard: str) -> list[str]:
    """The tensors of known shape whose name, or whose node's original name, the wildcard fits."""
    origins = {v.name: node.origins for node in graph.nodes for v in node.outputs if v is not None}
    return [
        name
        for name, value in graph.values.items()
        if value.known and fnmatch.filter((name, *origins.get(name, ())), wildcard)
    ]
