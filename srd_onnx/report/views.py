"""What the page shows of an image: its pictures encoded, none larger than an image may take of the file."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srd_onnx.errors import SrdOnnxError
from srd_onnx.explanation import as_picture
from srd_onnx.graph.ir import Array
from srd_onnx.report.content import Figure, Item, Layer, Report, Shown, Table, plain
from srd_onnx.report.encode import Drawn, as_uri, drawn, overlay_jpeg, photo_jpeg, sprite
from srd_onnx.report.words import honest, whereabouts

# Of the file for one image: so a hundred stay below 50 MB, and a page of single explanations is as fine as they are.
IMAGE_BYTES = {"audit": 440_000, "comparison": 440_000, "explanation": 4_000_000}
# Sides of maps and of fields, from the finest: the first that fits is taken.
_SIDES = (
    (448, 96),
    (256, 64),
    (224, 48),
    (224, 40),
    (192, 32),
    (160, 32),
    (128, 24),
    (96, 24),
    (64, 16),
    (48, 12),
)
_LAYER_SIDE, _FIGURE_SIDE = 112, 224


@dataclass(frozen=True)
class LayerView:
    """A layer to look into: its map, and where its fields lie in the page.

    Attributes:
        positions: JSON of the rows and columns whose fields there are.
        sprite: the id of the picture of the fields; "" for none.
        tops: JSON, see `encode.Sprite`.
    """

    name: str
    size: str
    rows: int
    columns: int
    map: Drawn
    total: float
    positions: str
    sprite: str
    tops: str
    field_width: int
    field_height: int


@dataclass(frozen=True, eq=False)
class ShownView:
    """One target by one method.

    Attributes:
        total: the sum of the map.
        where: in words.
    """

    shown: Shown
    map: Drawn
    overlay: str | None
    total: float
    where: str
    flat: bool
    size: str
    layers: tuple[LayerView, ...]

    @property
    def together(self) -> float:
        """Map, ledger and residual: the explained number."""
        return together(self.shown)


@dataclass(frozen=True, eq=False)
class ItemView:
    """One image.

    Attributes:
        sprites: the pictures of fields, by id.
        error: why there is nothing to see.
    """

    number: int
    item: Item
    photo: str | None
    width: int
    height: int
    shown: tuple[ShownView, ...]
    sprites: Mapping[str, str]
    error: str | None
    keys: str
    flags: str

    @property
    def bars(self) -> list[tuple[str, float, float]]:
        """Label, score and length in 0..1 of each prediction; no length where scores are not comparable to 0."""
        most = max((abs(score) for _, score in self.item.predictions), default=0.0) or 1.0
        return [(label, score, max(0.0, score / most)) for label, score in self.item.predictions]


def item_view(item: Item, number: int, scales: Mapping[str, float], room: int) -> ItemView:
    """An image as fine as it fits into ``room`` bytes; a map that cannot be drawn is its error."""
    photo = None if item.photo is None else as_uri("jpeg", photo_jpeg(item.photo))
    shown, sprites, error = tuple[ShownView, ...](), dict[str, str](), item.error
    try:
        for sides in _SIDES:
            sprites = {}
            shown = tuple(_shown(one, item.photo, sides, scales, number, sprites) for one in item.shown)
            if len(photo or "") + _length(shown) + sum(map(len, sprites.values())) <= room:
                break
    except SrdOnnxError as problem:
        shown, sprites, error = (), {}, str(problem)
    height, width = (0, 0) if item.photo is None else item.photo.shape[:2]
    keys = json.dumps({honest(name): value for name, value in item.keys.items() if np.isfinite(value)})
    flags = json.dumps([honest(flag) for flag in item.flags])
    return ItemView(number, item, photo, width, height, shown, sprites, error, keys, flags)


def _length(shown: tuple[ShownView, ...]) -> int:
    return sum(
        len(one.map.uri) + len(one.overlay or "") + sum(len(layer.map.uri) for layer in one.layers)
        for one in shown
    )


def _shown(
    shown: Shown,
    photo: NDArray[np.uint8] | None,
    sides: tuple[int, int],
    scales: Mapping[str, float],
    number: int,
    sprites: dict[str, str],
) -> ShownView:
    flat, _ = as_picture(np.asarray(shown.relevance, np.float32))
    view = drawn(flat, sides[0], scales.get(shown.method))
    over = overlay_jpeg(photo, flat, sides[0])
    return ShownView(
        shown,
        view,
        None if over is None else as_uri("jpeg", over),
        float(np.sum(shown.relevance, dtype=np.float64)),
        whereabouts(flat),
        flat.shape[0] == 1,
        size_of(shown.relevance),
        tuple(_layer(layer, sides[1], number, sprites) for layer in shown.layers),
    )


def _layer(layer: Layer, side: int, number: int, sprites: dict[str, str]) -> LayerView:
    flat, _ = as_picture(np.asarray(layer.relevance, np.float32))
    name, tops, width, height = "", "[]", 0, 0
    if len(layer.positions):
        fields = np.asarray(layer.fields, np.float32)
        found = sprite(np.stack([as_picture(field)[0] for field in fields]), side)
        # Fields do not depend on the target: another one of this image may have them already.
        name = next((key for key, uri in sprites.items() if uri == found.uri), "")
        if not name:
            name = f"fields-{number}-{len(sprites)}"
            sprites[name] = found.uri
        tops, width, height = json.dumps(found.tops), found.width, found.height
    return LayerView(
        layer.name,
        size_of(layer.relevance),
        flat.shape[0],
        flat.shape[1],
        drawn(flat, _LAYER_SIDE),
        float(np.sum(layer.relevance, dtype=np.float64)),
        json.dumps(np.asarray(layer.positions).tolist()),
        name,
        tops,
        width,
        height,
    )


@dataclass(frozen=True, eq=False)
class FigureView:
    """A figure of a section; `map` is None for a photo."""

    figure: Figure
    uri: str
    width: int
    height: int
    map: Drawn | None


def figure_view(figure: Figure) -> FigureView:
    """A figure with its picture.

    Raises: NonFiniteError for a map with NaN or infinity.
    """
    if figure.map.ndim == 3:
        photo = np.asarray(figure.map, np.uint8)
        height, width = photo.shape[:2]
        return FigureView(figure, as_uri("jpeg", photo_jpeg(photo)), width, height, None)
    flat, _ = as_picture(np.asarray(figure.map, np.float32))
    found = drawn(flat, _FIGURE_SIDE)
    return FigureView(figure, found.uri, found.width, found.height, found)


def numeric(table: Table) -> list[bool]:
    """Of each column, whether it holds numbers and gaps alone."""
    return [
        all(isinstance(row[i], int | float | None) for row in table.rows) for i in range(len(table.columns))
    ]


def together(shown: Shown) -> float:
    """Map, ledger and residual of an explanation, which are the explained number if its method is complete."""
    booked = sum(amount for _, amount in shown.ledger)
    return float(np.sum(shown.relevance, dtype=np.float64)) + booked + shown.residual


def headline(shown: Shown) -> str:
    """The score, and the explained number where it is another one, such as the log odds."""
    found = f"score {plain(shown.score)}"
    explained = together(shown)
    if shown.complete and abs(explained - shown.score) > 1e-3 * abs(shown.score):
        found += f"  ·  explained number {plain(explained)}"
    return found


def size_of(array: Array) -> str:
    """224 × 224."""
    return " × ".join(map(str, array.shape)) or "1"


def numbered(report: Report) -> Iterator[ItemView]:
    """The views of the images as they come."""
    for number, item in enumerate(report.items, start=1):
        yield item_view(item, number, report.scales, IMAGE_BYTES[report.kind])
