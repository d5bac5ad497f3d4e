"""Operators that onnx.reference (1.23) computes wrongly or not at all, done right in numpy for `new_ops=`.

AveragePool, MaxPool  four pads are read as top, bottom, left, right; dilations of averages are ignored; windows of
                      padding only give NaN; strided maxima with auto_pad lose their padding
GlobalMaxPool         takes the maximum over the wrong axes unless there are two position axes
ConvTranspose         with groups it keeps one channel per group and cuts the weights at the wrong place
Pad                   refuses negative pads
GatherElements        refuses indices that are smaller than the data off the axis
Resize                counts in single precision, refuses negative axes
LpPool                with ceil_mode has wrong windows; GlobalLpPool is missing
HardSwish             is expanded with 1/6 in single precision, 1e-8 off in double
DequantizeLinear      exists from opset 19 on only
OneHot                does not round real indices and depths to integers; refuses a depth with an axis
Slice                 with a start before the front and a negative step is empty; ONNX clamps to the first element
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

from tests import reference_elementwise, reference_normalised, reference_recurrent, reference_sampling
from tests.oracle_resize import resize
from tests.oracle_stamps import stamp_geometry
from tests.oracle_types import here
from tests.oracle_windows import slide, winners

Array = NDArray[Any]


def _given(**attrs: Any) -> dict[str, Any]:
    return {name: value for name, value in attrs.items() if value is not None}


class MaxPool(OpRun):
    op_domain = ""

    def _run(
        self,
        x: Array,
        auto_pad: Any = None,
        ceil_mode: Any = None,
        dilations: Any = None,
        kernel_shape: Any = None,
        pads: Any = None,
        storage_order: Any = None,
        strides: Any = None,
    ) -> tuple[Array, ...]:
        assert not storage_order
        attrs = _given(
            auto_pad=auto_pad,
            ceil_mode=ceil_mode,
            dilations=dilations,
            kernel_shape=kernel_shape,
            pads=pads,
            strides=strides,
        )
        won = winners(attrs, x)
        flat = x.reshape(*x.shape[:2], -1)
        y = np.take_along_axis(flat, np.maximum(won, 0).reshape(*x.shape[:2], -1), axis=2).reshape(won.shape)
        channel = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * (x.ndim - 2))
        results = (np.where(won >= 0, y, 0).astype(x.dtype), won + channel * flat.shape[2])
        return results[: len(self.output)]


class AveragePool(OpRun):
    op_domain = ""

    def _run(
        self,
        x: Array,
        auto_pad: Any = None,
        ceil_mode: Any = None,
        count_include_pad: Any = None,
        dilations: Any = None,
        kernel_shape: Any = None,
        pads: Any = None,
        strides: Any = None,
    ) -> tuple[Array]:
        attrs = _given(
            auto_pad=auto_pad, ceil_mode=ceil_mode, dilations=dilations, pads=pads, strides=strides
        )
        window = slide(attrs, x.shape[2:], kernel_shape)
        y = np.zeros((*x.shape[:2], *window.result), x.dtype)
        for out in window.outputs():
            inside = [x[here(..., *at)] for _, at in window.taps(out) if window.inside(at)]
            padded = sum(window.in_padded(at) for _, at in window.taps(out))
            if inside:
                y[here(..., *out)] = sum(inside) / (padded if count_include_pad else len(inside))
        return (y,)


class LpPool(OpRun):
    op_domain = ""

    def _run(self, x: Array, p: int = 2, kernel_shape: Any = None, **attrs: Any) -> tuple[Array]:
        window = slide(_given(**attrs), x.shape[2:], kernel_shape)
        y = np.zeros((*x.shape[:2], *window.result), x.dtype)
        for out in window.outputs():
            for _, at in window.taps(out):
                if window.inside(at):
                    y[here(..., *out)] += np.abs(x[here(..., *at)]) ** p
        return ((y ** (1 / p)).astype(x.dtype),)


class GlobalLpPool(OpRun):
    op_domain = ""

    def _run(self, x: Array, p: int = 2) -> tuple[Array]:
        sums = (np.abs(x) ** p).sum(axis=tuple(range(2, x.ndim)), keepdims=True)
        return ((sums ** (1 / p)).astype(x.dtype),)


class GlobalMaxPool(OpRun):
    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


class ConvTranspose(OpRun):
    op_domain = ""

    def _run(self, x: Array, w: Array, b: Any = None, **attrs: Any) -> tuple[Array]:
        given = _given(**attrs)
        given.pop("kernel_shape", None)
        group, kernel = given.get("group", 1), tuple(int(k) for k in w.shape[2:])
        begins, result = stamp_geometry(given, x.shape[2:], kernel)
        strides, dilations = (given.get(name, [1] * len(kernel)) for name in ("strides", "dilations"))
        reach = [
            max((n - 1) * s + (k - 1) * d + 1, begin + out)
            for n, s, k, d, begin, out in zip(
                x.shape[2:], strides, kernel, dilations, begins, result, strict=True
            )
        ]
        y = np.zeros((x.shape[0], w.shape[1] * group, *reach), x.dtype)
        ins, outs = x.shape[1] // group, w.shape[1]
        for tap in np.ndindex(kernel):
            at = tuple(
                slice(k * d, k * d + (n - 1) * s + 1, s)
                for k, d, n, s in zip(tap, dilations, x.shape[2:], strides, strict=True)
            )
            for g in range(group):
                matrix = w[here(slice(g * ins, (g + 1) * ins), slice(None), *tap)]
                part = np.einsum("nc...,co->no...", x[:, g * ins : (g + 1) * ins], matrix)
                y[here(slice(None), slice(g * outs, (g + 1) * outs), *at)] += part
        cut = y[here(..., *(slice(begin, begin + out) for begin, out in zip(begins, result, strict=True)))]
        return (cut if b is None else cut + b.reshape(-1, *[1] * len(kernel)),)


class Pad(OpRun):
    op_domain = ""

    def _run(
        self, x: Array, pads: Array, value: Any = None, axes: Any = None, mode: Any = None
    ) -> tuple[Array]:
        chosen = list(range(x.ndim)) if axes is None else [int(a) for a in axes]
        sides = [(0, 0)] * x.ndim
        for i, axis in enumerate(chosen):
            sides[axis] = (int(pads[i]), int(pads[len(chosen) + i]))
        fill = np.asarray(0 if value is None else value, x.dtype).item()
        if mode not in (None, "constant"):
            return (np.pad(x, sides, mode=mode),)
        grown = np.pad(x, [(max(b, 0), max(a, 0)) for b, a in sides], constant_values=fill)
        return (
            grown[
                tuple(slice(max(-b, 0), n - max(-a, 0)) for (b, a), n in zip(sides, grown.shape, strict=True))
            ],
        )


class Slice(OpRun):
    op_domain = ""

    def _run(self, x: Array, starts: Array, ends: Array, axes: Any = None, steps: Any = None) -> tuple[Array]:
        names = range(len(starts)) if axes is None else axes
        strides = np.ones_like(starts) if steps is None else steps
        for start, end, axis, step in zip(starts, ends, names, strides, strict=True):
            size = x.shape[axis]
            first = max(int(start), -size) if step < 0 else int(start)
            x = x[here(*[slice(None)] * (int(axis) % x.ndim), slice(first, int(end), int(step)))]
        return (x,)


class GatherElements(OpRun):
    op_domain = ""

    def _run(self, x: Array, indices: Array, axis: Any = None) -> tuple[Array]:
        at: list[Array] = list(np.indices(indices.shape))
        at[int(axis or 0)] = indices
        return (x[tuple(at)],)


class Resize(OpRun):
    op_domain = ""

    def _run(
        self,
        x: Array,
        roi: Any = None,
        scales: Any = None,
        sizes: Any = None,
        **attrs: Any,
    ) -> tuple[Array]:
        replay = resize(_given(**attrs), [x, roi, scales, sizes], frozenset({1, 2, 3}))
        return (replay([x])[0].astype(x.dtype),)


class OneHot(OpRun):
    op_domain = ""

    def _run(self, indices: Array, depth: Array, values: Array, axis: Any = None) -> tuple[Array]:
        places, count = indices.astype(np.int64), int(depth.astype(np.int64).item())
        at = np.expand_dims(np.where(places < 0, places + count, places), axis)
        along = np.arange(count).reshape([-1 if a == axis % at.ndim else 1 for a in range(at.ndim)])
        return (np.where(at == along, values[1], values[0]),)


class HardSwish(OpRun):
    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (x * np.clip(x / 6 + 0.5, 0, 1),)


class DequantizeLinear(OpRun):
    op_domain = ""

    def _run(
        self,
        x: Array,
        scale: Array,
        zero: Array,
        axis: Any = None,
        block_size: Any = None,
        output_dtype: Any = None,
    ) -> tuple[Array]:
        assert not block_size
        assert not output_dtype
        shape = (
            [-1 if i == (1 if axis is None else axis) % x.ndim else 1 for i in range(x.ndim)]
            if scale.ndim
            else []
        )
        return ((x.astype(scale.dtype) - zero.astype(scale.dtype).reshape(shape)) * scale.reshape(shape),)


CORRECTED: list[type[OpRun]] = [
    *reference_elementwise.CORRECTED,
    *reference_normalised.CORRECTED,
    *reference_recurrent.CORRECTED,
    *reference_sampling.CORRECTED,
    AveragePool,
    ConvTranspose,
    DequantizeLinear,
    GatherElements,
    GlobalLpPool,
    GlobalMaxPool,
    HardSwish,
    LpPool,
    MaxPool,
    OneHot,
    Pad,
    Resize,
    Slice,
]
