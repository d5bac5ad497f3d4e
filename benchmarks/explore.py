"""How the preset was found: candidates on the tuning half, never on the half that docs/quality.md reports.

    python -m benchmarks.explore

A candidate joins a few maps, each an ordinary explanation with its own boundary, seed and sign. The tuning half: the
photos of even index, SqueezeNet 1.1 and EfficientNet-Lite1 (which needs PyTorch once, to be exported). Nothing is
smoothed but by the candidate itself.
"""

import argparse
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from scipy.ndimage import gaussian_filter
from scipy.special import softmax
from scipy.stats import spearmanr

from benchmarks.halves import PASTED, TUNING, halves
from benchmarks.imagenet import explainer_of
from benchmarks.machine import header
from benchmarks.quality_inputs import passed_by_all
from srd_onnx import Explainer
from srd_onnx.evaluation.grids import cell_mask
from srd_onnx.inputs.sources import read_items
from srd_onnx.methods.activation_maps import gradcam
from srd_onnx.metrics.complexity import sparseness
from srd_onnx.metrics.localisation import relevance_mass_accuracy
from srd_onnx.ort.forward import kept_forward

Array = NDArray[Any]
T = TypeVar("T")
MODELS = tuple(name for name in TUNING if not name.startswith(PASTED))
STEPS = 24  # of insertion and of deletion
FINEST = 16  # input positions for each position of the finest boundary
KEPT = 6  # explainers of a model
SIGMA = 2.0  # pixels
SURE = 0.3  # the probability from which a photo may stand in a grid
GRIDS, NOISY, NOISE = 6, 2, 0.1


# What a candidate is made of


@dataclass(frozen=True, eq=False)
class Network:
    """A model and its explainers, each made once.

    `finer`: the last tensor that all relevance passes of every scale finer than the encoder's, coarse to fine.
    """

    base: Explainer
    encoder: str
    finer: tuple[str, ...]
    counts: Mapping[str, int]
    _explainers: dict[Any, Explainer] = field(default_factory=dict)
    _kept: dict[Any, Any] = field(default_factory=dict)

    def explainer(self, tensor: str, seed: str, sign: str) -> Explainer:
        """What explains with this boundary, seed and sign; the last few are kept (compiled sessions are large)."""
        data = self.base.model.proto.SerializeToString()
        make = functools.partial(_like, self.base, data, boundary=tensor, seed=seed, sign=sign)
        found = _once(self._explainers, (tensor, seed, sign), make)
        while len(self._explainers) > KEPT:
            del self._explainers[next(iter(self._explainers))]
        return found

    def grad_cam(self) -> Explainer:
        """What explains by Grad-CAM at the encoder."""
        return _once(self._kept, "grad-cam", lambda: self.base.with_method(gradcam()))

    @property
    def area(self) -> int:
        """Positions of the input."""
        return math.prod(self.base.input_shape[2:])


@dataclass(frozen=True, eq=False)
class Picture:
    """One input [3, H, W] and one target of one network; every map of it is computed once."""

    network: Network
    pixels: Array
    target: int
    _kept: dict[Any, Array] = field(default_factory=dict)

    def map(self, tensor: str, seed: str = "logodds", sign: str = "positive") -> Array:
        """The explanation [H, W] with this boundary, seed and sign."""

        def explained() -> Array:
            explainer = self.network.explainer(tensor, seed, sign)
            return explainer.explain(self.pixels[None], self.target)[0].relevance.astype(np.float64)

        return _once(self._kept, (tensor, seed, sign), explained)

    def grad_cam(self) -> Array:
        """Grad-CAM at the encoder."""
        (found,) = self.network.grad_cam().explain(self.pixels[None], self.target)
        return found.relevance.astype(np.float64)

    def boundaries(self, finest: int = FINEST) -> list[str]:
        """Finer scales that have at most 1/`finest` of the input's positions (a tenth more where sizes are odd)."""
        net = self.network
        return [name for name in net.finer if net.counts[name] * finest <= 1.1 * net.area] or [*net.finer[:1]]


def _once(kept: dict[Any, Any], key: Any, make: Callable[[], T]) -> T:
    if key not in kept:
        kept[key] = make()
    found: T = kept[key]
    return found


def _like(base: Explainer, data: bytes, **options: Any) -> Explainer:
    """The same but for the weights and the options."""
    same: dict[str, Any] = {"preprocess": base.preprocess, "layout": base.layout, "threads": 1}
    return Explainer(data, preset="paper", providers="cpu", **same, **options)


def network_of(base: Explainer) -> Network:
    """With the tensors that all relevance passes: the last one of every number of positions."""
    (encoder,) = base.plan.boundary
    counts = passed_by_all(base)
    del counts[base.ports[0].name]
    last = {count: name for name, count in counts.items()}
    finer = tuple(last[count] for count in sorted(last) if count > counts[encoder])
    return Network(base, encoder, finer, counts)


# Candidates

Candidate = Callable[[Picture], Array]


