"""The page in a browser: each interaction does what it says, nothing is fetched, everybody can use it."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srd_onnx import Explainer
from srd_onnx.graph.ir import Array
from srd_onnx.pictures.render import overlay
from srd_onnx.report.html import write_html
from srd_onnx.report.single import Collected
from srd_onnx.report.words import honest
from srd_onnx.zoo import sample_photo
from tests.browser import Tab, chromium, tab
from tests.report_data import GRID, HOSTILE, blob, hostile, report, shown

WIDTHS = (320, 400, 1024, 1920)
MAP = ".open .chosen [data-part=map]"
OVERLAY = ".open .chosen [data-part=overlay]"
PHOTO = ".open [data-part=photo]"
CELL = ".open .chosen .cell"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit") / "report.html"
    write_html(report(8), path)
    return path


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `explain --open` shows."""
    path = tmp_path_factory.mktemp("real") / "report.html"
    collected = Collected(Explainer("squeezenet11"))
    for one in collected.explainer.explain(sample_photo(), "top2"):
        collected.add(sample_photo(), "chelsea", one)
    write_html(collected.report(["srd-onnx", "explain"]), path)
    return path


def settled(opened: Tab) -> Tab:
    """When what was asked for is drawn."""
    opened.page.locator(f"{MAP} canvas").first.wait_for()
    opened.page.wait_for_timeout(150)
    return opened


def painted(opened: Tab, selector: str) -> Array:
    """The pixels of a canvas, [H, W, RGBA]."""
    return np.array(opened.canvas(f"{selector} canvas"), np.int64)


def redness(pixels: Array) -> Array:
    """How much more red than blue there is, [H, W], in what is painted; the white of the scale is a little warm."""
    more = pixels[..., 0] - pixels[..., 2]
    return np.asarray(np.where(np.abs(more) > 8, more, 0) * pixels[..., 3])


def place_of(weights: Array) -> tuple[float, float]:
    """The centre of what is positive, (row, column) in 0..1."""
    found = np.maximum(weights, 0) / np.maximum(weights, 0).sum()
    y, x = ((np.arange(size) + 0.5) / size for size in found.shape)
    return float((found.sum(1) * y).sum()), float((found.sum(0) * x).sum())


def opens(page: Any, name: str) -> None:
    """Wait until this image is the one that is open."""
    page.locator(".open h3", has_text=name).wait_for()


def closes(page: Any) -> None:
    """Wait until all images are seen."""
    page.locator("#grid").wait_for(state="visible")


def test_the_map_is_drawn_from_its_values_as_the_file_draws_it(browser: Any, audit: Path) -> None:
    with tab(browser, audit, part="#image-1") as opened:
        pixels = painted(settled(opened), MAP)
        assert place_of(redness(pixels)) == pytest.approx((0.25, 0.25), abs=0.02)
        assert place_of(-redness(pixels)) == pytest.approx((0.75, 0.75), abs=0.02)
        same = opened.page.evaluate(
            """async () => {
              const stage = document.querySelector(".open .chosen [data-part=map]");
              const [image, drawn] = ["img", "canvas"].map((name) => stage.querySelector(name));
              const { width, height } = drawn;
              const copy = Object.assign(document.createElement("canvas"), { width, height });
              const drawing = copy.getContext("2d", { willReadFrequently: true });
              const [a, b] = [image, drawn].map((picture) => {
                drawing.drawImage(picture, 0, 0);
                return drawing.getImageData(0, 0, width, height).data;
              });
              return a.every((value, i) => Math.abs(value - b[i]) <= 2);
            }"""
        )
        assert same


def test_the_overlay_is_that_of_the_other_pictures(browser: Any, audit: Path) -> None:
    with tab(browser, audit, part="#image-1") as opened:
        pixels = painted(settled(opened), OVERLAY)
    # Over a grey photo, where the file's own overlay has the same opacity and colours.
    grey = np.full((60, 60, 3), 128, np.uint8)
    wanted = overlay(grey, np.asarray(shown().relevance, np.float32)).astype(float)
    part = pixels[..., 3:] / 255
    found = (128 * 0.62 + 60) * (1 - part) + pixels[..., :3] * part
    assert np.abs(found - wanted).mean() < 2
    assert np.abs(found - wanted).max() < 25


