"""Attention rollout: the weights of all attention layers multiplied, each half its weights and half a skip."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime

from srd_onnx.engine.assemble import exposed, pruned
from srd_onnx.engine.compiling import Case
from srd_onnx.engine.plan import Plan, Step
from srd_onnx.errors import LayoutError, UnsupportedCaseError
from srd_onnx.graph.ir import Array, Value
from srd_onnx.graph.roles import Gate, Role
from srd_onnx.graph.support import undirected
from srd_onnx.methods.grid import resized
from srd_onnx.methods.method import Attribute, Attributed, Method
from srd_onnx.methods.places import Grid, grid_of, require_single_source
from srd_onnx.methods.scoring import directions
from srd_onnx.ort.runtime import make_session, run
from srd_onnx.subject import Subject


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """A product of attention weights with values: ``out = weights @ values`` over the tokens."""

    weights: Value
    values: Value
    out: Value


def attention_layers(plan: Plan) -> tuple[AttentionLayer, ...]:
    """The layers in which relevance crosses attention, from the input on.

    Attention weights went through a softmax, so that they are held fixed, have one position axis for the tokens that
    look and one for those that are looked at, and multiply the values, which carry.

    Raises:
        UnsupportedCaseError: if a fused operator keeps its weights to itself, or there is no attention.
    """
    found, hidden = [], []
    for step in reversed(plan.steps):
        if step.routes:
            continue
        others = [v for i, v in enumerate(step.node.inputs) if v is not None and i not in step.carriers]
        living = [v for v in others if v.is_float and v.name in plan.roles and not plan.roles[v.name].inert]
        weights = [v for v in living if plan.roles[v.name].gate == Gate.SATURATING]
        if weights and len(plan.roles[weights[0].name].positions) >= 2:
            found.append(AttentionLayer(weights[0], step.node.input(step.carriers[0]), step.node.output()))
        elif living:
            hidden.append(step)
    _require_visible(hidden)
    if not found:
        raise UnsupportedCaseError(
            "attention rollout needs a transformer: no softmax over tokens lies between the target and the input"
        )
    return tuple(found)


def _require_visible(hidden: Sequence[Step]) -> None:
    if hidden:
        raise UnsupportedCaseError(
            "attention rollout reads attention weights, but these operators mix positions by weights inside them:\n"
            + "\n".join(f"  {step.node}" for step in hidden)
            + "\nExport the model with attention in primitive operators (MatMul, Softmax, MatMul)."
        )


def rolled_out(weights: Sequence[Array]) -> Array:
    """``Â_L ... Â_1``, ``Â = (A + 1) / its row sums``, A: the mean over the heads (Abnar, Zuidema 2020, equation 1).

    Args:
        weights: of each layer from the input on, [N, heads, T, T], rows: the tokens that look.

    Returns:
        float64 [N, T, T]: how much of each input token (columns) is in each token in the end (rows).
    """
    total: Array = np.eye(weights[0].shape[-1])
    for one in weights:
        mixed = np.asarray(one, np.float64).mean(axis=1) + np.eye(one.shape[-1])
        total = mixed / mixed.sum(axis=-1, keepdims=True) @ total
    return total


@dataclass(frozen=True, eq=False)
class _Rollout:
    """Compiled.

    Attributes:
        layers: from the input on.
        grid: of the tokens that enter the first of them.
        read: float64 [T]: how much of each token that leaves the last one the target reads.
    """

    plan: Plan
    session: onnxruntime.InferenceSession
    layers: tuple[AttentionLayer, ...]
    grid: Grid
    read: Array

    def __call__(self, feeds: Mapping[str, Array], seed: Array) -> Attributed:
        plan, names = self.plan, [layer.weights.name for layer in self.layers]
        target, *found = run(self.session, [plan.target.name, *names], feeds)
        scores = target.reshape(plan.batch, -1)
        wanted = directions(scores, seed, plan.options.seed)
        weights = [_by_heads(plan, one.weights, array) for one, array in zip(self.layers, found, strict=True)]
        source = plan.sources[0]
        sides = [source.shape[axis] for axis in plan.roles[source.name].positions]
        maps = resized(self.grid(self.read @ rolled_out(weights)), sides).astype(np.float32)
        return Attributed({source.name: maps}, (wanted * scores).sum(axis=1), scores)


def _by_heads(plan: Plan, value: Value, weights: Array) -> Array:
    """[N, heads, T, T], rows: the tokens that look."""
    axes = plan.roles[value.name]
    batch = tuple(axis for axis, role in enumerate(axes.roles) if role is Role.BATCH)
    turned = weights.transpose(*batch, *axes.channels, *axes.positions)
    found = turned.reshape(plan.batch, -1, *turned.shape[-2:])
    across, down = (np.abs(found.sum(axis=axis) - 1).max() for axis in (-1, -2))
    return found.swapaxes(-1, -2) if down < across else found


def _require_square(plan: Plan, layers: Sequence[AttentionLayer]) -> None:
    """Every layer from all tokens to the same tokens, item by item.

    Raises:
        LayoutError: naming the first that is not.
    """
    count = layers[0].values.shape[plan.roles[layers[0].values.name].positions[0]]
    for layer in layers:
        value, axes = layer.weights, plan.roles[layer.weights.name]
        batch = math.prod(value.shape[i] for i, role in enumerate(axes.roles) if role is Role.BATCH)
        if [value.shape[axis] for axis in axes.positions] != [count, count] or batch != plan.batch:
            raise LayoutError(
                f"attention rollout multiplies weights from all tokens to the same tokens, here {count}, but "
                f"'{value.name}' {list(value.shape)} has axes {axes}: windows, groups or other tokens have no rollout"
            )


def _tokens_read(plan: Plan, out: Value) -> Array:
    """How much of each token of a layer the target reads, by structure: one class token, or all that it pools.

    Raises:
        UnsupportedCaseError: if the target has many positions, or what it reads depends on the data.
    """
    if plan.roles[plan.target.name].count(plan.target) > 1:
        raise UnsupportedCaseError(
            f"attention rollout is of one token or of their mean, but the target '{plan.target.name}' "
            f"{list(plan.target.shape)} has many positions: explain a class of the whole input"
        )
    crossed = [(step.node, step.rule, step.carriers) for step in plan.steps]
    found = undirected(plan.graph, plan.roles, crossed, plan.target).get(out.name)
    if found is None:
        raise UnsupportedCaseError(
            f"which tokens of '{out.name}' the target reads depends on the data: attention rollout needs a class token "
            "or a pool over the tokens"
        )
    parts = np.asarray(found, np.float64).reshape(-1)
    return np.asarray(parts / parts.sum())


def _make(subject: Subject, case: Case) -> Attribute:
    forward, plan = subject.planned(case)
    plan.require_complete()
    layers = attention_layers(plan)
    require_single_source(plan)
    _require_square(plan, layers)
    grid, read = grid_of(plan, layers[0].values.name), _tokens_read(plan, layers[-1].out)
    model = pruned(exposed(forward, [plan.target, *(layer.weights for layer in layers)]))
    session = make_session(model.SerializeToString(), subject.providers, subject.threads)
    return _Rollout(plan, session, layers, grid, read)


def attention_rollout() -> Method:
    """``r Â_L ... Â_1``, ``Â = (A + 1) / its row sums``, A: attention weights, the mean over the heads.

    Abnar, Zuidema 2020. r picks the class token, or is the mean over the tokens that the target pools. It does not know
    the class.
    """
    return Method(
        "attention-rollout",
        "Attention rollout",
        "attention",
        "Abnar, Zuidema 2020, arXiv 2005.00928",
        _make,
        note="the same for every class",
    )
