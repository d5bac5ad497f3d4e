"""From a file, bytes or a proto to a complete, checked and named model: the first step of all."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import (  # type: ignore[import-untyped]
    DecodeError,
    EncodeError,
    Message,
)
from onnx import TensorProto, checker, inliner

from srd_onnx.cache.digests import Digests, stamp_of
from srd_onnx.errors import EmptyGraphError, InvalidModelError, NotAnOnnxFileError, OpsetError
from srd_onnx.graph.expand import is_own, own_up
from srd_onnx.graph.external_data import LIMIT, nodes, read_external_data, too_large
from srd_onnx.graph.functions import beyond, write_out
from srd_onnx.graph.opset import default_opset, name_nodes, set_ir_version, to_opset
from srd_onnx.ort import runtime

__all__ = ["LoadedModel", "load_model", "to_opset"]

OLDEST_OPSET = 7  # older ones are converted: their BatchNormalization, Dropout and broadcasting differ
WORKING_OPSET = 18

_FLOATS = {
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.FLOAT8E4M3FN,
    TensorProto.FLOAT8E4M3FNUZ,
    TensorProto.FLOAT8E5M2,
    TensorProto.FLOAT8E5M2FNUZ,
    TensorProto.FLOAT4E2M1,
}
_OTHER_FORMATS = (  # first bytes, what the file is, what to do
    (b"\x89HDF", "an HDF5 file (Keras weights)", "Convert it with tf2onnx."),
    (b"PK\x03\x04", "a zip archive (perhaps a PyTorch or Keras file)", "Export it with torch.onnx.export."),
    (b"\x80", "a Python pickle (perhaps PyTorch weights)", "Export it with torch.onnx.export."),
    (b"\x1f\x8b", "a gzip archive", "Unpack it first."),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "Run `git lfs pull`."),
)


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for the next step, and what the report says about it.

    Attributes:
        proto: the model, with all weights inside, every node named uniquely, no initializer among the inputs,
            no local functions, and an opset that the installed ONNX Runtime runs.
        path: the file it came from, or None.
        sha256: hex digest of the file, followed by its external data files in order of their names; of the
            bytes for bytes, of the deterministic serialisation for a proto.
        opset: the default-domain opset as the file has it, before any conversion.
        producer: name and version of the exporter, "" if it did not say.
        parameters: elements of the float tensors stored in the model, and of quantised weights.
        half: what the file has in "float16" or "bfloat16" and `proto` in float32, by name (of constants within nodes,
            by that of an attribute or a result); see `srd_onnx.graph.widen`.
    """

    proto: onnx.ModelProto
    path: Path | None
    sha256: str
    opset: int
    producer: str
    parameters: int
    half: Mapping[str, str]

    @property
    def precision(self) -> str | None:
        """In words, where it is not computed in the precision of the file."""
        if not self.half:
            return None
        kinds = " and ".join(sorted(set(self.half.values())))
        return f"{kinds} is computed in float32: results are not rounded to {kinds} between the nodes"


def load_model(source: str | Path | bytes | onnx.ModelProto, digests: Digests | None = None) -> LoadedModel:
    """Read, check and normalise a model. `source` itself is never changed.

    `digests` remembers files that were hashed and found right before: neither is done again.

    Raises:
        NotAnOnnxFileError: no such file, a folder, empty, another format, or cut short.
        ModelTooLargeError: over 2 GB with its external data; found out before anything of it is read.
        ExternalDataError: external data is missing, too short, or outside the model's folder.
        EmptyGraphError: no node, no input or no output.
        OpsetError: an opset that this installation cannot run and cannot convert.
        InvalidModelError: refused by onnx.checker.
    """
    path = Path(source) if isinstance(source, str | Path) else None
    where = str(path) if path else "the model"
    before = stamp_of(path) if digests and path else None
    data = _bytes_of(source, where)
    known = digests.find(path) if digests and path else None
    if known is not None:
        return _loaded(_parsed(data, where), path, known)
    with ThreadPoolExecutor(1) as beside:
        digest = beside.submit(hashlib.sha256, data)
        proto = _parsed(data, where)
        files = _checked(proto, data, path, where)
        loaded = _loaded(proto, path, _hexdigest(digest.result(), files))
    if digests and path and before and not files:
        digests.remember(path, before, loaded.sha256)
    return loaded


