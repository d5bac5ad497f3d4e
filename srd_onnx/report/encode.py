"""Pictures and maps as data URIs: a map is a PNG in its colours, whose indices are its values for whoever reads them.

An index i of 0..254 stands for the value sign(i − 127) · ((i − 127) / 127)² · top, where top is the largest |R| of the
map: small values keep their digits beside large ones. The palette has the colours of `pictures.render`.
"""

import base64
import struct
import zlib
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from srd_onnx.errors import NonFiniteError
from srd_onnx.graph.ir import Array
from srd_onnx.pictures.render import clip_value, colours, overlay

ZERO, LEVELS = 127, 255
JPEG_QUALITY = 86
PHOTO_SIDE = 448


@dataclass(frozen=True)
class Drawn:
    """A map as a picture.

    Attributes:
        png: with a palette.
        top: the largest |value|; 1 where all are zero.
        clip: where the colours end.
        own: where they would end on a scale of its own.
        width, height: of the picture.
        step: so many positions of the map along each axis are one pixel, their mean; 1 where it is drawn as it is.
    """

    png: bytes
    top: float
    clip: float
    own: float
    width: int
    height: int
    step: float = 1.0

    @cached_property
    def uri(self) -> str:
        """The picture as a data URI."""
        return as_uri("png", self.png)


def drawn(relevance: Array, side: int, clip: float | None = None) -> Drawn:
    """A map [H, W] as a picture no larger than ``side``, its colours ending at ``clip`` (its own `clip_value` if None).

    Raises: NonFiniteError for a map with NaN or infinity.
    """
    values = _finite(relevance)
    small = shrunk(values, side)
    top = float(np.abs(small).max()) or 1.0
    own = clip_value(values)
    end = clip or own
    height, width = small.shape
    picture = indexed_png(indices(small, top), palette(top, end))
    return Drawn(picture, top, end, own, width, height, max(values.shape) / max(small.shape))


@dataclass(frozen=True)
class Sprite:
    """Several maps of one size in one picture, one below the other.

    Attributes:
        uri: PNG with a palette, as a data URI.
        tops: of each map, see `Drawn`.
        width, height: of one map.
    """

    uri: str
    tops: tuple[float, ...]
    width: int
    height: int


def sprite(fields: Array, side: int) -> Sprite:
    """Maps [P, H, W] with P > 0, each on its own scale and no larger than ``side``, as one picture.

    Raises: NonFiniteError for maps with NaN or infinity.
    """
    small = [shrunk(field, side) for field in _finite(fields)]
    tops = [float(np.abs(field).max()) or 1.0 for field in small]
    stacked = np.concatenate([indices(field, top) for field, top in zip(small, tops, strict=True)])
    height, width = small[0].shape
    # Rounded, that the text stays short: four digits are more than an index has.
    short = tuple(float(f"{top:.4g}") for top in tops)
    return Sprite(as_uri("png", indexed_png(stacked, palette(1.0, 1.0))), short, width, height)


def photo_jpeg(photo: NDArray[np.uint8], side: int = PHOTO_SIDE) -> bytes:
    """A photo [H, W, 3], RGB, as JPEG no larger than ``side``."""
    small = np.asarray(_resized(photo, side), np.uint8)
    bgr = np.ascontiguousarray(small[:, :, ::-1])
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done  # any uint8 [H, W, 3] can be written
    return data.tobytes()


def overlay_jpeg(photo: NDArray[np.uint8] | None, relevance: Array, side: int = PHOTO_SIDE) -> bytes | None:
    """The smoothed overlay of `pictures.render` as JPEG; None where there is no photo of the map's size."""
    if photo is None or photo.shape[:2] != relevance.shape:
        return None
    return photo_jpeg(overlay(photo, np.asarray(relevance, np.float32)), side)


def as_uri(kind: str, data: bytes) -> str:
    """A data URI of a picture; kind is png or jpeg."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def indices(values: Array, top: float) -> NDArray[np.uint8]:
    """The index of each value, see the module."""
    size = np.sqrt(np.minimum(np.abs(values) / top, 1))
    return np.asarray(ZERO + np.rint(ZERO * np.copysign(size, values)), np.uint8)


def palette(top: float, clip: float) -> NDArray[np.uint8]:
    """The colour of each index, uint8 [255, 3]."""
    part = (np.arange(LEVELS) - ZERO) / ZERO
    shade = np.clip(np.sign(part) * part**2 * (top / clip), -1, 1)
    return np.asarray(np.rint(colours()[np.rint(127.5 + 127.5 * shade).astype(int)]), np.uint8)


def indexed_png(index: NDArray[np.uint8], colour: NDArray[np.uint8]) -> bytes:
    """A PNG of indices [H, W] into a palette [≤ 256, 3]; its rows are not filtered, so that a page can read them."""
    height, width = index.shape
    rows = np.zeros((height, width + 1), np.uint8)
    rows[:, 1:] = index
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", colour.tobytes()), (b"IDAT", zlib.compress(rows.tobytes(), 6)))
    written = [b"\x89PNG\r\n\x1a\n"]
    for name, data in (*chunks, (b"IEND", b"")):
        written.append(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )
    return b"".join(written)


def shrunk(values: Array, side: int) -> NDArray[np.float32]:
    """A map no larger than ``side`` along either axis, by means over areas; itself if it is none."""
    return np.asarray(_resized(np.asarray(values, np.float32), side), np.float32)


def _resized(picture: Array, side: int) -> Array:
    height, width = picture.shape[:2]
    if max(height, width) <= side:
        return picture
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def _finite(values: Array) -> Array:
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise NonFiniteError(
            f"the relevance map holds {bad} values that are NaN or infinite; it cannot be drawn"
        )
    return values
