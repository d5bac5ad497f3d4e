"""Softmax and LogSoftmax: mostly the end of a classifier, where the target is the value before them."""

from graph_rules.registry import always, cotangent, gate, rule, through, to_first
from srd_onnx.emit import Emitter
from srd_onnx.ir import Node
from srd_onnx.rule import Flows


@rule("Softmax", versions=(13,), roles=gate, routes=always, spread=through, head="link", nonlinear=True)
def softmax(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``y (g - Σ g y)``; as a gate it is held fixed, so that under a fixed pattern nothing flows through it."""
    node.require(emit.tangent, "a softmax that is not a gate has no rule under a fixed pattern yet")
    g, y = cotangent(cotangents, node), node.output()
    mean = emit.total(emit("Mul", g, y.name), [node.attrs["axis"] % y.rank])
    return to_first(node, emit("Mul", y.name, emit("Sub", g, mean)))


def _normaliser(emit: Emitter, node: Node) -> str:
    return emit("Sub", node.output().name, node.input(0).name)


@rule(
    "LogSoftmax",
    versions=(13,),
    roles=gate,
    routes=always,
    spread=through,
    bias=_normaliser,
    head="link",
    nonlinear=True,
)
def log_softmax(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g - softmax(v) Σ g``; frozen: ``g``, with the normaliser as a bias."""
    g, y = cotangent(cotangents, node), node.output()
    if not emit.tangent:
        return to_first(node, g)
    total = emit.total(g, [node.attrs["axis"] % y.rank])
    return to_first(node, emit("Sub", g, emit("Mul", emit("Exp", y.name), total)))
