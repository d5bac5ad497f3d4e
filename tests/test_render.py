"""The pictures: colours where the relevance is, texts inside the picture."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from srd_onnx.errors import InputError, NonFiniteError
from srd_onnx.pictures.render import clip_value, colours, overlay, panel, smooth, smoothing
from srd_onnx.text import readable, safe_file_name, shorten

SIDE = 100


def photo(height: int = SIDE, width: int = SIDE) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


def blobs() -> NDArray[np.float32]:
    """Return a map that is +1 in the upper left square, −1 in the lower right one, 0 elsewhere."""
    relevance = np.zeros((SIDE, SIDE), np.float32)
    relevance[10:40, 10:40] = 1
    relevance[60:90, 60:90] = -1
    return relevance


def decoded(png: bytes) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return np.asarray(image, np.uint8)


def test_red_speaks_for_blue_against_and_the_rest_stays_grey() -> None:
    drawn = overlay(photo(), blobs()).astype(int)
    assert drawn.shape == (SIDE, SIDE, 3)
    red, blue, rest = drawn[15:35, 15:35], drawn[65:85, 65:85], drawn[10:40, 60:90]
    assert np.all(red[..., 0] > red[..., 2] + 60)
    assert np.all(blue[..., 2] > blue[..., 0] + 60)
    np.testing.assert_array_equal(rest[..., 0], rest[..., 1])
    np.testing.assert_array_equal(rest[..., 0], rest[..., 2])


def test_the_grey_is_the_dimmed_luminance_of_the_photo() -> None:
    picture = photo()
    luminance = picture @ np.array([0.299, 0.587, 0.114])
    drawn = overlay(picture, np.zeros((SIDE, SIDE), np.float32))
    np.testing.assert_allclose(drawn[..., 0], luminance * 0.62 + 60, atol=1)


def test_the_overlay_does_not_depend_on_the_unit_of_the_relevance() -> None:
    np.testing.assert_array_equal(overlay(photo(), blobs()), overlay(photo(), blobs() * np.float32(2.0**-20)))


def test_one_wild_pixel_does_not_hide_the_rest() -> None:
    relevance = blobs()
    relevance[50, 50] = 1e6
    assert clip_value(relevance) == 1


@pytest.mark.parametrize(("values", "wanted"), [([0, 0], 1), ([0] * 999 + [-3], 3), ([2, -2], 2)])
def test_the_clip_value_is_never_zero(values: list[float], wanted: float) -> None:
    assert clip_value(np.array(values, np.float32)) == wanted


def test_smoothing_is_a_gaussian_of_a_hundredth_of_the_longer_side() -> None:
    assert smoothing((300, 451)) == pytest.approx(4.51)
    point = np.zeros((200, 200), np.float32)
    point[100, 100] = 1
    y, x = np.mgrid[:200, :200] - 100
    gaussian = np.exp(-(x**2 + y**2) / (2 * 2.0**2)) / (2 * np.pi * 2.0**2)
    np.testing.assert_allclose(smooth(point), gaussian, atol=2e-4)
    assert float(smooth(point).sum()) == pytest.approx(1, rel=1e-5)


def test_the_colours_are_blue_white_red() -> None:
    table = colours()
    assert table.shape == (256, 3)
    assert table[0, 2] > table[0, 0]
    assert table[255, 0] > table[255, 2]
    assert np.all(table[127:129] > 235)


def test_the_panel_shows_photo_overlay_and_raw_map() -> None:
    png = panel(photo(), blobs(), "Egyptian cat", "chelsea")
    image = decoded(png)
    assert png.startswith(b"\x89PNG")
    assert image.shape[1] > 2.4 * image.shape[0]
    pixels = {tuple(p) for p in image.reshape(-1, 3).tolist()}
    ends = [tuple(int(c) for c in np.rint(end)) for end in (colours()[0], colours()[255])]
    assert set(ends) <= pixels  # the map is raw: its squares have the end colours


def test_the_panel_is_the_same_twice() -> None:
    assert panel(photo(), blobs(), "a", "b") == panel(photo(), blobs(), "a", "b")


def test_without_a_photo_the_map_stands_alone() -> None:
    assert decoded(panel(None, blobs(), "a")).shape[1] < decoded(panel(photo(), blobs(), "a")).shape[1] / 2


@pytest.mark.parametrize(
    "text",
    [
        "W" * 500,
        "$x^2$ \\frac{1}{0} $",
        "猫 кошка قطة 🐈 \N{DESERET CAPITAL LETTER LONG I}",
        "a\nb\tc\0d\u202ee",
        "",
        "$",
    ],
)
def test_no_text_overflows_or_warns(text: str) -> None:
    for picture in (photo(), None):
        image = decoded(panel(picture, blobs(), text, text))
        assert np.all(image[:, -8:] == 255)  # the margin stays empty
        assert np.all(image[:, :8] == 255)
        assert np.all(image[:8] == 255)


def test_a_dollar_is_drawn_and_not_read_as_mathematics() -> None:
    plain, with_dollars = (decoded(panel(None, blobs(), text)) for text in ("x^2", "$x^2$"))
    ink = [int(np.count_nonzero(image[:110] < 128)) for image in (plain, with_dollars)]
    assert ink[1] > ink[0] * 1.3


@pytest.mark.parametrize("shape", [(1, 400), (400, 1), (1, 1), (30, 90), (90, 30)])
def test_every_aspect_ratio_gives_a_picture(shape: tuple[int, int]) -> None:
    relevance = np.linspace(-1, 1, shape[0] * shape[1]).reshape(shape).astype(np.float32)
    image = decoded(panel(photo(*shape), relevance, "title", "subtitle"))
    assert max(image.shape) < 2500
    assert np.all(image[:8] == 255)


def test_the_users_matplotlib_settings_neither_enter_nor_change() -> None:
    import matplotlib as mpl

    wanted = panel(photo(), blobs(), "a", "b")
    with mpl.rc_context({"font.size": 40, "axes.facecolor": "black", "savefig.dpi": 10}):
        assert panel(photo(), blobs(), "a", "b") == wanted
        assert mpl.rcParams["font.size"] == 40


def test_a_photo_of_another_size_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        overlay(photo(4, 5), blobs())
    assert str(caught.value) == (
        "photo and relevance must be uint8 [H, W, 3] and [H, W] of the same size; "
        "got uint8 [4, 5, 3] and [100, 100]"
    )


def test_a_map_with_nan_is_refused() -> None:
    relevance = blobs()
    relevance[0, :3] = np.nan, np.inf, -np.inf
    with pytest.raises(NonFiniteError) as caught:
        panel(None, relevance, "a")
    assert (
        str(caught.value) == "the relevance map holds 3 values that are NaN or infinite; it cannot be drawn"
    )


def test_a_map_that_is_no_picture_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"^a relevance map must be \[H, W\] and not empty; got \[1, 2, 3\]$"
    ):
        panel(None, np.zeros((1, 2, 3), np.float32), "a")


@given(st.text(max_size=30), st.integers(0, 30))
def test_shorten_gives_the_longest_beginning_that_fits(text: str, room: int) -> None:
    short = shorten(text, lambda candidate: len(candidate) <= room)
    assert len(short) <= room
    if short != text and short:
        assert short.endswith("…")
        assert text.startswith(short[:-1])


@given(st.text(max_size=200))
@settings(max_examples=300)
def test_a_safe_file_name_is_one_harmless_name(text: str) -> None:
    name = safe_file_name(text)
    assert name
    assert len(name.encode()) <= 81
    assert not name.startswith(".")
    assert not set(name) & set('/\\:*?"<>|\0\n\r\t')
    assert safe_file_name(name) == name


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("../../etc/passwd", "_.._etc_passwd"),
        ("NUL", "_NUL"),
        ("..", "image"),
        ("кошка 猫", "кошка 猫"),
        ("", "image"),
    ],
)
def test_hostile_names_are_defused(text: str, wanted: str) -> None:
    assert safe_file_name(text) == wanted


def test_readable_is_one_line() -> None:
    assert readable(" a\n\tb\x1b[31m\u202ec\u2028d ") == "a b [31m c d"
