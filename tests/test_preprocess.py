"""Photos and preprocessing, against loops and against files written by another library."""

import contextlib
import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from srd_onnx.errors import ImageError, InputError, OptionError
from srd_onnx.inputs.preprocess import (
    Preprocess,
    preprocess_from_dict,
    preprocess_from_toml,
    read_image,
    torchvision_default,
)
from srd_onnx.zoo import find, sample_photo

RNG_IMAGE = np.random.default_rng(7).integers(0, 256, (5, 6, 3), np.uint8)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_every_value_is_pixel_times_scale_minus_mean_over_std(order: Any) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    got = Preprocess(crop=(3, 4), scale=1 / 255, mean=mean, std=std, channel_order=order)(RNG_IMAGE)
    assert got.dtype == np.float32
    assert got.shape == (3, 4, 3)
    for y in range(3):
        for x in range(4):
            for c in range(3):
                pixel = float(RNG_IMAGE[y + 1, x + 1, c if order == "RGB" else 2 - c])
                assert got[y, x, c] == pytest.approx((pixel / 255 - mean[c]) / std[c], rel=1e-6, abs=1e-7)


def test_a_grey_model_gets_one_channel_of_luminance() -> None:
    grey = Preprocess(channel_order="GRAY", mean=(10.0,))
    assert grey.channels == 1
    got = grey(RNG_IMAGE)
    assert got.shape == (5, 6, 1)
    luminance = RNG_IMAGE @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(got[:, :, 0], luminance - 10, atol=0.51)
    np.testing.assert_array_equal(grey.view(RNG_IMAGE), np.repeat(got + 10, 3, axis=2))


def test_shrinking_by_two_is_the_mean_of_four_pixels() -> None:
    image = np.random.default_rng(1).integers(0, 256, (4, 6, 3), np.uint8)
    got = Preprocess(resize=(2, 3)).view(image)
    for y in range(2):
        for x in range(3):
            block = image[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].reshape(4, 3)
            np.testing.assert_allclose(got[y, x], block.mean(axis=0), atol=0.51)


def test_shrinking_one_axis_and_enlarging_the_other_averages_the_first() -> None:
    image = np.zeros((4, 2, 3), np.uint8)
    image[0] = (
        200  # one row in two: nearest or plain linear sampling would give 200 or 0 where this gives 100
    )
    got = Preprocess(resize=(2, 8)).view(image)
    assert got.shape == (2, 8, 3)
    assert set(got[0].ravel()) == {100}
    assert set(got[1].ravel()) == {0}


@pytest.mark.parametrize(
    ("shape", "wanted"), [((300, 451), (256, 385)), ((40, 30), (341, 256)), ((9, 9), (256, 256))]
)
def test_an_int_resize_sets_the_short_side_and_keeps_the_aspect_ratio(
    shape: tuple[int, int], wanted: tuple[int, int]
) -> None:
    assert Preprocess(resize=256).view(np.zeros((*shape, 3), np.uint8)).shape == (*wanted, 3)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(1, 20))
def test_the_view_has_the_size_of_the_crop(height: int, width: int, rows: int, columns: int) -> None:
    got = Preprocess(resize=20, crop=(rows, columns)).view(np.full((height, width, 3), 37, np.uint8))
    assert got.shape == (rows, columns, 3)
    assert set(got.ravel()) == {37}


def test_a_crop_larger_than_the_image_says_so() -> None:
    with pytest.raises(InputError) as caught:
        Preprocess(crop=(8, 4))(RNG_IMAGE)
    assert str(caught.value) == (
        "the crop of 4 x 8 pixels is larger than the image, 6 x 5 after the resize: resize to at least 8"
    )


def test_a_resize_to_an_absurd_size_is_refused_before_memory_is_spent() -> None:
    with pytest.raises(
        InputError, match=r"^resize 4096 makes 40960000 x 4096 pixels of the image of 10000 x 1,"
    ):
        Preprocess(resize=4096)(np.zeros((1, 10_000, 3), np.uint8))


