"""An audit as files for other programs: a CSV of all rows, a JSON of what decided them and what they say."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from srd_onnx.audit.config import as_plain
from srd_onnx.audit.findings import Finding
from srd_onnx.audit.found import Found
from srd_onnx.audit.output import how_to_remake
from srd_onnx.audit.sanity import Check
from srd_onnx.audit.state import ExplanationRow, ImageRow
from srd_onnx.evaluation.ranking import averages
from srd_onnx.files import to_json
from srd_onnx.text import harmless

COLUMNS = (
    "image", "sha256", "true_class", "predicted", "method", "target", "label", "score", "seed", "sum_relevance",
    "sum_ledger", "residual", "border", "centre", "on_object", "object_area", "metric", "value", "error", "warnings",
)  # fmt: skip


def to_csv(found: Found) -> bytes:
    """A row for each image, target, method and metric; what a spreadsheet would run has an apostrophe in front."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for image in found.images:
        for values in _rows(found, image):
            writer.writerow([_cell(one) for one in values])
    return buffer.getvalue().encode("utf-8", "backslashreplace")


def _rows(found: Found, image: ImageRow) -> Iterator[tuple[Any, ...]]:
    predicted = image.top5[0][0] if image.top5 else None
    head = (image.name, image.sha256, image.truth, predicted)
    for contender in found.audit.contenders:
        if failed := found.errors.get((image.id, contender.name)):
            yield (*head, contender.name, *[None] * 13, failed, None)
    for row in found.explanations.get(image.id, ()):
        numbers = found.numbers.get((image.id, row.method, row.target), {})
        said = " | ".join(row.warnings)
        for metric, value in numbers.items():
            error = found.problems.get((image.id, row.method, row.target, metric))
            yield (*head, *_explained(row), metric, value, error, said)
        if not numbers:
            yield (*head, *_explained(row), None, None, None, said)


def _explained(row: ExplanationRow) -> tuple[Any, ...]:
    at = row.places
    numbers = (row.score, row.seed, row.total, row.booked, row.residual)
    return row.method, row.target, row.label, *numbers, at.border, at.centre, at.inside, at.area


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return harmless(value) if isinstance(value, str) else repr(value)


def to_document(
    found: Found,
    checks: Sequence[Check],
    findings: Sequence[Finding],
    answer: Sequence[str],
    *,
    command: Sequence[str],
    made: str,
) -> bytes:
    """Everything that decided the rows, and what they say, as JSON."""
    audit = found.audit
    seed = audit.config.explain.seed
    means = averages(found.rows, seed=seed)
    document = {
        "kind": "audit",
        "made": made,
        "command": list(command),
        "images": {
            "folder": str(audit.folder.resolve()),
            "count": len(found.images),
            "usable": len(found.usable),
        },
        "answer": list(answer),
        "remake": {one.name: how_to_remake(audit.base, one.name, seed) for one in audit.contenders},
        "setup": audit.setup(),
        "config": as_plain(audit.config),
        "preprocess_assumed": audit.base.preprocess_assumed,
        "sanity": [asdict(one) for one in checks],
        "means": [
            {"method": method, "metric": metric, **vars(one)} for (method, metric), one in means.items()
        ],
        "findings": [asdict(one) for one in findings],
    }
    return (to_json(document, indent=2) + "\n").encode("utf-8", "backslashreplace")
