"""The wrapper as a process, with a stub in the place of `vllm serve`."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

STUB = Path(__file__).with_name("stub_engine.py")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    script = tmp_path / "vllm"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {STUB} "$@" --log={tmp_path / "starts.log"}\n')
    script.chmod(0o755)
    return script


def start(engine: Path, model: Path, *flags: str) -> tuple["subprocess.Popen[str]", str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "kaito_presets.vllm.main", f"--model={model}", f"--port={port}"]
    command += ["--host=127.0.0.1", f"--kaito-engine={engine}", f"--kaito-adapters-dir={model / 'none'}", *flags]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True), f"http://127.0.0.1:{port}"


def wait_until_healthy(url: str, process: "subprocess.Popen[str]") -> None:
    for _ in range(300):
        assert process.poll() is None, process.stderr and process.stderr.read()
        try:
            with urllib.request.urlopen(url + "/health", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the wrapper did not become healthy")


def model_directory(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    config = {"num_attention_heads": 4, "hidden_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 9000}
    (model / "config.json").write_text(json.dumps(config))
    return model


def test_wrapper_finds_a_fitting_context_serves_and_drains(engine: Path, tmp_path: Path) -> None:
    process, url = start(engine, model_directory(tmp_path), "--served-model-name=phi")
    try:
        wait_until_healthy(url, process)
        request = urllib.request.Request(url + "/chat", b'{"prompt": "abc"}')
        with urllib.request.urlopen(request, timeout=10) as response:
            assert json.load(response) == {"Result": "abcABC"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
    starts: list[dict[str, Any]] = [json.loads(line) for line in (tmp_path / "starts.log").read_text().splitlines()]
    assert [start.get("max-model-len") for start in starts] == [None, "2992"]


def test_context_of_the_user_is_not_searched(engine: Path, tmp_path: Path) -> None:
    process, _ = start(engine, model_directory(tmp_path), "--max-model-len=5000")
    _, output = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "estimated maximum model length is 2999" in output
    assert len((tmp_path / "starts.log").read_text().splitlines()) == 1


def test_wrapper_exits_with_the_code_of_its_engine(engine: Path, tmp_path: Path) -> None:
    process, _ = start(engine, model_directory(tmp_path), "--max-model-len=100", "--die=1")
    process.communicate(timeout=60)
    assert process.returncode == 7


def test_missing_engine_is_reported(tmp_path: Path) -> None:
    process, _ = start(tmp_path / "absent", model_directory(tmp_path))
    _, output = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "is vllm installed?" in output


def test_dry_run_prints_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kaito_presets.vllm.main", "--model=org/name", "--kaito-dry-run", "--b", "--a=1"]
    command += [f"--kaito-adapters-dir={tmp_path}"]
    output = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ}).stdout
    words = json.loads(output)["command"]
    assert words[:3] == ["vllm", "serve", "org/name"]
    assert words[3:5] == ["--a=1", "--b"]
