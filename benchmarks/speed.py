"""How much an explanation costs beside a plain forward pass: time, memory, compilation.

    python -m benchmarks.speed

Times are medians of runs that alternate between all in one process, so that a noisy machine hits them alike; only
their ratio means anything elsewhere. Peak memory is that of a fresh process that does nothing else.
"""

import argparse
import functools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

from benchmarks.machine import header
from benchmarks.nets import resnet50, vgg16, vit_s16
from srd_onnx import Explainer, zoo
from srd_onnx.engine.options import DEFAULT_PRESET, PRESETS
from srd_onnx.ort.runtime import CPU, make_session

MODELS = ("squeezenet11", "efficientnet_lite0", "vgg16", "resnet50", "vit_s16")
PLAIN = "plain"  # a forward pass


def model_bytes(name: str) -> bytes:
    """A shipped model, or a graph with random weights."""
    if entry := zoo.find(name):
        return entry.path.read_bytes()
    graph: onnx.ModelProto = {"vgg16": vgg16, "resnet50": resnet50, "vit_s16": vit_s16}[name](seed=0)
    return bytes(graph.SerializeToString())


def times(name: str, rounds: int, threads: int, seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds of a forward pass (PLAIN) and of an explanation by each preset; seconds to compile each."""
    data = model_bytes(name)
    made = {preset: Explainer(data, preset=preset, threads=threads, providers="cpu") for preset in PRESETS}
    x = np.random.default_rng(seed).standard_normal(made[DEFAULT_PRESET].input_shape).astype(np.float32)
    plain = make_session(data, [CPU], threads)
    feed = {plain.get_inputs()[0].name: x}
    compiling = {p: float(one.explain(x)[0].meta["seconds"]["compile"]) for p, one in made.items()}
    runs: dict[str, Callable[[], object]] = {PLAIN: lambda: plain.run(None, feed)}
    runs |= {preset: functools.partial(one.explain, x) for preset, one in made.items()}
    taken: dict[str, list[float]] = {what: [] for what in runs}
    for _ in range(rounds):
        for what, run in runs.items():
            began = time.perf_counter()
            run()
            taken[what].append(time.perf_counter() - began)
    return {what: float(np.median(seconds)) for what, seconds in taken.items()}, compiling


def peak(name: str, what: str, threads: int) -> float:
    """Peak resident MB of a fresh process that runs `what` once."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.speed",
        "--peak",
        what,
        "--models",
        name,
        "--threads",
        str(threads),
    ]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _peak_here(name: str, what: str, threads: int, seed: int) -> float:
    """The process needs everything imported and the model written in either case; only the run differs."""
    data = model_bytes(name)
    shape = (1, 3, 227, 227) if name == "squeezenet11" else (1, 3, 224, 224)
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    if what == PLAIN:
        session = make_session(data, [CPU], threads)
        session.run(None, {session.get_inputs()[0].name: x})
    else:
        Explainer(data, preset=what, threads=threads, providers="cpu").explain(x)
    # Not ru_maxrss: that is inherited from the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peak", choices=(PLAIN, *PRESETS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        print(_peak_here(args.models[0], args.peak, args.threads, args.seed))
        return
    print(header(args.seed, args.threads), f"rounds: {args.rounds}, batch 1", sep="\n")
    print()
    print(
        f"| model | forward ms | peak MB |{''.join(f' {p}: / forward | peak / forward | compile s |' for p in PRESETS)}"
    )
    print("|---|---|---|" + "---|---|---|" * len(PRESETS))
    for name in args.models:
        seconds, compiling = times(name, args.rounds, args.threads, args.seed)
        memory = {what: peak(name, what, args.threads) for what in seconds}
        cells = [f"{seconds[PLAIN] * 1e3:.1f} | {memory[PLAIN]:.0f}"] + [
            f"{seconds[p] / seconds[PLAIN]:.2f} | {memory[p] / memory[PLAIN]:.1f} | {compiling[p]:.1f}"
            for p in PRESETS
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
