"""The pictures of the console in docs/assets/console: `make record-console` writes them, the test compares loosely.

The pictures come from the server with canned answers, so that they show every state and need no cluster. The test
compares the layout of the page with that of the picture: both are reduced to a few cells of gray, in the browser.
"""

import base64
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, Page, expect

from test.support.console_browser import DESKTOP, PHONE, chromium, watched_page
from test.support.console_server import ConsoleStub

pytestmark = pytest.mark.timeout(120)

FOLDER: Final = Path(__file__).resolve().parents[2] / "docs" / "assets" / "console"
DOCS: Final = FOLDER.parents[1]
RECORD: Final = os.environ.get("KAITO_RECORD_CONSOLE") == "1"
MAX_HEIGHT: Final = 1000
MAX_BYTES: Final = 300 * 1024
TOLERANCE: Final = 0.06
"""Largest mean difference of a cell, as a share of the way from black to white."""

COMPARE: Final = """
async ([first, second]) => {
  const cells = async (source) => {
    const image = new Image();
    image.src = `data:image/png;base64,${source}`;
    await image.decode();
    const canvas = Object.assign(document.createElement("canvas"), {width: 40, height: 30});
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(image, 0, 0, 40, 30);
    const data = context.getImageData(0, 0, 40, 30).data;
    return Array.from({length: 1200}, (_, at) => (data[at * 4] + data[at * 4 + 1] + data[at * 4 + 2]) / 765);
  };
  const [one, two] = [await cells(first), await cells(second)];
  return one.reduce((sum, value, at) => sum + Math.abs(value - two[at]), 0) / one.length;
}
"""


def _nothing(page: Page) -> None:
    del page


def _choose_a_model(page: Page) -> None:
    page.locator("input[name=model]").first.check()
    expect(page.locator("[data-verdict='It fits']")).to_be_visible()


def _chat(page: Page) -> None:
    page.get_by_role("button", name="Compare two").click()
    page.get_by_label("Message", exact=True).fill("What is the capital of France?")
    page.keyboard.press("Enter")
    expect(page.locator("[data-stats]")).to_have_count(2)


def _trouble(page: Page) -> None:
    page.get_by_role("button", name="Do it: Kill the pod").click()
    expect(page.get_by_role("region", name="Log")).to_contain_text("kill-pod")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of the documentation."""

    address: str
    prepare: Callable[[Page], None] = _nothing
    dark: bool = False
    size: tuple[int, int] = DESKTOP


PICTURES: Final = {
    "list": Picture(address="#/"),
    "list-phone": Picture(address="#/", size=PHONE),
    "cause": Picture(address="#/w/team-a/support-bot"),
    "workspace": Picture(address="#/w/default/phi", dark=True),
    "tuning": Picture(address="#/w/team-b/house-style"),
    "chat": Picture(address="#/chat/default/phi", prepare=_chat),
    "new": Picture(address="#/new", prepare=_choose_a_model),
    "cost": Picture(address="#/money"),
    "trouble": Picture(address="#/trouble", prepare=_trouble),
}


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    with chromium() as running:
        yield running


def take(browser: Browser, picture: Picture) -> bytes:
    """Returns a picture of a view as PNG."""
    with (
        ConsoleStub() as stub,
        watched_page(browser, dark=picture.dark, size=picture.size, reduced_motion="reduce") as page,
    ):
        page.goto(f"{stub.url}{picture.address}")
        page.locator("main h1").first.wait_for()
        expect(page.locator("[data-loading]")).to_have_count(0)
        picture.prepare(page)
        if picture.size == DESKTOP:
            height: int = page.evaluate("document.querySelector('main').scrollHeight")
            page.set_viewport_size({"width": picture.size[0], "height": min(max(height, 600), MAX_HEIGHT)})
        page.mouse.move(0, 0)
        return page.screenshot()


@pytest.mark.parametrize("name", PICTURES)
def test_the_picture_shows_the_view_as_it_is(browser: Browser, name: str) -> None:
    taken = take(browser, PICTURES[name])
    path = FOLDER / f"{name}.png"
    if RECORD:
        FOLDER.mkdir(parents=True, exist_ok=True)
        path.write_bytes(taken)
    assert path.is_file(), "run `make record-console`"
    assert path.stat().st_size <= MAX_BYTES
    with watched_page(browser) as page:
        pair = [base64.b64encode(picture).decode() for picture in (taken, path.read_bytes())]
        assert page.evaluate(COMPARE, pair) <= TOLERANCE, f"{name} looks different: run `make record-console`"


def test_the_documentation_shows_every_picture() -> None:
    """Those of `kaito up`, which test_console_local.py takes, too."""
    text = (DOCS / "guides" / "console.md").read_text() + (DOCS / "getting-started" / "try-it.md").read_text()
    names = {path.stem for path in FOLDER.glob("*.png")}
    assert names >= set(PICTURES)
    assert [name for name in sorted(names) if f"assets/console/{name}.png" not in text] == []
