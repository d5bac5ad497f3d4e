"""Fuzz for as long as you like: random networks, looked at in every way, and real models damaged at random.

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
from dataclasses import asdict, dataclass
from pathlib import Path

import hypothesis
import onnx
from hypothesis import HealthCheck, Phase, given, settings

from benchmarks.machine import header
from graph_rules import RULES
from srd_onnx import SrdOnnxError, zoo
from tests.fuzz_checks import PropertyError, explain_grown
from tests.fuzz_graphs import Grown, grown
from tests.fuzz_mutations import explain_mutated, limited_memory, mutated
from tests.fuzz_ways import every_way
from tests.nets import small_cnn, two_nodes

GROWN, WAYS, MUTATED, PHOTO = KINDS = (
    "grown",
    "grown, every way",
    "damaged small model",
    "damaged photo model",
)
TURNS = (GROWN, MUTATED, WAYS, GROWN, MUTATED, PHOTO)
PER_BATCH = {GROWN: 80, WAYS: 30, MUTATED: 300, PHOTO: 30}
GROW = {GROWN: explain_grown, WAYS: every_way}
LONGEST_BATCH = 600  # seconds
PHOTO_MODELS = ("squeezenet11", "efficientnet_lite0")


@dataclass(frozen=True)
class Case:
    """What became of one model; a batch prints one as JSON on each line.

    Attributes:
        outcome: "explained", the type of our error, or what failed, with "!!" before it.
        size: number of nodes.
        what: how the model was made.
        said: the message, or the traceback.
        operators: of the model.
        model: where a model that failed was saved.
    """

    outcome: str
    size: int
    what: str
    said: str
    operators: tuple[str, ...] = ()
    model: str = ""

    @property
    def failed(self) -> bool:
        """Whether it is what is looked for."""
        return self.outcome.startswith("!!")


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
    print(f"{header(args.seed, 1)}\nminutes: {args.minutes:g}\n", flush=True)
    counts: Counter[tuple[str, str]] = Counter()
    operators: set[str] = set()
    failures: dict[str, Case] = {}
    end = time.monotonic() + 60 * args.minutes
    with contextlib.suppress(KeyboardInterrupt):
        for number, kind in enumerate(itertools.cycle(TURNS)):
            if time.monotonic() > end:
                break
            for case in _run(kind, args.seed + 1000 * number, args.out):
                counts[kind, case.outcome] += 1
                if kind in GROW:
                    operators.update(case.operators)
                if case.failed:
                    _keep(case, kind, args.out, failures)
    print(_table(counts))
    ruled = {key.op_type for key in RULES}
    print(f"\ngrown: {len(ruled & operators)} of the {len(ruled)} operators that have a rule")
    for key, case in failures.items():
        print(f"\n{_note(key, args.out, failures)}: {key}\n{case.what}\n{case.said[-1500:]}")
    print(f"kinds of failure: {len(failures)}")
    return 1 if failures else 0


def _table(counts: Counter[tuple[str, str]]) -> str:
    lines = [f"| outcome | {' | '.join(KINDS)} |", f"|---|{'---|' * len(KINDS)}"]
    total: Counter[str] = Counter()
    for (_, outcome), count in counts.items():
        total[outcome] += count
    for outcome, _ in total.most_common():
        lines.append(f"| {outcome} | {' | '.join(str(counts[kind, outcome]) for kind in KINDS)} |")
    return "\n".join(lines)


def _run(kind: str, seed: int, out: Path) -> Iterator[Case]:
    """A batch in a process of its own."""
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
    ending = ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_BATCH, check=False)
        lines = done.stdout
        if done.returncode:
            ending = f"process ended with {done.returncode}: {done.stderr[-2000:]}"
    except subprocess.TimeoutExpired as error:
        lines = error.stdout.decode() if isinstance(error.stdout, bytes) else ""
        ending = f"no end after {LONGEST_BATCH} s"
    for line in lines.splitlines():
        if line.startswith("{"):
            yield Case(**json.loads(line))
    if ending:
        current = _current(kind, out)
        what = current.with_suffix(".txt").read_text(encoding="utf-8")
        outcome = f"!! {ending.splitlines()[0][:80]}"
        yield Case(outcome, 0, what, ending, model=str(current.with_suffix(".onnx")))


def _current(kind: str, out: Path) -> Path:
    """Where the model lies that is being explained, so that it is there if the process dies of it."""
    return out / f"current-{kind.replace(' ', '-')}"


def _batch(kind: str, seed: int, out: Path) -> None:
    if kind in GROW:
        _grow(kind, seed, out)
        return
    if kind == MUTATED:
        bases = {"small_cnn": small_cnn(channels=4), "two_nodes": two_nodes()}
    else:
        bases = {name: _loaded(name) for name in PHOTO_MODELS}
    for number in range(seed, seed + PER_BATCH[kind]):
        name = list(bases)[number % len(bases)]
        model, done = mutated(bases[name], number)
        explain = functools.partial(explain_mutated, model, number)
        _explain(kind, model, f"{name}, seed {number}: {done}", explain, out)


def _grow(kind: str, seed: int, out: Path) -> None:
    @hypothesis.seed(seed)
    @settings(
        max_examples=PER_BATCH[kind],
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(grown(8))
    def one(case: Grown) -> None:
        _explain(kind, case.model, repr(case), functools.partial(GROW[kind], case), out)

    one()


def _explain(
    kind: str, model: onnx.ModelProto, what: str, explain: Callable[[], SrdOnnxError | None], out: Path
) -> None:
    """Explain it, and print the case."""
    current = _current(kind, out)
    _save(model, current.with_suffix(".onnx"))
    current.with_suffix(".txt").write_text(what, encoding="utf-8")
    try:
        error = explain()
        outcome, said = ("explained", "") if error is None else (type(error).__name__, str(error))
        if "please report" in said:
            outcome = f"!! {outcome}"
    except PropertyError as error:
        said = str(error)
        outcome = f"!! {re.sub(r'[0-9][0-9.e+-]*', '#', said)[:60]}"
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        said = traceback.format_exc()
        last = traceback.extract_tb(error.__traceback__)[-1]
        outcome = f"!! {type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
    operators = tuple({node.op_type for node in model.graph.node})
    case = Case(outcome, len(model.graph.node), what, said, operators)
    if case.failed:
        kept = out / f"failed-{os.getpid()}-{time.monotonic_ns()}.onnx"
        _save(model, kept)
        case = Case(outcome, case.size, what, said, operators, str(kept))
    print(json.dumps(asdict(case)), flush=True)


def _save(model: onnx.ModelProto, path: Path) -> None:
    with contextlib.suppress(ValueError, UnicodeError):  # what cannot be written is told by its seed
        path.write_bytes(model.SerializeToString())


def _keep(case: Case, kind: str, out: Path, failures: dict[str, Case]) -> None:
    """The smallest model of each failure under its number."""
    key, source = f"{kind} {case.outcome}", Path(case.model)
    if key not in failures or case.size < failures[key].size:
        failures[key] = case
        note = _note(key, out, failures)
        note.write_text(f"{case.size} nodes; {key}\n{case.what}\n{case.said}\n", encoding="utf-8")
        if source.is_file():
            note.with_suffix(".onnx").write_bytes(source.read_bytes())
    if source.name.startswith("failed-"):
        source.unlink(missing_ok=True)


def _note(key: str, out: Path, failures: dict[str, Case]) -> Path:
    return out / f"{list(failures).index(key):03}.txt"


def _loaded(name: str) -> onnx.ModelProto:
    entry = zoo.find(name)
    assert entry is not None
    return onnx.load(entry.path)


if __name__ == "__main__":
    raise SystemExit(main())
