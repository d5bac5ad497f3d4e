"""From a model, a shape and options to a session that explains: the whole path of data but loading and facade."""

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from srd_onnx.engine.assemble import combined, exposed, pruned
from srd_onnx.engine.backward import Backward, build, build_rival, map_of
from srd_onnx.engine.boundary import tensor_named
from srd_onnx.engine.half import account_type
from srd_onnx.engine.options import Options
from srd_onnx.engine.outline import Outline
from srd_onnx.engine.plan import Plan, make_plan
from srd_onnx.engine.rival import Rival, entered_value, has_rival, likeness
from srd_onnx.engine.rule import RuleTable
from srd_onnx.engine.seed import DIRECTION, TARGET
from srd_onnx.errors import NonFiniteError, UnknownTensorError
from srd_onnx.graph.expand import ExpansionTable
from srd_onnx.graph.ir import Graph, Value
from srd_onnx.graph.roles import Axes, Role
from srd_onnx.graph.simplify import simplify
from srd_onnx.ort.runtime import make_session, run
from srd_onnx.ort.weights import light, light_tensors, packing_pays

Array = NDArray[Any]
RELEVANCE = "relevance"
_SQUARABLE = 1e17  # the squared norm of a vector of greater numbers may overflow float32
SEED, SCORES, CHOSEN, LEDGER = "srd.seed", "srd.scores", "srd.chosen", "srd.ledger"
_RIVAL, _ENTERED, _BESIDE = "srd.rival", "srd.entered/", "srd.rival/"


@dataclass(frozen=True, eq=False)
class Reading:
    """What it takes to read the outputs of a compiled model. Plain data, which can be kept on the disk.

    Attributes:
        outline: of its plan.
        outputs: what the engine asks the session for, `relevance` among them.
        booked: what each column of the ledger is booked against.
    """

    outline: Outline
    outputs: tuple[str, ...]
    booked: tuple[str, ...]


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


@dataclass(frozen=True, eq=False)
class Result:
    """One run, for N inputs.

    Shapes: relevance of each explained input, by its name, [N, *positions]; totals [N], the sum of all maps; seed [N],
    scores [N, K], ledger [N, len(booked)], chosen [N] int64 or None where a free direction was explained. `booked`
    says what each column of the ledger is booked against. `rival` is None where no class was explained, or none beside
    another.
    """

    relevance: Mapping[str, Array]
    totals: Array
    seed: Array
    scores: Array
    ledger: Array
    booked: tuple[str, ...]
    chosen: Array | None = None
    rival: Rival | None = None


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
    outputs = {_RIVAL: (beside.seeded.chosen, Value("", (plan.batch,), np.dtype(np.int64)))}
    for name in plan.boundary:
        value = entered_value(plan, name)
        outputs[_ENTERED + name] = (backward.entered[name], value)
        outputs[_BESIDE + name] = (beside.shares[name], value)
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


def run_reading(
    session: onnxruntime.InferenceSession, reading: Reading, feeds: Mapping[str, Array], seed: Array
) -> Result:
    """As `run_explanation`, whether the result is finite or not."""
    seed_input = TARGET if CHOSEN in reading.outputs else DIRECTION
    names = list(reading.outputs)
    return read_outputs(
        reading, dict(zip(names, run(session, names, {**feeds, seed_input: seed}), strict=True))
    )


def read_outputs(reading: Reading, found: Mapping[str, Array]) -> Result:
    """What the outputs of a compiled model say, by name."""
    outline = reading.outline
    maps = [found[name] for name in reading.outputs if name.startswith(RELEVANCE)]
    batch = outline.batch
    ledger = found.get(LEDGER, np.zeros((batch, 0), np.float32))
    relevance = dict(zip((s.name for s in outline.sources), maps, strict=True))
    totals: Array = sum(one.reshape(batch, -1).sum(axis=1, dtype=np.float64) for one in maps)
    rival = None
    if _RIVAL in found:
        names = [value.name for value in outline.boundary]
        own, other = ({n: found[kind + n] for n in names} for kind in (_ENTERED, _BESIDE))
        rival = Rival(found[_RIVAL], likeness(outline, own, other))
    return Result(
        relevance,
        totals,
        found[SEED],
        found[SCORES],
        ledger,
        reading.booked,
        found.get(CHOSEN),
        rival,
    )


