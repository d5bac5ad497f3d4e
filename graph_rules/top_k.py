"""TopK: which elements won is the activation pattern; the indices that it gives are integers and carry nothing."""

from graph_rules.registry import cotangent, rule, same, to_first
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Node
from srd_onnx.graph.roles import Axes, Role, Roles


def _axis(node: Node) -> int:
    return int(node.attrs["axis"]) % node.input(0).rank


def _roles(node: Node, roles: Roles) -> tuple[Axes, ...]:
    own = roles[node.input(0).name].roles
    node.require(own[_axis(node)] is not Role.BATCH, "it compares batch items; images must stay independent")
    return same(node, roles)


def _among_channels(node: Node, roles: Roles) -> bool:
    return roles[node.input(0).name].roles[_axis(node)] is Role.CHANNEL


def _spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    """Among channels it stays; among positions every one that could have won has an equal part."""
    share, x, axis = cotangent(shares, node), node.input(0), _axis(node)
    if _among_channels(node, emit.roles):
        return to_first(node, share)
    part = emit("Div", emit.total(share, [axis]), emit.like(x, float(x.shape[axis])))
    return to_first(node, emit("Expand", part, emit.ints(emit.axes(x).position_shape(x))))


@rule("TopK", versions=(11, 24), roles=_roles, routes=_among_channels, spread=_spread, nonlinear=True)
def top_k(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """Each output's ``g`` to the element that won its place."""
    x, winners = node.input(0), node.outputs[1]
    assert winners is not None
    zeros = emit.zeros(x.shape, x.dtype)
    g = cotangent(cotangents, node)
    return to_first(node, emit("ScatterElements", zeros, winners.name, g, axis=_axis(node)))
