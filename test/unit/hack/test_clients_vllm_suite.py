"""The outcomes of vLLM's own tests: a run that was interrupted continues, and a test that ends it is repeated once."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hack.clients import vllm_suite

if TYPE_CHECKING:
    from collections.abc import Generator

SELECTION = vllm_suite.REPLACEMENTS / "selection.py"
TESTS = """
import os
import pytest

@pytest.fixture
def server():
    return None

def test_passes(server): ...

@pytest.mark.parametrize("name", ["/models/some", "x"])
def test_fails(server, name):
    raise ValueError("first line\\nsecond line")

def test_ends_the_process(server):
    os._exit(1)

def test_sends_nothing(): ...

def test_last(server): ...
"""


@pytest.fixture
def url() -> "Generator[str]":
    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 - of the base class

    with ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_suite, "FILES", ("test_some.py",))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tests = tmp_path / "tests" / "entrypoints"
    tests.mkdir(parents=True)
    (tests / "test_some.py").write_text(TESTS)
    (tmp_path / "tests" / "conftest.py").write_text(SELECTION.read_text())
    (tmp_path / "huggingface_hub.py").write_text("def snapshot_download(): ...\n")
    return tmp_path


def run_tests(directory: Path, url: str) -> None:
    environment = os.environ | {
        "PYTHONPATH": str(directory),
        "KAITO_TEST_URL": url,
        "KAITO_TEST_RESULTS": str(vllm_suite.results_file(directory, "ours")),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/entrypoints/test_some.py"]
    subprocess.run(command, cwd=directory, env=environment, check=False, capture_output=True)


def test_a_run_continues_after_a_test_has_ended_it(directory: Path, url: str) -> None:
    file = vllm_suite.results_file(directory, "ours")
    passed = {"test_some::test_passes": ""}
    failed = {f"test_some::test_fails[{name}]": "ValueError: first line" for name in ("some", "x")}
    for _ in range(2):
        run_tests(directory, url)
        assert vllm_suite.outcomes(file) == passed | failed
        assert not vllm_suite.is_complete(file)
    run_tests(directory, url)
    ended = {"test_some::test_ends_the_process": "has exceeded its time or ended the process"}
    assert vllm_suite.outcomes(file) == passed | failed | ended | {"test_some::test_last": ""}
    assert vllm_suite.is_complete(file)
    starts = [line for line in file.read_text().splitlines() if "test_passes" in line and "started" in json.loads(line)]
    assert len(starts) == 1


def test_a_test_that_was_interrupted_has_no_outcome_yet(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    assert not vllm_suite.is_complete(file)
    finished = json.dumps({"finished": ["tests/entrypoints/test_some.py"]})
    file.write_text(f'{{"started": "a"}}\n{{"test": "a", "failure": ""}}\n{{"started": "b"}}\n{finished}\n')
    assert not vllm_suite.is_complete(file)
    with file.open("a") as more:
        more.write(f'{{"started": "b"}}\n{{"test": "b", "failure": "x"}}\n{finished}\n{{"star')
    assert vllm_suite.is_complete(file), "the last line of a run that was killed is skipped"


def test_a_run_without_one_of_the_files_is_not_complete(
    directory: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files run at the same time: one may end before its first test, for example because the server does not answer."""
    monkeypatch.setattr(vllm_suite, "FILES", ("test_other.py", "test_some.py"))
    for _ in range(3):
        run_tests(directory, url)
    file = vllm_suite.results_file(directory, "ours")
    assert "test_some::test_last" in vllm_suite.outcomes(file)
    assert not vllm_suite.is_complete(file)
    with file.open("a") as more:
        more.write('{"finished": ["tests/entrypoints/test_other.py"]}\n')
    assert vllm_suite.is_complete(file)
