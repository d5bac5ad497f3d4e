"""Maps as pictures: the values can be read back, the colours are those of the other pictures."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from srd_onnx.errors import NonFiniteError
from srd_onnx.graph.ir import Array
from srd_onnx.pictures.render import clip_value, colours
from srd_onnx.report.encode import drawn, overlay_jpeg, photo_jpeg, sprite
from srd_onnx.report.words import honest, whereabouts
from tests.report_data import blob


def opened(uri: str) -> Image.Image:
    """The picture in a data URI, by another library."""
    head, data = uri.split(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return Image.open(io.BytesIO(base64.b64decode(data)))


def values_in(picture: Image.Image, top: float) -> Array:
    """The values that the indices stand for, as encode.py defines them."""
    part = (np.asarray(picture, np.float64) - 127) / 127
    found: Array = np.sign(part) * part**2 * top
    return found


def test_values_can_be_read_back_the_small_ones_too() -> None:
    values = np.random.default_rng(0).normal(size=(40, 30)) ** 3
    found = drawn(values, 64)
    with opened(found.uri) as picture:
        assert picture.mode == "P"
        assert picture.size == (found.width, found.height) == (30, 40)
        read = values_in(picture, found.top)
    # Half a step of the index k is off by k / 127² of the largest value.
    off = np.abs(read - values)
    step = (np.sqrt(np.abs(values) / found.top) / 127 + 0.25 / 127**2) * found.top
    assert (off <= 1.001 * step).all()
    assert (np.sign(read) * np.sign(values) >= 0).all()


def test_the_colours_are_those_of_the_panel() -> None:
    values = np.random.default_rng(1).normal(size=(50, 50))
    found = drawn(values, 64)
    with opened(found.uri) as picture:
        painted = np.asarray(picture.convert("RGB"), np.int64)
        shade = np.clip(values_in(picture, found.top) / clip_value(values), -1, 1)
    wanted = np.rint(colours()[np.rint(127.5 + 127.5 * shade).astype(int)])
    np.testing.assert_array_equal(painted, wanted)


def test_a_shared_scale_changes_the_colours_and_not_the_values() -> None:
    values = blob(0.3, 0.3)
    own, shared = drawn(values, 64), drawn(values, 64, clip=1.0)
    assert shared.own == own.clip != shared.clip == 1.0
    with opened(own.uri) as one, opened(shared.uri) as other:
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
        assert one.getpalette() != other.getpalette()


def test_a_large_map_is_shown_as_means() -> None:
    values = np.arange(64.0).reshape(8, 8)
    found = drawn(values, 4)
    assert found.step == 2
    with opened(found.uri) as picture:
        read = values_in(picture, found.top)
    np.testing.assert_allclose(read, values.reshape(4, 2, 4, 2).mean((1, 3)), atol=0.6)


def test_a_map_of_zeros_is_white_and_one_with_nan_is_refused() -> None:
    with opened(drawn(np.zeros((4, 4)), 8).uri) as picture:
        assert (np.asarray(picture.convert("RGB")) >= 245).all()
    with pytest.raises(NonFiniteError, match="holds 2 values that are NaN or infinite"):
        drawn(np.array([[np.nan, np.inf]]), 8)


def test_fields_lie_one_below_the_other_each_on_its_own_scale() -> None:
    fields = np.stack([blob(0.2, 0.2), 100 * blob(0.8, 0.8)])
    found = sprite(fields, 60)
    with opened(found.uri) as picture:
        assert picture.size == (60, 120)
        index = np.asarray(picture)
    for number, (field, top) in enumerate(zip(fields, found.tops, strict=True)):
        assert top == pytest.approx(field.max(), rel=1e-3)
        part = index[60 * number : 60 * (number + 1)]
        assert np.unravel_index(part.argmax(), part.shape) == np.unravel_index(field.argmax(), field.shape)


def test_photos_keep_their_colours_and_their_shape() -> None:
    photo = np.zeros((20, 30, 3), np.uint8)
    photo[..., 0] = 200
    with Image.open(io.BytesIO(photo_jpeg(photo))) as picture:
        assert picture.size == (30, 20)
        np.testing.assert_allclose(np.asarray(picture, float).mean((0, 1)), (200, 0, 0), atol=4)
    with Image.open(io.BytesIO(photo_jpeg(photo, 15))) as picture:
        assert picture.size == (15, 10)
    assert overlay_jpeg(photo, np.zeros((10, 10))) is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain é 猫 \N{CAT FACE}", "plain é 猫 \N{CAT FACE}"),
        ("a\r\nb\tc", "a\nb\tc"),
        ("\x00\x1b", "␀␛"),
        ("\u202egnp.exe", "⟨U+202E⟩gnp.exe"),
        ("a\u2028b\u200b", "a⟨U+2028⟩b⟨U+200B⟩"),
        ("\ud83d", "⟨U+D83D⟩"),
    ],
)
def test_nothing_is_hidden_in_a_text(text: str, wanted: str) -> None:
    assert honest(text) == wanted


def test_where_relevance_lies_is_put_into_words() -> None:
    words = whereabouts(blob(0.15, 0.85))
    assert words.startswith("of what speaks for the target, ")
    assert "lies in the top right ninth" in words
    assert whereabouts(-blob(0.5, 0.5)) == "nothing in it speaks for the target"
    assert "in the last third" in whereabouts(np.array([[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]))
