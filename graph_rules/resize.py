"""Resize: every mode is a product of linear maps, one per axis, whose weights follow from the sizes alone."""

import math
from collections.abc import Callable

import numpy as np

from graph_rules.axis_maps import (
    AxisMap,
    along_lossy,
    along_routes,
    along_spread,
    along_vjp,
    keeps_batch,
)
from graph_rules.registry import rule, same
from srd_onnx.apop.replay import again
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Array, Node
from srd_onnx.graph.roles import Axes, Roles


def _axes(node: Node) -> list[int]:
    given, rank = node.attrs.get("axes"), node.input(0).rank
    return list(range(rank)) if given is None else [int(a) % rank for a in given]


def _scales(node: Node) -> dict[int, float]:
    """The scale of each axis that is resized: given, or from the sizes under the policy."""
    axes, x = _axes(node), node.input(0)
    scales, sizes = node.constant(2), node.constant(3)
    if scales is not None and scales.size:
        return dict(zip(axes, (float(s) for s in scales), strict=True))
    node.require(sizes is not None, "neither scales nor sizes are given")
    assert sizes is not None
    ratios = [int(size) / x.shape[axis] for axis, size in zip(axes, sizes, strict=True)]
    policy = node.attrs["keep_aspect_ratio_policy"]
    if policy != "stretch":
        ratios = [min(ratios) if policy == "not_larger" else max(ratios)] * len(ratios)
    return dict(zip(axes, ratios, strict=True))


def _region(node: Node, axis: int) -> tuple[float, float]:
    """Where tf_crop_and_resize cuts an axis."""
    roi, axes = node.constant(1), _axes(node)
    node.require(roi is not None and roi.size == 2 * len(axes), "tf_crop_and_resize without a region")
    assert roi is not None
    at = axes.index(axis)
    return float(roi[at]), float(roi[len(axes) + at])


def _coordinates(node: Node, axis: int, scale: float, real: type) -> Array:
    """Where each output index lies on the input axis, in the precision `real`."""
    size, made = real(node.input(0).shape[axis]), real(node.output().shape[axis])
    at: Array = np.arange(int(made)).astype(real)
    scale = real(scale)
    half = (at + real(0.5)) / scale - real(0.5)
    mode = node.attrs["coordinate_transformation_mode"]
    if mode in ("align_corners", "tf_crop_and_resize"):
        node.require(
            math.isclose(float(scale) * size, made, rel_tol=1e-5),
            f"{mode} with a scale of {scale} on an axis of {size}: runtimes disagree on a size that is not whole",
        )
    if mode == "align_corners":
        return np.zeros(1) if made == 1 else at * (size - 1) / (made - 1)
    if mode == "asymmetric":
        return np.asarray(at / scale)
    if mode == "pytorch_half_pixel":
        return np.zeros(1) if made == 1 else half
    if mode == "half_pixel_symmetric":
        return np.asarray(half + size / 2 * (1 - made / (scale * size)))
    if mode == "tf_crop_and_resize":
        start, end = (real(bound) for bound in _region(node, axis))
        if made == 1:
            return np.asarray([real(0.5) * (start + end) * (size - 1)])
        return np.asarray(start * (size - 1) + at * (end - start) * (size - 1) / (made - 1))
    node.require(mode == "half_pixel", f"coordinate_transformation_mode '{mode}' has no rule")
    return np.asarray(half)


_ROUNDED: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _nearest(node: Node, axis: int, scale: float) -> Array:
    """The input index of each output index, in single precision as the runtime counts."""
    at = _ROUNDED[node.attrs["nearest_mode"]](_coordinates(node, axis, scale, np.float32))
    return np.clip(at, 0, node.input(0).shape[axis] - 1)


def _triangle(distance: Array) -> Array:
    return np.asarray(np.maximum(1 - np.abs(distance), 0))


def _cubic(distance: Array, a: float) -> Array:
    """Keys' kernel."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d**2 + 1
    far = a * (((d - 5) * d + 8) * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _kernel(node: Node) -> tuple[Callable[[Array], Array], int]:
    """The interpolation kernel and how far it reaches."""
    if node.attrs["mode"] == "linear":
        return _triangle, 1
    a = float(np.float32(node.attrs["cubic_coeff_a"]))
    return lambda distance: _cubic(distance, a), 2


def _interpolation(node: Node, axis: int, scale: float) -> Array:
    """Dense weights [outputs, inputs]; beyond the ends the last element is repeated, or weights are renormalised."""
    size = node.input(0).shape[axis]
    at = _coordinates(node, axis, scale, np.float64)
    kernel, reach = _kernel(node)
    stretch = max(1 / scale, 1.0) if node.attrs["antialias"] else 1.0
    margin = math.ceil(reach * stretch) + math.ceil(max(np.abs(at).max(initial=0) - size, 0)) + 1
    taps = np.arange(-margin, size + margin)
    weights = kernel((taps - at[:, None]) / stretch)
    inside = np.clip(taps, 0, size - 1)
    if node.attrs["exclude_outside"]:
        weights = np.where(inside == taps, weights, 0.0)
    weights = weights / weights.sum(axis=1, keepdims=True)
    return np.asarray(weights @ (inside[:, None] == np.arange(size)))


def _outside(node: Node, axis: int, scale: float) -> Array:
    """Which output indices tf_crop_and_resize fills with the extrapolation value."""
    if node.attrs["coordinate_transformation_mode"] != "tf_crop_and_resize":
        return np.zeros(node.output().shape[axis], bool)
    at = _coordinates(node, axis, scale, np.float32)
    return np.asarray((at < 0) | (at > node.input(0).shape[axis] - 1))


def _maps(node: Node) -> dict[int, AxisMap]:
    maps = {}
    for axis, scale in _scales(node).items():
        size = node.input(0).shape[axis]
        if scale == 1 and node.attrs["coordinate_transformation_mode"] != "tf_crop_and_resize":
            continue
        outside = _outside(node, axis, scale)
        if node.attrs["mode"] == "nearest":
            maps[axis] = AxisMap.copies(np.where(outside, -1, _nearest(node, axis, scale)), size)
        else:
            maps[axis] = AxisMap.of_matrix(np.where(outside[:, None], 0.0, _interpolation(node, axis, scale)))
    return maps


def _roles(node: Node, roles: Roles) -> tuple[Axes, ...]:
    node.require(
        not node.attrs["antialias"] or node.attrs["mode"] != "nearest", "antialias of nearest has no meaning"
    )
    keeps_batch(node, roles, _maps)
    return same(node, roles)


def _extrapolated(emit: Emitter, node: Node) -> str | None:
    """The extrapolation value, where some axis lies outside."""
    value, rank = node.attrs["extrapolation_value"], node.input(0).rank
    outside = np.zeros((1,) * rank, bool)
    for axis, scale in _scales(node).items():
        outside = outside | _outside(node, axis, scale).reshape([-1 if a == axis else 1 for a in range(rank)])
    return emit.like(node.output(), np.where(outside, value, 0.0)) if value and outside.any() else None


@rule(
    "Resize",
    versions=(18, 19),
    roles=_roles,
    routes=along_routes(_maps),
    spread=along_spread(_maps),
    bias=_extrapolated,
    lossy=along_lossy(_maps),
    replay=again,
)
def resize(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g_x = W_1^T ... W_r^T g``: the transposed interpolation along each axis."""
    return along_vjp(emit, node, cotangents, _maps)
