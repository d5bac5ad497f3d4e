"""A headless Chromium that opens pages from the disk, and tells of every fault and every request."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NOT_RUN = "browser tests NOT RUN: `make test-browser` installs Playwright and Chromium"


@dataclass
class Tab:
    """A page that is open.

    Attributes:
        faults: messages of the console and errors of scripts.
        requests: what was asked for, but for the file itself and pictures that it holds.
    """

    page: Any
    file: str
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def on_request(self, request: Any) -> None:
        """Remember what is asked for."""
        if not request.url.startswith("data:") and request.url.partition("#")[0] != self.file:
            self.requests.append(request.url)

    def canvas(self, selector: str) -> Any:
        """The pixels of a canvas, as nested lists [H][W][RGBA]."""
        return self.page.evaluate(
            """(selector) => {
              const { width, height } = document.querySelector(selector);
              const copy = Object.assign(document.createElement("canvas"), { width, height });
              const drawing = copy.getContext("2d", { willReadFrequently: true });
              drawing.drawImage(document.querySelector(selector), 0, 0);
              const data = drawing.getImageData(0, 0, width, height).data;
              const rows = [];
              for (let y = 0; y < height; y++) {
                const row = [];
                for (let x = 0; x < width; x++) row.push([...data.slice(4 * (y * width + x), 4 * (y * width + x) + 4)]);
                rows.push(row);
              }
              return rows;
            }""",
            selector,
        )

    def click(self, selector: str, x: float, y: float, number: int = 0) -> None:
        """Click into an element, at a place in 0..1."""
        element = self.page.locator(selector).nth(number)
        box = element.bounding_box()
        element.click(position={"x": x * box["width"], "y": y * box["height"]})


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; the tests that need it are reported as not run where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason=NOT_RUN)
    if CHROMIUM is None:
        pytest.skip(NOT_RUN)
    with playwright.sync_playwright() as driver:
        # Chromium's own sandbox does not start for root, who runs CI; the pages are ours.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def tab(browser: Any, path: Path, width: int = 1280, part: str = "", **options: Any) -> Iterator[Tab]:
    """The page in a window of this width; afterwards nothing was wrong with it and nothing was asked for."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    page = context.new_page()
    opened = Tab(page, path.resolve().as_uri())
    page.on("console", lambda message: opened.faults.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: opened.faults.append(str(error)))
    page.on("request", opened.on_request)
    page.goto(f"{opened.file}{part}")
    yield opened
    assert not opened.requests, opened.requests
    assert not opened.faults, opened.faults
    context.close()
