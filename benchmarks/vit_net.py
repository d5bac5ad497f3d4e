"""A small vision transformer written plainly in torch, its training, and its export. torch is needed only here."""

# torch is no dependency: where it is not installed, its types are unknown.
# mypy: disable-error-code="import-not-found, no-any-return", allow-subclassing-any

import io
import time
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

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
    """AdamW over one cosine; the colour channels are permuted or negated and the sides swapped at random."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net, size = Vit(pool), 64
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
    images, labels = torch.from_numpy(learn.images), torch.from_numpy(learn.labels)
    began = time.perf_counter()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 1.5e-3 * min(1, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * step / steps))
        index = rng.integers(len(labels), size=size)
        x = images[index][:, rng.permutation(3)] * float(rng.choice([-1, 1]))
        x = x.flip(-1) if rng.integers(2) else x
        loss = functional.cross_entropy(net(x), labels[index])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % 200 == 0:
            seconds = time.perf_counter() - began
            print(f"step {step + 1}: held out {accuracy(net, held):.3f}, {seconds:.0f} s", flush=True)
    return net.eval()


def accuracy(net: Vit, held: Pictures) -> float:
    """The share of the pictures whose class has the highest score."""
    with torch.no_grad():
        return float((net(torch.from_numpy(held.images)).argmax(1).numpy() == held.labels).mean())


def input_gradient(net: Vit, images: Array, labels: Array) -> Array:
    """Input × gradient of the labels' scores by autograd, summed over colours: [N, H, W]."""
    x = torch.from_numpy(images).requires_grad_()
    net(x)[torch.arange(len(labels)), torch.from_numpy(labels)].sum().backward()
    assert x.grad is not None
    return np.asarray((x * x.grad).sum(1).detach().numpy())


def exported(net: Vit) -> bytes:
    """The network as ONNX, by the exporter that most files come from; any batch size."""
    file = io.BytesIO()
    names: dict[str, Any] = {"input_names": ["image"], "output_names": ["scores"]}
    axes = {"image": {0: "n"}, "scores": {0: "n"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (torch.zeros(2, 3, SIZE, SIZE),),
            file,
            dynamo=False,
            dynamic_axes=axes,
            opset_version=17,
            **names,
        )
    return file.getvalue()
