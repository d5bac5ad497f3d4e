"""Many targets of one input at little more than the price of one: one run for the ratios, then scalars.

The ratios below the boundary do not depend on the target. Only the head, from the target to the boundary, is run for
each, in a small model of its own that reads the forward tensors it needs; for several targets at once where every
tensor of the head has a batch axis.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, helper

from srd_onnx.correlation import pearson_rows
from srd_onnx.engine.assemble import WIDE, Part, part_of, widening
from srd_onnx.engine.backward import Head, build_head, map_of, relevance_shape
from srd_onnx.engine.focus import BOOKED, finish_model
from srd_onnx.engine.plan import Plan
from srd_onnx.engine.rival import Rival, by_item, strongest_other
from srd_onnx.engine.seed import DIRECTION, TARGET
from srd_onnx.graph.ir import Array
from srd_onnx.ort.runtime import Tensor, as_array, make_session, run, run_staying
from srd_onnx.sharing.carrying import Carried, backward, forward
from srd_onnx.sharing.feeds import position_shape
from srd_onnx.sharing.ratios import LayerRatios, RatioSession, compile_ratios, real

AT_ONCE = 32  # targets that one run of the head takes
_SHARE, _SEED, _SCORES, _CHOSEN, _LEDGER = "share/{}", "seed", "scores", "chosen", "ledger/{}"


@dataclass(frozen=True, eq=False)
class HeadSession:
    """The head of one pass.

    Attributes:
        session: of the head.
        plan: of the pass.
        own: of the head, which has a batch of `at_once` where the pass has one item.
        at_once: how many targets one run takes.
        reads: names of the forward tensors that the head reads.
        widen: repeats these for as many targets, as `wide/NAME`; None where one run takes one.
        booked: what each ledger output of the head is booked against.
    """

    session: onnxruntime.InferenceSession
    plan: Plan
    own: Plan
    at_once: int
    reads: tuple[str, ...]
    widen: onnxruntime.InferenceSession | None
    booked: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SeveralSession:
    """Ratios and heads of one plan.

    Attributes:
        ratios: the session of the ratios, which gives the forward tensors that the heads read, too.
        heads: of the pass, and of those that give it focus.
        finish: by source, what makes the map of the maps of the passes; empty where there is nothing to do.
    """

    ratios: RatioSession
    heads: tuple[HeadSession, ...]
    finish: Mapping[str, onnxruntime.InferenceSession]

    @property
    def plan(self) -> Plan:
        """What relevance crosses."""
        return self.ratios.plan


@dataclass(frozen=True, eq=False)
class Several:
    """What T seeds give for N items.

    Shapes: relevance by input [T, N, *positions]; totals (the sum of all maps) and seed [T, N]; scores [N, K];
    ledger [T, N, len(booked)]; what entered at each tensor of the first boundary, flat, [J, T].
    """

    relevance: Mapping[str, Array]
    totals: Array
    seed: Array
    scores: Array
    ledger: Array
    booked: tuple[str, ...]
    entered: Mapping[str, Array]


Way = Callable[[SeveralSession, Sequence[LayerRatios], Mapping[str, Tensor], Sequence[Array]], Several]


@dataclass(frozen=True, eq=False)
class Passed:
    """A backward pass by ratios as it went through the layers."""

    plan: Plan
    layers: Sequence[LayerRatios]
    carried: Carried


def compile_several(
    plan: Plan,
    forward: ModelProto,
    providers: Sequence[str],
    threads: int | None,
    *,
    free: bool,
    wide: Plan | None = None,
) -> SeveralSession:
    """Sessions for the ratios and the head of a plan.

    Args:
        plan: what relevance crosses.
        forward: the simplified model.
        providers: see `make_session`.
        threads: see `make_session`.
        free: seed with directions instead of indices.
        wide: the plan of the same model for a batch of `AT_ONCE`, if it takes one.
    """
    heads = [_head_session(plan, wide, providers, threads, free=free)]
    # A batch may leave a model other passages.
    wider = (
        wide.focus if wide is not None and len(wide.focus) == len(plan.focus) else (None,) * len(plan.focus)
    )
    for one, own in zip(plan.focus, wider, strict=True):
        heads.append(_head_session(one, own, providers, threads, free=free))
    reads = tuple(dict.fromkeys(name for head in heads for name in head.reads))
    finish = {}
    if plan.focus or plan.options.smooth:
        for source in plan.sources:
            value = map_of(plan, source)
            model = finish_model(plan.options, value, plan.graph.opset, len(plan.focus))
            finish[source.name] = make_session(model.SerializeToString(), providers, threads)
    return SeveralSession(compile_ratios(plan, forward, providers, threads, also=reads), tuple(heads), finish)


def _head_session(
    plan: Plan, wide: Plan | None, providers: Sequence[str], threads: int | None, *, free: bool
) -> HeadSession:
    at_once = AT_ONCE if wide is not None and _is_wider(plan, wide) else 1
    own = wide if wide is not None and at_once > 1 else plan
    head = build_head(own, free=free)
    part = head_model(own, head, free=free)
    session = make_session(part.model.SerializeToString(), providers, threads)
    widen = None
    if own is wide:
        model = widening([(plan.graph.values[n], own.graph.values[n]) for n in part.reads], own.graph.opset)
        # What it repeats is freed after the heads have run; an arena would keep it.
        widen = make_session(model.SerializeToString(), providers, threads, arena=False)
    booked = tuple(name for name, _ in head.ledger)
    return HeadSession(session, plan, own, at_once, part.reads, widen, booked)


def _is_wider(plan: Plan, wide: Plan) -> bool:
    """Whether the heads are the same but for the batch, tensor by tensor."""

    def tensors(one: Plan) -> dict[str, tuple[int, ...]]:
        steps = [step for step in one.steps if "cotangent" in step.forms]
        values = [v for step in steps for v in (*step.node.inputs, *step.node.outputs) if v is not None]
        return {
            v.name: v.shape[1:] for v in (*values, one.target) if v.constant is None and v.name in one.roles
        }

    def batches(one: Plan) -> set[tuple[int, ...]]:
        return {one.graph.values[name].shape[:1] for name in tensors(one)}  # of a scalar there is none

    same = plan.boundary == wide.boundary and tensors(plan) == tensors(wide)
    return same and batches(plan) == {(1,)} and batches(wide) == {(AT_ONCE,)}


def carried(
    ready: SeveralSession,
    layers: Sequence[LayerRatios],
    found: Mapping[str, Tensor],
    seeds: Sequence[Array],
    *,
    watch: Callable[[Passed], None] | None = None,
) -> Several:
    """Carry T seeds back to the inputs.

    Args:
        ready: the sessions.
        layers: the ratios that `run_ratios` gave,
        found: and the forward tensors.
        seeds: each int64 [N] targets, or [N, K] directions.
        watch: is given the relevance of every layer.
    """
    return _finished(ready, [_carried(head, layers, found, seeds, watch) for head in ready.heads])


def _carried(
    ready: HeadSession,
    layers: Sequence[LayerRatios],
    found: Mapping[str, Tensor],
    seeds: Sequence[Array],
    watch: Callable[[Passed], None] | None,
) -> Several:
    plan = ready.plan
    head = _head_of(ready, found, seeds)
    keep = None if watch else [source.name for source in plan.sources]
    below = backward(layers, head.start, plan.options.bias, keep)
    if watch:
        watch(Passed(plan, layers, below))
    lost = [(layer.layer, _per_item(amount, plan, layer.tensor)) for layer, amount in below.ledger]
    return _assembled(ready, head, below.shares, lost)


def raised(
    ready: SeveralSession, layers: Sequence[LayerRatios], found: Mapping[str, Tensor], seeds: Sequence[Array]
) -> Several:
    """As `carried`, by the forward pass: the sum over the PFVs of the boundary of R · ERF."""
    return _finished(ready, [_raised(head, layers, found, seeds) for head in ready.heads])


def _raised(
    ready: HeadSession, layers: Sequence[LayerRatios], found: Mapping[str, Tensor], seeds: Sequence[Array]
) -> Several:
    plan = ready.plan
    head = _head_of(ready, found, seeds)
    shares: dict[str, Array] = {}
    lost: list[tuple[str, Array]] = []
    for source in plan.sources:
        size = math.prod(position_shape(plan, source))
        for one in forward(layers, source.name, size, plan.options.bias):
            entered = head.start.get(one.tensor)
            if entered is not None:
                shares[source.name] = shares.get(source.name, 0) + one.fields @ entered
                if source is plan.sources[0]:
                    amount = one.booked[:, None] * entered
                    lost.append((f"outside the fields of {one.tensor}", _per_item(amount, plan, one.tensor)))
    return _assembled(ready, head, shares, lost)


def _finished(ready: SeveralSession, passes: Sequence[Several]) -> Several:
    """What `srd_onnx.engine.focus` makes of the maps of the passes."""
    first, booked = passes[0], []
    if not ready.finish:
        return first
    relevance = {}
    for name, session in ready.finish.items():
        flat = [one.relevance[name].reshape(-1, *one.relevance[name].shape[2:]) for one in passes]
        inputs, outputs = (
            [one.name for one in ends] for ends in (session.get_inputs(), session.get_outputs())
        )
        results = dict(zip(outputs, run(session, outputs, dict(zip(inputs, flat, strict=True))), strict=True))
        relevance[name] = results["map"].reshape(first.relevance[name].shape)
        if "booked" in results:
            booked.append(results["booked"].reshape(first.seed.shape))
    summed = [m.reshape(*first.seed.shape, -1).sum(axis=2, dtype=np.float64) for m in relevance.values()]
    ledger = np.concatenate([first.ledger, *(column[..., None] for column in booked)], axis=-1)
    names = (*first.booked, *(BOOKED for _ in booked))
    return replace(first, relevance=relevance, totals=np.sum(summed, axis=0), ledger=ledger, booked=names)


@dataclass(frozen=True, eq=False)
class _HeadResult:
    """What the heads of T seeds gave: relevance [J, T] of each tensor of the boundary, and their numbers."""

    start: Mapping[str, Array]
    seed: Array
    scores: Array
    ledger: list[Array]


def _head_of(ready: HeadSession, found: Mapping[str, Tensor], seeds: Sequence[Array]) -> _HeadResult:
    heads = list(_heads(ready, found, seeds))

    def joined(name: str) -> Array:
        return np.concatenate([head[name] for head in heads])

    start = {name: real(joined(_SHARE.format(name)).T) for name in ready.plan.boundary}
    ledger = [joined(_LEDGER.format(i)) for i in range(len(ready.booked))]
    return _HeadResult(start, joined(_SEED), heads[0][_SCORES], ledger)


def _by_item(amount: Array, plan: Plan, tensor: str) -> Array:
    """[J, T] over the positions of a tensor as [T, N, positions of an item]."""
    return np.moveaxis(by_item(plan.roles[tensor], plan.graph.values[tensor], plan.batch, amount), -1, 0)


def _per_item(amount: Array, plan: Plan, tensor: str) -> Array:
    """The sums per batch item of what `_by_item` gives, [T, N]."""
    return np.asarray(_by_item(amount, plan, tensor).sum(axis=-1, dtype=np.float64))


def _assembled(
    ready: HeadSession,
    head: _HeadResult,
    shares: Mapping[str, Array],
    lost: Sequence[tuple[str, Array]],
) -> Several:
    plan = ready.plan
    relevance = {s.name: shares[s.name].T.reshape(-1, *relevance_shape(plan, s)) for s in plan.sources}
    totals = np.sum([_per_item(shares[s.name], plan, s.name) for s in plan.sources], axis=0)
    amounts = [*head.ledger, *(amount for _, amount in lost)]
    booked = (*ready.booked, *(name for name, _ in lost))
    ledger = np.stack(amounts, axis=-1) if booked else np.zeros((*head.seed.shape, 0), np.float32)
    return Several(relevance, totals, head.seed, head.scores, ledger, booked, head.start)


def with_rivals(
    way: Way,
    ready: SeveralSession,
    layers: Sequence[LayerRatios],
    found: Mapping[str, Tensor],
    seeds: Sequence[Array],
) -> tuple[Several, list[Rival]]:
    """What a way gives for T targets, each int64 [N], and the strongest other class of each.

    Of all but the best class that is the best one, so that two targets more are enough.
    """
    scores = scores_of(ready, found)
    best = np.asarray(scores.argmax(axis=1), np.int64)
    pair = [best, strongest_other(scores, best)]
    several = way(ready, layers, found, [*seeds, *pair])
    entered = [_by_item(amount, ready.plan, name) for name, amount in several.entered.items()]
    joined = np.concatenate(entered, axis=-1).astype(np.float64)
    first, second = (pearson_rows(joined[: len(seeds)], beside) for beside in joined[len(seeds) :])
    compared = [
        Rival(np.where(seed == best, pair[1], best), np.where(seed == best, second[t], first[t]))
        for t, seed in enumerate(seeds)
    ]
    return several, compared


def scores_of(ready: SeveralSession, found: Mapping[str, Tensor]) -> Array:
    """[N, K], the scores that targets are chosen from."""
    batch = ready.plan.batch
    return as_array(found[ready.plan.target.name]).reshape(batch, -1)


def _heads(
    ready: HeadSession, found: Mapping[str, Tensor], seeds: Sequence[Array]
) -> Iterator[dict[str, Array]]:
    """What the head gives, run after run, by output: [targets of the run, ...], everything of one target flat."""
    names = [output.name for output in ready.session.get_outputs()]
    seed_input = next(i.name for i in ready.session.get_inputs() if i.name in (TARGET, DIRECTION))
    tiled, batch = _widened(ready, found), ready.plan.batch
    for first in range(0, len(seeds), ready.at_once):
        chunk = list(seeds[first : first + ready.at_once])
        filled = np.concatenate(chunk + [chunk[-1]] * (ready.at_once - len(chunk)))
        arrays = dict(zip(names, run(ready.session, names, {**tiled, seed_input: filled}), strict=True))
        parted = {n: a.reshape(ready.at_once, -1)[: len(chunk)] for n, a in arrays.items()}
        parted[_SCORES] = arrays[_SCORES][:batch]
        for name in parted:
            if name == _SEED or name.startswith(_LEDGER.format("")):
                parted[name] = parted[name].reshape(len(chunk), batch)
        yield parted


def _widened(ready: HeadSession, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the head reads, for as many targets as one run takes; it stays where it is."""
    reads = {name: found[name] for name in ready.reads}
    if ready.widen is None:
        return reads
    ends = [WIDE.format(name) for name in reads]
    wide = run_staying(ready.widen, ends, reads, ends)
    return {name: wide[end] for name, end in zip(reads, ends, strict=True)}


def head_model(plan: Plan, head: Head, *, free: bool) -> Part:
    """The head alone: what it reads of the forward pass are its inputs."""
    seeded, dtype = head.seeded, helper.np_dtype_to_tensor_dtype(head.seeded.dtype)
    outputs = {_SHARE.format(name): tensor for name, tensor in head.shares.items()}
    outputs |= {_SEED: head.seed, _SCORES: seeded.scores}
    outputs |= {_LEDGER.format(i): tensor for i, (_, tensor) in enumerate(head.ledger)}
    seed_input = (
        helper.make_tensor_value_info(DIRECTION, dtype, seeded.shape)
        if free
        else helper.make_tensor_value_info(TARGET, TensorProto.INT64, seeded.shape[:1])
    )
    return part_of(head.emit.nodes, head.emit.initializers, plan.graph, outputs, [seed_input])
