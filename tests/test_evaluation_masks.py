"""Masks and grids in an evaluation."""

import functools
from pathlib import Path

import cv2
import numpy as np
import pytest

from srd_onnx.evaluation.contenders import contender_named
from srd_onnx.evaluation.masks import read_masks
from srd_onnx.inputs.preprocess import read_image
from srd_onnx.metrics.metric import Explained
from tests.evaluation_nets import explainer, masks_for, metric, photos, total
from tests.test_evaluation import evaluated


def inside(explained: Explained) -> float:
    assert explained.mask is not None
    return float(explained.map[explained.mask].sum())


def test_a_metric_gets_the_mask_and_no_relevance_where_it_is_to_be_ignored(tmp_path: Path) -> None:
    images = photos(tmp_path / "p", "red", "blue")
    ids = np.zeros((16, 16), np.int64)
    ids[4:9, 2:12] = 7
    ids[:, :5] = 1000
    folder = masks_for(tmp_path / "m", images[:1], ids)
    asked = [metric("inside", inside, "mask"), metric("total", total), metric("everywhere", total, "mask")]
    rows = evaluated(images, *asked, methods=["gradient-x-input"], masks=read_masks(folder))
    found = {(Path(row.image).name, row.metric): row for row in rows}
    alone = explainer().with_method(contender_named("gradient-x-input").method)
    relevance = alone.explain(images[0])[0].relevance.astype(np.float64)
    assert found["0_red.png", "inside"].value == pytest.approx(relevance[ids == 7].sum())
    assert found["0_red.png", "everywhere"].value == pytest.approx(relevance[:, 5:].sum())
    assert found["0_red.png", "total"].value == pytest.approx(relevance.sum())
    assert "there is no mask 1_blue.png" in (found["1_blue.png", "inside"].error or "")
    assert found["1_blue.png", "total"].error is None


def corner(explained: Explained, seen: list[Explained]) -> float:
    seen.append(explained)
    return inside(explained)


def test_each_confident_photo_is_asked_for_in_one_grid_of_four_classes(tmp_path: Path) -> None:
    images = photos(tmp_path, "red", "green", "blue", "white", "red", "blue")
    seen: list[Explained] = []
    asked = metric("grid", functools.partial(corner, seen=seen), "grid")
    rows = evaluated(images, asked, methods=["gradient-x-input"])
    assert [Path(row.image) for row in rows] == images
    names = [name for name in ("red", "green", "blue", "white")]
    for row, explained in zip(rows, seen, strict=True):
        assert row.grid.count(row.image) == 1
        assert len({Path(one).stem.split("_")[1] for one in row.grid}) == 4
        assert explained.mask is not None
        cell = row.grid.index(row.image)
        rows_, columns = divmod(cell, 2)
        place = (slice(8 * rows_, 8 * rows_ + 8), slice(8 * columns, 8 * columns + 8))
        expected = np.zeros((16, 16), bool)
        expected[place] = True
        np.testing.assert_array_equal(explained.mask, expected)
        assert names[explained.target] in row.image
        # Each cell is the photo at half its size: means of 2 x 2 pixels.
        pixels = read_image(row.image) / 255
        half = pixels.reshape(8, 2, 8, 2, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
        np.testing.assert_allclose(explained.input[(slice(None), *place)], half, atol=1e-6)
    again = evaluated(images, metric("grid", inside, "grid"), methods=["gradient-x-input"])
    assert [row.grid for row in again] == [row.grid for row in rows]
    other = evaluated(images, metric("grid", inside, "grid"), methods=["gradient-x-input"], seed=3)
    assert [row.grid for row in other] != [row.grid for row in rows]


def test_a_model_of_any_size_gets_grids_of_whole_photos(tmp_path: Path) -> None:
    from tests.evaluation_nets import colour_net

    seen: list[Explained] = []
    asked = metric("grid", functools.partial(corner, seen=seen), "grid")
    base = explainer(colour_net("S"))
    evaluated(photos(tmp_path, "red", "green", "blue", "white"), asked, methods=["srd"], base=base)
    assert {one.input.shape for one in seen} == {(3, 32, 32)}


def test_a_photo_that_fits_no_grid_says_why(tmp_path: Path) -> None:
    grey = tmp_path / "grey.png"
    cv2.imwrite(str(grey), np.full((16, 16, 3), 8, np.uint8))
    images = photos(tmp_path, "red", "green", "blue", "white")
    rows = evaluated([*images, grey], metric("grid", inside, "grid"), methods=["srd"])
    assert [row.error for row in rows[:4]] == [None] * 4
    assert (rows[4].error or "").startswith("in no grid: predicted with probability 0.29, less than 0.5")
    rows = evaluated(images[:3], metric("grid", inside, "grid"), methods=["srd"])
    assert {row.error for row in rows} == {
        "in no grid: it takes 4 classes that are predicted confidently, there are 3"
    }
