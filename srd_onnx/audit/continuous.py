"""Findings in the forms that systems of continuous integration read: JUnit XML and SARIF 2.1.0."""

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from srd_onnx.audit.findings import RULES, Finding
from srd_onnx.files import to_json
from srd_onnx.text import visible

_SARIF = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def to_junit(
    title: str, names: Sequence[str], findings: Sequence[Finding], passed: Sequence[str] = ()
) -> bytes:
    """A test case for each image and for each rule about the whole; errors, and warnings as failures.

    Args:
        title: of the suite.
        names: of all images.
        findings: notes among them are what a case has printed.
        passed: names of checks of the whole about which there is no finding.
    """
    suite = ElementTree.Element("testsuite", name=_clean(title))
    by_image: dict[str | None, list[Finding]] = {}
    for one in findings:
        by_image.setdefault(one.image, []).append(one)
    for one in by_image.pop(None, []):
        _case(suite, "model", one.rule, [one])
    for name in passed:
        _case(suite, "model", name, [])
    for name in names:
        _case(suite, "image", name, by_image.get(name, []))
    counts = {kind: str(len(suite.findall(f".//{kind}"))) for kind in ("failure", "error")}
    suite.attrib |= {"tests": str(len(suite)), "failures": counts["failure"], "errors": counts["error"]}
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return b"%s\n" % ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _case(suite: ElementTree.Element, kind: str, name: str, findings: Sequence[Finding]) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=kind, name=_clean(name))
    worst = [one for one in findings if one.level == "error"] or [
        one for one in findings if one.level == "warning"
    ]
    if worst:
        tag = "error" if worst[0].level == "error" else "failure"
        found = ElementTree.SubElement(case, tag, type=worst[0].rule, message=_clean(worst[0].message))
        found.text = "\n".join(f"{one.rule}: {_clean(one.message)}" for one in worst)
    notes = [one for one in findings if one not in worst]
    if notes:
        printed = ElementTree.SubElement(case, "system-out")
        printed.text = "\n".join(f"{one.level}: {one.rule}: {_clean(one.message)}" for one in notes)


def to_sarif(findings: Sequence[Finding], model: str) -> bytes:
    """One run, a result for each finding.

    Args:
        findings: all of them.
        model: the name of the file that findings about the model are at.
    """
    used = [rule for rule in RULES if any(one.rule == rule for one in findings)]
    rules = [{"id": rule, "shortDescription": {"text": RULES[rule]}} for rule in used]
    driver = {"name": "srd-onnx", "version": metadata.version("srd-onnx"), "rules": rules}
    results = [_result(one, used.index(one.rule), model) for one in findings]
    log = {"$schema": _SARIF, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}
    return (to_json(log, indent=2) + "\n").encode("utf-8", "backslashreplace")


def _result(one: Finding, index: int, model: str) -> Mapping[str, Any]:
    place = {"artifactLocation": {"uri": quote(one.image or model)}}
    return {
        "ruleId": one.rule,
        "ruleIndex": index,
        "level": one.level,
        "message": {"text": one.message},
        "locations": [{"physicalLocation": place}],
    }


def _clean(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return "\n".join(map(visible, text.encode("utf-8", "replace").decode().split("\n")))
