"""How much an explanation costs beside a plain forward pass: time, memory, compilation.

    python -m benchmarks.speed

Times are medians of runs that alternate between all in one process, so that a noisy machine hits them alike; only
their ratio means anything elsewhere. Peak memory is that of a fresh process that does nothing else.
"""

import argparse
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.machine import header
from benchmarks.nets import resnet50, vgg16, vit_s16
from srd_onnx import Explainer, zoo
from srd_onnx.cache import place
from srd_onnx.engine.options import PRESETS
from srd_onnx.ort.runtime import CPU, choose_providers, make_session

MODELS = ("squeezenet11", "efficientnet_lite0", "vgg16", "resnet50", "vit_s16")
PLAIN = "plain"  # a forward pass
_SINGLY = "one by one: "


def model_bytes(name: str) -> bytes:
    """A shipped model, or a graph with random weights."""
    if entry := zoo.find(name):
        return entry.path.read_bytes()
    graph: onnx.ModelProto = {"vgg16": vgg16, "resnet50": resnet50, "vit_s16": vit_s16}[name](seed=0)
    return bytes(graph.SerializeToString())


@dataclass(frozen=True)
class Measured:
    """Of one model.

    Attributes:
        seconds: medians of a run of the batch: PLAIN, and an explanation by each preset.
        compiling: seconds, by preset.
        singly: median seconds of the batch explained one by one, by preset; empty for a batch of one.
        apart: the greatest difference of the two, as a part of the greatest number, by preset.
    """

    seconds: Mapping[str, float]
    compiling: Mapping[str, float]
    singly: Mapping[str, float]
    apart: Mapping[str, float]


def measure(
    name: str, batch: int, rounds: int, threads: int | None, seed: int, providers: str = "cpu"
) -> Measured:
    """Interleaved runs, all in this process; copies to and from a GPU are part of them."""
    data = model_bytes(name)
    made = {
        preset: Explainer(data, preset=preset, threads=threads, providers=providers) for preset in PRESETS
    }
    x = inputs(name, batch, seed)
    plain = make_session(data, choose_providers(providers)[0], threads)
    feed = {plain.get_inputs()[0].name: x}
    compiling, runs, apart = dict[str, float](), dict[str, Callable[[], object]](), dict[str, float]()
    runs[PLAIN] = lambda: plain.run(None, feed)
    for preset, one in made.items():
        runs[preset] = functools.partial(one.explain, x, batch_size=batch)
        together = one.explain(x, batch_size=batch)
        compiling[preset] = float(together[0].meta["seconds"]["compile"])
        if batch > 1:
            runs[_SINGLY + preset] = functools.partial(one.explain, x)
            pairs = zip(together, one.explain(x), strict=True)
            apart[preset] = max(_apart(a.relevance, b.relevance) for a, b in pairs)
    taken: dict[str, list[float]] = {what: [] for what in runs}
    for _ in range(rounds):
        for what, run in runs.items():
            began = time.perf_counter()
            run()
            taken[what].append(time.perf_counter() - began)
    medians = {what: float(np.median(seconds)) for what, seconds in taken.items()}
    singly = {preset: medians.pop(_SINGLY + preset) for preset in PRESETS if batch > 1}
    return Measured(medians, compiling, singly, apart)


def inputs(name: str, batch: int, seed: int) -> NDArray[np.float32]:
    """Noise of the shape that a model takes."""
    side = 227 if name == "squeezenet11" else 224
    return np.random.default_rng(seed).standard_normal((batch, 3, side, side)).astype(np.float32)


def _apart(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


def peak(path: Path, what: str, batch: int, threads: int) -> float:
    """Peak resident MB of a fresh process that opens a model file, compiles what it needs, and runs `what` once.

    What is compiled is kept on the disk, as ever, in a folder that is empty.
    """
    command = [
        sys.executable,
        "-m",
        "benchmarks.speed",
        "--peak",
        what,
        "--file",
        str(path),
        "--batch",
        str(batch),
        "--threads",
        str(threads),
    ]
    kept = os.environ | {place.VARIABLE: str(path.with_name(what))}
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=kept).stdout)


def _peak_here(path: Path, what: str, batch: int, threads: int, seed: int) -> float:
    """The process has everything imported in either case; only the run differs."""
    x = inputs(path.stem, batch, seed)
    if what == PLAIN:
        session = make_session(path, [CPU], threads)
        session.run(None, {session.get_inputs()[0].name: x})
    else:
        Explainer(path, preset=what, threads=threads, providers="cpu").explain(x, batch_size=batch)
    # Not ru_maxrss: that is inherited from the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peak", choices=(PLAIN, *PRESETS), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        print(_peak_here(args.file, args.peak, args.batch, args.threads, args.seed))
        return
    print(header(args.seed, args.threads), f"rounds: {args.rounds}, batch {args.batch}", sep="\n")
    print()
    columns = ["/ forward", "peak / forward", "compile s"]
    columns += ["throughput / one by one", "from one by one"] if args.batch > 1 else []
    heads = [
        f"{preset}: {column}" if i == 0 else column for preset in PRESETS for i, column in enumerate(columns)
    ]
    print(f"| model | forward ms | peak MB | {' | '.join(heads)} |")
    print("|---|---|---|" + "---|" * len(heads))
    for name in args.models:
        found = measure(name, args.batch, args.rounds, args.threads, args.seed)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.onnx"
            path.write_bytes(model_bytes(name))
            memory = {what: peak(path, what, args.batch, args.threads) for what in (PLAIN, *PRESETS)}
        cells = [f"{found.seconds[PLAIN] * 1e3:.1f}", f"{memory[PLAIN]:.0f}"]
        for preset in PRESETS:
            cells += [
                f"{found.seconds[preset] / found.seconds[PLAIN]:.2f}",
                f"{memory[preset] / memory[PLAIN]:.1f}",
                f"{found.compiling[preset]:.1f}",
            ]
            if found.singly:
                cells.append(f"{found.singly[preset] / found.seconds[preset]:.2f}")
                cells.append(f"{found.apart[preset]:.0e}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
