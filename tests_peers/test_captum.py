"""The gradient methods against captum 0.9 on the same weights."""

import numpy as np
import pytest
import torch
from captum.attr import GuidedBackprop, InputXGradient, IntegratedGradients, Saliency
from torch import Tensor

from srd_onnx import Explanation
from srd_onnx.methods.averaged import smoothgrad
from tests_peers.networks import NETWORKS, Pair, assert_agrees, pair

_DECIDED_BY_ROUNDING = 0.02


def _greatest(gradient: Tensor) -> np.ndarray:
    return gradient.detach().abs().amax(dim=1).numpy()


def _summed(attribution: Tensor) -> np.ndarray:
    return attribution.detach().sum(dim=1).numpy()


@pytest.fixture(params=list(NETWORKS))
def both(request: pytest.FixtureRequest) -> Pair:
    return pair(request.param)


def test_saliency(both: Pair) -> None:
    theirs = Saliency(both.torch).attribute(both.data.requires_grad_(), target=both.targets, abs=False)
    both.data.requires_grad_(False)
    assert_agrees(both.explained("saliency"), _greatest(theirs))


def test_gradient_times_input(both: Pair) -> None:
    theirs = InputXGradient(both.torch).attribute(both.data.requires_grad_(), target=both.targets)
    both.data.requires_grad_(False)
    assert_agrees(both.explained("gradient-x-input"), _summed(theirs))


@pytest.mark.parametrize("baseline", [0.0, 0.5])
def test_integrated_gradients_with_captums_own_quadrature(both: Pair, baseline: float) -> None:
    theirs = IntegratedGradients(both.torch).attribute(
        both.data, baselines=baseline, target=both.targets, n_steps=5
    )
    ours = both.explained(f"integrated-gradients:steps=5,baseline={baseline}")
    assert_agrees(ours, _summed(theirs), but_for=_DECIDED_BY_ROUNDING)


def test_guided_backprop(both: Pair) -> None:
    for part in both.torch.modules():
        if isinstance(part, torch.nn.ReLU6):  # captum knows ReLU alone
            part.register_full_backward_hook(lambda _module, gradients, _outer: (gradients[0].relu(),))
    theirs = GuidedBackprop(both.torch).attribute(both.data.requires_grad_(), target=both.targets)
    both.data.requires_grad_(False)
    assert_agrees(both.explained("guided-backprop"), _greatest(theirs))


def test_smoothgrad_with_the_same_noise(both: Pair) -> None:
    total = torch.zeros_like(both.data)
    width = 0.2 * (both.data.amax(dim=(1, 2, 3)) - both.data.amin(dim=(1, 2, 3)))[:, None, None, None]
    for sample in range(4):
        noise = np.random.default_rng([7, sample, 0]).standard_normal((1, *both.data.shape[1:]))
        noisy = (both.data + width * torch.from_numpy(noise)).float().requires_grad_()
        total += Saliency(both.torch).attribute(noisy, target=both.targets, abs=False)
    assert_agrees(both.explained(smoothgrad(samples=4, noise=0.2, seed=7)), _greatest(total / 4))


def test_the_comparison_notices_a_wrong_map(both: Pair) -> None:
    theirs = InputXGradient(both.torch).attribute(both.data.requires_grad_(), target=both.targets)
    both.data.requires_grad_(False)
    ours: list[Explanation] = both.explained("gradient-x-input")
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_agrees(ours, 1.001 * _summed(theirs))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_agrees(ours, 1.005 * _summed(theirs), but_for=_DECIDED_BY_ROUNDING)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_agrees(both.explained("saliency"), _summed(theirs))