def joined(of: Callable[[Picture], list[Array]], *, smooth: float = SIGMA, power: float = 1.0) -> Candidate:
    """The geometric mean of the positive parts, to a power, smoothed."""

    def candidate(picture: Picture) -> Array:
        maps = [np.maximum(one, 0) for one in of(picture)]
        mean = np.prod([one ** (power / len(maps)) for one in maps], axis=0)
        return smoothed(mean, smooth)

    return candidate


def smoothed(relevance: Array, sigma: float = SIGMA) -> Array:
    """Spread by a Gaussian; outside the picture there is nothing."""
    return np.asarray(gaussian_filter(relevance, sigma, mode="constant") if sigma else relevance)


def scales(
    count: int | None = None, seed: str = "logodds", finest: int = FINEST
) -> Callable[[Picture], list[Array]]:
    """The encoder's map, signed, and those of the finer boundaries, positive: `count` of them or all."""

    def maps(p: Picture) -> list[Array]:
        finer = p.boundaries(finest)[:count]
        return [p.map(p.network.encoder, sign="signed"), *(p.map(name, seed) for name in finer)]

    return maps


def halfway(place: float) -> Callable[[Picture], list[Array]]:
    """The encoder's map and that of a finer tensor of about a 64th of the positions: 0.5 the middle one, 1 the last."""

    def maps(p: Picture) -> list[Array]:
        net = p.network
        finer = [name for name, count in net.counts.items() if count > net.counts[net.encoder]]
        best = min((net.counts[name] for name in finer), key=lambda n: abs(math.log(net.area / n / 64)))
        alike = [name for name in finer if net.counts[name] == best]
        chosen = alike[min(int(len(alike) * place), len(alike) - 1)]
        return [p.map(net.encoder, sign="signed"), p.map(chosen)]

    return maps


def centre(picture: Picture) -> Array:
    """A control: a blob in the middle."""
    rows, columns = (np.linspace(-1, 1, size) for size in picture.pixels.shape[1:])
    return np.asarray(np.exp(-4.5 * (rows[:, None] ** 2 + columns**2)))


def noise(seed: int) -> Candidate:
    """A control: every pixel at random, anew for every map."""
    rng = np.random.default_rng(seed)
    return lambda picture: rng.random(picture.pixels.shape[1:])


CANDIDATES: Mapping[str, Candidate] = {
    "control: random": noise(0),
    "control: centre": centre,
    "Grad-CAM": Picture.grad_cam,
    "gradient × input": lambda p: p.map(p.network.base.ports[0].name, "logit", "signed"),
    "`paper`": lambda p: p.map(p.network.encoder, "logit", "signed"),
    "`paper`, smoothed": lambda p: smoothed(p.map(p.network.encoder, "logit", "signed")),
    "encoder, log-probability, smoothed": lambda p: smoothed(p.map(p.network.encoder, "logprob", "signed")),
    "encoder, log-odds, smoothed": lambda p: smoothed(p.map(p.network.encoder, sign="signed")),
    "finest alone, log-odds, positive, smoothed": lambda p: smoothed(p.map(p.boundaries()[-1])),
    "encoder and 1/64, the middle one": joined(halfway(0.5)),
    "encoder and 1/64, the last one": joined(halfway(1.0)),
    "encoder and scales down to 1/16": joined(scales()),
    "**the same, squared before smoothing** (`joint`)": joined(scales(), power=2),
    "the same, not smoothed": joined(scales(), smooth=0),
    "the same, logits at the finer ones": joined(scales(seed="logit")),
    "encoder and scales down to 1/4": joined(scales(finest=4)),
}


# Measures


def probabilities(net: Network, inputs: Array) -> Array:
    """Softmax of the logits, [M, K]."""
    return np.asarray(softmax(kept_forward(net.base, inputs.shape[1:])(inputs), axis=1))


def insertion_less_deletion(picture: Picture, relevance: Array) -> float:
    """Area between the two curves of the probability; what is not there is blurred."""
    x = picture.pixels
    blurred = np.stack([gaussian_filter(plane, x.shape[1] / 20) for plane in x])
    ties = np.random.default_rng(0).random(relevance.size)
    rank = np.empty(relevance.size, np.int64)
    rank[np.lexsort((ties, -relevance.ravel()))] = np.arange(relevance.size)
    cuts = (np.linspace(0, 1, STEPS + 1) * relevance.size).astype(int)
    kept = rank.reshape(relevance.shape) < cuts[:, None, None, None]
    mixed = [np.where(mask, x, blurred).astype(np.float32) for mask in (kept, ~kept)]
    curves = [probabilities(picture.network, inputs)[:, picture.target] for inputs in mixed]
    return float(np.trapezoid(curves[0]) - np.trapezoid(curves[1])) / STEPS


