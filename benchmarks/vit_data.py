"""Pictures with a known answer: one of six shapes on a textured ground, among things that are no class, with its mask.

Colours and textures are drawn from one distribution for object, ground and distractors, so that only the shape tells
the class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from benchmarks.shapes import OUTLINES, local, other_colour, stripes, uniform

Array = NDArray[Any]
SIZE = 48
CLASSES = ("disc", "square", "triangle", "plus", "ring", "hourglass")
DISTRACTORS = 3  # in each picture: small, in any direction
_DISTRACTORS = ("bar", "half disc", "angle")

# The networks that are trained on them, see `vit_net`: how they classify, and their tokens and depth.
Pool = Literal["class token", "mean"]
POOLS: tuple[Pool, ...] = get_args(Pool)
PATCH, BLOCKS = 8, 4

_CHUNK = 256  # pictures that are drawn at once


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
    ground = uniform(rng, -1, 1, (count, 3, 1, 1))
    images = _texture(ground, rng)
    for _ in range(DISTRACTORS):
        mask = _shape(*_local(count, rng, (3.0, 6.0)), rng.integers(3, size=count), _DISTRACTORS)
        images = np.where(mask[:, None], _texture(other_colour(ground, rng), rng), images)
    masks = []
    for index in range(objects):
        own = (index * SIZE // objects, (index + 1) * SIZE // objects)
        radius = (9.0, 14.0 if objects == 1 else 11.0)
        masks.append(_shape(*_local(count, rng, radius, turn=0.2, columns=own), labels[:, index]))
        images = np.where(masks[-1][:, None], _texture(other_colour(ground, rng), rng), images)
    images += 0.05 * rng.standard_normal(images.shape, np.float32)
    return images, labels, np.stack(masks, axis=1)


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
    r = uniform(rng, *radius, one)
    x = left + r + (right - left - 1 - 2 * r) * uniform(rng, 0, 1, one)
    y = r + (SIZE - 1 - 2 * r) * uniform(rng, 0, 1, one)
    angle = uniform(rng, -turn, turn, one)
    return local(x, y, r, angle, SIZE)


def _shape(u: Array, v: Array, labels: Array, names: Sequence[str] = CLASSES) -> Array:
    return np.choose(labels[:, None, None], [OUTLINES[name](u, v) for name in names]).astype(bool)


def _texture(colour: Array, rng: np.random.Generator) -> Array:
    """The colour, and another in stripes of random width and direction; [N, 3, SIZE, SIZE]."""
    other = uniform(rng, -0.25, 0.25, (len(colour), 3, 1, 1))
    return np.asarray(colour + other * stripes(len(colour), SIZE, (4, 12), rng)[:, None])
