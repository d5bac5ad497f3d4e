"""The drawn pictures of the benchmark: the same for a seed, with exact masks, and with grounds that tell no label."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import numpy_helper, parser

from benchmarks import pasted, pasted_net
from benchmarks.pasted import CLASSES, PREPROCESS, SIDE, Array, Pictures, cells, draw, grids

COUNT = 40


@pytest.fixture(scope="module")
def single() -> Pictures:
    return draw(COUNT, [3, 1])


@pytest.fixture(scope="module")
def double() -> Pictures:
    return draw(COUNT, [3, 2], objects=2)


@pytest.fixture(scope="module")
def grid() -> Pictures:
    return grids(8, [3, 3])


def require_exact_masks(pictures: Pictures) -> None:
    """A pixel is in one mask where the objects changed it, and in none elsewhere."""
    changed = (pictures.photos != pictures.grounds).any(axis=-1)
    side = changed.shape[-1]
    np.testing.assert_array_equal(pictures.masks.reshape(len(changed), -1, side, side).sum(axis=1), changed)


def require_same(a: Pictures, b: Pictures) -> None:
    for name in ("photos", "labels", "masks", "grounds", "images"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("kind", ["single", "double", "grid"])
def test_masks_are_where_the_picture_without_objects_differs(
    kind: str, request: pytest.FixtureRequest
) -> None:
    pictures: Pictures = request.getfixturevalue(kind)
    require_exact_masks(pictures)
    assert pictures.masks.any(axis=(-2, -1)).all()


def test_the_check_of_masks_notices_one_that_is_a_pixel_off(double: Pictures) -> None:
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        require_exact_masks(replace(double, masks=np.roll(double.masks, 1, axis=-1)))


def test_the_same_seed_gives_the_same_pictures(single: Pictures, double: Pictures, grid: Pictures) -> None:
    require_same(draw(COUNT, [3, 1]), single)
    require_same(draw(COUNT, [3, 2], objects=2), double)
    require_same(grids(8, [3, 3]), grid)


def test_another_seed_gives_others(single: Pictures) -> None:
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        require_same(draw(COUNT, [4, 1]), single)


@pytest.mark.parametrize("count", [1, COUNT, 57])
def test_each_class_comes_as_often_as_the_others(count: int) -> None:
    numbers = np.bincount(draw(count, [5], side=48).labels, minlength=len(CLASSES))
    assert numbers.max() - numbers.min() <= 1
    assert numbers.sum() == count


def test_the_order_of_labels_and_the_partners_are_random(double: Pictures) -> None:
    first, second = double.labels.T
    assert (first != second).all()
    assert (np.diff(first) == 1).mean() < 0.5
    assert len(np.unique((second - first) % len(CLASSES))) == len(CLASSES) - 1


def test_grounds_do_not_depend_on_the_labels() -> None:
    """Every label gets the same grounds, bit by bit; and the photos do differ."""
    runs = [pasted._drawn(np.full((6, 1), label), [7], SIDE) for label in range(len(CLASSES))]
    for photos, _, grounds in runs[1:]:
        np.testing.assert_array_equal(grounds, runs[0][2])
        assert (photos != runs[0][0]).any(axis=(1, 2, 3)).all()


def test_images_are_the_photos_by_the_preprocessing_that_explainers_use(single: Pictures) -> None:
    wanted = np.stack([PREPROCESS(photo).transpose(2, 0, 1) for photo in single.photos[:4]])
    np.testing.assert_array_equal(single.images[:4], wanted)
    assert single.images.dtype == np.float32
    assert single.images.shape == (COUNT, 3, SIDE, SIDE)


def test_objects_are_whole_and_lie_apart(single: Pictures, double: Pictures) -> None:
    for masks in (single.masks, np.any(double.masks, axis=1)):
        border = np.ones((SIDE, SIDE), bool)
        border[1:-1, 1:-1] = False
        assert not (masks & border).any()
    touching = [
        cv2.connectedComponents(mask.astype(np.uint8))[0] - 1 for mask in np.any(double.masks, axis=1)
    ]
    assert min(touching) >= 2


def _holes(mask: Array) -> int:
    """The number of parts of the outside that the object encloses."""
    return cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)[0] - 2


def _solidity(mask: Array) -> float:
    """The object's share of its convex hull."""
    hull = cv2.convexHull(np.argwhere(mask).astype(np.int32))
    return float(mask.sum() / (cv2.contourArea(hull) + cv2.arcLength(hull, closed=True) / 2 + 1))


