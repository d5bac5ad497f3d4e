"""From a model, a shape and options to a session that explains: the whole path of data but loading and facade."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from srd_onnx.assemble import combined, exposed
from srd_onnx.backward import TARGET, Backward, build
from srd_onnx.errors import NonFiniteError, UnknownTensorError
from srd_onnx.ir import Graph, Value
from srd_onnx.options import Options
from srd_onnx.plan import Plan, make_plan, tensor_named
from srd_onnx.roles import Axes
from srd_onnx.rule import RuleTable
from srd_onnx.runtime import make_session, run
from srd_onnx.simplify import simplify

Array = NDArray[Any]
RELEVANCE = "relevance"


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


@dataclass(frozen=True, eq=False)
class Result:
    """One run, for N inputs.

    Shapes: relevance [N, *positions], seed [N], scores [N, K], chosen [N] int64, ledger [N, len(booked)].
    """

    relevance: Array
    seed: Array
    scores: Array
    chosen: Array
    ledger: Array


def plan_for(
    model: ModelProto, shapes: Mapping[str, Sequence[int]], start: Axes, rules: RuleTable, options: Options
) -> tuple[ModelProto, Plan]:
    """The simplified model and the plan for its first input, whose axes are `start`; raises as its parts do."""
    forward, graph = simplify(model, shapes)
    return forward, make_plan(graph, {graph.inputs[0].name: start}, rules, options)


def compile_model(
    model: ModelProto, shapes: Mapping[str, Sequence[int]], start: Axes, rules: RuleTable, options: Options
) -> Compiled:
    """Everything up to the session.

    Raises:
        SrdOnnxError: whatever keeps the model from being explained, before any of it runs.
    """
    forward, plan = plan_for(model, shapes, start, rules, options)
    backward = build(plan)
    batch = plan.target.shape[0]
    axes = plan.roles[plan.source.name]
    kept = tuple(s for i, s in enumerate(plan.source.shape) if i not in axes.channels)
    dtype, count = plan.target.dtype, int(np.prod(plan.target.shape[1:], dtype=np.int64))
    outputs = {
        # From a picture of integers relevance comes in the precision of the model.
        RELEVANCE: (
            backward.relevance,
            Value("", kept, plan.source.dtype if plan.source.is_float else dtype),
        ),
        "srd.seed": (backward.seed, Value("", (batch,), dtype)),
        "srd.scores": (backward.scores, Value("", (batch, count), dtype)),
        "srd.chosen": (backward.chosen, Value("", (batch,), np.dtype(np.int64))),
    }
    if backward.ledger:
        emit = backward.emit
        with emit.origin(plan.target.name, "ledger"):
            columns = [emit.reshape(tensor, [batch, 1]) for _, tensor in backward.ledger]
            if any(v.is_float and v.dtype != dtype for v in plan.graph.values.values()):
                # Booked in the precision of their nodes, which differ in a model of mixed precision.
                columns = [emit("CastLike", column, plan.target.name) for column in columns]
            table = emit("Concat", *columns, axis=1)
        outputs["srd.ledger"] = (table, Value("", (batch, len(columns)), dtype))
    booked = tuple(name for name, _ in backward.ledger)
    return Compiled(plan, forward, backward, outputs, booked)


def standalone(compiled: Compiled) -> ModelProto:
    """The compiled model as users save it: the original outputs and `relevance`, nothing of the engine's own."""
    outputs = {RELEVANCE: compiled.outputs[RELEVANCE]}
    return _pruned(combined(compiled.forward, compiled.backward, outputs))


def _pruned(model: ModelProto) -> ModelProto:
    """Without nodes and constants that no output needs."""
    needed = {o.name for o in model.graph.output}
    nodes = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    constants = [t for t in model.graph.initializer if t.name in needed]
    del model.graph.node[:]
    del model.graph.initializer[:]
    model.graph.node.extend(reversed(nodes))
    model.graph.initializer.extend(constants)
    return model


def explanation_session(
    compiled: Compiled, providers: Sequence[str], threads: int | None
) -> onnxruntime.InferenceSession:
    """A session of the compiled model."""
    model = combined(compiled.forward, compiled.backward, compiled.outputs)
    return make_session(model.SerializeToString(), providers, threads)


def run_explanation(
    session: onnxruntime.InferenceSession, compiled: Compiled, data: Array, targets: Array
) -> Result:
    """Explain one batch.

    Args:
        session: of `compiled`.
        compiled: what the session runs.
        data: the input, of the compiled shape.
        targets: int64 [N], -1 for the top class.

    Raises:
        NonFiniteError: if an activation or the relevance is not finite, naming the first such tensor.
    """
    names = [RELEVANCE, "srd.seed", "srd.scores", "srd.chosen"]
    if compiled.booked:
        names.append("srd.ledger")
    feeds = {compiled.plan.source.name: data, TARGET: targets}
    found = run(session, names, feeds)
    if not compiled.booked:
        found.append(np.zeros((len(data), 0), np.float32))
    result = Result(*found)
    if not all(np.isfinite(a).all() for a in (result.relevance, result.seed, result.scores, result.ledger)):
        _report_non_finite(compiled, data, session.get_providers())
    return result


def _report_non_finite(compiled: Compiled, data: Array, providers: Sequence[str]) -> None:
    graph = compiled.plan.graph
    producers = graph.producers
    values = [v for v in graph.values.values() if v.known and v.is_float and v.name in producers]
    for value, array in zip(values, expose(compiled.forward, values, data, providers), strict=True):
        if not np.isfinite(array).all():
            node = producers[value.name]
            kind = "NaN" if np.isnan(array).any() else "infinity"
            raise NonFiniteError(
                f"{kind} in the activation '{value.name}', computed by {node}; "
                "check the preprocessing (a wrong scale overflows) and the weights"
            )
    raise NonFiniteError(
        "every activation is finite but the relevance is not: it overflowed on the way back; "
        "please report this with the model"
    )


def expose(
    forward: ModelProto, values: Sequence[Value], data: Array, providers: Sequence[str]
) -> list[Array]:
    """The values of inner tensors for one input (the augmented outputs), in the order asked for."""
    if not values:
        return []
    session = make_session(exposed(forward, values).SerializeToString(), providers)
    return run(session, [v.name for v in values], {forward.graph.input[0].name: data})


def values_named(graph: Graph, names: Sequence[str]) -> list[Value]:
    """Tensors by their names or by the original names of the nodes that compute them.

    Raises:
        UnknownTensorError: naming all that do not exist in the simplified graph.
    """
    values, found, missing = graph.values, [], []
    for name in names:
        tensor = tensor_named(graph, name)
        if tensor is None:
            missing.append(name)
        else:
            found.append(values[tensor])
    if missing:
        raise UnknownTensorError(
            f"the simplified graph has no tensor or node {', '.join(map(repr, missing))}: the name is wrong, or "
            "it was folded into another node. `srd-onnx check MODEL` lists the names that are left."
        )
    return found
