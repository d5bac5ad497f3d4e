"""Pictures of relevance: the overlay on a photo, and the panel of photo, overlay and signed map."""

import io
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from srd_onnx.errors import InputError, NonFiniteError
from srd_onnx.pictures.drawing import EDGE, INK, MUTED, figure_of, frame, write

CLIP_PERCENTILE = 99.5
# Blue (against the class) over white to red (for it).
_ANCHORS = (
    (5, 48, 97),
    (33, 102, 172),
    (120, 180, 220),
    (247, 247, 247),
    (244, 150, 115),
    (205, 38, 44),
    (103, 0, 31),
)


def overlay(photo: NDArray[np.uint8], relevance: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the photo in dim grey with the relevance over it: red speaks for the class, blue against it.

    The map is smoothed (`smoothing`) because it is as fine as the pixels; the opacity grows with abs(R) up to
    the CLIP_PERCENTILE of it.

    Args:
        photo: uint8 [H, W, 3], RGB.
        relevance: float [H, W], in the units of the seed.

    Returns: uint8 [H, W, 3], RGB.

    Raises: InputError if the shapes differ, NonFiniteError if the map holds NaN or infinity.
    """
    _check(photo, relevance)
    values = smooth(relevance)
    strength = np.clip(values / clip_value(values), -1, 1)
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32)[:, :, None] * 0.62 + 60
    opacity = np.minimum(1, np.abs(strength) * 1.1)[:, :, None] * 0.88
    # The colour starts saturated: opacity, not whiteness, says how small a value is.
    colour = colours()[
        np.rint(127.5 + 127.5 * np.sign(strength) * (0.45 + 0.35 * np.abs(strength))).astype(int)
    ]
    return np.asarray(np.rint(grey * (1 - opacity) + colour * opacity), np.uint8)


def panel(
    photo: NDArray[np.uint8] | None, relevance: NDArray[np.float32], title: str, subtitle: str = ""
) -> bytes:
    """Return a PNG with the photo, the overlay and the signed map side by side, a colour bar and a title.

    The map on the right is raw; the overlay is smoothed, and says so. Each is scaled by its own clip value,
    which stands above it: one colour bar serves both. Without a photo the map stands alone. Long texts are
    shortened with an ellipsis.

    Raises: as `overlay` does.
    """
    _check(photo, relevance)
    pictures = _pictures(photo, relevance)
    slot, width, height = _layout(relevance.shape, len(pictures))
    buffer = io.BytesIO()
    with figure_of(width, height, buffer) as figure:
        _draw_pictures(figure, pictures, slot, relevance.shape)
        left = _MARGIN / width
        room = width - 2 * _MARGIN
        write(figure, title, (left, 1 - 0.22 / height), room, size=15, color=INK, weight="bold", va="top")
        write(figure, subtitle, (left, 1 - 0.54 / height), room, size=10.5, color=MUTED, va="top")
    return buffer.getvalue()


def smoothing(shape: tuple[int, ...]) -> float:
    """Return the standard deviation, in pixels, of the Gaussian that `overlay` lays over a map [H, W]."""
    return max(shape) / 100


def smooth(relevance: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return the map [H, W] after the Gaussian of `smoothing`; mirrored at the border."""
    sigma = smoothing(relevance.shape)
    blurred = cv2.GaussianBlur(relevance.astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred, np.float32)


def clip_value(values: NDArray[np.floating[Any]]) -> float:
    """Return where the colours end: the CLIP_PERCENTILE of abs(R), its maximum if that is 0, else 1."""
    magnitude = np.abs(values)
    return float(np.percentile(magnitude, CLIP_PERCENTILE)) or float(magnitude.max()) or 1.0


def colours() -> NDArray[np.float32]:
    """Return the diverging map as float32 [256, 3] in 0..255; entry 0 is −1, entry 255 is +1."""
    position = np.linspace(0, len(_ANCHORS) - 1, 256)
    channels = [np.interp(position, range(len(_ANCHORS)), channel) for channel in zip(*_ANCHORS, strict=True)]
    return np.stack(channels, axis=1).astype(np.float32)


def colour_map() -> Any:
    """Return `colours` for matplotlib."""
    from matplotlib.colors import ListedColormap

    return ListedColormap(colours() / 255)


def _check(photo: NDArray[np.uint8] | None, relevance: NDArray[np.floating[Any]]) -> None:
    if relevance.ndim != 2 or relevance.size == 0:
        raise InputError(f"a relevance map must be [H, W] and not empty; got {list(relevance.shape)}")
    if photo is not None and (photo.dtype != np.uint8 or photo.shape != (*relevance.shape, 3)):
        raise InputError(
            f"photo and relevance must be uint8 [H, W, 3] and [H, W] of the same size; got {photo.dtype} "
            f"{list(photo.shape)} and {list(relevance.shape)}"
        )
    bad = int(np.count_nonzero(~np.isfinite(relevance)))
    if bad:
        raise NonFiniteError(
            f"the relevance map holds {bad} values that are NaN or infinite; it cannot be drawn"
        )


_MARGIN, _GAP, _HEAD, _FOOT, _BAR = 0.35, 0.3, 1.32, 0.3, 1.15  # inches
_SLOT, _LEAST = 3.9, 0.9


def _layout(shape: tuple[int, ...], count: int) -> tuple[tuple[float, float], float, float]:
    """Return the size in inches of a picture's slot, and of the figure with ``count`` of them."""
    tall = min(_SLOT * 1.3, max(_LEAST, _SLOT * shape[0] / shape[1]))
    width = 2 * _MARGIN + count * _SLOT + (count - 1) * _GAP + _BAR
    return (_SLOT, tall), width, _HEAD + max(tall, 1.8) + _FOOT


def _pictures(
    photo: NDArray[np.uint8] | None, relevance: NDArray[np.float32]
) -> list[tuple[NDArray[Any], str, str]]:
    """Return (image, name, remark) from left to right; the last one is the map in −1..1."""
    unit = clip_value(relevance)
    signed = (np.clip(relevance / unit, -1, 1), "Signed relevance, raw", f"±1 = {unit:.3g} per pixel")
    if photo is None:
        return [signed]
    remark = f"Gaussian σ = {smoothing(relevance.shape):.1f} px, ±1 = {clip_value(smooth(relevance)):.3g}"
    return [
        (photo, "Photo", f"what the model sees, {photo.shape[1]} × {photo.shape[0]}"),
        (overlay(photo, relevance), "Overlay, smoothed", remark),
        signed,
    ]


def _draw_pictures(
    figure: Any,
    pictures: list[tuple[NDArray[Any], str, str]],
    slot: tuple[float, float],
    shape: tuple[int, ...],
) -> None:
    width, height = figure.get_size_inches()
    body = height - _HEAD - _FOOT
    # A map as thin as a line is stretched to be seen at all.
    aspect = "equal" if slot[1] > _LEAST and slot[1] < _SLOT * 1.3 else "auto"
    wide = (
        slot[0] if aspect == "equal" or shape[0] <= shape[1] else max(_LEAST, slot[1] * shape[1] / shape[0])
    )
    bottom = (_FOOT + (body - slot[1]) / 2) / height
    for index, (image, name, remark) in enumerate(pictures):
        left = _MARGIN + index * (_SLOT + _GAP)
        axes = figure.add_axes((left / width, bottom, wide / width, slot[1] / height))
        drawn = axes.imshow(image, cmap=colour_map(), vmin=-1, vmax=1, aspect=aspect, interpolation="nearest")
        frame(axes)
        top = _FOOT + (body + slot[1]) / 2
        write(figure, name, (left / width, (top + 0.27) / height), _SLOT, size=10.5, color=INK, weight="bold")
        write(figure, remark, (left / width, (top + 0.09) / height), _SLOT, size=9, color=MUTED)
    left = (_MARGIN + len(pictures) * (_SLOT + _GAP) - _GAP + 0.22) / width
    bar = figure.colorbar(drawn, cax=figure.add_axes((left, _FOOT / height, 0.16 / width, body / height)))
    bar.set_ticks([-1, -0.5, 0, 0.5, 1], labels=["−1  against", "−0.5", "0", "0.5", "+1  for"])
    bar.ax.tick_params(labelsize=9, colors=MUTED, length=3)
    bar.outline.set_edgecolor(EDGE)
