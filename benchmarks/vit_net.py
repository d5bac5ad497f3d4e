"""A small vision transformer written plainly in torch, its training, and its export. torch is needed only here."""

# torch is no dependency: where it is not installed, its types are unknown.
# mypy: disable-error-code="import-not-found, no-any-return", allow-subclassing-any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import torch_training
from benchmarks.vit_data import BLOCKS, CLASSES, PATCH, SIZE, Array, Pictures, Pool

WIDTH, HEADS = 64, 4


class Block(nn.Module):
    """Pre-norm attention with a fused QKV, then pre-norm MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [N, T, WIDTH] to the same."""
        n, t, _ = x.shape
        h = self.norm1(x)
        qkv = self.qkv(h).reshape(n, t, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        a = torch.softmax(q @ k.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5, dim=-1)
        x = x + self.proj((a @ v).transpose(1, 2).reshape(n, t, WIDTH))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Vit(nn.Module):
    """Patches, position embedding, blocks, norm, then a linear layer on the class token or the mean of the tokens."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, WIDTH)) if pool == "class token" else None
        self.positions = nn.Parameter(_waves(int(pool == "class token")))
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Pictures [N, 3, SIZE, SIZE] to scores [N, K]."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        x = x + self.positions
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x[:, 0] if self.token is not None else x.mean(dim=1))


def _waves(extra: int) -> Tensor:
    """Where learned positions begin: sines and cosines of row and column at WIDTH / 4 frequencies, 0 for extras."""
    side = SIZE // PATCH
    rate = torch.arange(side).float()[:, None] * 100 ** (-torch.arange(WIDTH // 4) / (WIDTH // 4))
    one = torch.cat([rate.sin(), rate.cos()], dim=1)
    grid = torch.cat([one[:, None].expand(-1, side, -1), one[None].expand(side, -1, -1)], dim=-1)
    return torch.cat([torch.zeros(extra, WIDTH), grid.reshape(-1, WIDTH)])[None] * 0.5


def train(pool: Pool, learn: Pictures, held: Pictures, steps: int, seed: int, threads: int) -> Vit:
    """Fitted; the colour channels are permuted or negated and the sides swapped at random."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = Vit(pool)
    images, labels = torch.from_numpy(learn.images), torch.from_numpy(learn.labels)

    def batch() -> tuple[Tensor, Tensor]:
        index = rng.integers(len(labels), size=torch_training.SIZE)
        x = images[index][:, rng.permutation(3)] * float(rng.choice([-1, 1]))
        return x.flip(-1) if rng.integers(2) else x, labels[index]

    torch_training.fit(net, batch, (held.images, held.labels), steps)
    return net


def input_gradient(net: Vit, images: Array, labels: Array) -> Array:
    """Input × gradient of the labels' scores by autograd, summed over colours: [N, H, W]."""
    x = torch.from_numpy(images).requires_grad_()
    net(x)[torch.arange(len(labels)), torch.from_numpy(labels)].sum().backward()
    assert x.grad is not None
    return np.asarray((x * x.grad).sum(1).detach().numpy())