@pytest.mark.parametrize(
    ("image", "got"),
    [(np.zeros((4, 4), np.uint8), "uint8 [4, 4]"), (np.zeros((4, 4, 3)), "float64 [4, 4, 3]"), ([], "list")],
)
def test_what_is_no_uint8_rgb_array_is_refused(image: Any, got: str) -> None:
    with pytest.raises(InputError) as caught:
        Preprocess()(image)
    assert str(caught.value) == f"an image must be a uint8 array [H, W, 3] in RGB order; got {got}"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resize": 0}, "resize must be a whole number of pixels or (height, width), all positive; got 0"),
        (
            {"resize": True},
            "resize must be a whole number of pixels or (height, width), all positive; got True",
        ),
        ({"crop": 224}, "crop must be (height, width) in whole pixels, all positive; got 224"),
        ({"crop": (1, 2, 3)}, "crop must be (height, width) in whole pixels, all positive; got (1, 2, 3)"),
        ({"scale": float("nan")}, "scale must be a finite number other than 0, not nan"),
        ({"mean": (1.0, 2.0)}, "mean must have 1 or 3 values for RGB, not 2: (1.0, 2.0)"),
        (
            {"std": (1.0,) * 3, "channel_order": "GRAY"},
            "std must have 1 value for GRAY, not 3: (1.0, 1.0, 1.0)",
        ),
        ({"std": (1.0, 0.0, 1.0)}, "std divides, so it must not contain 0: (1.0, 0.0, 1.0)"),
        ({"mean": ("1",)}, "mean must be a tuple of finite numbers, not ('1',)"),
        ({"channel_order": "rgb"}, "channel_order must be RGB, BGR or GRAY, not 'rgb'"),
    ],
)
def test_a_meaningless_option_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        Preprocess(**fields)
    assert str(caught.value) == message


SIZES = st.integers(1, 999)
PAIRS = st.tuples(SIZES, SIZES)
FLOATS = st.floats(0.001, 255)
PREPROCESS = st.builds(
    Preprocess,
    resize=st.none() | SIZES | PAIRS,
    crop=st.none() | PAIRS,
    scale=FLOATS,
    mean=st.tuples(FLOATS) | st.tuples(FLOATS, FLOATS, FLOATS),
    std=st.tuples(FLOATS) | st.tuples(FLOATS, FLOATS, FLOATS),
    channel_order=st.sampled_from(["RGB", "BGR"]),
)


@given(PREPROCESS)
def test_to_dict_is_read_back_as_the_same(preprocess: Preprocess) -> None:
    assert preprocess_from_dict(preprocess.to_dict()) == preprocess


def test_toml_is_read_with_single_numbers_for_lists(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('resize = [232, 240]\ncrop = 224\nmean = 127\nstd = [1, 2, 3.5]\nchannel_order = "BGR"\n')
    assert preprocess_from_toml(path) == Preprocess(
        resize=(232, 240), crop=(224, 224), mean=(127,), std=(1, 2, 3.5), channel_order="BGR"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"resise = 3\nzoom = 1",
            "unknown key 'resise', 'zoom'; known: resize, crop, scale, mean, std, channel_order",
        ),
        (b"scale = 0", "scale must be a finite number other than 0, not 0"),
        (b"a = ", "not a TOML file: Invalid value (at end of document)"),
        (b"\xff", "not a TOML file: it is not UTF-8 text"),
    ],
)
def test_a_wrong_toml_is_one_clear_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "p.toml"
    path.write_bytes(content)
    with pytest.raises(OptionError) as caught:
        preprocess_from_toml(path)
    assert str(caught.value) == f"{path}: {message}"


def test_a_missing_toml_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"absent\.toml: cannot read the preprocessing: No such file"):
        preprocess_from_toml(tmp_path / "absent.toml")


def test_the_torchvision_default_is_that_of_imagenet_and_its_crop_always_fits() -> None:
    assert torchvision_default(224, 224).resize == 256
    assert torchvision_default(224, 224)(np.full((300, 400, 3), 124, np.uint8))[0, 0] == pytest.approx(
        [(124 / 255 - m) / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)],
        rel=1e-5,
    )
    assert torchvision_default(96, 320)(np.zeros((50, 50, 3), np.uint8)).shape == (96, 320, 3)


@pytest.mark.parametrize(
    ("name", "wanted"), [("squeezenet11", {285}), ("efficientnet_lite0", {281, 282, 285})]
)
def test_the_shipped_models_see_a_cat_in_the_shipped_photo(name: str, wanted: set[int]) -> None:
    model = find(name)
    assert model is not None
    session = ort.InferenceSession(str(model.path), providers=["CPUExecutionProvider"])
    x = model.preprocess(read_image(sample_photo()))
    (logits,) = session.run(None, {"input": np.ascontiguousarray(x.transpose(2, 0, 1)[None])})
    assert int(np.argmax(logits)) in wanted


# --- image files, written by Pillow -------------------------------------------------------------------------


def test_rgb_png_is_read_exactly(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", Image.fromarray(RNG_IMAGE))), RNG_IMAGE)


def test_a_name_with_unicode_and_spaces_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "кошка 猫 $x$.png", Image.fromarray(RNG_IMAGE))
    np.testing.assert_array_equal(read_image(str(path)), RNG_IMAGE)


