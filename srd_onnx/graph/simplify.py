"""Fix the shapes, fold constants and batch norms, and remember the original names.

The folding is ONNX Runtime's own: its basic level (documented as semantics-preserving and within the standard
operators) computes constant and shape subgraphs, folds BatchNormalization, Mul and Add into the convolution
before them, explicit Pads into convolutions, weights' DequantizeLinear into float weights, and drops identities.
So the simplified graph is what the runtime executes, and a layer's output is its preactivation whatever exporter
wrote it.
"""

import functools
import tempfile
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from srd_onnx.errors import InvalidModelError, ShapeError
from srd_onnx.graph.expand import ExpansionTable, expand, is_own, own_up
from srd_onnx.graph.external_data import nodes
from srd_onnx.graph.functions import data_dependent, origin, without_rule, write_out
from srd_onnx.graph.ir import Array, Graph, OpKey
from srd_onnx.graph.narrow import folded_in_half, says_half
from srd_onnx.graph.opset import default_opset, name_nodes, to_opset
from srd_onnx.graph.walk import walk
from srd_onnx.ort.errors import ORT_ERRORS, short_message
from srd_onnx.ort.runtime import CPU, make_session, run, with_weights
from srd_onnx.ort.weights import light

# Emitted nodes use the forms that operators have had since this opset (axes as inputs of every Reduce*).
WORKING_OPSET = 18

# More elements than a shape, an axis list or a scale can have: a weight, which no shape depends on.
_LARGE = 1024

# MatMulAddFusion turns N×T×C token layers into Reshape-Gemm-Reshape, which merges the batch and position axes.
_KEPT_APART = ["MatMulAddFusion"]

# How ONNX Runtime begins the names of tensors inside an operator that it writes out.
_INLINED = "_inlfunc_"

_GROUPS, _STAND_IN = "GroupNormalization", "InstanceNormalization"


def simplify(
    model: ModelProto,
    shapes: Mapping[str, Sequence[int]],
    expansions: ExpansionTable | None = None,
    rules: Container[OpKey] | None = None,
) -> tuple[ModelProto, Graph]:
    """The model for these concrete input shapes, simplified, and its DAG.

    Args:
        model: as `load_model` returns it.
        shapes: the shape of every graph input, by name.
        expansions: how fused operators are written out.
        rules: operators that have a rule; others are written out where onnx defines them by what may have one. All are
            left as they are if it is left out.

    Raises:
        ShapeError: if the shapes contradict the model.
        InvalidModelError: if ONNX Runtime cannot load it.
        UnsupportedCaseError: for a use of a fused operator that its expansion does not cover.
    """
    # Copies of the weights that were needed on the way are gone before the DAG takes its own.
    simplified, origins = _simplified(model, shapes, expansions, rules)
    return simplified, walk(simplified, origins)


def _simplified(
    model: ModelProto,
    shapes: Mapping[str, Sequence[int]],
    expansions: ExpansionTable | None,
    rules: Container[OpKey] | None,
) -> tuple[ModelProto, dict[str, tuple[str, ...]]]:
    # Copies of the weights are made only where they are changed on the way.
    copy, weights = (_copied(model), {}) if says_half(model) else light(model)
    fixed = _with_shapes(copy, shapes)
    if rules is not None:
        fixed = write_out(fixed, without_rule(rules, max(WORKING_OPSET, default_opset(model))))
    disguised, groups = _disguised(fixed)
    folded = _folded(disguised, weights)
    if groups.keys() - {node.name for node in folded.graph.node}:
        folded, groups = _folded(fixed, weights), {}  # one was a constant, and folded as what it is not
    del weights  # they are in the folded model
    foreign = _foreign_shapes(folded, shapes)
    own_up(folded, default_opset(folded))
    large = _take_weights(folded)
    inferred = _inferred(to_opset(folded, max(WORKING_OPSET, default_opset(model))), foreign)
    origins = _origins(fixed, inferred)
    written, parents = expand(inferred, expansions or {})
    if parents:
        inferred = _inferred(written, foreign)
        origins |= {name: origins[parent] for name, parent in parents.items()}
    _put_weights(inferred, large)
    _undisguise(inferred, groups)
    return inferred, origins


