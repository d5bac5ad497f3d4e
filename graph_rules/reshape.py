"""Reshape, Flatten, Squeeze and Unsqueeze: the same elements in the same order under other axes."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from graph_rules.registry import cotangent, moved, rule, to_first
from srd_onnx.apop.replay import again
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Node
from srd_onnx.graph.roles import Axes, Role, Roles

_SHAPE_VERSIONS = (13, 21, 23, 24, 25)


def _groups(source: Sequence[int], result: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Axes of `source` and `result` in the smallest blocks of equal size, in order: what a reshape merges or splits."""
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(source) or j < len(result):
        left, right = [i] if i < len(source) else [], [j] if j < len(result) else []
        a = source[i] if left else 1
        b = result[j] if right else 1
        i, j = i + len(left), j + len(right)
        while a != b:
            if a < b:
                a, i = a * source[i], i + 1
                left.append(i - 1)
            else:
                b, j = b * result[j], j + 1
                right.append(j - 1)
        blocks.append((left, right))
    return blocks


def _block_roles(node: Node, roles: Roles) -> list[tuple[list[int], list[int], set[Role]]]:
    x, y = node.input(0), node.output()
    own = roles[x.name].roles
    node.require(
        math.prod(x.shape) == math.prod(y.shape),
        f"it makes {list(y.shape)} of {list(x.shape)}, which has another number of elements: the model is made for "
        "another batch or size",
    )
    if 0 in x.shape:
        return [(list(range(x.rank)), list(range(y.rank)), set(own))]
    return [
        (left, right, {own[a] for a in left if x.shape[a] > 1}) for left, right in _groups(x.shape, y.shape)
    ]


def _reshaped(node: Node, roles: Roles) -> tuple[Axes]:
    """A block of one role keeps it.

    Positions merged with channels are positions while other channels remain (a pixel shuffle), and channels
    otherwise (a flatten); unless groups of channels are kept apart, as in a group normalisation written out.
    """
    x, y = node.input(0), node.output()
    own = roles[x.name]
    blocks = _block_roles(node, roles)
    made: list[Role | None] = [None] * y.rank
    # Also one of size 1, as where pixels are shuffled to a single channel.
    channels_elsewhere = any(
        found == {Role.CHANNEL} or (not found and right and own.roles[left[0]] is Role.CHANNEL)
        for left, right, found in blocks
        if left
    )
    for left, right, found in blocks:
        if not found:
            # Axes of size 1 keep what they meant where they are one to one; a new one is a channel axis of one.
            for a, b in zip(left, right, strict=False):
                made[b] = own.roles[a]
            continue
        node.require(
            Role.BATCH not in found or found == {Role.BATCH},
            f"it merges the batch axis with others: {list(x.shape)} ({own}) to {list(y.shape)}",
        )
        mixed = Role.POSITION if channels_elsewhere else Role.CHANNEL
        role = next(iter(found)) if len(found) == 1 else mixed
        for b in right:
            made[b] = role
        if len(found) > 1 and not channels_elsewhere and _keeps_groups(node, own, left, right):
            made[right[0]], made[right[1] : right[-1] + 1] = Role.CHANNEL, [Role.POSITION] * (len(right) - 1)
    return (Axes(tuple(r or Role.CHANNEL for r in made), gate=own.gate),)


def _keeps_groups(node: Node, own: Axes, left: Sequence[int], right: Sequence[int]) -> bool:
    """[C, H, W] to [groups, C/groups * H * W], which normalises as Instance what is meant as Group, and the way back.

    Each place of the long axis lies in one position: relevance that is shared over them keeps its place.
    """
    x, y = node.input(0), node.output()
    channels = [a for a in left if own.roles[a] is Role.CHANNEL]
    count, first = math.prod(x.shape[a] for a in channels), y.shape[right[0]]
    in_front = channels == list(left[: len(channels)])
    apart = count > 1 and first > 1 and (count % first == 0 or first % count == 0)
    return in_front and len(right) > 1 and apart


def _keeps_roles_apart(node: Node, roles: Roles) -> bool:
    return all(len(found) <= 1 for _, _, found in _block_roles(node, roles))


def _moved_equally(emit: Emitter, node: Node, share: str, shape: Sequence[int], axes: Sequence[int]) -> str:
    """Any rearrangement: each element of an output position takes an equal part along to where it came from."""
    x, y = node.input(0), node.output()
    elements = math.prod(y.shape[a] for a in emit.axes(y).channels)
    part = emit("Expand", emit("Div", share, emit.like(x, float(elements))), emit.ints(y.shape))
    return emit.total(emit.reshape(part, shape), axes)


def _reshape_spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    x, share = node.input(0), shares[0]
    assert share is not None
    if _keeps_roles_apart(node, emit.roles):
        return to_first(node, emit.reshape(share, emit.axes(x).position_shape(x)))
    return to_first(node, _moved_equally(emit, node, share, x.shape, emit.axes(x).channels))


def _named_axes(node: Node, rank: int) -> list[int] | None:
    """The axes that Squeeze and Unsqueeze name, if only by a number instead of a list; None for none."""
    named = node.constant(1)
    return None if named is None else [int(a) % rank for a in np.ravel(named)]


def _squeezed(node: Node, roles: Roles) -> tuple[Axes]:
    """The axes that stay keep their roles: of several of size 1, too, it is said which goes."""
    x = node.input(0)
    own, gone = roles[x.name], _named_axes(node, x.rank)
    if gone is None:
        gone = [a for a, size in enumerate(x.shape) if size == 1]
    return (Axes(tuple(role for a, role in enumerate(own.roles) if a not in gone), gate=own.gate),)


def _unsqueezed(node: Node, roles: Roles) -> tuple[Axes]:
    """A new axis is a channel axis of one."""
    own, rank = roles[node.input(0).name], node.output().rank
    kept, new = iter(own.roles), _named_axes(node, rank) or []
    return (Axes(tuple(Role.CHANNEL if a in new else next(kept) for a in range(rank)), gate=own.gate),)


_view = partial(
    rule, routes=_keeps_roles_apart, spread=_reshape_spread, carriers=moved, replay=again, head="view"
)


@_view("Reshape", versions=(14, 19, 21, 23, 24, 25), roles=_reshaped)
@_view("Flatten", versions=_SHAPE_VERSIONS, roles=_reshaped)
@_view("Squeeze", versions=_SHAPE_VERSIONS, roles=_squeezed)
@_view("Unsqueeze", versions=_SHAPE_VERSIONS, roles=_unsqueezed)
def reshape(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` in the old shape."""
    return to_first(node, emit.reshape(cotangent(cotangents, node), node.input(0).shape))
