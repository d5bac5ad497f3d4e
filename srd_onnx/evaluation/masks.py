"""Masks of objects, read from files and laid on the model's input: plain binary ones, and those of ImageNet-S.

ImageNet-S (Gao et al. 2022, arXiv 2106.03149) stores the id of each pixel's class in the colours of a PNG, as
R + 256·G: 0 is no object, 1000 is to be ignored.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srd_onnx.errors import ImageError, InputError, OptionError
from srd_onnx.inputs.image_file import read_pixels
from srd_onnx.inputs.preprocess import Preprocess

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
IGNORE = 1000
_BINARY_CLASS = 1  # what the object of a binary mask is stored as
_EDGE, _PLAIN = 1 / 8, 0.9  # black and white: this part of the pixels is so near to either


class MaskError(InputError):
    """There is no mask for this image, or it cannot be used."""


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask on the model's input.

    Attributes:
        object: bool [h, w].
        ignored: bool [h, w], what belongs neither to the object nor to what is around it.
    """

    object: NDArray[np.bool_]
    ignored: NDArray[np.bool_]


@dataclass(frozen=True)
class Masks:
    """A folder of masks.

    Attributes:
        files: by the name of the image without its ending.
        ids: the id in ImageNet-S masks of each class of the model; empty where that is not known.
    """

    folder: Path
    files: Mapping[str, tuple[Path, ...]]
    ids: Mapping[int, int]

    def of(self, image: Path, size: tuple[int, int], preprocess: Preprocess, target: int) -> Mask:
        """The mask of the object of a class.

        Args:
            image: its name, without ending and folder, is that of the mask.
            size: height and width of the photo as it is stored.
            preprocess: how it becomes the model's input.
            target: the class, which decides where a mask has the ids of several.

        Raises:
            MaskError: there is none, or several; it cannot be read, has another size than the photo, does not say
                where the object is, or has nothing of it in the crop.
        """
        found = self.files.get(image.stem, ())
        if not found:
            raise MaskError(
                f"{image.name}: there is no mask {image.stem}.png (or of another ending) in {self.folder}"
            )
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise MaskError(f"{image.name}: there are several masks in {self.folder}: {names}. Keep one.")
        return self._placed(found[0], size, preprocess, target)

    def _placed(self, path: Path, size: tuple[int, int], preprocess: Preprocess, target: int) -> Mask:
        try:
            pixels = read_pixels(path)
        except ImageError as error:
            raise MaskError(f"mask {error}") from error
        if pixels.shape[:2] != size:
            raise MaskError(
                f"mask {path}: {pixels.shape[1]} x {pixels.shape[0]} pixels, but the photo has {size[1]} x {size[0]}"
            )
        classes = _classes(path, pixels)
        wanted = self._wanted(path, classes, target)
        seen = preprocess.place(classes)
        if not (seen == wanted).any():
            raise MaskError(f"mask {path}: nothing of the object is left in the crop that the model sees")
        return Mask(seen == wanted, seen == IGNORE)

    def _wanted(self, path: Path, classes: NDArray[np.int64], target: int) -> int:
        there = [int(one) for one in np.unique(classes) if one not in (0, IGNORE)]
        if not there:
            raise MaskError(f"mask {path}: it is empty")
        if there == [_BINARY_CLASS] or not self.ids:
            if len(there) == 1:
                return there[0]
            raise MaskError(
                f"mask {path}: it has the classes {', '.join(map(str, there))}, and nothing says which of them is "
                "explained; give --mask-classes FILE, whose line n names the class of id n"
            )
        wanted = self.ids.get(target)
        if wanted not in there:
            said = "has no id" if wanted is None else f"has the id {wanted}"
            raise MaskError(
                f"mask {path}: it has the ids {', '.join(map(str, there))}, but the explained class {target} {said}"
            )
        return wanted


def read_masks(folder: str | Path, ids: Mapping[int, int] | None = None) -> Masks:
    """Find the masks of a folder; each is read when it is needed.

    Args:
        folder: of files that have the names of their images, whatever the ending.
        ids: the id in ImageNet-S masks of each class of the model; without it a mask must have one id only.

    Raises:
        OptionError: there is no such folder, or no mask in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise OptionError(f"masks: {folder} is not a folder")
    try:
        paths = sorted(
            path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()
        )
    except OSError as error:
        raise OptionError(f"masks: {folder} cannot be read: {error.strerror or error}") from error
    if not paths:
        raise OptionError(f"masks: there are none in {folder} ({', '.join(s[1:] for s in SUFFIXES)})")
    files: dict[str, tuple[Path, ...]] = {}
    for path in paths:
        files[path.stem] = (*files.get(path.stem, ()), path)
    return Masks(folder, files, dict(ids or {}))


def read_ids(path: str | Path, labels: Iterable[str] | None) -> dict[int, int]:
    """The ids of the model's classes, from a file whose line n (from 1) names the class of id n, by label or index.

    Raises:
        OptionError: the file cannot be read, or names what is no class, or one class twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"mask classes: {path} cannot be read as text: {error}") from error
    known: dict[str, list[int]] = {}
    for index, label in enumerate(labels or ()):
        known.setdefault(label, []).append(index)
    found: dict[int, int] = {}
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name:
            raise OptionError(f"{path}, line {number}: it is empty, but line n names the class of id n")
        classes = [int(name)] if name.isdecimal() else known.get(name, [])
        if len(classes) != 1:
            problem = "names several classes of the model" if classes else "is no class of the model"
            raise OptionError(f"{path}, line {number}: '{name}' {problem}; write its index")
        if classes[0] in found:
            raise OptionError(
                f"{path}, line {number}: class {classes[0]} has the id {found[classes[0]]} already"
            )
        found[classes[0]] = number
    return found


def _classes(path: Path, pixels: NDArray[Any]) -> NDArray[np.int64]:
    """Ids [H, W]: of a grey picture 1 where the object is, of a colourful one R + 256·G."""
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        if (pixels[:, :, 3] != np.iinfo(pixels.dtype).max).any():
            raise MaskError(f"mask {path}: it is partly transparent; save it without an alpha channel")
        pixels = pixels[:, :, :3]
    if pixels.ndim == 2 or pixels.shape[2] == 1 or (pixels == pixels[:, :, :1]).all():
        return _binary(path, pixels if pixels.ndim == 2 else pixels[:, :, 0])
    blue, green, red = (pixels[:, :, channel].astype(np.int64) for channel in range(3))
    if pixels.dtype != np.uint8 or blue.any():
        raise MaskError(
            f"mask {path}: a coloured picture must hold ids as R + 256·G with B = 0 (ImageNet-S), 8 bits per channel; "
            "save a plain mask in black and white"
        )
    return red + 256 * green


def _binary(path: Path, grey: NDArray[Any]) -> NDArray[np.int64]:
    """1 where the picture is not black, if it has one other level; in the lighter half, if it has smooth edges."""
    levels = np.unique(grey)
    if len(levels) == 1 or (len(levels) == 2 and levels[0] == 0):
        return np.where(grey > 0, _BINARY_CLASS, 0)
    part = grey / np.iinfo(grey.dtype).max
    if part.max() < 1 - _EDGE or np.mean((part < _EDGE) | (part > 1 - _EDGE)) < _PLAIN:
        some = ", ".join(map(str, levels[:5])) + (", ..." if len(levels) > 5 else "")
        raise MaskError(
            f"mask {path}: the grey levels {some} are neither black and white nor ids as R + 256·G; save the object in "
            "white on black"
        )
    return np.where(part > 0.5, _BINARY_CLASS, 0)
