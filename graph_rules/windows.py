"""Sliding windows: the geometry that convolution and pooling share, and the transposed map of a window sum.

Strided transposes are emitted as a stride-1 convolution per phase of the stride, interleaved afterwards: on a CPU
that is much faster than ConvTranspose, and it needs no operator that a provider lacks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.errors import LayoutError
from srd_onnx.graph.ir import Array, Node
from srd_onnx.graph.roles import Axes, Gate, Role, Roles


@dataclass(frozen=True)
class Window:
    """A sliding window over D position axes: sizes and offsets per axis.

    Output position o covers the input positions ``o * stride - begin + k * dilation`` for tap k.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    source: tuple[int, ...]
    result: tuple[int, ...]

    @property
    def is_single(self) -> bool:
        """Whether every output position sees exactly one input position."""
        return math.prod(self.kernel) == 1 and not any(self.begins) and not any(self.ends)

    def counts(self, *, padding: bool = False) -> Array:
        """How many taps of each output position lie in bounds (or, with `padding`, in the padded input).

        Returns:
            int64 array of shape `result`.
        """
        counts = np.ones((1,) * len(self.kernel), np.int64)
        for axis, (k, s, d, begin, end, size, out) in enumerate(self._axes()):
            at = np.arange(out)[:, None] * s - begin + np.arange(k) * d
            low, high = (-begin, size + end) if padding else (0, size)
            inside = ((at >= low) & (at < high)).sum(axis=1)
            shape = [1] * len(self.kernel)
            shape[axis] = out
            counts = counts * inside.reshape(shape)
        return counts

    @property
    def reach(self) -> tuple[int, ...]:
        """How much of each axis, padding included, the windows cover from first to last."""
        return tuple((out - 1) * s + (k - 1) * d + 1 for k, s, d, *_, out in self._axes())

    @property
    def overhang(self) -> tuple[int, ...]:
        """How far the last window reaches beyond the input along each axis, 0 if it does not."""
        return tuple(max(0, r - b - n) for r, b, n in zip(self.reach, self.begins, self.source, strict=True))

    @property
    def cells(self) -> list[int]:
        """How many input positions each phase of the stride has along each axis, the padding in front included."""
        return [
            math.ceil((b + n) / s) for b, n, s in zip(self.begins, self.source, self.strides, strict=True)
        ]

    def index(self) -> Array:
        """The flat input position under each tap of each output position, -1 in the padding.

        Returns:
            int64 array [K, *result].
        """
        rank = len(self.kernel)
        found = np.zeros((1,) * (2 * rank), np.int64)
        inside = np.ones((1,) * (2 * rank), bool)
        for axis, (k, s, d, begin, _, size, out) in enumerate(self._axes()):
            at = np.arange(out)[None, :] * s - begin + (np.arange(k) * d)[:, None]
            shape = [1] * (2 * rank)
            shape[axis], shape[rank + axis] = k, out
            found = found * size + at.reshape(shape)
            inside = inside & ((at >= 0) & (at < size)).reshape(shape)
        return np.where(inside, found, -1).reshape(math.prod(self.kernel), *self.result)

    def _axes(self) -> list[tuple[int, ...]]:
        columns = (
            self.kernel,
            self.strides,
            self.dilations,
            self.begins,
            self.ends,
            self.source,
            self.result,
        )
        return list(zip(*columns, strict=True))


