"""Colour pictures with a known answer: objects pasted on textured grounds among things that are no class, with masks.

Seven classes are told by their outline, whatever covers them; three by their surface, whatever their outline. Ground
and distractors have the same kinds of outlines' edges, colours and textures, are drawn from a generator that knows no
label, and so tell nothing of the class.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.shapes import OUTLINES, local, other_colour, pixels, stripes, uniform
from srd_onnx import Preprocess

Array = NDArray[Any]
SIDE = 96
BY_OUTLINE = ("disc", "square", "triangle", "plus", "ring", "flower", "crescent")
BY_SURFACE = ("checks", "dots", "target")
CLASSES = BY_OUTLINE + BY_SURFACE
PREPROCESS = Preprocess(mean=(127.5,), std=(64.0,))

_RADIUS = (
    10.0,
    20.0,
)  # of an object, in pixels; less than a quarter of SIDE, so that it fits a cell of a grid
_DISTRACTORS, _RADIUS_OF_DISTRACTOR = 5, (5.0, 14.0)
_REACH = {
    "square": 1.21,
    "triangle": 1.23,
    "plus": 1.06,
}  # of the outlines that leave a disc of radius 1: how far
_CONTRAST = 0.35  # how far a texture's second colour is from its first at the most; colours are in -1 to 1
_CHUNK = 256  # pictures that are drawn at once
_TRIES = 100  # places for two objects, of which the first is taken where they do not touch


@dataclass(frozen=True, eq=False)
class Pictures:
    """What is shown, what it is and where.

    photos and grounds: uint8 [N, S, S, 3], RGB; a ground is the same picture without its objects.
    labels: int64 [N], or [N, K] of pictures with K objects.
    masks: bool [N, S, S], or [N, K, S, S]: which pixels are the object's; those of one picture are disjoint.
    """

    photos: Array
    labels: Array
    masks: Array
    grounds: Array

    @property
    def images(self) -> Array:
        """The photos as the networks take them: float32 [N, 3, S, S], by PREPROCESS."""
        return as_input(self.photos)

    def __getitem__(self, rows: Array | slice) -> "Pictures":
        """Some of the pictures, by indices [M], a mask [N] or a slice."""
        return Pictures(self.photos[rows], self.labels[rows], self.masks[rows], self.grounds[rows])


def as_input(photos: Array) -> Array:
    """uint8 [N, S, S, 3] to float32 [N, 3, S, S], by PREPROCESS."""
    mean, std = (np.array(one, np.float32) for one in (PREPROCESS.mean, PREPROCESS.std))
    scaled = (photos.astype(np.float32) - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def draw(count: int, seed: Sequence[int], *, objects: int = 1, side: int = SIDE) -> Pictures:
    """`count` pictures, the same for the same seed; as many of each class as of every other, in random order.

    With two objects they are of different classes and lie apart; the pairs of classes are random.
    """
    labels = np.random.default_rng([*seed, count]).permutation(np.arange(count) % len(CLASSES))[:, None]
    if objects == 2:
        step = np.random.default_rng([*seed, count, 1]).integers(1, len(CLASSES), size=(count, 1))
        labels = np.concatenate([labels, (labels + step) % len(CLASSES)], axis=1)
    elif objects != 1:
        raise ValueError(f"a picture has 1 or 2 objects, not {objects}; more in `grids`")
    photos, masks, grounds = _drawn(labels, seed, side)
    if objects == 1:
        return Pictures(photos, labels[:, 0], masks[:, 0], grounds)
    return Pictures(photos, labels, masks, grounds)


def grids(count: int, seed: Sequence[int]) -> Pictures:
    """`count` grids of 2×2 pictures with one object each, of four classes, for the Grid Pointing Game.

    labels [N, 4] and masks [N, 4, SIDE, SIDE] in the order of `cells()`. The cells are drawn at half the side with
    objects as large as ever, so that a grid fits a network of fixed input size.
    """
    rng = np.random.default_rng([*seed, count])
    labels = rng.permuted(np.tile(np.arange(len(CLASSES)), (count, 1)), axis=1)[:, :4]
    photos, masks, grounds = _drawn(labels.reshape(-1, 1), seed, SIDE // 2)
    placed = np.zeros((count, 4, SIDE, SIDE), bool)
    for k, cell in enumerate(cells()):
        placed[:, k, cell] = masks[k::4, 0].reshape(count, -1)
    return Pictures(_tiled(photos), labels, placed, _tiled(grounds))


def cells() -> Array:
    """Which pixels belong to each cell of a grid: bool [4, SIDE, SIDE], row by row."""
    rows, columns = pixels(SIDE)
    number = 2 * (rows >= SIDE // 2) + (columns >= SIDE // 2)
    return np.stack([number == k for k in range(4)])


def _tiled(photos: Array) -> Array:
    """[4 N, S, S, 3] to [N, 2 S, 2 S, 3]."""
    side = photos.shape[1]
    blocks = photos.reshape(-1, 2, 2, side, side, 3).transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(blocks.reshape(-1, 2 * side, 2 * side, 3))


# Pictures


def _drawn(labels: Array, seed: Sequence[int], side: int) -> tuple[Array, Array, Array]:
    """Photos, masks [N, K, S, S] and grounds for labels [N, K]."""
    starts = range(0, len(labels), _CHUNK)
    parts = [_chunk(labels[start : start + _CHUNK], [*seed, start], side) for start in starts]
    photos, masks, grounds = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return photos, masks, grounds


def _chunk(labels: Array, seed: Sequence[int], side: int) -> tuple[Array, Array, Array]:
    """The same at once. Ground, objects and noise have generators of their own, so no ground depends on a label."""
    of_ground, of_objects, of_noise = (np.random.default_rng([*seed, part]) for part in range(3))
    count, objects = labels.shape
    colour = uniform(of_ground, -1, 1, (count, 3, 1, 1))
    ground = _textured(colour, _CONTRAST, side, of_ground)
    for _ in range(round(_DISTRACTORS * (side / SIDE) ** 2)):
        mask = _distractor(count, side, of_ground)
        surface = _textured(other_colour(colour, of_ground), 2 * _CONTRAST, side, of_ground)
        ground = np.where(mask[:, None], surface, ground)
    image, masks = ground, np.zeros((count, objects, side, side), bool)
    radius = uniform(of_objects, *_RADIUS, (count, objects))
    centres = _centres(radius, side, of_objects)
    for k in range(objects):
        mask, surface = _object(labels[:, k], radius[:, k], centres[:, k], colour, side, of_objects)
        masks[:, k] = mask
        image = np.where(mask[:, None], surface, image)
    noise = 0.05 * of_noise.standard_normal(image.shape, np.float32)
    return _photo(image + noise), masks, _photo(ground + noise)


def _photo(values: Array) -> Array:
    """Colours [N, 3, S, S], of which -1.25 to 1.25 is shown, as uint8 [N, S, S, 3]."""
    return np.ascontiguousarray(np.clip((values + 1.25) * 102, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1))


def _centres(radius: Array, side: int, rng: np.random.Generator) -> Array:
    """Random places [N, K, 2] where the objects, of radius [N, K], lie inside the picture and apart."""
    count, objects = radius.shape
    r = radius[:, None, :, None]
    tries = r + (side - 1 - 2 * r) * uniform(rng, 0, 1, (count, _TRIES, objects, 2))
    distance = np.linalg.norm(tries[:, :, :, None] - tries[:, :, None], axis=-1)
    apart = distance + 1e9 * np.eye(objects) >= (radius[:, None, :, None] + radius[:, None, None])
    first = apart.all(axis=(2, 3)).argmax(axis=1)
    return np.asarray(tries[np.arange(count), first])


def _object(
    labels: Array, radius: Array, centres: Array, ground: Array, side: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Masks [N, S, S] and surfaces [N, 3, S, S] of objects of these classes; `ground` is the ground's colour."""
    count = len(labels)
    r = radius[:, None, None]
    angle = uniform(rng, -np.pi, np.pi, (count, 1, 1))
    u, v = local(centres[:, 0, None, None], centres[:, 1, None, None], r, angle, side)
    mask = _irregular(u, v, rng)
    colour = other_colour(ground, rng)
    surface = _textured(colour, _CONTRAST, side, rng)
    strong = uniform(rng, 0.3, 0.6, colour.shape) * rng.choice([-1, 1], size=(count, 1, 1, 1))
    period = uniform(rng, 7, 10, (count, 1, 1))
    for label, name in enumerate(CLASSES):
        own = labels == label
        if name in BY_OUTLINE:
            reach = _REACH.get(name, 1.0)
            mask[own] = OUTLINES[name](u[own] * reach, v[own] * reach)
        else:
            x, y = ((2 * np.pi * r / period * one)[own] for one in (u, v))
            surface[own] = colour[own] + strong[own] * _PATTERNS[name](x, y)[:, None]
    return mask, surface


