"""Whether it works on an NVIDIA GPU: its cost, its maps against those of the CPU, and where each node ran.

    python -m benchmarks.gpu

Needs a GPU, and nothing that is not in this repository. Times are medians of runs that alternate between all in one
process, copies to and from the device included. The exit code is 1 where a map is not that of the CPU, or where a node
that is emitted runs on the CPU.
"""

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.machine import header
from benchmarks.placement import fallen_back, parts_of, profile_of
from benchmarks.speed import MODELS, PLAIN, Measured, inputs, measure, model_bytes
from srd_onnx import Explainer
from srd_onnx.engine.options import PRESETS
from srd_onnx.graph.ir import Array
from srd_onnx.ort.cuda import CUDA_OPTIONS
from srd_onnx.ort.runtime import choose_providers, make_session

BATCHES = (1, 32)
TOLERANCE = 1e-3  # of the greatest number of a map
CHANGE = 1e-6  # of an input by noise, about what another order of summation does to the first layers
COMPARED = 4  # inputs of a batch whose maps are compared with those of the CPU
TARGET = 7  # the class that is explained there: the top one may be another after rounding


def maps(explainer: Explainer, x: Array) -> Array:
    """Maps [N, H, W], all inputs at once."""
    return np.stack([one.relevance for one in explainer.explain(x, TARGET, batch_size=len(x))])


def apart(a: Array, b: Array) -> Array:
    """For each map the greatest difference, as a part of the greatest number of the first: [N]."""
    axes = tuple(range(1, a.ndim))
    return np.asarray(np.abs(a - b).max(axis=axes) / np.abs(a).max(axis=axes))


@dataclass(frozen=True)
class Agreement:
    """Maps against those of the CPU, as parts of the greatest number.

    Attributes:
        apart: [N], how far each is from that of the CPU.
        moved: [N], how far that of the CPU moves when the input changes by `CHANGE`: a maximum of two numbers that are
            nearly one has another winner then, and no order of summation is the right one.
    """

    apart: Array
    moved: Array

    @property
    def holds(self) -> bool:
        """Whether each is as near as asked for, or as near as the map is defined."""
        return bool((self.apart <= np.maximum(TOLERANCE, self.moved)).all())


def agreement(data: bytes, preset: str, batch: int, x: Array, provider: str, seed: int) -> Agreement:
    """Of the first few of the inputs, explained in a batch."""
    count = min(len(x), COMPARED)
    found = maps(Explainer(data, preset=preset, providers=provider), x[:batch])[:count]
    cpu = Explainer(data, preset=preset, providers="cpu")
    expected, rng = maps(cpu, x[:count]), np.random.default_rng(seed)
    changed = [
        maps(cpu, x[:count] + np.float32(CHANGE) * rng.standard_normal(x[:count].shape, np.float32))
        for _ in range(3)
    ]
    return Agreement(apart(expected, found), np.max([apart(expected, one) for one in changed], axis=0))


def wrongly_placed(data: bytes, preset: str, batch: int, providers: Sequence[str]) -> Iterator[str]:
    """The emitted nodes of all sessions that ran on the CPU, a line for each operator."""
    explainer = Explainer(data, preset=preset, providers="cuda" if len(providers) > 1 else "cpu")
    shapes = explainer.shown_shapes()
    if batch > 1:
        shapes |= {p.name: (batch, *shapes[p.name][1:]) for p in explainer.ports if p.has_batch}
    for part in parts_of(explainer, explainer.case(shapes)):
        nodes = fallen_back(profile_of(part.model, providers), part.of_model)
        for op, count in Counter(node.op for node in nodes).items():
            one = next(node.name for node in nodes if node.op == op)
            yield f"{preset}, {part.purpose}: {count} of {op} on the CPU, such as '{one}'"


def memory_used() -> int:
    """MB of the GPU, by all processes."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak(name: str, what: str, batch: int) -> float:
    """MB of the GPU that a fresh process has taken after it ran `what` once, its context included."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu",
        "--peak",
        what,
        "--models",
        name,
        "--batches",
        str(batch),
    ]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _peak_here(name: str, what: str, batch: int, seed: int) -> int:
    data, x, before = model_bytes(name), inputs(name, batch, seed), memory_used()
    if what == PLAIN:
        session = make_session(data, choose_providers("cuda")[0])
        session.run(None, {session.get_inputs()[0].name: x})
    else:
        explainer = Explainer(data, preset=what, providers="cuda")
        explainer.explain(x, batch_size=batch)
    return memory_used() - before  # what ONNX Runtime has taken it keeps: so this is the most


def row(
    name: str, batch: int, found: Measured, memory: dict[str, float], agreed: dict[str, Agreement]
) -> str:
    """Of the table."""
    cells = [f"{found.seconds[PLAIN] * 1e3:.1f}", f"{memory[PLAIN]:.0f}" if memory else "-"]
    for preset in PRESETS:
        cells += [
            f"{found.seconds[preset] * 1e3:.1f}",
            f"{found.seconds[preset] / found.seconds[PLAIN]:.2f}",
            f"{memory[preset] / memory[PLAIN]:.1f}" if memory else "-",
            f"{found.compiling[preset]:.1f}",
            f"{found.singly[preset] / found.seconds[preset]:.2f}" if found.singly else "-",
            f"{found.apart[preset]:.0e}" if found.apart else "-",
            f"{agreed[preset].apart.max():.0e} ({agreed[preset].moved.max():.0e})",
        ]
    return f"| {name}, {batch} | {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and what is wrong; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--algorithm", choices=("HEURISTIC", "EXHAUSTIVE", "DEFAULT"), default="HEURISTIC")
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument(
        "--provider",
        choices=("cuda", "cpu"),
        default="cuda",
        help="cpu: try the script, which must then fail",
    )
    parser.add_argument("--peak", choices=(PLAIN, *PRESETS), help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    CUDA_OPTIONS.update(cudnn_conv_algo_search=args.algorithm, use_tf32=str(int(args.tf32)))
    if args.peak:
        print(_peak_here(args.models[0], args.peak, args.batches[0], args.seed))
        return 0
    providers, _ = choose_providers(args.provider)
    print(header(args.seed, 0))
    if args.provider == "cuda":
        command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
        print(f"CUDA provider: {CUDA_OPTIONS}")
    columns = ("ms", "/ forward", "peak / forward", "compile s", "throughput / one by one", "from one by one")
    heads = [f"`{preset}`: {column}" for preset in PRESETS for column in (*columns, "from CPU (CPU moves)")]
    print(
        f"\n| model, batch | forward ms | peak MB | {' | '.join(heads)} |\n|---|---|---|{'---|' * len(heads)}"
    )
    wrong: list[str] = []
    for name in args.models:
        data = model_bytes(name)
        for batch in args.batches:
            found = measure(name, batch, args.rounds, None, args.seed, args.provider)
            memory = {w: peak(name, w, batch) for w in (PLAIN, *PRESETS)} if args.provider == "cuda" else {}
            x, agreed = inputs(name, batch, args.seed), dict[str, Agreement]()
            for preset in PRESETS:
                agreed[preset] = agreement(data, preset, batch, x, args.provider, args.seed)
                if not agreed[preset].holds:
                    wrong.append(f"{name}, {batch}, {preset}: the map differs from the CPU's")
                placing = wrongly_placed(data, preset, batch, providers)
                wrong += [f"{name}, {batch}, {line}" for line in placing]
            print(row(name, batch, found, memory, agreed), flush=True)
    print("", *(wrong or ["Every map is that of the CPU, and no emitted node ran on the CPU."]), sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
