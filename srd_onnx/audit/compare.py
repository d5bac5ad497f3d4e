"""A comparison from beginning to end: the work, or what is left of it, and the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from srd_onnx.audit.compared import Compared, compared_in, comparison_findings
from srd_onnx.audit.comparing import compare_images, prepare_comparison
from srd_onnx.audit.comparison_report import (
    ComparedItems,
    comparison_csv,
    comparison_document,
    comparison_report,
)
from srd_onnx.audit.findings import Finding
from srd_onnx.audit.images import listed
from srd_onnx.audit.maps import Maps, open_maps
from srd_onnx.audit.output import MAPS, STATE, Written, finish, write_pages
from srd_onnx.audit.plan import begin_or_go_on
from srd_onnx.audit.run import Watch
from srd_onnx.audit.state import State, open_state
from srd_onnx.explainer import Explainer


@dataclass(frozen=True)
class Wanted:
    """What a comparison is asked.

    Attributes:
        max_drift: the mean of 1 − correlation of maps that is allowed; any if None.
        max_flips: how many predictions may change; any if None.
        shown: so many images are in the report.
        seed: of the sample that is looked into.
    """

    max_drift: float | None = None
    max_flips: int | None = None
    shown: int = 100
    pdf: bool = True
    seed: int = 0


@dataclass(frozen=True)
class ComparisonOutcome:
    """What came of it; `passed` if no threshold was passed."""

    folder: Path
    title: str
    answer: tuple[str, ...]
    images: int
    usable: int
    names: tuple[str, ...]
    flips: int
    mean_drift: float
    findings: tuple[Finding, ...]
    passed: bool


def run_comparison(
    first: Explainer,
    second: Explainer,
    folder: Path,
    out: Path,
    wanted: Wanted | None = None,
    *,
    command: Sequence[str] = (),
    watch: Watch | None = None,
) -> ComparisonOutcome:
    """Do what is left of a comparison, and write its report; arguments and errors as of `run_audit`."""
    watch, wanted = watch or Watch(), wanted or Wanted()
    comparison = prepare_comparison(
        first, second, folder, seed=wanted.seed, without=(out,), advance=watch.hashed
    )
    with open_state(out / STATE) as state:
        begin_or_go_on(comparison.setup(), comparison.rows, state)
        maps = open_maps(out / MAPS, 2 * len(comparison.rows))
        watch.begun(comparison.rows, dict(state.seconds()))
        compare_images(comparison, state, maps, watch.done)
        watch.writing()
        made = str(state.note("finished", datetime.now(UTC).isoformat(timespec="seconds")))
        outcome = _write(compared_in(comparison, state), maps, state, out, wanted, command, made)
    finish(out, "comparison", made)
    return outcome


def _write(
    found: Compared, maps: Maps, state: State, out: Path, wanted: Wanted, command: Sequence[str], made: str
) -> ComparisonOutcome:
    findings = comparison_findings(found, wanted.max_drift, wanted.max_flips)
    items = ComparedItems(found, maps, state, wanted.shown)
    report = comparison_report(found, items, command, made)
    document = comparison_document(found, findings, report.answer, command, made)
    printed = (lambda: iter(items)) if wanted.pdf else None
    images = listed((image.name, image.sha256) for image in found.images)
    write_pages(Written(report, printed, comparison_csv(found), document, images), out)
    return ComparisonOutcome(
        out,
        report.title,
        report.answer,
        len(found.images),
        len(found.usable),
        tuple(image.name for image in found.images),
        len(found.flips),
        found.mean_drift,
        findings,
        not any(one.image is None and one.level == "error" for one in findings),
    )
