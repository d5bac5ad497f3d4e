"""Fuzz for as long as you like: random networks, and real models damaged at random.

python -m benchmarks.fuzz --minutes 20 [--seed 0] [--out fuzz-failures]

Prints how often each outcome occurred, by kind, and saves the smallest model of each failure with what was raised.
Batches run in processes of their own, so that a crash of a runtime is a result like any other.
"""

import argparse
import contextlib
import functools
import itertools
import json
import os
import re
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import onnx
from hypothesis import HealthCheck, Phase, given, settings

from srd_onnx import SrdOnnxError, zoo
from tests.fuzz_checks import PropertyError, explain_grown
from tests.fuzz_graphs import Grown, grown
from tests.fuzz_mutations import explain_mutated, limited_memory, mutated
from tests.nets import small_cnn, two_nodes

GROWN_PER_BATCH, MUTATED_PER_BATCH = 80, 300
LONGEST_BATCH = 600  # seconds
PHOTO_MODELS = ("squeezenet11", "efficientnet_lite0")
KINDS = ("grown", "mutated", "grown", "mutated", "damaged photo model")


def main() -> int:
    """Run batches until the time is up; 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz-failures"))
    parser.add_argument("--batch", choices=KINDS, help="run one batch and print a line per case")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.batch:
        with limited_memory():
            _batch(args.batch, args.seed, args.out)
        return 0
    counts: Counter[tuple[str, str]] = Counter()
    failures: dict[str, Path] = {}
    end = time.monotonic() + 60 * args.minutes
    with contextlib.suppress(KeyboardInterrupt):
        for number, kind in enumerate(itertools.cycle(KINDS)):
            if time.monotonic() > end:
                break
            for case in _run(kind, args.seed + 1000 * number, args.out):
                counts[kind, case["outcome"]] += 1
                if case["failed"]:
                    _keep(case, kind, args.out, failures)
    for (kind, outcome), count in sorted(counts.items(), key=lambda item: (item[0][0], -item[1])):
        print(f"{count:7}  {kind:20} {outcome}")
    return _report(failures)


def _run(kind: str, seed: int, out: Path) -> Iterator[dict[str, str]]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.fuzz",
        "--batch",
        kind,
        "--seed",
        str(seed),
        "--out",
        str(out),
    ]
    lines, ending = "", ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_BATCH, check=False)
        lines = done.stdout
        if done.returncode:
            ending = f"!! process ended with {done.returncode}: {done.stderr[-2000:]}"
    except subprocess.TimeoutExpired as error:
        lines = error.stdout.decode() if isinstance(error.stdout, bytes) else ""
        ending = f"!! no end after {LONGEST_BATCH} s"
    yield from (json.loads(line) for line in lines.splitlines() if line.startswith("{"))
    if ending:
        text = (out / f"current-{kind.split()[0]}.txt").read_text(encoding="utf-8")
        yield {"outcome": ending.splitlines()[0][:80], "failed": "yes", "size": "0", "what": text, "said": ending,
               "model": str(out / f"current-{kind.split()[0]}.onnx")}  # fmt: skip


def _batch(kind: str, seed: int, out: Path) -> None:
    if kind == "grown":

        @hypothesis.seed(seed)
        @settings(
            max_examples=GROWN_PER_BATCH,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(grown(8))
        def one(case: Grown) -> None:
            _case(kind, case.model, repr(case), lambda: explain_grown(case), out)

        one()
        return
    if kind == "mutated":
        bases = {"small_cnn": small_cnn(channels=4), "two_nodes": two_nodes()}
        count = MUTATED_PER_BATCH
    else:
        bases = {name: _loaded(name) for name in PHOTO_MODELS}
        count = MUTATED_PER_BATCH // 10
    for number in range(seed, seed + count):
        name = list(bases)[number % len(bases)]
        model, done = mutated(bases[name], number)
        _case(
            kind,
            model,
            f"{name}, seed {number}: {done}",
            functools.partial(explain_mutated, model, number),
            out,
        )


def _case(
    kind: str, model: onnx.ModelProto, what: str, explain: Callable[[], SrdOnnxError | None], out: Path
) -> None:
    stem = out / f"current-{kind.split()[0]}"
    with contextlib.suppress(ValueError, UnicodeError):
        stem.with_suffix(".onnx").write_bytes(model.SerializeToString())
    stem.with_suffix(".txt").write_text(what, encoding="utf-8")
    failed, said = False, ""
    try:
        error = explain()
        outcome = "explained" if error is None else type(error).__name__
        said = "" if error is None else str(error)
        failed = "please report" in said
    except PropertyError as error:
        failed, said = True, str(error)
        outcome = f"!! {re.sub(r'[0-9.e+-]+', '#', str(error))[:60]}"
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        failed, said = True, traceback.format_exc()
        last = traceback.extract_tb(error.__traceback__)[-1]
        outcome = f"!! {type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
    case = {"outcome": outcome, "failed": "yes" if failed else "", "size": str(len(model.graph.node)),
            "what": what, "said": said, "model": ""}  # fmt: skip
    if failed:
        kept = out / f"failed-{os.getpid()}-{time.monotonic_ns()}.onnx"
        with contextlib.suppress(ValueError, UnicodeError):
            kept.write_bytes(model.SerializeToString())
            case["model"] = str(kept)
    print(json.dumps(case), flush=True)


def _keep(case: dict[str, str], kind: str, out: Path, failures: dict[str, Path]) -> None:
    """The smallest model of each failure under its number."""
    key = f"{kind} {case['outcome']}"
    note = failures.setdefault(key, out / f"{len(failures):03}.txt")
    stored, source = note.with_suffix(".onnx"), Path(case["model"] or os.devnull)
    size = int(case["size"])
    if not note.exists() or size < int(note.read_text(encoding="utf-8").split(maxsplit=1)[0]):
        note.write_text(f"{size} nodes; {key}\n{case['what']}\n{case['said']}\n", encoding="utf-8")
        if source.is_file():
            stored.write_bytes(source.read_bytes())
    if source.name.startswith("failed-"):
        source.unlink(missing_ok=True)


def _report(failures: dict[str, Path]) -> int:
    for key, note in failures.items():
        print(f"\n{note}: {key}\n{note.read_text(encoding='utf-8')[:1500]}")
    print(f"\n{len(failures)} kinds of failure")
    return 1 if failures else 0


def _loaded(name: str) -> onnx.ModelProto:
    entry = zoo.find(name)
    assert entry is not None
    return onnx.load(entry.path)


if __name__ == "__main__":
    raise SystemExit(main())
