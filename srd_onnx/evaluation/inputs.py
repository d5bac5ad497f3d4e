"""What an evaluation asks about: photos with the class that is explained in each, their masks, and grids of them."""

import hashlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from srd_onnx.errors import InputError, OptionError
from srd_onnx.evaluation.grids import CELLS, CONFIDENT, Grid, cell_mask, grids_of, joined
from srd_onnx.evaluation.masks import Masks
from srd_onnx.explainer import Explainer
from srd_onnx.graph.ir import Array
from srd_onnx.inputs.preprocess import Preprocess, read_image
from srd_onnx.inputs.sources import ARRAY_FILES, Item, read_items
from srd_onnx.metrics.metric import Metric
from srd_onnx.ort.forward import kept_forward
from srd_onnx.targets import resolve_classes

IN_NO_GRID = "in no grid"  # begins the reason; nothing is wrong with the photo


@dataclass(frozen=True, eq=False)
class Loaded:
    """An input, ready to be explained.

    Attributes:
        input: without the batch, as the model takes it.
        image: the photo as the model sees it, uint8 [H, W, 3]; None for arrays and grids.
        mask: bool [*positions], where the object is; None if that is not known.
        ignored: bool [*positions], what is left out of every localisation; None for nothing.
        no_mask: why there is no mask.
    """

    input: Array
    image: NDArray[np.uint8] | None = None
    mask: NDArray[np.bool_] | None = None
    ignored: NDArray[np.bool_] | None = None
    no_mask: str = ""

    def digest(self, *, masked: bool) -> str:
        """Of all that a number depends on: the input, and for a masked metric the mask."""
        parts: list[Array | None] = [self.input, *((self.mask, self.ignored) if masked else ())]
        found = hashlib.sha256()
        for part in parts:
            found.update(b"-" if part is None else f"{part.dtype} {part.shape} ".encode() + part.tobytes())
        return found.hexdigest()


@dataclass(frozen=True, eq=False)
class Question:
    """One input and class, and the metrics that are asked about it.

    Attributes:
        image: the photo's path as it was given.
        sha256: of its file; empty if it cannot be read.
        target: the explained class; None if it cannot be read.
        label: its name, where that is known.
        seed: of everything random here; the same for every method.
        asks: names of metrics.
        load: reads it.
        problem: why nothing can be asked.
        grid: the photos of the grid that the input is, cell by cell; empty for a photo.
        shown: whether its maps are drawn.
    """

    image: str
    sha256: str
    target: int | None
    label: str | None
    seed: int
    asks: tuple[str, ...]
    load: Callable[[], Loaded]
    problem: str = ""
    grid: tuple[str, ...] = ()
    shown: bool = False


@dataclass(frozen=True, eq=False)
class _Photo:
    path: Path
    sha256: str = ""
    target: int | None = None
    top: int = -1
    probability: float = 0.0
    shape: tuple[int, ...] = ()
    problem: str = ""


def questions_of(
    explainer: Explainer,
    images: Sequence[str | Path],
    metrics: Mapping[str, Metric],
    *,
    target: int | str | None = None,
    masks: Masks | None = None,
    seed: int = 0,
    shown: int = 0,
    optional: Container[str] = (),
    advance: Callable[[], None] = lambda: None,
) -> tuple[list[Question], dict[str, OptionError]]:
    """All that is asked: first the photos, then the grids.

    Args:
        explainer: of the model; it has one input.
        images: paths of photos, or of arrays of one input each (.npy).
        metrics: by name; those that need a grid are asked about grids, the others about photos.
        target: the class, by index or label; the prediction of each photo if left out. Of a photo in a grid it is
            always its prediction.
        masks: where the objects are.
        seed: of everything random.
        shown: the maps of so many photos, the first ones that can be read, are drawn.
        optional: metrics that are left out where these images or their layout do not allow them.
        advance: called after each photo.

    Returns:
        the questions; and the metrics that were left out, with the reason.

    Raises:
        OptionError: the model has several inputs; a metric needs masks or a grid, and there can be none; or masks are
            given for what is no photo.
        UnknownTargetError: the target does not exist.
    """
    if len(explainer.ports) > 1:
        raise OptionError("metrics are for models with one input")
    if masks is not None and not isinstance(explainer.preprocess, Preprocess):
        raise OptionError("masks cannot follow a preprocessing that is a function: give a Preprocess")
    unfit = {}
    for name, metric in metrics.items():
        if "mask" in metric.needs and masks is None:
            unfit[name] = OptionError("the object must be known; give masks")
        elif "grid" in metric.needs and len(explainer.ports[0].axes.positions) != 2:
            unfit[name] = OptionError("a grid needs an input with rows and columns")
        elif "grid" in metric.needs and len(images) < CELLS and name in optional:
            unfit[name] = OptionError(f"a grid takes {CELLS} images of different classes")
    if needed := [name for name in unfit if name not in optional]:
        raise OptionError(f"{', '.join(needed)}: {unfit[needed[0]]}")
    fit = {name: metric for name, metric in metrics.items() if name not in unfit}
    reader = _Reader(explainer, masks)
    photos = []
    for path in images:
        photos.append(reader.look(Path(path), target))
        advance()
    found, left = [], shown
    for photo in photos:
        asks = tuple(name for name, metric in fit.items() if "grid" not in metric.needs)
        drawn = left > 0 and not photo.problem
        left -= drawn
        found.append(reader.question(photo, asks, seed, drawn=drawn))
    gridded = tuple(name for name, metric in fit.items() if "grid" in metric.needs)
    try:
        found += list(_gridded(reader, photos, gridded, seed)) if gridded else []
    except OptionError as error:
        if not all(name in optional for name in gridded):
            raise
        unfit |= dict.fromkeys(gridded, error)
    return found, unfit


