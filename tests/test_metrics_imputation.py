"""Noisy linear imputation against its definition written out, and pictures for which the answer is known."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from srd_onnx.metrics.imputation import WEIGHTS, imputed

Array = NDArray[Any]
PICTURE = np.random.default_rng(0).standard_normal((2, 6, 7))
REMOVED = np.random.default_rng(1).random((6, 7)) < 0.6


def by_loops(picture: Array, removed: Array) -> Array:
    """One dense equation for each removed position: it is the weighted mean of the neighbours that there are."""
    _, height, width = picture.shape
    at = [(y, x) for y in range(height) for x in range(width) if removed[y, x]]
    matrix, right = np.zeros((len(at), len(at))), np.zeros((len(at), len(picture)))
    for row, (y, x) in enumerate(at):
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                ny, nx = y + dy, x + dx
                if (dy, dx) == (0, 0) or not (0 <= ny < height and 0 <= nx < width):
                    continue
                weight = 1 / 12 if dy and dx else 1 / 6
                matrix[row, row] += weight
                if removed[ny, nx]:
                    matrix[row, at.index((ny, nx))] -= weight
                else:
                    right[row] += weight * picture[:, ny, nx]
    filled = picture.copy()
    for (y, x), value in zip(at, np.linalg.solve(matrix, right), strict=True):
        filled[:, y, x] = value
    return filled


def test_it_is_the_definition() -> None:
    np.testing.assert_allclose(imputed(PICTURE, REMOVED, 0), by_loops(PICTURE, REMOVED), atol=1e-6)
    assert sum(WEIGHTS.values()) == pytest.approx(1)


def test_another_rule_would_be_noticed() -> None:
    mean = np.where(REMOVED, PICTURE[:, ~REMOVED].mean(axis=1)[:, None, None], PICTURE)
    assert np.abs(mean - imputed(PICTURE, REMOVED, 0)).max() > 0.1


def test_a_slope_is_filled_in_exactly_inside() -> None:
    slope = np.stack([np.add.outer(np.arange(8.0) * 2, np.arange(9.0)), np.ones((8, 9))])
    removed = np.zeros((8, 9), bool)
    removed[2:6, 2:7] = True
    np.testing.assert_allclose(imputed(slope, removed, 0), slope, atol=1e-6)


def test_channels_may_come_last() -> None:
    last = imputed(PICTURE.transpose(1, 2, 0), REMOVED, 2)
    np.testing.assert_array_equal(last.transpose(2, 0, 1), imputed(PICTURE, REMOVED, 0))


def test_noise_falls_on_what_was_removed_alone() -> None:
    noise = np.random.default_rng(2).standard_normal(PICTURE.shape)
    difference = imputed(PICTURE, REMOVED, 0, noise) - imputed(PICTURE, REMOVED, 0)
    np.testing.assert_allclose(difference, np.where(REMOVED, noise, 0), atol=1e-6)


def test_nothing_removed_and_everything_removed() -> None:
    np.testing.assert_array_equal(imputed(PICTURE, np.zeros((6, 7), bool), 0), PICTURE.astype(np.float32))
    everything = imputed(PICTURE, np.ones((6, 7), bool), 0)
    np.testing.assert_allclose(everything, PICTURE.mean(axis=(1, 2), keepdims=True) + 0 * PICTURE, atol=1e-6)


def test_a_large_picture_takes_moments() -> None:
    picture = np.random.default_rng(3).standard_normal((3, 224, 224))
    removed = np.random.default_rng(4).random((224, 224)) < 0.9
    filled = imputed(picture, removed, 0)
    assert np.isfinite(filled).all()
    assert np.abs(filled).max() <= np.abs(picture).max()  # a mean of means
