"""Inside one decision: the relevance of every layer from the input to the boundary, and what its neurons carry of it.

A layer that mixes positions computes v_j = Σ_i v̂_{i->j} + b_j, and the sharing ratios of position j add up to

    Σ_i <v̂_{i->j}, v_j> / |v_j|² = Σ_c (v_jc − b_jc) v_jc / |v_jc|²        (ours:) over the neurons c
                                 = active_j, where v_jc > 0,  +  inactive_j, where v_jc <= 0: what a ReLU silences

so that active + inactive + bias = 1 at every position; of a PFV that is zero all is bias. A layer's numbers are means
over its positions, each weighted by its |relevance|.
"""

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from srd_onnx.engine.assemble import with_outputs
from srd_onnx.engine.collapse import dot
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.half import in_single
from srd_onnx.engine.mixing import biases, tiny
from srd_onnx.engine.plan import Plan, Step
from srd_onnx.explanation import Explanation
from srd_onnx.files import atomic_write_all, to_json, to_npz
from srd_onnx.graph.ir import Array, Value
from srd_onnx.graph.roles import Role
from srd_onnx.inputs.sources import Item
from srd_onnx.inside.layers import strides_of
from srd_onnx.ort.runtime import make_session, run
from srd_onnx.sharing.feeds import position_shape
from srd_onnx.sharing.ratios import LayerRatios, shared_steps
from srd_onnx.sharing.several import Passed
from srd_onnx.subject import Subject
from srd_onnx.text import safe_file_name

INPUT = "input"


@dataclass(frozen=True)
class LayerShare:
    """What one layer carries of a decision.

    Attributes:
        name: the original node, or the tensor where the node is named already; the key of `Decision.relevance`.
        op: the operator; "input" for an input.
        tensor: what it computes.
        mixes: whether it mixes positions or operands, so that there are ratios.
        stride: see `srd_onnx.inside.layers.Layer`.
        relevance: the sum of its map.
        active, inactive: the parts of the relevance that its neurons above 0, and the others, carry. None where no
            nonlinearity follows that acts on each position alone, or nothing is mixed.
        bias: the part of the bias and of PFVs that are zero; None where nothing is mixed.
        booked: what leaves the map here, as the ledger says.
    """

    name: str
    op: str
    tensor: str
    mixes: bool
    stride: tuple[float, ...] | None
    relevance: float
    active: float | None
    inactive: float | None
    bias: float | None
    booked: float


@dataclass(frozen=True, eq=False)
class Decision:
    """One explanation, layer by layer.

    Attributes:
        explanation: of the target; its map is that of the input here.
        relevance: float [*positions] of every layer, by its name, from the input to the boundary; signed.
        layers: what each of them carries, in that order.
        boundary: names of the layers at which sharing ratios take over.
    """

    explanation: Explanation
    relevance: Mapping[str, Array]
    layers: tuple[LayerShare, ...]
    boundary: tuple[str, ...]

    @property
    def names(self) -> dict[str, str]:
        """The name of the layer that computes each tensor."""
        return {one.tensor: one.name for one in self.layers}

    @property
    def shown(self) -> tuple[LayerShare, ...]:
        """The layers worth a look: those that mix, the inputs and the boundary; the others only pass relevance on."""
        return tuple(one for one in self.layers if one.mixes or one.op == INPUT or one.name in self.boundary)

    @property
    def ledger(self) -> Mapping[str, float]:
        """What is booked, in the order of the walk from the target to the input."""
        return self.explanation.ledger

    def to_dict(self) -> dict[str, Any]:
        """All but the maps, as plain data."""
        explanation = self.explanation
        layers = [
            asdict(one)
            | {"positions": list(self.relevance[one.name].shape), "boundary": one.name in self.boundary}
            for one in self.layers
        ]
        return {
            "name": explanation.name,
            "target": explanation.target,
            "label": explanation.label,
            "logit": explanation.score,
            "layers": layers,
            "ledger": dict(self.ledger),
            "residual": explanation.residual,
            "meta": dict(explanation.meta),
        }

    def save(self, directory: str | Path, name: str | None = None) -> dict[str, Path]:
        """Write `NAME.TARGET.layers.png`, `.json` and `.npz` (the maps by layer), all or none; the paths by ending.

        Raises: OutputError if they cannot be written.
        """
        from srd_onnx.pictures.layer_strip import strip

        named = replace(self, explanation=replace(self.explanation, name=name or self.explanation.name))
        target = safe_file_name(str(self.explanation.target))
        stem = f"{safe_file_name(named.explanation.name)}.{target}.layers"
        paths = {kind: Path(directory) / f"{stem}.{kind}" for kind in ("png", "json", "npz")}
        text = to_json(named.to_dict(), indent=2) + "\n"
        atomic_write_all(
            {
                paths["png"]: strip(named),
                paths["json"]: text.encode("utf-8", "backslashreplace"),
                paths["npz"]: to_npz(self.relevance),
            }
        )
        return paths


