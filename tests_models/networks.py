"""The networks: torchvision's own architectures made small, and what it lacks, all with random weights."""

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Its C++ operators (NMS and the like), which nothing here uses, are built for one exact build of torch.
sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations"))

from torchvision import models, ops  # noqa: E402


@dataclass(frozen=True)
class Network:
    """A torch module and what is asked of it.

    Attributes:
        make: builds it; the weights are set by `build`.
        shape: of its input, with the batch.
        layout: of the input, where it is not the usual one.
        index: what is explained of the output behind the batch; the greatest element if left out.
        tokens: the input is token ids below this number.
        dtype: of input and weights.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    layout: str | None = None
    index: tuple[Any, ...] | None = None
    tokens: int | None = None
    dtype: torch.dtype = torch.float32
    seed: int = 0


def build(network: Network) -> tuple[nn.Module, Tensor]:
    """The module in evaluation mode, every weight and statistic random, and an input for it."""
    torch.manual_seed(network.seed)
    module = network.make().eval()
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif tensor.dim() < 2 or float(tensor.std()) < 1e-3:
                # Zeros and ones that would switch a path off: biases, layer scales, position embeddings, a zero head.
                tensor.copy_(tensor.clamp(0.0, 1.0).round() + torch.randn_like(tensor) * 0.2)
    if network.tokens:
        return module, torch.randint(1, network.tokens, network.shape)
    return module.to(network.dtype), torch.randn(network.shape).to(network.dtype)


# Convolutional


def _vgg() -> nn.Module:
    layers: Any = [8, "M", 16, 16, "M", 32, "M"]
    vgg = models.VGG(models.vgg.make_layers(layers, batch_norm=True), num_classes=10)
    vgg.classifier = nn.Sequential(nn.Linear(32 * 49, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10))
    return vgg


def _convnext() -> nn.Module:
    config = models.convnext.CNBlockConfig
    return models.ConvNeXt([config(16, 32, 1), config(32, 48, 2), config(48, None, 1)], num_classes=10)


class UNet(nn.Module):
    """Encoder and decoder with skip connections; goes up by `up`, a transposed convolution if left out."""

    def __init__(self, up: str | None = None) -> None:
        super().__init__()
        self.enter, self.down, self.middle = _double(3, 8), _double(8, 16), _double(16, 32)
        self.ups = nn.ModuleList(self._up(up, a, b) for a, b in ((32, 16), (16, 8)))
        self.merges = nn.ModuleList((_double(32, 16), _double(16, 8)))
        self.head = nn.Conv2d(8, 4, 1)

    @staticmethod
    def _up(mode: str | None, given: int, made: int) -> nn.Module:
        if mode is None:
            return nn.ConvTranspose2d(given, made, 2, stride=2)
        corners = False if mode == "bilinear" else None
        return nn.Sequential(
            nn.Upsample(scale_factor=2, mode=mode, align_corners=corners), nn.Conv2d(given, made, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scores of 4 classes for each pixel."""
        first = self.enter(x)
        second = self.down(functional.max_pool2d(first, 2))
        y = self.middle(functional.max_pool2d(second, 2))
        for up, merge, skip in zip(self.ups, self.merges, (second, first), strict=True):
            y = merge(torch.cat([up(y), skip], 1))
        return self.head(y)


def _double(given: int, made: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(given, made, 3, padding=1), nn.BatchNorm2d(made), nn.ReLU(),
        nn.Conv2d(made, made, 3, padding=1), nn.BatchNorm2d(made), nn.ReLU(),
    )  # fmt: skip


