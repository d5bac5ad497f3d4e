"""From paths, photos or arrays to the arrays that the model takes."""

import hashlib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srd_onnx.errors import InputError, LayoutError, NonFiniteError, ShapeError
from srd_onnx.graph.roles import Role
from srd_onnx.inputs.ports import Port
from srd_onnx.inputs.preprocess import Preprocess, read_image, torchvision_default

Array = NDArray[Any]
Source = str | Path | Array | Mapping[str, Array]
Sources = Source | Sequence[Source]
Transform = Preprocess | Callable[[NDArray[np.uint8]], Array]

ARRAY_FILES = (".npy", ".npz")
_LOST = 0.05  # of the spread of an input: rounding it to integers may take no more
_FLAT = 1e-6  # a spread that is float32's rounding


@dataclass(frozen=True, eq=False)
class Item:
    """One input: its data for each of the model's inputs, without the batch axis, and where it came from.

    `image` is the photo as the model sees it, uint8 [H, W, 3]; None for plain arrays.
    """

    data: Mapping[str, Array]
    name: str
    image: NDArray[np.uint8] | None = None
    origin: dict[str, str] | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each, without the batch axis."""
        return {name: array.shape for name, array in self.data.items()}


def read_items(
    sources: Sources, ports: Sequence[Port], preprocess: Transform, *, first: int = 0
) -> Iterator[Item]:
    """One item per input, read lazily.

    Args:
        sources: a path of a photo, of an array (.npy) or of named arrays (.npz), or several; a photo uint8
            [H, W, 3] RGB, or several; preprocessed data, with the batch axis (N×...) or without it, in the model's
            layout; for a model with several inputs a mapping from their names to arrays, or several of these.
        ports: the model's inputs.
        preprocess: makes model input [h, w, C] from a photo.
        first: the number of the first source, by which what has no name is named.

    Raises:
        ImageError: a photo cannot be read.
        ShapeError: an array has another number of axes than the model's input.
        NonFiniteError: NaN or infinity in the data.
    """
    if isinstance(sources, str | Path | np.ndarray | Mapping):
        sources = [sources]
    if not isinstance(sources, Iterable):
        raise InputError(
            f"the inputs are a path, a numpy array or a list of these, not a {type(sources).__name__}"
        )
    for number, source in enumerate(sources, first):
        if isinstance(source, str | Path) and Path(source).suffix.lower() in ARRAY_FILES:
            yield from _from_array_file(Path(source), ports, number)
            continue
        if isinstance(source, Mapping):
            yield from _from_mapping(source, ports, number)
            continue
        if len(ports) > 1:
            names = ", ".join(repr(port.name) for port in ports)
            raise InputError(
                f"the model has the inputs {names}: give a dictionary from their names to arrays"
            )
        yield from _from_single(source, ports[0], preprocess, number)


def _from_array_file(path: Path, ports: Sequence[Port], number: int) -> Iterator[Item]:
    """Arrays as numpy saves them, never pickled objects."""
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: not an array file that numpy.save or numpy.savez wrote: {error}"
        ) from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if isinstance(loaded, np.ndarray):
        found = (
            _from_array(loaded, ports[0], number)
            if len(ports) == 1
            else _from_mapping({"": loaded}, ports, number)
        )
    else:
        with loaded:
            found = _from_mapping({name: loaded[name] for name in loaded.files}, ports, number)
    items = list(found)
    for index, item in enumerate(items):
        name = path.stem if len(items) == 1 else f"{path.stem}_{index}"
        yield replace(item, name=name, origin={"path": str(path), "sha256": digest})


def _from_single(source: Any, port: Port, preprocess: Transform, number: int) -> Iterator[Item]:
    if isinstance(source, str | Path):
        image = read_image(source)
        digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()
        origin = {"path": str(source), "sha256": digest}
        yield _from_photo(image, Path(source).stem, port, preprocess, origin)
    elif isinstance(source, np.ndarray) and _is_photo(source, port):
        yield _from_photo(source, f"image{number}", port, preprocess, None)
    elif isinstance(source, np.ndarray):
        yield from _from_array(source, port, number)
    else:
        raise InputError(f"an input is a path or a numpy array, not a {type(source).__name__}")


def _from_mapping(source: Mapping[str, Any], ports: Sequence[Port], number: int) -> Iterator[Item]:
    wanted = [port.name for port in ports]
    if set(source) != set(wanted):
        raise InputError(f"the model takes the inputs {wanted}, but {sorted(map(str, source))} were given")
    columns = {port.name: list(_from_array(np.asarray(source[port.name]), port, number)) for port in ports}
    counts = {name: len(rows) for name, rows in columns.items()}
    size = max(counts.values())
    if any(count not in (1, size) for count in counts.values()):
        raise ShapeError(f"the inputs have different numbers of rows: {counts}")
    for index in range(size):
        rows = {name: items[min(index, len(items) - 1)] for name, items in columns.items()}
        data = {name: item.data[name] for name, item in rows.items()}
        yield Item(data, f"input{number}" if size == 1 else f"input{number}_{index}")


def _is_photo(array: Array, port: Port) -> bool:
    if port.dtype == np.uint8 and len(port.axes.positions) != 2:
        return False  # bytes are what the model takes, and they are no picture
    return array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3


def _from_photo(
    image: NDArray[np.uint8], name: str, port: Port, preprocess: Transform, origin: dict[str, str] | None
) -> Item:
    axes = port.axes
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
    return Item({port.name: np.ascontiguousarray(data)}, name, view, origin)


def _from_array(array: Array, port: Port, number: int) -> Iterator[Item]:
    axes = port.axes
    rank = len(axes.roles)
    if array.dtype.name == "bfloat16":  # of ml_dtypes; to numpy it is no number
        array = array.astype(np.float32)
    if not port.has_batch:
        rows = array[None] if array.ndim == rank else array
        fits = rows.ndim == rank + 1
    else:
        rows = array[None] if array.ndim == rank - 1 else array
        fits = rows.ndim == rank
    if not fits:
        raise ShapeError(
            f"input {number} has shape {list(array.shape)}, but the model's input has the {rank} axes {axes}"
        )
    if array.dtype.kind not in ("b" if port.dtype.kind == "b" else "fiu"):
        raise ShapeError(f"input {number} has dtype {array.dtype}; the model takes numbers")
    for index, row in enumerate(rows):
        name = f"input{number}" if len(rows) == 1 else f"input{number}_{index}"
        _require_finite(row, name)
        yield Item({port.name: row}, name)


def require_channels(shape: Sequence[int], port: Port) -> None:
    """Refuse a wrong number of channels in words that help more than the sizes alone.

    Raises:
        ShapeError: if `shape`, with the batch axis, and what the model declares differ on a channel axis.
    """
    for axis in port.axes.channels:
        given, wanted = shape[axis], port.declared[axis]
        if wanted is not None and given != wanted:
            raise ShapeError(
                f"the data has {given} channels, but input '{port.name}' with the axes {port.axes} takes {wanted}; a "
                "photo has 3 (RGB, BGR) or 1 (GRAY): check the channel order and the layout"
            )


def _require_finite(data: Array, name: str) -> None:
    if not np.isfinite(data).all():
        where = np.argwhere(~np.isfinite(data))[0]
        raise NonFiniteError(
            f"{name}: NaN or infinity at index {where.tolist()}; check the file and the preprocessing"
        )


def stacked(items: list[Item], size: int, port: Port) -> Array:
    """A full batch; a short one is filled up with its last item, so that no other shape is compiled.

    Raises:
        NonFiniteError: if the model's precision cannot hold the values.
        InputError: if the model takes integers, and the values are none.
    """
    rows = [item.data[port.name] for item in items]
    if port.dtype.kind in "iu":
        rows = [_whole(row, port.dtype, item.name) for row, item in zip(rows, items, strict=True)]
    with np.errstate(over="ignore"):
        data = np.stack(rows + [rows[-1]] * (size - len(rows))).astype(port.dtype)
    if port.dtype.kind == "f" and not np.isfinite(data).all():
        raise NonFiniteError(
            f"{items[0].name}: its values are too large for the {port.dtype} that the model takes; "
            "check the preprocessing"
        )
    return data if port.has_batch else data[0]


def _whole(data: Array, dtype: np.dtype[Any], name: str) -> Array:
    """Rounded, as quantising does, where little is lost by that."""
    limits, whole = np.iinfo(dtype), data if data.dtype.kind in "iub" else np.rint(data)
    held = limits.min <= whole.min(initial=0) and whole.max(initial=0) <= limits.max
    if not held or (whole is not data and np.std(data - whole) > _LOST * np.std(data) + _FLAT):
        raise InputError(
            f"{name}: the model takes {dtype}, but its values go from {data.min():.4g} to {data.max():.4g} and are no "
            "such numbers; pixels are from 0 to 255 without scale, mean and std (--scale 1 --mean 0 --std 1)"
        )
    return whole


def usual_preprocess(port: Port) -> Preprocess:
    """What most models of this input are trained with, bytes as they are: a guess, for a model that nobody knows."""
    if len(port.axes.positions) != 2:
        return Preprocess()  # no picture: a photo is refused where it is given
    shape = port.shape()
    sizes = [shape[axis] for axis in port.axes.positions]
    usual = torchvision_default(sizes[0], sizes[-1])
    if port.dtype.kind in "iu":
        usual = replace(usual, scale=1.0, mean=(0.0,), std=(1.0,))
    grey = [shape[axis] for axis in port.axes.channels] == [1]
    return replace(usual, mean=(0.0,), std=(1.0,), channel_order="GRAY") if grey else usual
