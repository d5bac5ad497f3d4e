"""From a model, a shape and options to a session that explains: the whole path of data but loading and facade."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import ModelProto

from srd_onnx.engine.assemble import combined, pruned
from srd_onnx.engine.backward import Backward, build, build_rival, map_of
from srd_onnx.engine.half import account_type
from srd_onnx.engine.options import Options
from srd_onnx.engine.plan import Plan, make_plan
from srd_onnx.engine.reading import (
    BESIDE,
    CHOSEN,
    ENTERED,
    LEDGER,
    RELEVANCE,
    RIVAL,
    SCORES,
    SEED,
    Reading,
    Result,
    require_finite,
    run_reading,
)
from srd_onnx.engine.rival import entered_value, has_rival
from srd_onnx.engine.rule import RuleTable
from srd_onnx.graph.expand import ExpansionTable
from srd_onnx.graph.ir import Array, Value
from srd_onnx.graph.roles import Axes, Role
from srd_onnx.graph.simplify import simplify
from srd_onnx.ort.runtime import make_session
from srd_onnx.ort.weights import light, light_tensors, packing_pays


@dataclass(frozen=True, eq=False)
class Compiled:
    """A model with its backward pass for one input shape.

    Attributes:
        forward: the simplified model.
        backward: the emitted pass.
        outputs: what the pass adds to the outputs: `relevance`, and what the engine reports; name to (emitted
            tensor, a value with its shape and dtype).
        booked: what each column of the ledger is booked against.
    """

    plan: Plan
    forward: ModelProto
    backward: Backward
    outputs: Mapping[str, tuple[str, Value]]
    booked: tuple[str, ...]

    @property
    def reading(self) -> Reading:
        """What it takes to read its outputs."""
        return Reading(self.plan.outline, tuple(self.outputs), self.booked)


@dataclass(frozen=True)
class Case:
    """What a model is compiled for.

    Attributes:
        shapes: of every graph input, by name.
        start: the axes of every graph input, by name.
        options: boundary, seed, sign, bias.
        explained: the tensor that is explained, see `make_plan`.
        free: seed with a direction instead of an index.
        tangent: the true derivative instead of the map with the activation pattern held fixed.
        plain: emit the backward pass as the definition is written, not by what is cheaper.
        blocks: it is for ONNX Runtime's CPU provider, which keeps channels in blocks.
        rival: compare what enters at the boundary with what enters for the strongest other class.
    """

    shapes: Mapping[str, Sequence[int]]
    start: Mapping[str, Axes]
    options: Options
    explained: str | None = None
    free: bool = False
    tangent: bool = False
    plain: bool = False
    blocks: bool = True
    rival: bool = True


def of_batch(model: ModelProto, case: Case, size: int) -> Case | None:
    """The same for so many inputs at once; None where the file declares another batch."""
    declared = {i.name: i.type.tensor_type.shape.dim[:1] for i in model.graph.input}
    shapes = dict(case.shapes)
    for name, axes in case.start.items():
        if axes.roles[:1] == (Role.BATCH,):
            if any(one.dim_value not in (0, size) for one in declared[name]):
                return None
            shapes[name] = (size, *shapes[name][1:])
    return replace(case, shapes=shapes)


def plan_for(
    model: ModelProto, case: Case, rules: RuleTable, expansions: ExpansionTable | None = None
) -> tuple[ModelProto, Plan]:
    """The simplified model and its plan; raises as its parts do."""
    forward, graph = simplify(model, case.shapes, expansions, rules)
    plan = make_plan(graph, case.start, rules, case.options, case.explained, tangent=case.tangent)
    return forward, replace(plan, blocks=case.blocks)


def compile_model(
    model: ModelProto, case: Case, rules: RuleTable, expansions: ExpansionTable | None = None
) -> Compiled:
    """Everything up to the session.

    Raises:
        SrdOnnxError: whatever keeps the model from being explained, before any of it runs.
    """
    return compile_plan(*plan_for(model, case, rules, expansions), case)


def compile_plan(forward: ModelProto, plan: Plan, case: Case) -> Compiled:
    """As `compile_model`, of what `plan_for` gives."""
    backward = build(plan, free=case.free, plain=case.plain)
    seeded = backward.seeded
    batch, dtype = seeded.shape[0], seeded.dtype
    outputs = relevance_outputs(plan, backward) | {
        SEED: (backward.seed, Value("", (batch,), account_type(plan.target))),
        SCORES: (seeded.scores, Value("", seeded.shape, dtype)),
    }
    if seeded.chosen:
        outputs[CHOSEN] = (seeded.chosen, Value("", (batch,), np.dtype(np.int64)))
    if backward.ledger:
        shape = (batch, len(backward.ledger))
        outputs[LEDGER] = (_table(plan, backward), Value("", shape, account_type(plan.target)))
    if case.rival and seeded.chosen and has_rival(plan):
        outputs |= _rival_outputs(plan, backward)
    booked = tuple(name for name, _ in backward.ledger)
    return Compiled(plan, forward, backward, outputs, booked)


def relevance_outputs(plan: Plan, backward: Backward) -> dict[str, tuple[str, Value]]:
    """`relevance`; with several explained inputs `relevance/NAME` for each."""
    outputs = {}
    for source in plan.sources:
        name = RELEVANCE if len(plan.sources) == 1 else f"{RELEVANCE}/{source.name}"
        outputs[name] = (backward.relevance[source.name], map_of(plan, source))
    return outputs


def _rival_outputs(plan: Plan, backward: Backward) -> dict[str, tuple[str, Value]]:
    beside = build_rival(plan, backward.emit)
    assert beside.seeded.chosen is not None  # it is one of the classes
    outputs = {RIVAL: (beside.seeded.chosen, Value("", (plan.batch,), np.dtype(np.int64)))}
    for name in plan.boundary:
        value = entered_value(plan, name)
        outputs[ENTERED + name] = (backward.entered[name], value)
        outputs[BESIDE + name] = (beside.shares[name], value)
    return outputs


def _table(plan: Plan, backward: Backward) -> str:
    emit, batch = backward.emit, plan.batch
    with emit.origin(plan.target.name, "ledger"):
        columns = [emit.reshape(tensor, [batch, 1]) for _, tensor in backward.ledger]
        kind = account_type(plan.target)
        if any(v.is_float and account_type(v) != kind for v in plan.graph.values.values()):
            # Booked in the precision of their nodes, which differ in a model of mixed precision.
            columns = [emit.cast(c, kind) for c in columns]
        return emit("Concat", *columns, axis=1)


def standalone(compiled: Compiled) -> ModelProto:
    """The compiled model as users save it: the original outputs and `relevance`, nothing of the engine's own."""
    outputs = relevance_outputs(compiled.plan, compiled.backward)
    return pruned(combined(compiled.forward, compiled.backward, outputs))


