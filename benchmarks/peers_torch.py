"""The graphs of `nets` in PyTorch, with the same weights, and what others explain them with. Only `peers` runs this."""

# torch and the peers are no dependencies: where they are not installed, their types are unknown.
# mypy: disable-error-code="import-not-found, no-any-return, import-untyped", allow-subclassing-any

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

Array = NDArray[Any]


class Vgg16(nn.Module):
    """VGG16, its layers named as in the graph."""

    def __init__(self) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {}
        fan_in, number = 3, 0
        for block, (fan_out, repeats) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], 1):
            for _ in range(repeats):
                number += 1
                layers[f"conv{number}"] = nn.Conv2d(fan_in, fan_out, 3, padding=1)
                layers[f"relu{number}"] = nn.ReLU()
                fan_in = fan_out
            layers[f"pool{block}"] = nn.MaxPool2d(2)
        for number, size in ((1, 512 * 7 * 7), (2, 4096)):
            layers[f"fc{number}"], layers[f"fc{number}_relu"] = nn.Linear(size, 4096), nn.ReLU()
        layers["logits"] = nn.Linear(4096, 1000)
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, 224, 224] to [N, 1000]."""
        for layer in self.children():
            # captum's LRP knows no module for it.
            x = layer(torch.flatten(x, 1) if isinstance(layer, nn.Linear) else x)
        return x


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution beside the identity, or beside a 1x1 where the shape changes."""

    def __init__(self, fan_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2d(fan_in, width, 1), nn.ReLU()
        self.conv2, self.relu2 = nn.Conv2d(width, width, 3, stride, 1), nn.ReLU()
        self.conv3, self.out = nn.Conv2d(width, 4 * width, 1), nn.ReLU()
        if fan_in != 4 * width:
            self.down = nn.Conv2d(fan_in, 4 * width, 1, stride)
        self.changes = fan_in != 4 * width

    def forward(self, x: Tensor) -> Tensor:
        """[N, fan_in, H, W] to [N, 4 * width, H / stride, W / stride]."""
        inner = self.conv3(self.relu2(self.conv2(self.relu1(self.conv1(x)))))
        return self.out(inner + (self.down(x) if self.changes else x))


class Resnet50(nn.Module):
    """ResNet-50, batch norm folded, its layers named as in the graph but for a dot in place of the first _."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_relu = nn.Conv2d(3, 64, 7, 2, 3), nn.ReLU()
        self.stem_pool = nn.MaxPool2d(3, 2, 1)
        fan_in, self.blocks = 64, list[nn.Module]()
        for stage, (width, repeats) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], 1):
            for number in range(repeats):
                block = Bottleneck(fan_in, width, 2 if stage > 1 and number == 0 else 1)
                self.add_module(f"s{stage}b{number}", block)
                self.blocks.append(block)
                fan_in = 4 * width
        self.pool, self.logits = nn.AdaptiveAvgPool2d(1), nn.Linear(2048, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, 224, 224] to [N, 1000]."""
        x = self.stem_pool(self.stem_relu(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.logits(torch.flatten(self.pool(x), 1))


NETS: Mapping[str, Callable[[], nn.Module]] = {"resnet50": Resnet50, "vgg16": Vgg16}
LAST = {"Resnet50": "s4b2", "Vgg16": "relu13"}  # what gives the last tensor with positions


def twin(name: str, model: onnx.ModelProto) -> nn.Module:
    """The network of that name with the weights of the graph."""
    net = NETS[name]().eval()
    found = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}
    dotted = {name.replace("_", ".", 1) if name.startswith("s") else name: t for name, t in found.items()}
    net.load_state_dict(dotted)
    return net


def input_x_gradient(net: nn.Module, x: Array, target: int) -> Array:
    """One forward and one backward pass, in plain PyTorch."""
    given = torch.from_numpy(x).requires_grad_()
    (gradient,) = torch.autograd.grad(net(given)[:, target].sum(), given)
    return (given * gradient).detach().numpy().sum(axis=1)


def captum_lrp(net: nn.Module, x: Array, target: int) -> Array:
    """LRP by captum, its default rules."""
    from captum.attr import LRP

    given = torch.from_numpy(x).requires_grad_()
    return LRP(net).attribute(given, target=target).detach().numpy().sum(axis=1)


def zennit_lrp(net: nn.Module, x: Array, target: int) -> Array:
    """LRP by zennit, epsilon above and alpha-beta below (EpsilonPlus)."""
    from zennit.attribution import Gradient
    from zennit.composites import EpsilonPlus

    with Gradient(model=net, composite=EpsilonPlus()) as attributor:
        _, found = attributor(torch.from_numpy(x), torch.eye(1000)[[target]])
    return found.detach().numpy().sum(axis=1)


def grad_cam(net: nn.Module, x: Array, target: int) -> Array:
    """Grad-CAM by pytorch-grad-cam, on the last tensor with positions."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    last = dict(net.named_modules())[LAST[type(net).__name__]]
    with GradCAM(net, [last]) as cam:
        return np.asarray(cam(torch.from_numpy(x), targets=[ClassifierOutputTarget(target)]))


def forward(net: nn.Module, x: Array, _target: int) -> Array:
    """One forward pass, without gradients."""
    with torch.inference_mode():
        return net(torch.from_numpy(x)).numpy()


PEERS: Mapping[str, Callable[[nn.Module, Array, int], Array]] = {
    "PyTorch, forward alone": forward,
    "PyTorch, input × gradient": input_x_gradient,
    "captum, LRP": captum_lrp,
    "zennit, EpsilonPlus": zennit_lrp,
    "pytorch-grad-cam, Grad-CAM": grad_cam,
}


def rise(predict: Callable[[Array], Array], x: Array, target: int, masks: int) -> Array:
    """RISE by DIANNA; the share of what a mask keeps is given, so that it is not searched for."""
    import dianna

    found = dianna.explain_image(
        predict, x[0], "RISE", labels=[target], n_masks=masks, p_keep=0.5, axis_labels={0: "channels"}
    )
    return np.asarray(found)