def test_all_images_are_found_ordered_and_opened(browser: Any, audit: Path) -> None:
    with tab(browser, audit) as opened:
        page = opened.page
        thumbs = page.locator("#grid .thumb")
        assert thumbs.count() == 8
        assert page.locator(".item:visible").count() == 0
        page.locator("#search").fill("PHOTO 3")
        assert thumbs.count() == 1
        page.locator("#search").fill("no such name")
        assert page.locator("#nothing").is_visible()
        assert page.locator("#count").inner_text() == "0 of 8 images"
        page.locator("#search").fill("")
        page.locator("#flag").select_option("wrong")
        assert thumbs.count() == 3
        page.locator("#flag").select_option("")
        page.locator("#order").select_option("faithfulness, largest first")
        numbers = [re.findall(r"faithfulness (\S+)", one) for one in thumbs.all_inner_texts()]
        assert numbers == [["8"], ["7"], ["5"], ["4"], ["2"], ["1"], ["0"], ["–"]]
        thumbs.nth(1).click()
        opens(page, "2 photo 1.png")
        assert page.locator("#place").inner_text() == "2 of 8"
        page.get_by_role("button", name="Next").click()
        opens(page, "6 photo 5.png")
        page.go_back()
        opens(page, "2 photo 1.png")
        page.get_by_role("link", name="All images").click()
        closes(page)
        assert page.locator(".item:visible").count() == 0
        assert thumbs.count() == 8


def test_the_keyboard_is_enough(browser: Any, audit: Path) -> None:
    with tab(browser, audit) as opened:
        page = opened.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "search":
                break
        page.keyboard.type("photo 2")
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.className") == "thumb":
                break
        page.keyboard.press("Enter")
        opens(page, "3 photo 2.png")
        assert page.evaluate("document.activeElement.tagName") == "H3"
        page.keyboard.press("Escape")
        closes(page)
        page.locator("#search").focus()
        page.keyboard.press("Control+A")
        page.keyboard.press("Delete")
        assert page.locator("#count").inner_text() == "8 of 8 images"
        page.locator("#grid .thumb").nth(2).focus()
        page.keyboard.press("Enter")
        opens(page, "3 photo 2.png")
        page.keyboard.press("ArrowRight")
        opens(page, "4 photo 3.png")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        opens(page, "2 photo 1.png")
        settled(opened).page.locator(PHOTO).focus()
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowRight")
        page.wait_for_selector(".open .told:visible")
        opens(page, "2 photo 1.png")
        page.keyboard.press("Escape")
        assert page.locator(".open .told:visible").count() == 0
        page.keyboard.press("Escape")
        closes(page)
        assert "photo 1.png" in page.evaluate("document.activeElement.innerText")


def test_target_and_method_choose_what_is_seen(browser: Any, audit: Path) -> None:
    with tab(browser, audit, part="#image-2") as opened:
        page = settled(opened).page
        seen = page.locator(".shown:visible")
        assert seen.count() == 1
        page.locator("#target").select_option("top2")
        page.locator("#method").select_option("gradcam")
        assert "target top2" in seen.inner_text()
        assert "gradcam" in seen.inner_text()
        assert "Warning: the map barely changes" in seen.inner_text()
        page.get_by_label("all methods").check()
        assert seen.count() == 2
        page.get_by_role("button", name="Next").click()
        assert seen.count() == 2
        assert "target top2" in seen.first.inner_text()


