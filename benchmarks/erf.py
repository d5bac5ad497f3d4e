"""What effective receptive fields and many targets cost beside a plain forward pass and beside backward passes.

    python -m benchmarks.erf

Times are medians of runs that alternate in one process, so that a noisy machine hits all alike; only their ratios mean
anything elsewhere. A backward pass for one field is a whole explanation with the layer as its boundary; 196 of them are
estimated from a few.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from benchmarks.machine import header
from benchmarks.speed import model_bytes
from srd_onnx import Explainer
from srd_onnx.inside.layers import Layer
from srd_onnx.ort.runtime import CPU, make_session
from srd_onnx.targets import At

MODELS = ("efficientnet_lite0", "resnet50", "squeezenet11", "vgg16")
FEW, TARGETS = 10, 100  # both by ratios that are computed once


def deepest(explainer: Explainer, side: int) -> Layer:
    """The last layer of about `side` × `side` positions that mixes some."""
    return [one for one in explainer.layers() if one.mixes and abs(one.positions[0] - side) <= 1][-1]


def interleaved(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median seconds of each task, one run of each after the other; a first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds + 1):
        for name, task in tasks.items():
            began = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - began)
    return {name: float(np.median(found[1:])) for name, found in seconds.items()}


def measure(name: str, rounds: int, threads: int, seed: int) -> tuple[Layer, dict[str, float]]:
    """Seconds of each task for one model."""
    data = model_bytes(name)
    explainer = Explainer(data, preset="paper", threads=threads, providers="cpu")
    x = np.random.default_rng(seed).standard_normal(explainer.input_shape).astype(np.float32)
    layer = deepest(explainer, 14)
    plain = make_session(data, [CPU], threads)
    feed = {plain.get_inputs()[0].name: x}
    # Any direction costs the same: one element of the layer, collapsed there.
    single = Explainer(data, preset="paper", threads=threads, providers="cpu", boundary=layer.tensor)
    one = At(layer.tensor, tuple(size // 2 for size in layer.shape[1:]))
    tasks: dict[str, Callable[[], object]] = {
        "forward": lambda: plain.run(None, feed),
        "backward": lambda: single.explain(x, one),
        "fields": lambda: explainer.erf(x, layer.tensor),
        "target": lambda: explainer.explain(x, 0),
        "few": lambda: explainer.explain(x, list(range(FEW))),
        "targets": lambda: explainer.explain(x, list(range(TARGETS))),
    }
    return layer, interleaved(tasks, rounds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(header(args.seed, args.threads), f"rounds: {args.rounds}, batch 1, preset paper", sep="\n")
    print()
    print(
        "| model | layer | fields | all of them / forward | as many backward passes / forward "
        f"| {TARGETS} targets / 1 target | each further target / forward |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in args.models:
        layer, seconds = measure(name, args.rounds, args.threads, args.seed)
        count = int(np.prod(layer.positions))
        print(
            f"| {name} | `{layer.name}` {' × '.join(map(str, layer.positions))} | {count} "
            f"| {seconds['fields'] / seconds['forward']:.1f} "
            f"| {count * seconds['backward'] / seconds['forward']:.0f} "
            f"| {seconds['targets'] / seconds['target']:.2f} "
            f"| {(seconds['targets'] - seconds['few']) / (TARGETS - FEW) / seconds['forward']:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