def _checked(proto: onnx.ModelProto, data: bytes, path: Path | None, where: str) -> list[Path]:
    """Read external data into it, refuse what is no sound model, and give the external files."""
    _check_text(proto, where)
    files = read_external_data(proto, path, len(data))
    _check_not_empty(proto.graph, where)
    renamed = _shorten_domain(proto)
    _check(proto, None if files or renamed else data, where)
    return files


def _loaded(proto: onnx.ModelProto, path: Path | None, digest: str) -> LoadedModel:
    opset = default_opset(proto)
    producer = f"{proto.producer_name} {proto.producer_version}".strip()
    _shorten_domain(proto)
    _normalise(proto)
    parameters = _parameters(proto.graph)
    return LoadedModel(_runnable(proto, opset), path, digest, opset, producer, parameters, half={})


def _bytes_of(source: str | Path | bytes | onnx.ModelProto, where: str) -> bytes:
    if isinstance(source, bytes):
        data = source
    elif isinstance(source, onnx.ModelProto):
        try:
            data = source.SerializeToString(deterministic=True)
        except (EncodeError, ValueError) as error:  # over 2 GB
            raise too_large(where, source.ByteSize()) from error
    else:
        data = _read(Path(source))
    if not data:
        raise NotAnOnnxFileError(f"{where} is empty (0 bytes). Copy or export it again.")
    if len(data) > LIMIT:
        raise too_large(where, len(data))
    return data


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise NotAnOnnxFileError(f"{path} is a folder. Give the path of the .onnx file in it.")
        if "\0" in str(path) or not path.exists():
            raise NotAnOnnxFileError(
                f"{path} does not exist. Check the path; `srd-onnx models` lists the zoo."
            )
        if not path.is_file():
            raise NotAnOnnxFileError(f"{path} is not a regular file. Give the path of an .onnx file.")
        if (size := path.stat().st_size) > LIMIT:
            raise too_large(str(path), size)
        return path.read_bytes()
    except OSError as error:
        raise NotAnOnnxFileError(f"{path} cannot be read: {error}") from error


def _parsed(data: bytes, where: str) -> onnx.ModelProto:
    for start, kind, remedy in _OTHER_FORMATS:
        if data.startswith(start):
            raise NotAnOnnxFileError(f"{where} is not an ONNX model but {kind}. {remedy}")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise NotAnOnnxFileError(
            f"{where} is not an ONNX model, or only a part of one: {len(data)} bytes that do not parse. "
            "If it was downloaded or copied, do that again and compare the sizes."
        ) from error
    if not proto.HasField("graph") or not proto.ir_version or not proto.opset_import:
        lacking = [name for name in ("ir_version", "graph", "opset_import") if not _has(proto, name)]
        raise NotAnOnnxFileError(
            f"{where} is not a complete ONNX model: it has no {' and no '.join(lacking)}. "
            "It may be cut short, or another kind of file: copy or export it again."
        )
    return proto


def _has(proto: onnx.ModelProto, field: str) -> bool:
    return bool(proto.opset_import) if field == "opset_import" else proto.HasField(field)


def _check_text(proto: onnx.ModelProto, where: str) -> None:
    """Protobuf hands out text that is not UTF-8 as bytes, which would surface much later as a TypeError."""
    for owner, field in _broken_text(proto):
        raise InvalidModelError(
            f"{where}: field {field!r} of a {owner} is not UTF-8 text, so the file is damaged. "
            "Copy or export it again."
        )


def _broken_text(message: Message) -> Iterator[tuple[str, str]]:
    for field in message.DESCRIPTOR.fields:
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        value = getattr(message, field.name)
        repeated = not isinstance(value, str | bytes | Message)
        for item in value if repeated else [value] if message.HasField(field.name) else []:
            if isinstance(item, bytes):
                yield message.DESCRIPTOR.name, field.name
            elif isinstance(item, Message):
                yield from _broken_text(item)


