"""A block for a model card: what an audit found, in Markdown."""

import re
from collections.abc import Sequence

from srd_onnx.audit.findings import Finding
from srd_onnx.audit.run import Outcome
from srd_onnx.text import readable

BEGIN, END = "<!-- srd-onnx audit -->", "<!-- /srd-onnx audit -->"
_MEANS = re.compile(r"([\\`*_{}\[\]<>()#+!|~&])")


def to_card(outcome: Outcome, sha256: str) -> str:
    """The block, between comments so that it can be replaced by a later one.

    Args:
        outcome: of the audit.
        sha256: of the model.
    """
    lines = [BEGIN, "## Explanations audit", "", *(f"- {_text(one)}" for one in outcome.answer), ""]
    if outcome.checks:
        lines += ["| method | sanity check | verdict | mean |", "| --- | --- | --- | --- |"]
        for check in outcome.checks:
            mean = "–" if check.found is None else f"{check.found.mean:.3g}"
            lines.append(f"| {_text(check.method)} | {_text(check.asked)} | {check.verdict} | {mean} |")
        lines.append("")
    if outcome.findings:
        lines += ["| found | images |", "| --- | --- |"]
        lines += [f"| {rule} | {count} |" for rule, count in _counted(outcome.findings)]
        lines.append("")
    lines += [f"Model sha256 `{sha256}`; {outcome.images} images; made by `srd-onnx audit`.", END]
    return "\n".join(lines) + "\n"


def _counted(findings: Sequence[Finding]) -> list[tuple[str, int]]:
    """How many images each rule has; about the model itself it counts as none."""
    rules = dict.fromkeys(one.rule for one in findings if one.image is not None)
    return [(rule, len({one.image for one in findings if one.rule == rule})) for rule in rules]


def _text(text: str) -> str:
    """On one line, without anything that Markdown or HTML would take for markup."""
    return (
        _MEANS.sub(r"\\\1", readable(text))
        .replace("\\<", "&lt;")
        .replace("\\>", "&gt;")
        .replace("\\&", "&amp;")
    )