@dataclass(frozen=True, eq=False)
class _Neurons:
    """A session that gives, for each tensor of its table, what active and inactive neurons carry of each position."""

    session: onnxruntime.InferenceSession
    parts: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, eq=False)
class _Looked:
    """A pass, and what its layers are: active and inactive parts [J] by tensor, strides by tensor."""

    passed: Passed
    neurons: Mapping[str, tuple[Array, Array]]
    strides: Mapping[str, tuple[float, ...]]


def decisions(
    subject: Subject,
    items: Sequence[Item],
    feeds: Mapping[str, Array],
    explained: Sequence[list[list[Explanation]]],
    passes: Sequence[Passed],
) -> Iterator[Decision]:
    """The decisions of one run, in the order of its explanations: input by input.

    Args:
        subject: the model.
        items: the inputs,
        feeds: and what the sessions take for them.
        explained: for each kind of target the explanations of each input,
        passes: and the pass that they came from.
    """
    found = [
        _Looked(one, _neurons(subject, feeds, one.plan), strides_of(one.plan, one.layers)) for one in passes
    ]
    for row in range(len(items)):
        for by_row, looked in zip(explained, found, strict=True):
            for column, explanation in enumerate(by_row[row]):
                yield _decision(looked, explanation, row, column)


def _decision(looked: _Looked, explanation: Explanation, row: int, column: int) -> Decision:
    passed, parts = looked.passed, looked.neurons
    plan, maps, shares = passed.plan, {}, []
    values, booked = plan.graph.values, dict(explanation.ledger)
    for name, op, tensor, layer in _named(plan, passed.layers):
        value = values[tensor]
        flow = passed.carried.shares.get(tensor)
        if flow is None:
            continue
        found = _of_item(plan, value, flow[:, column], row)
        mean = functools.partial(_mean, plan, value, row, _weights(found))
        undirected = layer.undirected if layer is not None else None
        active, inactive = map(mean, parts[tensor]) if tensor in parts else (None, None)
        maps[name] = found
        shares.append(
            LayerShare(
                name,
                op,
                tensor,
                undirected is not None,
                looked.strides.get(tensor),
                float(found.sum(dtype=np.float64)),
                active,
                inactive,
                None if undirected is None else mean(undirected),
                booked.pop(layer.layer, 0.0) if layer is not None else 0.0,
            )
        )
    boundary = tuple(share.name for share in shares if share.tensor in plan.boundary)
    return Decision(explanation, maps, tuple(shares), boundary)


def _named(plan: Plan, layers: Sequence[LayerRatios]) -> Iterator[tuple[str, str, str, LayerRatios | None]]:
    """Name, operator, tensor and ratios of every tensor whose relevance is a scalar per position, from the input on."""
    ops = {value.name: step.node.key.op_type for step, _, value in shared_steps(plan)}
    taken = set()
    sources: list[tuple[str, LayerRatios | None]] = [(source.name, None) for source in plan.sources]
    for tensor, layer in itertools.chain(sources, ((one.tensor, one) for one in reversed(layers))):
        # Several nodes may stand for one of the file, and a node may have several outputs.
        name = tensor if layer is None or layer.layer in taken else layer.layer
        taken.add(name)
        yield name, ops.get(tensor, INPUT), tensor, layer


