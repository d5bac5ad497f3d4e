"""How the cost of explaining grows: with the side of the picture, the batch, the number of targets and the depth.

    python -m benchmarks.growth [--out docs/growth.png]

Each point is the median time of explanations over that of forward passes of the same network on the same input, both
alternating in one process; targets of one picture are compared with one forward pass.
"""

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import onnx

from benchmarks.machine import header
from benchmarks.nets import chain
from srd_onnx import Explainer, zoo
from srd_onnx.ort.runtime import CPU, make_session

SIDES = (128, 224, 384, 512, 768, 1024)
BATCHES = (1, 2, 4, 8, 16, 32)
TARGETS = (1, 3, 10, 30, 100, 300, 1000)
DEPTHS = (10, 30, 100, 300)
PRESET = "paper"


def open_sides(path: Path) -> onnx.ModelProto:
    """A model file with the batch and the sides of its picture left open."""
    model = onnx.load(path)
    for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim, ("N", "", "H", "W"), strict=True):
        if name:
            dim.dim_param = name
    return model


def ratio(
    model: onnx.ModelProto,
    shape: tuple[int, int, int, int],
    targets: int,
    rounds: int,
    threads: int,
    seed: int,
) -> float:
    """Explanations of a batch, for so many targets, over one forward pass of it."""
    data = model.SerializeToString()
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    plain = make_session(data, [CPU], threads)
    explainer = Explainer(data, preset=PRESET, threads=threads, providers="cpu", layout="NCHW")
    feed = {plain.get_inputs()[0].name: x}
    runs: tuple[Callable[[], object], ...] = (
        lambda: plain.run(None, feed),
        functools.partial(explainer.explain, x, list(range(targets)), batch_size=len(x)),
    )
    taken: list[list[float]] = [[] for _ in runs]
    for number in range(rounds + 1):
        for run, seconds in zip(runs, taken, strict=True):
            began = time.perf_counter()
            run()
            if number:  # the first compiles
                seconds.append(time.perf_counter() - began)
    forward, explaining = (float(np.median(seconds)) for seconds in taken)
    return explaining / forward


def measured(rounds: int, threads: int, seed: int) -> dict[str, dict[int, float]]:
    """The ratio at each point of each axis; prints what it is at."""
    entry = zoo.zoo()["squeezenet11"]
    squeezenet = open_sides(entry.path)
    points: dict[str, dict[int, Callable[..., float]]] = {
        "side of the picture, pixels": {
            side: functools.partial(ratio, squeezenet, (1, 3, side, side), 1) for side in SIDES
        },
        "batch": {n: functools.partial(ratio, squeezenet, (n, 3, 224, 224), 1) for n in BATCHES},
        "targets of one picture": {
            n: functools.partial(ratio, squeezenet, (1, 3, 224, 224), n) for n in TARGETS
        },
        "layers (3x3, 32 channels)": {
            n: functools.partial(ratio, chain(n), (1, 3, 224, 224), 1) for n in DEPTHS
        },
    }
    found: dict[str, dict[int, float]] = {}
    for axis, by_value in points.items():
        found[axis] = {}
        for value, measure in by_value.items():
            found[axis][value] = measure(rounds=rounds, threads=threads, seed=seed)
            print(f"  {axis} {value}: {found[axis][value]:.2f}", flush=True)
    return found


def table(found: dict[str, dict[int, float]]) -> str:
    """One table for each axis, in a row."""
    lines = []
    for axis, points in found.items():
        lines += [f"| {axis} | {' | '.join(map(str, points))} |", "|---|" + "---|" * len(points)]
        lines += [f"| explanation / forward | {' | '.join(f'{r:.2f}' for r in points.values())} |", ""]
    return "\n".join(lines)


def draw(found: dict[str, dict[int, float]], path: Path) -> None:
    """The same as curves."""
    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(3.2 * len(found), 3), layout="constrained")
    for ax, (axis, points) in zip(axes, found.items(), strict=True):
        ax.plot(list(points), list(points.values()), "o-", color="#1f6f8b")
        ax.set(xscale="log", xlabel=axis, ylim=(0, 1.15 * max(points.values())))
        ax.set_xticks(list(points), list(map(str, points)), fontsize=8)
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("explanation / forward pass")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Print the tables and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs" / "growth.png")
    args = parser.parse_args()
    print(header(args.seed, args.threads), f"rounds: {args.rounds}, preset {PRESET}\n", sep="\n")
    found = measured(args.rounds, args.threads, args.seed)
    draw(found, args.out)
    print("\n" + table(found))


if __name__ == "__main__":
    main()
