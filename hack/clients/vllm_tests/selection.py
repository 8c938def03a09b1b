"""Takes the place of `tests/conftest.py` in vLLM's tests: keeps tests that send requests, and downloads nothing.

Each outcome is appended to the file KAITO_TEST_RESULTS at once, and a run continues where the last one ended. A test
that exceeded its time or ended the process is repeated once.
"""

import json
import os
import time
import urllib.request
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import pytest

SENDS_REQUESTS: Final = ("server", "client", "server_fixture")
WITHOUT_FIXTURE: Final = ("test_empty_prompt", "test_out_of_vocab_token_ids")
"""Tests that start their server in their body."""
ATTEMPTS: Final = 2
HEALTH_SECONDS: Final = 120
UNFINISHED: Final = "has exceeded its time or ended the process"
RESULTS: Final = Path(os.environ["KAITO_TEST_RESULTS"])


def pytest_configure() -> None:
    """Replaces the download of adapters; the servers under test have none."""
    patch("huggingface_hub.snapshot_download", return_value="/nonexistent").start()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    """Deselects unit tests of vLLM's own classes, and tests whose outcome is known."""
    started, known = _read()
    kept: list[pytest.Function] = []
    for item in items:
        sends = item.originalname in WITHOUT_FIXTURE or any(name in SENDS_REQUESTS for name in item.fixturenames)
        if sends and item.nodeid not in known and started.get(item.nodeid, 0) >= ATTEMPTS:
            _write(test=item.nodeid, failure=UNFINISHED)
        elif sends and item.nodeid not in known:
            kept.append(item)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Ends the run if the server does not answer, so that it is started again."""
    deadline = time.monotonic() + HEALTH_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{os.environ['KAITO_TEST_URL']}/health", timeout=HEALTH_SECONDS):
                break
        except OSError as error:
            if time.monotonic() > deadline:
                pytest.exit(f"the server does not answer: {error}", returncode=pytest.ExitCode.INTERNAL_ERROR)
            time.sleep(1)
    _write(started=item.nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Appends the outcome of a test, unless its time was exceeded."""
    if report.when == "teardown" or (report.when == "setup" and report.passed):
        return
    failure = "" if report.passed or report.skipped else _first_line(report)
    if not failure.startswith("Failed: Timeout"):
        _write(test=report.nodeid, failure=failure)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Records the files of which all selected tests were run."""
    if exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED}:
        _write(finished=session.config.args)


def _first_line(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message) if crash is not None else str(report.longrepr)
    return text.strip().partition("\n")[0][:200] or "failed"


def _read() -> tuple[dict[str, int], set[str]]:
    """Returns how often each test was started, and those with an outcome."""
    started: dict[str, int] = {}
    known: set[str] = set()
    for line in RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else ():
        try:
            entry: dict[str, Any] = json.loads(line)
        except ValueError:  # the last line of a run that was killed
            continue
        if "started" in entry:
            started[entry["started"]] = started.get(entry["started"], 0) + 1
        elif "test" in entry:
            known.add(entry["test"])
    return started, known


def _write(**entry: object) -> None:
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write("\n" * _is_cut_off() + json.dumps(entry) + "\n")


def _is_cut_off() -> bool:
    """Whether the last line has no end, because its run was killed."""
    written = RESULTS.read_bytes()
    return bool(written) and not written.endswith(b"\n")