def is_finite(result: Result) -> bool:
    """Whether a result holds neither NaN nor infinity, but for scores of -inf: those under a mask."""
    # A sum in double precision is finite exactly where all that it adds up is.
    numbers = all(np.isfinite(a).all() for a in (result.totals, result.seed, result.ledger))
    return numbers and bool((result.scores < np.inf).all())


def require_finite(
    result: Result, plan: Plan, forward: ModelProto, feeds: Mapping[str, Array], providers: Sequence[str]
) -> None:
    """Refuse a result that holds NaN or infinity.

    Raises:
        NonFiniteError: naming the first activation that is not finite, or else saying what overflows.
    """
    if is_finite(result):
        return
    producers = plan.graph.producers
    values = [v for v in plan.graph.values.values() if v.known and v.is_float and v.name in producers]
    arrays = expose(forward, values, feeds, providers)
    raise not_finite(plan, zip((value.name for value in values), arrays, strict=True))


def not_finite(plan: Plan, activations: Iterable[tuple[str, Array]]) -> NonFiniteError:
    """Why a result is not finite.

    Args:
        plan: of what was explained.
        activations: by name, of real numbers, from the input on; taken up to the first that is not finite.
    """
    largest = 0.0
    for name, array in activations:
        if not np.isfinite(array).all():
            kind = "NaN" if np.isnan(array).any() else "infinity"
            return NonFiniteError(
                f"{kind} in the activation '{name}', computed by {plan.graph.producers[name]}; "
                "check the preprocessing (a wrong scale overflows) and the weights"
            )
        largest = max(largest, float(np.abs(array).max(initial=0)))
    return NonFiniteError(
        "every activation is finite but the relevance is not: "
        + (
            f"activations as large as {largest:.0e} overflow when squared; check the preprocessing and the weights"
            if largest > _SQUARABLE
            else "it overflowed on the way back; please report this with the model"
        )
    )


def exposing_session(
    forward: ModelProto, values: Sequence[Value], providers: Sequence[str]
) -> onnxruntime.InferenceSession:
    """A session of the simplified model whose outputs are these tensors (the augmented outputs)."""
    return make_session(exposed(forward, values).SerializeToString(), providers)


def expose(
    forward: ModelProto, values: Sequence[Value], feeds: Mapping[str, Array], providers: Sequence[str]
) -> list[Array]:
    """The values of inner tensors for one input, in the order asked for."""
    if not values:
        return []
    return run(exposing_session(forward, values, providers), [v.name for v in values], feeds)


def values_named(graph: Graph, names: Sequence[str]) -> dict[str, Value]:
    """Tensors by their names, by the original names of the nodes that compute them, or by wildcards over both.

    Returns:
        by the name given; what a wildcard finds by the tensor's own name, from the input on.

    Raises:
        UnknownTensorError: naming all that do not exist in the simplified graph.
    """
    values, found, missing = graph.values, dict[str, Value](), []
    for name in names:
        tensor = tensor_named(graph, name)
        matching = [name] if tensor is not None else _matching(graph, name)
        found |= {one: values[tensor if tensor is not None else one] for one in matching}
        missing += [] if matching else [name]
    if missing:
        raise UnknownTensorError(
            f"the simplified graph has no tensor or node {', '.join(map(repr, missing))}: the name is wrong, or "
            "it was folded into another node. `srd-onnx check MODEL` lists the names that are left."
        )
    return found


def _matching(graph: Graph, wildcard: str) -> list[str]:
    """The tensors of known shape whose name, or whose node's original name, the wildcard fits."""
    origins = {v.name: node.origins for node in graph.nodes for v in node.outputs if v is not None}
    return [
        name
        for name, value in graph.values.items()
        if value.known and fnmatch.filter((name, *origins.get(name, ())), wildcard)
    ]
