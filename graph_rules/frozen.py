"""How a nonlinear function of one operand is frozen: what activations, powers and elementary functions share.

Under a fixed pattern `f(v) = f(0) + v (f(v) - f(0)) / v`, the limit of the slope where v = 0, and f(0) a bias
(DESIGN.md, section 2). A function that is not finite at 0 (logarithm, reciprocal) has no such line: it is frozen as
`f(v) = v (f(v) / v)`, without a bias (ours).
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from graph_rules.registry import always, cotangent, rule, through, to_first
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Node, Value

# A nonlinear function of every element: it acts on each position alone.
elementwise = partial(rule, routes=always, spread=through, nonlinear=True)


def positive(emit: Emitter, node: Node) -> str:
    """Where the output is positive: of a rectifier, where its neurons are active."""
    y = node.output()
    return emit("Greater", y.name, emit.like(y, 0.0))


# One that is 0 at 0, positive above and damped below: its neurons are on or off.
rectifier = partial(elementwise, active=positive)


def scaled(emit: Emitter, node: Node, cotangents: Flows, slope: str) -> Flows:
    """``g slope`` to the first input."""
    return to_first(node, emit("Mul", cotangent(cotangents, node), slope))


def constantly(number: float) -> Callable[[Emitter, Node], str]:
    """The bias of a function that is `number` at 0."""

    def bias(emit: Emitter, node: Node) -> str:
        return emit.like(node.output(), number)

    return bias


def unless_masked(number: float) -> Callable[[Emitter, Node], str]:
    """The bias of a function that is `number` at 0, and 0 at -inf: from there its line has neither slope nor bias."""

    def bias(emit: Emitter, node: Node) -> str:
        v = node.input(0)
        masked = emit("Equal", v.name, emit.like(v, -np.inf))
        return emit("Where", masked, emit.like(v, 0.0), emit.like(v, number))

    return bias


def ratio(emit: Emitter, v: Value, y: str, at_zero: float | str) -> str:
    """`y / v`, and `at_zero` where v is 0: the slope of a function that is 0 there, or not finite."""
    zero = emit("Equal", v.name, emit.like(v, 0.0))
    safe = emit("Where", zero, emit.like(v, 1.0), v.name)
    limit = at_zero if isinstance(at_zero, str) else emit.like(v, at_zero)
    return emit("Where", zero, limit, emit("Div", y, safe))


def polynomial(emit: Emitter, v: Value, x: str, coefficients: Sequence[float]) -> str:
    """The polynomial of the tensor `x` with these coefficients, lowest power first."""
    found = emit.like(v, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        found = emit("Add", emit("Mul", found, x), emit.like(v, coefficient))
    return found


def secant(emit: Emitter, node: Node, at_zero: float, series: Sequence[float], radius: float = 0.05) -> str:
    """`(f(v) - f(0)) / v`, and within `radius` of 0, where that cancels, its Taylor series (lowest power first)."""
    v, y = node.input(0), node.output()
    near = emit("Less", emit("Abs", v.name), emit.like(v, radius))
    safe = emit("Where", near, emit.like(v, 1.0), v.name)
    far_slope = emit("Div", emit("Sub", y.name, emit.like(v, at_zero)), safe)
    small = emit("Where", near, v.name, emit.like(v, 0.0))
    return emit("Where", near, polynomial(emit, v, small, series), far_slope)
