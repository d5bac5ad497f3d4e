"""From paths, photos or arrays to the arrays that the model takes."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srd_onnx.errors import InputError, LayoutError, NonFiniteError, ShapeError
from srd_onnx.preprocess import Preprocess, read_image
from srd_onnx.roles import Axes, Role

Array = NDArray[Any]
Source = str | Path | Array
Sources = Source | Sequence[Source]
Transform = Preprocess | Callable[[NDArray[np.uint8]], Array]


@dataclass(frozen=True, eq=False)
class Item:
    """One input: the data without its batch axis, in the model's layout, and where it came from.

    `image` is the photo as the model sees it, uint8 [H, W, 3]; None for a plain array.
    """

    data: Array
    name: str
    image: NDArray[np.uint8] | None = None
    origin: dict[str, str] | None = None


def read_items(sources: Sources, axes: Axes, preprocess: Transform) -> Iterator[Item]:
    """One item per input, read lazily.

    Args:
        sources: a path, or several; a photo uint8 [H, W, 3] RGB, or several; preprocessed data, with the batch
            axis (N×...) or without it, in the model's layout.
        axes: of the model's input.
        preprocess: makes model input [h, w, C] from a photo.

    Raises:
        ImageError: a photo cannot be read.
        ShapeError: an array has another number of axes than the model's input.
        NonFiniteError: NaN or infinity in the data.
    """
    if isinstance(sources, str | Path | np.ndarray):
        sources = [sources]
    if not isinstance(sources, Iterable):
        raise InputError(
            f"the inputs are a path, a numpy array or a list of these, not a {type(sources).__name__}"
        )
    for number, source in enumerate(sources):
        if isinstance(source, str | Path):
            image = read_image(source)
            digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()
            origin = {"path": str(source), "sha256": digest}
            yield _from_photo(image, Path(source).stem, axes, preprocess, origin)
        elif isinstance(source, np.ndarray) and _is_photo(source):
            yield _from_photo(source, f"image{number}", axes, preprocess, None)
        elif isinstance(source, np.ndarray):
            yield from _from_array(source, axes, number)
        else:
            raise InputError(f"an input is a path or a numpy array, not a {type(source).__name__}")


def _is_photo(array: Array) -> bool:
    return array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3


def _from_photo(
    image: NDArray[np.uint8], name: str, axes: Axes, preprocess: Transform, origin: dict[str, str] | None
) -> Item:
    data = np.asarray(preprocess(image))
    order = [axis for axis, role in enumerate(axes.roles) if role is not Role.BATCH]
    if len(order) != 3 or len(axes.positions) != 2 or data.ndim != 3:
        raise LayoutError(
            f"the input has axes {axes}, which is no picture (N, C and two positions); give arrays, not photos"
        )
    if axes.roles.index(Role.CHANNEL) < axes.positions[0]:
        data = data.transpose(2, 0, 1)
    _require_finite(data, name)
    view = preprocess.view(image) if isinstance(preprocess, Preprocess) else None
    return Item(np.ascontiguousarray(data), name, view, origin)


def _from_array(array: Array, axes: Axes, number: int) -> Iterator[Item]:
    rank = len(axes.roles)
    if array.ndim == rank - 1 and Role.BATCH in axes.roles:
        array = array[None]
    if array.ndim != rank:
        raise ShapeError(
            f"input {number} has shape {list(array.shape)}, but the model's input has the {rank} axes {axes}"
        )
    if array.dtype.kind not in "fiu":
        raise ShapeError(f"input {number} has dtype {array.dtype}; the model takes numbers")
    for index, row in enumerate(array):
        name = f"input{number}" if len(array) == 1 else f"input{number}_{index}"
        _require_finite(row, name)
        yield Item(row, name)


def require_channels(
    shape: Sequence[int], declared: Sequence[int | None], axes: Axes, input_name: str
) -> None:
    """Refuse a wrong number of channels in words that help more than the sizes alone.

    Raises:
        ShapeError: if `shape` and `declared`, both with the batch axis, differ on a channel axis.
    """
    for axis in axes.channels:
        given, wanted = shape[axis], declared[axis]
        if wanted is not None and given != wanted:
            raise ShapeError(
                f"the data has {given} channels, but input '{input_name}' with the axes {axes} takes {wanted}; a "
                "photo has 3 (RGB, BGR) or 1 (GRAY): check the channel order and the layout"
            )


def _require_finite(data: Array, name: str) -> None:
    if not np.isfinite(data).all():
        where = np.argwhere(~np.isfinite(data))[0]
        raise NonFiniteError(
            f"{name}: NaN or infinity at index {where.tolist()}; check the file and the preprocessing"
        )