def _gridded(
    reader: "_Reader", photos: Sequence[_Photo], metrics: tuple[str, ...], seed: int
) -> Iterator[Question]:
    """Each photo in its grid; or why it is in none."""
    fit = [p for p in photos if not p.problem and p.probability >= CONFIDENT]
    shapes = {photo.shape for photo in fit}
    if len(shapes) > 1:
        raise OptionError("a grid needs photos of one size for the model: give a crop or an exact resize")
    grids = grids_of([photo.top for photo in fit], seed)
    places = {
        fit[one].path: (grid, cell)
        for grid in grids
        for cell, one in enumerate(grid.members)
        if one in grid.asked
    }
    for photo in photos:
        if photo.path in places:
            yield reader.cell(fit, *places[photo.path], metrics, seed)
            continue
        problem = photo.problem
        if not problem and photo.probability < CONFIDENT:
            problem = (
                f"in no grid: predicted with probability {photo.probability:.2f}, less than {CONFIDENT:g}"
            )
        elif not problem:
            count = len({one.top for one in fit})
            problem = (
                f"{IN_NO_GRID}: it takes {CELLS} classes that are predicted confidently, there are {count}"
            )
        yield reader.refused(photo, photo.top if not photo.problem else None, metrics, seed, problem)


@dataclass(frozen=True, eq=False)
class _Reader:
    """Reads photos, one at a time, and asks the model for its prediction."""

    explainer: Explainer
    masks: Masks | None

    def look(self, path: Path, target: int | str | None) -> _Photo:
        """The prediction, and the class that is to be explained."""
        try:
            item = self._item(path)
            data = next(iter(item.data.values()))
            scores = kept_forward(self.explainer, data.shape)(data[None])[0]
        except InputError as error:
            return _Photo(path, problem=str(error))
        top = int(scores.argmax())
        wanted = top if target is None else resolve_classes([target], scores, self.explainer.labels)[0]
        sha256 = (item.origin or {}).get("sha256", "")
        return _Photo(path, sha256, wanted, top, float(softmax(scores)[top]), data.shape)

    def question(self, photo: _Photo, asks: tuple[str, ...], seed: int, *, drawn: bool) -> Question:
        if photo.problem or photo.target is None:
            return self.refused(photo, None, asks, seed, photo.problem)
        target = photo.target
        return Question(
            str(photo.path),
            photo.sha256,
            target,
            self.explainer.label(target),
            seed_of(seed, photo.sha256),
            asks,
            lambda: self._load(photo, target),
            shown=drawn,
        )

    def refused(
        self, photo: _Photo, target: int | None, asks: tuple[str, ...], seed: int, problem: str
    ) -> Question:
        label = None if target is None else self.explainer.label(target)
        return Question(
            str(photo.path), photo.sha256, target, label, seed, asks, lambda: self._load(photo, 0), problem
        )

    def cell(
        self, photos: Sequence[_Photo], grid: Grid, cell: int, asks: tuple[str, ...], seed: int
    ) -> Question:
        """A grid, of which one cell is asked for."""
        photo = photos[grid.members[cell]]
        members = [photos[index] for index in grid.members]
        return Question(
            str(photo.path),
            photo.sha256,
            photo.top,
            self.explainer.label(photo.top),
            seed_of(seed, photo.sha256),
            asks,
            lambda: self._load_grid(members, cell),
            grid=tuple(str(member.path) for member in members),
        )

    def _item(self, path: Path) -> Item:
        items = list(read_items(str(path), self.explainer.ports, self.explainer.preprocess))
        if len(items) != 1:
            raise InputError(f"{path} holds {len(items)} inputs: save each in a file of its own")
        return items[0]

    def _data(self, photo: _Photo) -> Item:
        item = self._item(photo.path)
        if (item.origin or {}).get("sha256", "") != photo.sha256:
            raise InputError(f"{photo.path} was changed while it was being evaluated: start again")
        return item

    def _load(self, photo: _Photo, target: int) -> Loaded:
        item = self._data(photo)
        data = next(iter(item.data.values()))
        preprocess = self.explainer.preprocess
        if self.masks is None or not isinstance(preprocess, Preprocess):
            return Loaded(data, item.image)
        if photo.path.suffix.lower() in ARRAY_FILES:
            return Loaded(data, no_mask=f"{photo.path}: an array is no photo on which a mask could be laid")
        height, width, _ = read_image(photo.path).shape
        try:
            mask = self.masks.of(photo.path, (height, width), preprocess, target)
        except InputError as error:
            return Loaded(data, item.image, no_mask=str(error))
        return Loaded(data, item.image, mask.object, mask.ignored if mask.ignored.any() else None)

    def _load_grid(self, members: Sequence[_Photo], cell: int) -> Loaded:
        inputs = [next(iter(self._data(member).data.values())) for member in members]
        port = self.explainer.ports[0]
        rows, columns = (axis - port.has_batch for axis in port.axes.positions)
        # Where the model takes any size the photos keep theirs.
        open_size = all(port.declared[axis] is None for axis in port.axes.positions)
        grown = 2 if open_size else 1
        size = (inputs[0].shape[rows] * grown, inputs[0].shape[columns] * grown)
        return Loaded(joined(inputs, (rows, columns), size), mask=cell_mask(size, cell))


def seed_of(seed: int, sha256: str) -> int:
    """Of an image, whichever others are evaluated with it."""
    return int.from_bytes(hashlib.sha256(f"{seed} {sha256}".encode()).digest()[:4], "big")
