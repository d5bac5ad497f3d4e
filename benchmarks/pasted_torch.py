"""A ResNet and a VGG for the pictures of `pasted`, and their training. torch is needed only here."""

# torch is no dependency: where it is not installed, its types are unknown.
# mypy: disable-error-code="import-not-found, no-any-return", allow-subclassing-any

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import torch_training
from benchmarks.pasted import CLASSES, SIDE, Array, Pictures, as_input


class Block(nn.Module):
    """Two 3×3 convolutions with batch norm beside the identity, or beside a 1×1 where the shape changes."""

    def __init__(self, fan_in: int, fan_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(fan_out), nn.BatchNorm2d(fan_out)
        self.down: nn.Module = nn.Identity()
        if stride > 1 or fan_in != fan_out:
            down = nn.Conv2d(fan_in, fan_out, 1, stride, bias=False)
            self.down = nn.Sequential(down, nn.BatchNorm2d(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        """[N, fan_in, H, W] to [N, fan_out, H / stride, W / stride]."""
        inner = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(inner + self.down(x))


@dataclass(frozen=True, eq=False)
class Net:
    """A network in two parts: the trunk gives [N, channels, H, W], the head scores it."""

    trunk: nn.Sequential
    channels: int
    head: nn.Sequential

    @property
    def whole(self) -> nn.Sequential:
        """Both, one layer after the other."""
        return nn.Sequential(*self.trunk, *self.head)


def _mean_head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, len(CLASSES)))


def resnet() -> Net:
    """14 layers: a stem of stride 2, six blocks, global average pool, linear."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 5, 2, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    fan_in = 16
    for fan_out, strides in ((16, (1,)), (32, (2, 1)), (64, (2, 1)), (96, (2,))):
        for stride in strides:
            layers.append(Block(fan_in, fan_out, stride))
            fan_in = fan_out
    return Net(nn.Sequential(*layers), fan_in, _mean_head(fan_in))


def vgg() -> Net:
    """10 layers without batch norm: eight convolutions in five blocks, each with a max pool, then two linear ones."""
    trunk: list[nn.Module] = []
    fan_in, side = 3, SIDE
    for fan_out, repeats in ((16, 1), (24, 2), (48, 2), (64, 2), (96, 1)):
        for _ in range(repeats):
            trunk += [nn.Conv2d(fan_in, fan_out, 3, padding=1), nn.ReLU()]
            fan_in = fan_out
        trunk.append(nn.MaxPool2d(2))
        side //= 2
    for layer in trunk:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    head = (nn.Flatten(), nn.Linear(fan_in * side**2, 128), nn.ReLU(), nn.Linear(128, len(CLASSES)))
    return Net(nn.Sequential(*trunk), fan_in, nn.Sequential(*head))


NETS = {"resnet": resnet, "vgg": vgg}


def train(
    name: str, lessons: Sequence[tuple[Pictures, int]], held: Pictures, seed: int, threads: int
) -> nn.Module:
    """Fitted on one set of pictures after the other, each for so many steps; the last ones have the full size.

    On the earlier, smaller ones the trunk learns under a mean and a linear layer. Pictures are turned by right angles
    and mirrored, channels permuted or all inverted, at random.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = NETS[name]()
    early = nn.Sequential(*net.trunk, *_mean_head(net.channels)) if name == "vgg" else net.whole
    for number, (learn, steps) in enumerate(lessons, 1):
        last = number == len(lessons)
        model = (net.whole if last else early).to(memory_format=torch.channels_last)
        shown = held if last else learn[: len(held.labels)]
        torch_training.fit(model, functools.partial(_batch, learn, rng), (shown.images, shown.labels), steps)
    return net.whole.to(memory_format=torch.contiguous_format)


def _batch(learn: Pictures, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    index = rng.integers(len(learn.labels), size=torch_training.SIZE)
    x = torch.from_numpy(as_input(_varied(learn.photos[index], rng)))
    return x.contiguous(memory_format=torch.channels_last), torch.from_numpy(learn.labels[index])


def _varied(photos: Array, rng: np.random.Generator) -> Array:
    photos = np.rot90(photos, int(rng.integers(4)), axes=(1, 2))[..., rng.permutation(3)]
    photos = photos[:, :, ::-1] if rng.integers(2) else photos
    return 255 - photos if rng.integers(2) else photos
