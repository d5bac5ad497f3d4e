"""The page as a file: what it says, that nothing in it runs or asks for anything, and how large it is."""

import base64
import hashlib
import re
import tracemalloc
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from srd_onnx.errors import OutputError
from srd_onnx.report.content import Item, Report, Section
from srd_onnx.report.html import write_html
from srd_onnx.report.views import IMAGE_BYTES
from srd_onnx.report.words import honest
from tests.report_data import HOSTILE, endless, hostile, item, report, shown

VOID = {"meta", "img", "input", "br", "rect"}
LINKS = {"src", "href", "action", "formaction", "srcset", "poster", "data", "xlink:href", "background"}


class Page(HTMLParser):
    """Elements, attributes and texts of a page; fails where an element is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.inside: dict[str, list[str]] = {"style": [], "script": []}
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.inside:
            self.inside[self.open[-1]].append(data)
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All that is to be read."""
        return "".join(self.texts)

    def of(self, name: str) -> list[str]:
        """The values of an attribute."""
        return [value for _, one, value in self.attributes if one == name]


def page_of(given: Report, folder: Path) -> Page:
    """The page, parsed by Python's own parser."""
    path = folder / "report.html"
    write_html(given, path)
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_says_what_the_report_says(tmp_path: Path) -> None:
    page = page_of(report(), tmp_path)
    for said in (
        "Audit of a model",
        "The model is right in 3 of 4 images.",
        "What was asked",
        "ab" * 32,
        "0.1235",
        "photo 2.png",
        f"{2:064x}",
        "class 2",
        "label of top2",
        "the map barely changes with the class",
        "broken.png: the PNG is cut off",
        "/node/8",
        "insertion",
        "need not add up",
        "speaks against the target",
    ):
        assert said in page.text, said
    assert page.tags["article"] == 5
    assert page.of("data-target").count("top2") == 8
    assert all(page.of("alt"))
    assert len(set(page.of("id"))) == len(page.of("id"))


def test_the_parts_of_the_explained_number_add_up(tmp_path: Path) -> None:
    one = replace(report(), items=iter([replace(item(0), shown=(shown(),))]))
    text = page_of(one, tmp_path).text
    seen = shown()
    found = re.search(r"Together\s*([+−][\d.e−]+)", text)
    assert found is not None
    assert float(found[1].replace("−", "-")) == pytest.approx(seen.score, rel=1e-3)


def test_the_guide_stands_before_the_first_picture(tmp_path: Path) -> None:
    given = report()
    pictured = replace(given, before=(*given.before, *given.after), after=())
    for one, wanted in ((given, "model"), (pictured, "model")):
        page = page_of(one, tmp_path)
        headings = [value for tag, name, value in page.attributes if tag == "h2" and name == "id"]
        assert headings[headings.index("reading") - 1] == wanted
    assert headings[headings.index("reading") + 1] == "means"


def test_nothing_may_be_fetched_and_only_our_script_runs(tmp_path: Path) -> None:
    page = page_of(report(), tmp_path)
    (policy,) = (
        value for tag, name, value in page.attributes if name == "content" and value.startswith("default-src")
    )
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert (
        rules["default-src"] == rules["connect-src"] == rules["form-action"] == rules["base-uri"] == "'none'"
    )
    assert rules["img-src"] == "data:"
    for kind in ("style", "script"):
        (source,) = ["".join(page.inside[kind])]
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"
        assert page.tags[kind] == 1
        assert not re.search(r"https?://|url\(|@import|\beval\(|innerHTML|fetch\(|XMLHttpRequest", source)
    assert page.tags["link"] == page.tags["iframe"] == page.tags["form"] == 0
    for _, name, value in page.attributes:
        assert not name.startswith("on")
        assert name != "style"  # the policy forbids it
        if name in LINKS:
            assert value.startswith(("data:image/", "#"))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text(text: str, tmp_path: Path) -> None:
    page, tame = page_of(hostile(text), tmp_path), page_of(hostile("tame"), tmp_path)
    # The same elements and attributes as with a harmless word: none was made by the text.
    assert page.tags == tame.tags
    assert [one[:2] for one in page.attributes] == [one[:2] for one in tame.attributes]
    assert page.text.count(honest(text)) >= tame.text.count("tame") - tame.text.count("tames")
    assert honest(text) in page.of("data-name")
    assert page.inside == tame.inside