_PATTERNS: dict[str, Callable[[Array, Array], Array]] = {
    "checks": lambda x, y: np.sign(np.sin(x / 1.4) * np.sin(y / 1.4)),
    "dots": lambda x, y: np.where(np.cos(x) + np.cos(y) > 0.5, 1.0, -1.0),
    "target": lambda x, y: np.sign(np.cos(np.hypot(x, y))),
}


def _irregular(u: Array, v: Array, rng: np.random.Generator) -> Array:
    """A blob of two and three bulges, that fits into a disc of radius 1."""
    angle, edge = np.arctan2(v, u), np.full((len(u), 1, 1), 0.7, np.float32)
    for bulges, least, most in ((2, 0.08, 0.17), (3, 0.04, 0.12)):
        height, phase = uniform(rng, least, most, edge.shape), uniform(rng, 0, 2 * np.pi, edge.shape)
        edge = edge + height * np.cos(bulges * angle + phase)
    return np.asarray(np.hypot(u, v) < edge)


def _distractor(count: int, side: int, rng: np.random.Generator) -> Array:
    """A blob, a bar, a line, a half disc or an angle, anywhere, also across the border: [N, S, S]."""
    one = (count, 1, 1)
    x, y = uniform(rng, 0, side, (2, *one))
    u, v = local(x, y, uniform(rng, *_RADIUS_OF_DISTRACTOR, one), uniform(rng, -np.pi, np.pi, one), side)
    kinds = [_irregular(u, v, rng), (abs(u) < 3) & (abs(v) < 0.2)]
    kinds += [OUTLINES[name](u, v) for name in ("bar", "half disc", "angle")]
    return np.choose(rng.integers(len(kinds), size=one), kinds)