def _take_weights(model: ModelProto) -> list[TensorProto]:
    """Move the large initializers out, typed inputs in their place: conversion and inference copy all they get."""
    graph = model.graph
    # Quantised weights stay: how integer arithmetic is written out depends on them.
    taken = [
        np.prod(t.dims, dtype=np.int64) > _LARGE and t.data_type not in (TensorProto.INT8, TensorProto.UINT8)
        for t in graph.initializer
    ]
    large = [t for t, take in zip(graph.initializer, taken, strict=True) if take]
    small = [t for t, take in zip(graph.initializer, taken, strict=True) if not take]
    del graph.initializer[:]
    graph.initializer.extend(small)
    graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in large)
    return large


def _put_weights(model: ModelProto, weights: list[TensorProto]) -> None:
    graph, names = model.graph, {t.name for t in weights}
    inputs = [i for i in graph.input if i.name not in names]
    del graph.input[:]
    graph.input.extend(inputs)
    graph.initializer.extend(weights)


def _foreign_shapes(model: ModelProto, shapes: Mapping[str, Sequence[int]]) -> list[ValueInfoProto]:
    """Shapes that onnx cannot infer, though they do not depend on the data: found by running the nodes on zeros.

    They are what nodes of other domains compute, and what a constant condition leaves of a tensor.
    """
    opset, constants = default_opset(model), {t.name for t in model.graph.initializer}
    strange = [
        n
        for n in model.graph.node
        if n.domain not in ("", "ai.onnx")
        or is_own(n, opset)
        or (n.op_type == "Compress" and n.input[1] in constants)
    ]
    names = [o for n in strange for o in n.output if o]
    if not names:
        return []
    exposed = ModelProto()
    exposed.CopyFrom(model)
    del exposed.graph.output[:]
    exposed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    types = {i.name: helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type) for i in model.graph.input}
    session = make_session(exposed.SerializeToString(), [CPU])
    found = run(session, names, {name: np.zeros(shapes[name], dtype) for name, dtype in types.items()})
    return [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in zip(names, found, strict=True)
    ]


def _inferred(model: ModelProto, foreign: Sequence[ValueInfoProto]) -> ModelProto:
    # Stale shapes from before the folding would contradict what is inferred now.
    del model.graph.value_info[:]
    model.graph.value_info.extend(foreign)
    for node in model.graph.node:
        if node.op_type == "STFT" and not any(a.name == "onesided" for a in node.attribute):
            # Its default, of which the shape inference of onnx does not know.
            node.attribute.append(helper.make_attribute("onesided", 1))
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise InvalidModelError(f"shape inference failed on the simplified model: {error}") from error


def _copied(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def _with_shapes(fixed: ModelProto, shapes: Mapping[str, Sequence[int]]) -> ModelProto:
    """The model with these shapes, in place."""
    for info in fixed.graph.input:
        dims = info.type.tensor_type.shape.dim
        given = tuple(shapes[info.name])
        declared = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in dims)
        if not info.type.tensor_type.HasField("shape"):
            info.type.tensor_type.shape.SetInParent()
            declared = tuple("?" for _ in given)
            for _ in given:
                dims.add()
        fits = len(given) == len(declared) and all(
            isinstance(d, str) or d == g for d, g in zip(declared, given, strict=True)
        )
        if not fits:
            raise ShapeError(
                f"input '{info.name}' has shape {list(given)}, but the model declares {list(declared)}; "
                "resize or crop the data to fit (a name such as 'N' stands for any size)"
            )
        for dim, size in zip(dims, given, strict=True):
            dim.dim_value = size
    # Shapes of outputs and inner tensors follow from the inputs; the file may state others.
    del fixed.graph.value_info[:]
    for info in fixed.graph.output:
        info.type.tensor_type.ClearField("shape")
    return fixed


def _folded(model: ModelProto, weights: Mapping[str, Array]) -> ModelProto:
    folded = folded_in_half(model, functools.partial(optimised, beside=weights))
    if any(name.startswith(_INLINED) for node in folded.graph.node for name in node.output):
        # What has no kernel of its own is written out only after the folding, and with its shapes open.
        folded = folded_in_half(folded, optimised)
    _cast_constants(folded.graph)
    name_nodes(folded.graph)
    return folded


