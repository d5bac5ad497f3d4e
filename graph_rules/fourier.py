"""DFT and STFT: linear in the signal. Real and imaginary part, along the last axis, are channels of one position."""

import math

import numpy as np

from graph_rules.registry import cotangent, rule, to_first, varying
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Array, Node
from srd_onnx.graph.roles import Axes, Role, Roles


def _require_parts(node: Node, own: Axes) -> None:
    node.require(
        own.roles[-1] is Role.CHANNEL,
        f"its last axis, real and imaginary part, must be a channel axis, but the signal has axes {own}",
    )


# DFT. Its transpose is again a DFT, so that long signals need no matrix in the file.


def _axis(node: Node) -> int:
    if node.key.since < 20:
        return int(node.attrs["axis"]) % node.input(0).rank
    axis = node.constant(2)
    return (-2 if axis is None else int(axis.item())) % node.input(0).rank


def _length(node: Node) -> int:
    """How many samples are transformed: the signal is cut or padded with zeros to as many."""
    given, size = node.constant(1), node.input(0).shape[_axis(node)]
    if given is not None:
        return int(given.item())
    return 2 * (size - 1) if _to_real(node) else size


def _to_real(node: Node) -> bool:
    """Whether half a spectrum becomes a real signal."""
    return bool(node.attrs["inverse"] and node.attrs["onesided"])


def _used(node: Node) -> int:
    """How many indices along the axis the result is made of, from the front."""
    size = node.input(0).shape[_axis(node)]
    return size if _to_real(node) else min(size, _length(node))


def _dft_roles(node: Node, roles: Roles) -> tuple[Axes]:
    own = roles[node.input(0).name]
    _require_parts(node, own)
    node.require(
        own.roles[_axis(node)] is not Role.BATCH,
        "it transforms the batch axis, so that images are no longer independent",
    )
    size = node.input(0).shape[_axis(node)]
    node.require(
        not _to_real(node) or size == _length(node) // 2 + 1,
        f"half a spectrum of {size} frequencies for {_length(node)} samples: runtimes disagree on what is cut or added",
    )
    return (Axes(own.roles),)


def _within_position(node: Node, roles: Roles) -> bool:
    return roles[node.input(0).name].roles[_axis(node)] is Role.CHANNEL


def _fitted(emit: Emitter, node: Node, flow: str, size: int, wanted: int) -> str:
    """`size` indices along the axis cut or padded with zeros to those `wanted`."""
    rank, axis = node.input(0).rank, _axis(node)
    pads = [0] * (2 * rank)
    pads[rank + axis] = wanted - size
    return flow if size == wanted else emit("Pad", flow, emit.ints(pads))


def _dft_spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    """An equal part of all output positions to each input position that is used."""
    x, share, axis, used = node.input(0), cotangent(shares, node), _axis(node), _used(node)
    if axis in emit.axes(x).channels:
        return to_first(node, share)
    part = emit("Div", emit.total(share, [axis]), emit.like(x, float(used)))
    shape = list(emit.axes(x).position_shape(x))
    shape[axis] = used
    part = emit("Expand", part, emit.ints(shape))
    return to_first(node, _fitted(emit, node, part, used, x.shape[axis]))


def _transformed(emit: Emitter, node: Node, flow: str, *, inverse: int, onesided: int) -> str:
    """Another DFT along the same axis."""
    axis = _axis(node)
    if node.key.since < 20:
        return emit("DFT", flow, axis=axis, inverse=inverse, onesided=onesided)
    return emit("DFT", flow, "", emit.const(np.int64(axis)), inverse=inverse, onesided=onesided)


