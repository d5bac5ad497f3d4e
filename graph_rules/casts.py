"""Cast and CastLike: the same numbers in another precision."""

from graph_rules.registry import always, cotangent, moved, rule, same, to_first, varying
from srd_onnx.apop.replay import again
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Node
from srd_onnx.graph.roles import Axes, Role, Roles


def _cast_back(emit: Emitter, node: Node, flow: str) -> str:
    """In the precision of the input, unless that is a picture of integers: relevance is real."""
    x, y = node.input(0), node.output()
    same_type = x.dtype == y.dtype or not x.is_float
    return flow if same_type else emit.cast(flow, x.dtype)


def _cast_spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    return to_first(node, _cast_back(emit, node, cotangent(shares, node)))


def _cast_carriers(node: Node, roles: Roles) -> tuple[int, ...]:
    """Reals to reals carry, a picture of bytes to reals, ids to ids; a mask made a number and a rounding do not."""
    x, y = node.input(0), node.output()
    if y.is_float:
        return tuple(i for i in varying(node, roles) if i == 0)
    return moved(node, roles) if x.dtype.kind in "iu" and y.dtype.kind in "iu" else ()


@rule(
    "Cast",
    versions=(13, 19, 21, 23, 24, 25, 28),
    roles=same,
    routes=always,
    spread=_cast_spread,
    carriers=_cast_carriers,
    head="view",
    replay=again,
)
def cast(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` in the other precision; from integers too (a uint8 picture), but not to them."""
    return to_first(node, _cast_back(emit, node, cotangent(cotangents, node)))


def _like_roles(node: Node, roles: Roles) -> tuple[Axes]:
    """Those of the input; of the other operand only the type is read, so that a constant made like it stays one."""
    x = node.input(0)
    return (roles[x.name],) if x.name in roles else (Axes((Role.CHANNEL,) * x.rank),)


@rule(
    "CastLike",
    versions=(15, 19, 21, 23, 24, 25),
    roles=_like_roles,
    routes=always,
    spread=_cast_spread,
    carriers=_cast_carriers,
    head="view",
)
def cast_like(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` in the other precision; the operand whose type it takes gets nothing."""
    return to_first(node, _cast_back(emit, node, cotangent(cotangents, node)))
