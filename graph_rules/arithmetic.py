"""Sums, products and remainders of tensors, with broadcasting. A residual sum shares by projection on the result."""

import numpy as np

from graph_rules.broadcasting import back, broadcast, equally, one_of
from graph_rules.powers import inverted
from graph_rules.registry import cotangent, rule, varying
from srd_onnx.engine.collapse import dot
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows, Parts
from srd_onnx.graph.ir import Node
from srd_onnx.graph.roles import Axes, Roles


def _constant_part(emit: Emitter, node: Node) -> str | None:
    """The operands that do not depend on the input: a bias."""
    parts = [value.name for value in node.inputs if value is not None and not emit.varies(value)]
    return emit.sum(parts) if parts else None


def _sum_vjp(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    g = cotangent(cotangents, node)
    return [back(emit, node, g, v) if v is not None and emit.varies(v) else None for v in node.inputs]


def _sum_parts(emit: Emitter, node: Node) -> Parts | None:
    """``<a, z>`` of all but one, which gets what they leave: ONNX Runtime may add it within its convolution."""
    z, found = node.output(), varying(node, emit.roles)
    if emit.masked or len(found) < 2 or any(node.input(i).shape != z.shape for i in found):
        return None
    rest = min(found, key=lambda i: (len(emit.readers[node.input(i).name]), -i))
    products = [
        dot(emit, z, node.input(i).name, z.name) if i in found and i != rest else None
        for i in range(len(node.inputs))
    ]
    return Parts(products, rest)


@rule(
    "Add",
    versions=(14,),
    roles=broadcast,
    routes=one_of(varying),
    spread=equally(varying),
    bias=_constant_part,
    parts=_sum_parts,
)
def add(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` to both. With expand and collapse: ``R_a = R_z <a, z> / |z|²`` (DESIGN.md, residual)."""
    return _sum_vjp(emit, node, cotangents)


@rule(
    "Sum",
    versions=(13,),
    roles=broadcast,
    routes=one_of(varying),
    spread=equally(varying),
    bias=_constant_part,
    parts=_sum_parts,
)
def sum_of_many(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` to every operand."""
    return _sum_vjp(emit, node, cotangents)


def _difference_carriers(node: Node, roles: Roles) -> tuple[int, ...]:
    """Both; but what is repeated along positions to be subtracted is a statistic, a mean, and held fixed (ours)."""
    found = varying(node, roles)
    if len(found) < 2:
        return found
    left, right = (roles[node.input(i).name].count(node.input(i)) for i in found)
    whole = broadcast(node, roles)[0].count(node.output())
    return (0,) if right < left == whole else found


def _subtracted(emit: Emitter, node: Node) -> str | None:
    left, right = node.input(0), node.input(1)
    carriers = _difference_carriers(node, emit.roles)
    if carriers == (0,):
        return emit("Neg", right.name)
    return left.name if carriers == (1,) else None


@rule(
    "Sub",
    versions=(14,),
    roles=broadcast,
    carriers=_difference_carriers,
    routes=one_of(_difference_carriers),
    spread=equally(_difference_carriers),
    bias=_subtracted,
)
def sub(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` to the left, ``-g`` to the right; a mean over positions that is subtracted is held fixed (ours)."""
    left, right = _sum_vjp(emit, node, cotangents)
    if not emit.tangent and 1 not in _difference_carriers(node, emit.roles):
        right = None
    return [left, emit("Neg", right) if right else None]


def _product_carriers(node: Node, roles: Roles) -> tuple[int, ...]:
    """The gated operand of a gate; both of two equals (ours); the numerator of a quotient.

    A gate is the operand that is the greater `Gate` (of an inverse the other one is the numerator), else the one that
    is repeated along positions.
    """
    found = varying(node, roles)
    if len(found) < 2:
        return found
    if node.key.op_type == "Div":
        return (0,)
    kinds = {i: roles[node.input(i).name].gate for i in found}
    gates = [i for i in found if kinds[i] > min(kinds.values())]
    if len(gates) != 1:
        counts = {i: roles[node.input(i).name].count(node.input(i)) for i in found}
        gates = [i for i in found if counts[i] < max(counts.values())]
    return tuple(i for i in found if i not in gates) if len(gates) == 1 else found


@rule(
    "Mul",
    versions=(14,),
    roles=broadcast,
    carriers=_product_carriers,
    routes=one_of(_product_carriers),
    spread=equally(_product_carriers),
)
def mul(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g * other`` to each operand that carries, halved where both do (frozen); ``tangent`` is the product rule."""
    g = cotangent(cotangents, node)
    both = varying(node, emit.roles)
    carriers = both if emit.tangent else _product_carriers(node, emit.roles)
    if len(carriers) == 2 and not emit.tangent:
        g = emit("Mul", g, emit.like(node.output(), 0.5))
    flows: list[str | None] = [None, None]
    for index in carriers:
        flow = emit("Mul", g, node.input(1 - index).name)
        flows[index] = back(emit, node, flow, node.input(index))
    return flows


def _quotient_roles(node: Node, roles: Roles) -> tuple[Axes]:
    """A constant over a tensor is an inverse."""
    (axes,) = broadcast(node, roles)
    return (axes if 0 in varying(node, roles) else inverted(axes),)


@rule(
    "Div",
    versions=(14,),
    roles=_quotient_roles,
    carriers=_product_carriers,
    routes=one_of(_product_carriers),
    spread=equally(_product_carriers),
)
def div(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g / b`` to the numerator, b held fixed; under a constant one ``g y / b``. ``tangent``: the quotient rule.

    A constant divided by b is frozen as Reciprocal is, without a bias.
    """
    g = cotangent(cotangents, node)
    a, b = node.input(0), node.input(1)
    if b.constant is not None:
        node.require(bool(np.all(b.constant != 0)), "division by a constant zero")
    flows: list[str | None] = [None, None]
    share = emit("Div", g, b.name)
    if emit.varies(a):
        flows[0] = back(emit, node, share, a)
    if emit.varies(b) and (emit.tangent or not emit.varies(a)):
        part = emit("Mul", share, node.output().name)
        flows[1] = back(emit, node, emit("Neg", part) if emit.tangent else part, b)
    return flows


def _constant_part_of_mean(emit: Emitter, node: Node) -> str | None:
    total = _constant_part(emit, node)
    return emit("Div", total, emit.like(node.output(), float(len(node.inputs)))) if total else None


@rule(
    "Mean",
    versions=(13,),
    roles=broadcast,
    routes=one_of(varying),
    spread=equally(varying),
    bias=_constant_part_of_mean,
)
def mean_of_many(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g / n`` to each of the n operands."""
    part = emit("Div", cotangent(cotangents, node), emit.like(node.output(), float(len(node.inputs))))
    return _sum_vjp(emit, node, [part])


def _whole_times(emit: Emitter, node: Node) -> str:
    """How often b goes into a: ``(a - y) / b``."""
    a, b = node.input(0), node.input(1)
    return emit("Round", emit("Div", emit("Sub", a.name, node.output().name), b.name))


def _mod_bias(emit: Emitter, node: Node) -> str | None:
    a, b = node.input(0), node.input(1)
    if not emit.varies(a):
        return a.name
    # -n b; said so it also holds for an infinite divisor, which goes in zero times.
    return None if emit.varies(b) else emit("Sub", node.output().name, a.name)


@rule(
    "Mod",
    versions=(13, 28),
    roles=broadcast,
    routes=one_of(varying),
    spread=equally(varying),
    bias=_mod_bias,
    nonlinear=True,
)
def mod(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``y = a - n b``: ``g`` to a, ``-n g`` to b; how often n it goes in is the pattern."""
    floored = not node.attrs["fmod"]
    node.require(node.key.since >= 28 or not floored, "before opset 28 fmod=0 is for integers only")
    g = cotangent(cotangents, node)
    a, b = node.input(0), node.input(1)
    to_b = emit("Neg", emit("Mul", g, _whole_times(emit, node))) if emit.varies(b) else None
    return [back(emit, node, g, a) if emit.varies(a) else None, to_b and back(emit, node, to_b, b)]