def test_a_choice_stays_as_far_as_the_next_image_has_it(browser: Any, tmp_path: Path) -> None:
    some = list(report(4).items)
    renamed = tuple(replace(one, target=f"{one.target} of 2") for one in some[1].shown)
    some[1] = replace(some[1], shown=renamed)
    some[2] = replace(some[2], shown=tuple(one for one in some[2].shown if one.method == "gradcam"))
    write_html(replace(report(), items=some), tmp_path / "report.html")
    with tab(browser, tmp_path / "report.html", part="#image-1") as opened:
        page = settled(opened).page
        page.locator("#target").select_option("top2")
        seen = page.locator(".shown:visible")
        for wanted, method in (("top2 of 2", "srd"), ("top2", "gradcam")):
            settled(opened)  # what is drawn meanwhile may move the button from under a slow click
            page.get_by_role("button", name="Next").click()
            page.locator(".shown:visible", has_text=f"target {wanted} ·").wait_for()
            assert method in seen.inner_text()
        settled(opened)
        page.get_by_role("button", name="Next").click()
        opens(page, "4 broken.png")
        assert page.locator("#looking").is_hidden()
        page.go_back()
        page.locator(".shown:visible", has_text="target top2 ·").wait_for()


def test_a_comparison_shows_both_models_at_once(browser: Any, tmp_path: Path) -> None:
    write_html(report(3, "comparison"), tmp_path / "report.html")
    with tab(browser, tmp_path / "report.html", part="#image-1") as opened:
        page = settled(opened).page
        assert page.locator(".shown:visible").count() == 2
        assert page.locator("label:has(#method)").inner_text().startswith("Model")
        page.get_by_label("all models, one below the other").uncheck()
        assert page.locator(".shown:visible").count() == 1


def test_scale_colours_and_threshold_change_the_map(browser: Any, audit: Path) -> None:
    with tab(browser, audit, part="#image-1") as opened:
        page = settled(opened).page
        first = painted(opened, MAP)
        page.locator("#threshold").fill("60")
        assert page.locator("#below").inner_text() == "60 %"
        hidden = painted(opened, MAP)
        colourless = np.ptp(hidden[..., :3], axis=-1) < 4
        assert colourless.sum() > 300 + (np.ptp(first[..., :3], axis=-1) < 4).sum()
        assert redness(hidden).max() == redness(first).max()
        page.locator("#threshold").fill("0")
        page.locator("#wheel").select_option("dark to bright")
        grey = painted(opened, MAP)
        assert (np.ptp(grey[..., :3], axis=-1) == 0).all()
        legend = np.array(opened.canvas(".legend canvas"))
        assert (np.ptp(legend[..., :3], axis=-1) == 0).all()
        said = page.locator(".legend figcaption").inner_text()
        assert said.startswith("Dark speaks against the target, bright for it, grey does neither.")
        # The bright is where red was.
        assert grey[15, 15, 0] > 200 > 60 > grey[44, 44, 0]


def test_one_scale_for_all_images_is_the_reports(browser: Any, tmp_path: Path) -> None:
    end = 4 * float(np.abs(shown().relevance).max())
    write_html(replace(report(3), scales={"srd": end}), tmp_path / "report.html")
    with tab(browser, tmp_path / "report.html", part="#image-1") as opened:
        page = settled(opened).page
        unit = page.locator(".open .chosen .unit")
        assert page.locator("#range").input_value() == "shared"
        assert float(unit.inner_text()) == pytest.approx(end, rel=1e-2)
        pale = redness(painted(opened, MAP)).max()
        page.locator("#range").select_option("own")
        page.wait_for_timeout(150)
        assert float(unit.inner_text()) < end / 3
        assert redness(painted(opened, MAP)).max() > pale


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 4), (5, 5)])
def test_a_position_of_a_layer_shows_its_field(browser: Any, audit: Path, row: int, column: int) -> None:
    with tab(browser, audit, part="#image-2") as opened:
        page = settled(opened).page
        opened.click(CELL, (column + 0.5) / GRID, (row + 0.5) / GRID)
        told = page.locator(".open .chosen .told")
        told.wait_for(state="visible")
        assert f"PFV at row {row + 1}, column {column + 1} of /block/Conv." in told.inner_text()
        relevance = -1 + 2 * (row * GRID + column) / (GRID**2 - 1)
        found = re.search(r"relevance ([+−]\d+(?:\.\d+)?)", told.inner_text())
        assert found is not None
        assert float(found[1].replace("−", "-")) == pytest.approx(relevance, abs=0.02)
        wanted = place_of(blob((row + 0.5) / GRID, (column + 0.5) / GRID))
        for picture in (MAP, OVERLAY):
            assert place_of(redness(painted(opened, picture))) == pytest.approx(wanted, abs=0.02)
        assert "ERF" in page.locator(".open .chosen .pictures").inner_text()
        page.get_by_role("button", name="Back to the relevance").click()
        assert place_of(redness(painted(opened, MAP))) == pytest.approx((0.25, 0.25), abs=0.02)
        assert "Signed map" in page.locator(".open .chosen .pictures").inner_text()


