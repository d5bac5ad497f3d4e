"""FullGrad against the formula of the authors' code on PyTorch's own gradients (github.com/idiap/fullgrad-saliency).

The code itself is on no package index. What it does is small: the gradient at the output of every layer with a bias
times that bias; the bias of a BatchNorm is what it adds when its statistics are frozen.
"""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from srd_onnx import Explainer
from srd_onnx.methods.fullgrad import FullGradient, fullgrad
from tests_peers.networks import PIXELS, Pair, assert_agrees, pair

NAMES = ("vgg", "resnet", "squeezenet")


def _bias(layer: nn.Module) -> Tensor | None:
    if isinstance(layer, nn.BatchNorm2d):
        assert layer.running_mean is not None
        assert layer.running_var is not None
        return layer.bias - layer.running_mean * layer.weight / torch.sqrt(layer.running_var + layer.eps)
    return layer.bias if isinstance(layer, nn.Conv2d | nn.Linear) else None


def _full_gradient(both: Pair) -> tuple[Tensor, list[Tensor]]:
    """``x dz/dx``, and ``b dz/db`` shaped as the output of each layer with a bias."""
    kept: list[tuple[Tensor, Tensor]] = []

    def keep(layer: nn.Module, _inputs: object, output: Tensor) -> None:
        bias = _bias(layer)
        if bias is not None:
            output.retain_grad()
            kept.append((bias, output))

    for layer in both.torch.modules():
        layer.register_forward_hook(keep)
    x = both.data.requires_grad_()
    scores = both.torch(x)
    sum(scores[i, target] for i, target in enumerate(both.targets)).backward()
    assert x.grad is not None
    parts = [(bias.reshape(1, -1, *[1] * (output.dim() - 2)) * output.grad).detach() for bias, output in kept]
    return (x * x.grad).detach(), parts


def _scaled(part: Tensor) -> Tensor:
    size = part.abs()
    flat = size.flatten(1)
    size = size - flat.min(dim=1).values[:, None, None, None]
    return size / (size.flatten(1).max(dim=1).values[:, None, None, None] + 1e-6)


def _their_maps(both: Pair) -> NDArray[np.float32]:
    at_input, parts = _full_gradient(both)
    total = _scaled(at_input).sum(dim=1, keepdim=True)
    for part in parts:
        if part.dim() == 4:
            wide = functional.interpolate(
                _scaled(part), size=both.data.shape[2:], mode="bilinear", align_corners=True
            )
            total = total + wide.sum(dim=1, keepdim=True)
    return np.asarray(total[:, 0].numpy())


@pytest.mark.parametrize("name", NAMES)
def test_the_maps(name: str) -> None:
    both = pair(name)
    assert_agrees(both.explained("fullgrad"), _their_maps(pair(name)))


@pytest.mark.parametrize("name", NAMES)
def test_each_part_and_their_sum(name: str) -> None:
    both = pair(name)
    explainer = Explainer(both.onnx, preset="paper", preprocess=PIXELS, providers="cpu")
    compiled = fullgrad().make(explainer, explainer.case({"input": tuple(both.data.shape)}))
    assert isinstance(compiled, FullGradient)
    found = compiled.parts({"input": both.data.numpy()}, np.array(both.targets))
    at_input, parts = _full_gradient(pair(name))
    np.testing.assert_allclose(found.input, at_input.numpy(), rtol=0, atol=1e-4 * float(at_input.abs().max()))
    ours = sorted((np.asarray(part, np.float64).sum() for _, _, part in found.biases), key=abs)
    theirs = sorted((float(part.double().sum()) for part in parts), key=abs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * max(map(abs, theirs)))
    total = found.input.sum() + sum(ours)
    np.testing.assert_allclose(total, found.seed.sum(), rtol=1e-4)


def test_the_comparison_notices_that_biases_are_left_out() -> None:
    both = pair("vgg")
    at_input, _ = _full_gradient(pair("vgg"))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_agrees(both.explained("fullgrad"), _scaled(at_input).sum(dim=1).numpy())
