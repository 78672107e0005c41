"""A page in the system's Chromium that may not leave the machine and must not complain."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_shots import SHOTS

# WebGL2 without a graphics card; nothing that Chromium does on its own account.
FLAGS = (
    *("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"),
)
WIDTHS = {"desktop": (1280, 860), "phone": (390, 780)}
OURS = ("file:", "data:", "blob:", "http://127.0.0.1:")
SECONDS = 120_000  # ms; a renderer in software on a busy machine is slow


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All here need a browser: `make browser-test` runs them."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator:
    sync_api = pytest.importorskip("playwright.sync_api", reason="make browser-test installs playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium; on Debian: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield started
        started.close()


class Watched:
    """A page; ``complaints`` collects what it logs as an error and asks for elsewhere."""

    def __init__(self, page: object, width: str) -> None:
        self.page, self.width = page, width
        self.complaints: list[str] = []
        page.set_default_timeout(SECONDS)
        page.on("console", lambda told: told.type in ("error", "warning") and self._complain(told.text))
        page.on("pageerror", lambda error: self._complain(str(error)))
        page.on("request", lambda asked: asked.url.startswith(OURS) or self._complain(f"asked for {asked.url}"))

    def _complain(self, text: str) -> None:
        # Chromium's own word on drawing without a graphics card
        if "GPU stall due to ReadPixels" not in text and "swiftshader" not in text.lower():
            self.complaints.append(text[:300])

    def open(self, address: str | Path) -> None:
        self.page.goto(address.as_uri() if isinstance(address, Path) else address)

    def ready(self) -> None:
        self.page.wait_for_selector("body[data-ready]")

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def shot(self, name: str, whole: bool = True) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}_{self.width}.png", full_page=whole)


@pytest.fixture(params=WIDTHS)
def watched(request: pytest.FixtureRequest, browser) -> Iterator[Watched]:
    """At desktop and at phone width; fails where the page complained or asked for anything elsewhere."""
    width, height = WIDTHS[request.param]
    context = browser.new_context(viewport={"width": width, "height": height})
    page = Watched(context.new_page(), request.param)
    yield page
    complaints = page.complaints
    context.close()
    assert complaints == []
