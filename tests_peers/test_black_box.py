"""Occlusion against captum 0.9; RISE against xaitk-saliency 0.15, whose masks are those of the authors' code.

xaitk brings its maps to a greatest magnitude of 1, so that ours are compared after the same. From the same cells and
shifts every mask is what skimage makes of them, as in the authors' code; maps from other draws agree in distribution.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Occlusion
from numpy.typing import NDArray
from skimage.transform import resize
from xaitk_saliency.impls.gen_classifier_conf_sal.rise_scoring import RISEScoring
from xaitk_saliency.impls.perturb_image.rise import RISEGrid

from srd_onnx.methods.black_box import RiseMasks, occlusion, rise
from tests_peers.networks import NETWORKS, Pair, assert_agrees, pair

Array = NDArray[Any]
SMALL = {name: size for name, (_, size) in NETWORKS.items() if name in ("vgg", "squeezenet")}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("window", "stride", "value"), [(8, 4, 0.0), (9, 5, 0.5), (16, 16, 0.0)])
def test_occlusion(name: str, window: int, stride: int, value: float) -> None:
    both = pair(name)
    theirs = Occlusion(both.torch).attribute(
        both.data,
        target=both.targets,
        sliding_window_shapes=(3, window, window),
        strides=(3, stride, stride),
        baselines=value,
    )
    ours = both.explained(occlusion(window=window, stride=stride, value=value))
    assert_agrees(ours, theirs[:, 0].numpy())  # the same for each channel, since all are hidden together


def test_another_window_is_another_map() -> None:
    both = pair("vgg")
    theirs = Occlusion(both.torch).attribute(
        both.data, target=both.targets, sliding_window_shapes=(3, 8, 8), strides=(3, 4, 4), baselines=0.0
    )
    with pytest.raises(AssertionError):
        assert_agrees(both.explained(occlusion(window=8, stride=5)), theirs[:, 0].numpy())


@pytest.mark.parametrize(("cells", "size"), [(7, 224), (7, 32), (3, 50)])
def test_masks_from_the_same_draws(cells: int, size: int) -> None:
    """Every mask is the one that the authors' code makes from the same cells and shift."""
    ours = np.concatenate(list(RiseMasks(12, cells, 0.5, 3)((size, size), 5)))
    rng, width = np.random.default_rng(3), math.ceil(size / cells)
    coarse = rng.random((12, cells, cells)) < 0.5
    down, right = rng.integers(0, width, 12), rng.integers(0, width, 12)
    for mask, grid, i, j in zip(ours, coarse, down, right, strict=True):
        large = resize(
            grid.astype(np.float64), [(cells + 1) * width] * 2, order=1, mode="reflect", anti_aliasing=False
        )
        np.testing.assert_allclose(mask, large[i : i + size, j : j + size], atol=1e-5)


def their_map(both: Pair, masks: Array) -> Array:
    """Maps [2, S, S] of xaitk's scoring, from the probability of the class under each mask."""
    found = []
    for x, target in zip(both.data, both.targets, strict=True):
        with torch.no_grad():
            under = [
                both.torch(x * part[:, None]).softmax(dim=1)
                for part in torch.from_numpy(masks).float().split(100)
            ]
            whole = both.torch(x[None]).softmax(dim=1)
        weights = torch.cat(under)[:, target : target + 1].double().numpy()
        found.append(RISEScoring().generate(whole[0, target : target + 1].numpy(), weights, masks)[0])
    return np.stack(found)


def brought_to_1(maps: Array) -> Array:
    return np.asarray(maps / np.abs(maps).max(axis=(-2, -1), keepdims=True))


def our_map(both: Pair, **settings: Any) -> Array:
    return brought_to_1(np.stack([one.relevance for one in both.explained(rise(**settings))]))


@pytest.mark.parametrize("name", SMALL)
def test_rise_from_the_same_masks(name: str) -> None:
    both = pair(name)
    masks = np.concatenate(list(RiseMasks(200, 7, 0.4, 0)((SMALL[name], SMALL[name]), 100)))
    ours = our_map(both, masks=200, keep=0.4)
    np.testing.assert_allclose(ours, their_map(both, masks), rtol=0, atol=1e-4)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(ours, their_map(both, masks[:100]), rtol=0, atol=1e-4)


def test_rise_in_distribution() -> None:
    """Over independent draws of masks, each position's mean and spread are those of xaitk."""
    both, draws = pair("vgg"), 12

    def theirs(cells: int, keep: float) -> Array:
        grids = [RISEGrid(300, cells, keep, seed=1000 + seed, threads=0) for seed in range(draws)]
        return np.array([their_map(both, grid.perturb(np.zeros((32, 32)))) for grid in grids])

    ours = np.array([our_map(both, masks=300, cells=7, keep=0.5, seed=seed) for seed in range(draws)])
    same, other = theirs(7, 0.5), theirs(4, 0.7)
    spread = np.sqrt((ours.var(axis=0, ddof=1) + same.var(axis=0, ddof=1)) / draws)
    apart = np.median(np.abs(ours.mean(axis=0) - same.mean(axis=0)) / spread)
    assert 0.3 < apart / 0.674 < 2  # the median magnitude of a standard normal number is 0.674
    assert 0.5 < ours.var(axis=0).mean() / same.var(axis=0).mean() < 2
    # Other masks are told apart by the same number.
    assert np.median(np.abs(other.mean(axis=0) - same.mean(axis=0)) / spread) / 0.674 > 2
