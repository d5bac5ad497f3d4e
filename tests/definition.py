"""Sharing ratios from their definition (DESIGN.md, section 2), one input position at a time.

    mu_{i->j} = <v̂_{i->j}, v_j> / |v_j|²,   v̂_{i->j} = replay(all zero but position i)_j - replay(all zero)_j
    R_i = Σ_j mu_{i->j} R_j

What comes from no input, <b_j, v_j> / |v_j|², is spread equally over the input positions that feed j, or booked;
so is all of R_j where v_j = 0. A map that feeds each output position from one input position at most moves R_j there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tests.oracle_types import Array, Attrs, Oracle


@dataclass(frozen=True)
class Shared:
    """Relevance per input position (None for operands that are held fixed), and what was booked per batch item."""

    flows: list[Array | None]
    booked: Array
    most_feeds: int  # the largest number of input positions that feed one output position


@dataclass(frozen=True)
class Layouts:
    """The axis letters of the operands (None where held fixed) and of the outputs: N batch, C channel."""

    inputs: Sequence[str | None]
    outputs: Sequence[str]


def channels(layout: str) -> tuple[int, ...]:
    return tuple(i for i, letter in enumerate(layout) if letter == "C")


def position_shape(layout: str, shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(1 if letter == "C" else size for letter, size in zip(layout, shape, strict=True))


def per_position(layout: str, product: Array) -> Array:
    return np.asarray(product.sum(axis=channels(layout), keepdims=True))


def share_positions(
    oracle: Oracle,
    attrs: Attrs,
    operands: Sequence[Any],
    layouts: Layouts,
    relevance: Sequence[Array | None],
    bias: Literal["distribute", "ledger"],
    *,
    routed: bool | None = None,
) -> Shared:
    """One node crossed in position form.

    Args:
        relevance: per output, one number per position; None where none arrives.
        routed: whether relevance moves without a ratio; by default where each output position has one feed at most.
    """
    held = frozenset(i for i, layout in enumerate(layouts.inputs) if layout is None)
    replay = oracle.freeze(attrs, operands, held)
    structure = oracle.structure(attrs, operands, held)
    zeros = [np.zeros(np.shape(o)) if i not in held else o for i, o in enumerate(operands)]
    outputs, rest, silent = replay(operands), replay(zeros), structure(zeros)
    feeds = _feeds(structure, zeros, silent, layouts, held)
    counts = [sum(feed[o] for feed in feeds.values()) for o in range(len(outputs))]
    most = max(int(np.max(c, initial=0)) for c in counts)
    if routed is None:
        routed = most <= 1
    norms = [per_position(layout, y * y) for layout, y in zip(layouts.outputs, outputs, strict=True)]
    flows = [
        None if layout is None else np.zeros(position_shape(layout, np.shape(o)))
        for layout, o in zip(layouts.inputs, operands, strict=True)
    ]
    booked = np.zeros(relevance_batch(relevance, layouts.outputs))
    for o, r in enumerate(relevance):
        if r is None:
            continue
        layout, y, norm = layouts.outputs[o], outputs[o], norms[o]
        directed = (norm > 0) & (not routed)
        scale = np.where(directed, r / np.where(norm > 0, norm, 1.0), 0.0)
        undirected = np.where(directed, scale * per_position(layout, rest[o] * y), r)
        spread = undirected if routed or bias == "distribute" else np.zeros_like(r)
        part = np.where(counts[o] > 0, spread / np.maximum(counts[o], 1), 0.0)
        lost = undirected - np.where(counts[o] > 0, spread, 0.0)
        booked += np.moveaxis(lost, batch_axis(layout), 0).reshape(len(booked), -1).sum(axis=1)
        for (k, at), feed in feeds.items():
            flow = flows[k]
            assert flow is not None
            flow[at] += (part * feed[o]).sum()
            if not routed:
                alone = _only(zeros, operands, k, at, layouts)
                contribution = replay(alone)[o] - rest[o]
                flow[at] += (scale * per_position(layout, contribution * y)).sum()
    return Shared(flows, booked, most)


def relevance_batch(relevance: Sequence[Array | None], layouts: Sequence[str]) -> int:
    given = zip(relevance, layouts, strict=True)
    return next(
        int(r.shape[layout.find("N")]) if "N" in layout else 1 for r, layout in given if r is not None
    )


def batch_axis(layout: str) -> int:
    return max(layout.find("N"), 0)


def _only(
    zeros: Sequence[Any], operands: Sequence[Any], k: int, at: tuple[int, ...], layouts: Layouts
) -> list[Any]:
    """All operands zero but one position of operand `k`."""
    layout = layouts.inputs[k]
    assert layout is not None
    index = tuple(slice(None) if letter == "C" else i for letter, i in zip(layout, at, strict=True))
    alone = list(zeros)
    alone[k] = np.zeros_like(zeros[k])
    alone[k][index] = operands[k][index]
    return alone


def _feeds(
    structure: Any, zeros: Sequence[Any], silent: Sequence[Array], layouts: Layouts, held: frozenset[int]
) -> dict[tuple[int, tuple[int, ...]], list[Array]]:
    """For each operand position, which output positions it feeds (1.0 or 0.0, per output)."""
    ones = [z if i in held else np.ones(np.shape(z)) for i, z in enumerate(zeros)]
    feeds = {}
    for k, layout in enumerate(layouts.inputs):
        if layout is None:
            continue
        for at in np.ndindex(position_shape(layout, zeros[k].shape)):
            answer = structure(_only(zeros, ones, k, at, layouts))
            feeds[k, at] = [
                (per_position(out, np.abs(a - s)) > 0).astype(float)
                for out, a, s in zip(layouts.outputs, answer, silent, strict=True)
            ]
    return feeds
