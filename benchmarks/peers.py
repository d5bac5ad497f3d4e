"""How long an explanation takes beside those of other libraries: same network, same weights, same threads.

    python -m benchmarks.peers [--environment DIR]

They run in a virtual environment of their own, which is made first (a few GB) where none is given. Times are medians of
runs that alternate between all in one process; RISE, which takes minutes, runs once. The machine shows in all of them
alike: only ratios are printed.
"""

import argparse
import functools
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.machine import header
from benchmarks.nets import resnet50, vgg16
from srd_onnx import Explainer
from srd_onnx.engine.options import PRESETS
from srd_onnx.ort.runtime import CPU, make_session

ROOT = Path(__file__).parent.parent
NETS = {"resnet50": resnet50, "vgg16": vgg16}
PACKAGES = ("torch", "captum", "zennit", "grad-cam", "dianna")
# DIANNA asks for packages of its dashboard and of other explainers, which RISE does not use.
LATER = (("--no-deps", "dianna==1.8.*"), ("xarray", "pooch", "scikit-image", "scikit-learn", "tqdm"))
OURS, FORWARD, RISE = "srd-onnx, {}", "ONNX Runtime, forward alone", "DIANNA, RISE"
TARGET = 7


def environment(given: Path | None) -> Path:
    """The Python of the environment with the peers: of the one given, or of one made beside the repository."""
    folder = given or ROOT / ".venv-peers-speed"
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if given is None and not (folder / ".installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-e", f"{ROOT}[peers]"], check=True)
        for packages in LATER:
            subprocess.run([*pip, *packages], check=True)
        (folder / ".installed").touch()
    return python


def seconds(name: str, rounds: int, threads: int, seed: int, masks: int) -> dict[str, float]:
    """Median seconds of everything on one network."""
    import torch  # type: ignore[import-not-found, unused-ignore]

    from benchmarks.peers_torch import PEERS, forward, rise, twin

    torch.set_num_threads(threads)
    graph = NETS[name](seed=0)
    data = graph.SerializeToString()
    net = twin(name, graph)
    x = np.random.default_rng(seed).standard_normal((1, 3, 224, 224)).astype(np.float32)
    plain = make_session(data, [CPU], threads)
    logits = plain.run(None, {"input": x})[0]
    np.testing.assert_allclose(forward(net, x, TARGET), logits, rtol=1e-3, atol=1e-3 * np.abs(logits).max())
    made = {p: Explainer(data, preset=p, threads=threads, providers="cpu") for p in PRESETS}
    runs: dict[str, Callable[[], object]] = {FORWARD: lambda: plain.run(None, {"input": x})}
    runs |= {OURS.format(p): functools.partial(one.explain, x, TARGET) for p, one in made.items()}
    runs |= {peer: functools.partial(run, net, x, TARGET) for peer, run in PEERS.items()}
    taken: dict[str, list[float]] = {what: [] for what in runs}
    for number in range(rounds + 1):
        for what, run in runs.items():
            began = time.perf_counter()
            run()
            if number:  # the first is for warming up
                taken[what].append(time.perf_counter() - began)
    found = {what: float(np.median(times)) for what, times in taken.items()}
    if masks:
        began = time.perf_counter()
        rise(lambda batch: plain.run(None, {"input": batch.astype(np.float32)})[0], x, TARGET, masks)
        found[f"{RISE}, {masks} masks"] = time.perf_counter() - began
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    """One row for each thing, for each network its time over that of each preset of ours."""
    columns = [f"{name}: / {p}" for name in found for p in PRESETS]
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for what in next(iter(found.values())):
        ratios = [times[what] / times[OURS.format(p)] for times in found.values() for p in PRESETS]
        lines.append(f"| {what} | {' | '.join(f'{ratio:.3g}' for ratio in ratios)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environment", type=Path, help="of Python, with the peers in it; made if left out")
    parser.add_argument("--models", nargs="+", default=list(NETS), choices=list(NETS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--masks", type=int, default=1000, help="of RISE; 0 for no RISE")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.here:
        command = [str(environment(args.environment)), "-m", "benchmarks.peers", "--here", *sys.argv[1:]]
        sys.exit(subprocess.run(command, cwd=ROOT, check=False).returncode)
    print(header(args.seed, args.threads))
    print(f"peers: {', '.join(f'{p} {version(p)}' for p in PACKAGES)}; rounds: {args.rounds}, batch 1\n")
    given = args.rounds, args.threads, args.seed, args.masks
    print(table({name: seconds(name, *given) for name in args.models}))


if __name__ == "__main__":
    main()
