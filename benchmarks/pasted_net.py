"""The ResNet and the VGG that know the pictures of `pasted`: trained by torch once, then a file beside the wheels.

    python -m benchmarks.pasted_net [--seed 0] [--threads 2]

trains what is missing and prints, of each network, how sure it is and how much of its explanations lies on the object.
"""

import argparse
import importlib.util
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.imagenet import WHEELS
from benchmarks.machine import header
from benchmarks.pasted import CLASSES, PREPROCESS, Array, Pictures, cells, draw, grids
from srd_onnx import Explainer
from srd_onnx.files import atomic_write_all
from srd_onnx.runtime import CPU, make_session, run

NETS = ("resnet", "vgg")
STEPS, LEARN, HELD = 1400, 12288, 1000
_BATCH = 50  # pictures scored at once


@dataclass(frozen=True)
class Facts:
    """Of a training: the accuracy on HELD pictures that it has not seen, and how it was reached."""

    accuracy: float
    seed: int
    steps: int
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
    import torch

    from benchmarks import pasted_torch, torch_training

    began = time.perf_counter()
    learn, held = draw(LEARN, [seed, 1]), draw(HELD, [seed, 2])
    net = pasted_torch.train(name, learn, held, STEPS, seed, threads)
    accuracy = torch_training.accuracy(net, held.images, held.labels)
    model = torch_training.exported(net, held.photos.shape[1])
    seconds = round(time.perf_counter() - began, 1)
    return model, Facts(accuracy, seed, STEPS, LEARN, threads, seconds, str(torch.__version__))


def explainer_of(name: str, seed: int = 0, **settings: Any) -> Explainer:
    """`Explainer` of the network, which takes photos or images; `settings` as for `Explainer`."""
    return Explainer(
        trained(name, seed).path, preprocess=PREPROCESS, layout="NCHW", labels=CLASSES, **settings
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
