"""Operators that take each element from one of their operands: Max, Min, Where. Which one is the pattern."""

from functools import partial

from graph_rules.broadcasting import back, broadcast, equally, one_of
from graph_rules.registry import cotangent, rule, varying
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Node


def _wins(emit: Emitter, node: Node) -> list[str]:
    """Per operand, where its element is the result; of equals the first wins."""
    y = node.output()
    wins: list[str] = []
    taken: str | None = None
    for index in range(len(node.inputs)):
        hit = emit("Equal", node.input(index).name, y.name)
        wins.append(hit if taken is None else emit("And", hit, emit("Not", taken)))
        taken = hit if taken is None else emit("Or", taken, hit)
    return wins


def _constant_winners(emit: Emitter, node: Node) -> str | None:
    constants = [i for i in range(len(node.inputs)) if not emit.varies(node.input(i))]
    if not constants:
        return None
    wins, y = _wins(emit, node), node.output()
    won = wins[constants[0]]
    for index in constants[1:]:
        won = emit("Or", won, wins[index])
    return emit("Where", won, y.name, emit.like(y, 0.0))


_extreme = partial(
    rule,
    versions=(13,),
    roles=broadcast,
    routes=one_of(varying),
    spread=equally(varying),
    bias=_constant_winners,
    nonlinear=True,
)


@_extreme("Max")
@_extreme("Min")
def extreme(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` to the greatest (least) operand, of equals to the first; where a constant wins it is a bias."""
    g, zero = cotangent(cotangents, node), emit.like(node.output(), 0.0)
    if len(node.inputs) == 1:
        return [g]
    flows: list[str | None] = [None] * len(node.inputs)
    for index in varying(node, emit.roles):
        won = emit("Where", _wins(emit, node)[index], g, zero)
        flows[index] = back(emit, node, won, node.input(index))
    return flows


def _constant_choice(emit: Emitter, node: Node) -> str | None:
    condition, a, b = (node.input(i) for i in range(3))
    zero = emit.like(node.output(), 0.0)
    if not emit.varies(a):
        return emit("Where", condition.name, a.name, zero)
    return None if emit.varies(b) else emit("Where", condition.name, zero, b.name)


@rule(
    "Where",
    versions=(16,),
    roles=broadcast,
    routes=one_of(varying),
    spread=equally(varying),
    bias=_constant_choice,
)
def where(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` to whichever operand was taken; the condition is the pattern, also where it is computed."""
    g, zero = cotangent(cotangents, node), emit.like(node.output(), 0.0)
    condition, a, b = (node.input(i) for i in range(3))
    taken = (emit("Where", condition.name, g, zero), emit("Where", condition.name, zero, g))
    return [
        None,
        *(back(emit, node, f, v) if emit.varies(v) else None for f, v in zip(taken, (a, b), strict=True)),
    ]
