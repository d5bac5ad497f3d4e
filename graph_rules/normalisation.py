"""Normalisation with statistics that are constants."""

import numpy as np

from graph_rules.registry import activation, always, cotangent, rule, through, to_first
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Array, Node


def _given(node: Node, index: int) -> Array:
    node.input(index)
    data = node.constant(index)
    assert data is not None
    return data


def _affine(node: Node) -> tuple[Array, Array]:
    """``y = a x + c`` per channel, shaped to broadcast along axis 1."""
    scale, shift, mean, variance = (_given(node, i) for i in range(1, 5))
    slope = scale / np.sqrt(variance + np.asarray(node.attrs["epsilon"], variance.dtype))
    shape = (1, -1, *[1] * (node.input(0).rank - 2))
    return slope.reshape(shape), (shift - slope * mean).reshape(shape)


def _bias(emit: Emitter, node: Node) -> str:
    return emit.like(node.output(), _affine(node)[1])


@rule("BatchNormalization", versions=(15,), roles=activation, routes=always, spread=through, bias=_bias)
def batch_normalization(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g scale / sqrt(var + eps)``; inference form. Simplification folds it wherever a convolution is before it."""
    node.require(
        not node.attrs["training_mode"], "training mode has no fixed statistics; export for inference"
    )
    slope = emit.like(node.output(), _affine(node)[0])
    return to_first(node, emit("Mul", cotangent(cotangents, node), slope))
