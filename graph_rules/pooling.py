"""Pooling. Averages are linear; the winners of a maximum are the activation pattern."""

import math

import numpy as np

from graph_rules.registry import cotangent, never, rule, to_first
from graph_rules.taps import average_taps, folded, winner_taps, wins
from graph_rules.windows import (
    Window,
    loses_padding,
    transposed,
    window_of,
    window_roles,
    window_spread,
)
from srd_onnx.apop.replay import again
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows, Taps
from srd_onnx.graph.ir import Array, Node
from srd_onnx.graph.roles import Axes, Roles


def pool_window(node: Node) -> Window:
    """The window of a pooling node."""
    return window_of(node, node.attrs["kernel_shape"])


def pool_roles(node: Node, roles: Roles) -> tuple[Axes, ...]:
    """N, C, then positions; each channel by itself."""
    return window_roles(node, roles, mixes_channels=False)


def _is_pointwise(node: Node, _roles: Roles) -> bool:
    return pool_window(node).is_single


def _spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    return to_first(node, window_spread(emit, node, shares, pool_window(node)))


def _lossy(node: Node) -> bool:
    return loses_padding(pool_window(node))


def _counts(node: Node, window: Window) -> Array:
    return np.maximum(window.counts(padding=bool(node.attrs["count_include_pad"])), 1)


def _average_taps(emit: Emitter, node: Node) -> Taps:
    window = pool_window(node)
    return average_taps(emit, node, window, _counts(node, window))


@rule(
    "AveragePool",
    versions=(11, 19, 22),
    roles=pool_roles,
    routes=_is_pointwise,
    spread=_spread,
    lossy=_lossy,
    taps=_average_taps,
    replay=again,
)
def average_pool(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g / count`` to every input position in the window; `count_include_pad` counts the padding too."""
    x, window = node.input(0), pool_window(node)
    share = emit("Div", cotangent(cotangents, node), emit.like(x, _counts(node, window)[None, None]))
    ones = np.ones((x.shape[1], 1, *window.kernel), x.dtype)
    return to_first(node, transposed(emit, share, ones, x.shape[1], window))


def _winner_taps(emit: Emitter, node: Node) -> Taps:
    return winner_taps(emit, node, pool_window(node))


def _collapsed_winners(emit: Emitter, node: Node, _m: str, scale: str) -> str | None:
    """ONNX Runtime's MaxPool with indices is many times slower than the one without."""
    window = pool_window(node)
    won = wins(emit, node, window)
    if won is None:
        return None
    return folded(emit, won, scale, window, node.output().dtype)


@rule(
    "MaxPool",
    versions=(12, 22),
    roles=pool_roles,
    routes=_is_pointwise,
    spread=_spread,
    lossy=_lossy,
    nonlinear=True,
    taps=_winner_taps,
    collapsed=_collapsed_winners,
)
def max_pool(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """Each output's ``g`` to its winner, the first one in a tie; overlapping windows add up."""
    g, x, y = cotangent(cotangents, node), node.input(0), node.output()
    attrs = {
        k: node.attrs[k]
        for k in ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")
        if k in node.attrs
    }
    winners = emit.many("MaxPool", x.name, outputs=2, storage_order=0, **attrs)[1]
    size = [math.prod(y.shape)]
    places, parts = emit.reshape(winners, size), emit.reshape(g, size)
    moved = emit.added([math.prod(x.shape)], x.dtype, places, parts, axis=0)
    return to_first(node, emit.reshape(moved, x.shape))


def everywhere(emit: Emitter, node: Node, shares: Flows) -> Flows:
    """An equal part to every position."""
    x, share = node.input(0), shares[0]
    assert share is not None
    size = float(math.prod(x.shape[2:]))
    shape = emit.ints([1, 1, *x.shape[2:]])
    return to_first(node, emit("Expand", emit("Div", share, emit.like(x, size)), shape))


@rule("GlobalAveragePool", versions=(1, 22), roles=pool_roles, routes=never, spread=everywhere)
def global_average_pool(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g / count`` to every position."""
    x = node.input(0)
    share = emit("Div", cotangent(cotangents, node), emit.like(x, float(math.prod(x.shape[2:]))))
    return to_first(node, emit.repeated(share, node.output().shape, x.shape))


@rule("GlobalMaxPool", versions=(1, 22), roles=pool_roles, routes=never, spread=everywhere, nonlinear=True)
def global_max_pool(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` to the winner, equally to several in a tie."""
    x, y = node.input(0), node.output()
    won = emit("Where", emit("Equal", x.name, y.name), emit.like(x, 1.0), emit.like(x, 0.0))
    ties = emit.total(won, range(2, x.rank))
    return to_first(node, emit("Mul", won, emit("Div", cotangent(cotangents, node), ties)))
