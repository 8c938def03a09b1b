"""The console of a real control plane whose API server is stopped and started again."""

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
from playwright.sync_api import Browser, expect

from hack.envtest import ControlPlane
from test.support.console_browser import chromium, watched_page

ROOT = Path(__file__).resolve().parents[2]
MINUTES_MS = 180_000
"""Upper limit of a wait for processes that start or recover."""

pytestmark = pytest.mark.timeout(400)


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
