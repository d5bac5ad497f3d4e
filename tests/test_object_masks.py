"""Masks of objects: binary and ImageNet-S files, laid on the model's input as the photo is; and what is refused."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from srd_onnx.errors import InputError, OptionError
from srd_onnx.evaluation.masks import IGNORE, Mask, MaskError, read_ids, read_masks
from srd_onnx.inputs.preprocess import Preprocess

SIZE = (60, 80)
PLAIN = Preprocess()


def disc(
    height: int = 60, width: int = 80, row: float = 25, column: float = 40, radius: float = 12
) -> NDArray[Any]:
    rows, columns = np.mgrid[:height, :width]
    return np.asarray((rows - row) ** 2 + (columns - column) ** 2 < radius**2)


def semantic(ids: NDArray[Any]) -> NDArray[np.uint8]:
    """As ImageNet-S says it: R + 256·G; OpenCV writes BGR."""
    ids = np.asarray(ids, np.int64)
    return np.stack([np.zeros_like(ids), ids // 256, ids % 256], axis=-1).astype(np.uint8)


def read(
    folder: Path,
    pixels: NDArray[Any],
    preprocess: Preprocess = PLAIN,
    target: int = 7,
    suffix: str = ".png",
    **ids: Any,
) -> Mask:
    path = folder / f"cat{suffix}"
    assert cv2.imwrite(str(path), pixels)
    return read_masks(folder, **ids).of(Path("photos/cat.jpg"), SIZE, preprocess, target)


@pytest.mark.parametrize("white", [1, 60, 255])
def test_a_binary_mask_of_one_level(tmp_path: Path, white: int) -> None:
    found = read(tmp_path, (disc() * white).astype(np.uint8))
    np.testing.assert_array_equal(found.object, disc())
    assert not found.ignored.any()


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "16 bits", "JPEG", "smooth"])
def test_other_binary_files(tmp_path: Path, kind: str) -> None:
    grey = (disc() * 255).astype(np.uint8)
    if kind == "JPEG":
        found = read(tmp_path, grey, suffix=".jpg")
    elif kind == "smooth":
        found = read(tmp_path, cv2.GaussianBlur(grey, (0, 0), 0.8))
    else:
        made: dict[str, NDArray[Any]] = {
            "RGB": np.repeat(grey[:, :, None], 3, axis=2),
            "RGBA": np.dstack([grey, grey, grey, np.full_like(grey, 255)]),
            "16 bits": grey.astype(np.uint16) * 257,
        }
        found = read(tmp_path, made[kind])
    assert np.mean(found.object != disc()) < (0.01 if kind in ("JPEG", "smooth") else 1e-9)


@pytest.mark.parametrize("number", [1, 12, 255, 256, 258, 919])
def test_the_id_of_imagenet_s_is_red_plus_256_green(tmp_path: Path, number: int) -> None:
    ids = np.where(disc(), number, 0)
    ids[:4] = IGNORE
    found = read(tmp_path, semantic(ids))
    np.testing.assert_array_equal(found.object, disc())
    assert found.ignored[:4].all()
    assert not found.ignored[4:].any()


def test_of_several_ids_that_of_the_explained_class_is_taken(tmp_path: Path) -> None:
    other = disc(row=50, radius=8)
    ids = np.where(disc(), 300, 0) + np.where(other, 2, 0)
    np.testing.assert_array_equal(read(tmp_path, semantic(ids), ids={7: 300, 8: 2}).object, disc())
    np.testing.assert_array_equal(read(tmp_path, semantic(ids), target=8, ids={7: 300, 8: 2}).object, other)
    with pytest.raises(
        MaskError, match="it has the classes 2, 300, and nothing says which of them is explained"
    ):
        read(tmp_path, semantic(ids))
    with pytest.raises(MaskError, match="it has the ids 2, 300, but the explained class 9 has no id"):
        read(tmp_path, semantic(ids), target=9, ids={7: 300, 8: 2})
    with pytest.raises(MaskError, match="it has the ids 2, 300, but the explained class 9 has the id 5"):
        read(tmp_path, semantic(ids), target=9, ids={9: 5})


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(crop=(32, 24)),
        Preprocess(resize=30),
        Preprocess(resize=96, crop=(64, 64)),
        Preprocess(resize=(33, 47)),
        Preprocess(resize=(90, 40), crop=(50, 30)),
    ],
    ids=str,
)
def test_a_mask_lies_where_the_photo_does(tmp_path: Path, preprocess: Preprocess) -> None:
    """A photo that is its own mask, through the photo's path: the two agree but for half-covered pixels of the edge."""
    seen = preprocess.view(np.repeat((disc() * 255).astype(np.uint8)[:, :, None], 3, axis=2))[:, :, 0]
    found = read(tmp_path, (disc() * 255).astype(np.uint8), preprocess).object
    assert found.shape == seen.shape
    clear = (seen == 0) | (seen == 255)
    assert clear.mean() > 0.8
    np.testing.assert_array_equal(found[clear], seen[clear] > 127)


