"""Which input positions feed each output position of a node, as arrays: read off what its rule's `spread` does.

`spread` is a linear map of relevance that knows no direction, so its matrix is the structure of the node. It is found
by probes: relevance on a comb of output positions, so far apart that no two feed from one input position. Which tooth
an input position belongs to is told by its coordinates, probed bit by bit; where two teeth meet, a bit comes back as
neither 0 nor 1 and a wider comb is tried. So the answer is checked for every rule, and no rule has to give it.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from srd_onnx.engine.assemble import part_of, tensor_info
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.half import account_type, spread
from srd_onnx.engine.plan import Plan, Step
from srd_onnx.graph.ir import Array, Value
from srd_onnx.graph.roles import Axes, Role
from srd_onnx.ort.runtime import CPU, make_session, run

PROBE = "probe"
_TEETH = (1, 2, 3, 4, 5, 8, 16)  # distances between the teeth of a comb that are tried along an axis
_MOST = 1 << 28  # elements of what is asked of one layer
_HALF = 0.05  # of a share: how far a bit may be from 0 or 1 by rounding


@dataclass(frozen=True, eq=False)
class Feeds:
    """The input positions that feed each output position, positions being flat (the batch axis counts as one).

    Attributes:
        index: int64 [K, J]: for each of J output positions up to K of `size` input positions; -1 for none.
        parts: float32 [K, J]: the part of its relevance that each of them gets from `spread`; 0 for none.
        comb: distances along the axes of the output at which output positions share no input position.
        size: I, the number of input positions.
    """

    index: Array
    parts: Array
    comb: tuple[int, ...]
    size: int

    @cached_property
    def placed(self) -> Array:
        """The part of its relevance that each output position sends to some input position: float32 [J]."""
        return np.asarray(self.parts.sum(axis=0))

    @cached_property
    def is_identity(self) -> bool:
        """Whether every position is fed by the same position, wholly."""
        count = self.index.shape[1]
        return (
            self.size == count
            and len(self.index) == 1
            and bool((self.index[0] == np.arange(count)).all() and (self.parts == 1).all())
        )

    @cached_property
    def _sorted(self) -> tuple[Array, Array, Array]:
        """Places in `index` by input position, their output positions, and where each input position begins."""
        flat = self.index.reshape(-1)
        place = np.flatnonzero(flat >= 0)
        place = place[np.argsort(flat[place], kind="stable")]
        begins = np.searchsorted(flat[place], np.arange(self.size + 1))
        kind = np.int32 if flat.size < 2**31 else np.int64
        return place, (place % self.index.shape[1]).astype(kind), begins.astype(kind)

    def matrix(self, taps: Array) -> Any:
        """The map from relevance at the output positions to that at the input positions.

        Args:
            taps: [K, J], what goes along each tap.

        Returns:
            scipy.sparse.csr_array [I, J].
        """
        from scipy.sparse import csr_array

        place, results, begins = self._sorted
        shape = (self.size, self.index.shape[1])
        return csr_array((taps.reshape(-1)[place], results, begins), shape=shape)


def position_shape(plan: Plan, value: Value) -> tuple[int, ...]:
    """The shape of one scalar per position of a tensor, the batch included."""
    return plan.roles[value.name].position_shape(value)


def even_parts(index: Array) -> Array:
    """An equal part to each of the positions that feed an output position: [K, J] like `index`."""
    fed = index >= 0
    return np.where(fed, 1 / np.maximum(fed.sum(axis=0), 1), 0).astype(np.float32)


def identity(count: int, rank: int) -> Feeds:
    """Every position stays where it is."""
    return Feeds(np.arange(count)[None], np.ones((1, count), np.float32), (1,) * rank, count)


def feeds_of(plan: Plan, step: Step, output: int, known: Mapping[str, Array]) -> dict[int, Feeds]:
    """What feeds the positions of one output of a step, by the index of its carriers.

    Args:
        plan: has the step.
        step: any node that relevance crosses.
        output: the index of one of its outputs.
        known: forward tensors by name, for rules whose spread reads some (computed indices).
    """
    probes = _probes(plan, step, output)
    shape, sizes = probes.shape, probes.sizes
    if probes.is_identity:
        return {i: identity(math.prod(shape), len(shape)) for i in probes.wanted}
    send = _sender(plan, step, probes.emit, probes.value, probes.wanted, known)
    found = _probed(send, shape, sizes, plan.roles[probes.value.name])
    if step.rule.far:
        require_few(step, math.prod(shape), max(sizes.values(), default=0))
    return {i: _everywhere(fed, shape) for i, fed in found.items()} if step.rule.far else found


@dataclass(frozen=True, eq=False)
class _Probes:
    """The spread of one output of a step: where it goes, and how many positions are there, by carrier."""

    emit: Emitter
    value: Value
    shape: tuple[int, ...]
    wanted: Mapping[int, str]
    sizes: Mapping[int, int]

    @property
    def is_identity(self) -> bool:
        count = math.prod(self.shape)
        return all(flow == PROBE and self.sizes[i] == count for i, flow in self.wanted.items())


def _probes(plan: Plan, step: Step, output: int) -> _Probes:
    emit = plan.emitter()
    value = step.node.outputs[output]
    assert value is not None
    shares = [PROBE if i == output else None for i in range(len(step.node.outputs))]
    flows = spread(emit, step.rule, step.node, shares)
    wanted = {i: flow for i, flow in enumerate(flows) if flow is not None and i in step.carriers}
    sizes = {i: math.prod(position_shape(plan, step.node.input(i))) for i in wanted}
    return _Probes(emit, value, position_shape(plan, value), wanted, sizes)


def one_to_one(plan: Plan, step: Step, output: int) -> dict[int, Array]:
    """The input position that each output position comes from, where none feeds another one as well.

    Returns:
        int64 [J], -1 for none, by the index of those carriers that feed in this way; positions as in `Feeds`.
    """
    if needed(plan, step, output):
        return {}
    probes = _probes(plan, step, output)
    if probes.is_identity:
        return {i: np.arange(math.prod(probes.shape)) for i in probes.wanted}
    found: dict[int, Array] = {}
    for i, flow in probes.wanted.items():
        # One operand at a time: what one of them mixes says nothing of another one (a skip connection).
        send = _sender(plan, step, probes.emit, probes.value, {i: flow}, {})
        pairs = _by_comb(send, probes.shape, (1,) * len(probes.shape))
        if pairs is not None:
            fed = _gathered(pairs[0], math.prod(probes.shape), (), probes.sizes[i])
            if len(fed.index) == 1:
                found[i] = fed.index[0]
    return found


def require_few(step: Step, passes: int, positions: int) -> None:
    """Refuse a node whose ratios would fill the memory.

    Raises:
        UnsupportedCaseError: naming it.
    """
    step.node.require(
        passes * positions <= _MOST,
        f"its ratios would take {passes} passes over {positions} positions; choose a smaller input",
    )


def _everywhere(fed: Feeds, shape: tuple[int, ...]) -> Feeds:
    """Every input position may feed every output position, whatever part of the undirected it gets."""
    count = fed.index.shape[1]
    parts = np.zeros((fed.size, count), np.float32)
    tap, result = np.nonzero(fed.index >= 0)
    parts[fed.index[tap, result], result] = fed.parts[tap, result]
    index = np.broadcast_to(np.arange(fed.size)[:, None], parts.shape)
    return Feeds(index, parts, shape, fed.size)


def needed(plan: Plan, step: Step, output: int) -> list[str]:
    """The computed tensors that the spread of a step reads: none, unless its structure depends on the data."""
    probes = _probes(plan, step, output)
    outputs = {f"fed/{i}": flow for i, flow in probes.wanted.items()}
    return list(part_of(probes.emit.nodes, probes.emit.initializers, plan.graph, outputs).reads)


class _Sender:
    """Sends relevance through the spread of one step."""

    def __init__(self, model: onnx.ModelProto, dtype: np.dtype, feeds: Mapping[str, Array]) -> None:
        self.session = make_session(model.SerializeToString(), [CPU], 1)
        self.dtype = dtype
        self.feeds = dict(feeds)
        self.names = [output.name for output in model.graph.output]

    def __call__(self, relevance: Array) -> list[Array]:
        """What arrives at each operand, flat."""
        found = run(self.session, self.names, {**self.feeds, PROBE: relevance.astype(self.dtype)})
        return [np.asarray(array, np.float32).reshape(-1) for array in found]


def _sender(
    plan: Plan, step: Step, emit: Emitter, value: Value, wanted: Mapping[int, str], known: Mapping[str, Array]
) -> _Sender:
    dtype = account_type(value) if value.is_float else np.dtype(np.float32)
    outputs = {f"fed/{i}": flow for i, flow in wanted.items()}
    probe = tensor_info(PROBE, dtype, position_shape(plan, value))
    part = part_of(emit.nodes, emit.initializers, plan.graph, outputs, [probe])
    return _Sender(part.model, dtype, {name: known[name] for name in part.reads})


def _probed(send: _Sender, shape: tuple[int, ...], sizes: Mapping[int, int], axes: Axes) -> dict[int, Feeds]:
    for comb in _combs(shape, axes):
        pairs = _by_comb(send, shape, comb)
        if pairs is not None:
            return {
                i: _gathered(found, math.prod(shape), comb, size)
                for (i, size), found in zip(sizes.items(), pairs, strict=True)
            }
    raise AssertionError("a comb of single teeth tells every output position apart")


def _combs(shape: tuple[int, ...], axes: Axes) -> Iterator[tuple[int, ...]]:
    """Combs from the densest to single teeth. Batch items share all their positions or none."""
    choices = [
        {1, size} if role is Role.BATCH else {*(d for d in _TEETH if d < size), size}
        for size, role in zip((max(n, 1) for n in shape), axes.roles, strict=True)
    ]
    yield from sorted(itertools.product(*choices), key=math.prod)


def _by_comb(
    send: _Sender, shape: tuple[int, ...], comb: tuple[int, ...]
) -> list[list[tuple[Array, Array, Array]]] | None:
    """For each operand (input positions, output positions, parts), one triple per comb; None if two teeth meet."""
    places = np.indices(shape, sparse=True)
    teeth = [-(-size // distance) for size, distance in zip(shape, comb, strict=True)]
    found: list[list[tuple[Array, Array, Array]]] = []
    for offset in itertools.product(*map(range, comb)):
        on = np.ones(shape, bool)
        for place, distance, first in zip(places, comb, offset, strict=True):
            on = on & (place % distance == first)
        arrived = send(on)
        fed = [np.flatnonzero(part) for part in arrived]
        flat = [np.zeros(len(at), np.int64) for at in fed]
        for axis, (count, distance, first) in enumerate(zip(teeth, comb, offset, strict=True)):
            tooth = [np.zeros(len(at), np.int64) for at in fed]
            for bit in range((count - 1).bit_length()):
                answers = send(on & ((places[axis] // distance) >> bit & 1).astype(bool))
                for own, at, whole, answer in zip(tooth, fed, arrived, answers, strict=True):
                    share = answer[at] / whole[at]
                    if (np.abs(share - np.round(share)) > _HALF).any():
                        return None
                    own += np.round(share).astype(np.int64) << bit
            step = math.prod(shape[axis + 1 :])
            flat = [f + (t * distance + first) * step for f, t in zip(flat, tooth, strict=True)]
        found.append([(at, j, whole[at]) for at, j, whole in zip(fed, flat, arrived, strict=True)])
    return [list(of_operand) for of_operand in zip(*found, strict=True)]


def _gathered(
    found: Sequence[tuple[Array, Array, Array]], count: int, comb: tuple[int, ...], size: int
) -> Feeds:
    sources, results, parts = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((sources, results))
    sources, results, parts = sources[order], results[order], parts[order]
    starts = np.searchsorted(results, np.arange(count))
    tap = np.arange(len(results)) - starts[results]
    taps = int(tap.max(initial=0)) + 1
    index, shares = np.full((taps, count), -1, np.int64), np.zeros((taps, count), np.float32)
    index[tap, results], shares[tap, results] = sources, parts
    return Feeds(index, shares, comb, size)
