"""Strided windows phase by phase: their VJP, and what it gives to each input position once it is collapsed.

An input position belongs to one phase of the stride. Each phase is a convolution without a stride; collapsed first, it
is one number per position that has to be interleaved with the others.
"""

import functools
from collections.abc import Sequence

import numpy as np

from graph_rules.blocks import each_channel
from graph_rules.windows import Window, convolved, cut, flipped, interleaved, swapped
from srd_onnx.engine.emit import Emitter
from srd_onnx.graph.ir import Array, Node, Value

_MOST_PHASES = 3  # along each axis


def in_phases(emit: Emitter, node: Node, window: Window) -> bool:
    """Whether a strided window is better taken phase by phase: its input is in blocks, and it has so many of them."""
    return (
        emit.blocked(node.input(0))
        and len(set(window.strides)) == 1
        and 1 < window.strides[0] <= _MOST_PHASES
        and set(window.dilations) == {1}
    )


def strided_vjp(emit: Emitter, node: Node, weights: Array, group: int, window: Window, flow: str) -> str:
    """``Σ_k W_k^T g[o]`` at each input position: [N, M, *result] to [N, C, *source]."""
    x, stride = node.input(0), window.strides[0]
    cells = window.cells
    zeros = emit.zeros([*x.shape[:2], *cells], x.dtype)
    parts = [one or zeros for _, one in _phases(emit, weights, group, window, flow)]
    full = emit("DepthToSpace", emit("Concat", *parts, axis=1), blocksize=stride, mode="DCR")
    return cut(emit, full, window)


def strided_collapsed(
    emit: Emitter, node: Node, weights: Array, group: int, window: Window, flow: str
) -> str:
    """``<x_i, Σ_k W_k^T g[o]>``: [N, M, *result] to [N, 1, *source]."""
    return phases_collapsed(emit, node.input(0), window, _phases(emit, weights, group, window, flow))


def phases_collapsed(
    emit: Emitter, x: Value, window: Window, parts: Sequence[tuple[tuple[int, ...], str | None]]
) -> str:
    """``<x_i, b_i>`` at each input position, [N, 1, *source], of what flows back to the cells of each phase, if any."""
    cells, found = window.cells, []
    for phase, part in parts:
        if part is None:
            found.append(emit.zeros([x.shape[0], 1, *cells], x.dtype))
        else:
            found.append(emit.over_channels(emit("Mul", _phase_of(emit, x, phase, window, cells), part), x))
    return cut(emit, interleaved(emit, emit("Concat", *found, axis=1), window.strides, cells), window)


def _phases(
    emit: Emitter, weights: Array, group: int, window: Window, flow: str
) -> list[tuple[tuple[int, ...], str | None]]:
    """Each phase, and what flows to its cells q from the outputs ``q - m`` by the taps ``phase + m stride``."""
    stride = window.strides[0]
    ends = [q - o for q, o in zip(window.cells, window.result, strict=True)]

    def of_phase(phase: tuple[int, ...]) -> Array:
        return flipped(swapped(weights, group)[:, :, phase[0] :: stride, phase[1] :: stride])

    found: list[tuple[tuple[int, ...], str | None]] = []
    for phase in np.ndindex(*window.strides):
        kernel = [len(range(p, k, stride)) for p, k in zip(phase, window.kernel, strict=True)]
        if not all(kernel):
            found.append((phase, None))
            continue
        part = emit.derived(weights, ("phase", phase, stride), functools.partial(of_phase, phase))
        begins = [m - 1 for m in kernel]
        found.append((phase, convolved(emit, flow, part, kernel, group, (1, 1), begins, ends)))
    return found


def _phase_of(emit: Emitter, x: Value, phase: tuple[int, ...], window: Window, cells: Sequence[int]) -> str:
    """``x[q * stride + phase - begin]`` at each cell q, 0 outside."""
    kernel = np.zeros([p + 1 for p in phase], x.dtype)
    kernel[phase] = 1
    ends = [
        max(0, (q - 1) * s + p + 1 - n - b)
        for q, s, p, n, b in zip(cells, window.strides, phase, window.source, window.begins, strict=True)
    ]
    return each_channel(emit, x.name, x, kernel, strides=window.strides, pads=(*window.begins, *ends))
