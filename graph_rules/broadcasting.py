"""What operators on several operands share: the roles of a broadcast result, and relevance among the operands."""

from collections.abc import Callable

from graph_rules.registry import carries, cotangent
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.errors import LayoutError
from srd_onnx.graph.ir import Node, Value
from srd_onnx.graph.roles import Axes, Gate, Role, Roles

Carriers = Callable[[Node, Roles], tuple[int, ...]]


def broadcast(node: Node, roles: Roles) -> tuple[Axes]:
    """Roles of a broadcast result: each axis has the role of an operand that varies and is not repeated along it.

    Masks and other operands that carry nothing are asked only about axes of which the others say nothing. A
    number with which a constant is scaled has channels only. The result is the gate that its only varying operand is.
    """
    result = node.output()
    present = [v for v in node.inputs if v is not None and v.name in roles]
    living = [v for v in present if carries(v) and not roles[v.name].inert]
    merged: list[Role | None] = [None] * result.rank
    for value in sorted(living, key=lambda v: v.rank):
        for axis, role, size in _aligned(result, value, roles):
            known = merged[axis]
            if known is None or (size > 1 and known is not role):
                merged[axis] = role
    for value in living:
        for axis, role, size in _aligned(result, value, roles):
            if size > 1 and merged[axis] is not role:
                raise LayoutError(
                    f"{node}: axis {axis} is a {role.name.lower()} axis of one operand and not of another; "
                    "is the layout of the input right?"
                )
    for value in present:
        for axis, role, size in _aligned(result, value, roles):
            if merged[axis] is None and (size > 1 or size == result.shape[axis]):
                merged[axis] = role
    numbers = not any(value.rank for value in present)
    if any(r is None and s > 1 for r, s in zip(merged, result.shape, strict=True)) and not numbers:
        raise LayoutError(f"{node}: a constant adds an axis whose role is not known")
    gate = roles[living[0].name].gate if len(living) == 1 else Gate.NONE
    return (Axes(tuple(r or Role.CHANNEL for r in merged), gate),)


def _aligned(result: Value, value: Value, roles: Roles) -> list[tuple[int, Role, int]]:
    """The axes of an operand as (axis of the result, role, size)."""
    lead = result.rank - value.rank
    return [
        (lead + i, role, size)
        for i, (role, size) in enumerate(zip(roles[value.name].roles, value.shape, strict=True))
    ]


def one_of(carriers: Carriers) -> Callable[[Node, Roles], bool]:
    """Whether one operand alone carries, so that each output position has one feed."""

    def routes(node: Node, roles: Roles) -> bool:
        return len(carriers(node, roles)) == 1

    return routes


def equally(carriers: Carriers) -> Callable[[Emitter, Node, Flows], Flows]:
    """The same part to each operand that carries, summed where it was repeated."""

    def spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
        share = cotangent(shares, node)
        found = carriers(node, emit.roles)
        result = node.output()
        if len(found) > 1:
            share = emit("Div", share, emit.like(result, float(len(found))))
        shape = emit.axes(result).position_shape(result)
        flows: list[str | None] = [None] * len(node.inputs)
        for index in found:
            value = node.input(index)
            flows[index] = emit.unbroadcast(share, shape, emit.axes(value).position_shape(value))
        return flows

    return spread


def back(emit: Emitter, node: Node, flow: str, value: Value) -> str:
    """A flow shaped like the result, summed to the shape of an operand."""
    return emit.unbroadcast(flow, node.output().shape, value.shape)
