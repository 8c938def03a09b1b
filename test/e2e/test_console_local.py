"""The console of `kaito up` with the real small model, and the console of a cluster whose API server dies."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from hack.envtest import ControlPlane
from kaito.local.presets import COMPLETE, REAL, models_cache
from test.support.console_browser import chromium, watched_page

ROOT = Path(__file__).resolve().parents[2]
PRESETS = ROOT / "presets" / ".venv"
MINUTES_MS = 180_000
"""Upper limit of a wait for processes that start or recover."""

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(not (PRESETS / "bin" / "kaito-inference").exists(), reason="run `make presets-env` first"),
]


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    with chromium() as running:
        yield running


def until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.1)


@contextmanager
def running(folder: Path, *arguments: str | Path, exit_codes: Sequence[int]) -> Generator[str]:
    """Runs `kaito` with arguments; yields the link of the console that it prints."""
    output = folder / "output"
    command = [Path(sys.executable).parent / "kaito", *arguments]
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT, env=dict(os.environ))
    try:
        until(lambda: "token=" in output.read_text() or process.poll() is not None, "the link of the console")
        found = re.search(r"http://\S+token=\S+", output.read_text())
        assert found, output.read_text()
        yield found[0]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in exit_codes, output.read_text()


def picture(page: Page, name: str) -> None:
    """Writes a picture for docs/getting-started/try-it.md, in `make record-console`."""
    if os.environ.get("KAITO_RECORD_CONSOLE") == "1":
        page.locator("main").evaluate("main => { main.scrollTop = 0 }")
        page.screenshot(path=ROOT / "docs" / "assets" / "console" / f"first-{name}.png")


def chain(page: Page, stage: str, state: str) -> None:
    """Waits until a stage of the picture has a state."""
    expect(page.locator(f"[data-stage='{stage}']")).to_have_attribute("data-state", state, timeout=MINUTES_MS)


def test_a_new_user_makes_a_workspace_chats_breaks_it_and_sees_it_recover(browser: Browser, tmp_path: Path) -> None:
    """Everything through the page: the form, the picture, the chat, a trouble button, a reload in the middle."""
    folder = f"--folder={tmp_path / 'up'}"
    with (
        running(tmp_path, "up", folder, f"--presets={PRESETS}", "--console-port=0", exit_codes=(130,)) as link,
        watched_page(browser) as page,
    ):
        page.goto(link)
        assert "token=" not in page.url
        page.get_by_role("link", name="Make the first one").click()

        page.get_by_label("Search models").fill("phi-3-mini-4k")
        page.locator("input[name=model][value='phi-3-mini-4k-instruct']").check()
        page.get_by_label("Instance type", exact=True).select_option("Standard_NC6s_v3")
        page.get_by_role("textbox", name="Name", exact=True).fill("first")
        expect(page.locator("[data-verdict='It fits']")).to_be_visible()
        expect(page.get_by_role("region", name="Plan")).to_contain_text("1 × Standard_NC6s_v3")  # noqa: RUF001
        picture(page, "plan")
        page.get_by_role("button", name="Create the Workspace").click()

        expect(page.locator("main h1")).to_have_text("first")
        chain(page, "Claim", "ok")
        picture(page, "start")
        page.reload()  # the address is that of the Workspace, and the cookie is kept
        for stage in ("Node", "Pod", "Server", "Answer"):
            chain(page, stage, "ok")
        expect(page.get_by_role("region", name="State")).to_contain_text("Ready")
        expect(page.get_by_role("region", name="What took how long").get_by_role("listitem").first).to_be_visible()

        page.get_by_role("link", name="Chat").last.click()
        page.get_by_text("Model and parameters").click()
        page.get_by_label("Temperature").fill("0")
        page.get_by_label("Message", exact=True).fill("What is the capital of France?")
        page.keyboard.press("Enter")
        expect(page.locator("[data-stats]")).to_contain_text("tokens/s", timeout=MINUTES_MS)
        if (models_cache() / REAL / COMPLETE).is_file():
            expect(page.get_by_role("log")).to_contain_text("Paris")

        picture(page, "chat")

        page.get_by_role("link", name="Trouble").click()
        chain(page, "Answer", "ok")
        page.locator("[data-trouble='pod-killed']").click()
        expect(page.get_by_role("region", name="Log")).to_contain_text("killed")
        chain(page, "Answer", "absent")
        picture(page, "killed")
        chain(page, "Answer", "ok")
        page.get_by_role("link", name="Workspaces", exact=True).click()
        expect(page.locator("[data-name='default/first']")).to_contain_text("Ready")


def test_the_page_survives_the_death_of_the_api_server(browser: Browser, tmp_path: Path) -> None:
    with ControlPlane(tmp_path / "cluster") as cluster:
        environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}

        def kubectl(*arguments: str) -> None:
            subprocess.run(["kubectl", *arguments], env=environment, check=True, capture_output=True, cwd=ROOT)

        kubectl("apply", "--server-side", "-f", "config/crd/kaito.sh_workspaces.yaml")
        kubectl("wait", "--for=condition=Established", "crd/workspaces.kaito.sh", "--timeout=60s")
        kubectl("apply", "-f", "config/samples/workspace-phi-3-mini.yaml")
        console = ("console", f"--kubeconfig={cluster.kubeconfig}", "--port=0")
        with (
            running(tmp_path, *console, exit_codes=(0, 130)) as link,
            watched_page(browser, allowed=("503", "502")) as page,
        ):
            page.goto(link)
            row = page.locator("[data-name='default/workspace-phi-3-mini']")
            expect(row).to_be_visible(timeout=MINUTES_MS)
            assert cluster.api_server is not None
            cluster.api_server.kill()
            cluster.api_server.wait()
            expect(page.locator(".banner")).to_contain_text("The API server does not answer.", timeout=MINUTES_MS)
            expect(row).to_be_visible()
            cluster.start_api_server()
            expect(page.locator(".banner")).to_be_hidden(timeout=MINUTES_MS)
            kubectl("delete", "-f", "config/samples/workspace-phi-3-mini.yaml", "--wait=false")
            expect(row).to_have_count(0, timeout=MINUTES_MS)