def test_a_place_of_the_photo_shows_what_it_feeds_or_its_field(browser: Any, audit: Path) -> None:
    row, column = 1, 4
    at = ((column + 0.5) / GRID, (row + 0.5) / GRID)
    with tab(browser, audit, part="#image-2") as opened:
        page = settled(opened).page
        told = page.locator(".open .chosen .told")
        for picture in (PHOTO, OVERLAY, MAP):
            opened.click(picture, *at)
            told.wait_for(state="visible")
            assert "What this place feeds." in told.inner_text()
            assert "/block/Conv: " in told.inner_text()
            assert f"of the PFV at row {row + 1}, column {column + 1}" in told.inner_text()
            weights = redness(painted(opened, CELL))
            assert int(weights.argmax()) == row * GRID + column
            page.keyboard.press("Escape")
        # So much of the PFV comes from there: what its field holds in that pixel of the picture.
        opened.click(PHOTO, *at)
        told.wait_for(state="visible")
        found = re.search(r"/block/Conv: ([\d.]+) %", told.inner_text())
        assert found is not None
        field = blob((row + 0.5) / GRID, (column + 0.5) / GRID)
        assert float(found[1]) == pytest.approx(100 * field.max(), rel=0.1)
        page.get_by_label("A click on a picture above shows").select_option(
            "the ERF of the PFV there, in /last/Relu"
        )
        opened.click(PHOTO, *at)
        page.locator(".open .chosen .told", has_text="of /last/Relu.").wait_for()
        assert place_of(redness(painted(opened, MAP))) == pytest.approx(at[::-1], abs=0.02)