def test_equal_reports_give_equal_bytes_but_for_the_time(tmp_path: Path) -> None:
    written = []
    for name, made in (("a", "2026-01-01"), ("b", "2026-01-01"), ("c", "2027-02-02")):
        write_html(replace(report(), made=made), tmp_path / name)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1] != written[2]
    assert written[0] == written[2].replace(b"2027-02-02", b"2026-01-01")


def noisy(number: int) -> Item:
    """As large as an image can be: noise everywhere, four maps of it, and layers with many fields."""
    draw = np.random.default_rng(number)
    base = item(number)
    maps = tuple(
        replace(
            one,
            relevance=draw.normal(size=(300, 300)),
            layers=tuple(
                replace(
                    part,
                    positions=np.argwhere(np.ones((8, 8), bool)),
                    fields=draw.normal(size=(64, 300, 300)).astype(np.float32),
                    relevance=draw.normal(size=(64, 64)),
                )
                for part in one.layers
            ),
        )
        for one in base.shown
    )
    return replace(base, photo=draw.integers(0, 256, (300, 300, 3), np.uint8), shown=maps)


def test_a_hundred_images_fit_into_50_mb(tmp_path: Path) -> None:
    sizes = []
    for count in (0, 1):
        given = replace(report(), items=iter([noisy(0)] * count))
        write_html(given, tmp_path / f"{count}.html")
        sizes.append((tmp_path / f"{count}.html").stat().st_size)
    each = sizes[1] - sizes[0]
    assert IMAGE_BYTES["audit"] / 3 < each
    assert sizes[0] + 100 * each < 50e6


def test_images_are_taken_one_by_one_and_written_as_they_come(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        write_html(replace(report(), items=endless(count)), tmp_path / f"{count}.html")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(2)
    few, many = peak(3), peak(20)
    assert many < few + 0.3e6
    assert (tmp_path / "20.html").stat().st_size > 20 * 8000


def test_a_map_that_cannot_be_drawn_is_an_error_of_its_image(tmp_path: Path) -> None:
    bad = replace(item(0), shown=(replace(shown(), relevance=np.full((60, 60), np.nan)),))
    page = page_of(replace(report(), items=iter([bad, item(1)])), tmp_path)
    assert "holds 3600 values that are NaN" in page.text
    assert page.tags["article"] == 2


def test_sequences_volumes_and_layers_without_positions_are_shown(tmp_path: Path) -> None:
    layer = shown().layers[0]
    flat = replace(
        shown(),
        relevance=np.linspace(-1, 1, 50),
        layers=(
            replace(layer, relevance=np.ones(7), positions=np.array([[0], [6]]), fields=np.ones((2, 50))),
            replace(
                layer, relevance=np.array(1.0), positions=np.zeros((1, 0), np.int64), fields=np.ones((1, 50))
            ),
            replace(layer, positions=np.zeros((0, 2), np.int64), fields=np.zeros((0, 60, 60))),
        ),
    )
    deep = replace(shown(), relevance=np.ones((3, 8, 8)), layers=())
    one = replace(item(0), photo=None, shown=(flat, deep))
    page = page_of(replace(report(), items=iter([one])), tmp_path)
    assert page.tags["article"] == 1
    assert "Not explained" not in page.text


def test_a_report_without_images_and_one_into_a_folder_that_is_a_file(tmp_path: Path) -> None:
    empty = Report("comparison", "Nothing", (), (), (), (Section("a", "A"),), "")
    assert page_of(empty, tmp_path).tags["article"] == 0
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write"):
        write_html(report(), tmp_path / "file" / "report.html")


def test_a_page_that_fails_halfway_leaves_what_was_there(tmp_path: Path) -> None:
    def failing() -> object:
        yield item(0)
        raise OSError(5, "the store cannot be read")

    (tmp_path / "report.html").write_text("before")
    with pytest.raises(OSError, match="the store cannot be read"):
        write_html(replace(report(), items=failing()), tmp_path / "report.html")  # type: ignore[arg-type]
    assert (tmp_path / "report.html").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