def in_cell(relevance: Array, cell: int) -> float:
    """Grid Pointing Game (Böhle et al. 2021) in one of 2 × 2 cells; a quarter where nothing is positive."""
    rows, columns = relevance.shape
    share = relevance_mass_accuracy(relevance, cell_mask((rows, columns), cell))
    return 0.25 if math.isnan(share) else share


def rank_correlation(a: Array, b: Array) -> float:
    """Spearman's; 0 of a flat map."""
    return float(spearmanr(a.ravel(), b.ravel()).statistic) if np.ptp(a) and np.ptp(b) else 0.0


# The tuning half


@dataclass(frozen=True, eq=False)
class Half:
    """Pictures of one model: as they are, for a redrawn class layer, with noise, and of each grid its four targets."""

    plain: list[Picture]
    redrawn: list[Picture]
    noisy: list[list[Picture]]
    grids: list[list[Picture]]


def redrawn(base: Explainer, seed: int) -> Explainer:
    """The same model with other weights in its class layer, of the same mean and deviation."""
    proto = onnx.ModelProto()
    proto.CopyFrom(base.model.proto)
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    node = [n for n in proto.graph.node if n.op_type in ("Gemm", "Conv") and n.input[1] in tensors][-1]
    rng = np.random.default_rng(seed)
    for name in node.input[1:]:
        old = numpy_helper.to_array(tensors[name])
        new = old.mean() + old.std() * rng.standard_normal(old.shape)
        tensors[name].CopyFrom(numpy_helper.from_array(new.astype(old.dtype), name))
    return _like(base, proto.SerializeToString())


def tiled(pictures: list[Array]) -> Array:
    """Four inputs, each scaled down, in one."""
    found = np.zeros_like(pictures[0])
    slices = [(slice(None, size // 2), slice(size // 2, None)) for size in found.shape[1:]]
    for cell, one in enumerate(pictures):
        part = found[:, slices[0][cell // 2], slices[1][cell % 2]]
        size = part.shape[:0:-1]
        part[:] = np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in one])
    return found


def shaken(x: Array, rng: np.random.Generator) -> Array:
    """With uniform noise."""
    return np.asarray(x + NOISE * x.std() * rng.uniform(-1, 1, x.shape), np.float32)


def tuning_half(name: str, seed: int) -> Half | None:
    """Everything of one model; None without PyTorch to export it."""
    base = explainer_of(name, preset="paper", threads=1, providers="cpu")
    if base is None:
        return None
    net, other = network_of(base), network_of(redrawn(base, seed))
    items = read_items([str(path) for path in halves().tuning], base.ports, base.preprocess)
    inputs = [base.feeds([item], 1)[base.ports[0].name][0] for item in items]
    chances = probabilities(net, np.stack(inputs))
    targets = chances.argmax(axis=1).tolist()
    rng = np.random.default_rng(seed)
    pairs = list(zip(inputs, targets, strict=True))
    noisy = [[Picture(net, shaken(x, rng), target) for _ in range(NOISY)] for x, target in pairs]
    sure = [i for i, row in enumerate(chances) if row.max() > SURE]
    grids: list[list[Picture]] = []
    while len(grids) < GRIDS:
        chosen = rng.choice(sure, 4, replace=False)
        if len({targets[i] for i in chosen}) == 4:
            grid = tiled([inputs[i] for i in chosen])
            grids.append([Picture(net, grid, targets[i]) for i in chosen])
    return Half(
        [Picture(net, *pair) for pair in pairs], [Picture(other, *pair) for pair in pairs], noisy, grids
    )


def measure(half: Half, candidate: Candidate) -> list[float]:
    """One row of the table: means over the pictures."""
    maps = [candidate(picture) for picture in half.plain]
    faithful = list(map(insertion_less_deletion, half.plain, maps))
    cells = [in_cell(candidate(p), cell) for grid in half.grids for cell, p in enumerate(grid)]
    random = list(map(rank_correlation, maps, map(candidate, half.redrawn)))
    moved = [
        max(float(np.linalg.norm(candidate(p) - m)) for p in near) / float(np.linalg.norm(m))
        for near, m in zip(half.noisy, maps, strict=True)
    ]
    return [float(np.mean(v)) for v in (faithful, cells, random, [sparseness(m) for m in maps], moved)]


COLUMNS = (
    "insertion − deletion | grid pointing game | after redrawing the class layer | Gini | max-sensitivity"
)


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    given = parser.parse_args()
    seed = given.seed
    print(header(seed, 1))
    for name in given.models:
        half = tuning_half(name, seed)
        if half is None:
            print(f"\n{name}: left out, PyTorch is needed to export it")
            continue
        net = half.plain[0].network
        print(f"\n{name}: encoder {net.encoder}, finer scales {', '.join(net.finer)}\n")
        print(f"| candidate | {COLUMNS} |\n|---|---|---|---|---|---|")
        for title, candidate in CANDIDATES.items():
            row = " | ".join(f"{value:z.3f}" for value in measure(half, candidate))
            print(f"| {title} | {row} |", flush=True)


if __name__ == "__main__":
    main()
