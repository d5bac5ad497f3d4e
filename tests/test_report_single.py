"""`srd-onnx explain --open`, and the layers that a report lets its reader look into."""

import json
import re
import webbrowser
from pathlib import Path

import numpy as np
import pytest

from srd_onnx import Explainer
from srd_onnx.bounded.recomputed import Recomputed
from srd_onnx.report.content import Report
from srd_onnx.report.inside import LookInside
from srd_onnx.report.single import Collected
from srd_onnx.zoo import sample_photo, zoo
from tests.cli_tools import photo, run, small


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the browser was asked to open."""
    found: list[str] = []

    def opening(url: str) -> bool:
        found.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", opening)
    return found


def test_open_writes_a_page_beside_the_pictures_and_opens_it(tmp_path: Path, opened: list[str]) -> None:
    folder = tmp_path / "out"
    result = run("explain", "squeezenet11", sample_photo(), "--target", "top2", "--out", folder, "--open")
    assert result.exit_code == 0
    assert opened == [(folder / "report.html").resolve().as_uri()]
    page = (folder / "report.html").read_text(encoding="utf-8")
    for said in ("Egyptian cat (class 285) in chelsea", zoo()["squeezenet11"].sha256, "How to make it again"):
        assert said in page
    assert page.count('class="shown"') == 2
    assert page.count('class="layer"') == 12
    # The fields do not depend on the target: they are in the page once.
    assert page.count('class="sprite"') == 6


def test_images_that_fail_and_names_that_are_alike_are_told_apart(tmp_path: Path, opened: list[str]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    good = [photo(tmp_path / folder / "same.png", seed) for seed, folder in enumerate("ab")]
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    result = run("explain", small(tmp_path), *good, bad, "--out", tmp_path / "out", "--open", "--json")
    assert result.exit_code == 2
    assert len(json.loads(result.stdout)["explanations"]) == 2
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert re.findall('data-name="([^"]*)"[^>]*data-keys', page) == ["same", "same-2", str(bad)]
    assert "Not explained:" in page
    assert len(opened) == 1


def test_without_a_browser_it_says_where_the_page_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    result = run("explain", small(tmp_path), photo(tmp_path / "a.png"), "--out", tmp_path / "out", "--open")
    assert result.exit_code == 0
    assert "no browser opens here; the page is" in result.stderr


def test_without_open_there_is_no_page(tmp_path: Path, opened: list[str]) -> None:
    run("explain", small(tmp_path), photo(tmp_path / "a.png"), "--out", tmp_path / "out")
    assert opened == []
    assert not (tmp_path / "out" / "report.html").exists()


def collected(explainer: Explainer, source: Path, *targets: int | str) -> Report:
    """The report of one image."""
    found = Collected(explainer)
    for one in explainer.explain(source, list(targets)):
        found.add(source, one.name, one)
    return found.report(["srd-onnx"])


def test_the_report_holds_what_the_explanation_holds(tmp_path: Path) -> None:
    explainer, source = Explainer(small(tmp_path)), photo(tmp_path / "a.png")
    (wanted,) = explainer.explain(source, 3)
    (item,) = collected(explainer, source, 3).items
    (shown,) = item.shown
    np.testing.assert_array_equal(shown.relevance, wanted.relevance)
    assert shown.target == "3"
    assert shown.complete
    assert dict(shown.ledger) == dict(wanted.ledger)
    together = shown.relevance.sum(dtype=np.float64) + sum(dict(shown.ledger).values()) + shown.residual
    assert together == pytest.approx(wanted.meta["seed_value"], abs=1e-5)
    assert shown.score == wanted.score
    assert item.sha256 == wanted.meta["input"]["sha256"]
    assert len(item.predictions) == 5


def test_layers_are_those_of_the_decision_and_their_fields_those_of_the_explainer(tmp_path: Path) -> None:
    explainer, source = Explainer("squeezenet11"), sample_photo()
    one, other = explainer.inside(source, "top2")
    look = LookInside(explainer, source, most=3, grid=2)
    first, second = look.layers(one), look.layers(other)
    assert [layer.name for layer in first] == [layer.name for layer in second]
    assert first[-1].name == one.boundary[0]
    assert len(first) == 3
    for layer, again in zip(first, second, strict=True):
        np.testing.assert_array_equal(layer.relevance, one.relevance[layer.name])
        np.testing.assert_array_equal(again.relevance, other.relevance[layer.name])
        assert again.fields is layer.fields
        assert layer.positions.shape == (4, 2)
    (wanted,) = explainer.erf(source, "encoder", [tuple(map(int, place)) for place in first[-1].positions])
    np.testing.assert_allclose(first[-1].fields, wanted.maps, rtol=1e-6)


def test_another_method_is_named_and_not_looked_into(tmp_path: Path) -> None:
    explainer, source = Explainer(small(tmp_path), method="gradcam"), photo(tmp_path / "a.png")
    report = collected(explainer, source, 3)
    (item,) = report.items
    assert item.shown[0].method == "gradcam"
    assert item.shown[0].layers == ()
    assert not item.shown[0].complete
    assert "Grad-CAM" in " ".join(text for section in report.after for text in section.paragraphs)


def test_in_bounded_memory_it_is_not_looked_into() -> None:
    """Layers and fields need the whole at once."""
    explainer = Explainer("squeezenet11", providers="cpu", max_memory=20_000_000)
    report = collected(explainer, sample_photo(), 285)
    (item,) = report.items
    assert item.shown[0].layers == ()
    facts = dict(fact for section in report.after for fact in section.facts)
    assert facts["memory"].startswith("layers computed twice, in ")
    assert [type(one) for one in explainer._sessions.values()] == [Recomputed]
