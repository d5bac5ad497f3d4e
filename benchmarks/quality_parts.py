"""One piece of `quality`: a contender on a model, by the metrics of one kind, kept as a JSON file."""

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import header
from benchmarks.quality_inputs import Pictures, base_of, contender_of, name_for_files
from srd_onnx.errors import SrdOnnxError
from srd_onnx.evaluation.masks import read_masks
from srd_onnx.evaluation.numbers import Row, numbers, prepare
from srd_onnx.evaluation.store import open_store
from srd_onnx.files import atomic_write, to_json
from srd_onnx.metrics import METRICS, Metric, metric_named

FEW = 2  # pictures of the metrics that need many maps of each
MANY_MAPS = ("robustness", "randomisation", "sufficiency")  # families, and a metric of another one
CHEAP, MANY = KINDS = ("cheap", "many-map")
_WITH_PARAMETERS = {"manipulation": "manipulation:queries=30"}


@dataclass(frozen=True)
class Task:
    """What one process does at a time.

    Attributes:
        model, contender: by their names here.
        kind: CHEAP, one map for each picture; or MANY.
        pictures: all of the model.
        folder: where the store and the rows go.
        until: when to stop, by the clock, at the next number; the next run goes on there.
    """

    model: str
    contender: str
    kind: str
    pictures: Pictures
    folder: Path
    seed: int
    providers: str
    threads: int
    until: float | None = None

    @property
    def path(self) -> Path:
        """Of its files, but for their endings."""
        return self.folder / self.model / f"{name_for_files(self.contender)}.{self.kind}"

    @property
    def finished(self) -> Path:
        """The file of its rows, written when all are there."""
        return self.path.with_name(f"{self.path.name}.json")


@dataclass(frozen=True)
class Part:
    """A finished task.

    Attributes:
        model, contender, kind, seed: of the task.
        sha256: of the model.
        about: the contender's method, parameters and options.
        metrics: the parameters of each metric.
        left_out: why there are no rows; empty if there are.
        machine: on what it was measured, some lines.
        seconds: how long the task took when it was last run.
        rows: images by their file's name alone.
    """

    model: str
    contender: str
    kind: str
    seed: int
    sha256: str
    about: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]
    left_out: str
    machine: str
    seconds: float
    rows: tuple[Row, ...]


def metrics_of(kind: str, *, masked: bool) -> dict[str, Metric]:
    """The metrics of a kind; those of masks only where there are some."""
    every = {name: metric_named(_WITH_PARAMETERS.get(name, name)) for name in METRICS}
    return {
        name: one
        for name, one in every.items()
        if (one.family in MANY_MAPS or name in MANY_MAPS) == (kind == MANY)
        and (masked or "mask" not in one.needs)
    }


def done(task: Task) -> Part | None:
    """Measure, going on where a run before was stopped, and write the rows; None if time is up.

    Raises:
        SrdOnnxError: something is wrong with the model, or a metric is not for it.
    """
    began = time.perf_counter()
    base = base_of(task.model, task.providers, task.threads)
    masks, given = task.pictures.masks, contender_of(task.contender, base, task.seed)
    metrics = metrics_of(task.kind, masked=masks is not None)
    about, rows, left_out = dict[str, Any](), list[Row](), dict[str, str]()
    if isinstance(given, str):
        left_out[task.contender] = given
    else:

        def without(name: str, problem: SrdOnnxError) -> None:
            left_out[name] = str(problem)

        about = given.to_dict(base)
        images = task.pictures.images[: FEW if task.kind == MANY else None]
        read = read_masks(masks) if masks else None
        evaluation = prepare(base, images, [given], metrics, masks=read, seed=task.seed)
        with open_store(task.path.with_name(f"{task.path.name}.sqlite")) as store:
            for row in numbers(evaluation, store, without):
                rows.append(row)
                if task.until is not None and time.time() > task.until and len(rows) < len(evaluation):
                    return None
    part = Part(
        task.model,
        task.contender,
        task.kind,
        task.seed,
        base.model.sha256,
        about,
        {name: dict(one.parameters) for name, one in metrics.items()},
        left_out.get(task.contender, ""),
        f"{header(task.seed, task.threads)}\nprovider: {_provider(base.provider)}",
        round(time.perf_counter() - began, 1),
        tuple(rows),
    )
    save(part, task.finished)
    return part


def save(part: Part, path: Path) -> None:
    """Write a part; images lose their folders, which differ from machine to machine."""
    rows = []
    for row in part.rows:
        *values, grid = astuple(row)
        rows.append([Path(values[0]).name, *values[1:], [Path(one).name for one in grid]])
    atomic_write(path, (to_json(vars(part) | {"rows": rows}) + "\n").encode())


def load(path: Path) -> Part:
    """Read what `save` wrote."""
    known = json.loads(path.read_text(encoding="utf-8"))
    return Part(**known | {"rows": tuple(_row(values) for values in known["rows"])})


def load_all(folder: Path) -> list[Part]:
    """Everything that was measured, from whatever machine.

    Raises:
        ValueError: of one model parts do not belong together: another file, seed, or class of an image.
    """
    parts = [load(path) for path in sorted(folder.glob("*/*.json"))]
    facts: dict[tuple[str, ...], tuple[object, Part]] = {}
    for part in parts:
        own: dict[tuple[str, ...], object] = {(part.model,): (part.sha256, part.seed)}
        own |= {(part.model, row.image, row.sha256): row.target for row in part.rows}
        for key, fact in own.items():
            known, first = facts.setdefault(key, (fact, part))
            if known != fact:
                raise ValueError(
                    f"{' '.join(key)}: {first.contender} ({first.kind}) was measured with {known}, {part.contender} "
                    f"({part.kind}) with {fact}. Delete {folder / part.model}, or what does not belong there."
                )
    return parts


def _row(values: Sequence[Any]) -> Row:
    image, sha256, target, label, method, metric, value, error, seconds, map_seconds, grid = values
    # Infinity is no number of JSON: "inf".
    number = None if value is None else float(value)
    return Row(image, sha256, target, label, method, metric, number, error, seconds, map_seconds, tuple(grid))


def _provider(name: str) -> str:
    """With the name of the GPU, if it is one of NVIDIA's."""
    if not name.startswith("CUDA"):
        return name
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    found = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    return f"{name} ({found[0].strip()})"
