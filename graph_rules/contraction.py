"""Sums of products: what MatMul, Gemm and Einsum have in common. Every axis has a label, as in an Einsum equation.

A product of two computed tensors, ``q @ k`` or ``attention @ v``, is linear in each: under a fixed pattern a gate (the
softmax of attention) is a constant and everything goes to the other operand; k equals share it, 1/k each (ours).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from graph_rules.registry import Vjp, cotangent, rule, varying
from srd_onnx.apop.replay import again
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows, Taps
from srd_onnx.errors import LayoutError
from srd_onnx.graph.ir import Node, Value
from srd_onnx.graph.roles import Axes, Role, Roles

Term = tuple[str, ...]


@dataclass(frozen=True)
class Contraction:
    """``y[out] = Σ Π_i x_i[terms[i]]``, summed over the labels that `out` lacks.

    An axis of size 1 may carry a label of a larger size: it is repeated along it. `added` labels the axes of a
    summand, the input after the factors (Gemm's C).
    """

    terms: tuple[Term, ...]
    out: Term
    added: Term | None = None

    def term(self, index: int) -> Term:
        """The labels of an input."""
        if index < len(self.terms):
            return self.terms[index]
        assert self.added is not None
        return self.added


def contracting(terms: Callable[[Node], Contraction]) -> Callable[..., Callable[[Vjp], Vjp]]:
    """`rule` for an operator that is a contraction, with all but its name, versions and bias.

    Args:
        terms: the labels of a node.
    """
    return partial(
        rule,
        roles=lambda node, roles: _roles(node, roles, terms(node)),
        carriers=lambda node, roles: _carriers(node, roles, terms(node)),
        routes=lambda node, roles: _routes(node, roles, terms(node)),
        spread=lambda emit, node, shares: _spread(emit, node, shares, terms(node)),
        replay=lambda emit, node, news: _replay(emit, node, news, terms(node)),
        weights=lambda node: _weights(node, terms(node)),
        taps=lambda emit, node: _taps(emit, node, terms(node)),
    )


def sizes_of(node: Node, c: Contraction) -> dict[str, int]:
    """The size of each label: that of the operands which are not repeated along it."""
    sizes: dict[str, int] = {}
    for index, term in enumerate(c.terms):
        for label, size in zip(term, node.input(index).shape, strict=True):
            sizes[label] = max(sizes.get(label, 1), size) if size else 0
    return sizes


def _own_roles(node: Node, roles: Roles, c: Contraction) -> dict[int, dict[str, tuple[Role, int]]]:
    """For each operand whose axes are known: role and size by label. Those that carry come first, masks last."""
    count = len(c.terms) + (c.added is not None)
    known = [i for i in range(count) if node.input(i).name in roles]
    known.sort(key=lambda i: roles[node.input(i).name].inert)
    return {i: _by_label(c.term(i), node.input(i), roles) for i in known}


def _by_label(term: Term, value: Value, roles: Roles) -> dict[str, tuple[Role, int]]:
    axes = zip(term, roles[value.name].roles, value.shape, strict=True)
    return {label: (role, size) for label, role, size in axes}


def _roles(node: Node, roles: Roles, c: Contraction) -> tuple[Axes]:
    """A label of the result has the role that it has in the operands; one that only constants have, of what they sum.

    Raises:
        LayoutError: if the operands disagree, or a constant adds an axis and sums over none.
        UnsupportedCaseError: if it takes a diagonal of axes of different roles, sums over the batch, or compares its
            items with each other.
    """
    for index, term in enumerate(c.terms):
        own = roles.get(node.input(index).name)
        node.require(
            own is None or len(set(zip(term, own.roles, strict=True))) == len(set(term)),
            f"the diagonal of axes of different roles ({own}) has no rule",
        )
    made: dict[str, tuple[Role, int]] = {}
    summed: set[Role] = set()
    for found in _own_roles(node, roles, c).values():
        for label, (role, size) in found.items():
            before = made.get(label)
            if label not in c.out:
                node.require(
                    role is not Role.BATCH or size == 1,
                    "it sums over the batch axis, so that images are no longer independent",
                )
                summed.add(role)
            elif before is not None and min(before[1], size) > 1 and before[0] is not role:
                raise LayoutError(
                    f"{node}: axis {c.out.index(label)} of the result is a {before[0].name.lower()} axis of one "
                    f"operand and a {role.name.lower()} axis of another; is the layout of the input right?"
                )
            if before is None or size > before[1]:
                made[label] = (role, size)
    result = [made[label][0] if label in made else _new_role(node, summed) for label in c.out]
    sizes = node.output().shape
    batches = [i for i, role in enumerate(result) if role is Role.BATCH]
    node.require(
        sum(sizes[i] > 1 for i in batches) <= 1,
        "it multiplies each item of the batch with every other, so that images are no longer independent",
    )
    keep = max(batches, key=lambda i: (sizes[i], -i), default=None)
    return (Axes(tuple(Role.CHANNEL if i in batches and i != keep else r for i, r in enumerate(result))),)


def _new_role(node: Node, summed: set[Role]) -> Role:
    """An axis that only a constant has stands in the place of those that the product with it sums over."""
    if not summed:
        raise LayoutError(f"{node}: a constant adds an axis whose role is not known")
    return Role.POSITION if summed == {Role.POSITION} else Role.CHANNEL


def _carriers(node: Node, roles: Roles, c: Contraction) -> tuple[int, ...]:
    """All operands that vary but those that are greater gates than the others; a summand always."""
    found = varying(node, roles)
    gates = {i: roles[node.input(i).name].gate for i in found if i < len(c.terms)}
    lowest = min(gates.values(), default=None)
    return tuple(i for i in found if i not in gates or gates[i] == lowest)


def flowing(emit: Emitter, node: Node, c: Contraction) -> tuple[int, ...]:
    """The inputs that a VJP has something for: all that vary (`tangent`), or the carriers."""
    return varying(node, emit.roles) if emit.tangent else _carriers(node, emit.roles, c)


def _sharing(node: Node, roles: Roles, c: Contraction) -> int:
    """How many factors carry."""
    return sum(i < len(c.terms) for i in _carriers(node, roles, c))


def halved(emit: Emitter, node: Node, c: Contraction, flow: str) -> str:
    """Under a fixed pattern k factors that carry have 1/k of the product each."""
    count = _sharing(node, emit.roles, c)
    if emit.tangent or count < 2:
        return flow
    return emit("Mul", flow, emit.like(node.output(), 1.0 / count))


def _replay(emit: Emitter, node: Node, news: Flows, c: Contraction) -> Flows | None:
    """The operator again where one factor carries."""
    return again(emit, node, news) if _sharing(node, emit.roles, c) < 2 else None


def _weights(node: Node, c: Contraction) -> int | None:
    """The constant one of two factors."""
    constant = [i for i in range(len(c.terms)) if node.input(i).constant is not None]
    return constant[0] if len(c.terms) == 2 and len(constant) == 1 else None


def _routes(node: Node, roles: Roles, c: Contraction) -> bool:
    """One operand carries, and no positions of it are summed over."""
    carriers = _carriers(node, roles, c)
    return len(carriers) == 1 and _feeding(node.input(carriers[0]), roles, c, carriers[0]) <= 1


def _feeding(x: Value, roles: Roles, c: Contraction, index: int) -> int:
    """How many positions of an operand feed one position of the result."""
    own = zip(c.term(index), roles[x.name].position_shape(x), strict=True)
    return math.prod({label: size for label, size in own if label not in c.out}.values())


def _spread(emit: Emitter, node: Node, shares: Flows, c: Contraction) -> Flows:
    """To every position of every carrier that feeds the output position the same part."""
    share, carriers = cotangent(shares, node), _carriers(node, emit.roles, c)
    total = sum(_feeding(node.input(i), emit.roles, c, i) for i in carriers)
    if total > 1:
        share = emit("Div", share, emit.like(node.output(), float(total)))
    flows: list[str | None] = [None] * len(node.inputs)
    y = node.output()
    for index in carriers:
        x = node.input(index)
        shape = emit.axes(x).position_shape(x)
        flows[index] = moved(emit, share, (c.out, emit.axes(y).position_shape(y)), c.term(index), x, shape)
    return flows


def _taps(emit: Emitter, node: Node, c: Contraction) -> Taps | None:
    """``Σ W[..., j, i] <x_i, y_j>`` over the heads: attention, where a gate weighs the positions of one operand.

    None where the gate does not have all positions, or there is none: then the VJP is probed.
    """
    carriers = _carriers(node, emit.roles, c)
    if len(c.terms) != 2 or len(carriers) != 1 or carriers[0] > 1:
        return None
    index, gate = carriers[0], 1 - carriers[0]
    x, weights, y = node.input(index), node.input(gate), node.output()
    sizes = sizes_of(node, c)
    parts = ((c.term(index), x), (c.term(gate), weights), (c.out, y))
    whole = all(
        len(set(term)) == len(term) and value.shape == tuple(sizes[la] for la in term)
        for term, value in parts
    )
    own = dict(zip(c.term(index), emit.axes(x).roles, strict=True))
    made = dict(zip(c.out, emit.axes(y).roles, strict=True))
    roles = own | made
    outer = [label for label in c.out if made[label] is Role.BATCH]
    places = [label for label in c.out if made[label] is Role.POSITION]
    summed = [label for label in c.term(index) if own[label] is Role.POSITION and label not in c.out]
    needed = {*outer, *places, *summed, *_positions(own)}
    if not whole or not needed <= set(c.term(gate)) or not set(outer) <= set(own):
        return None
    letters = {label: chr(ord("a") + i) for i, label in enumerate(roles)}

    def spelt(labels: Iterable[str]) -> str:
        return "".join(letters[label] for label in labels)

    alike = emit(
        "Einsum", y.name, x.name, equation=f"{spelt(c.out)},{spelt(c.term(index))}->{spelt(c.term(gate))}"
    )
    weighed = emit("Mul", alike, weights.name)
    result = [*outer, *summed, *places]
    products = emit("Einsum", weighed, equation=f"{spelt(c.term(gate))}->{spelt(result)}")
    taps, items = math.prod(sizes[la] for la in summed), math.prod(sizes[la] for la in outer)
    shape = [sizes[label] for label in places]
    grid = dict(
        zip(
            [*summed, *places], np.indices([sizes[la] for la in (*summed, *places)], sparse=True), strict=True
        )
    )
    found = np.zeros((1,), np.int64)
    for label in _positions(own):
        found = found * sizes[label] + grid[label]
    every = np.broadcast_to(found, [sizes[la] for la in (*summed, *places)]).reshape(taps, *shape)
    return Taps(index, every, emit.reshape(products, [items, taps, *shape]))


def _positions(roles: Mapping[str, Role]) -> list[str]:
    return [label for label, role in roles.items() if role is Role.POSITION]


def moved(
    emit: Emitter, flow: str, have: tuple[Term, Sequence[int]], want: Term, x: Value, shape: Sequence[int]
) -> str:
    """A tensor with labelled axes, summed, reordered and repeated to other labels.

    Args:
        emit: the emitter.
        flow: the tensor.
        have: its labels, each once, and its shape.
        want: the labels wanted; one that is there twice means the diagonal.
        x: a value of the dtype.
        shape: the shape wanted.
    """
    own = {label: size for label, size in zip(want, shape, strict=True) if size > 1}
    kept = [label for label, size in zip(*have, strict=True) if size > 1 and label in own]
    flow = emit.total(
        flow, [i for i, (la, size) in enumerate(zip(*have, strict=True)) if size > 1 and la not in kept]
    )
    order = [label for label in dict.fromkeys(want) if label in kept]
    if order != kept:
        flow = emit.reshape(flow, [own[label] for label in kept])
        flow = emit("Transpose", flow, perm=[kept.index(label) for label in order])
    first = [label in kept and want.index(label) == i for i, label in enumerate(want)]
    narrow = [size if here else 1 for here, size in zip(first, shape, strict=True)]
    now = (
        [own[la] for la in order]
        if order != kept
        else [s if la in kept else 1 for la, s in zip(*have, strict=True)]
    )
    if narrow != now:
        flow = emit.reshape(flow, narrow)
    if narrow != list(shape):
        flow = emit("Expand", flow, emit.ints(shape))
    mask = _diagonal(want, shape)
    return emit("Mul", flow, emit.like(x, mask)) if mask is not None else flow


def _diagonal(term: Term, shape: Sequence[int]) -> "np.ndarray | None":
    """1 where axes of the same label have the same index, 0 elsewhere; None if no label is there twice."""
    repeated = [label for label in dict.fromkeys(term) if sum(_places(term, shape, label)) > 1]
    if not repeated:
        return None
    mask = np.ones((1,) * len(term))
    for label in repeated:
        axes = [i for i, here in enumerate(_places(term, shape, label)) if here]
        index = np.indices([shape[i] for i in axes])
        full = [shape[i] if i in axes else 1 for i in range(len(term))]
        mask = mask * (index == index[:1]).all(axis=0).reshape(full)
    return mask


def _places(term: Term, shape: Sequence[int], label: str) -> Iterable[bool]:
    return [la == label and size > 1 for la, size in zip(term, shape, strict=True)]
