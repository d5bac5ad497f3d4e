"""Replay of one node: its outputs for new operands while the activation pattern of another run is held fixed.

Under a fixed pattern an operator is affine, ``y' = J x' + b``. Its rule gives ``J^T u`` and b, so nothing more has to
be known: the emitted VJP is a small graph of standard operators, linear in u, and the rules of these operators give the
transpose of that graph, which is J. A rule says more only where there is a shorter way, such as `again`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, helper, numpy_helper

from srd_onnx.engine.assemble import tensor_info
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.mixing import biases
from srd_onnx.engine.rule import Flows, Rule, RuleTable
from srd_onnx.errors import UnsupportedOpError
from srd_onnx.graph.ir import Node, Value
from srd_onnx.graph.roles import Axes, Role, is_quantised
from srd_onnx.graph.walk import walk


def again(emit: Emitter, node: Node, news: Flows) -> Flows:
    """The operator itself on the new operands; where one is None, on what it is in the pattern run.

    It is the replay of what is affine in its carriers: convolutions, sums, whatever moves elements, and a product of
    which one factor carries.
    """
    names = [new or (v.name if v is not None else "") for new, v in zip(news, node.inputs, strict=True)]
    while names and not names[-1]:
        names.pop()
    attrs = {name: _attribute(node, value) for name, value in node.attrs.items()}
    if node.key.domain:
        attrs["domain"] = node.key.domain
    given = {name: value for name, value in attrs.items() if value != []}
    return emit.many(node.key.op_type, *names, outputs=len(node.outputs), **given)


def _attribute(node: Node, value: Any) -> Any:
    node.require(not isinstance(value, GraphProto), "control flow cannot be run again on another input")
    if isinstance(value, np.ndarray):
        return numpy_helper.from_array(value)
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Replayer:
    """What replaying a node needs besides the node.

    Attributes:
        emit: the emitter, of the fixed pattern.
        rules: the rule table.
        wanted: names of the outputs that carry something.
        real: the precision of reals that integers stand for.
    """

    emit: Emitter
    rules: RuleTable
    wanted: frozenset[str]
    real: np.dtype[Any]

    def __call__(self, rule: Rule, node: Node, news: Flows) -> Flows:
        """The outputs of a node under its pattern, ``J x' + b``; None for those that carry nothing.

        Integers that stand for reals (the output of QuantizeLinear) are replayed as these reals.

        Args:
            rule: of the node.
            node: what is replayed; the tensors of the pattern run have their own names.
            news: for each input that carries its new value.

        Raises:
            UnsupportedOpError: the VJP is made of an operator that has no rule.
        """
        carried = [v for v, new in zip(node.inputs, news, strict=True) if v is not None and new is not None]
        if rule.replay is not None and not any(is_quantised(v) for v in carried):
            found = rule.replay(self.emit, node, news)
            if found is not None:
                return found
        return self._transposed(rule, node, news)

    def _transposed(self, rule: Rule, node: Node, news: Flows) -> Flows:
        """J by transposing the VJP, whose nodes are taken out of the emitter again."""
        emit = self.emit
        seeds = [self._seed(value) for value in node.outputs]
        known = {seed.name: seed for seed in seeds if seed is not None}
        before = len(emit.nodes)
        flows = rule.vjp(emit, node, [None if seed is None else seed.name for seed in seeds])
        linear, kept = _depending(emit.nodes[before:], known)
        emit.nodes[before:] = kept
        arrived: defaultdict[str, list[str]] = defaultdict(list)
        for value, flow, new in zip(node.inputs, flows, news, strict=True):
            if value is not None and flow is not None and new is not None:
                arrived[flow].append(self._unmasked(value, new) if rule.nonlinear else new)
        self._back(_read(emit, linear, known), known, arrived)
        outputs: list[str | None] = []
        for seed, bias in zip(seeds, biases(emit, rule, node), strict=True):
            if seed is None:
                outputs.append(None)
                continue
            part = emit.sum(arrived[seed.name] or [emit.zeros(seed.shape, seed.dtype)])
            outputs.append(part if bias is None else emit("Add", part, bias))
        return outputs

    def _unmasked(self, value: Value, new: str) -> str:
        """0 for -inf, a score under a mask: nonlinear operators have no slope there, and 0 times infinity is none."""
        if not self.emit.masked or not value.is_float:
            return new
        hidden = self.emit("Equal", new, self.emit.like(value, -np.inf))
        return self.emit("Where", hidden, self.emit.like(value, 0.0), new)

    def _seed(self, value: Value | None) -> Value | None:
        """A name for the cotangent of an output, of which the VJP is written and which nothing computes."""
        if value is None or value.name not in self.wanted:
            return None
        return Value(self.emit.fresh("u"), value.shape, value.dtype if value.is_float else self.real)

    def _back(
        self, linear: Sequence[Node], seeds: Mapping[str, Value], arrived: defaultdict[str, list[str]]
    ) -> None:
        """Through a linear graph from its ends, of which `arrived` has the cotangents, to its seeds."""
        dependent = {**seeds, **{v.name: v for node in linear for v in node.outputs if v is not None}}
        roles = {name: Axes((Role.CHANNEL,) * value.rank) for name, value in dependent.items()}
        emit = self.emit.view(roles, tangent=True)
        for node in reversed(linear):
            parts = [arrived[v.name] if v is not None else [] for v in node.outputs]
            if not any(parts):
                continue
            rule = self.rules.get(node.key)
            if rule is None:
                raise UnsupportedOpError(
                    f"{node}: it is part of a rule, and has none by which to transpose it"
                )
            flows = rule.vjp(emit, node, [emit.sum(part) if part else None for part in parts])
            for value, flow in zip(node.inputs, flows, strict=True):
                if value is not None and flow is not None and value.name in dependent:
                    arrived[value.name].append(flow)


def _depending(nodes: Sequence[NodeProto], seeds: Iterable[str]) -> tuple[list[NodeProto], list[NodeProto]]:
    """Emitted nodes that are computed from the seeds, and the others."""
    names, found, others = set(seeds), list[NodeProto](), list[NodeProto]()
    for node in nodes:
        depends = not names.isdisjoint(node.input)
        (found if depends else others).append(node)
        names.update(node.output if depends else ())
    return found, others


def _read(emit: Emitter, linear: Sequence[NodeProto], seeds: Mapping[str, Value]) -> tuple[Node, ...]:
    """The nodes of a VJP as rules see them, the shapes of all their tensors inferred."""
    if not linear:
        return ()
    made = {name: node for node in emit.nodes for name in node.output}
    open_names, reached = [name for node in linear for name in node.input], set[str]()
    while open_names:
        name = open_names.pop()
        if name and name not in reached:
            reached.add(name)
            open_names += made[name].input if name in made else ()
    values = [v for name, v in {**emit.forward, **seeds}.items() if name in reached]
    constants = [numpy_helper.from_array(v.constant, v.name) for v in values if v.constant is not None]
    graph = helper.make_graph(
        [node for node in emit.nodes if not reached.isdisjoint(node.output)] + list(linear),
        "vjp",
        [tensor_info(v.name, v.dtype, v.shape) for v in values if v.constant is None],
        [],
        constants + [tensor for tensor in emit.initializers if tensor.name in reached],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", emit.opset)])
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    names = {node.name for node in linear}
    return tuple(node for node in walk(inferred).nodes if node.name in names)