def _check_not_empty(graph: onnx.GraphProto, where: str) -> None:
    fed = {tensor.name for tensor in graph.initializer}
    counts = {
        "node": len(graph.node),
        "input": sum(value.name not in fed for value in graph.input),
        "output": len(graph.output),
    }
    if lacking := [name for name, count in counts.items() if not count]:
        raise EmptyGraphError(
            f"{where}: the graph {graph.name!r} has no {' and no '.join(lacking)}, so there is nothing to "
            "explain. Export a model that computes its outputs from an input."
        )


def _shorten_domain(proto: onnx.ModelProto) -> bool:
    """Write the default domain as "" where the file spells it out, in place; whether it did anywhere.

    ONNX Runtime takes both spellings, onnx.checker only the short one.
    """
    entries = [*proto.opset_import, *nodes(proto.graph)]
    for function in proto.functions:
        entries += [*function.opset_import, *function.node]
    spelt_out = [entry for entry in entries if entry.domain == "ai.onnx"]
    for entry in spelt_out:
        entry.domain = ""
    return bool(spelt_out)


def _normalise(proto: onnx.ModelProto) -> None:
    """No initializers among the inputs, no local functions, every node named, open sizes left open; in place."""
    if proto.functions:
        try:
            proto.CopyFrom(inliner.inline_local_functions(proto))
        except RuntimeError as error:
            raise InvalidModelError(f"the model's local functions cannot be inlined: {error}") from error
    graph = proto.graph
    fed = {tensor.name for tensor in graph.initializer}
    real = [value for value in graph.input if value.name not in fed]
    if len(real) != len(graph.input):
        kept = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in real]
        del graph.input[:]
        graph.input.extend(kept)
        set_ir_version(proto)
    for value in graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0:  # Paddle writes -1 for any size
                dim.ClearField("value")
    name_nodes(graph)


def _check(proto: onnx.ModelProto, data: bytes | None, where: str) -> None:
    """onnx.checker and what it leaves out; `data` is `proto` serialised, where that is at hand."""
    newest = onnx.defs.onnx_opset_version()
    if not 1 <= default_opset(proto) <= newest:
        raise OpsetError(
            f"{where} has opset {default_opset(proto)}; onnx {onnx.__version__} knows 1 to {newest}. "
            "Update onnx, or export the model again with an older opset."
        )
    if any(is_own(node, default_opset(proto)) for node in nodes(proto.graph)):
        # The file is as ONNX Runtime wrote it; onnx has no such operators.
        data, known = None, onnx.ModelProto()
        known.CopyFrom(proto)
        own_up(known, default_opset(proto))
        proto = known
    try:
        checker.check_model(proto if data is None else data, full_check=False)
    except (checker.ValidationError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise InvalidModelError(
            f"{where}: onnx.checker refuses it: {said.rstrip('.')}. Export the model again."
        ) from error


def _runnable(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    newest = runtime.newest_opset()
    if opset < OLDEST_OPSET:
        proto = to_opset(proto, WORKING_OPSET)
    elif opset > newest:
        proto = to_opset(write_out(proto, beyond(newest)), newest)
    proto.ir_version = min(proto.ir_version, runtime.newest_ir_version())
    return proto


def _parameters(graph: onnx.GraphProto) -> int:
    """Elements of float initializers and constants, and of integers that DequantizeLinear makes floats."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    constants: list[TensorProto] = list(graph.initializer)
    quantised: set[str] = set()
    loose = 0
    for node in nodes(graph):
        if node.op_type == "DequantizeLinear" and node.input:
            quantised.add(node.input[0])
        if node.op_type == "Constant":
            for attribute in node.attribute:
                loose += attribute.name == "value_float"
                loose += len(attribute.floats)
                if attribute.HasField("t"):
                    constants.append(attribute.t)
    total: int = sum(math.prod(tensor.dims) for tensor in constants if tensor.data_type in _FLOATS)
    whole = (stored[name] for name in quantised if name in stored and stored[name].data_type not in _FLOATS)
    total += sum(math.prod(tensor.dims) for tensor in whole)
    return loose + total


def _hexdigest(digest: "hashlib._Hash", files: list[Path]) -> str:
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
