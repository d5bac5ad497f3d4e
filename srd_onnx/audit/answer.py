"""The answer of an audit in plain words, and the sections that close its report."""

import platform
import shlex
from collections.abc import Sequence

import numpy as np

from srd_onnx.audit.across import accuracy
from srd_onnx.audit.found import RULE, Found
from srd_onnx.audit.model_section import named_in
from srd_onnx.audit.sanity import Check
from srd_onnx.evaluation.ranking import CONFIDENCE, RESAMPLES, averages
from srd_onnx.ort.runtime import versions
from srd_onnx.report.content import Section, Table
from srd_onnx.sanity import RESIDUAL


def answer_of(found: Found, checks: Sequence[Check]) -> tuple[str, ...]:
    """A few sentences, what matters most first."""
    said = [_explained(found)]
    right, known = accuracy(found, 1)
    if known:
        said.append(f"The prediction is the true class in {right} of {known} images ({right / known:.0%}).")
    said += _where(found)
    said.append(_reliable(found, checks))
    suspects = sum(found.suspect(image) for image in found.usable)
    if found.audit.masks is not None:
        said.append(
            f"In {suspects} of {len(found.usable)} images there is less positive relevance per position on the object "
            "than around it: these are suspects of a shortcut."
        )
    warned = sum(found.warned(image) for image in found.usable)
    if warned:
        said.append(f"{_images(warned)} with an explanation that warns of itself; the reasons stand with it.")
    if found.outliers:
        said.append(f"{_images(len(found.outliers))} far from all others by at least one number.")
    return tuple(said)


def _images(count: int) -> str:
    return "There is 1 image" if count == 1 else f"There are {count} images"


def _explained(found: Found) -> str:
    failed = len(found.images) - len(found.usable)
    model, count = named_in(found.audit.base), len(found.images)
    if not failed:
        what = "The image was" if count == 1 else f"All {count} images were"
        return f"{what} explained as {model} sees {'it' if count == 1 else 'them'}."
    return (
        f"{len(found.usable)} of {count} images were explained as {model} sees them; {failed} could not be, and "
        "each says why."
    )


def _where(found: Found) -> list[str]:
    parts = [
        (row.places.centre, row.places.border) for row in found.main.values() if row.places.centre is not None
    ]
    if not parts:
        return []
    centre, border = np.array(parts, np.float64).mean(axis=0)
    return [
        f"On average {centre:.0%} of the positive relevance lies in the middle quarter of the picture, "
        f"{border:.0%} in its outer tenth on each side; of a map that does not care these would be 25% and 36%."
    ]


def _reliable(found: Found, checks: Sequence[Check]) -> str:
    own = [one for one in checks if one.method == found.leading.name and one.verdict != "not known"]
    if not own:
        return "How far the explanations can be relied on is not known: no sanity check gave a number."
    bad = [one for one in own if one.verdict != "passed"]
    if not bad:
        sample = max(one.found.count for one in own if one.found is not None)
        over = f"a sample of {sample} image{'s' * (sample > 1)}"
        return f"The explanations by {found.leading.name} pass all {len(own)} sanity checks on this model, on {over}."
    said = " ".join(f"{one.asked} {one.said}" for one in bad)
    return (
        f"{len(bad)} of {len(own)} sanity checks of {found.leading.name} on this model are not passed. {said}"
    )


def metrics_section(found: Found) -> Section:
    """Means with intervals, and what each metric means."""
    audit = found.audit
    means = averages(found.rows, seed=audit.config.explain.seed)
    rows = []
    for (method, name), one in sorted(means.items(), key=lambda entry: _place(found, *entry[0])):
        rows.append((name, method, one.mean, one.low, one.high, one.count))
    table = Table(
        "Metrics, means over images",
        ("metric", "method", "mean", "low", "high", "images"),
        tuple(rows),
        f"Low and high: a {CONFIDENCE:.0%} percentile bootstrap interval over images, {RESAMPLES} draws, seed "
        f"{audit.config.explain.seed}. Those of the sanity checks are over their sample.",
    )
    every = {**audit.metrics, **audit.sanity}
    about = Table(
        "What the metrics mean",
        ("metric", "meaning", "better", "from", "to", "source"),
        tuple((name, one.meaning, one.better, *one.bounds, one.source) for name, one in every.items()),
        folded=True,
    )
    missing = sum(row.value is None for row in found.rows)
    reasons = dict.fromkeys(f"{row.metric}: {row.error}" for row in found.rows if row.error)
    said = (f"{missing} numbers are not there. Reasons: {'; '.join(list(reasons)[:5])}.",) if missing else ()
    return Section("metrics", "Metrics", said, (), (table, about))


def _place(found: Found, method: str, metric: str) -> tuple[int, int]:
    names = [*found.audit.metrics, *found.audit.sanity]
    return names.index(metric), [one.name for one in found.audit.contenders].index(method)


def environment_section(found: Found, command: Sequence[str]) -> Section:
    """What is needed to make the report again, and to check it."""
    base = found.audit.base
    facts = (
        ("command", shlex.join(command)),
        ("seed", str(found.audit.config.explain.seed)),
        ("provider", base.provider),
        ("machine", platform.machine()),
        *versions().items(),
        ("images shown", f"{found.audit.config.report.images} at most: {RULE}"),
    )
    said = (
        "Maps are computed again to within rounding on another machine; on the same one with the same versions "
        "they are the same.",
    )
    return Section("environment", "Environment", said, facts)


def files_section() -> Section:
    """How to check the files."""
    rows = (
        ("report.html, report.pdf", "this report"),
        ("report.csv", "a row for each image, target, method and metric"),
        ("images.sha256", "the sha256 of every image, as sha256sum --check reads it in their folder"),
        ("report.json", "what decided the numbers, findings, means"),
        ("state/rows.sqlite", "all rows, with what they took"),
        ("state/maps.zarr", "the maps, float32"),
        ("manifest.json", "the sha256 of every file; manifest.json.sha256 has its own"),
    )
    said = (
        "The command srd-onnx verify with the folder of this report checks that no file of it was changed, added or "
        "removed, that the model is still the same, and computes a sample of the maps again. The files alone "
        "can also be checked with any tool that knows SHA-256.",
        f"A residual is reported as a warning where it is more than {RESIDUAL:g} of the explained number.",
    )
    return Section(
        "files", "The files of this report", said, (), (Table("Files", ("file", "contents"), rows),)
    )