def _of_item(plan: Plan, value: Value, flat: Array, row: int) -> Array:
    """[J] to the positions of one item of the batch."""
    roles = plan.roles[value.name].roles
    whole = flat.reshape(position_shape(plan, value))
    index: dict[Role, int | slice] = {Role.BATCH: row, Role.POSITION: slice(None)}
    return whole[tuple(index.get(role, 0) for role in roles)]


def _mean(plan: Plan, value: Value, row: int, weights: Array, flat: Array) -> float:
    """The mean of [J] over the positions of one item."""
    return float((_of_item(plan, value, flat, row) * weights).sum(dtype=np.float64))


def _weights(relevance: Array) -> Array:
    """|R_j| in parts of all; equal where there is none."""
    size = np.abs(relevance, dtype=np.float64)
    total = size.sum()
    return size / total if total > 0 else np.full(size.shape, 1 / max(size.size, 1))


def _neurons(subject: Subject, feeds: Mapping[str, Array], plan: Plan) -> dict[str, tuple[Array, Array]]:
    """For each preactivation that mixes, what its active and its inactive neurons carry, [J] each."""
    key = ("neurons", tuple((name, array.shape) for name, array in feeds.items()), plan.target.name)
    ready = subject.kept(key, functools.partial(_compiled, subject, feeds, plan))
    if ready is None:
        return {}
    names = [output.name for output in ready.session.get_outputs()]
    found = dict(zip(names, run(ready.session, names, feeds), strict=True))
    return {
        tensor: (found[active].reshape(-1), found[inactive].reshape(-1))
        for tensor, (active, inactive) in ready.parts.items()
    }


def _compiled(subject: Subject, feeds: Mapping[str, Array], plan: Plan) -> _Neurons | None:
    shapes = {name: array.shape for name, array in feeds.items()}
    forward, same = subject.planned(subject.case(shapes, plan.target.name))
    emit = Emitter(same.graph, same.roles)
    parts = {}
    for step, output, value in shared_steps(same):
        if not step.routes and is_preactivation(same, value):
            with emit.origin(step.node.name, "neurons"):
                parts[value.name] = _emitted(emit, step, output)
    if not parts:
        return None
    names = dict.fromkeys(itertools.chain.from_iterable(parts.values()))
    model = with_outputs(forward, emit, list(names))
    session = make_session(model.SerializeToString(), subject.providers, subject.threads)
    return _Neurons(session, parts)


def _emitted(emit: Emitter, step: Step, output: int) -> tuple[str, str]:
    own, node = in_single(emit, step.node)
    value = node.outputs[output]
    assert value is not None
    v, bias = value.name, biases(own, step.rule, node)[output]
    floor = emit("Max", dot(own, value, v, v), emit.like(value, tiny(value)))
    directed = v if bias is None else emit("Sub", v, bias)
    zero = emit.like(value, 0)
    # Of a product of two the second factor alone is cut: the sign of v says which neurons are active.
    cut = emit("Max", v, zero), emit("Min", v, zero)
    size = emit.ints(own.axes(value).position_shape(value))
    active, inactive = (emit("Expand", emit("Div", dot(own, value, directed, c), floor), size) for c in cut)
    return active, inactive


def is_preactivation(plan: Plan, value: Value) -> bool:
    """Whether a nonlinearity that acts on each position alone follows, or a gate that comes from it alone (x · σ(x)).

    A maximum over positions (MaxPool) silences positions, not neurons, and is none.
    """
    for step in plan.steps:
        carried = {step.node.input(i).name for i in step.carriers}
        if value.name in carried and step.node.output().shape == value.shape:
            gates = [v for v in step.node.inputs if v is not None and v.name not in carried]
            if (step.rule.nonlinear and step.routes) or any(_only_from(plan, gate, value) for gate in gates):
                return True
    return False


def _only_from(plan: Plan, gate: Value, value: Value) -> bool:
    """Whether a gate is computed from this tensor alone, element by element as its shape tells."""
    producers, open_values, met = plan.graph.producers, [gate], False
    while open_values:
        one = open_values.pop()
        if one.constant is not None:
            continue
        if one.name == value.name:
            met = True
        elif one.name not in producers or one.shape != value.shape:
            return False
        else:
            open_values += [v for v in producers[one.name].inputs if v is not None]
    return met
