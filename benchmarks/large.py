"""What a large picture takes, explained as a whole and part by part: peak memory and time.

    python -m benchmarks.large [--sides 1024 2048] [--memory 5e8]

SqueezeNet 1.1 with its sides left open, preset `paper`. Each run is a process of its own; memory is its peak over what
it was before the model was opened, and the map is compared with that of the whole where there is one.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.growth import open_sides
from benchmarks.machine import header
from srd_onnx import Explainer, zoo
from srd_onnx.bounded.tiles import Tiled


def peak() -> float:
    """Peak resident MB of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def here(side: int, most: int | None, threads: int, seed: int, out: Path) -> str:
    """Explain once; the numbers of a row, and the map as a file."""
    model = open_sides(zoo.zoo()["squeezenet11"].path)
    x = np.random.default_rng(seed).standard_normal((1, 3, side, side)).astype(np.float32)
    before, began = peak(), time.perf_counter()
    explainer = Explainer(
        model, preset="paper", providers="cpu", threads=threads, layout="NCHW", max_memory=most
    )
    found = explainer.explain(x, 3)[0]
    seconds = time.perf_counter() - began
    (ready,) = explainer._sessions.values()
    parts = len(ready.rows) * len(ready.columns) if isinstance(ready, Tiled) else 1
    np.save(out, found.relevance)
    return f"{parts} | {peak() - before:.0f} | {seconds:.1f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", nargs="+", type=int, default=[1024, 2048])
    parser.add_argument("--memory", nargs="+", type=float, default=[0, 5e8], help="0: as a whole")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        most = int(args.memory[0]) or None
        print(here(args.sides[0], most, args.threads, args.seed, args.here))
        return
    print(header(args.seed, args.threads), end="\n\n")
    print("| side | max_memory, MB | parts | peak, MB | s | from the whole |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for side in args.sides:
            whole = None
            for most in args.memory:
                out = Path(folder) / "map.npy"
                command = [sys.executable, "-m", "benchmarks.large", "--here", str(out), "--sides", str(side)]
                command += ["--memory", str(most), "--threads", str(args.threads), "--seed", str(args.seed)]
                said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
                found = np.load(out)
                whole = found if not most else whole
                apart = "" if whole is None else f"{np.abs(found - whole).max() / np.abs(whole).max():.0e}"
                print(f"| {side} | {most / 1e6:.0f} | {said} | {apart} |", flush=True)


if __name__ == "__main__":
    main()
