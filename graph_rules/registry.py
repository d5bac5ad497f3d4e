"""The rule table, the decorator that fills it, and the answers most operators share.

Adding an operator is one decorated function in the file of its family (and a `Case` row in tests/cases.py).
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows, Parts, Rule, Taps
from srd_onnx.graph.ir import Node, OpKey, Value
from srd_onnx.graph.roles import Axes, Gate, Roles, is_quantised

RULES: dict[OpKey, Rule] = {}

Vjp = Callable[[Emitter, Node, Flows], Flows]


def varying(node: Node, roles: Roles) -> tuple[int, ...]:
    """Indices of the real-valued inputs through which the model's input flows: the usual carriers."""
    return tuple(
        i
        for i, v in enumerate(node.inputs)
        if v is not None and v.name in roles and not roles[v.name].inert and carries(v)
    )


def second(_node: Node) -> int:
    """Its weights are input 1."""
    return 1


def nothing(_node: Node, _roles: Roles) -> tuple[int, ...]:
    """No carriers: the result is constant under a fixed pattern, and counts as a constant from there on."""
    return ()


def moved(node: Node, roles: Roles) -> tuple[int, ...]:
    """Input 0, if the model's input flows through it, token ids included: what only moves them keeps them ids."""
    value = node.input(0)
    lives = value.name in roles and not roles[value.name].inert and value.dtype.kind != "b"
    return (0,) if lives else ()


def carries(value: Value) -> bool:
    """Whether a tensor holds reals, or integers that stand for reals (the output of QuantizeLinear)."""
    return value.is_float or is_quantised(value)


def same(node: Node, roles: Roles) -> tuple[Axes, ...]:
    """Every output has the roles of the first input."""
    return (roles[node.input(0).name],) * len(node.outputs)


def activation(node: Node, roles: Roles) -> tuple[Axes]:
    """The roles of the input; the result is no gate, whatever the input was."""
    return (Axes(roles[node.input(0).name].roles),)


def gate(node: Node, roles: Roles) -> tuple[Axes]:
    """The roles of the input; the result is a gate."""
    return (Axes(roles[node.input(0).name].roles, gate=Gate.SATURATING),)


def bounded(node: Node, roles: Roles) -> tuple[Axes]:
    """The roles of the input; the result is a gate of what is not bounded."""
    return (Axes(roles[node.input(0).name].roles, gate=Gate.BOUNDED),)


def always(_node: Node, _roles: Roles) -> bool:
    """Each output position is fed by one input position at most."""
    return True


def never(_node: Node, _roles: Roles) -> bool:
    """Output positions mix input positions or operands."""
    return False


def through(_emit: Emitter, node: Node, shares: Flows) -> Flows:
    """Relevance stays where it is: input 0 has the positions of output 0."""
    return [shares[0], *[None] * (len(node.inputs) - 1)]


def to_first(node: Node, flow: str | None) -> Flows:
    """A flow to input 0, nothing to the others."""
    return [flow, *[None] * (len(node.inputs) - 1)]


def cotangent(flows: Flows, node: Node) -> str:
    """The cotangent of the only output that can have one."""
    node.require(
        flows[0] is not None and all(f is None for f in flows[1:]), "only its first output carries relevance"
    )
    assert flows[0] is not None
    return flows[0]


def _no_bias(_emit: Emitter, _node: Node) -> None:
    return None


def _keeps_all(_node: Node) -> bool:
    return False


def _exact(_node: Node) -> None:
    return None


def rule(
    op_type: str,
    *,
    versions: Sequence[int],
    roles: Callable[[Node, Roles], Sequence[Axes | None]],
    routes: Callable[[Node, Roles], bool],
    spread: Callable[[Emitter, Node, Flows], Flows],
    domain: str = "",
    carriers: Callable[[Node, Roles], tuple[int, ...]] = varying,
    bias: Callable[[Emitter, Node], str | Flows | None] = _no_bias,
    lossy: Callable[[Node], bool] = _keeps_all,
    approximate: Callable[[Node], str | None] = _exact,
    head: Literal["link", "view"] | None = None,
    nonlinear: bool = False,
    taps: Callable[[Emitter, Node], Taps | None] | None = None,
    far: bool = False,
    replay: Callable[[Emitter, Node, Flows], Flows | None] | None = None,
    parts: Callable[[Emitter, Node], Parts | None] | None = None,
    collapsed: Callable[[Emitter, Node, str, str], str | None] | None = None,
    anew: Callable[[Emitter, Node], str | None] | None = None,
    active: Callable[[Emitter, Node], str | None] | None = None,
    weights: Callable[[Node], int | None] | None = None,
    table: dict[OpKey, Rule] = RULES,
) -> Callable[[Vjp], Vjp]:
    """Register a VJP for exactly these `since_version`s of an operator; see `srd_onnx.engine.rule.Rule` for the rest.

    Raises:
        ValueError: if one of them has a rule already.
    """

    def register(vjp: Vjp) -> Vjp:
        name: Any = getattr(vjp, "__name__", op_type)
        made = Rule(
            name,
            vjp,
            roles,
            carriers,
            routes,
            spread,
            bias,
            lossy,
            approximate,
            head,
            nonlinear,
            taps,
            far,
            replay,
            parts,
            collapsed,
            anew,
            active,
            weights,
        )
        for since in versions:
            key = OpKey(domain, op_type, since)
            if key in table:
                raise ValueError(f"{key} has a rule already: {table[key].name}")
            table[key] = made
        return vjp

    return register
