"""Image files of every usual kind, as uint8 RGB, or one error that says what is wrong with them."""

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from srd_onnx.errors import ImageError

MAX_PIXELS = 100_000_000
MAX_BYTES = 1 << 30

_PNG = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112
# EXIF orientation → (number of quarter turns anticlockwise, mirrored left to right before turning)
_TURNS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (1, True), 6: (3, False), 7: (3, True), 8: (1, False)}


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Return the picture in the file as uint8 [H, W, 3], RGB, the right way up.

    EXIF orientation is applied, 16 bits are rounded to 8, grey is repeated over the channels, transparency is
    laid over white, and of an animation the first frame is taken. Colour profiles are not applied.

    Raises: ImageError if the file is missing, is not a complete image, or has more than MAX_PIXELS pixels.
    """
    return np.ascontiguousarray(_to_rgb(Path(path), read_pixels(path)))


def read_pixels(path: str | Path) -> NDArray[Any]:
    """Return what the file stores, the right way up: [H, W] grey, or [H, W, C] as BGR or BGRA; 8 or 16 bits.

    Raises: ImageError as `read_image`.
    """
    path = Path(path)
    data = _read_bytes(path)
    _check_size(path, _declared_size(data))
    if data.startswith(_PNG) and not _png_is_complete(data):
        raise ImageError(f"{path}: the PNG is cut off after {len(data)} bytes. Copy or download it again.")
    pixels, exif = _decode(path, data)
    _check_size(path, (pixels.shape[0], pixels.shape[1]))
    turns, mirrored = _TURNS.get(_orientation(exif), (0, False))
    return np.rot90(pixels[:, ::-1] if mirrored else pixels, turns)


def _read_bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ImageError(
                f"{path} is a folder, not an image. Name the files in it, for example {path / '*.jpg'}"
            )
        if not path.exists():
            raise ImageError(f"{path}: there is no such file. Check the spelling and the folder.")
        if not path.is_file():
            raise ImageError(f"{path} is not a regular file. Save the picture as a file first.")
        if path.stat().st_size > MAX_BYTES:
            raise ImageError(
                f"{path}: {path.stat().st_size} bytes are more than the limit of {MAX_BYTES} for an image."
            )
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"{path}: cannot be read: {reason}. Check its name and permissions.") from error
    if not data:
        raise ImageError(f"{path} is empty (0 bytes). Copy or download it again.")
    return data


def _check_size(path: Path, size: tuple[int, int] | None) -> None:
    """Refuse a picture too large to be meant; asked of the header first, so that no memory is spent on it."""
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise ImageError(
            f"{path}: {size[1]} x {size[0]} pixels are more than the limit of {MAX_PIXELS}. "
            "Shrink the picture first."
        )


def _decode(path: Path, data: bytes) -> tuple[NDArray[Any], bytes]:
    """Return the stored pixels, BGR or BGRA or grey, and the EXIF block (empty if there is none)."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        buffer = np.frombuffer(data, np.uint8)
        pixels, kinds, blocks = cv2.imdecodeWithMetadata(buffer, flags=cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImageError(f"{path}: OpenCV cannot decode it: {error.err}. Save it as PNG or JPEG.") from error
    finally:
        cv2.utils.logging.setLogLevel(level)
    if pixels is None or pixels.size == 0:
        raise ImageError(
            f"{path}: not an image that OpenCV reads, or cut off or damaged ({len(data)} bytes, "
            f"beginning with {data[:8]!r}). Open it in an image viewer and save it as PNG or JPEG."
        )
    found = dict(zip(np.ravel(np.asarray(kinds, int)).tolist(), blocks, strict=True))
    exif = found.get(cv2.IMAGE_METADATA_EXIF)
    return pixels, b"" if exif is None else np.asarray(exif, np.uint8).tobytes()


def _to_rgb(path: Path, pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint16:
        full = 65535
    elif pixels.dtype == np.uint8:
        full = 255
    else:
        raise ImageError(
            f"{path}: pixels of type {pixels.dtype} have no agreed range. Save it with 8 or 16 bits."
        )
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] not in (1, 3, 4):
        raise ImageError(f"{path}: {pixels.shape[2]} channels; a photo has 1, 3 or 4. Save it as RGB.")
    colour = pixels[:, :, 2::-1] if pixels.shape[2] >= 3 else np.repeat(pixels, 3, axis=2)
    if full == 255 and pixels.shape[2] < 4:
        return np.asarray(colour, np.uint8)
    value = colour.astype(np.float32) * np.float32(255 / full)
    if pixels.shape[2] == 4:
        alpha = pixels[:, :, 3:].astype(np.float32) / np.float32(full)
        value = value * alpha + np.float32(255) * (1 - alpha)
    return np.asarray(np.clip(np.rint(value), 0, 255), np.uint8)


def _declared_size(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) as the header of a PNG, GIF or JPEG states them, else None."""
    if data.startswith(_PNG) and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return height, width
    if data.startswith((b"GIF87a", b"GIF89a")) and len(data) >= 10:
        width, height = struct.unpack("<HH", data[6:10])
        return height, width
    return _jpeg_size(data) if data.startswith(b"\xff\xd8") else None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (
            0xC4,
            0xC8,
            0xCC,
        ):  # the three that are not frame headers
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return height, width
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _png_is_complete(data: bytes) -> bool:
    at = len(_PNG)
    while at + 12 <= len(data):
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False


def _orientation(exif: bytes) -> int:
    """Return the orientation that an EXIF block states, 1 (upright) if it states none or is damaged."""
    exif = exif.removeprefix(b"Exif\x00\x00")
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(exif[:4])
    if order is None or len(exif) < 10:
        return 1
    (start,) = struct.unpack(order + "I", exif[4:8])
    count = struct.unpack(order + "H", exif[start : start + 2])[0] if start + 2 <= len(exif) else 0
    for entry in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, _, _, value = struct.unpack(order + "HHIH", exif[entry : entry + 10])
        if tag == _ORIENTATION:
            return int(value)
    return 1
