"""How much an explanation costs beside a plain forward pass: time, memory, compilation.

    python -m benchmarks.speed

Times are medians of runs that alternate between the two in one process, so that a noisy machine hits both alike;
only their ratio means anything elsewhere. Peak memory is that of a fresh process that does nothing else.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx

from benchmarks.machine import header
from benchmarks.nets import resnet50, vgg16
from srd_onnx import Explainer, zoo
from srd_onnx.runtime import CPU, make_session

MODELS = ("squeezenet11", "efficientnet_lite0", "vgg16", "resnet50")


def model_bytes(name: str) -> bytes:
    """A shipped model, or a graph with random weights."""
    if entry := zoo.find(name):
        return entry.path.read_bytes()
    graph: onnx.ModelProto = {"vgg16": vgg16, "resnet50": resnet50}[name](seed=0)
    return bytes(graph.SerializeToString())


def times(name: str, rounds: int, threads: int, seed: int) -> tuple[float, float, float, float]:
    """Median seconds of a forward pass and of an explanation; seconds to compile; of the second new image."""
    data = model_bytes(name)
    explainer = Explainer(data, threads=threads, providers="cpu")
    x = np.random.default_rng(seed).standard_normal(explainer.input_shape).astype(np.float32)
    plain = make_session(data, [CPU], threads)
    feed = {plain.get_inputs()[0].name: x}
    compile_seconds = explainer.explain(x)[0].meta["seconds"]["compile"]
    began = time.perf_counter()
    explainer.explain(x + 1)
    second = time.perf_counter() - began
    forward, explain = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        plain.run(None, feed)
        middle = time.perf_counter()
        explainer.explain(x)
        forward.append(middle - began)
        explain.append(time.perf_counter() - middle)
    return float(np.median(forward)), float(np.median(explain)), compile_seconds, second


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
    if what == "plain":
        session = make_session(data, [CPU], threads)
        session.run(None, {session.get_inputs()[0].name: x})
    else:
        Explainer(data, threads=threads, providers="cpu").explain(x)
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
    parser.add_argument("--peak", choices=("plain", "explain"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        print(_peak_here(args.models[0], args.peak, args.threads, args.seed))
        return
    print(header(args.seed, args.threads), f"rounds: {args.rounds}, batch 1, preset paper", sep="\n")
    print()
    print(
        "| model | forward ms | explanation ms | ratio | compile s | 2nd image ms | peak MB forward | explanation |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in args.models:
        forward, explain, compiling, second = times(name, args.rounds, args.threads, args.seed)
        memory = [peak(name, what, args.threads) for what in ("plain", "explain")]
        print(
            f"| {name} | {forward * 1e3:.1f} | {explain * 1e3:.1f} | {explain / forward:.2f} | {compiling:.2f} "
            f"| {second * 1e3:.0f} | {memory[0]:.0f} | {memory[1]:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
