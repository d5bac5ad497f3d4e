"""Explaining a large picture part by part, in bounded memory, with the map of the whole.

Below the boundary relevance is carried linearly, and what a position of the boundary gives to the input lies in its
receptive field, as does everything that its sharing ratios are made of. So the positions of the boundary are taken some
at a time: each group is explained on the part of the input that it looks at, and the maps are added up. The numbers are
those of the whole at once but for rounding; what is computed twice is where the parts overlap.

    1  the boundary tensor, part by part            forward
    2  relevance at the boundary, from the target   head, on the whole boundary tensor
    3  relevance of the input, part by part         R_input = Σ_parts backward(R_boundary of the part)
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, helper

from srd_onnx.bounded.geometry import Reach, Span, reach_of, spans
from srd_onnx.bounded.sizes import bytes_of, kept_of
from srd_onnx.engine.assemble import Part, part_of, tensor_info
from srd_onnx.engine.backward import Head, build_head, map_of
from srd_onnx.engine.compiling import Case, Compiled, explanation_session, run_explanation
from srd_onnx.engine.focus import finish_model
from srd_onnx.engine.options import NO_FOCUS
from srd_onnx.engine.outline import Outline
from srd_onnx.engine.plan import Plan
from srd_onnx.engine.reading import SCORES, Result
from srd_onnx.engine.seed import DIRECTION, TARGET
from srd_onnx.errors import OptionError, UnsupportedCaseError
from srd_onnx.graph.ir import Array
from srd_onnx.ort.runtime import make_session, run

_SHARE, _SEED, _SCORES, _LEDGER = "share", "seed", "scores", "ledger/"


@dataclass(frozen=True, eq=False)
class Tiled:
    """Explains one target of one large picture at a time; see `srd_onnx.runs.Passing`.

    Attributes:
        plan: of the whole.
        seconds: that it took to compile.
        tile: what explains the boundary tensor on a part of the picture.
        session: of the tile; it gives the boundary tensor, too.
        head: from the whole boundary tensor to its relevance.
        booked: what each ledger output of the head is booked against.
        rows, columns: the parts.
        reach: of the boundary, along rows and columns.
    """

    plan: Plan
    seconds: float
    tile: Compiled
    session: onnxruntime.InferenceSession
    head: onnxruntime.InferenceSession
    booked: tuple[str, ...]
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    reach: tuple[Reach, Reach]

    @property
    def outline(self) -> Outline:
        """What it does."""
        return self.plan.outline

    @property
    def bounded(self) -> str:
        """How memory is kept."""
        return f"the picture in {len(self.rows) * len(self.columns)} parts"

    def __call__(self, feeds: Mapping[str, Array], seed: Array) -> Result:
        """Explain one picture.

        Raises:
            NonFiniteError: if an activation or the relevance is not finite.
        """
        picture = feeds[self.plan.sources[0].name]
        boundary = self._boundary(picture)
        names = [output.name for output in self.head.get_outputs()]
        given = {TARGET if seed.ndim == 1 else DIRECTION: seed, self.plan.boundary[0]: boundary}
        found = dict(zip(names, run(self.head, names, given), strict=True))
        whole, ledger = self._relevance(picture, boundary, found[_SHARE])
        ledger = {
            name: amount + ledger.get(name, 0.0)
            for name, amount in itertools.chain(
                ((n, found[f"{_LEDGER}{i}"].reshape(1)) for i, n in enumerate(self.booked)),
                ((n, 0.0) for n in ledger if n not in self.booked),
            )
        }
        whole = self._smoothed(whole)
        chosen = np.where(seed < 0, found[_SCORES].argmax(axis=1), seed) if seed.ndim == 1 else None
        columns = np.array([list(ledger.values())], np.float64).reshape(1, len(ledger))
        return Result(
            {self.plan.sources[0].name: whole},
            whole.reshape(1, -1).sum(axis=1, dtype=np.float64),
            found[_SEED],
            found[_SCORES],
            columns,
            tuple(ledger),
            chosen,
        )

    def _parts(self) -> Iterator[tuple[Span, Span]]:
        return itertools.product(self.rows, self.columns)

    def _within(self, row: Span, column: Span) -> tuple[slice, slice]:
        """The positions of a group, in the boundary tensor of its part."""
        at = (one.start // reach.stride for one, reach in zip((row, column), self.reach, strict=True))
        top, left = at
        return slice(row.first - top, row.last - top), slice(column.first - left, column.last - left)

    def _boundary(self, picture: Array) -> Array:
        value = self.plan.graph.values[self.plan.boundary[0]]
        whole: Array = np.empty(value.shape, value.dtype)
        source, shape = self.plan.sources[0].name, self.tile.plan.target.shape
        for row, column in self._parts():
            part = np.ascontiguousarray(picture[..., row.start : row.stop, column.start : column.stop])
            nowhere = np.zeros((1, math.prod(shape)), value.dtype)
            (found,) = run(self.session, [SCORES], {source: part, DIRECTION: nowhere}, needed_only=True)
            y, x = self._within(row, column)
            whole[..., row.first : row.last, column.first : column.last] = found.reshape(shape)[..., y, x]
        return whole

    def _relevance(self, picture: Array, boundary: Array, share: Array) -> tuple[Array, dict[str, Array]]:
        """The map [1, H, W] that the relevance [1, 1, h, w] of the boundary gives, and what is booked."""
        whole = np.zeros((1, *picture.shape[2:]), np.float32)
        source, ledger = self.plan.sources[0].name, dict[str, Array]()
        for row, column in self._parts():
            direction = np.zeros(self.tile.plan.target.shape, boundary.dtype)
            y, x = self._within(row, column)
            group = (..., slice(row.first, row.last), slice(column.first, column.last))
            expanded = _expanded(boundary[group], share[group])
            # Half precision could not hold it; a power of two rounds nothing.
            unit = 2.0 ** np.frexp(np.abs(expanded).max(initial=0))[1]
            direction[..., y, x] = expanded / unit
            part = np.ascontiguousarray(picture[..., row.start : row.stop, column.start : column.stop])
            found = run_explanation(self.session, self.tile, {source: part}, direction.reshape(1, -1))
            whole[:, row.start : row.stop, column.start : column.stop] += found.relevance[source] * unit
            for name, amount in zip(found.booked, found.ledger[0] * unit, strict=True):
                ledger[name] = ledger.get(name, np.zeros(1)) + amount
        return whole, ledger

    def _smoothed(self, whole: Array) -> Array:
        if not self.plan.options.smooth:
            return whole
        value = map_of(self.plan, self.plan.sources[0])
        model = finish_model(self.plan.options, value, self.plan.graph.opset, 0)
        session = make_session(model.SerializeToString(), self.head.get_providers())
        return run(session, ["map"], {"map/0": whole})[0]


def _expanded(v: Array, share: Array) -> Array:
    """``v_j R_j / ‖v_j‖²``, whose inner product with the PFV is its relevance."""
    norm = np.square(v, dtype=np.float64).sum(axis=1, keepdims=True)
    return np.asarray(v * (share / np.maximum(norm, np.finfo(np.float32).tiny)))


def make_tiled(
    forward: ModelProto,
    plan: Plan,
    case: Case,
    compiled: Callable[[Case], Compiled],
    providers: Sequence[str],
    threads: int | None,
    most: int,
    began: float,
) -> Tiled:
    """What explains in about `most` bytes.

    Args:
        forward: the simplified model,
        plan: and what is to be done, for the whole.
        case: that they are of.
        compiled: compiles the same model for a part.
        providers: see `make_session`.
        threads: see `make_session`.
        most: bytes.
        began: when compiling did, by `time.perf_counter`.

    Raises:
        OptionError: if it takes more memory than that, however small the parts; or several inputs at once, or passes.
        UnsupportedCaseError: if a layer below the boundary looks at more than a window.
        SrdOnnxError: as `compile_model` does.
    """
    _require_one(plan)
    boundary = plan.graph.values[plan.boundary[0]]
    reach = reach_of(plan, boundary.name)
    source = plan.sources[0]
    sizes = source.shape[2:]
    kept = kept_of(plan)
    by_pixel = bytes_of(plan) / math.prod(sizes)
    side = int((max(most - kept, 0) / by_pixel) ** 0.5)
    at_once = [(side - one.size - 2 * one.stride) // one.stride for one in reach]
    if min(at_once) < 1:
        least = kept + max(one.size + 3 * one.stride for one in reach) ** 2 * by_pixel
        raise OptionError(f"explaining part by part takes {least:.0f} bytes at the least")
    rows, columns = (
        spans(one, count, size, n)
        for one, count, size, n in zip(reach, boundary.shape[2:], sizes, at_once, strict=True)
    )
    shape = (*source.shape[:2], rows[0].stop - rows[0].start, columns[0].stop - columns[0].start)
    options = replace(case.options, boundary=boundary.name, sign="signed", focus=NO_FOCUS, smooth=0.0)
    part = replace(case, shapes={source.name: shape}, explained=boundary.name, free=True, options=options)
    tile = compiled(part)
    head = build_head(plan, free=case.free)
    session = explanation_session(tile, providers, threads)
    of_head = _head(plan, forward, head, free=case.free).model.SerializeToString()
    top = make_session(of_head, providers, threads)
    return Tiled(
        plan,
        time.perf_counter() - began,
        tile,
        session,
        top,
        tuple(name for name, _ in head.ledger),
        tuple(rows),
        tuple(columns),
        reach,
    )


def _require_one(plan: Plan) -> None:
    source = plan.sources[0]
    if plan.focus or len(plan.boundary) > 1 or len(plan.sources) > 1 or plan.batch > 1:
        raise OptionError(
            "only one picture at a time is explained part by part, and by one pass with one boundary: choose the "
            "preset 'paper', or focus='none'"
        )
    if str(plan.roles[source.name]) != "NCPP" or str(plan.roles[plan.boundary[0]]) != "NCPP":
        raise UnsupportedCaseError(
            f"only pictures N×C×H×W are explained part by part; '{source.name}' has the axes "
            f"{plan.roles[source.name]}, the boundary '{plan.boundary[0]}' {plan.roles[plan.boundary[0]]}"
        )


def _head(plan: Plan, forward: ModelProto, head: Head, *, free: bool) -> Part:
    """From the boundary tensor to the target and back to its relevance."""
    boundary = plan.graph.values[plan.boundary[0]]
    behind, nodes = {boundary.name}, []
    for node in forward.graph.node:
        if behind.intersection(node.input):
            nodes.append(node)
            behind.update(node.output)
    seeded = head.seeded
    outputs = {_SHARE: head.shares[boundary.name], _SEED: head.seed, _SCORES: seeded.scores}
    outputs |= {f"{_LEDGER}{i}": tensor for i, (_, tensor) in enumerate(head.ledger)}
    seed = (
        tensor_info(DIRECTION, seeded.dtype, seeded.shape)
        if free
        else helper.make_tensor_value_info(TARGET, TensorProto.INT64, seeded.shape[:1])
    )
    made = part_of(
        [*nodes, *head.emit.nodes],
        head.emit.initializers,
        plan.graph,
        outputs,
        [seed, tensor_info(boundary.name, boundary.dtype, boundary.shape)],
        list(forward.opset_import),
    )
    if made.reads:
        raise UnsupportedCaseError(
            f"the target depends on '{made.reads[0]}' past the boundary '{boundary.name}'; "
            "choose a boundary that all paths go through"
        )
    return made
