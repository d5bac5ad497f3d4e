"""LRP against zennit 0.5 on the same weights."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import (
    EpsilonGammaBox,
    EpsilonPlus,
    LayerMapComposite,
    SpecialFirstLayerMapComposite,
    layer_map_base,
)
from zennit.core import Composite, Hook
from zennit.rules import Epsilon, Flat, Gamma, ReLUGuidedBackprop, ZPlus
from zennit.torchvision import ResNetCanonizer
from zennit.types import Convolution

from tests_peers.networks import CLASSES, PIXELS, Pair, assert_agrees, pair

_GUARD = 1e-9  # at sums and means, as ours
_LAYERS = (nn.Conv2d, nn.Linear)


def _theirs(both: Pair, composite: Composite) -> NDArray[np.float32]:
    with Gradient(model=both.torch, composite=composite) as attributor:
        onehot = torch.eye(CLASSES)[both.targets]
        # Relevance starts as the score itself.
        _, relevance = attributor(both.data, lambda output: output * onehot)
    return np.asarray(relevance.detach().sum(dim=1).numpy())


def _everywhere(rule: Hook, name: str) -> Composite:
    return LayerMapComposite([*layer_map_base(_GUARD), (_LAYERS, rule)], canonizers=_canonizers(name))


def _canonizers(name: str) -> list[object]:
    return [ResNetCanonizer()] if name == "resnet" else [SequentialMergeBatchNorm()]


NAMES = ("vgg", "resnet", "squeezenet")


# With 1e-6 the deeper two are not decided by float32: zennit itself gives there another map in double precision, up to
# 1e-3 of the greatest value, where outputs close to 0 divide.
@pytest.mark.parametrize(
    ("name", "epsilon"), [("vgg", 1e-6), *((name, epsilon) for name in NAMES for epsilon in (0.01, 0.1))]
)
def test_epsilon(name: str, epsilon: float) -> None:
    both = pair(name)
    theirs = _everywhere(Epsilon(epsilon), name)
    assert_agrees(both.explained(f"lrp-epsilon:epsilon={epsilon}"), _theirs(both, theirs))


@pytest.mark.parametrize("name", NAMES)
def test_zplus(name: str) -> None:
    both = pair(name)
    assert_agrees(both.explained("lrp-zplus"), _theirs(both, _everywhere(ZPlus(), name)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gamma", [0.25, 2.0])
def test_gamma(name: str, gamma: float) -> None:
    both = pair(name)
    assert_agrees(both.explained(f"lrp-gamma:gamma={gamma}"), _theirs(both, _everywhere(Gamma(gamma), name)))


@pytest.mark.parametrize("name", NAMES)
def test_epsilon_plus(name: str) -> None:
    both = pair(name)
    theirs = EpsilonPlus(canonizers=_canonizers(name))
    assert_agrees(both.explained("lrp-epsilon-plus"), _theirs(both, theirs))


@pytest.mark.parametrize("name", NAMES)
def test_epsilon_gamma_box(name: str) -> None:
    both = pair(name)
    low, high = torch.zeros_like(both.data), torch.ones_like(both.data)
    theirs = EpsilonGammaBox(low=low, high=high, canonizers=_canonizers(name))
    assert PIXELS.scale == pytest.approx(1 / 255)
    assert_agrees(both.explained("lrp-composite"), _theirs(both, theirs))


@pytest.mark.parametrize("name", NAMES)
def test_epsilon_gamma_flat(name: str) -> None:
    both = pair(name)
    theirs = SpecialFirstLayerMapComposite(
        layer_map=[*layer_map_base(_GUARD), (Convolution, Gamma(0.25)), ((nn.Linear,), Epsilon())],
        first_map=[(Convolution, Flat())],
        canonizers=_canonizers(name),
    )
    assert_agrees(both.explained("lrp-composite:first=flat"), _theirs(both, theirs))


@pytest.mark.parametrize("name", NAMES)
def test_guided_backprop(name: str) -> None:
    both = pair(name)
    composite = LayerMapComposite([((nn.ReLU,), ReLUGuidedBackprop())])
    with Gradient(model=both.torch, composite=composite) as attributor:
        _, gradient = attributor(both.data, torch.eye(CLASSES)[both.targets])
    assert_agrees(both.explained("guided-backprop"), gradient.detach().abs().amax(dim=1).numpy())


@pytest.mark.parametrize("name", NAMES)
def test_the_comparison_notices_another_rule(name: str) -> None:
    both = pair(name)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_agrees(both.explained("lrp-gamma"), _theirs(both, _everywhere(Gamma(0.3), name)))
