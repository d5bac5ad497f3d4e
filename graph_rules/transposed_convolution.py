"""ConvTranspose: a convolution read backward, so that its own transpose is a plain convolution."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graph_rules.registry import cotangent, rule, second, to_first
from graph_rules.windows import window_roles
from srd_onnx.apop.replay import again
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.errors import ShapeError
from srd_onnx.graph.ir import Array, Node
from srd_onnx.graph.roles import Axes, Roles


@dataclass(frozen=True)
class Stamp:
    """Where input position i puts tap k: on output position ``i * stride - begin + k * dilation``, per axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    source: tuple[int, ...]
    result: tuple[int, ...]

    def counts(self) -> Array:
        """How many input positions feed each output position: int64 of shape `result`."""
        counts = np.ones((1,) * len(self.kernel), np.int64)
        columns = (self.kernel, self.strides, self.dilations, self.begins, self.source, self.result)
        for axis, (k, s, d, begin, size, out) in enumerate(zip(*columns, strict=True)):
            at = np.arange(size)[:, None] * s - begin + np.arange(k) * d
            fed = np.bincount(at[(at >= 0) & (at < out)], minlength=out)
            counts = counts * fed.reshape([-1 if a == axis else 1 for a in range(len(self.kernel))])
        return counts


def _stamp(node: Node) -> Stamp:
    """`auto_pad`, `output_shape` and `output_padding` resolved: the result's size is known, so begins follow.

    Where a larger result is wanted than the input reaches, runtimes leave the rest at the end to the bias.
    """
    source, result = node.input(0).shape[2:], node.output().shape[2:]
    kernel, rank = node.input(1).shape[2:], node.input(0).rank - 2
    strides = tuple(node.attrs.get("strides") or (1,) * rank)
    dilations = tuple(node.attrs.get("dilations") or (1,) * rank)
    extra = tuple(node.attrs.get("output_padding") or (0,) * rank)
    mode = node.attrs["auto_pad"]
    if mode == "NOTSET" and not node.attrs.get("output_shape"):
        begins = tuple(node.attrs.get("pads") or (0,) * (2 * rank))[:rank]
    elif mode == "VALID":
        begins = (0,) * rank
    else:
        totals = [
            max(0, (n - 1) * s + e + (k - 1) * d + 1 - out)
            for n, s, e, k, d, out in zip(source, strides, extra, kernel, dilations, result, strict=True)
        ]
        begins = tuple(t // 2 if mode == "SAME_UPPER" else t - t // 2 for t in totals)
    return Stamp(kernel, strides, dilations, begins, source, result)


def _roles(node: Node, roles: Roles) -> tuple[Axes, ...]:
    x, wanted = node.input(0), node.input(1).shape[0]
    if x.shape[1] != wanted:
        raise ShapeError(
            f"{node}: takes {wanted} channels, but its input '{x.name}' is {list(x.shape)}; "
            "does the data have the right number of channels?"
        )
    return window_roles(node, roles, mixes_channels=True)


def _never_overlaps(node: Node, _roles: Roles) -> bool:
    """A kernel no wider than its stride, as U-Nets have it."""
    return bool(_stamp(node).counts().max(initial=0) <= 1)


def read_back(emit: Emitter, flow: str, weights: str, group: int, stamp: Stamp) -> str:
    """``x[i] = Σ_k W_k y[i * stride - begin + k * dilation]``: y padded or cut to just what the taps reach."""
    reach = [
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(stamp.source, stamp.strides, stamp.kernel, stamp.dilations, strict=True)
    ]
    begins: Sequence[int] = stamp.begins
    ends = [r - b - out for r, b, out in zip(reach, begins, stamp.result, strict=True)]
    if min([*begins, *ends]) < 0:
        flow = emit("Pad", flow, emit.ints([0, 0, *begins, 0, 0, *ends]))
        begins = ends = [0] * len(begins)
    return emit(
        "Conv",
        flow,
        weights,
        group=group,
        dilations=list(stamp.dilations),
        kernel_shape=list(stamp.kernel),
        pads=[*begins, *ends],
        strides=list(stamp.strides),
    )


def _spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    """Each output position's share, divided equally over the input positions that were stamped on it."""
    share, x, stamp = cotangent(shares, node), node.input(0), _stamp(node)
    counts = np.maximum(stamp.counts(), 1)
    if (counts > 1).any():
        share = emit("Div", share, emit.like(x, counts[None, None]))
    ones = emit.like(x, np.ones((1, 1, *stamp.kernel)))
    return to_first(node, read_back(emit, share, ones, 1, stamp))


def _bias(emit: Emitter, node: Node) -> str | None:
    bias = node.constant(2)
    if bias is None or not bias.any():
        return None
    return emit.const(bias.reshape(1, -1, *[1] * (node.output().rank - 2)))


def _lossy(node: Node) -> bool:
    return bool((_stamp(node).counts() == 0).any())


@rule(
    "ConvTranspose",
    versions=(11, 22),
    roles=_roles,
    routes=_never_overlaps,
    spread=_spread,
    bias=_bias,
    lossy=_lossy,
    replay=again,
    weights=second,
)
def conv_transpose(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g_x[i] = Σ_k W_k g[i s - p + k d]``: a plain convolution with the same weights, which are constant."""
    node.constant(1)
    g = cotangent(cotangents, node)
    flow = read_back(emit, g, node.input(1).name, node.attrs["group"], _stamp(node))
    return to_first(node, flow)
