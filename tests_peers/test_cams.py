"""Class activation maps against pytorch-grad-cam 1.5 on the same weights and layers.

It brings every map to [0, 1] before it enlarges it and again after, so that ours is compared after the same. It adds
1e-7 where it divides by the greatest value, so that it is asked for 1000 times the score. Its definitions differ:

- It cuts off what is negative of every map: HiResCAM, which is signed, is compared before that.

- Grad-CAM++ adds 1e-6 below α, which outweighs G² where derivatives are small (before a global pool they are):
  compared on a network whose scores are 1000 times as large, where it does not.
- Score-CAM enlarges masks from corner to corner (align_corners), not by the centres of pixels as the authors' code and
  as it enlarges its maps itself: compared with that one line put right.
- Ablation-CAM sets a channel to 10⁷ less than the least activation unless that is 0: compared at layers behind a ReLU.
- ReciproCAM is not in it: compared with the authors' definition in torch.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pytorch_grad_cam import AblationCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, ScoreCAM, XGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from tests_peers.networks import NETWORKS, Pair, exported, pair

Array = NDArray[Any]

# By network: where the encoder ends; and a layer within, as a module and as a node of the file.
ENDS = {"vgg": "9", "resnet": "layer4", "squeezenet": "classifier.2", "mobilenet": "features.18"}
WITHIN = {
    "vgg": ("6", "/6/Relu"),
    "resnet": ("layer2", "/layer2/layer2.0/relu_1/Relu"),
    "squeezenet": ("features.6.squeeze_activation", "/features/features.6/squeeze_activation/Relu"),
}
PLACES = [
    *((name, module, "encoder") for name, module in ENDS.items()),
    *((n, *pair_) for n, pair_ in WITHIN.items()),
]
THEIRS: dict[str, Callable[..., Any]] = {
    "gradcam": GradCAM,
    "xgradcam": XGradCAM,
    "layercam": LayerCAM,
    "ablationcam": AblationCAM,
}


def scaled(maps: Array) -> Array:
    """Each map as pytorch-grad-cam leaves it: without its negative part, from its least value to its greatest."""
    positive = np.maximum(np.asarray(maps, np.float64), 0)
    positive = positive - positive.min(axis=(1, 2), keepdims=True)
    return np.asarray(positive / positive.max(axis=(1, 2), keepdims=True))


class Target(ClassifierOutputTarget):  # type: ignore[misc]
    """The score of a class times a factor."""

    def __init__(self, category: int, factor: float) -> None:
        super().__init__(category)
        self.factor = factor

    def __call__(self, scores: Tensor) -> Tensor:
        return torch.as_tensor(super().__call__(scores) * self.factor)


def their_maps(
    make: Callable[..., Any], both: Pair, module: str, factor: float = 1000.0, **given: Any
) -> Array:
    layer = both.torch.get_submodule(module)
    with make(model=both.torch, target_layers=[layer], **given) as cam:
        targets = [Target(target, factor) for target in both.targets]
        return np.asarray(cam(input_tensor=both.data, targets=targets))


def our_maps(both: Pair, method: str, boundary: str) -> Array:
    return np.stack([one.relevance for one in both.explained(method, boundary=boundary)])


def likeliest(name: str) -> Pair:
    """A network, and for each input the class of the greatest score: the others' maps may be 0 all over."""
    both = pair(name)
    with torch.no_grad():
        return replace(both, targets=[int(row.argmax()) for row in both.torch(both.data)])


