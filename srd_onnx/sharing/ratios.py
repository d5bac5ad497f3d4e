"""Sharing ratios as data: for each node that mixes positions, that of every input position to every output position.

They depend on the image alone, so that any number of targets and effective receptive fields are carried by them, as
scalars (`srd_onnx.sharing.carrying`). They are computed in ONNX Runtime in one run, by the rule's own `taps`, or else
by its VJP on combs of output positions that share no input position (`srd_onnx.sharing.feeds`). Of half tensors they
are computed in float32, VJPs included: they are computed once (`srd_onnx.engine.half.in_single`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from onnx import ModelProto, helper

from srd_onnx.engine.assemble import with_outputs
from srd_onnx.engine.backward import label
from srd_onnx.engine.collapse import collapse, dot
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.half import account_type, in_single
from srd_onnx.engine.mixing import biases, undirected_part
from srd_onnx.engine.plan import Plan, Step
from srd_onnx.engine.rule import Taps
from srd_onnx.graph.ir import Array, Value
from srd_onnx.ort.runtime import Tensor, make_session, run_staying
from srd_onnx.sharing.feeds import PROBE, Feeds, even_parts, feeds_of, needed, position_shape, require_few


@dataclass(frozen=True, eq=False)
class Incoming:
    """What one operand gives to a layer.

    Attributes:
        tensor: its name.
        taps: float32 [K, J]: the sharing ratio μ of each position that feeds, for each of J output positions.
        feeds: which positions these are.
    """

    tensor: str
    taps: Array
    feeds: Feeds


@dataclass(frozen=True, eq=False)
class LayerRatios:
    """The sharing ratios of one output of one node.

    Positions are flat, the batch axis in front counts as one: J is the product of `shape`.

    Attributes:
        layer: the original name of the node.
        op: its operator.
        tensor: what it computes.
        shape: one scalar per position of that tensor: channel axes of size 1.
        incoming: the operands that relevance goes to.
        undirected: float32 [J]: the ratio of the bias, and of a PFV that is zero; None where relevance only moves.
    """

    layer: str
    op: str
    tensor: str
    shape: tuple[int, ...]
    incoming: tuple[Incoming, ...]
    undirected: Array | None

    @property
    def mixes(self) -> bool:
        """Whether there are ratios; elsewhere relevance only moves or stays."""
        return self.undirected is not None

    @property
    def total(self) -> Array:
        """What the ratios of each output position add up to, the bias included: 1. Shape `shape`."""
        directed = sum(one.taps.sum(axis=0) for one in self.incoming)
        rest = 0 if self.undirected is None else self.undirected
        return np.asarray(directed + rest).reshape(self.shape)


@dataclass(frozen=True)
class _Emitted:
    """Where the ratios of one output of a mixing step come from: the outputs of the session, and how to read them."""

    undirected: str
    comb: tuple[int, ...]
    # (index of the operand, output of the session): products by tap, or relevance by comb.
    tapped: tuple[tuple[int, str], ...] = ()
    combed: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, eq=False)
class RatioModel:
    """A model that gives the sharing ratios of all layers of a plan, and the structure that they belong to.

    Attributes:
        plan: what relevance crosses.
        model: its outputs are read by `decoded`.
        emitted: by node and output, which outputs of the model hold its ratios.
        feeds: by node and output, what feeds it; no entry where that depends on the data.
        reads: forward tensors that the structure of some step depends on.
    """

    plan: Plan
    model: ModelProto
    emitted: Mapping[tuple[str, int], _Emitted]
    feeds: Mapping[tuple[str, int], Mapping[int, Feeds]]
    reads: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class RatioSession:
    """A session of such a model; None where it has nothing to compute, since nothing is shared.

    Attributes:
        stay: of its outputs those that only other sessions read.
    """

    model: RatioModel
    session: onnxruntime.InferenceSession | None
    stay: frozenset[str]

    @property
    def plan(self) -> Plan:
        """What relevance crosses."""
        return self.model.plan


def compile_ratios(
    plan: Plan,
    forward: ModelProto,
    providers: Sequence[str],
    threads: int | None,
    *,
    also: Sequence[str] = (),
) -> RatioSession:
    """A session that gives the ratios; see `ratio_model`. What else it gives is for other sessions, but the target."""
    made = ratio_model(plan, forward, also=also)
    if not made.model.graph.output:
        return RatioSession(made, None, frozenset())
    read = {*made.reads, plan.target.name, *(name for one in made.emitted.values() for name in _tensors(one))}
    session = make_session(made.model.SerializeToString(), providers, threads)
    return RatioSession(made, session, frozenset(also) - read)


def ratio_model(plan: Plan, forward: ModelProto, *, also: Sequence[str] = ()) -> RatioModel:
    """Emit the ratios of every step that relevance crosses as a scalar per position.

    Args:
        plan: what relevance crosses.
        forward: the simplified model.
        also: forward tensors that the model is to give as well.

    Raises:
        UnsupportedOpError: if the plan has gaps.
        UnsupportedCaseError: if a rule does not cover this use of its operator.
    """
    plan.require_complete()
    emit = plan.emitter()
    emitted: dict[tuple[str, int], _Emitted] = {}
    feeds: dict[tuple[str, int], dict[int, Feeds]] = {}
    reads: dict[str, None] = {}
    for step, output, _ in shared_steps(plan):
        key = (step.node.name, output)
        taps = None
        with emit.origin(step.node.name, "ratios"):
            if not step.routes and step.rule.taps is not None:
                taps = step.rule.taps(*in_single(emit, step.node))
            if taps is not None:
                feeds[key] = {taps.operand: _declared(plan, step, taps)}
            elif wanted := needed(plan, step, output):
                reads.update(dict.fromkeys(wanted))
            else:
                feeds[key] = feeds_of(plan, step, output, {})
            if not step.routes:
                emitted[key] = _emitted(emit, plan, step, output, taps, feeds.get(key))
    names = list(dict.fromkeys(t for one in emitted.values() for t in _tensors(one)))
    given = {value.name for value in plan.graph.inputs}
    outputs = dict.fromkeys(name for name in (*names, *reads, *also) if name not in given)
    model = with_outputs(forward, emit, list(outputs))
    return RatioModel(plan, model, emitted, feeds, tuple(reads))


def shared_steps(plan: Plan) -> Iterator[tuple[Step, int, Value]]:
    """Each step and output whose relevance is a scalar per position, from the target back."""
    for step in plan.steps:
        if "position" in step.forms:
            for output, value in enumerate(step.node.outputs):
                if value is not None and value.name in plan.shares:
                    yield step, output, value


def structure_of(plan: Plan) -> tuple[tuple[Step, LayerRatios], ...]:
    """Each step with what feeds what, an equal part each in place of ratios; nothing feeds where data decides that."""
    found = []
    for step, output, value in shared_steps(plan):
        emit = plan.emitter()
        taps = step.rule.taps(emit, step.node) if step.rule.taps and not step.routes else None
        if taps is not None:
            feeds = {taps.operand: _declared(plan, step, taps)}
        else:
            feeds = {} if needed(plan, step, output) else feeds_of(plan, step, output, {})
        incoming = tuple(Incoming(step.node.input(i).name, fed.parts, fed) for i, fed in feeds.items())
        shape = position_shape(plan, value)
        found.append((step, LayerRatios(label(step), str(step.node.key), value.name, shape, incoming, None)))
    return tuple(found)


def run_ratios(
    ready: RatioSession, feeds: Mapping[str, Array]
) -> tuple[tuple[LayerRatios, ...], dict[str, Tensor]]:
    """The ratios for one input, from the target back, what only moves relevance included; and the tensors read."""
    found: dict[str, Tensor] = dict(feeds)
    if ready.session is not None:
        names = [output.name for output in ready.session.get_outputs()]
        found |= run_staying(ready.session, names, feeds, ready.stay)
    arrays = {name: tensor for name, tensor in found.items() if isinstance(tensor, np.ndarray)}
    return decoded(ready.model, arrays), found


def decoded(ready: RatioModel, found: Mapping[str, Array]) -> tuple[LayerRatios, ...]:
    """The ratios from the outputs of a run of the model, from the target back."""
    plan, layers = ready.plan, []
    for step, output, value in shared_steps(plan):
        key = (step.node.name, output)
        structure = ready.feeds.get(key)
        if structure is None:
            structure = feeds_of(plan, step, output, {name: found[name] for name in ready.reads})
        shape = position_shape(plan, value)
        one = ready.emitted.get(key)
        if one is None:
            taps = {i: fed.parts for i, fed in structure.items()}
            undirected = None
        else:
            taps = dict(_by_tap(one, found)) | dict(_by_comb(one, found, structure, shape))
            undirected = real(found[one.undirected]).reshape(-1)
        incoming = tuple(
            Incoming(step.node.input(i).name, real(taps[i]), fed) for i, fed in structure.items()
        )
        layers.append(LayerRatios(label(step), str(step.node.key), value.name, shape, incoming, undirected))
    return tuple(layers)


def real(array: Array) -> Array:
    """In the precision that scalars are carried in: float64 where the model has it, else float32."""
    return np.asarray(array, np.float64 if array.dtype == np.float64 else np.float32)


def _declared(plan: Plan, step: Step, taps: Taps) -> Feeds:
    """The structure that a rule gives with its taps; for each batch item its own positions."""
    value, source = step.node.output(), step.node.input(taps.operand)
    size = math.prod(position_shape(plan, source))
    shape = position_shape(plan, value)
    items = math.prod(shape) // math.prod(taps.index.shape[1:])
    flat = taps.index.reshape(len(taps.index), 1, -1)
    per_item = size // items
    index = np.where(flat >= 0, flat + per_item * np.arange(items)[:, None], -1).reshape(len(flat), -1)
    return Feeds(index, even_parts(index), shape, size)


def _emitted(
    emit: Emitter,
    plan: Plan,
    step: Step,
    output: int,
    taps: Taps | None,
    structure: Mapping[int, Feeds] | None,
) -> _Emitted:
    own, node = in_single(emit, step.node)
    value = node.outputs[output]
    assert value is not None
    shape = own.axes(value).position_shape(value)
    parts = step.rule.parts(own, node) if step.rule.parts and taps is None else None
    v = (step.rule.anew(own, node) if step.rule.anew else None) or value.name
    norm = (parts and parts.norm) or dot(own, value, v, v)
    bias = biases(own, step.rule, node)[output]
    floor, rest = undirected_part(own, value, v, bias, norm)
    undirected = emit("Expand", emit("Div", rest, floor), emit.ints(shape))
    if taps is not None:
        each = emit.reshape(floor, [-1, 1, *taps.index.shape[1:]])
        tapped = ((taps.operand, emit("Div", taps.products, each)),)
        return _Emitted(undirected, (), tapped=tapped)
    if parts is not None:
        bare = dot(own, value, value.name, bias) if bias is not None else None
        products = parts.complete(emit, norm, bare)
        shares = {i: emit("Div", one, floor) for i, one in enumerate(products) if one is not None}
        return _Emitted(undirected, (1,) * len(shape), combed=tuple(shares.items()))
    along = emit("Div", value.name, floor)
    # Where the data decides what feeds what, only single teeth are sure to share no input position.
    comb = shape if structure is None else next((fed.comb for fed in structure.values()), ())
    shares = (
        _shares(emit, step, output, along)
        if math.prod(comb) == 1
        else _scanned(emit, plan, step, output, along, comb)
    )
    return _Emitted(undirected, comb, combed=tuple(shares.items()))


def _shares(emit: Emitter, step: Step, output: int, cotangent: str) -> dict[int, str]:
    """What the VJP of an output gives to each operand, collapsed."""
    own, node = in_single(emit, step.node)
    flows = step.rule.vjp(own, node, [cotangent if i == output else None for i in range(len(node.outputs))])
    return {
        i: collapse(own, node.input(i), flow)
        for i, flow in enumerate(flows)
        if flow is not None and i in step.carriers
    }


def _scanned(
    emit: Emitter,
    plan: Plan,
    step: Step,
    output: int,
    along: str,
    comb: tuple[int, ...],
) -> dict[int, str]:
    """Comb after comb through the VJP, in a Scan whose body holds what depends on the comb."""
    value = step.node.outputs[output]
    assert value is not None
    shape, dtype = position_shape(plan, value), account_type(value)
    require_few(step, math.prod(comb), math.prod(shape))
    colours = _colours(shape, comb)
    combs = (colours == np.arange(math.prod(comb)).reshape(-1, *[1] * len(shape))).astype(dtype)
    inner = plan.emitter(prefix=f"{along}/scan")
    shares = _shares(inner, step, output, inner("Mul", along, PROBE))
    varying, body = {PROBE}, []
    for node in inner.nodes:
        if varying.isdisjoint(node.input):
            emit.adopt(node)
        else:
            varying.update(node.output)
            body.append(node)
    emit.initializers.extend(inner.initializers)
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    ends = [f"{along}/scan/{i}" for i in shares]
    body += [helper.make_node("Identity", [s], [e]) for s, e in zip(shares.values(), ends, strict=True)]
    graph = helper.make_graph(
        body,
        "comb",
        [helper.make_tensor_value_info(PROBE, kind, shape)],
        [
            helper.make_tensor_value_info(e, kind, position_shape(plan, step.node.input(i)))
            for i, e in zip(shares, ends, strict=True)
        ],
    )
    stacks = emit.many("Scan", emit.const(combs), outputs=len(shares), body=graph, num_scan_inputs=1)
    return dict(zip(shares, stacks, strict=True))


def _colours(shape: tuple[int, ...], comb: tuple[int, ...]) -> Array:
    """The number of the comb that each output position belongs to."""
    number = np.zeros(shape, np.int64)
    for place, distance in zip(np.indices(shape, sparse=True), comb, strict=True):
        number = number * distance + place % distance
    return number


def _tensors(one: _Emitted) -> list[str]:
    return [one.undirected, *(name for _, name in (*one.tapped, *one.combed))]


def _by_tap(one: _Emitted, found: Mapping[str, Array]) -> Iterator[tuple[int, Array]]:
    for operand, name in one.tapped:
        taps = np.moveaxis(found[name], 1, 0)  # [N, K, *positions] to [K, N, *positions]
        yield operand, taps.reshape(len(taps), -1)


def _by_comb(
    one: _Emitted, found: Mapping[str, Array], structure: Mapping[int, Feeds], shape: tuple[int, ...]
) -> Iterator[tuple[int, Array]]:
    for operand, name in one.combed:
        fed = structure[operand]
        stack = found[name].reshape(-1, fed.size)
        colour = _colours(shape, one.comb).reshape(-1)
        yield operand, np.where(fed.index >= 0, stack[colour, np.maximum(fed.index, 0)], 0)
