"""Where positions mix: expand, VJP, collapse; or the same numbers by what is cheaper, where a rule knows how."""

from collections.abc import Sequence

import numpy as np

from srd_onnx.engine.collapse import collapse, dot
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.half import is_half, mixed_in_half
from srd_onnx.engine.plan import Step
from srd_onnx.engine.rule import Flows, Parts, Rule
from srd_onnx.graph.ir import Node, Value


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
    if is_half(node.output()):
        return mixed_in_half(emit, node, rule, step.carriers, shares, biases(emit, rule, node))
    if len(node.outputs) == 1 and shares[0] is not None and not emit.plain:
        parts = rule.parts(emit, node) if rule.parts else None
        if parts is not None:
            return _by_parts(emit, step, parts, shares[0])
        if rule.collapsed is not None or rule.anew is not None:
            return _by_one(emit, step, shares[0])
    expanded: list[str | None] = []
    undirected: list[str | None] = []
    for value, share, bias in zip(node.outputs, shares, biases(emit, rule, node), strict=True):
        if value is None or share is None:
            expanded.append(None)
            undirected.append(None)
            continue
        scale, left = _scale(emit, value, value.name, share, bias)
        expanded.append(emit.scaled(value.name, value, scale))
        undirected.append(left)
    return _collapsed(emit, step, rule.vjp(emit, node, expanded)), undirected


def _by_parts(
    emit: Emitter, step: Step, parts: Parts, share: str
) -> tuple[list[str | None], list[str | None]]:
    value = step.node.output()
    (bias,) = biases(emit, step.rule, step.node)
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


def _collapsed(emit: Emitter, step: Step, back: Flows) -> list[str | None]:
    return [
        collapse(emit, value, flow) if value is not None and flow is not None and i in step.carriers else None
        for i, (value, flow) in enumerate(zip(step.node.inputs, back, strict=True))
    ]


def biases(emit: Emitter, rule: Rule, node: Node) -> Flows:
    """The part of each output of a node that comes from no input."""
    found = rule.bias(emit, node)
    return [found] * len(node.outputs) if found is None or isinstance(found, str) else found


def tiny(value: Value) -> float:
    """Below this squared norm a PFV counts as zero: far below any real activation, safely above underflow."""
    smallest = float(np.finfo(value.dtype).tiny)
    return smallest * 1e8 if value.dtype.itemsize >= 4 else smallest
