"""What a large picture, or a deep network, takes: explained at once, and in bounded memory. Peak memory and time.

    python -m benchmarks.large sides [--sizes 1024 2048] [--memory 0 5e8]
    python -m benchmarks.large depths [--sizes 100 300 500] [--memory 0 1e9 5e8 3e8]

Sides: SqueezeNet 1.1 with its sides left open. Depths: residual chains of so many 3x3 convolutions on 224 x 224
positions. Preset `paper`. Each run is a process of its own; memory is its peak over what it was before the model was
opened, seconds are those of the processor, compiling included, and the map is compared with that of the whole where
there is one.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx

from benchmarks.growth import open_sides
from benchmarks.machine import header
from benchmarks.nets import residual_chain
from srd_onnx import Explainer, zoo
from srd_onnx.bounded.recomputed import Recomputed
from srd_onnx.bounded.tiles import Tiled
from srd_onnx.errors import OptionError

SIDE = 224
SIZES = {"sides": [1024, 2048], "depths": [100, 300, 500]}
MEMORY = {"sides": [0, 5e8], "depths": [0, 1e9, 5e8, 3e8]}


def peak() -> float:
    """Peak resident MB of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def model_of(what: str, size: int) -> tuple[onnx.ModelProto, int]:
    """A model, and the side of the picture that it is given."""
    if what == "depths":
        return residual_chain(size), SIDE
    return open_sides(zoo.zoo()["squeezenet11"].path), size


def here(what: str, size: int, most: int | None, threads: int, seed: int, out: Path) -> str:
    """Explain once; the numbers of a row, and the map as a file."""
    model, side = model_of(what, size)
    x = np.random.default_rng(seed).standard_normal((1, 3, side, side)).astype(np.float32)
    before, began = peak(), time.process_time()
    explainer = Explainer(
        model, preset="paper", providers="cpu", threads=threads, layout="NCHW", max_memory=most
    )
    try:
        found = explainer.explain(x, 3)[0]
    except OptionError:
        return "does not fit | | "
    seconds = time.process_time() - began
    (ready,) = explainer._sessions.values()
    how = "at once"
    if isinstance(ready, Tiled):
        how = f"{len(ready.rows) * len(ready.columns)} parts"
    if isinstance(ready, Recomputed):
        how = f"{sum(piece.back for piece in ready.pieces)} segments"
    np.save(out, found.relevance)
    return f"{how} | {peak() - before:.0f} | {seconds:.1f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=SIZES)
    parser.add_argument("--sizes", nargs="+", type=int)
    parser.add_argument("--memory", nargs="+", type=float, help="bytes, 0: at once")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    sizes, memory = args.sizes or SIZES[args.what], args.memory or MEMORY[args.what]
    if args.here:
        print(here(args.what, sizes[0], int(memory[0]) or None, args.threads, args.seed, args.here))
        return
    print(header(args.seed, args.threads), end="\n\n")
    print(f"| {args.what[:-1]} | `max_memory`, MB | how | peak, MB | s | from the whole |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            whole = None
            for most in memory:
                out = Path(folder) / "map.npy"
                command = [sys.executable, "-m", "benchmarks.large", args.what, "--here", str(out)]
                command += ["--sizes", str(size), "--memory", str(most)]
                command += ["--threads", str(args.threads), "--seed", str(args.seed)]
                off = {**os.environ, "SRD_ONNX_CACHE": "off"}
                said = subprocess.run(command, check=True, capture_output=True, text=True, env=off).stdout
                found = np.load(out) if out.exists() else None
                out.unlink(missing_ok=True)
                whole = whole if most else found
                apart = ""
                if most and found is not None and whole is not None:
                    apart = f"{np.abs(found - whole).max() / np.abs(whole).max():.0e}"
                shown = f"{most / 1e6:.0f}" if most else "none"
                print(f"| {size} | {shown} | {said.strip()} | {apart} |", flush=True)


if __name__ == "__main__":
    main()
