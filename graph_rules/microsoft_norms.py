"""Layer and RMS normalisation with the sums that ONNX Runtime fused into them, and the embeddings of BERT."""

import math

import numpy as np
from onnx import TensorProto

from graph_rules.fused import along, attribute, fused, given
from srd_onnx.graph.expand import Writer
from srd_onnx.graph.ir import Node, Value

_PRODUCTS = ("FusedMatMul", "Gemm", "MatMul")


def _layer(write: Writer, node: Node, x: str, scale: Value, shift: Value | None) -> tuple[str, ...]:
    """LayerNormalization over the last axis, and the statistics that it gives."""
    return write.many(
        "LayerNormalization", x, scale, shift, outputs=3, axis=-1, epsilon=attribute(node, "epsilon")
    )


def _rms(write: Writer, node: Node, x: str, scale: Value) -> tuple[str, str]:
    """``scale x / sqrt(mean(x²) + epsilon)`` over the last axis, in single precision at least; and 1 / the root."""
    like = node.input(0)
    half = like.dtype.itemsize < 4
    wide = write("Cast", x, to=TensorProto.FLOAT) if half else x
    kind = np.dtype(np.float32) if half else like.dtype
    squares = along(write, "ReduceMean", write("Mul", wide, wide), -1)
    root = write("Sqrt", write("Add", squares, write.const(attribute(node, "epsilon"), kind)))
    y = write("Div", wide, root)
    return write("Mul", write("CastLike", y, x) if half else y, scale), write("Reciprocal", root)


@fused("LayerNormalization")
def layer_normalization(write: Writer, node: Node) -> list[str | None]:
    """The standard operator, as ONNX Runtime writes it for opsets that do not have it."""
    attrs = given(node, "axis", "epsilon", "stash_type")
    inputs = [node.input(0), node.input(1), node.optional(2)]
    return list(write.many("LayerNormalization", *inputs, outputs=len(node.outputs), **attrs))


@fused("SimplifiedLayerNormalization")
def simplified_layer_normalization(write: Writer, node: Node) -> list[str | None]:
    """``scale x / sqrt(mean(x²) + epsilon)``."""
    x, axis = node.input(0), attribute(node, "axis")
    node.require(axis in (-1, x.rank - 1), f"axis {axis} is not the last one")
    return list(_rms(write, node, x.name, node.input(1)))


def _summed(write: Writer, node: Node, bias: Value | None) -> str:
    """``input + skip + bias``, the bias first to the one that is a product: its bias it was before the fusion."""
    terms = [node.input(0).name, node.input(1).name]
    if bias is not None:
        products = [write.made_by.get(name) in _PRODUCTS for name in terms]
        at = int(products == [False, True])
        terms[at] = write("Add", terms[at], bias)
    return write("Add", *terms)


@fused("SkipLayerNormalization")
def skip_layer_normalization(write: Writer, node: Node) -> list[str | None]:
    """``LayerNormalization(input + skip + bias)``, and the sum."""
    z = _summed(write, node, node.optional(4))
    return [*_layer(write, node, z, node.input(2), node.optional(3)), z]


@fused("SkipSimplifiedLayerNormalization")
def skip_simplified_layer_normalization(write: Writer, node: Node) -> list[str | None]:
    """``scale z / sqrt(mean(z²) + epsilon)`` of ``z = input + skip + bias``, and that sum."""
    z = _summed(write, node, node.optional(3))
    y, inverse = _rms(write, node, z, node.input(2))
    return [y, None, inverse, z]


@fused("EmbedLayerNormalization")
def embed_layer_normalization(write: Writer, node: Node) -> list[str | None]:
    """``LayerNormalization(word[ids] + position[0...] + segment[segment_ids])``, how many ids count, and the sum."""
    ids, segments, own_positions = node.input(0), node.optional(1), node.optional(8)
    positions = own_positions or write.const(np.arange(ids.shape[1])[None], np.int64)
    z = write("Add", write("Gather", node.input(2), ids), write("Gather", node.input(3), positions))
    if segments is not None and (table := node.optional(4)) is not None:
        z = write("Add", z, write("Gather", table, segments))
    y, *_ = _layer(write, node, z, node.input(5), node.optional(6))
    return [y, _ids_that_count(write, node.optional(7), math.prod(ids.shape[:1])), z]


def _ids_that_count(write: Writer, mask: Value | None, batch: int) -> str:
    """Of each item of the batch how many ids the mask lets through; 0 without a mask, as ONNX Runtime says."""
    if mask is None:
        return write("Identity", write.const(np.zeros(batch), np.int32))
    return write("Cast", write("ReduceSum", mask, write.ints(1), keepdims=0), to=TensorProto.INT32)