def weightless(compiled: Compiled) -> tuple[ModelProto, dict[str, Array]]:
    """A compiled model without the data of its large weights, and these, by name.

    Nothing of `compiled` is needed any more to open it, so that its copies of the weights may go before.
    """
    nodes = compiled.plan.graph.nodes
    known = {v.name: v.constant for n in nodes for v in n.inputs if v is not None and v.constant is not None}
    forward, weights = light(compiled.forward, known)
    emitted, more = light_tensors(compiled.backward.emit.initializers)
    model = pruned(combined(forward, compiled.backward, compiled.outputs, emitted))
    used = {tensor.name for tensor in model.graph.initializer}
    return model, {name: array for name, array in (weights | more).items() if name in used}


@dataclass(frozen=True, eq=False)
class Runnable:
    """All that is needed of a compiled model to run it; the rest, and with it copies of all weights, may go.

    Attributes:
        reading: how to read what it gives.
        model: serialised, without its large weights.
        weights: which are here.
        packed: see `make_session`.
    """

    reading: Reading
    model: bytes
    weights: Mapping[str, Array]
    packed: bool

    def session(
        self, providers: Sequence[str], threads: int | None, *, keep: Path | None = None
    ) -> onnxruntime.InferenceSession:
        """Open it; see `make_session`."""
        return make_session(
            self.model, providers, threads, packed=self.packed, keep=keep, weights=self.weights
        )


def runnable(compiled: Compiled) -> Runnable:
    """A compiled model, ready to be opened."""
    model, weights = weightless(compiled)
    return Runnable(compiled.reading, model.SerializeToString(), weights, packing_pays(compiled.plan.graph))


def explanation_session(
    compiled: Compiled, providers: Sequence[str], threads: int | None
) -> onnxruntime.InferenceSession:
    """A session of the compiled model."""
    return runnable(compiled).session(providers, threads)


def run_explanation(
    session: onnxruntime.InferenceSession,
    compiled: Compiled,
    feeds: Mapping[str, Array],
    seed: Array,
) -> Result:
    """Explain one batch.

    Args:
        session: of `compiled`.
        compiled: what the session runs.
        feeds: the graph's inputs, of the compiled shapes.
        seed: targets, int64 [N], -1 for the top class; or directions [N, K], if it was compiled for these.

    Raises:
        NonFiniteError: if an activation or the relevance is not finite, naming the first such tensor.
    """
    result = run_reading(session, compiled.reading, feeds, seed)
    require_finite(result, compiled.plan, compiled.forward, feeds, session.get_providers())
    return result
