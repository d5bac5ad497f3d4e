"""Doing the work of an audit: image by image, method by method, metric by metric; each row is kept at once."""

import math
import time
from collections import deque
from collections.abc import Callable, Container, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srd_onnx.audit.images import ImageFile
from srd_onnx.audit.maps import Maps
from srd_onnx.audit.places import places_of
from srd_onnx.audit.plan import Audit
from srd_onnx.audit.state import ExplanationRow, ImageRow, NumberRow, State
from srd_onnx.errors import AuditError, InputError, OutputError, SrdOnnxError
from srd_onnx.evaluation.contenders import Contender
from srd_onnx.evaluation.inputs import seed_of
from srd_onnx.evaluation.masks import Mask
from srd_onnx.evaluation.numbers import UNDEFINED
from srd_onnx.explainer import Explainer
from srd_onnx.explanation import Explanation
from srd_onnx.graph.ir import Array
from srd_onnx.inputs.preprocess import Preprocess, read_image
from srd_onnx.inputs.sources import ARRAY_FILES, Item, read_items
from srd_onnx.lanes import AT_ONCE, Lanes, lanes_of
from srd_onnx.metrics.metric import Explained, Metric, Probe
from srd_onnx.metrics.probe import probe_of
from srd_onnx.ort.forward import kept_forward
from srd_onnx.threads import at_rest


def work(
    audit: Audit, state: State, maps: Maps, advance: Callable[[ImageRow], None] = lambda _: None
) -> None:
    """Do what is not done yet.

    What is wrong with one image is a row with its error; what is wrong with the model or an option ends all.

    Args:
        audit: what is asked.
        state: where rows are.
        maps: where maps are.
        advance: called after each image, also after those that were done before.

    Raises:
        AuditError: an image was changed meanwhile.
        SrdOnnxError: a method cannot explain the model at its first image, or a metric that was named is not for it.
        OutputError: a row or a map cannot be written.
    """
    _forget_damaged(audit, state, maps)
    workers = [
        _Worker(audit, index, contender, state, maps) for index, contender in enumerate(audit.contenders)
    ]
    done = state.work()
    for worker in workers:
        worker.worked = any(name == worker.name and error is None for (_, name), error in done.items())
    counted = _counted(state)
    images = (_Image(audit, file, row) for file, row in zip(audit.files, audit.rows, strict=True))
    with closing(_begun(images, workers, done)) as begun:
        for image, coming in begun:
            row = image.row
            for worker in workers:
                if (row.id, worker.name) not in done:
                    worker.keep(image, coming[worker.name])
                elif counted.get((row.id, worker.name), 0) >= worker.wanted(row) or done[row.id, worker.name]:
                    continue
                worker.measure(image)
            advance(row)


Coming = Callable[[], list[Explanation]]


def _begun(
    images: Iterable["_Image"], workers: Sequence["_Worker"], done: Container[tuple[int, str]]
) -> Generator[tuple["_Image", dict[str, Coming]], None, None]:
    """Each image in order, and by worker what explains it; of the next images that begins meanwhile.

    On the CPU several run side by side, each on threads of its own, as `srd_onnx.lanes` says.
    """
    ahead = max(one.lanes.count for one in workers) - 1
    waiting: deque[tuple[_Image, dict[str, Coming]]] = deque()
    with at_rest(ahead + 1, "srd-onnx-explaining") as pool:
        for image in images:
            left = [one for one in workers if (image.row.id, one.name) not in done]
            waiting.append((image, {one.name: one.begin(image, pool) for one in left}))
            if len(waiting) > ahead:
                yield waiting.popleft()
        yield from waiting


def read_item(explainer: Explainer, file: ImageFile) -> Item:
    """The one input of a file.

    Raises:
        InputError: it cannot be read, or holds several.
        AuditError: it is not the file that it was.
    """
    items = list(read_items(str(file.path), explainer.ports, explainer.preprocess))
    if len(items) != 1:
        raise InputError(f"{file.path} holds {len(items)} inputs: save each in a file of its own")
    if (items[0].origin or {}).get("sha256", file.sha256) != file.sha256:
        raise AuditError(
            f"{file.path} was changed while it was being audited. Begin anew, with another --out."
        )
    return items[0]


