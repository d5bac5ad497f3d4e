"""What the drawn pictures of `vit_data` and `pasted` are made of: outlines, stripes and colours, many at once."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def uniform(rng: np.random.Generator, low: float, high: float, shape: tuple[int, ...]) -> Array:
    """Random numbers as float32."""
    return rng.uniform(low, high, size=shape).astype(np.float32)


def pixels(side: int) -> tuple[Array, Array]:
    """Row and column of each pixel, float32 [side, side] each."""
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    return rows, columns


def local(x: Array, y: Array, radius: Array, angle: Array, side: int) -> tuple[Array, Array]:
    """Coordinates u (right) and v (down) of each pixel in which a shape fills about -1 to 1, [N, side, side].

    Shapes: centre x and y, radius (pixels) and angle (radians), each [N, 1, 1].
    """
    rows, columns = pixels(side)
    u, v = (columns - x) / radius, (rows - y) / radius
    return np.cos(angle) * u + np.sin(angle) * v, np.cos(angle) * v - np.sin(angle) * u


def _plus(u: Array, v: Array) -> Array:
    return np.asarray((np.maximum(abs(u), abs(v)) < 1) & (np.minimum(abs(u), abs(v)) < 0.32))


# Of each shape, which points lie inside it.
OUTLINES: dict[str, Callable[[Array, Array], Array]] = {
    "disc": lambda u, v: np.hypot(u, v) < 0.95,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) < 0.85,
    "triangle": lambda u, v: (v < 0.75) & (abs(u) < (v + 1) * 0.55),
    "plus": _plus,
    "ring": lambda u, v: (np.hypot(u, v) < 1) & (np.hypot(u, v) > 0.55),
    "hourglass": lambda u, v: (abs(v) < 0.9) & (abs(u) < 0.1 + abs(v)),
    "flower": lambda u, v: np.hypot(u, v) < 0.68 + 0.3 * np.cos(5 * np.arctan2(v, u)),
    "crescent": lambda u, v: (np.hypot(u, v) < 0.97) & (np.hypot(u - 0.5, v) > 0.75),
    "bar": lambda u, v: (abs(u) < 1) & (abs(v) < 0.25),
    "half disc": lambda u, v: (np.hypot(u, v) < 0.8) & (v > 0),
    "angle": lambda u, v: (np.maximum(abs(u), abs(v)) < 0.8) & ((u < -0.3) | (v > 0.3)),
}


def other_colour(colour: Array, rng: np.random.Generator) -> Array:
    """A random colour that differs from the given one (-1 to 1) by 0.7 to 1.3 in every channel."""
    way = np.where(np.abs(colour) < 0.3, rng.choice([-1, 1], size=colour.shape), -np.sign(colour))
    return np.asarray(colour + way * uniform(rng, 0.7, 1.3, colour.shape), np.float32)


def stripes(count: int, side: int, length: tuple[float, float], rng: np.random.Generator) -> Array:
    """Waves of random direction, phase and length (between the given ones, in pixels): [N, side, side], -1 to 1."""
    rows, columns = pixels(side)
    angle, phase = uniform(rng, 0, 2 * np.pi, (2, count, 1, 1))
    period = uniform(rng, *length, (count, 1, 1))
    return np.asarray(np.sin(2 * np.pi * (np.cos(angle) * columns + np.sin(angle) * rows) / period + phase))
