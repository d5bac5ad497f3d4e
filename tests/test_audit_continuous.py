"""Findings as JUnit, SARIF and a model card."""

import json
import signal
import subprocess
import time
from pathlib import Path
from xml.etree import ElementTree

from srd_onnx.audit.card import BEGIN, END, to_card
from srd_onnx.audit.continuous import to_junit, to_sarif
from srd_onnx.audit.findings import RULES, Finding
from srd_onnx.audit.output import MAPS
from srd_onnx.audit.run import Outcome
from tests.audit_tools import colours, folder
from tests.cli_tools import HOSTILE, command, run

FINDINGS = (
    Finding("sanity-check", "warning", "hardly"),
    Finding("unusable-image", "error", "cut off", "a.png"),
    Finding("wrong-prediction", "note", "is a cat", "b.png"),
    Finding("shortcut-suspect", "warning", f"{HOSTILE} \x00 & ]]>", "b.png"),
    Finding("outlier", "note", "far", "c.png"),
)
NAMES = ("a.png", "b.png", "c.png", HOSTILE)


def test_junit_has_a_case_for_each_image() -> None:
    (suite,) = ElementTree.fromstring(to_junit("an audit", NAMES, FINDINGS, ["does it change?"]))
    cases = {case.get("name"): case for case in suite}
    assert len(cases) == 6
    assert len(cases["does it change?"]) == 0
    assert (suite.get("tests"), suite.get("errors"), suite.get("failures")) == ("6", "1", "2")
    error = cases["a.png"].find("error")
    failure = cases["b.png"].find("failure")
    assert error is not None
    assert error.get("type") == "unusable-image"
    assert failure is not None
    assert "<script>" in (failure.text or "")
    assert cases["b.png"].findtext("system-out") == "note: wrong-prediction: is a cat"
    assert [child.tag for child in cases["c.png"]] == ["system-out"]
    assert cases["sanity-check"].get("classname") == "model"


def test_sarif_has_a_result_for_each_finding() -> None:
    log = json.loads(to_sarif(FINDINGS, "model.onnx"))
    assert log["version"] == "2.1.0"
    (one,) = log["runs"]
    rules = one["tool"]["driver"]["rules"]
    assert len(one["results"]) == len(FINDINGS)
    for result, finding in zip(one["results"], FINDINGS, strict=True):
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == finding.rule
        assert result["level"] in ("error", "warning", "note")
        (place,) = result["locations"]
        assert place["physicalLocation"]["artifactLocation"]["uri"] == (finding.image or "model.onnx")
    assert {rule["shortDescription"]["text"] for rule in rules} <= set(RULES.values())


def test_a_card_holds_no_markup_of_others() -> None:
    said = ("All of <script>[x](y)* | a\n# heading",)
    outcome = Outcome(Path("o"), "t", said, 3, 2, NAMES, (), FINDINGS)
    card = to_card(outcome, "ab" * 32)
    assert card.startswith(BEGIN)
    assert card.endswith(END + "\n")
    assert "<script>" not in card
    assert "[x](y)" not in card
    assert "\n# heading" not in card
    assert "| shortcut-suspect | 1 |" in card


def test_the_command_writes_them(tmp_path: Path) -> None:
    images = folder(tmp_path / "images", 2)
    (images / "bad.png").write_text("bad")
    colours(tmp_path / "model.onnx")
    config = tmp_path / "a.toml"
    config.write_text(
        '[explain]\nmetrics = ["sparseness"]\nsanity_images = 0\n[report]\nexplored = 0\npdf = false\n'
        '[preprocess]\nscale = 0.00392156862745098\n[model]\nlayout = "NCHW"\n'
    )
    arguments = ("audit", tmp_path / "model.onnx", images, "-o", tmp_path / "o", "--config", config)
    done = run(*arguments, "--junit", tmp_path / "j.xml", "--sarif", tmp_path / "s.json", "--card")
    assert done.exit_code == 1
    assert done.stdout.startswith(BEGIN)
    assert done.stderr == ""
    (suite,) = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert suite.get("errors") == "1"
    assert json.loads((tmp_path / "s.json").read_text())["runs"][0]["results"]
    refused = run(*arguments, "--junit", tmp_path / "o" / "j.xml")
    assert refused.exit_code == 2
    assert "lies in the report" in refused.stderr


def test_ctrl_c_says_that_it_can_be_gone_on_with(tmp_path: Path) -> None:
    images = folder(tmp_path / "images", 200)
    colours(tmp_path / "model.onnx")
    config = tmp_path / "a.toml"
    config.write_text(
        '[explain]\nmetrics = ["sparseness"]\nsanity_images = 0\n[report]\nexplored = 0\npdf = false\nimages = 3\n'
        "[preprocess]\nscale = 0.00392156862745098\n"
    )
    arguments = (
        "audit",
        tmp_path / "model.onnx",
        images,
        "-o",
        tmp_path / "o",
        "--config",
        config,
        "--layout",
        "NCHW",
    )
    running = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    chunks = tmp_path / "o" / MAPS / "16x16"
    until = time.monotonic() + 100
    while time.monotonic() < until and not (chunks.is_dir() and len(list(chunks.iterdir())) > 3):
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=100)
    assert running.returncode == 130
    assert "interrupted: the same command goes on from there" in said
    assert not (tmp_path / "o" / "manifest.json").exists()
    assert run(*arguments).exit_code == 0
    assert run("verify", tmp_path / "o", "--sample", 2).exit_code == 0