# Textures


def _textured(colour: Array, contrast: float, side: int, rng: np.random.Generator) -> Array:
    """A colour [N, 3, 1, 1], and another in noise, stripes, spots or a gradient: [N, 3, S, S]."""
    count = len(colour)
    other = uniform(rng, -contrast, contrast, colour.shape)
    wave = np.empty((count, side, side), np.float32)
    kinds = rng.integers(len(_WAVES), size=count)
    for kind, waves in enumerate(_WAVES):
        wave[kinds == kind] = waves(int((kinds == kind).sum()), side, rng)
    return np.asarray(colour + other * wave[:, None], np.float32)


def _ramp(count: int, side: int, rng: np.random.Generator) -> Array:
    """From -1 to 1 or a little more across the picture, in a random direction: [N, S, S]."""
    rows, columns = (one / side * 2 - 1 for one in pixels(side))
    angle = uniform(rng, 0, 2 * np.pi, (count, 1, 1))
    return np.asarray(np.cos(angle) * columns + np.sin(angle) * rows)


def _noise(count: int, side: int, cells: int, rng: np.random.Generator) -> Array:
    """Normal numbers on a lattice of so many cells a side, linear in between: [N, S, S]."""
    place = np.linspace(0, cells, side, dtype=np.float32)[:, None]
    weights = np.maximum(0, 1 - abs(place - np.arange(cells + 1, dtype=np.float32)))
    lattice = rng.standard_normal((count, cells + 1, cells + 1), np.float32)
    return np.asarray(weights @ lattice @ weights.T)


_WAVES: tuple[Callable[[int, int, np.random.Generator], Array], ...] = (
    lambda count, side, rng: np.mean([_noise(count, side, cells, rng) for cells in (3, 8, 24)], axis=0),
    lambda count, side, rng: stripes(count, side, (5, 24), rng),
    lambda count, side, rng: np.tanh(4 * _noise(count, side, 10, rng)),
    _ramp,
)
