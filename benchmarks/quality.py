"""Which method explains best? Every method by every metric on six models; writes docs/quality.md and README's table.

    python -m benchmarks.quality [--jobs 2] [--limit SECONDS]

Measured is on the reporting half of the photos alone (benchmarks.halves). Each number is kept in --out as soon as it
is there, so that a run that was stopped goes on; `--report` measures nothing and writes what is there, which may come
from other machines. Numbers of another version of this code are not told apart: delete --out after a change of it.
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import cv2
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.halves import REPORTING, TUNING
from benchmarks.imagenet import WHEELS
from benchmarks.quality_inputs import CONTENDERS, base_of, pictures_of
from benchmarks.quality_parts import CHEAP, KINDS, Part, Task, done, load_all
from benchmarks.quality_report import around_table, written

MODELS = TUNING + REPORTING
OUT = WHEELS.parent / "quality"
# One map takes hundreds of passes.
_SLOW = ("rise", "scorecam", "occlusion", "smoothgrad", "integrated-gradients", "ablationcam")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def tasks_of(given: argparse.Namespace, models: Sequence[str]) -> list[Task]:
    """Everything left to be done: the quick first, for all models, and last what takes long for each of many maps."""
    found = []
    for model in models:
        pictures = pictures_of(model, given.out / "pictures", given.seed)
        if given.images is not None:
            pictures = replace(pictures, images=pictures.images[: given.images])
        found += [
            Task(model, name, kind, pictures, given.out, given.seed, given.providers, given.threads)
            for name in given.methods
            for kind in KINDS
        ]
    # A finished one is kept, wherever it was measured.
    left = [task for task in found if not task.finished.exists()]
    return sorted(left, key=lambda task: (task.contender.startswith(_SLOW), task.kind != CHEAP))


def run(tasks: Sequence[Task], jobs: int, limit: float | None) -> Iterator[tuple[Task, Part | str | None]]:
    """What became of each task that was begun: its part, what went wrong, or None if there was no more time."""
    until = None if limit is None else time.time() + limit
    waiting = [replace(task, until=until) for task in reversed(tasks)]
    running: dict[Future[Part | None], Task] = {}
    # Threads beside those of ONNX Runtime: a process reads these when it starts.
    os.environ |= dict.fromkeys(_THREADS, "1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        while waiting or running:
            while waiting and len(running) < jobs and (until is None or time.time() < until):
                task = waiting.pop()
                running[pool.submit(done, task)] = task
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task, error = running.pop(future), future.exception()
                yield task, f"{type(error).__name__}: {error}" if error else future.result()


def measure(given: argparse.Namespace) -> list[str]:
    """Measure what is to be measured; what went wrong."""
    problems, models = [], []
    for model in given.models:
        try:
            base_of(model, "cpu", given.threads)  # exports it, if need be, before several processes do
        except ModuleNotFoundError as error:
            problems.append(f"{model}: {error}")
        else:
            models.append(model)
    tasks = tasks_of(given, models)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    late = 0
    with Progress(*columns) as bar:
        shown = bar.add_task("measuring", total=len(tasks))
        for task, found in run(tasks, given.jobs, given.limit):
            name = f"{task.model}, {task.contender}, {task.kind}"
            if isinstance(found, str):
                problems.append(f"{name}: {found}")
                bar.print(f"{name}: {found}", markup=False, soft_wrap=True)
            elif found is None:
                late += 1
            else:
                what = f"left out: {found.left_out}" if found.left_out else f"{found.seconds:.0f} s"
                bar.print(f"{name}: {what}", markup=False, soft_wrap=True)
            bar.advance(shown)
    if late:
        print(f"{late} were stopped in between; the same command goes on")
    return problems


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="NAME")
    found.add_argument(
        "--methods", type=_methods, default=CONTENDERS, help=f"with commas: {', '.join(CONTENDERS)}"
    )
    found.add_argument("--images", type=int, help="the first so many of each model alone, to try it out")
    found.add_argument("--providers", choices=("auto", "cpu", "cuda"), default="auto")
    found.add_argument("--threads", type=int, default=1, help="of each process")
    found.add_argument("--jobs", type=int, default=1, help="processes")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument(
        "--limit", type=float, metavar="SECONDS", help="stop then; the report says what is missing"
    )
    found.add_argument("--out", type=Path, default=OUT)
    found.add_argument("--report", action="store_true", help="measure nothing, write the pages")
    found.add_argument("--pages", type=Path, default=Path(__file__).parents[1], help="where the pages are")
    return found


def _methods(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in CONTENDERS]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
    return names


def main() -> None:
    """Measure, and write the pages."""
    arguments = parser()
    given = arguments.parse_args()
    try:
        around_table(given.pages)  # asked before hours of measuring, not after
    except ValueError as error:
        arguments.error(f"--pages: {error}")
    problems = [] if given.report else measure(given)
    parts = load_all(given.out)
    for path in written(parts, MODELS, CONTENDERS, given.pages):
        print(f"wrote {path}")
    if problems:
        raise SystemExit("\n".join(["went wrong:", *problems]))


if __name__ == "__main__":
    main()
