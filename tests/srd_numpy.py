"""SRD for a whole network in plain numpy, straight from DESIGN.md: cotangents to the boundary, ratios below it.

Slow and literal: a transposed Jacobian is found one unit vector at a time, a sharing ratio one position at a time.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srd_onnx.engine.options import Options
from tests.definition import Layouts, per_position, position_shape, share_positions
from tests.oracles import ORACLES
from tests.small_nets import Layer, Net

Array = NDArray[Any]


@dataclass(frozen=True)
class Explained:
    """Shapes: relevance [N, *positions], seed and booked [N], logits [N, K], chosen [N]."""

    relevance: Array
    seed: Array
    booked: Array
    logits: Array
    chosen: Array


def forward(net: Net, x: Array) -> dict[str, Array]:
    """Every tensor; an operator's replay at its own operands is the operator."""
    values = {"x": x, **net.constants}
    for layer in net.layers:
        operands = [values[name] for name in layer.inputs]
        replay = ORACLES[layer.op].freeze(layer.attrs, operands, net.held(layer))
        values.update(zip(layer.outputs, replay(operands), strict=True))
    return values


def explain(net: Net, x: Array, target: Array, options: Options) -> Explained:
    """The whole pass; `target` [N], -1 for the top class."""
    values = forward(net, x)
    logits = values["logits"]
    rows = np.arange(len(logits))
    chosen = np.where(target < 0, logits.argmax(axis=1), target)
    direction = np.zeros_like(logits)
    direction[rows, chosen] = 1.0
    if options.seed == "logprob":
        powers = np.exp(logits)
        direction -= powers / powers.sum(axis=1, keepdims=True)
    elif options.seed == "contrast":
        others = logits.copy()
        others[rows, chosen] = -np.inf
        direction[rows, others.argmax(axis=1)] -= 1.0
    below = ancestors(net, net.boundary if options.boundary == "encoder" else options.boundary)
    cotangents: dict[str, Array] = {"logits": direction}
    shares: defaultdict[str, Any] = defaultdict(lambda: 0.0)
    booked = np.zeros(len(x))
    for layer in reversed(net.layers):
        for name in layer.outputs:
            if name in below and name in cotangents:
                booked += enter(net, values, name, cotangents.pop(name), shares, options)
        above = [cotangents.get(name) for name in layer.outputs]
        if any(u is not None for u in above):
            booked += cross_with_cotangents(net, layer, values, above, cotangents)
        relevance = [shares.get(name) for name in layer.outputs]
        if any(r is not None for r in relevance):
            booked += cross_with_shares(net, layer, values, relevance, shares, options)
    if "x" in cotangents:
        booked += enter(net, values, "x", cotangents.pop("x"), shares, options)
    keep = tuple(size for size, letter in zip(x.shape, net.layout, strict=True) if letter != "C")
    return Explained(np.reshape(shares["x"], keep), (logits * direction).sum(axis=1), booked, logits, chosen)


def ancestors(net: Net, boundary: str) -> set[str]:
    """The boundary and everything it is computed from along operands that receive relevance."""
    found = {boundary}
    for layer in reversed(net.layers):
        if found.intersection(layer.outputs):
            found |= {name for i, name in enumerate(layer.inputs) if i not in net.held(layer)}
    return found


def enter(
    net: Net, values: dict[str, Array], name: str, cotangent: Array, shares: dict[str, Any], options: Options
) -> Array:
    """Collapse a cotangent to relevance per position; what is booked is the negative part, if it must be positive."""
    share = per_position(net.layouts[name], values[name] * cotangent)
    kept = np.maximum(share, 0.0) if options.sign == "positive" else share
    shares[name] = shares[name] + kept
    return per_image(share - kept)


def per_image(array: Array) -> Array:
    return np.asarray(array.reshape(len(array), -1).sum(axis=1))


def cross_with_cotangents(
    net: Net, layer: Layer, values: dict[str, Array], above: list[Any], cotangents: dict[str, Array]
) -> Array:
    """`J^T u` of the frozen map, one unit vector at a time; its constant part is booked."""
    held = net.held(layer)
    operands = [values[name] for name in layer.inputs]
    replay = ORACLES[layer.op].freeze(layer.attrs, operands, held)
    zeros = [o if i in held else np.zeros_like(o) for i, o in enumerate(operands)]
    rest = replay(zeros)
    for k, name in enumerate(layer.inputs):
        if k in held:
            continue
        flow = np.zeros_like(operands[k])
        for at in np.ndindex(flow.shape):
            unit = list(zeros)
            unit[k] = np.zeros_like(operands[k])
            unit[k][at] = 1.0
            moved = replay(unit)
            flow[at] = sum(
                float(((m - r) * u).sum())
                for m, r, u in zip(moved, rest, above, strict=True)
                if u is not None
            )
        cotangents[name] = cotangents[name] + flow if name in cotangents else flow
    booked = [
        per_image(np.broadcast_to(r, u.shape) * u) for r, u in zip(rest, above, strict=True) if u is not None
    ]
    return np.asarray(sum(booked))


def cross_with_shares(
    net: Net,
    layer: Layer,
    values: dict[str, Array],
    relevance: list[Any],
    shares: dict[str, Any],
    options: Options,
) -> Array:
    held = net.held(layer)
    layouts = Layouts(
        [None if i in held else net.layouts[name] for i, name in enumerate(layer.inputs)],
        [net.layouts[name] for name in layer.outputs],
    )
    operands = [values[name] for name in layer.inputs]
    shared = share_positions(ORACLES[layer.op], layer.attrs, operands, layouts, relevance, options.bias)
    for name, flow in zip(layer.inputs, shared.flows, strict=True):
        if flow is not None:
            assert flow.shape == position_shape(net.layouts[name], values[name].shape)
            shares[name] = shares[name] + flow
    return shared.booked
