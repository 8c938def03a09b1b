"""Chromium for the tests of the console, and the rules that every page must follow.

A page must not log an error, violate the Content-Security-Policy or call another host; `watched_page` fails otherwise.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

from hack import browser as installed

ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP: Final = (1280, 860)
PHONE: Final = (360, 740)
TIMEOUT_MS: Final = 15_000
"""Upper limit of a wait; a passing test waits only until the page has changed."""


@contextmanager
def chromium() -> Generator[Browser]:
    """Runs Chromium without a window. Its profile is new and is deleted at the end.

    Raises:
        BrowserMissing: no Chromium is installed.
    """
    executable = installed.locate()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(executable), args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def watched_page(
    browser: Browser,
    *,
    size: tuple[int, int] = DESKTOP,
    dark: bool = False,
    allowed: tuple[str, ...] = (),
    **options: Any,
) -> Generator[Page]:
    """A page in a new profile. `allowed` are texts of console errors that the test causes on purpose."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", **options
    )
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    faults: list[str] = []

    def report(text: str) -> None:
        if not any(part in text for part in allowed):
            faults.append(text)

    page.on("console", lambda message: report(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: report(str(error)))
    page.on("request", lambda request: None if _is_own(request.url) else report(f"request to {request.url}"))
    try:
        yield page
    finally:
        context.close()
    assert faults == []


def _is_own(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in {"data", "blob"} or parts.hostname == "127.0.0.1"


def violations(page: Page) -> list[str]:
    """Runs axe-core on the page and returns one line for each element that violates a rule of WCAG 2.2 AA."""
    if not page.evaluate("typeof window.axe === 'object'"):
        page.evaluate(installed.axe().read_text())
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    run = "tags => axe.run(document, {runOnly: tags, resultTypes: ['violations']}).then(found => found.violations)"
    found: list[dict[str, Any]] = page.evaluate(run, tags)
    return [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in found
        for node in violation["nodes"]
    ]