def _silu(given: int, made: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(given, made, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(made), nn.SiLU())


class _C2f(nn.Module):
    """Split, a bottleneck with a residual on one half, and all parts joined."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.leave = _silu(width, width, 1), _silu(width + width // 2, width, 1)
        self.block = nn.Sequential(_silu(width // 2, width // 2), _silu(width // 2, width // 2))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.enter(x).chunk(2, 1))
        parts.append(parts[-1] + self.block(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class YOLO(nn.Module):
    """Two scales, SPPF, upsampling, and a decoded head: [N, 4 + classes, boxes] as deployed, before NMS."""

    def __init__(self, classes: int = 5, bins: int = 4) -> None:
        super().__init__()
        self.classes, self.bins = classes, bins
        self.stem = nn.Sequential(_silu(3, 16, 3, 2), _silu(16, 32, 3, 2), _C2f(32))
        self.deep = nn.Sequential(_silu(32, 32, 3, 2), _C2f(32))
        self.before, self.after = _silu(32, 16, 1), _silu(64, 32, 1)
        self.merge = _silu(64, 32)
        self.heads = nn.ModuleList(nn.Conv2d(32, 4 * bins + classes, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Boxes (centre, size; in pixels) and the probability of each class."""
        fine = self.stem(x)
        pools = [self.before(self.deep(fine))]
        for _ in range(3):
            pools.append(functional.max_pool2d(pools[-1], 5, 1, 2))
        coarse = self.after(torch.cat(pools, 1))
        fine = self.merge(torch.cat([fine, functional.interpolate(coarse, scale_factor=2.0)], 1))
        found = []
        for head, stride, feature in zip(self.heads, (4, 8), (fine, coarse), strict=True):
            found.append(self._decoded(head(feature), stride))
        return torch.cat(found, 2)

    def _decoded(self, raw: Tensor, stride: int) -> Tensor:
        count, _, height, width = raw.shape
        box, score = raw.flatten(2).split((4 * self.bins, self.classes), 1)
        bins = torch.arange(self.bins, dtype=torch.float32).view(1, self.bins, 1, 1)
        sides = (box.view(count, 4, self.bins, height * width).transpose(1, 2).softmax(1) * bins).sum(1)
        ys, xs = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        anchors = torch.stack([xs, ys]).view(1, 2, -1)
        near, far = sides.chunk(2, 1)
        low, high = anchors - near, anchors + far
        return torch.cat([(low + high) / 2 * stride, (high - low) * stride, score.sigmoid()], 1)


# Transformers


def _vit() -> nn.Module:
    return models.VisionTransformer(
        32, 8, num_layers=3, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=10
    )


def _swin(**options: Any) -> nn.Module:
    return models.SwinTransformer(
        [4, 4], 16, depths=[2, 2], num_heads=[2, 4], window_size=[4, 4], num_classes=10, **options
    )


def _swin_v2() -> nn.Module:
    swin = models.swin_transformer
    return _swin(block=swin.SwinTransformerBlockV2, downsample_layer=swin.PatchMergingV2)


def _maxvit() -> nn.Module:
    return models.MaxVit(
        (32, 32), 16, 4, [16, 32], [1, 1], head_dim=8, stochastic_depth_prob=0.0, num_classes=10
    )


class PooledViT(nn.Module):
    """Patches, attention by hand with fused QKV, no class token: mean over the tokens."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.places = nn.Parameter(torch.randn(1, 16, width) * 0.1)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 64), nn.GELU(approximate="tanh"), nn.Linear(64, width))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patches(x).flatten(2).transpose(1, 2) + self.places
        count, tokens, width = y.shape
        parts = self.qkv(self.norms[0](y)).reshape(count, tokens, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) / (width // self.heads) ** 0.5).softmax(-1)
        y = y + self.out((weights @ v).transpose(1, 2).reshape(count, tokens, width))
        y = y + self.mlp(self.norms[1](y))
        return self.head(y.mean(1))


class DETR(nn.Module):
    """A backbone, sine-free position embeddings, an encoder and a decoder with learned queries."""

    def __init__(self, width: int = 32, queries: int = 5) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 16, 7, 4, 3), nn.ReLU(), nn.Conv2d(16, width, 3, 2, 1))
        self.places = nn.Parameter(torch.randn(1, 36, width) * 0.1)
        self.queries = nn.Parameter(torch.randn(queries, width))
        self.transformer = nn.Transformer(width, 4, 1, 2, 64, 0.0, batch_first=True)
        self.classes, self.boxes = nn.Linear(width, 4), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class scores [N, queries, 4] and boxes."""
        tokens = self.backbone(x).flatten(2).permute(0, 2, 1) + self.places
        found = self.transformer(tokens, self.queries.unsqueeze(0).expand(x.shape[0], -1, -1))
        return self.classes(found), self.boxes(found).sigmoid()


class TextTransformer(nn.Module):
    """Token ids, a padding mask, an encoder, the mean over the real tokens."""

    def __init__(self, vocabulary: int = 50, width: int = 32) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(16, width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 64, 0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 3)

    def forward(self, ids: Tensor) -> Tensor:
        padded = ids == 7
        y = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        y = self.encoder(y, src_key_padding_mask=padded)
        kept = (~padded).unsqueeze(-1).to(y.dtype)
        return self.head((y * kept).sum(1) / kept.sum(1))


# Sequences


class Recurrent(nn.Module):
    """An LSTM or GRU over N×T×C features, or over the embeddings of token ids; the last step is classified."""

    def __init__(self, kind: type[nn.Module], *, tokens: int | None = None, last: bool = True) -> None:
        super().__init__()
        self.words = nn.Embedding(tokens, 6) if tokens else nn.Identity()
        self.cells: Any = kind(6, 8, num_layers=2, batch_first=True, bidirectional=not last)
        self.last, self.head = last, nn.Linear(8 if last else 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.cells(self.words(x))
        return self.head(y[:, -1] if self.last else y.mean(1))


class Keyword(nn.Module):
    """Audio: convolutions over N×C×T, a GRU-free head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(1, 8, 9, 4, 4), nn.BatchNorm1d(8), nn.ELU(), nn.MaxPool1d(3, 2, 1),
            nn.Conv1d(8, 16, 5, 2, 2, dilation=1, groups=2), nn.GroupNorm(4, 16), nn.LeakyReLU(0.1), nn.AvgPool1d(2),
        )  # fmt: skip
        self.head = nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(-1))


class ChannelsLast(nn.Module):
    """A network whose input is N×H×W×C, as from Keras."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(_silu(3, 8, 3, 2), _silu(8, 16, 3, 2), ops.SqueezeExcitation(16, 4))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.head(y.mean((1, 2)))


class Video(nn.Module):
    """Convolutions over N×C×D×H×W."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(3, 8, 3, (1, 2, 2), 1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2),
            nn.Conv3d(8, 16, 3, 1, 1), nn.InstanceNorm3d(16, affine=True), nn.Hardswish(), nn.AdaptiveAvgPool3d(1),
        )  # fmt: skip
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


def _resnet(block: Any = models.resnet.BasicBlock, **options: Any) -> Callable[[], nn.Module]:
    return lambda: models.ResNet(block, [1, 1, 1, 1], num_classes=10, **options)


_BOTTLENECK = models.resnet.Bottleneck
_PICTURE = (1, 3, 64, 64)
_SMALL = (1, 3, 32, 32)

NETWORKS = {
    "VGG": Network(_vgg, (1, 3, 56, 56)),
    "ResNet": Network(_resnet(), _PICTURE),
    "ResNet bottleneck": Network(_resnet(_BOTTLENECK), _PICTURE),
    "ResNeXt": Network(_resnet(_BOTTLENECK, groups=8, width_per_group=8), _PICTURE),
    "DenseNet": Network(lambda: models.DenseNet(8, (2, 2, 2), 16, num_classes=10), _PICTURE),
    "GoogLeNet": Network(
        lambda: models.GoogLeNet(num_classes=10, aux_logits=False, init_weights=False), _PICTURE
    ),
    "Inception v3": Network(
        lambda: models.Inception3(num_classes=10, aux_logits=False, init_weights=False),
        (1, 3, 96, 96),
        seed=1,
    ),
    "SqueezeNet": Network(lambda: models.squeezenet1_1(num_classes=10), _PICTURE),
    "ShuffleNet v2": Network(lambda: models.shufflenet_v2_x0_5(num_classes=10), _PICTURE),
    "MobileNet v2": Network(lambda: models.mobilenet_v2(num_classes=10, width_mult=0.35), _PICTURE),
    "MobileNet v3": Network(lambda: models.mobilenet_v3_small(num_classes=10), _PICTURE),
    "EfficientNet": Network(lambda: models.efficientnet_b0(num_classes=10), _PICTURE),
    "RegNet Y": Network(lambda: models.regnet_y_400mf(num_classes=10), _PICTURE),
    "ConvNeXt": Network(_convnext, _PICTURE),
    "ViT": Network(_vit, _SMALL),
    "ViT, mean of tokens": Network(PooledViT, _SMALL),
    "Swin": Network(_swin, _PICTURE),
    "Swin v2": Network(_swin_v2, _PICTURE),
    "MaxViT": Network(_maxvit, _SMALL),
    "U-Net": Network(UNet, _SMALL, index=(2, slice(8, 12), slice(8, 12))),
    "U-Net, bilinear": Network(lambda: UNet("bilinear"), _SMALL, index=(2, slice(8, 12), slice(8, 12))),
    "U-Net, nearest": Network(lambda: UNet("nearest"), _SMALL, index=(2, 9, 9)),
    "YOLO": Network(YOLO, _PICTURE, index=(6, 100)),
    "DETR": Network(DETR, (1, 3, 48, 48), index=(2, 1)),
    "text transformer": Network(TextTransformer, (1, 12), tokens=50),
    "LSTM": Network(lambda: Recurrent(nn.LSTM), (1, 7, 6), "NTC"),
    "LSTM, both ways": Network(lambda: Recurrent(nn.LSTM, last=False), (1, 7, 6), "NTC"),
    "GRU": Network(lambda: Recurrent(nn.GRU), (1, 7, 6), "NTC"),
    "RNN": Network(lambda: Recurrent(nn.RNN, last=False), (1, 7, 6), "NTC"),
    "LSTM over tokens": Network(lambda: Recurrent(nn.LSTM, tokens=20), (1, 9), tokens=20),
    "audio": Network(Keyword, (1, 1, 400)),
    "video": Network(Video, (1, 3, 6, 16, 16)),
    "channels last": Network(ChannelsLast, (1, 32, 32, 3)),
    "ConvNeXt float16": Network(_convnext, _PICTURE, dtype=torch.float16),
    "ResNet, a batch": Network(_resnet(), (3, 3, 64, 64)),
}
