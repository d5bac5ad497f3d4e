"""Weights kept beside the model: found, checked and read by us, so that onnx never opens such a path."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from onnx import TensorProto, helper

from srd_onnx.errors import ExternalDataError, ModelTooLargeError

LIMIT = 2**31 - 1  # bytes: no protobuf message, and so no ONNX model in memory, can be larger
_PACKED: dict[int, int] = {
    TensorProto.INT4: 2,
    TensorProto.UINT4: 2,
    TensorProto.FLOAT4E2M1: 2,
}  # elements to a byte


def tensors(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor stored in the model: initializers and attributes, in subgraphs and functions too."""
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from _node_tensors(node)


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node of the graph, and after each one those of its subgraphs."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from nodes(inner)


def read_external_data(proto: onnx.ModelProto, model_path: Path | None, model_size: int) -> list[Path]:
    """Move external data into the tensors of `proto`, in place.

    Args:
        proto: a model just parsed.
        model_path: its file; None when only its bytes are known.
        model_size: bytes of the file itself, which count towards the limit.

    Returns:
        The external files, without repetition, in order of the names that the model gives them.

    Raises:
        ExternalDataError: no path is known, or a file is missing, outside the model's folder or too short.
        ModelTooLargeError: all together is over 2 GB; found out before anything is read.
    """
    outside = [tensor for tensor in tensors(proto) if tensor.data_location == TensorProto.EXTERNAL]
    if not outside:
        return []
    if model_path is None:
        raise ExternalDataError(
            f"tensor {outside[0].name!r} keeps its data in a file beside the model, but the model came "
            "without a path. Give the path of the .onnx file instead."
        )
    files: dict[str, Path] = {}
    places: list[tuple[TensorProto, Path, int, int]] = []
    for tensor in outside:
        given = {entry.key: entry.value for entry in tensor.external_data}
        location = given.get("location", "")
        if location not in files:
            files[location] = _inside(location, model_path, tensor.name)
        places.append((tensor, files[location], *_span(tensor, given, files[location])))
    used = sum(length for *_, length in places)
    total = model_size + max(used, sum(path.stat().st_size for path in set(files.values())))
    if total > LIMIT:
        raise too_large(str(model_path), total)
    for tensor, path, offset, length in places:
        with path.open("rb") as file:
            file.seek(offset)
            tensor.raw_data = file.read(length)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return [files[name] for name in sorted(files)]


def too_large(where: str, size: int) -> ModelTooLargeError:
    """The error for a model of `size` bytes."""
    return ModelTooLargeError(
        f"{where}: the model with its weights has {size / 1e9:.2f} GB, and a model in memory can have no "
        "more than 2.15 GB. Export it in half precision, quantise it, or export only "
        "the part to be explained."
    )


def _inside(location: str, model_path: Path, tensor: str) -> Path:
    """The external file, resolved; it must be a real file below the folder of the model."""
    where = f"{model_path}: tensor {tensor!r} keeps its data in {location!r}"
    parts = (*PurePosixPath(location).parts, *PureWindowsPath(location).parts)
    rooted = PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor
    if not location or "\0" in location or rooted or ".." in parts:
        raise ExternalDataError(
            f"{where}, which is not a plain path below the model's folder. "
            "Do not trust this file; export the model again, or save it with its weights inside."
        )
    folder = model_path.parent.resolve()
    try:
        path = (folder / location).resolve()
        there = path.is_file()
    except (OSError, RuntimeError) as error:  # a name too long, a loop of links
        raise ExternalDataError(f"{where}, which cannot be opened: {error}") from error
    if not path.is_relative_to(folder):
        raise ExternalDataError(
            f"{where}, a link that leads out of the model's folder to {path}. "
            "Copy the data itself beside the model."
        )
    if not there:
        raise ExternalDataError(
            f"{where}, but there is no such file. Put it into {folder}, where the export wrote both."
        )
    return path


def _span(tensor: TensorProto, given: dict[str, str], path: Path) -> tuple[int, int]:
    """Offset and length in bytes, checked against the file and against the shape of the tensor."""
    size = path.stat().st_size
    try:
        offset = int(given.get("offset", "0"))
        length = int(given.get("length", str(size - offset)))
    except ValueError as error:
        raise ExternalDataError(
            f"{path}: tensor {tensor.name!r} gives a place that is no number: {error}. "
            "Export the model again."
        ) from error
    wanted = _byte_size(tensor)
    if offset < 0 or length != wanted or offset + length > size:
        raise ExternalDataError(
            f"{path}: tensor {tensor.name!r} of shape {list(tensor.dims)} needs {wanted} bytes; the model "
            f"says {length} bytes from {offset}, and the file has {size}. It is too short or belongs "
            "to another model: copy or export both files again."
        )
    return offset, length


def _byte_size(tensor: TensorProto) -> int:
    count = 1
    for dim in tensor.dims:
        count *= dim
    if tensor.data_type in _PACKED:
        return -(-count // _PACKED[tensor.data_type])
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError:
        dtype = None
    if dtype is None or dtype.hasobject:
        raise ExternalDataError(
            f"tensor {tensor.name!r} has type {tensor.data_type}, which cannot lie in external data. "
            "Export the model again."
        )
    return count * dtype.itemsize


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield sparse.values
            yield sparse.indices
    for graph in subgraphs(node):
        yield from _graph_tensors(graph)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of one node, not those within them."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
