"""An evaluation as files: a CSV of all numbers, a JSON with how they came about, a sheet of the maps."""

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from srd_onnx.evaluation.inputs import Question
from srd_onnx.evaluation.numbers import Evaluation, Row, place_of
from srd_onnx.evaluation.ranking import CONFIDENCE, RESAMPLES, Interval, averages, mean_ranks
from srd_onnx.evaluation.store import Store
from srd_onnx.inputs.preprocess import Preprocess
from srd_onnx.metrics.metric import Metric
from srd_onnx.pictures.sheet import Cell, sheet
from srd_onnx.text import harmless

COLUMNS = (
    "image", "sha256", "target", "label", "method", "method_parameters", "metric", "metric_parameters", "value",
    "error", "seconds", "map_seconds", "grid",
)  # fmt: skip


def in_order(evaluation: Evaluation, rows: Sequence[Row]) -> list[Row]:
    """By image as they were given, then by method, then by metric."""
    images = {question.image: number for number, question in enumerate(evaluation.questions)}
    methods = {contender.name: number for number, contender in enumerate(evaluation.contenders)}
    metrics = {name: number for number, name in enumerate(evaluation.metrics)}
    return sorted(rows, key=lambda row: (images[row.image], methods[row.method], metrics[row.metric]))


def to_csv(evaluation: Evaluation, rows: Sequence[Row]) -> str:
    """All numbers, a line each. What a spreadsheet would take for a formula gets an apostrophe in front."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    about = {c.name: _parameters(c.to_dict(evaluation.base)) for c in evaluation.contenders}
    for row in rows:
        texts = (row.image, row.sha256, row.label or "", row.method, about[row.method], row.metric)
        image, sha256, label, method, settings, metric = map(harmless, texts)
        parameters = harmless(_parameters({"parameters": evaluation.metrics[row.metric].parameters}))
        target, value = ("" if x is None else repr(x) for x in (row.target, row.value))
        writer.writerow(
            (
                image, sha256, target, label, method, settings, metric, parameters, value, harmless(row.error or ""),
                f"{row.seconds:.6f}", f"{row.map_seconds:.6f}", harmless(" | ".join(row.grid)),
            )
        )  # fmt: skip
    return buffer.getvalue()


def to_document(
    evaluation: Evaluation,
    rows: Sequence[Row],
    *,
    command: Sequence[str],
    left_out: Mapping[str, str],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Everything as plain data.

    Args:
        evaluation: what was asked.
        rows: the answers.
        command: the command line.
        left_out: methods that cannot explain this model and metrics that are not for it, and why.
        notes: what the user was told.
    """
    base = evaluation.base
    means, ranks = aggregated(evaluation, rows)
    preprocess = base.preprocess
    return {
        "command": list(command),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **evaluation.setup(),
        "model": {"path": str(base.model.path) if base.model.path else None, "sha256": base.model.sha256},
        "preprocess": preprocess.to_dict() if isinstance(preprocess, Preprocess) else "custom",
        "preprocess_assumed": base.preprocess_assumed,
        "notes": list(notes),
        "methods": {c.name: c.to_dict(base) for c in evaluation.contenders if c.name not in left_out},
        "left_out": dict(left_out),
        "metrics": {name: about_metric(metric) for name, metric in evaluation.metrics.items()},
        "interval": {
            "confidence": CONFIDENCE,
            "resamples": RESAMPLES,
            "over": "images",
            "seed": evaluation.seed,
        },
        "averages": [
            {"method": method, "metric": metric, **vars(found)} for (method, metric), found in means.items()
        ],
        "ranks": {
            method: {family: vars(found) for family, found in by_family.items()}
            for method, by_family in ranks.items()
        },
        "rows": [vars(row) for row in rows],
    }


def aggregated(
    evaluation: Evaluation, rows: Sequence[Row]
) -> tuple[dict[tuple[str, str], Interval], dict[str, dict[str, Interval]]]:
    """Means by (method, metric), and mean ranks by method and family of metrics."""
    return (
        averages(rows, seed=evaluation.seed),
        mean_ranks(rows, evaluation.metrics, seed=evaluation.seed),
    )


def about_metric(metric: Metric) -> dict[str, Any]:
    """What a metric is, as plain data."""
    return {
        "title": metric.title,
        "family": metric.family,
        "meaning": metric.meaning,
        "bounds": metric.bounds,
        "better": metric.better,
        "source": metric.source,
        "parameters": metric.parameters,
        "needs": sorted(metric.needs),
    }


def to_sheet(evaluation: Evaluation, store: Store, left_out: Mapping[str, str]) -> bytes | None:
    """A PNG: a row for each photo that is shown, a column for each method; None if there is no map at all."""
    contenders = [c for c in evaluation.contenders if c.name not in left_out]
    cells: list[Cell] = []
    shown = [question for question in evaluation.questions if question.shown]
    for question in shown:
        cells += _strip(evaluation, store, question, left_out)
    if not cells:
        return None
    columns = len(cells) // len(shown)
    subtitle = (
        "maps as they are, each in its own colours: red is for the class, blue against it, full colour at the 99.5th "
        "percentile of |R|"
    )
    path = evaluation.base.model.path
    title = f"{path.name if path else 'model'}  ·  {len(contenders)} methods, {len(shown)} images"
    return sheet(cells, title, subtitle, columns=columns)


def _strip(
    evaluation: Evaluation, store: Store, question: Question, left_out: Mapping[str, str]
) -> list[Cell]:
    loaded = question.load()
    target = question.label or f"class {question.target}"
    name = Path(question.image).name
    blank = np.zeros((1, 1), np.float32)
    photo = Cell(blank, name, ("an array",)) if loaded.image is None else Cell(loaded.image, name, (target,))
    cells = [photo]
    for contender in evaluation.contenders:
        if contender.name in left_out:
            continue
        drawn = store.map(place_of(contender.identity(evaluation.base), question, loaded))
        missing = Cell(blank, contender.name, ("no map",))
        cells.append(missing if drawn is None else Cell(drawn, contender.name, (target,)))
    return cells


def _parameters(about: Mapping[str, Any]) -> str:
    """`preset=paper,boundary=encoder`, of what `to_dict` gives."""
    preset = {"preset": about["preset"]} if "preset" in about else {}
    found = preset | dict(about.get("parameters", {})) | dict(about.get("options", {}))
    return ",".join(f"{key}={value}" for key, value in found.items())
