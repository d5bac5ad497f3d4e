"""Sharing ratio decomposition of SqueezeNet in numpy, float64: from the definition, sharing no code with srd_onnx.

Every ratio is a number per tap and output position, computed as it is defined, ``<v_hat, v_j> / |v_j|²`` with
``v_hat = W_k x_i``; nothing is expanded, no transposed convolution is used. The model is read with onnx alone.
"""

from typing import Any

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Map = NDArray[np.float64]


def explain(model: onnx.ModelProto, image: Map, target: int) -> tuple[Map, Map]:
    """The relevance of every pixel for the target's logit, and all logits.

    Shapes: image [C, H, W]; gives [H, W] and [K].
    """
    weights = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    values: dict[str, Map] = {model.graph.input[0].name: image}
    for node in model.graph.node:
        operands = [values[name] if name in values else weights[name] for name in node.input]
        values[node.output[0]] = _FORWARD[node.op_type](operands, _attributes(node))
    shares = {name: np.zeros(value.shape[1:]) for name, value in values.items() if value.ndim == 3}
    last = model.graph.node[-1]
    assert last.op_type == "ReduceMean"
    encoded = values[last.input[0]]
    shares[last.input[0]] = encoded[target] / encoded[target].size  # <x_p, cotangent>
    for node in reversed(model.graph.node[:-1]):
        operands = [values[name] if name in values else weights[name] for name in node.input]
        share = shares[node.output[0]]
        flows = _BACKWARD[node.op_type](operands, values[node.output[0]], share, _attributes(node))
        for name, flow in zip((n for n in node.input if n in values), flows, strict=True):
            shares[name] += flow
    return shares[model.graph.input[0].name], values[last.output[0]]


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _windows(x: Map, attributes: dict[str, Any], fill: float) -> Map:
    """[C, H, W] to [C, Ho, Wo, kh, kw]."""
    assert set(attributes.get("dilations", [1])) == {1}
    top, left, bottom, right = attributes["pads"]
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right)), constant_values=fill)
    rows, columns = attributes["strides"]
    return np.asarray(
        sliding_window_view(padded, attributes["kernel_shape"], axis=(1, 2))[:, ::rows, ::columns]
    )


def _scattered(taps: Map, shape: tuple[int, ...], attributes: dict[str, Any]) -> Map:
    """Add up what each tap of each output position [Ho, Wo, kh, kw] gives to its input position [H, W]."""
    top, left, bottom, right = attributes["pads"]
    (rows, columns), (height, width) = attributes["strides"], taps.shape[:2]
    full = np.zeros((shape[0] + top + bottom, shape[1] + left + right))
    for i, j in np.ndindex(taps.shape[2:]):
        full[i : i + rows * height : rows, j : j + columns * width : columns] += taps[:, :, i, j]
    return full[top : top + shape[0], left : left + shape[1]]


def _per_norm(share: Map, squared: Map) -> Map:
    """R_j / |v_j|², and 0 where the PFV is zero."""
    return np.divide(share, squared, out=np.zeros_like(share), where=squared > 0)


def _equal_parts(share: Map, x: Map, attributes: dict[str, Any]) -> Map:
    """Each position's share in equal parts for the input positions in bounds of its window."""
    inside = _windows(np.ones((1, *x.shape[1:])), attributes, 0.0)[0]
    parts: Map = share[:, :, None, None] * inside / inside.sum(axis=(2, 3), keepdims=True)
    return parts


def _conv(operands: list[Map], attributes: dict[str, Any]) -> Map:
    x, w, b = operands
    assert attributes.get("group", 1) == 1
    return np.tensordot(w, _windows(x, attributes, 0.0), axes=([1, 2, 3], [0, 3, 4])) + b[:, None, None]


def _conv_back(operands: list[Map], v: Map, share: Map, attributes: dict[str, Any]) -> list[Map]:
    x, w, b = operands
    windows = _windows(x, attributes, 0.0)
    # <W_k x_i, v_j> = <x_i, W_k^T v_j> for every tap k of every output position j
    projected = np.einsum("chwij,cijhw->hwij", windows, np.tensordot(w, v, axes=([0], [0])), optimize=True)
    scale = _per_norm(share, (v**2).sum(axis=0))
    undirected = np.where((v == 0).all(axis=0), share, scale * np.tensordot(b, v, axes=1))
    taps = projected * scale[:, :, None, None] + _equal_parts(undirected, x, attributes)
    return [_scattered(taps, x.shape[1:], attributes)]


def _pool(operands: list[Map], attributes: dict[str, Any]) -> Map:
    return np.asarray(_windows(operands[0], attributes, -np.inf).max(axis=(3, 4)))


def _pool_back(operands: list[Map], v: Map, share: Map, attributes: dict[str, Any]) -> list[Map]:
    x = operands[0]
    windows = _windows(x, attributes, -np.inf)
    flat = windows.reshape(*windows.shape[:3], -1)
    won = np.zeros_like(flat)
    np.put_along_axis(won, flat.argmax(axis=-1)[..., None], 1.0, axis=-1)
    scale = _per_norm(share, (v**2).sum(axis=0))
    taps = np.einsum("chwt,chw->hwt", won, v**2) * scale[:, :, None]
    undirected = np.where((v == 0).all(axis=0), share, 0.0)
    spread = _equal_parts(undirected, x, attributes)
    return [_scattered(taps.reshape(spread.shape) + spread, x.shape[1:], attributes)]


def _concat_back(operands: list[Map], v: Map, share: Map, _attributes: dict[str, Any]) -> list[Map]:
    squared = (v**2).sum(axis=0)
    scale = _per_norm(share, squared)
    equal = np.where(squared > 0, 0.0, share) / len(operands)
    return [(x**2).sum(axis=0) * scale + equal for x in operands]


_FORWARD: dict[str, Any] = {
    "Conv": _conv,
    "Relu": lambda operands, _: np.maximum(operands[0], 0.0),
    "MaxPool": _pool,
    "Concat": lambda operands, _: np.concatenate(operands, axis=0),
    "ReduceMean": lambda operands, _: operands[0].mean(axis=(1, 2)),
}
_BACKWARD: dict[str, Any] = {
    "Conv": _conv_back,
    "Relu": lambda _operands, _v, share, _attributes: [share],
    "MaxPool": _pool_back,
    "Concat": _concat_back,
}
