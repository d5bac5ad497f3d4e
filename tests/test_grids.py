"""Grids for the Grid Pointing Game: who is in which, and how the pictures are joined."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srd_onnx.evaluation.grids import cell_mask, grids_of, joined


@given(classes=st.lists(st.integers(0, 6), max_size=30), seed=st.integers(0, 5))
def test_every_photo_is_asked_for_once_among_four_classes(classes: list[int], seed: int) -> None:
    grids = grids_of(classes, seed)
    if len(set(classes)) < 4:
        assert grids == []
        return
    for grid in grids:
        assert len(grid.members) == len({classes[i] for i in grid.members}) == 4
        assert set(grid.asked) <= set(grid.members)
    assert sorted(i for grid in grids for i in grid.asked) == list(range(len(classes)))
    assert grids == grids_of(classes, seed)


def test_four_photos_are_one_grid_and_eight_are_two() -> None:
    assert [len(grid.asked) for grid in grids_of([0, 1, 2, 3], 0)] == [4]
    assert [len(grid.asked) for grid in grids_of([0, 1, 2, 3] * 2, 0)] == [4, 4]


def test_the_order_is_that_of_the_seed() -> None:
    classes = list(range(12))
    assert grids_of(classes, 0) == grids_of(classes, 0) != grids_of(classes, 1)


@pytest.mark.parametrize("size", [(6, 8), (7, 9)])
@pytest.mark.parametrize("first", [True, False])
def test_inputs_lie_side_by_side(size: tuple[int, int], first: bool) -> None:
    """Of four flat inputs each cell has its own value, the channels apart."""
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    if first:
        inputs = [np.broadcast_to(v[:, None, None], (3, *size)).copy() for v in values]
        found = joined(inputs, (1, 2), size).transpose(1, 2, 0)
    else:
        inputs = [np.broadcast_to(v, (*size, 3)).copy() for v in values]
        found = joined(inputs, (0, 1), size)
    masks = [cell_mask(size, cell) for cell in range(4)]
    assert np.sum(masks, axis=0).tolist() == np.ones(size, int).tolist()
    for value, mask in zip(values, masks, strict=True):
        np.testing.assert_allclose(found[mask], np.broadcast_to(value, (int(mask.sum()), 3)), rtol=1e-6)
    assert masks[1][0, -1]
    assert masks[2][-1, 0]


def test_a_grid_of_whole_inputs_changes_no_pixel() -> None:
    inputs = list(np.random.default_rng(0).random((4, 3, 5, 6), np.float32))
    found = joined(inputs, (1, 2), (10, 12))
    np.testing.assert_array_equal(found[:, 5:, :6], inputs[2])


def test_shrinking_is_by_area_and_bytes_are_rounded() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    found = joined(list(pixels), (0, 1), (8, 8))
    assert found.dtype == np.uint8
    expected = pixels[3].reshape(4, 2, 4, 2, 3).mean(axis=(1, 3))
    assert np.abs(found[4:, 4:] - expected).max() <= 0.5
