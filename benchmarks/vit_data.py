"""Pictures with a known answer: one of six shapes on a textured ground, among things that are no class, with its mask.

Colours and textures are drawn from one distribution for object, ground and distractors, so that only the shape tells
the class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
SIZE = 48
CLASSES = ("disc", "square", "triangle", "plus", "ring", "hourglass")
DISTRACTORS = 3

# The networks that are trained on them, see `vit_net`: how they classify, and their tokens and depth.
Pool = Literal["class token", "mean"]
POOLS: tuple[Pool, ...] = get_args(Pool)
PATCH, BLOCKS = 8, 4

_CHUNK = 256  # pictures that are drawn at once
_ROWS, _COLUMNS = np.mgrid[:SIZE, :SIZE].astype(np.float32)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Shapes: images [N, 3, SIZE, SIZE] float32 in about -1 to 1; labels [N] int64; masks [N, SIZE, SIZE] bool."""

    images: Array
    labels: Array
    masks: Array


def draw(count: int, seed: Sequence[int], *, objects: int = 1) -> Pictures:
    """`count` independent pictures, the same for the same seed.

    With two objects they are of different classes, side by side; labels [N, 2], masks [N, 2, SIZE, SIZE].
    """
    parts = [
        _drawn(min(_CHUNK, count - start), np.random.default_rng([*seed, start]), objects)
        for start in range(0, count, _CHUNK)
    ]
    joined = [np.concatenate([part[i] for part in parts]) for i in range(3)]
    return Pictures(*(joined if objects > 1 else (joined[0], joined[1][:, 0], joined[2][:, 0])))


def _drawn(count: int, rng: np.random.Generator, objects: int) -> tuple[Array, Array, Array]:
    labels = rng.permuted(np.tile(np.arange(len(CLASSES)), (count, 1)), axis=1)[:, :objects]
    ground = _uniform(rng, -1, 1, (count, 3, 1, 1))
    images = _texture(ground, rng)
    for _ in range(DISTRACTORS):
        mask = _distractor(*_local(count, rng, (3.0, 6.0)), rng.integers(3, size=count))
        images = np.where(mask[:, None], _texture(_other(ground, rng), rng), images)
    masks = []
    for index in range(objects):
        own = (index * SIZE // objects, (index + 1) * SIZE // objects)
        radius = (9.0, 14.0 if objects == 1 else 11.0)
        masks.append(_shape(*_local(count, rng, radius, turn=0.2, columns=own), labels[:, index]))
        images = np.where(masks[-1][:, None], _texture(_other(ground, rng), rng), images)
    images += 0.05 * rng.standard_normal(images.shape, np.float32)
    return images, labels, np.stack(masks, axis=1)


def _uniform(rng: np.random.Generator, low: float, high: float, shape: tuple[int, ...]) -> Array:
    return rng.uniform(low, high, size=shape).astype(np.float32)


def _local(
    count: int,
    rng: np.random.Generator,
    radius: tuple[float, float],
    turn: float = np.pi,
    columns: tuple[int, int] = (0, SIZE),
) -> tuple[Array, Array]:
    """Coordinates u (right) and v (down) of each pixel, [N, SIZE, SIZE], in which a shape fills about -1 to 1."""
    one = (count, 1, 1)
    left, right = columns
    r = _uniform(rng, *radius, one)
    x = left + r + (right - left - 1 - 2 * r) * _uniform(rng, 0, 1, one)
    y = r + (SIZE - 1 - 2 * r) * _uniform(rng, 0, 1, one)
    angle = _uniform(rng, -turn, turn, one)
    u, v = (_COLUMNS - x) / r, (_ROWS - y) / r
    return np.cos(angle) * u + np.sin(angle) * v, np.cos(angle) * v - np.sin(angle) * u


def _shape(u: Array, v: Array, labels: Array) -> Array:
    far, near = np.maximum(abs(u), abs(v)), np.minimum(abs(u), abs(v))
    radius = np.hypot(u, v)
    inside = (
        radius < 0.95,
        far < 0.85,
        (v < 0.75) & (abs(u) < (v + 1) * 0.55),
        (far < 1) & (near < 0.32),
        (radius < 1) & (radius > 0.55),
        (abs(v) < 0.9) & (abs(u) < 0.1 + abs(v)),
    )
    return np.choose(labels[:, None, None], inside).astype(bool)


def _distractor(u: Array, v: Array, kinds: Array) -> Array:
    """A bar, a half disc or an angle: small, in any direction."""
    inside = (
        (abs(u) < 1) & (abs(v) < 0.25),
        (np.hypot(u, v) < 0.8) & (v > 0),
        (np.maximum(abs(u), abs(v)) < 0.8) & ((u < -0.3) | (v > 0.3)),
    )
    return np.choose(kinds[:, None, None], inside).astype(bool)


def _other(colour: Array, rng: np.random.Generator) -> Array:
    """A random colour that differs from the given one by 0.7 to 1.3 in every channel."""
    way = np.where(np.abs(colour) < 0.3, rng.choice([-1, 1], size=colour.shape), -np.sign(colour))
    return np.asarray(colour + way * _uniform(rng, 0.7, 1.3, colour.shape), np.float32)


def _texture(colour: Array, rng: np.random.Generator) -> Array:
    """The colour, and another in stripes of random width and direction; [N, 3, SIZE, SIZE]."""
    count = len(colour)
    other = _uniform(rng, -0.25, 0.25, (count, 3, 1, 1))
    angle, phase = _uniform(rng, 0, 2 * np.pi, (2, count, 1, 1))
    length = _uniform(rng, 4, 12, (count, 1, 1))
    wave = np.sin(2 * np.pi * (np.cos(angle) * _COLUMNS + np.sin(angle) * _ROWS) / length + phase)
    return np.asarray(colour + other * wave[:, None])
