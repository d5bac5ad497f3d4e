"""Bringing a model to another opset without losing what the converter of onnx drops."""

import onnx
from onnx import version_converter

from srd_onnx.errors import OpsetError
from srd_onnx.graph.external_data import nodes

_DEFAULT = ("", "ai.onnx")
_BROADCASTING = 7  # since this opset operands are aligned at their last axes


def default_opset(proto: onnx.ModelProto) -> int:
    """The version of the default domain that the model imports.

    Raises:
        OpsetError: it imports none.
    """
    for entry in proto.opset_import:
        if entry.domain in _DEFAULT:
            return int(entry.version)
    raise OpsetError(
        f"the model imports no opset of the standard domain, only {[e.domain for e in proto.opset_import]}. "
        "Export it again with standard operators."
    )


# What the converter's C++ code raises.
_CONVERTER_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, onnx.shape_inference.InferenceError)


def to_opset(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """A copy of the model with its default domain at `opset`, and without the domains that no node uses.

    Names of tensors and nodes stay, and so do the `metadata_props` of nodes and graph; nodes that the
    conversion had to add get names of their own. Nodes of other domains pass through untouched.

    Args:
        proto: a complete model without local functions, its nodes named uniquely.
        opset: the version wanted, up or down.

    Raises:
        OpsetError: onnx does not know that opset, or has no way from this one to it.
    """
    source = _without_unused_domains(proto)
    present = default_opset(source)
    newest = onnx.defs.onnx_opset_version()
    if not 1 <= max(present, opset) <= newest or min(present, opset) < 1:
        raise OpsetError(
            f"the model has opset {present}, wanted is {opset}, and onnx {onnx.__version__} knows 1 to "
            f"{newest}. Update onnx and onnxruntime, or export the model again with an older opset."
        )
    if present == opset:
        return source
    if present < _BROADCASTING <= opset:
        _align_slopes(source)
    try:
        result = version_converter.convert_version(source, opset)
    except _CONVERTER_ERRORS as error:
        said = str(error).strip().splitlines()
        reason = said[0] if said else type(error).__name__
        raise OpsetError(
            f"the model has opset {present} and cannot be converted to {opset}: {reason}. "
            f"Export it again with opset {max(7, min(opset, 18))}."
        ) from error
    _restore(result, source)
    name_nodes(result.graph)
    set_ir_version(result)
    return result


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node, in subgraphs too, a name of its own, in place.

    A node without one is called after its operator and first output; of nodes that share a name the first
    keeps it and the others get a number.
    """
    every = list(nodes(graph))
    taken = {node.name for node in every}
    seen: set[str] = set()
    for node in every:
        if not node.name or node.name in seen:
            first = next((name for name in node.output if name), "")
            base = node.name or f"{node.op_type}({first})"
            name, number = base, 1
            while name in taken:
                name, number = f"{base}_{number}", number + 1
            node.name = name
            taken.add(name)
        seen.add(node.name)


def set_ir_version(proto: onnx.ModelProto) -> None:
    """Raise the IR version, in place, to the least that its opsets and its free initializers ask for."""
    least = onnx.helper.find_min_ir_version_for(list(proto.opset_import), ignore_unknown=True)
    proto.ir_version = max(int(proto.ir_version), int(least), 4)


def _without_unused_domains(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    used = {node.domain for node in nodes(copy.graph)} | {
        node.domain for f in copy.functions for node in f.node
    }
    kept = [entry for entry in proto.opset_import if entry.domain in used or entry.domain in _DEFAULT]
    del copy.opset_import[:]
    copy.opset_import.extend(kept)
    return copy


def _align_slopes(proto: onnx.ModelProto) -> None:
    """Give the slopes of PRelu, one per channel, the axes that opset 7 wants behind the channels, in place.

    The converter of onnx leaves them as they are.
    """
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    known = [*inferred.input, *inferred.value_info]
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in known if v.type.tensor_type.HasField("shape")}
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type != "PRelu" or node.domain not in _DEFAULT or node.input[1] not in stored:
            continue
        slopes, rank = stored[node.input[1]], ranks.get(node.input[0], 0)
        if len(slopes.dims) == 1 and slopes.dims[0] > 1 and rank > 2:
            aligned = onnx.TensorProto.FromString(slopes.SerializeToString())
            aligned.name = f"{node.name}/{slopes.name}"
            aligned.dims.extend([1] * (rank - 2))
            proto.graph.initializer.append(aligned)
            node.input[1] = aligned.name


def _restore(result: onnx.ModelProto, source: onnx.ModelProto) -> None:
    """Put back what the converter does not carry over: metadata of nodes and graph."""
    before = {node.name: node for node in nodes(source.graph)}
    for node in nodes(result.graph):
        if node.name in before and not node.metadata_props:
            node.metadata_props.extend(before[node.name].metadata_props)
    if not result.graph.metadata_props:
        result.graph.metadata_props.extend(source.graph.metadata_props)