def agree(ours: Array, theirs: Array) -> None:
    """To 1e-4 of the greatest value; where theirs is 0 all over, ours has nothing positive."""
    for one, other in zip(ours, theirs, strict=True):
        if other.max() == 0:
            assert one.max() <= 0
        else:
            np.testing.assert_allclose(scaled(one[None]), scaled(other[None]), rtol=0, atol=1e-4)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No progress bars."""
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.mark.parametrize("method", THEIRS)
@pytest.mark.parametrize(("name", "module", "boundary"), PLACES)
def test_the_same_map(method: str, name: str, module: str, boundary: str) -> None:
    both = pair(name) if method == "ablationcam" else likeliest(name)
    ours, theirs = our_maps(both, method, boundary), their_maps(THEIRS[method], both, module)
    agree(ours, theirs)
    # Ablation-CAM of this network is 0 for both classes.
    assert (theirs.max() > 0) == ((name, method) != ("mobilenet", "ablationcam"))


class _Signed(HiResCAM):  # type: ignore[misc]
    """Keeps the map before its negative part is cut off."""

    def get_cam_image(self, *args: Any, **kwargs: Any) -> Array:
        self.signed = np.asarray(super().get_cam_image(*args, **kwargs))
        return self.signed


@pytest.mark.parametrize(("name", "module", "boundary"), PLACES)
def test_hirescam_before_its_negative_part_is_cut_off(name: str, module: str, boundary: str) -> None:
    both = likeliest(name)
    ours = our_maps(both, "hirescam", boundary)
    with _Signed(model=both.torch, target_layers=[both.torch.get_submodule(module)]) as cam:
        cam(input_tensor=both.data, targets=[ClassifierOutputTarget(target) for target in both.targets])
        size = both.data.shape[-2:][::-1]
        theirs = np.stack([cv2.resize(one, size) for one in cam.signed])
    assert np.abs(theirs).max() > 0
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_other_weights_are_another_map(name: str) -> None:
    both = likeliest(name)
    ours = our_maps(both, "gradcam", "encoder")
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in both.torch.parameters():
            parameter.mul_(1 + 0.2 * torch.randn_like(parameter))
    with pytest.raises(AssertionError):
        agree(ours, their_maps(GradCAM, both, ENDS[name]))


@pytest.mark.parametrize("name", NETWORKS)
def test_gradcam_plus_plus_where_its_constant_does_not_matter(name: str) -> None:
    both = likeliest(name)
    steep = nn.Sequential(both.torch, _Times(1000.0)).eval()
    own = Pair(steep, both.data, exported(steep, both.data), both.targets)
    agree(
        our_maps(own, "gradcam-plus-plus", "encoder"),
        their_maps(GradCAMPlusPlus, own, f"0.{ENDS[name]}", 1.0),
    )


class _Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class _ByCentres(nn.Upsample):
    def __init__(self, size: Any) -> None:
        super().__init__(size=size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize(("name", "module", "boundary"), PLACES)
def test_scorecam_with_its_masks_enlarged_by_centres(
    name: str, module: str, boundary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = likeliest(name)
    ours = our_maps(both, "scorecam", boundary)
    monkeypatch.setattr(torch.nn, "UpsamplingBilinear2d", _ByCentres)
    agree(ours, their_maps(ScoreCAM, both, module, 1.0))


# ReciproCAM as its authors have it: https://github.com/sybyun/ReciproCAM


def reciprocam(both: Pair, module: str, *, gaussian: bool) -> tuple[Array, float]:
    """The features with one place (or a Gaussian around it) kept, through the rest of the network, for each place.

    Returns:
        maps [N, S, S]; and the least span of probabilities that one of them was brought to [0, 1] from.
    """
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    grids, spans = [], []
    for x, target in zip(both.data, both.targets, strict=True):
        features = _output(both.torch, module, x[None])
        _, _, height, width = features.shape
        found = torch.zeros(height, width)
        for i in range(height):
            for j in range(width):
                mask = torch.zeros(height + 2, width + 2)
                mask[i : i + 3, j : j + 3] = (
                    kernel if gaussian else torch.tensor([[0, 0, 0], [0, 1, 0], [0, 0, 0]])
                )
                kept = features * mask[1:-1, 1:-1]
                scores = _replaced(both.torch, module, x[None], kept)
                found[i, j] = scores.softmax(dim=1)[0, target]
        spans.append(float(found.max() - found.min()))
        grid = ((found - found.min()) / (found.max() - found.min())).numpy()
        grids.append(cv2.resize(grid, x.shape[-2:][::-1]))
    return np.stack(grids), min(spans)


def _output(network: nn.Module, module: str, x: Tensor) -> Tensor:
    found = []
    hook = network.get_submodule(module).register_forward_hook(lambda _module, _given, out: found.append(out))
    with torch.no_grad():
        network(x)
    hook.remove()
    return torch.as_tensor(found[0])


def _replaced(network: nn.Module, module: str, x: Tensor, features: Tensor) -> Tensor:
    """Scores with other features in place of what a module gives."""
    hook = network.get_submodule(module).register_forward_hook(lambda _module, _given, _out: features)
    with torch.no_grad():
        scores = network(x)
    hook.remove()
    return torch.as_tensor(scores)


@pytest.mark.parametrize("gaussian", [False, True])
@pytest.mark.parametrize(("name", "module", "boundary"), PLACES)
def test_reciprocam_as_its_authors_have_it(name: str, module: str, boundary: str, gaussian: bool) -> None:
    both = likeliest(name)
    ours = our_maps(both, f"reciprocam:mask={'gaussian' if gaussian else 'single'}", boundary)
    theirs, span = reciprocam(both, module, gaussian=gaussian)
    # A probability is rounded by a few 1e-8, whatever the span that is brought to 1.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 + 2e-7 / span)
    assert 2e-7 / span < 1e-2
