"""Runs vLLM's own tests of its OpenAI routes against a running server.

The tests come from vLLM's source distribution of the version that the image contains. They are changed in three ways:
the server under test runs already (`vllm_tests/server_stub.py`), each model name is that of the served model, and the
context length is that of the servers. Tests of vLLM's classes, which send no request, are deselected. Many tests
expect tokens, texts or adapters of another model, and fail with both servers.
"""

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Final

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
TEST_SECONDS: Final = 180


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


def run(server: Server, directory: Path) -> dict[str, str]:
    """Runs the tests; returns the first line of the failure by test, empty for a test that passed."""
    result = directory / f"vllm-tests-{server.name}.xml"
    paths = f"{directory}:{test_packages()}"
    command = [
        "nice", "-n", "10", str(vllm().parent / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider",
        f"--timeout={TEST_SECONDS}", "-o", "asyncio_default_fixture_loop_scope=function", f"--junit-xml={result}",
        *(f"tests/entrypoints/{name}" for name in FILES),
    ]  # fmt: skip
    with result.with_suffix(".log").open("wb") as log:
        variables = environment(PYTHONPATH=paths, KAITO_TEST_URL=server.url)
        subprocess.run(command, cwd=directory, env=variables, stdout=log, stderr=log, check=False)
    return outcomes(result)


def outcomes(file: Path) -> dict[str, str]:
    """Reads the results of a run by test."""
    found: dict[str, str] = {}
    for case in ET.parse(file).iter("testcase"):  # noqa: S314 - written by pytest
        name = f"{str(case.get('classname')).removeprefix('tests.entrypoints.')}::{_short(str(case.get('name')))}"
        failures = [child for child in case if child.tag in ("failure", "error")]
        found[name] = failures[0].get("message", "failed").partition("\n")[0][:200] if failures else ""
    return found


def _short(name: str) -> str:
    """Replaces the directory of the model in a parameter of a test."""
    return re.sub(r"/\S*/", "", name)
