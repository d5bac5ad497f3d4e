"""The model from one layer on, run on many changed activations of that layer."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from onnx import ModelProto

from srd_onnx.engine.assemble import Part, exposed, part_of, pruned, tensor_info
from srd_onnx.engine.compiling import Case, of_batch
from srd_onnx.engine.plan import Plan
from srd_onnx.errors import SrdOnnxError, UnsupportedCaseError
from srd_onnx.graph.ir import Array, Graph, Value
from srd_onnx.graph.roles import Role
from srd_onnx.graph.walk import captured
from srd_onnx.methods.layer import Layer, Turn, turn_of
from srd_onnx.methods.scoring import Scored, Scorer, joined, rows_at_once, told
from srd_onnx.ort.runtime import make_session, run
from srd_onnx.subject import Subject


def tail_of(forward: ModelProto, graph: Graph, start: Value, outputs: Sequence[Value]) -> Part:
    """The model from a tensor to some that depend on it; what else it reads of the forward pass is its inputs, too.

    Args:
        forward: the simplified model, of which only the nodes behind `start` are taken.
        graph: the same as a graph.
        start: the first input of the tail.
        outputs: see `end_of` for what they are called.
    """
    behind, nodes = {start.name}, []
    for node in forward.graph.node:
        if behind.intersection([*node.input, *captured(node)]):
            nodes.append(node)
            behind.update(node.output)
    given = tensor_info(start.name, start.dtype, start.shape)
    names = {end_of(value): value.name for value in outputs}
    return part_of(nodes, [], graph, names, [given], list(forward.opset_import))


def end_of(value: Value) -> str:
    """The name of an output of a tail."""
    return f"srd.end/{value.name}"


@dataclass(frozen=True, eq=False)
class Tail:
    """What a layer and all that the tail reads are for one item, and the tail.

    Attributes:
        before: the session that gives them, for a batch of `copies` of the item; None if they all are inputs.
        batched: the inputs of the model with a batch axis.
        reads: the names of what the tail reads, the layer's first.
        turn: of the layer, in that session.
        scorer: of the tail.
    """

    before: onnxruntime.InferenceSession | None
    copies: int
    batched: frozenset[str]
    reads: tuple[str, ...]
    turn: Turn
    scorer: Scorer

    def activations(self, item: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
        """Those of the layer, [C, T], and what the tail reads."""
        found = {n: np.repeat(a, self.copies, axis=0) if n in self.batched else a for n, a in item.items()}
        if self.before is not None:
            names = [output.name for output in self.before.get_outputs()]
            found |= dict(zip(names, run(self.before, names, found), strict=True))
        values = self.turn(found[self.reads[0]])[0]
        apart = self.scorer.batched
        return values, {n: found[n][:1] if n in apart else found[n] for n in self.reads}

    def changed(self, found: Mapping[str, Array], chunks: Iterable[Array]) -> Scored:
        """The scores with other activations in place of those of the layer.

        Args:
            found: what `activations` gave for the item.
            chunks: activations [M, C, T], as many at a time as `scorer.size`.
        """
        layer, dtype = self.reads[0], found[self.reads[0]].dtype

        def rows(chunk: Array) -> Array:
            chunk = chunk.astype(dtype)
            apart = bool(self.scorer.batched)
            return self.turn.back(chunk) if apart else np.stack([self.turn.back(one[None]) for one in chunk])

        return joined(self.scorer.changed(found, layer, rows(chunk)) for chunk in chunks)


def compile_tail(subject: Subject, case: Case, layer: Layer) -> Tail:
    """Compile a layer and the model from there on.

    Raises:
        UnsupportedCaseError: if the model takes only batches in which the items cannot be told apart.
        SrdOnnxError: whatever keeps the model from being run.
    """
    forward, plan = layer.forward, layer.plan
    alone = of_batch(subject.model.proto, case, 1)
    if plan.batch > 1 and alone is not None:
        forward, plan = subject.planned(alone)
    narrow = _Cut(plan, tail_of(forward, plan.graph, plan.graph.values[layer.value.name], told(plan, case)))
    cut = (_wide(subject, case, narrow, layer.value.name) if plan.batch == 1 else None) or narrow
    reads = (layer.value.name, *cut.part.reads)
    size = cut.plan.batch
    batched = frozenset(name for name in reads if name in cut.plan.roles) if size > 1 else frozenset[str]()
    if not cut.is_apart(batched):
        raise UnsupportedCaseError(
            f"the model takes only a batch of {size}, whose items are not apart at '{layer.value.name}' or beside it: "
            "export it with an open batch or with one of 1, or choose another layer with boundary="
        )
    session = make_session(cut.part.model.SerializeToString(), subject.providers, subject.threads)
    ends = tuple(end_of(value) for value in told(plan, case))
    inputs = {port.name for port in subject.ports}
    inner = [plan.graph.values[name] for name in reads if name not in inputs]
    before = pruned(exposed(forward, inner)).SerializeToString() if inner else None
    return Tail(
        make_session(before, subject.providers, subject.threads) if before else None,
        plan.batch,
        frozenset(port.name for port in subject.ports if port.has_batch),
        reads,
        turn_of(plan, plan.graph.values[layer.value.name]),
        Scorer(plan, session, size, batched, ends, case.explained is None),
    )


@dataclass(frozen=True, eq=False)
class _Cut:
    """A tail for the shapes of a plan."""

    plan: Plan
    part: Part

    def is_apart(self, names: Iterable[str]) -> bool:
        """Whether the first axis of these tensors is the batch."""
        return all(self.plan.roles[name].roles[:1] == (Role.BATCH,) for name in names)


def _wide(subject: Subject, case: Case, narrow: _Cut, layer: str) -> _Cut | None:
    """The same tail for many rows; None where the model, or what the tail reads, does not take them."""
    values = narrow.plan.graph.values
    rows = rows_at_once(math.prod(values[layer].shape))
    own = of_batch(subject.model.proto, case, rows)
    if own is None or rows == 1:
        return None
    try:
        forward, plan = subject.planned(own)
    except SrdOnnxError:
        # Something inside is made for one item. One after the other is right for any model.
        return None
    start = plan.graph.values.get(layer)
    if start is None:
        return None
    wide = _Cut(plan, tail_of(forward, plan.graph, start, told(plan, case)))
    names = [name for name in (layer, *wide.part.reads) if name in plan.roles]
    pairs = [(values[name], plan.graph.values[name]) for name in names if name in values]
    fits = (
        wide.part.reads == narrow.part.reads
        and plan.target.name == narrow.plan.target.name
        and wide.is_apart(names)
        and all(one.shape[0] == 1 and many.shape == (rows, *one.shape[1:]) for one, many in pairs)
    )
    return wide if fits else None
