"""Whether it works on an NVIDIA GPU, how near the map is to that of the CPU, what it costs beside a forward pass.

    python -m benchmarks.gpu [--algorithm HEURISTIC] [--tf32]

Needs a GPU. Times are medians, of one thing after the other in one process, copies to and from the device included; the
same is measured with other settings of ONNX Runtime's CUDA provider than ours by the two options.
"""

import argparse
import functools
import subprocess
import time
from collections.abc import Callable

import numpy as np

from benchmarks.machine import header
from benchmarks.speed import model_bytes
from srd_onnx import Explainer
from srd_onnx.engine.options import DEFAULT_PRESET, PRESETS
from srd_onnx.graph.ir import Array
from srd_onnx.ort.cuda import CUDA, CUDA_OPTIONS
from srd_onnx.ort.runtime import CPU, make_session

MODELS = ("squeezenet11", "efficientnet_lite0", "resnet50", "vgg16")
BATCHES = (1, 32)


def median(run: Callable[[], object], rounds: int) -> float:
    """Milliseconds; two rounds before are for warming up."""
    seconds = []
    for _ in range(rounds + 2):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return 1000 * float(np.median(seconds[2:]))


def apart(a: Array, b: Array) -> float:
    """The greatest difference, as a part of the greatest number of the first map."""
    return float(np.abs(a - b).max() / np.abs(a).max())


def maps(explainer: Explainer, x: Array) -> Array:
    """Maps [N, H, W] of class 7, all inputs at once."""
    return np.stack([one.relevance for one in explainer.explain(x, 7, batch_size=len(x))])


def row(name: str, batch: int, rounds: int, seed: int) -> str:
    """Of a model and a batch: forward, explanations and how far the maps are from those of the CPU."""
    data = model_bytes(name)
    made = {p: Explainer(data, preset=p, providers="cuda") for p in PRESETS}
    size = made[DEFAULT_PRESET].input_shape[-1]
    x = np.random.default_rng(seed).standard_normal((batch, 3, size, size)).astype(np.float32)
    plain = make_session(data, [CUDA, CPU])
    given = plain.get_inputs()[0]
    free = not isinstance(given.shape[0], int)
    forward = median(lambda: plain.run(None, {given.name: x if free else x[:1]}), rounds)
    cells = []
    for preset, explainer in made.items():
        began = time.perf_counter()
        first = maps(explainer, x)
        compiled = time.perf_counter() - began
        again = apart(first, maps(explainer, x))
        cpu = maps(Explainer(data, preset=preset, providers="cpu"), x[:2])
        fresh = maps(Explainer(data, preset=preset, providers="cuda"), x)
        taken = median(functools.partial(explainer.explain, x, 7, batch_size=batch), rounds)
        cells.append(
            f"{taken:.1f} | {taken / forward:.2f} | {compiled:.1f} | {apart(cpu, first[:2]):.0e} "
            f"| {again:.0e}, {apart(first, fresh):.0e}"
        )
    note = "" if free else " (model of batch 1)"
    return f"| {name}, {batch}{note} | {forward:.1f} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--algorithm", choices=("HEURISTIC", "EXHAUSTIVE", "DEFAULT"), default="HEURISTIC")
    parser.add_argument("--tf32", action="store_true")
    args = parser.parse_args()
    CUDA_OPTIONS.update(cudnn_conv_algo_search=args.algorithm, use_tf32=str(int(args.tf32)))
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    print(header(args.seed, 0), subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"CUDA provider: {CUDA_OPTIONS}\n")
    columns = [f"{p} ms | / forward | first s | from CPU | again, anew" for p in PRESETS]
    print(f"| model, batch | forward ms | {' | '.join(columns)} |\n|---|---|{'---|' * 5 * len(PRESETS)}")
    for name in args.models:
        for batch in args.batches:
            print(row(name, batch, args.rounds, args.seed), flush=True)


if __name__ == "__main__":
    main()