def _to_spectrum(emit: Emitter, node: Node, g: str) -> str:
    """``g_X[k] = c_k / L Σ_t g[t] e^(-2πi k t / L)``: c = 2 where k stands for its mirror image too, else 1."""
    length, shape = _length(node), [1] * node.input(0).rank
    counts = np.full(length // 2 + 1, 2.0)
    counts[0] = 1
    if length % 2 == 0:
        counts[-1] = 1
    shape[_axis(node)] = len(counts)
    flow = _transformed(emit, node, g, inverse=0, onesided=1)
    return emit("Mul", flow, emit.like(node.input(0), (counts / length).reshape(shape)))


def _to_signal(emit: Emitter, node: Node, g: str) -> str:
    """``L IDFT(g)``, of the inverse ``DFT(g) / L``; of a real signal the real part."""
    x, length, inverse = node.input(0), _length(node), node.attrs["inverse"]
    g = _fitted(emit, node, g, node.output().shape[_axis(node)], length)
    flow = _transformed(emit, node, g, inverse=1 - inverse, onesided=0)
    flow = emit("Mul", flow, emit.like(x, 1 / length if inverse else float(length)))
    if x.shape[-1] == 2:
        return flow
    return emit("Slice", flow, emit.ints([0]), emit.ints([1]), emit.ints([x.rank - 1]))


@rule("DFT", versions=(17, 20), roles=_dft_roles, routes=_within_position, spread=_dft_spread)
def dft(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``y = F x``: ``F^H g``, which is ``L IDFT(g)``, of the inverse ``DFT(g) / L``, cut or padded as x was."""
    x, g, length = node.input(0), cotangent(cotangents, node), _length(node)
    if _to_real(node):
        return to_first(node, _to_spectrum(emit, node, g))
    return to_first(node, _fitted(emit, node, _to_signal(emit, node, g), length, x.shape[_axis(node)]))


# STFT: frames of the signal, times a window, through a matrix


def _frames(node: Node) -> Array:
    """Which sample of the signal is at each place of each frame: int64 [frames, length]."""
    step, given, window = node.constant(1), node.constant(3), node.optional(2)
    assert step is not None
    length = node.input(0).shape[1] if given is None else int(given.item())
    if window is not None:
        length = window.shape[0]
    return np.arange(node.output().shape[1])[:, None] * int(step.item()) + np.arange(length)


def _taps(node: Node) -> Array:
    """Which samples of a frame its window lets through; a computed one all."""
    window, length = node.optional(2), _frames(node).shape[1]
    return np.ones(length, bool) if window is None or window.constant is None else window.constant != 0


def _stft_roles(node: Node, roles: Roles) -> tuple[Axes]:
    """Frames in the place of the samples; the frequencies are channels of their frame."""
    own = roles[node.input(0).name]
    _require_parts(node, own)
    node.require(own.roles[1] is not Role.BATCH, "its samples must not be the batch axis")
    length, count = _frames(node).shape[1], node.output().shape[2]
    node.require(
        count == (length // 2 + 1 if node.attrs["onesided"] else length),
        f"onnx infers {count} frequencies, as if onesided were 0, but left out it is 1; write onesided=1 into the file",
    )
    return (Axes((*own.roles[:2], Role.CHANNEL, Role.CHANNEL)),)


def _signal(node: Node, roles: Roles) -> tuple[int, ...]:
    """The signal; a window, should it be computed, is held fixed."""
    return tuple(i for i in varying(node, roles) if i == 0)


def _samples_are_channels(node: Node, roles: Roles) -> bool:
    return roles[node.input(0).name].roles[1] is Role.CHANNEL


def _added_up(emit: Emitter, node: Node, frames: str, parts: int) -> str:
    """Frames [N, F, L, parts] added where they lie in the signal: [N, S, parts]."""
    x, places = node.input(0), _frames(node)
    n, size = x.shape[:2]
    rows = emit.reshape(emit("Transpose", frames, perm=[1, 2, 0, 3]), [places.size, n, parts])
    added = emit.added([size, n, parts], x.dtype, emit.const(places.reshape(-1, 1)), rows)
    return emit("Transpose", added, perm=[1, 0, 2])


def _stft_spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    """An equal part to each sample of the frame that the window lets through."""
    x, share, taps = node.input(0), cotangent(shares, node), _taps(node)
    if 1 in emit.axes(x).channels:
        return to_first(node, emit.reshape(share, emit.axes(x).position_shape(x)))
    equal = (taps / max(taps.sum(), 1)).reshape(-1, 1)
    return to_first(node, _added_up(emit, node, emit("Mul", share, emit.like(x, equal)), 1))


def _lets_nothing_through(node: Node) -> bool:
    return not _taps(node).any()


def _matrix(node: Node) -> Array:
    """From frequencies back to samples: [K * 2, L * parts], parts 1 (real) or 2."""
    length, count, parts = _frames(node).shape[1], node.output().shape[2], node.input(0).shape[2]
    angle = np.outer(np.arange(count), np.arange(length)) % length * (2 * math.pi / length)
    cos, sin = np.cos(angle), np.sin(angle)
    whole = np.stack([np.stack([cos, sin], axis=-1), np.stack([-sin, cos], axis=-1)], axis=1)
    return whole[..., :parts].reshape(count * 2, length * parts)


@rule(
    "STFT",
    versions=(17,),
    roles=_stft_roles,
    carriers=_signal,
    routes=_samples_are_channels,
    spread=_stft_spread,
    lossy=_lets_nothing_through,
)
def stft(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``y[f] = F (w x[f])``: ``Σ_f w F^H g[f]``, each frame where it lies; ``tangent``: ``Σ_f x[f] F^H g[f]`` to w."""
    x, window, places = node.input(0), node.optional(2), _frames(node)
    count, length = places.shape
    n, _, parts = x.shape
    g = emit.reshape(cotangent(cotangents, node), [n, count, node.output().shape[2] * 2])
    frames = emit.reshape(emit("MatMul", g, emit.like(x, _matrix(node))), [n, count, length, parts])
    flows: list[str | None] = [None] * len(node.inputs)
    if window is None:
        flows[0] = _added_up(emit, node, frames, parts)
        return flows
    weighted = emit("Mul", frames, emit.reshape(window.name, [length, 1]))
    flows[0] = _added_up(emit, node, weighted, parts)
    if emit.tangent and emit.varies(window):
        cut = emit("Gather", x.name, emit.const(places), axis=1)
        flows[2] = emit.total(emit("Mul", frames, cut), [0, 1, 3], keepdims=False)
    return flows