def test_the_outline_tells_the_class() -> None:
    """Area over hull: of the plus 2.15 / 3.08, of the flower π (0.68² + 0.3² / 2) over a little more than 2.28."""
    pictures = draw(200, [9])
    for name, mean in (("disc", 1.0), ("square", 1.0), ("plus", 0.7), ("flower", 0.67)):
        masks = pictures.masks[pictures.labels == CLASSES.index(name)]
        assert np.mean([_solidity(mask) for mask in masks]) == pytest.approx(mean, abs=0.07)
        assert [_holes(mask) for mask in masks] == [0] * len(masks)
    rings = pictures.masks[pictures.labels == CLASSES.index("ring")]
    assert [_holes(mask) for mask in rings] == [1] * len(rings)


def test_a_grid_has_four_classes_each_in_its_cell(grid: Pictures) -> None:
    assert all(len(set(labels)) == 4 for labels in grid.labels.tolist())
    np.testing.assert_array_equal(cells().sum(axis=0), 1)
    assert not (grid.masks & ~cells()).any()
    assert grid.photos.shape == (8, SIDE, SIDE, 3)
    np.testing.assert_array_equal(cells()[1, :2, -2:], True)


def test_some_of_the_pictures(double: Pictures) -> None:
    some = double[np.array([5, 2])]
    np.testing.assert_array_equal(some.images, double.images[[5, 2]])
    np.testing.assert_array_equal(some.masks, double.masks[[5, 2]])
    np.testing.assert_array_equal(some.labels, double.labels[[5, 2]])


def test_more_than_two_objects_are_refused() -> None:
    with pytest.raises(ValueError, match="1 or 2 objects, not 3; more in `grids`"):
        draw(4, [0], objects=3)


def test_without_torch_a_missing_network_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pasted_net, "WHEELS", tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ModuleNotFoundError, match=r"pasted_vgg-3\.onnx does not exist, and training it needs"
    ):
        pasted_net.trained("vgg", seed=3)


def test_a_network_in_the_cache_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pasted_net, "WHEELS", tmp_path)
    given = pasted_net.Facts(0.97, 3, [[48, 10]], 64, 2, 1.5, "2.13.0")
    calls: list[tuple[str, int, int]] = []

    def train(name: str, seed: int, threads: int) -> tuple[bytes, pasted_net.Facts]:
        calls.append((name, seed, threads))
        return b"model", given

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(pasted_net, "_train", train)
    found = [pasted_net.trained("resnet", seed=3, threads=1) for _ in range(2)]
    assert calls == [("resnet", 3, 1)]
    assert [one.facts for one in found] == [given, given]
    assert found[0].path.read_bytes() == b"model"


def _untrained() -> bytes:
    """A network of one convolution that takes the pictures and scores the classes."""
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[n, 3, 96, 96] image) => (float[n, 10] scores) {
            c = Conv<pads = [1, 1, 1, 1]>(image, w)
            r = Relu(c)
            m = GlobalAveragePool(r)
            scores = Flatten(m)
        }"""
    )
    weights = np.random.default_rng(0).standard_normal((len(CLASSES), 3, 3, 3), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    return bytes(model.SerializeToString())


def test_known_are_the_pictures_of_which_the_highest_scores_are_the_objects(
    tmp_path: Path, double: Pictures
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(_untrained())
    order = np.argsort(-pasted_net.scores(path, double.images), axis=1)
    labels = order[:, 1::-1].copy()  # the second highest first: which is named first does not matter
    assert pasted_net.known(path, replace(double, labels=labels)).all()
    labels[3, 0] = order[3, 2]
    np.testing.assert_array_equal(
        pasted_net.known(path, replace(double, labels=labels)), np.arange(COUNT) != 3
    )


def test_the_facts_of_a_network_are_measured_under_each_of_the_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = pasted_net.Facts(0.1, 0, [[48, 10]], 64, 2, 1.5, "2.13.0")
    monkeypatch.setattr(pasted_net, "WHEELS", tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(pasted_net, "_train", lambda *_: (_untrained(), given))
    monkeypatch.setattr(pasted_net, "known", lambda _, pictures: np.ones(len(pictures.labels), bool))
    lines = pasted_net.facts("vgg", seed=0, count=2, threads=1)
    assert lines[1] == (
        "  finds all objects in 100% of the pictures with one, 100% of the pictures with two, "
        "100% of the pictures with four"
    )
    assert [line.split(": inside")[0] for line in lines[2:]] == [
        "  as it is by default",
        "  {'seed': 'contrast', 'sign': 'positive'}",
        "  {'boundary': 'image'}",
    ]
