"""Sums and products of tensors, with broadcasting. A residual sum shares by projection on the result."""

import numpy as np

from graph_rules.registry import cotangent, rule, varying
from srd_onnx.emit import Emitter
from srd_onnx.errors import LayoutError
from srd_onnx.ir import Node, Value
from srd_onnx.roles import Axes, Gate, Role, Roles
from srd_onnx.rule import Flows


def _broadcast(node: Node, roles: Roles) -> tuple[Axes]:
    """Roles of a broadcast result: each axis has the role of an operand that varies and is not repeated along it."""
    result = node.output()
    merged: list[Role | None] = [None] * result.rank
    operands = [v for v in node.inputs if v is not None and v.name in roles]
    for value in sorted(operands, key=lambda v: v.rank):
        lead = result.rank - value.rank
        for axis, (role, size) in enumerate(zip(roles[value.name].roles, value.shape, strict=True), lead):
            known = merged[axis]
            if known is None or (size > 1 and known is not role):
                merged[axis] = role
    for value in operands:
        lead = result.rank - value.rank
        for axis, (role, size) in enumerate(zip(roles[value.name].roles, value.shape, strict=True), lead):
            if size > 1 and merged[axis] is not role:
                raise LayoutError(
                    f"{node}: axis {axis} is a {role.name.lower()} axis of one operand and not of another; "
                    "is the layout of the input right?"
                )
    if any(r is None and s > 1 for r, s in zip(merged, result.shape, strict=True)):
        raise LayoutError(f"{node}: a constant adds an axis whose role is not known")
    gates = [roles[v.name].gate for v in operands]
    return (Axes(tuple(r or Role.CHANNEL for r in merged), gates[0] if len(gates) == 1 else Gate.NONE),)


def _one_carrier(node: Node, roles: Roles) -> bool:
    return len(_carriers(node, roles)) == 1


def _carriers(node: Node, roles: Roles) -> tuple[int, ...]:
    return _product_carriers(node, roles) if node.key.op_type in ("Mul", "Div") else varying(node, roles)


def _equally(emit: Emitter, node: Node, shares: Flows) -> Flows:
    """The same part to each operand that carries, summed where it was repeated."""
    share = cotangent(shares, node)
    carriers = _carriers(node, emit.roles)
    result = node.output()
    if len(carriers) > 1:
        share = emit("Div", share, emit.like(result, float(len(carriers))))
    shape = emit.axes(result).position_shape(result)
    flows: list[str | None] = [None] * len(node.inputs)
    for index in carriers:
        value = node.input(index)
        flows[index] = emit.unbroadcast(share, shape, emit.axes(value).position_shape(value))
    return flows


def _constant_part(emit: Emitter, node: Node) -> str | None:
    """The operands that do not depend on the input: a bias."""
    parts = [
        emit("Neg", value.name) if node.key.op_type == "Sub" and index == 1 else value.name
        for index, value in enumerate(node.inputs)
        if value is not None and not emit.varies(value)
    ]
    return emit.sum(parts) if parts else None


def _back(emit: Emitter, node: Node, flow: str, value: Value) -> str:
    return emit.unbroadcast(flow, node.output().shape, value.shape)


def _sum_vjp(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    g = cotangent(cotangents, node)
    return [_back(emit, node, g, v) if v is not None and emit.varies(v) else None for v in node.inputs]


@rule("Add", versions=(14,), roles=_broadcast, routes=_one_carrier, spread=_equally, bias=_constant_part)
def add(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` to both. With expand and collapse: ``R_a = R_z <a, z> / |z|²`` (DESIGN.md, residual)."""
    return _sum_vjp(emit, node, cotangents)


@rule("Sum", versions=(13,), roles=_broadcast, routes=_one_carrier, spread=_equally, bias=_constant_part)
def sum_of_many(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` to every operand."""
    return _sum_vjp(emit, node, cotangents)


@rule("Sub", versions=(14,), roles=_broadcast, routes=_one_carrier, spread=_equally, bias=_constant_part)
def sub(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` to the left, ``-g`` to the right."""
    left, right = _sum_vjp(emit, node, cotangents)
    return [left, emit("Neg", right) if right else None]


def _product_carriers(node: Node, roles: Roles) -> tuple[int, ...]:
    """The gated operand of a gate; both of two equals (ours); the numerator of a quotient.

    A gate is the operand that is the greater `Gate`, else the one that is repeated along positions.
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
    roles=_broadcast,
    carriers=_product_carriers,
    routes=_one_carrier,
    spread=_equally,
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
        flows[index] = _back(emit, node, flow, node.input(index))
    return flows


@rule(
    "Div",
    versions=(14,),
    roles=_broadcast,
    carriers=_product_carriers,
    routes=_one_carrier,
    spread=_equally,
)
def div(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g / b`` to the numerator; the denominator is a statistic that is held fixed. ``tangent``: the quotient rule."""
    g = cotangent(cotangents, node)
    a, b = node.input(0), node.input(1)
    node.require(
        emit.varies(a) or emit.tangent,
        "a constant divided by a computed tensor has no fixed pattern to be linear under",
    )
    if b.constant is not None:
        node.require(bool(np.all(b.constant != 0)), "division by a constant zero")
    flows: list[str | None] = [None, None]
    share = emit("Div", g, b.name)
    if emit.varies(a):
        flows[0] = _back(emit, node, share, a)
    if emit.varies(b) and emit.tangent:
        flows[1] = _back(emit, node, emit("Neg", emit("Mul", share, node.output().name)), b)
    return flows