def _disguised(model: ModelProto) -> tuple[ModelProto, dict[str, NodeProto]]:
    """With InstanceNormalization, which takes and gives the same tensors, for each GroupNormalization; and these.

    ONNX Runtime has no kernel for it and writes it out, by a Reshape that mixes channels with positions; and onnx
    cannot infer its shape.
    """
    groups = {n.name: n for n in model.graph.node if n.op_type == _GROUPS and n.domain == "" and n.name}
    if not groups:
        return model, {}
    disguised = _copied(model)
    for node in disguised.graph.node:
        if node.name in groups:
            node.op_type = _STAND_IN
            _replace_attributes(node, [a for a in node.attribute if a.name == "epsilon"])
    return disguised, groups


def _undisguise(model: ModelProto, groups: Mapping[str, NodeProto]) -> None:
    for node in model.graph.node:
        if node.name in groups:
            node.op_type = _GROUPS
            _replace_attributes(node, groups[node.name].attribute)


def _replace_attributes(node: NodeProto, wanted: Iterable[AttributeProto]) -> None:
    kept = list(wanted)
    del node.attribute[:]
    node.attribute.extend(kept)


def optimised(model: ModelProto, *, beside: Mapping[str, Array] | None = None) -> ModelProto:
    """The model after ONNX Runtime's basic level.

    Args:
        model: with its weights inside, or without those that are
        beside: it, as `light` gives them.

    Raises:
        InvalidModelError: if ONNX Runtime cannot load it.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    # Without this, ONNX Runtime keeps DequantizeLinear on weights for its integer kernels.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    # It is never run, so its kernels need not lay out their weights.
    options.add_session_config_entry("session.disable_prepacking", "1")
    given, weights = light(model)
    with_weights(options, weights | dict(beside or {}))
    with tempfile.TemporaryDirectory(prefix="srd-onnx-") as folder:
        path = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(path)
        # Of one piece, it would be parsed with its weights; so these are read once, into their place.
        prefix = "session.optimized_model_external_initializers_"
        options.add_session_config_entry(prefix + "file_name", "weights.bin")
        options.add_session_config_entry(prefix + "min_size_in_bytes", "4096")
        try:
            ort.InferenceSession(
                given.SerializeToString(),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=_KEPT_APART,
            )
        except ORT_ERRORS as error:
            message = short_message(error)
            raise InvalidModelError(
                f"ONNX Runtime cannot load the model: {message}{_remedy(message)}"
            ) from error
        del weights, options  # before they are there once more
        return onnx.load(path)


def _remedy(message: str) -> str:
    if message.startswith("Could not find an implementation"):
        return ". If its numbers are float64, export the model in float32"
    return ""


def _cast_constants(graph: GraphProto) -> None:
    """Fold the Casts of float16 weights that ONNX Runtime adds, after its own folding, where it has no kernel."""
    stored = {t.name: t for t in graph.initializer}
    casts = [n for n in graph.node if n.op_type == "Cast" and n.domain == "" and n.input[0] in stored]
    for node in casts:
        dtype = helper.tensor_dtype_to_np_dtype(helper.get_node_attr_value(node, "to"))
        data = numpy_helper.to_array(stored[node.input[0]]).astype(dtype)
        graph.initializer.append(numpy_helper.from_array(data, node.output[0]))
        graph.node.remove(node)
    used = {name for node in nodes(graph) for name in node.input} | {o.name for o in graph.output}
    for name in {node.input[0] for node in casts} - used:
        graph.initializer.remove(stored[name])


def _origins(original: ModelProto, simplified: ModelProto) -> dict[str, tuple[str, ...]]:
    """For each simplified node the original nodes it stands for: those between its tensors, its own first.

    Folding keeps the names of the tensors that survive, so what lies between a node's inputs and outputs in the
    original graph is what was fused into it.
    """
    data = data_dependent(original)
    producer = {name: node for node in original.graph.node for name in node.output if name}
    kept = {name for node in simplified.graph.node for name in node.output}
    found = {}
    for node in simplified.graph.node:
        stop = kept - set(node.output)
        between = _between([n for n in node.output if n in producer], producer, stop, data)
        own_first = [*(n for n in between if n.name == node.name), *between]
        found[node.name] = tuple(dict.fromkeys(origin(n) or n.name for n in own_first)) or (node.name,)
    return found


def _between(
    names: list[str], producer: Mapping[str, NodeProto], stop: set[str], data: set[str]
) -> list[NodeProto]:
    found: list[NodeProto] = []
    seen: set[str] = set()
    while names:
        name = names.pop()
        if name in seen or name in stop or name not in data or name not in producer:
            continue
        seen.add(name)
        found.append(producer[name])
        names.extend(producer[name].input)
    return found[::-1]
