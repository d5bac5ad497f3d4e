"""The ResNet and the VGG that know the pictures of `pasted`: trained by torch once, then a file beside the wheels.

    python -m benchmarks.pasted_net [--seed 0] [--threads 2]

trains what is missing and prints, of each network, how sure it is and how much of its explanations lies on the object.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.imagenet import WHEELS
from benchmarks.machine import header
from benchmarks.pasted import CLASSES, PREPROCESS, SIDE, Array, Pictures, cells, draw, grids
from benchmarks.vit_task import inside, pointing
from srd_onnx import Explainer
from srd_onnx.files import atomic_write_all
from srd_onnx.ort.runtime import CPU, make_session, run

NETS = ("resnet", "vgg")
LEARN, HELD = 12288, 1000  # pictures to learn from, of each size, and to be measured on
# Of each the side of the pictures and steps; small ones first save minutes.
LESSONS = {"resnet": ((SIDE // 2, 1200), (SIDE, 600)), "vgg": ((SIDE // 2, 1600), (SIDE, 900))}
_BATCH = 50  # pictures scored at once


@dataclass(frozen=True)
class Facts:
    """Of a training: the accuracy on HELD pictures that it has not seen, and how it was reached."""

    accuracy: float
    seed: int
    lessons: Sequence[Sequence[int]]
    pictures: int
    threads: int
    seconds: float
    torch: str


@dataclass(frozen=True)
class Trained:
    """A network's file and the facts beside it."""

    path: Path
    facts: Facts


def trained(name: str, seed: int = 0, threads: int = 2) -> Trained:
    """The network from the cache, or trained now; torch is needed only then.

    Raises:
        ModuleNotFoundError: it has to be trained, and there is no torch.
    """
    path = WHEELS / f"pasted_{name}-{seed}.onnx"
    facts = path.with_suffix(".json")
    if not (path.exists() and facts.exists()):
        if importlib.util.find_spec("torch") is None:
            raise ModuleNotFoundError(
                f"{path} does not exist, and training it needs PyTorch; run once, where it is installed "
                "(pip install -e '.[models]'): python -m benchmarks.pasted_net"
            )
        model, known = _train(name, seed, threads)
        atomic_write_all({path: model, facts: json.dumps(asdict(known), indent=1).encode()})
    return Trained(path, Facts(**json.loads(facts.read_text(encoding="utf-8"))))


def _train(name: str, seed: int, threads: int) -> tuple[bytes, Facts]:
    from benchmarks import pasted_torch, torch_training

    began = time.perf_counter()
    held = draw(HELD, [seed, 2])
    lessons = [(draw(LEARN, [seed, 1, side], side=side), steps) for side, steps in LESSONS[name]]
    net = pasted_torch.train(name, lessons, held, seed, threads)
    accuracy = torch_training.accuracy(net, held.images, held.labels)
    model = torch_training.exported(net, SIDE)
    seconds = round(time.perf_counter() - began, 1)
    return model, Facts(
        accuracy, seed, LESSONS[name], LEARN, threads, seconds, importlib.metadata.version("torch")
    )


def explainer_of(name: str, trained_with: int = 0, **settings: Any) -> Explainer:
    """`Explainer` of the network of that seed, for photos or images; `settings` (its own `seed` too) are its."""
    return Explainer(
        trained(name, trained_with).path, preprocess=PREPROCESS, layout="NCHW", labels=CLASSES, **settings
    )


def scores(path: Path, images: Array) -> Array:
    """The network's scores [N, K] of images [N, 3, S, S]."""
    session = make_session(path.read_bytes(), [CPU])
    starts = range(0, len(images), _BATCH)
    return np.concatenate([run(session, ["scores"], {"image": images[i : i + _BATCH]})[0] for i in starts])


def known(path: Path, pictures: Pictures) -> Array:
    """[N] bool: which pictures the network gets right: its K highest scores are those of the K objects."""
    labels = pictures.labels.reshape(len(pictures.labels), -1)
    top = np.argsort(-scores(path, pictures.images), axis=1)[:, : labels.shape[1]]
    return np.asarray((np.sort(top) == np.sort(labels)).all(axis=1))


# How sensible the task is


def maps(explainer: Explainer, pictures: Pictures, labels: Array) -> Array:
    """Relevance [N, S, S] for the labels [N]."""
    found = np.zeros(pictures.photos.shape[:3], np.float32)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        explained = explainer.explain(pictures.images[rows], targets=int(label), batch_size=_BATCH)
        found[rows] = [one.relevance for one in explained]
    return found


def facts(name: str, seed: int, count: int, threads: int) -> list[str]:
    """Of a network: how sure it is, and how much of its explanations lies where it should; lines to print."""
    net = trained(name, seed, threads)
    single, double, grid = (
        draw(count, [seed, 3]),
        draw(2 * count, [seed, 4], objects=2),
        grids(2 * count, [seed, 5]),
    )
    right = [known(net.path, pictures) for pictures in (single, double, grid)]
    sure = ", ".join(
        f"{part.mean():.0%} of the pictures with {title}"
        for title, part in zip(("one", "two", "four"), right, strict=True)
    )
    lines = [f"{name}: {net.facts}", f"  finds all objects in {sure}"]
    single, double, grid = single[right[0]], double[right[1]][:count], grid[right[2]][:count]
    for options in ({}, {"seed": "contrast", "sign": "positive"}, {"boundary": "image"}):
        explainer = explainer_of(name, seed, providers="cpu", threads=threads, **options)
        lines.append(f"  {options or 'as it is by default'}: {_measured(explainer, single, double, grid)}")
    return lines


def _measured(explainer: Explainer, single: Pictures, double: Pictures, grid: Pictures) -> str:
    one = maps(explainer, single, single.labels)
    two = [maps(explainer, double, double.labels[:, k]) for k in range(2)]
    own = [inside(two[k], double.masks[:, k]) for k in range(2)]
    other = [inside(two[k], double.masks[:, 1 - k]) for k in range(2)]
    won = np.concatenate(own) / np.maximum(np.concatenate(own) + np.concatenate(other), 1e-12)
    game = inside(maps(explainer, grid, grid.labels[:, 0]), np.repeat(cells()[:1], len(grid.labels), axis=0))
    return (
        f"inside {inside(one, single.masks).mean():.1%} (area {single.masks.mean():.1%}), "
        f"pointing {pointing(one, single.masks).mean():.0%}, own of two {won.mean():.0%}, grid {game.mean():.0%}"
    )


def main() -> None:
    """Train what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--count", type=int, default=100, help="pictures of each kind")
    args = parser.parse_args()
    print(header(args.seed, args.threads))
    for name in NETS:
        print(*facts(name, args.seed, args.count, args.threads), sep="\n", flush=True)


if __name__ == "__main__":
    main()