def test_grey_is_repeated_over_the_channels(tmp_path: Path) -> None:
    grey = RNG_IMAGE[:, :, 0].copy()
    got = read_image(save(tmp_path / "a.png", Image.fromarray(grey)))
    np.testing.assert_array_equal(got, np.repeat(grey[:, :, None], 3, axis=2))


def test_sixteen_bits_are_rounded_to_eight(tmp_path: Path) -> None:
    deep = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    got = read_image(save(tmp_path / "a.png", Image.fromarray(deep)))
    np.testing.assert_array_equal(got[0, :, 0], [0, 0, 1, 1, 128, 255])


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.fromarray(RNG_IMAGE).quantize(8)
    got = read_image(save(tmp_path / "a.png", image))
    np.testing.assert_array_equal(got, np.asarray(image.convert("RGB")))


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    pixels = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8)
    got = read_image(save(tmp_path / "a.png", Image.fromarray(pixels)))
    np.testing.assert_array_equal(got, [[[200, 100, 0], [255, 255, 255], [244, 224, 204]]])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("ending", "mode"), [("png", "RGB"), ("png", "RGBA"), ("webp", "RGB"), ("tiff", "RGB")]
)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, ending: str, mode: str) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if ending == "webp" else {}
    path = save(tmp_path / f"a.{ending}", Image.fromarray(RNG_IMAGE).convert(mode), exif=exif, **options)
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(read_image(path), upright)


def test_exif_orientation_of_a_jpeg_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    ramp = np.repeat(np.repeat(np.arange(0, 240, 10).astype(np.uint8)[None, :, None], 8, axis=0), 3, axis=2)
    got = read_image(save(tmp_path / "a.jpg", Image.fromarray(ramp), exif=exif, quality=95))
    assert got.shape == (24, 8, 3)
    np.testing.assert_allclose(got[:, 4, 1], ramp[0, :, 0], atol=3)


def png_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RNG_IMAGE).save(buffer, "PNG")
    return buffer.getvalue()


def huge_png() -> bytes:
    """Return a PNG header that claims 40 000 × 30 000 pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 30_000, 8, 2, 0, 0, 0)
    return png_bytes()[:8] + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def huge_jpeg() -> bytes:
    return b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc2" + struct.pack(">HBHHB", 8, 8, 30_000, 40_000, 3) + b"\0" * 9


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "{path} is empty (0 bytes). Copy or download it again."),
        (
            b"not an image at all",
            "{path}: not an image that OpenCV reads, or cut off or damaged (19 bytes, "
            "beginning with b'not an i'). Open it in an image viewer and save it as PNG or JPEG.",
        ),
        (png_bytes()[:60], "{path}: the PNG is cut off after 60 bytes. Copy or download it again."),
        (
            huge_png(),
            "{path}: 40000 x 30000 pixels are more than the limit of 100000000. Shrink the picture first.",
        ),
        (
            huge_jpeg(),
            "{path}: 40000 x 30000 pixels are more than the limit of 100000000. Shrink the picture first.",
        ),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(caught.value) == message.format(path=path)


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_jpeg_is_an_error_not_a_grey_half(tmp_path: Path, kept: float) -> None:
    path = save(tmp_path / "a.jpg", Image.open(sample_photo()))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ImageError, match="cut off or damaged"):
        read_image(path)


def test_no_noise_of_the_decoder_reaches_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.png"
    for content in (png_bytes()[:60], b"hello", sample_photo().read_bytes()[:5000]):
        path.write_bytes(content)
        with pytest.raises(ImageError):
            read_image(path)
    assert capfd.readouterr() == ("", "")


def test_missing_files_folders_and_floats_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no\.png: there is no such file\. Check the spelling"):
        read_image(tmp_path / "no.png")
    with pytest.raises(ImageError, match=re.escape(f"{tmp_path} is a folder, not an image.")):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="there is no such file"):
        read_image("a\0.png")
    path = save(tmp_path / "a.tiff", Image.fromarray(np.ones((3, 3), np.float32)))
    with pytest.raises(ImageError, match="pixels of type float32 have no agreed range"):
        read_image(path)


@given(
    st.binary(max_size=80), st.sampled_from([b"", png_bytes()[:33], b"\xff\xd8\xff\xe1", b"GIF89a", b"II*\0"])
)
def test_random_bytes_never_escape_as_another_error(tail: bytes, head: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.bin"
        path.write_bytes(head + tail)
        with contextlib.suppress(ImageError):
            image: NDArray[np.uint8] = read_image(path)
            assert image.ndim == 3
