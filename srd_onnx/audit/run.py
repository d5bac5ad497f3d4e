"""An audit from beginning to end: the work, or what is left of it, and the report."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from srd_onnx.audit.across import across_section
from srd_onnx.audit.answer import answer_of, environment_section, files_section, metrics_section
from srd_onnx.audit.asked import asked_section, data_section, method_section, sanity_section
from srd_onnx.audit.config import Config
from srd_onnx.audit.findings import Finding, findings_of
from srd_onnx.audit.found import Found, found_in
from srd_onnx.audit.images import listed
from srd_onnx.audit.items import Items
from srd_onnx.audit.maps import Maps, open_maps
from srd_onnx.audit.model_section import model_section, named_in
from srd_onnx.audit.output import MAPS, STATE, Written, finish, write_pages
from srd_onnx.audit.plan import begin_or_go_on, prepare
from srd_onnx.audit.sanity import Check, checks_of
from srd_onnx.audit.state import ImageRow, State, open_state
from srd_onnx.audit.tables import to_csv, to_document
from srd_onnx.audit.work import work
from srd_onnx.explainer import Explainer
from srd_onnx.pictures.render import clip_value
from srd_onnx.report.content import Item, Report

_MOST = 0.9  # of the images end their colours below the shared scale


class Watch:
    """What is told how far an audit is; a user interface overrides it."""

    def hashed(self) -> None:
        """One more image was found and hashed."""

    def begun(self, images: Sequence[ImageRow], seconds: Mapping[int, float]) -> None:
        """The work begins; what each image took of which something is there already."""

    def done(self, image: ImageRow) -> None:
        """An image is done."""

    def writing(self) -> None:
        """All images are done; the report is written."""


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        title: of the report.
        answer: its first sentences.
        images: how many there are; `usable` those that could be explained.
        names: of all images, in order.
    """

    folder: Path
    title: str
    answer: tuple[str, ...]
    images: int
    usable: int
    names: tuple[str, ...]
    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]


def run_audit(
    base: Explainer,
    folder: Path,
    config: Config,
    out: Path,
    *,
    command: Sequence[str] = (),
    watch: Watch | None = None,
) -> Outcome:
    """Do what is left of an audit, and write its report.

    Args:
        base: the model, with its preprocessing settled.
        folder: of the images.
        config: what is asked.
        out: the folder of the report; what is there of the same audit is gone on with.
        command: that makes it again.
        watch: is told how far it is.

    Raises:
        AuditError: `out` is of another audit, or an image was changed meanwhile.
        OutputError: something cannot be written.
        SrdOnnxError: the model cannot be explained, or something that was named does not exist or is not for it.
    """
    watch = watch or Watch()
    audit = prepare(base, folder, config, without=(out,), advance=watch.hashed)
    with open_state(out / STATE) as state:
        begin_or_go_on(audit.setup(), audit.rows, state)
        maps = open_maps(out / MAPS, audit.map_rows)
        watch.begun(audit.rows, dict(state.seconds()))
        work(audit, state, maps, watch.done)
        watch.writing()
        made = str(state.note("finished", datetime.now(UTC).isoformat(timespec="seconds")))
        outcome = _write(found_in(audit, state), maps, state, out, command, made)
    finish(out, "audit", made)
    return outcome


def _write(found: Found, maps: Maps, state: State, out: Path, command: Sequence[str], made: str) -> Outcome:
    checks = checks_of(found)
    findings = findings_of(found, checks)
    report = _report(found, maps, Items(found, maps, state, explored=True), checks, command, made)
    printed = functools.partial(_printed, found, maps, state) if found.audit.config.report.pdf else None
    document = to_document(found, checks, findings, report.answer, command=command, made=made)
    images = listed((image.name, image.sha256) for image in found.images)
    write_pages(Written(report, printed, to_csv(found), document, images), out)
    names = tuple(image.name for image in found.images)
    return Outcome(out, report.title, report.answer, len(names), len(found.usable), names, checks, findings)


def _printed(found: Found, maps: Maps, state: State) -> Iterator[Item]:
    return iter(Items(found, maps, state, explored=False))


def _report(
    found: Found, maps: Maps, items: Items, checks: tuple[Check, ...], command: Sequence[str], made: str
) -> Report:
    base = found.audit.base
    title = found.audit.config.report.title or f"Audit of {named_in(base)} on {len(found.images)} images"
    return Report(
        kind="audit",
        title=title,
        answer=answer_of(found, checks),
        before=(
            asked_section(found),
            across_section(found, maps),
            model_section(base),
            data_section(found),
            method_section(found),
            sanity_section(checks),
        ),
        items=items,
        after=(metrics_section(found), environment_section(found, command), files_section()),
        made=made,
        scales=_scales(found, maps),
    )


def _scales(found: Found, maps: Maps) -> dict[str, float]:
    """Of each method, where the colours of most of the images that are shown end."""
    ends: dict[str, list[float]] = {}
    for image in found.selected(found.audit.config.report.images):
        for row in found.explanations.get(image.id, ()):
            relevance = maps.read(row.row, row.shape, row.digest)
            if relevance is not None:
                ends.setdefault(row.method, []).append(float(clip_value(relevance)))
    return {method: float(np.quantile(some, _MOST)) for method, some in ends.items()}