def test_a_shifted_mask_would_be_noticed() -> None:
    preprocess = Preprocess(resize=30)
    seen = preprocess.view(np.repeat((disc() * 255).astype(np.uint8)[:, :, None], 3, axis=2))[:, :, 0]
    moved = preprocess.place(np.roll(disc(), 3, axis=1))
    clear = (seen == 0) | (seen == 255)
    assert (moved[clear] != (seen[clear] > 127)).any()


def test_place_takes_the_nearest_pixel() -> None:
    plane = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(
        Preprocess(resize=(6, 8)).place(plane), plane.repeat(2, axis=0).repeat(2, axis=1)
    )
    np.testing.assert_array_equal(Preprocess(resize=(1, 2)).place(plane), [[plane[1, 1], plane[1, 3]]])
    np.testing.assert_array_equal(Preprocess(crop=(1, 2)).place(plane), plane[1:2, 1:3])
    with pytest.raises(InputError, match="the crop of 9 x 9 pixels is larger than the image"):
        Preprocess(crop=(9, 9)).place(plane)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros(SIZE, np.uint8), "it is empty"),
        (semantic(np.full(SIZE, IGNORE)), "it is empty"),
        (np.zeros((60, 81), np.uint8), "81 x 60 pixels, but the photo has 80 x 60"),
        (
            np.mgrid[:60, :80][1].astype(np.uint8) % 4,
            "the grey levels 0, 1, 2, 3 are neither black and white",
        ),
        (np.mgrid[:60, :80][1].astype(np.uint8), "the grey levels 0, 1, 2, 3, 4, ... are neither"),
        (np.dstack([disc() * 9, disc(), disc()]).astype(np.uint8), "must hold ids as R \\+ 256·G with B = 0"),
        (np.dstack([disc()] * 4).astype(np.uint8), "it is partly transparent"),
    ],
    ids=["black", "ignored", "size", "labels", "ramp", "blue", "alpha"],
)
def test_what_is_no_mask_is_refused(tmp_path: Path, pixels: NDArray[Any], message: str) -> None:
    with pytest.raises(MaskError, match=message):
        read(tmp_path, pixels)


def test_an_object_outside_the_crop_is_refused(tmp_path: Path) -> None:
    corner = np.zeros(SIZE, np.uint8)
    corner[:3, :3] = 255
    with pytest.raises(MaskError, match="nothing of the object is left in the crop that the model sees"):
        read(tmp_path, corner, Preprocess(crop=(30, 30)))


def test_a_missing_a_double_and_a_broken_mask(tmp_path: Path) -> None:
    (tmp_path / "dog.png").write_bytes(b"broken")
    masks = read_masks(tmp_path)
    with pytest.raises(MaskError, match=r"cat.jpg: there is no mask cat.png \(or of another ending\) in "):
        masks.of(Path("cat.jpg"), SIZE, PLAIN, 0)
    with pytest.raises(MaskError, match=r"mask .*dog.png: not an image"):
        masks.of(Path("dog.jpg"), SIZE, PLAIN, 0)
    (tmp_path / "dog.bmp").write_bytes(b"broken")
    with pytest.raises(MaskError, match=r"there are several masks in .*: dog.bmp, dog.png. Keep one"):
        read_masks(tmp_path).of(Path("dog.jpg"), SIZE, PLAIN, 0)


def test_folders_without_masks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="is not a folder"):
        read_masks(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no mask")
    with pytest.raises(OptionError, match="there are none in"):
        read_masks(tmp_path)


def test_ids_are_the_lines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("dog\n2\ncat\n")
    assert read_ids(path, ["cat", "dog", "crane", "crane"]) == {1: 1, 2: 2, 0: 3}
    for text, message in {
        "dog\n\ncat": "line 2: it is empty",
        "wolf": "line 1: 'wolf' is no class of the model; write its index",
        "crane": "line 1: 'crane' names several classes of the model; write its index",
        "dog\n1": "line 2: class 1 has the id 1 already",
    }.items():
        path.write_text(text)
        with pytest.raises(OptionError, match=message):
            read_ids(path, ["cat", "dog", "crane", "crane"])
    with pytest.raises(OptionError, match="cannot be read as text"):
        read_ids(tmp_path / "nowhere", None)
