"""The rules of layer-wise relevance propagation (LRP), on the rules of operators: no operator has one of its own.

Relevance R is a number per neuron. A node hands it to its input x by

    R_x = x ⊙ J^T (R ⊘ (y + ε sign y))                                        (LRP-ε)

where J is its linear map under the fixed activation pattern and y its output, the bias included. The other rules change
the weights of a convolution or matrix product, and what it is applied to, and do the same with several such terms. All
are as in Montavon, Binder, Lapuschkin, Samek, Müller 2019 ("Layer-Wise Relevance Propagation: An Overview"), for inputs
of both signs as in zennit 0.5 (Andéol et al. 2021), so that they can be compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.plan import Step
from srd_onnx.engine.rule import Flows
from srd_onnx.errors import UnsupportedCaseError
from srd_onnx.graph.ir import Array, Node, Value

STABILISER = 1e-6  # where LRP-ε does not say another, in the units of what is divided by; as in zennit
LayerRule = Callable[[Emitter, Step, Flows], Flows]
_Change = Callable[[Array], Array]


@dataclass(frozen=True)
class _Term:
    """A tensor in the place of the input of a node with changed weights, added or subtracted."""

    operand: str
    node: Node
    sign: int = 1


def weights_of(step: Step) -> int | None:
    """Which input of a node has the weights that LRP changes: it has one carrier, and constants otherwise; or None.

    Raises:
        UnsupportedCaseError: an attribute turns the sign of the weights.
    """
    node, index = step.node, step.rule.weights(step.node) if step.rule.weights is not None else None
    if index is None or len(step.carriers) != 1 or node.input(index).constant is None:
        return None
    if any(isinstance(value, float) and value < 0 for value in node.attrs.values()):
        raise UnsupportedCaseError(
            f"{node}: a negative factor in its attributes turns the sign of its weights, which LRP does not know; "
            "put it into the weights"
        )
    return index


def epsilon_rule(epsilon: float) -> LayerRule:
    """LRP-ε for any node; a rectifier hands on unchanged what arrived where it is active.

    Without weights (sums, means, maxima, whatever moves elements) ε is next to nothing.
    """

    def apply(emit: Emitter, step: Step, arrived: Flows) -> Flows:
        node, rule = step.node, step.rule
        small = epsilon if weights_of(step) is not None else _guard(node.output())
        if at_integers(step):
            return moved(emit, step, arrived)
        shares = [
            emit("Div", flow, _stabilised(emit, value.name, value, small)) if value and flow else None
            for value, flow in zip(node.outputs, arrived, strict=True)
        ]
        flows = [
            emit.weighed(value.name, flow) if value is not None and flow is not None else None
            for value, flow in zip(node.inputs, rule.vjp(emit, node, shares), strict=True)
        ]
        active = rule.active(emit, node) if rule.active is not None and step.carriers == (0,) else None
        if active is not None and arrived[0] is not None and flows[0] is not None:
            flows[0] = emit("Where", active, arrived[0], flows[0])
        return flows

    return apply


def moved(emit: Emitter, step: Step, arrived: Flows) -> Flows:
    """Relevance goes where the elements came from: for what only moves them, also those that are 0."""
    return step.rule.vjp(emit, step.node, arrived)


def zplus_rule() -> LayerRule:
    """LRP-z+: what contributes positively alone, ``x⁺ w⁺ + x⁻ w⁻`` (and ``b⁺``)."""

    def apply(emit: Emitter, step: Step, arrived: Flows) -> Flows:
        plus, minus = _by_sign(emit, step.node.input(step.carriers[0]))
        terms = [
            _Term(plus, _changed(emit, step, _positive)),
            _Term(minus, _changed(emit, step, _negative, np.zeros_like)),
        ]
        return _to_carrier(step, _shared(emit, step, terms, _arrived(arrived)))

    return apply


def gamma_rule(gamma: float) -> LayerRule:
    """LRP-γ: what contributes with the sign of the output counts 1 + γ times."""

    def up(w: Array) -> Array:
        return np.asarray(w + gamma * _positive(w), w.dtype)

    def down(w: Array) -> Array:
        return np.asarray(w + gamma * _negative(w), w.dtype)

    def apply(emit: Emitter, step: Step, arrived: Flows) -> Flows:
        y, relevance = step.node.output(), _arrived(arrived)
        plus, minus = _by_sign(emit, step.node.input(step.carriers[0]))
        zero, found = emit.like(y, 0.0), []
        for sign, same, other in (("Greater", up, down), ("Less", down, up)):
            terms = [
                _Term(plus, _changed(emit, step, same)),
                _Term(minus, _changed(emit, step, other, np.zeros_like)),
            ]
            part = emit("Where", emit(sign, y.name, zero), relevance, zero)
            found.append(_shared(emit, step, terms, part))
        return _to_carrier(step, emit.sum(found))

    return apply


def flat_rule() -> LayerRule:
    """LRP-flat (Lapuschkin et al. 2019): equally to all inputs, as if weights and inputs were 1."""

    def apply(emit: Emitter, step: Step, arrived: Flows) -> Flows:
        x = step.node.input(step.carriers[0])
        ones = emit("Expand", emit.like(x, 1.0), emit.ints(x.shape))
        terms = [_Term(ones, _changed(emit, step, np.ones_like, np.zeros_like))]
        return _to_carrier(step, _shared(emit, step, terms, _arrived(arrived)))

    return apply


def box_rule(low: Array, high: Array) -> LayerRule:
    """LRP-z^B (Montavon et al. 2017): ``x w - l w⁺ - h w⁻`` for an input between l and h, each [C] or [1]."""

    def apply(emit: Emitter, step: Step, arrived: Flows) -> Flows:
        x = step.node.input(step.carriers[0])
        channels = emit.axes(x).channels
        lows, highs = (
            emit(
                "Expand",
                emit.like(x, end.reshape([-1 if axis in channels else 1 for axis in range(x.rank)])),
                emit.ints(x.shape),
            )
            for end in (low, high)
        )
        terms = [
            _Term(x.name, step.node),
            _Term(lows, _changed(emit, step, _positive), -1),
            _Term(highs, _changed(emit, step, _negative), -1),
        ]
        return _to_carrier(step, _shared(emit, step, terms, _arrived(arrived)))

    return apply


def _positive(w: Array) -> Array:
    return np.maximum(w, 0)


def _negative(w: Array) -> Array:
    return np.minimum(w, 0)


def _by_sign(emit: Emitter, x: Value) -> tuple[str, str]:
    return emit("Relu", x.name), emit("Min", x.name, emit.like(x, 0.0))


def _changed(emit: Emitter, step: Step, weights: _Change, bias: _Change | None = None) -> Node:
    """The node with changed weights; its bias is changed as they are if nothing else is said."""
    index = weights_of(step)
    inputs = list(step.node.inputs)
    for i, value in enumerate(inputs):
        if value is not None and value.constant is not None and value.is_float:
            data = (weights if i == index or bias is None else bias)(value.constant)
            inputs[i] = Value(emit.const(data, value.dtype), value.shape, value.dtype, data)
    return replace(step.node, inputs=tuple(inputs))


def _shared(emit: Emitter, step: Step, terms: Sequence[_Term], relevance: str) -> str:
    """``Σ ± x_t ⊙ J_t^T (R ⊘ Σ ± (J_t x_t + b_t))``."""
    index, y = step.carriers[0], step.node.output()
    whole = _signed_sum(emit, [(t.sign, _forward(emit, step, t)) for t in terms])
    share = emit("Div", relevance, _stabilised(emit, whole, y, STABILISER))
    parts = []
    for term in terms:
        flow = step.rule.vjp(emit, term.node, [share])[index]
        assert flow is not None  # it is the carrier
        parts.append((term.sign, emit("Mul", term.operand, flow)))
    return _signed_sum(emit, parts)


def _forward(emit: Emitter, step: Step, term: _Term) -> str:
    replay, news = step.rule.replay, [None] * len(term.node.inputs)
    assert replay is not None  # a sum of products is affine
    made = replay(emit, term.node, [*news[: step.carriers[0]], term.operand, *news[step.carriers[0] + 1 :]])
    assert made is not None
    assert made[0] is not None
    return made[0]


def _signed_sum(emit: Emitter, parts: Sequence[tuple[int, str]]) -> str:
    found = parts[0][1]
    for sign, part in parts[1:]:
        found = emit("Add" if sign > 0 else "Sub", found, part)
    return found


def _stabilised(emit: Emitter, tensor: str, like: Value, epsilon: float) -> str:
    """``y + ε sign y``, and ε where y is 0."""
    below = emit("Less", tensor, emit.like(like, 0.0))
    return emit("Add", tensor, emit("Where", below, emit.like(like, -epsilon), emit.like(like, epsilon)))


def _arrived(arrived: Flows) -> str:
    assert arrived[0] is not None  # a sum of products has one output
    return arrived[0]


def _to_carrier(step: Step, flow: str) -> Flows:
    return [flow if i == step.carriers[0] else None for i in range(len(step.node.inputs))]


def _guard(value: Value) -> float:
    """Keeps a division by 0 from being one, and changes little else: what moves elements must hand on all of it."""
    return 1e-9 if value.dtype.itemsize >= 4 else STABILISER


def at_integers(step: Step) -> bool:
    """Whether integers that stand for reals come in or go out: (de)quantising, and what moves them."""
    node = step.node
    values = [node.input(i) for i in step.carriers] + [v for v in node.outputs[:1] if v is not None]
    return not all(value.is_float for value in values)