def source_of(explainer: Explainer, item: Item) -> Mapping[str, Array]:
    """What `Explainer.explain` takes for an item that was read."""
    return {
        port.name: item.data[port.name][None] if port.has_batch else item.data[port.name]
        for port in explainer.ports
    }


@dataclass(eq=False)
class _Image:
    """An image, read when the first worker needs it."""

    audit: Audit
    file: ImageFile
    row: ImageRow
    shared: dict[Hashable, Any] = field(default_factory=dict)
    _item: Item | None = None
    _masks: dict[int, Mask | str] = field(default_factory=dict)

    @property
    def item(self) -> Item:
        """Raises as `read_item` does."""
        if self._item is None:
            self._item = read_item(self.audit.base, self.file)
        return self._item

    def mask(self, target: int | str) -> Mask | str | None:
        """The mask of the object of a class; why there is none; None where none was given."""
        masks, preprocess = self.audit.masks, self.audit.base.preprocess
        if masks is None or not isinstance(target, int) or not isinstance(preprocess, Preprocess):
            return None
        if self.file.path.suffix.lower() in ARRAY_FILES:
            return f"{self.row.name}: an array is no photo on which a mask could be laid"
        if target not in self._masks:
            try:
                height, width, _ = read_image(self.file.path).shape
                self._masks[target] = masks.of(self.file.path, (height, width), preprocess, target)
            except InputError as error:
                self._masks[target] = str(error)
        return self._masks[target]


