"""Contact sheets and strips: any number of pictures, of any shape, with any text."""

import io
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from srd_onnx import Explainer
from srd_onnx.graph.ir import Array
from srd_onnx.pictures.layer_strip import MOST, strip
from srd_onnx.pictures.sheet import Cell, Chart, _columns, sheet
from tests.cli_tools import HOSTILE
from tests.nets import model_of


def drawn(png: bytes) -> Array:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


def test_few_places_stay_empty() -> None:
    assert [_columns(count) for count in (1, 5, 7, 8, 10, 12, 13, 14, 24, 25)] == [
        1, 5, 7, 5, 5, 6, 7, 7, 6, 5,
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 1), (1, 197), (300, 2), (7, 7), (40, 50, 3)])
@pytest.mark.parametrize("count", [1, 9])
def test_pictures_of_any_shape_have_their_place(shape: tuple[int, ...], count: int) -> None:
    image = np.zeros(shape, np.uint8 if len(shape) == 3 else np.float32)
    picture = drawn(sheet([Cell(image, f"{i}", ("one", "two")) for i in range(count)], "title", "subtitle"))
    # The margin is white, and not all else is.
    assert (picture[:, :20] == 255).all()
    assert (picture != 255).any()


@pytest.mark.parametrize("text", ["", HOSTILE, "$x^2$", "W" * 500, "\ud800"])
def test_any_text_is_drawn_without_a_warning_and_within_the_sheet(text: str) -> None:
    cell = Cell(np.zeros((9, 9, 3), np.uint8), text, (text, text), ((4.0, 4.0, "1"),))
    chart = Chart(text, ("a", "b"), (("0", (0.5, -0.5)), ("1", (1.0, 0.0))))
    picture = drawn(sheet([cell, cell], text, text, chart))
    assert (picture[:, -20:] == 255).all()


def test_a_mark_is_where_its_pixel_is() -> None:
    black = np.zeros((100, 100, 3), np.uint8)
    plain = drawn(sheet([Cell(black, "")], "", "")).astype(int)
    marked = drawn(sheet([Cell(black, "", (), ((25.0, 75.0, "1"),))], "", "")).astype(int)
    rows, columns = np.nonzero((plain == 0).all(axis=2))
    changed = np.argwhere((plain != marked).any(axis=2)).mean(axis=0)
    place = (changed - (rows.min(), columns.min())) / (np.ptp(rows), np.ptp(columns))
    np.testing.assert_allclose(place, (0.75, 0.25), atol=0.02)


def deep(layers: int) -> Any:
    """So many convolutions, each with a Relu."""
    names = ["input", *(f"r{i}" for i in range(layers))]
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, Array] = {}
    for i in range(layers):
        weights[f"w{i}"] = np.random.default_rng(i).standard_normal((3, 3, 3, 3)).astype(np.float32)
        nodes.append(helper.make_node("Conv", [names[i], f"w{i}"], [f"c{i}"], name=f"c{i}", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"], name=f"r{i}"))
    nodes.append(helper.make_node("GlobalAveragePool", [names[-1]], ["p"], name="p"))
    nodes.append(helper.make_node("Flatten", ["p"], ["output"], name="flatten"))
    return model_of(nodes, weights, ([1, 3, 8, 8], [1, 3]))


def test_a_strip_of_many_layers_is_a_selection_from_the_first_to_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []

    def seeing(*args: Any) -> bytes:
        seen.append(args)
        return b""

    monkeypatch.setattr("srd_onnx.pictures.layer_strip.sheet", seeing)
    explainer = Explainer(deep(40), providers="cpu")
    (decision,) = explainer.inside(np.random.default_rng(0).standard_normal((1, 3, 8, 8), np.float32), 0)
    strip(decision)
    cells, title, subtitle, chart = seen[0]
    assert len(cells) == MOST
    assert [cells[0].name, cells[1].name, cells[-1].name] == ["0  input", "1  c1", "22  r39"]
    assert title == "class 0"
    assert "relevance in 23 of 42 layers" in subtitle
    assert [label for label, _ in chart.groups] == [str(i) for i in range(1, 22)]
