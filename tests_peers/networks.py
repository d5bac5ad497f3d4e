"""Small networks in PyTorch with random weights, and the same as ONNX: what both sides explain."""

import copy
import functools
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import BasicBlock

from srd_onnx import Explainer, Explanation, Preprocess
from srd_onnx.methods import Method

# Pixels from 0 to 255 become 0 to 1; the data below is within.
PIXELS = Preprocess(scale=1 / 255)
CLASSES = 10


def _vgg() -> nn.Module:
    def block(into: int, out: int) -> list[nn.Module]:
        return [nn.Conv2d(into, out, 3, padding=1), nn.ReLU(), nn.Conv2d(out, out, 3, padding=1), nn.ReLU()]

    return nn.Sequential(
        *block(3, 8),
        nn.MaxPool2d(2),
        *block(8, 16),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 8 * 8, 32),
        nn.ReLU(),
        nn.Linear(32, CLASSES),
    )


def _resnet() -> nn.Module:
    return models.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=CLASSES)


def _squeezenet() -> nn.Module:
    return models.squeezenet1_1(num_classes=CLASSES)


def _mobilenet() -> nn.Module:
    return models.mobilenet_v2(num_classes=CLASSES, width_mult=0.35)


# ReLU and max pooling with a dense head; residual sums and BatchNorm; a convolutional head and concatenation; ReLU6
# and depthwise convolutions.
NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], int]] = {
    "vgg": (_vgg, 32),
    "resnet": (_resnet, 64),
    "squeezenet": (_squeezenet, 64),
    "mobilenet": (_mobilenet, 64),
}


@dataclass(frozen=True)
class Pair:
    """A network twice, and two inputs for it.

    Attributes:
        torch: a copy of the module in evaluation mode; what a test does to it stays in the test.
        data: [2, 3, S, S], from 0 to 1.
        onnx: the exported model, with an open batch.
        targets: a class for each input, the second greatest.
    """

    torch: nn.Module
    data: Tensor
    onnx: bytes
    targets: list[int]

    def explained(self, method: str | Method, **settings: Any) -> list[Explanation]:
        """Our maps, one for each input."""
        explainer = Explainer(self.onnx, method=method, preprocess=PIXELS, providers="cpu", **settings)
        return [
            explainer.explain(self.data[i : i + 1].numpy(), targets=target)[0]
            for i, target in enumerate(self.targets)
        ]


def pair(name: str) -> Pair:
    """A network of `NETWORKS` by its name."""
    made = _made(name)
    return Pair(copy.deepcopy(made.torch), made.data.clone(), made.onnx, made.targets)


@functools.cache
def _made(name: str) -> Pair:
    make, size = NETWORKS[name]
    torch.manual_seed(0)
    module = make().eval()
    with torch.no_grad():
        for path, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if path.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif tensor.is_floating_point() and tensor.dim() < 2:
                tensor.add_(torch.randn_like(tensor) * 0.2)  # biases and statistics are 0 or 1 at first
    for part in module.modules():
        if hasattr(part, "inplace"):
            part.inplace = False  # hooks on a module need its input
    data = torch.rand((2, 3, size, size))
    with torch.no_grad():
        targets = [int(row.argsort()[-2]) for row in module(data)]
    return Pair(module, data, exported(module, data), targets)


def exported(module: nn.Module, data: Tensor) -> bytes:
    """The module as an ONNX model with an open batch."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (data,),
            buffer,
            dynamo=False,
            opset_version=17,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "N"}, "output": {0: "N"}},
        )
    return buffer.getvalue()


def assert_agrees(ours: list[Explanation], theirs: NDArray[Any], *, but_for: float = 0.0) -> None:
    """Every map [H, W] is theirs [N, H, W], to 1e-4 of their greatest value.

    Args:
        ours: N explanations.
        theirs: N maps.
        but_for: the part of the positions that may differ. At some point of many between two inputs a neuron or the
            winner of a pool is decided by rounding, and then the derivative jumps for the positions that it sees.
    """
    for one, other in zip(ours, np.asarray(theirs, np.float64), strict=True):
        greatest = np.abs(other).max()
        assert greatest > 0
        wrong = np.abs(one.relevance - other) > 1e-4 * greatest
        if wrong.mean() > but_for:
            np.testing.assert_allclose(one.relevance, other, rtol=0, atol=1e-4 * greatest)