@dataclass(eq=False)
class _Worker:
    """One method; its sessions are compiled when the first map or number is needed.

    Attributes:
        worked: whether it has explained an image, so that what it cannot explain is the fault of an image.
    """

    audit: Audit
    index: int
    contender: Contender
    state: State
    maps: Maps
    worked: bool = False
    _explainer: Explainer | None = None
    _probes: dict[tuple[int, ...], Probe] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.contender.name

    @property
    def explainer(self) -> Explainer:
        if self._explainer is None:
            self._explainer = self.contender.explainer(self.audit.base)
        return self._explainer

    @property
    def lanes(self) -> Lanes[Explainer]:
        """How images are explained at once."""
        return lanes_of(self.explainer, AT_ONCE)

    def begin(self, image: _Image, pool: Executor) -> Coming:
        """What gives the explanations of all targets of an image; it raises as `Explainer.explain` does."""
        lanes = self.lanes

        def explain() -> list[Explanation]:
            return lanes.explaining.explain(source_of(lanes.explaining, image.item), self.audit.targets)

        return pool.submit(explain).result if lanes.count > 1 else explain

    def wanted(self, row: ImageRow) -> int:
        """How many numbers an image has at most."""
        return len(self.audit.metrics) * self.audit.slots + len(self.audit.sanity) * row.sanity

    def keep(self, image: _Image, coming: Coming) -> None:
        """All targets of an image, kept at once."""
        began, rows, top5, problem = time.perf_counter(), [], [], None
        try:
            found = coming()
            unique = list({one.target: one for one in found}.values())
            rows = [self._kept(image, place, one) for place, one in enumerate(unique)]
            top5 = [(one["index"], one["label"], one["logit"]) for one in found[0].meta["top5"]]
            self.worked = True
        except (AuditError, OutputError):
            raise
        except SrdOnnxError as error:
            # An image may have a size for which the model cannot be explained.
            if not (self.worked or isinstance(error, InputError)):
                raise
            problem = str(error)
        self.state.add_work(image.row.id, self.name, rows, top5, problem, time.perf_counter() - began)

    def _kept(self, image: _Image, place: int, one: Explanation) -> ExplanationRow:
        at = self.audit.map_row(image.row.id, self.index, place)
        mask = image.mask(one.target)
        placed = isinstance(mask, Mask) and mask.object.shape == one.relevance.shape
        where = (mask.object, mask.ignored) if placed and isinstance(mask, Mask) else (None, None)
        total = float(one.meta["sum_relevance"])
        return ExplanationRow(
            image.row.id, self.name, one.target, place, one.label, one.score, float(one.meta["seed_value"]), total,
            one.residual, sorted_ledger(one.ledger), one.warnings, places_of(one.relevance, *where),
            mask if isinstance(mask, str) else None, one.relevance.shape, at, self.maps.write(at, one.relevance),
        )  # fmt: skip

    def measure(self, image: _Image) -> None:
        """The numbers of an image that are not there yet."""
        there = {
            (one.target, one.metric) for one in self.state.numbers(image.row.id) if one.method == self.name
        }
        for row in self.state.explanations(image.row.id):
            if row.method != self.name or not isinstance(row.target, int):
                continue
            for name, metric in self._asked(image.row, row):
                if (row.target, name) not in there:
                    began = time.perf_counter()
                    value, error = self._number(image, row, name, metric)
                    number = NumberRow(image.row.id, self.name, row.target, name, value, error)
                    self.state.add_number(number, time.perf_counter() - began)

    def _asked(self, image: ImageRow, row: ExplanationRow) -> Iterator[tuple[str, Metric]]:
        yield from self.audit.metrics.items()
        if image.sanity and row.place == 0:
            yield from self.audit.sanity.items()

    def _number(
        self, image: _Image, row: ExplanationRow, name: str, metric: Metric
    ) -> tuple[float | None, str | None]:
        mask = image.mask(row.target)
        if "mask" in metric.needs and not isinstance(mask, Mask):
            return None, mask or "there is no mask"
        try:
            value = float(metric.score(self._explained(image, row, mask, masked=bool(metric.needs))))
        except InputError as error:
            return None, str(error)
        except SrdOnnxError as error:
            if name not in self.audit.optional:
                raise
            return None, f"not for this model: {error}"
        return (None, UNDEFINED) if math.isnan(value) else (value, None)

    def _explained(
        self, image: _Image, row: ExplanationRow, mask: Mask | str | None, *, masked: bool
    ) -> Explained:
        relevance = self.maps.read(row.row, row.shape, row.digest)
        assert relevance is not None, "damaged maps were forgotten at the beginning"
        data = next(iter(image.item.data.values()))
        where: NDArray[np.bool_] | None = None
        values = relevance.astype(np.float64)
        if masked and isinstance(mask, Mask):
            where, values = mask.object, np.where(mask.ignored, 0, values)
        assert isinstance(row.target, int)
        seed = seed_of(self.audit.config.explain.seed, image.row.sha256)
        booked = sum(amount for _, amount in row.ledger)
        return Explained(
            self._probe(data.shape), data, row.target, values, seed, row.seed, booked, where, image.shared
        )

    def _probe(self, shape: tuple[int, ...]) -> Probe:
        if shape not in self._probes:
            forward = kept_forward(self.audit.base, shape)
            self._probes[shape] = probe_of(self.explainer, shape, forward=forward)
        return self._probes[shape]


def _counted(state: State) -> dict[tuple[int, str], int]:
    found: dict[tuple[int, str], int] = {}
    for one in state.numbers():
        found[one.image, one.method] = found.get((one.image, one.method), 0) + 1
    return found


def _forget_damaged(audit: Audit, state: State, maps: Maps) -> None:
    """What a power cut left of maps is computed again; a kill alone leaves none damaged."""
    for row in state.explanations():
        if maps.read(row.row, row.shape, row.digest) is None:
            state.forget_work(row.image, row.method)


def sorted_ledger(ledger: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """A ledger as rows keep it, the largest amount first."""
    return tuple(sorted(ledger.items(), key=lambda entry: (-abs(entry[1]), entry[0])))
