"""From a photo to the numbers a model wants: resize, centre crop, scale, mean, standard deviation."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from srd_onnx.errors import InputError, OptionError
from srd_onnx.inputs.image_file import MAX_PIXELS
from srd_onnx.inputs.image_file import read_image as read_image

ChannelOrder = Literal["RGB", "BGR", "GRAY"]


@dataclass(frozen=True)
class Preprocess:
    """``x = (pixel · scale − mean) / std`` after resize and centre crop; pixel is 0..255.

    ``resize``: an int makes the short side that long and keeps the aspect ratio; (H, W) is exact; None leaves
    the size. ``crop``: (H, W) around the centre; None: no crop. ``mean`` and ``std`` have one value, or one
    per channel in the order of ``channel_order``, which is the order that the model is given; "GRAY" is one
    channel, luminance.

    Raises: OptionError if a value means nothing.
    """

    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channel_order: ChannelOrder = "RGB"

    def __post_init__(self) -> None:
        _require_size("resize", self.resize, "a whole number of pixels or (height, width)", single=True)
        _require_size("crop", self.crop, "(height, width) in whole pixels", single=False)
        if self.channel_order not in ("RGB", "BGR", "GRAY"):
            raise OptionError(f"channel_order must be RGB, BGR or GRAY, not {self.channel_order!r}")
        if not _is_number(self.scale) or self.scale == 0:
            raise OptionError(f"scale must be a finite number other than 0, not {self.scale!r}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not isinstance(values, tuple) or not all(map(_is_number, values)):
                raise OptionError(f"{name} must be a tuple of finite numbers, not {values!r}")
            if len(values) not in {1, self.channels}:
                wanted = "1 value" if self.channels == 1 else f"1 or {self.channels} values"
                raise OptionError(
                    f"{name} must have {wanted} for {self.channel_order}, not {len(values)}: {values!r}"
                )
        if 0 in self.std:
            raise OptionError(f"std divides, so it must not contain 0: {self.std!r}")

    @property
    def channels(self) -> int:
        """The number of channels that the model is given: 3, or 1 for "GRAY"."""
        return 1 if self.channel_order == "GRAY" else 3

    def view(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return what the model sees of ``image``, as RGB, for drawing a map over it.

        Args:
            image: uint8 [H, W, 3], RGB.

        Returns: uint8 [h, w, 3]; three equal channels for a grey model.

        Raises: InputError if it is no such array, or is smaller than the crop.
        """
        if (
            not isinstance(image, np.ndarray)
            or image.dtype != np.uint8
            or image.ndim != 3
            or image.shape[2] != 3
        ):
            got = (
                f"{image.dtype} {list(image.shape)}"
                if isinstance(image, np.ndarray)
                else type(image).__name__
            )
            raise InputError(f"an image must be a uint8 array [H, W, 3] in RGB order; got {got}")
        if 0 in image.shape:
            raise InputError(f"the image has no pixels: its shape is {list(image.shape)}")
        seen = _centre_crop(_resize(image, self.resize), self.crop)
        if self.channel_order == "GRAY":
            seen = np.repeat(
                np.asarray(cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY), np.uint8)[:, :, None], 3, axis=2
            )
        return np.ascontiguousarray(seen)

    def place(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Return what lies where `view` sees it: a mask or class ids of an image, [H, W] to [h, w].

        Each pixel takes the value of the nearest one, so that no value arises that was not there.

        Raises: InputError if it is smaller than the crop.
        """
        height, width = _resized(plane.shape[:2], self.resize)
        # The centre of each pixel, as cv2.resize places it.
        rows = ((np.arange(height) + 0.5) * plane.shape[0] / height).astype(int)
        columns = ((np.arange(width) + 0.5) * plane.shape[1] / width).astype(int)
        return np.ascontiguousarray(_centre_crop(plane[np.ix_(rows, columns)], self.crop))

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the model's input for one image, channels last and without the batch axis.

        Args:
            image: uint8 [H, W, 3], RGB.

        Returns: float32 [h, w, C]; C is 3, or 1 for a grey model.

        Raises: InputError as `view` does.
        """
        seen = self.view(image)
        if self.channel_order == "BGR":
            seen = seen[:, :, ::-1]
        values = (seen[:, :, : self.channels] * float(self.scale) - np.array(self.mean)) / np.array(self.std)
        with np.errstate(over="ignore"):  # infinity is found, and said in words, where the data is used
            return np.ascontiguousarray(values, np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON and TOML can hold them (lists; what is None is left out)."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values if v is not None}


def preprocess_from_dict(table: Mapping[str, Any], where: str = "preprocess") -> Preprocess:
    """Build a `Preprocess` from what `to_dict` gives, or a user wrote; a single number stands for one value.

    Raises: OptionError beginning with ``where`` for an unknown key or a value that means nothing.
    """
    known = [field.name for field in fields(Preprocess)]
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise OptionError(f"{where}: unknown key {', '.join(map(repr, unknown))}; known: {', '.join(known)}")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in table.items()
    }
    for name in ("mean", "std"):
        if name in values and not isinstance(values[name], tuple):
            values[name] = (values[name],)
    if _is_count(values.get("crop")):
        values["crop"] = (values["crop"], values["crop"])
    try:
        return Preprocess(**values)
    except OptionError as error:
        raise OptionError(f"{where}: {error}") from None


def preprocess_from_toml(path: str | Path) -> Preprocess:
    """Read a `Preprocess` from a TOML file with its fields as keys.

    Raises: OptionError if the file cannot be read or parsed, or holds an unknown key or a wrong value.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"{path}: cannot read the preprocessing: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise OptionError(f"{path}: not a TOML file: it is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise OptionError(f"{path}: not a TOML file: {error}") from error
    return preprocess_from_dict(table, str(path))


def torchvision_default(height: int, width: int) -> Preprocess:
    """Return what most ImageNet models are trained with, for a model input of ``height`` × ``width`` pixels.

    Short side 256/224 of the input's longer side (so that the crop always fits), centre crop, pixels in 0..1,
    ImageNet mean and standard deviation, RGB. It is a guess: whoever uses it records that it was assumed.
    """
    return Preprocess(
        resize=round(256 / 224 * max(height, width)),
        crop=(height, width),
        scale=1 / 255,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


def _resize(image: NDArray[np.uint8], resize: int | tuple[int, int] | None) -> NDArray[np.uint8]:
    if resize is None:
        return image
    height, width = image.shape[:2]
    new_height, new_width = _resized((height, width), resize)
    if new_height * new_width > MAX_PIXELS:
        raise InputError(
            f"resize {resize} makes {new_width} x {new_height} pixels of the image of {width} x {height}, "
            f"more than the limit of {MAX_PIXELS}: crop the image first, or resize to (height, width)"
        )
    # Area shrinks without aliasing, linear enlarges without blocks; where one axis shrinks and the other
    # grows, the shrinking one comes first, which also bounds the memory.
    for size in ((min(height, new_height), min(width, new_width)), (new_height, new_width)):
        if size != image.shape[:2]:
            shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
            way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            image = np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=way), np.uint8)
    return image


def _resized(size: tuple[int, ...], resize: int | tuple[int, int] | None) -> tuple[int, int]:
    """Height and width after the resize."""
    height, width = size
    if resize is None:
        return height, width
    if isinstance(resize, int):
        factor = resize / min(height, width)
        return max(1, round(height * factor)), max(1, round(width * factor))
    return resize


def _centre_crop(image: NDArray[Any], crop: tuple[int, int] | None) -> NDArray[Any]:
    if crop is None:
        return image
    (height, width), (crop_height, crop_width) = image.shape[:2], crop
    if crop_height > height or crop_width > width:
        raise InputError(
            f"the crop of {crop_width} x {crop_height} pixels is larger than the image, "
            f"{width} x {height} after the resize: resize to at least {max(crop)}"
        )
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return image[top : top + crop_height, left : left + crop_width]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _require_size(name: str, value: object, form: str, *, single: bool) -> None:
    fits = value is None or (single and _is_count(value))
    if not fits and isinstance(value, tuple):
        fits = len(value) == 2 and all(map(_is_count, value))
    if not fits:
        raise OptionError(f"{name} must be {form}, all positive; got {value!r}")
