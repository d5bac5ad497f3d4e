"""Where positions mix: expand, VJP, collapse; or the same numbers by what is cheaper, where a rule knows how."""

from collections.abc import Sequence

import numpy as np

from srd_onnx.engine.collapse import collapse, dot
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.half import account_type, halved, in_single
from srd_onnx.engine.plan import Step
from srd_onnx.engine.rule import Flows, Parts, Rule
from srd_onnx.graph.ir import Node, Value
from srd_onnx.graph.roles import Role


def mixed(
    emit: Emitter, step: Step, shares: Sequence[str | None]
) -> tuple[list[str | None], list[str | None]]:
    """Relevance of a node's outputs, carried to its inputs by sharing ratios.

    Args:
        emit: takes the nodes.
        step: the node and its rule.
        shares: relevance of each output, a scalar per position.

    Returns:
        what goes to each input; and of each output what no ratio directs: the share of its bias, and all that is of a
        PFV that is zero.
    """
    node, rule = step.node, step.rule
    own, wide = in_single(emit, node)
    if len(node.outputs) == 1 and shares[0] is not None and not emit.plain:
        parts = rule.parts(own, wide) if rule.parts else None
        if parts is not None:
            return _by_parts(own, wide, rule, parts, shares[0])
        if wide is node and (rule.collapsed is not None or rule.anew is not None):
            return _by_one(emit, step, shares[0])
    scales: list[str | None] = []
    undirected: list[str | None] = []
    for value, share, bias in zip(wide.outputs, shares, biases(own, rule, wide), strict=True):
        scale, left = (
            _scale(own, value, value.name, share, bias)
            if value is not None and share is not None
            else (None, None)
        )
        scales.append(scale)
        undirected.append(left)
    unit = None if wide is node else _longest(own, wide, step.carriers, scales)
    expanded: list[str | None] = []
    for like, value, scale in zip(node.outputs, wide.outputs, scales, strict=True):
        if like is None or value is None or scale is None:
            expanded.append(None)
            continue
        factor = scale if unit is None else own("Div", scale, _beside(own, value, unit))
        expanded.append(halved(emit, own.scaled(value.name, value, factor), like))
    return _collapsed(emit, step, rule.vjp(emit, node, expanded), unit), undirected


def _longest(emit: Emitter, node: Node, carriers: Sequence[int], scales: Sequence[str | None]) -> str:
    """The greatest length of what is expanded to any position of each input: in half precision the unit of it.

    Shape [N]; or [1], of all inputs together, where an operand is the same for all.
    """
    apart, found = all(Role.BATCH in emit.axes(node.input(i)).roles for i in carriers), list[str]()
    for value, scale in zip(node.outputs, scales, strict=True):
        if value is not None and scale is not None:
            length = emit("Mul", scale, emit("Sqrt", dot(emit, value, value.name, value.name)))
            roles = emit.axes(value).roles
            others = [axis for axis, role in enumerate(roles) if role is not Role.BATCH or not apart]
            size = emit("Abs", length)
            most = emit("ReduceMax", size, emit.ints(others), keepdims=0) if others else size
            found.append(emit.reshape(most, [-1]))
    return emit("Max", *found, emit.like(node.output(), tiny(node.output())))


def _beside(emit: Emitter, value: Value, per_item: str) -> str:
    """[N] as it broadcasts to a tensor with the axes of `value`; [1] where none of them is the batch."""
    return emit.reshape(per_item, [-1 if role is Role.BATCH else 1 for role in emit.axes(value).roles])


def _by_parts(
    emit: Emitter, node: Node, rule: Rule, parts: Parts, share: str
) -> tuple[list[str | None], list[str | None]]:
    value = node.output()
    (bias,) = biases(emit, rule, node)
    norm = parts.norm or dot(emit, value, value.name, value.name)
    scale, left = _scale(emit, value, value.name, share, bias, norm)
    products = parts.complete(emit, norm, None if bias is None else dot(emit, value, value.name, bias))
    return [emit("Mul", scale, one) if one is not None else None for one in products], [left]


def _by_one(emit: Emitter, step: Step, share: str) -> tuple[list[str | None], list[str | None]]:
    """Of a node with one output, which may be computed anew, and perhaps without the VJP."""
    node, rule = step.node, step.rule
    value = node.output()
    v = (rule.anew(emit, node) if rule.anew else None) or value.name
    (bias,) = biases(emit, rule, node)
    scale, left = _scale(emit, value, v, share, bias)
    flow = rule.collapsed(emit, node, v, scale) if rule.collapsed else None
    if flow is None:
        return _collapsed(emit, step, rule.vjp(emit, node, [emit.scaled(v, value, scale)])), [left]
    return [flow if i in step.carriers else None for i in range(len(node.inputs))], [left]


def _scale(
    emit: Emitter, value: Value, v: str, share: str, bias: str | None, norm: str | None = None
) -> tuple[str, str]:
    """``R_j / ‖v_j‖²``, and what of R_j no ratio directs."""
    floor, rest = undirected_part(emit, value, v, bias, norm or dot(emit, value, v, v))
    scale = emit("Div", share, floor)
    return scale, emit("Mul", scale, rest)


def undirected_part(emit: Emitter, value: Value, v: str, bias: str | None, norm: str) -> tuple[str, str]:
    """``‖v_j‖²``, at least `tiny`, and what of it no operand contributes: the bias, and all of a PFV that is zero."""
    floor = emit("Max", norm, emit.like(value, tiny(value)))
    rest = emit("Sub", floor, norm)
    return floor, rest if bias is None else emit("Add", rest, dot(emit, value, v, bias))


def _collapsed(emit: Emitter, step: Step, back: Flows, unit: str | None = None) -> list[str | None]:
    """What came back, collapsed, times the unit [N] that it was expanded in."""
    found: list[str | None] = []
    for i, (value, flow) in enumerate(zip(step.node.inputs, back, strict=True)):
        if value is None or flow is None or i not in step.carriers:
            found.append(None)
            continue
        given = collapse(emit, value, flow)
        found.append(given if unit is None else emit("Mul", given, _beside(emit, value, unit)))
    return found


def biases(emit: Emitter, rule: Rule, node: Node) -> Flows:
    """The part of each output of a node that comes from no input."""
    found = rule.bias(emit, node)
    return [found] * len(node.outputs) if found is None or isinstance(found, str) else found


def tiny(value: Value) -> float:
    """Below this squared norm a PFV counts as zero: far below any real activation, safely above underflow."""
    return float(np.finfo(account_type(value)).tiny) * 1e8