def window_of(node: Node, kernel: Sequence[int]) -> Window:
    """The window of a Conv or pooling node, `auto_pad` resolved to explicit pads."""
    source, result = node.input(0).shape[2:], node.output().shape[2:]
    rank = len(kernel)
    strides = tuple(node.attrs.get("strides") or (1,) * rank)
    # A stride that is never taken: damaged models have some that no memory holds.
    strides = tuple(min(s, k) if out <= 1 else s for s, k, out in zip(strides, kernel, result, strict=True))
    dilations = tuple(node.attrs.get("dilations") or (1,) * rank)
    mode = node.attrs.get("auto_pad", "NOTSET")
    if mode == "NOTSET":
        pads = tuple(node.attrs.get("pads") or (0,) * (2 * rank))
        begins, ends = pads[:rank], pads[rank:]
    elif mode == "VALID":
        begins = ends = (0,) * rank
    else:
        missing = [
            (out - 1) * s + (k - 1) * d + 1 - size
            for k, s, d, size, out in zip(kernel, strides, dilations, source, result, strict=True)
        ]
        node.require(
            min(missing) >= -1,
            f"auto_pad={mode} with a stride that passes the kernel by two or more: runtimes disagree on where "
            "the windows lie; export with explicit pads",
        )
        missing = [max(0, m) for m in missing]
        small, large = tuple(m // 2 for m in missing), tuple(m - m // 2 for m in missing)
        begins, ends = (small, large) if mode == "SAME_UPPER" else (large, small)
    node.require(
        not node.attrs.get("ceil_mode")
        or all((o - 1) * s < n + b for o, s, n, b in zip(result, strides, source, begins, strict=True)),
        f"with ceil_mode its last window would start in the padding: onnx infers {list(result)} positions for this "
        "opset and runtimes leave that window out; export with opset 22",
    )
    return Window(tuple(kernel), strides, dilations, begins, ends, source, result)


def window_roles(node: Node, roles: Roles, *, mixes_channels: bool) -> tuple[Axes, ...]:
    """N, C, then positions, as ONNX defines Conv and the pools; anything else means a wrong layout.

    In place of the batch there may be positions too: the frames of a film, the chunks of a recording.

    Raises:
        LayoutError: naming the node and what its axes were taken for.
    """
    axes = roles[node.input(0).name]
    first = Role.POSITION if axes.roles[0] is Role.POSITION else Role.BATCH
    expected = (first, Role.CHANNEL, *[Role.POSITION] * (len(axes.roles) - 2))
    sizes = node.input(0).shape
    wrong = [r is not e and s > 1 for r, e, s in zip(axes.roles, expected, sizes, strict=True)]
    if any(wrong):
        raise LayoutError(
            f"{node}: slides along axes 2 and up, but its input {list(sizes)} has axes {axes} "
            "(N batch, C channel, P position); is the layout of the input right? Say it with --layout / layout="
        )
    return (Axes(expected, Gate.NONE if mixes_channels else axes.gate),) * len(node.outputs)


def transposed(emit: Emitter, flow: str, weights: Array, group: int, window: Window) -> str:
    """The transpose of a grouped window sum: ``x[i] = Σ_k W_k^T y[o] over all o, k that touch i``.

    Shapes: `flow` [N, M, *result], `weights` [M, C/group, *kernel]; gives [N, C, *source].
    """
    if window.strides == (1,) * len(window.kernel):
        return _stride_one(emit, flow, weights, group, window)
    if window.dilations == (1,) * len(window.kernel):
        return _by_phases(emit, flow, weights, group, window)
    return _conv_transpose(emit, flow, weights, group, window)


def swapped(weights: Array, group: int) -> Array:
    """Weights [M, C/g, *k] to [C, M/g, *k]: the roles of the two channel axes exchanged inside each group."""
    grouped = weights.reshape(group, weights.shape[0] // group, *weights.shape[1:])
    swapped = np.swapaxes(grouped, 1, 2)
    return swapped.reshape(-1, *swapped.shape[2:])


def flipped(weights: Array) -> Array:
    """Weights, their taps in the opposite order along every axis."""
    return np.ascontiguousarray(np.flip(weights, axis=tuple(range(2, weights.ndim))))


def _stride_one(emit: Emitter, flow: str, weights: Array, group: int, window: Window) -> str:
    reach = [(k - 1) * d for k, d in zip(window.kernel, window.dilations, strict=True)]
    begins = [r - b for r, b in zip(reach, window.begins, strict=True)]
    ends = [s + b - o for s, b, o in zip(window.source, window.begins, window.result, strict=True)]
    turned = emit.derived(weights, ("turned", group), lambda: flipped(swapped(weights, group)))
    return convolved(emit, flow, turned, window.kernel, group, window.dilations, begins, ends)


def convolved(
    emit: Emitter,
    flow: str,
    weights: str,
    kernel: Sequence[int],
    group: int,
    dilations: Sequence[int],
    begins: Sequence[int],
    ends: Sequence[int],
) -> str:
    """A stride-1 Conv whose pads may be negative: then output positions that saw only padding are cut off first."""
    if any(p < 0 for p in [*begins, *ends]):
        rank = len(begins)
        starts = emit.ints([-min(b, 0) for b in begins])
        stops = emit.ints([min(e, 0) if e < 0 else np.iinfo(np.int64).max for e in ends])
        flow = emit("Slice", flow, starts, stops, emit.ints(range(2, 2 + rank)))
    pads = [max(p, 0) for p in [*begins, *ends]]
    return emit(
        "Conv",
        flow,
        weights,
        group=group,
        dilations=list(dilations),
        kernel_shape=list(kernel),
        pads=pads,
        strides=[1] * len(kernel),
    )


def _by_phases(emit: Emitter, flow: str, weights: Array, group: int, window: Window) -> str:
    """Input position ``q * stride + phase`` is fed by the taps ``k = phase + m * stride`` of outputs ``q - m``."""
    strides, cells = window.strides, window.cells
    taps = [math.ceil(k / s) for k, s in zip(window.kernel, strides, strict=True)]
    begins = [m - 1 for m in taps]
    ends = [q - o for q, o in zip(cells, window.result, strict=True)]
    phased = emit.derived(weights, ("phased", group, strides), lambda: _phased(weights, group, window, taps))
    wide = convolved(emit, flow, phased, taps, group, [1] * len(taps), begins, ends)
    return cut(emit, interleaved(emit, wide, strides, cells), window)


def _phased(weights: Array, group: int, window: Window, taps: Sequence[int]) -> Array:
    """[C, M/g, m1, s1, m2, s2, ...] -> [C, s1, s2, ..., M/g, m1, m2, ...] -> [C·Πs, M/g, m1, m2, ...], flipped."""
    rank, strides = len(taps), window.strides
    spare = [m * s - k for m, s, k in zip(taps, strides, window.kernel, strict=True)]
    padded = np.pad(swapped(weights, group), [(0, 0), (0, 0), *[(0, p) for p in spare]])
    split = padded.reshape(
        *padded.shape[:2], *[n for m, s in zip(taps, strides, strict=True) for n in (m, s)]
    )
    order = [0, *range(3, 3 + 2 * rank, 2), 1, *range(2, 2 + 2 * rank, 2)]
    return flipped(split.transpose(order).reshape(-1, padded.shape[1], *taps))


def cut(emit: Emitter, full: str, window: Window) -> str:
    """Of interleaved phases what lies in the input: without the padding in front and what fills up the end."""
    stops = [b + n for b, n in zip(window.begins, window.source, strict=True)]
    if not any(window.begins) and stops == [q * s for q, s in zip(window.cells, window.strides, strict=True)]:
        return full
    axes = range(2, 2 + len(window.kernel))
    return emit("Slice", full, emit.ints(window.begins), emit.ints(stops), emit.ints(axes))


def interleaved(emit: Emitter, wide: str, strides: Sequence[int], cells: Sequence[int]) -> str:
    """[N, C·s1·s2, q1, q2] to [N, C, q1·s1, q2·s2]."""
    rank = len(strides)
    if rank == 2 and strides[0] == strides[1]:
        return emit("DepthToSpace", wide, blocksize=strides[0], mode="CRD")
    # The leading 0 keeps the batch size; -1 stands for C.
    split = emit("Reshape", wide, emit.ints([0, -1, *strides, *cells]))
    order = [0, 1, *[a for i in range(rank) for a in (2 + rank + i, 2 + i)]]
    shape = [0, -1, *[q * s for q, s in zip(cells, strides, strict=True)]]
    return emit("Reshape", emit("Transpose", split, perm=order), emit.ints(shape))


def _conv_transpose(emit: Emitter, flow: str, weights: Array, group: int, window: Window) -> str:
    # ConvTranspose of the whole reach, then cut or fill to the input: no dependence on output_padding.
    full = emit(
        "ConvTranspose",
        flow,
        emit.const(weights),
        group=group,
        dilations=list(window.dilations),
        kernel_shape=list(window.kernel),
        strides=list(window.strides),
    )
    begins = [-b for b in window.begins]
    ends = [b + n - r for b, n, r in zip(window.begins, window.source, window.reach, strict=True)]
    return emit("Pad", full, emit.ints([0, 0, *begins, 0, 0, *ends])) if any([*begins, *ends]) else full


def window_spread(emit: Emitter, node: Node, shares: Flows, window: Window) -> str:
    """Each output position's share, divided equally over the input positions in bounds of its window.

    Shapes: shares[0] [N, 1, *result]; gives [N, 1, *source].
    """
    share, value = shares[0], node.input(0)
    assert share is not None
    counts = np.maximum(window.counts(), 1)
    if (counts > 1).any():
        share = emit("Div", share, emit.like(value, counts[None, None]))
    ones = np.ones((1, 1, *window.kernel), value.dtype)
    return transposed(emit, share, ones, 1, window)


def loses_padding(window: Window) -> bool:
    """Whether some output position sees nothing but padding."""
    return bool((window.counts() == 0).any())