def test_light_and_dark(browser: Any, audit: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with tab(browser, audit, color_scheme="dark") as opened:
        page = opened.page
        dark = page.evaluate(ground)
        page.get_by_role("button", name="Show the page in light colours").click()
        light = page.evaluate(ground)
        assert light != dark
        page.get_by_role("button", name="Show the page in dark colours").click()
        assert page.evaluate(ground) == dark
    with tab(browser, audit, color_scheme="light") as opened:
        assert opened.page.evaluate(ground) == light


def test_all_is_there_without_a_script_and_in_print(browser: Any, audit: Path) -> None:
    with tab(browser, audit, java_script_enabled=False) as opened:
        page = opened.page
        assert page.locator(".item:visible").count() == 8
        assert page.locator(".shown:visible").count() == 28
        assert page.locator("#finding").is_hidden()
        assert page.locator("#theme").is_hidden()
    with tab(browser, audit, part="#image-2") as opened:
        assert not settled(opened).page.locator("details td", has_text="Relu").first.is_visible()
        opened.page.emulate_media(media="print")
        assert opened.page.locator(".item:visible").count() == 8
        assert opened.page.locator(".shown:visible").count() == 28
        assert opened.page.locator("#finding").is_hidden()
        assert opened.page.locator("details td", has_text="Relu").first.is_visible()
        assert opened.page.pdf().startswith(b"%PDF")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("part", ["", "#image-2"])
def test_nothing_is_wider_than_the_window(browser: Any, audit: Path, width: int, part: str) -> None:
    with tab(browser, audit, width, part) as opened:
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        if part:
            opened.page.wait_for_selector(MAP)
            small = opened.page.evaluate(
                "[...document.querySelectorAll('.open .chosen .stage')].filter((s) => s.offsetWidth < 150).length"
            )
            assert small == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("part", ["", "#image-2"])
def test_axe_finds_no_serious_fault(browser: Any, audit: Path, part: str, scheme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe NOT RUN: `make test-browser`"
    )
    with tab(browser, audit, part=part, color_scheme=scheme) as opened:
        if part:
            settled(opened).click(CELL, 0.5, 0.5)
            opened.page.wait_for_selector(".open .told:visible")
        found = axe.Axe().run(opened.page)
        serious = [one for one in found.response["violations"] if one["impact"] in ("serious", "critical")]
        assert [(one["id"], [node["target"] for node in one["nodes"]][:5]) for one in serious] == []
        # It did look: colours, names and landmarks were among what passed.
        passed = {one["id"] for one in found.response["passes"]}
        assert {"color-contrast", "image-alt", "label", "select-name", "landmark-one-main"} <= passed


def test_axe_notices_a_fault(browser: Any, audit: Path) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe NOT RUN: `make test-browser`"
    )
    with tab(browser, audit) as opened:
        opened.page.evaluate("document.querySelector('.figures img').removeAttribute('alt')")
        opened.page.evaluate("document.querySelector('.made').style.color = '#ccc'")
        found = axe.Axe().run(opened.page)
    assert {"image-alt", "color-contrast"} <= {one["id"] for one in found.response["violations"]}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_does_nothing(browser: Any, tmp_path: Path, text: str) -> None:
    write_html(hostile(text), tmp_path / "report.html")
    with tab(browser, tmp_path / "report.html", part="#image-1") as opened:
        page = settled(opened).page
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        opened.click(CELL, 0.5, 0.5)
        page.wait_for_selector(".open .told:visible")
        assert page.locator("#flag option").nth(1).text_content() == honest(text)
        assert page.locator("#order option").nth(2).text_content() == f"{honest(text)}, largest first"
        page.get_by_role("link", name="All images").click()
        page.locator("#order").select_option(index=2)
        assert page.locator("#grid .thumb").count() == 2
        assert page.locator("script").count() == 1
        assert page.locator("[onerror]").count() == 0
        assert dialogs == []


def test_the_page_of_explain_open(browser: Any, real: Path) -> None:
    with tab(browser, real) as opened:
        page = settled(opened).page
        assert page.locator("h1").inner_text() == "Egyptian cat (class 285) in chelsea"
        assert page.locator("#finding").is_hidden()
        assert page.locator(f"{CELL}:visible").count() == 6
        opened.click(CELL, 0.5, 0.5, number=5)
        told = page.locator(".open .chosen .told")
        told.wait_for(state="visible")
        assert "of /Relu_1." in told.inner_text()
        y, x = place_of(redness(painted(opened, MAP)))
        assert abs(y - 0.5) < 0.2
        assert abs(x - 0.5) < 0.2
        page.locator("#target").select_option(index=1)
        assert "tiger cat" in page.locator(".shown:visible h4").inner_text()


def test_what_is_watched_for_is_seen(browser: Any, tmp_path: Path) -> None:
    """The checks of `tab` notice an error, and a request."""
    path = tmp_path / "bad.html"
    path.write_text('<!DOCTYPE html><script>throw new Error("bad")</script>')
    with pytest.raises(AssertionError, match="bad"), tab(browser, path):
        pass
    path.write_text('<!DOCTYPE html><link rel="stylesheet" href="other.css">')
    with pytest.raises(AssertionError, match=r"other\.css"), tab(browser, path):
        pass
