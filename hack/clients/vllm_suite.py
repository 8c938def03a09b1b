"""Runs vLLM's own tests of its OpenAI routes against a running server.

The tests come from vLLM's source distribution of the version that the image contains. They are changed in three ways:
the server under test runs already (`vllm_tests/server_stub.py`), each model name is that of the served model, and the
context length is that of the servers. Tests of vLLM's classes, which send no request, are deselected. Many tests
expect tokens, texts or adapters of another model, and fail with both servers.
"""

import contextlib
import json
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from hack.clients.environments import test_packages, vllm, vllm_tests
from hack.clients.servers import CONTEXT_TOKENS, Server, environment
from hack.models.vllm_cpu import ROOT

REPLACEMENTS: Final = ROOT / "hack" / "clients" / "vllm_tests"
FILES: Final = (
    *(f"openai/chat_completion/test_{name}.py" for name in (
        "chat", "chat_completion", "chat_echo", "chat_logit_bias_validation", "completion_with_function_calling",
    )),
    *(f"openai/completion/test_{name}.py" for name in ("completion", "prompt_validation", "token_in_token_out")),
    "openai/models/test_models.py",
    *(f"openai/test_{name}.py" for name in ("chunked_prompt", "return_token_ids", "return_tokens_as_ids")),
    "serve/tokenize/test_tokenization.py",
    "serve/instrumentator/test_basic.py",
)  # fmt: skip
"""Tests of text models that start one server; not: embeddings, images, sound, Anthropic's and the responses API."""
TEST_SECONDS: Final = 300
"""A test that exceeds it is repeated once, and has failed then."""
RUN_SECONDS: Final = 4 * 3600
CONCURRENT_FILES: Final = 4
"""Files whose tests run at the same time: the servers batch the requests."""
ALONE: Final = "serve/instrumentator/test_basic.py"
"""Its tests read how many requests the server has."""
RUNS: Final = 6
"""Most runs until all tests have an outcome; the server is started again for each."""


def prepare(directory: Path, model: str) -> None:
    """Writes the changed tests to `directory`."""
    tests = directory / "tests"
    shutil.rmtree(tests, ignore_errors=True)
    shutil.copytree(vllm_tests() / "entrypoints", tests / "entrypoints")
    (tests / "__init__.py").touch()
    shutil.copy(REPLACEMENTS / "server_stub.py", tests / "utils.py")
    shutil.copy(REPLACEMENTS / "selection.py", tests / "conftest.py")
    for name in FILES:
        file = tests / "entrypoints" / name
        text = re.sub(r"(?m)^(MODEL_NAME|MODEL_PATH) = .*", rf'\1 = "{model}"', file.read_text())
        text = text.replace('"openai-community/gpt2"', f'"{model}"').replace("== 8192", f"== {CONTEXT_TOKENS}")
        text = text.replace("10000", str(CONTEXT_TOKENS * 3 // 4))
        text = re.sub(r"MODEL_PATH = download_weights_from_hf\((?s:.*?)\n    \)", "pass", text)
        file.write_text(text)


def run(server: Server, directory: Path) -> None:
    """Runs the tests without an outcome.

    Outcomes are appended to a file in `directory`, so that a run that was interrupted, by a signal, a hanging test or
    the end of the server, is continued by the next one.
    """

    def run_file(name: str) -> None:
        results = results_file(directory, server.name)
        command = [
            "nice", "-n", "5", str(vllm().parent / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider",
            f"--timeout={TEST_SECONDS}", "-o", "asyncio_default_fixture_loop_scope=function",
            _path(name),
        ]  # fmt: skip
        variables = environment(
            PYTHONPATH=f"{directory}:{test_packages()}", KAITO_TEST_URL=server.url, KAITO_TEST_RESULTS=str(results)
        )
        log = directory / f"vllm-tests-{server.name}-{Path(name).stem}.log"
        with log.open("ab") as output, contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                command, cwd=directory, env=variables, stdout=output, stderr=output, check=False, timeout=RUN_SECONDS
            )  # fmt: skip

    test_packages()  # installed before the threads need it
    with ThreadPoolExecutor(CONCURRENT_FILES) as pool:
        list(pool.map(run_file, [name for name in FILES if name != ALONE]))
    run_file(ALONE)


def results_file(directory: Path, server: str) -> Path:
    """Returns the file of the outcomes: one JSON object in each line, see `vllm_tests/selection.py`."""
    return directory / f"vllm-tests-{server}.jsonl"


def outcomes(file: Path) -> dict[str, str]:
    """Returns the first line of the failure by test, empty for a test that passed."""
    found: dict[str, str] = {}
    for entry in _entries(file):
        if "test" in entry:
            path, _, name = str(entry["test"]).partition("::")
            module = path.removeprefix("tests/entrypoints/").removesuffix(".py").replace("/", ".")
            found[f"{module}::{_short(name)}"] = str(entry["failure"])
    return found


def is_complete(file: Path) -> bool:
    """Whether a run of every file has ended, and each test that was started has an outcome.

    A test that exceeded its time for the first time has none yet.
    """
    entries = _entries(file)
    finished = {path for each in entries for path in each.get("finished", ())}
    started = {each["started"] for each in entries if "started" in each}
    return finished >= {_path(name) for name in FILES} and started <= {each.get("test") for each in entries}


def _path(name: str) -> str:
    return f"tests/entrypoints/{name}"


def _entries(file: Path) -> list[dict[str, Any]]:
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    found: list[dict[str, Any]] = []
    for line in lines:
        with contextlib.suppress(ValueError):  # the last line of a run that was killed
            found.append(json.loads(line))
    return found


def _short(name: str) -> str:
    """Replaces the directory of the model in a parameter of a test."""
    return re.sub(r"/\S*/", "", name)
