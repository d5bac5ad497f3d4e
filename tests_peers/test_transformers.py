"""Maps of a small vision transformer: class activation maps against pytorch-grad-cam, rollout against torch."""

import functools

import numpy as np
import pytest
import torch
from pytorch_grad_cam import ScoreCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn import functional

from tests_peers.networks import CLASSES, Pair, exported
from tests_peers.test_cams import THEIRS, Array, _ByCentres, _Signed, agree, our_maps, their_maps

WIDTH, HEADS, PATCH, SIZE = 24, 3, 8, 32
SIDE = SIZE // PATCH
NORM, NODE = "blocks.1.norm1", "/blocks/blocks.1/norm1/LayerNormalization"


class Attention(nn.Module):
    """Self-attention in primitive operators; `softmax` is a module so that its output can be read."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.joined = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        count = x.shape[1]
        parts = self.qkv(x).reshape(-1, count, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0], parts[1], parts[2]
        weights = self.softmax(query @ key.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5)
        return torch.as_tensor(self.joined((weights @ value).transpose(1, 2).reshape(-1, count, WIDTH)))


class Block(nn.Module):
    """A pre-norm block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2, self.attention = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), Attention()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return torch.as_tensor(x + self.mlp(self.norm2(x)))


class Transformer(nn.Module):
    """A vision transformer; the score is of the class token, or of the mean."""

    def __init__(self, *, pooled: bool) -> None:
        super().__init__()
        self.patches, self.pooled = nn.Conv2d(3, WIDTH, PATCH, PATCH), pooled
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.places = nn.Parameter(torch.randn(1, SIDE**2 + 1, WIDTH))
        self.blocks = nn.Sequential(Block(), Block())
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], dim=1) + self.places
        tokens = self.norm(self.blocks(tokens))
        return torch.as_tensor(self.head(tokens.mean(dim=1) if self.pooled else tokens[:, 0]))


@functools.cache
def transformer(*, pooled: bool) -> Pair:
    torch.manual_seed(1)
    module = Transformer(pooled=pooled).eval()
    data = torch.rand(2, 3, SIZE, SIZE)
    return Pair(module, data, exported(module, data), [3, 5])


def on_grid(tokens: Tensor) -> Tensor:
    """What pytorch-grad-cam calls the reshape transform: [N, 1 + T, C] to [N, C, side, side]."""
    return tokens[:, 1:].reshape(-1, SIDE, SIDE, WIDTH).permute(0, 3, 1, 2)


@pytest.mark.parametrize("method", sorted(set(THEIRS) - {"ablationcam"}))
@pytest.mark.parametrize("pooled", [False, True])
def test_the_same_map(method: str, pooled: bool) -> None:
    both = transformer(pooled=pooled)
    ours = our_maps(both, method, NODE)
    agree(ours, their_maps(THEIRS[method], both, NORM, reshape_transform=on_grid))


@pytest.mark.parametrize("pooled", [False, True])
def test_hirescam(pooled: bool) -> None:
    both = transformer(pooled=pooled)
    layer = both.torch.get_submodule(NORM)
    with _Signed(model=both.torch, target_layers=[layer], reshape_transform=on_grid) as cam:
        cam(input_tensor=both.data, targets=[ClassifierOutputTarget(target) for target in both.targets])
        theirs = _enlarged(torch.from_numpy(cam.signed))
    np.testing.assert_allclose(
        our_maps(both, "hirescam", NODE), theirs, rtol=0, atol=1e-4 * np.abs(theirs).max()
    )


def test_scorecam(monkeypatch: pytest.MonkeyPatch) -> None:
    both = transformer(pooled=False)
    monkeypatch.setattr(torch.nn, "UpsamplingBilinear2d", _ByCentres)
    agree(our_maps(both, "scorecam", NODE), their_maps(ScoreCAM, both, NORM, 1.0, reshape_transform=on_grid))


def _enlarged(grids: Tensor) -> Array:
    large = functional.interpolate(
        grids[:, None].double(), (SIZE, SIZE), mode="bilinear", align_corners=False
    )
    return np.asarray(large[:, 0].numpy())


@pytest.mark.parametrize("pooled", [False, True])
def test_rollout(pooled: bool) -> None:
    """As the authors' notebook computes it from the weights of every block."""
    both, weights = transformer(pooled=pooled), []
    hooks = [
        block.attention.softmax.register_forward_hook(lambda _module, _given, out: weights.append(out))
        for block in both.torch.get_submodule("blocks").children()
    ]
    with torch.no_grad():
        both.torch(both.data)
    for hook in hooks:
        hook.remove()
    joint = torch.eye(SIDE**2 + 1).expand(2, -1, -1)
    for one in weights:
        mixed = one.mean(dim=1) + torch.eye(SIDE**2 + 1)
        joint = mixed / mixed.sum(dim=-1, keepdim=True) @ joint
    rows = joint.mean(dim=1) if pooled else joint[:, 0]
    theirs = _enlarged(rows[:, 1:].reshape(2, SIDE, SIDE))
    ours = np.stack([one.relevance for one in both.explained("attention-rollout")])
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * theirs.max())
    assert np.abs(ours - theirs.mean()).max() > 1e-2 * theirs.max()
