"""`kaito-inference` as a process: start-up, exit codes, draining on SIGTERM; and the flags."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from kaito_presets.errors import AdapterError, ConfigurationError
from kaito_presets.inference.options import read_options
from kaito_presets.serving.adapters import find_adapters
from kaito_presets.serving.config import read_strengths

# Flags.


def test_flags_have_two_forms_and_booleans_need_no_value() -> None:
    options = read_options(["--torch-dtype", "float32", "--max_batch_size=4", "--trust_remote_code", "--port", "1234"])
    assert (options.torch_dtype, options.max_batch_size, options.trust_remote_code) == ("float32", 4, True)
    assert (options.host, options.port, options.pipeline) == ("0.0.0.0", 1234, "text-generation")
    assert read_options(["--trust_remote_code=false"]).trust_remote_code is False


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--no_such_flag=1"], "no_such_flag"),
        (["--port=many"], "--port: "),
        (["--pipeline=summarization"], "--pipeline"),
        (["--torch_dtype"], "expected one argument"),
        (["--load_in_4bit", "--load_in_8bit"], "exclude each other"),
        (["--config=/no/such/file.yaml"], "No such file"),
    ],
)
def test_wrong_flags_are_named(flags: list[str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read_options(flags)


def test_configuration_file_overrides_flags(tmp_path: Path) -> None:
    file = tmp_path / "inference_config.yaml"
    file.write_text("transformers: {max-batch-size: 3, torch_dtype: float16}\nvllm: {max-model-len: 5}\n")
    options = read_options([f"--config={file}", "--max_batch_size=9", "--port=1"])
    assert (options.max_batch_size, options.torch_dtype, options.port) == (3, "float16", 1)
    file.write_text("transformers: {max_bach_size: 3}\n")
    with pytest.raises(ConfigurationError, match="max_bach_size"):
        read_options([f"--config={file}"])
    file.write_text("tranformers: {}\n")
    with pytest.raises(ConfigurationError, match="tranformers"):
        read_options([f"--config={file}"])


def test_strengths_are_numbers_from_0_to_1() -> None:
    assert read_strengths({}) == {}
    assert read_strengths({"KAITO_ADAPTER_STRENGTHS": '{"phi-3-adapter": "0.5", "b": 1}'}) == {
        "phi-3-adapter": 0.5,
        "b": 1,
    }
    for text, words in (("[]", "object"), ('{"a": "x"}', "float"), ('{"a": 2}', r"\[0, 1\]"), ("{", "Expecting")):
        with pytest.raises(ConfigurationError, match=words):
            read_strengths({"KAITO_ADAPTER_STRENGTHS": text})


def test_every_directory_is_an_adapter_or_an_error(tmp_path: Path) -> None:
    assert find_adapters(tmp_path / "absent", {}) == ()
    with pytest.raises(AdapterError, match="'ghost': has a strength"):
        find_adapters(tmp_path, {"ghost": 1.0})
    folder = tmp_path / "my-adapter"
    folder.mkdir()
    (tmp_path / "lost+found").mkdir()
    with pytest.raises(AdapterError, match=r"'my-adapter'.*does not contain adapter_config\.json"):
        find_adapters(tmp_path, {})
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(AdapterError, match="cannot be read"):
        find_adapters(tmp_path, {})
    (folder / "adapter_config.json").write_text('{"r": 8, "base_model_name_or_path": "phi"}')
    with pytest.raises(AdapterError, match=r"does not contain adapter_model\.safetensors"):
        find_adapters(tmp_path, {})
    (folder / "adapter_model.safetensors").write_bytes(b"")
    (adapter,) = find_adapters(tmp_path, {"my-adapter": 0.25})
    assert (adapter.name, adapter.strength, adapter.rank, adapter.base_model) == ("my-adapter", 0.25, 8, "phi")


# The process.


def launch(*flags: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "kaito_presets.inference.main", "--host=127.0.0.1", *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str, body: object = None) -> tuple[int, Any]:
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_dry_run_prints_the_plan_without_a_model(tmp_path: Path) -> None:
    process = launch("--dry_run", "--pretrained_model_name_or_path=org/name", f"--adapters_dir={tmp_path}")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    plan = json.loads(output)
    assert plan["source"] == "hugging face"
    assert plan["options"]["port"] == 5000


@pytest.mark.model
def test_server_listens_before_the_load_serves_and_drains(tiny_model: Path, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = launch(
        f"--pretrained_model_name_or_path={tiny_model}", "--served_model_name=phi", f"--port={port}",
        f"--adapters_dir={tmp_path}", "--log_level=warning",
    )  # fmt: skip
    try:
        states: list[tuple[int, str]] = []
        deadline = time.monotonic() + 100
        while not states or states[-1] != (200, "Healthy"):
            assert process.poll() is None
            assert time.monotonic() < deadline
            try:
                status, body = ask(url + "/healthz")
                states.append((status, body["status"]))
            except urllib.error.URLError:
                pass
            time.sleep(0.02)
        assert states[0] == (503, "Loading"), "the port must answer while the model loads"
        status, body = ask(url + "/chat", {"prompt": "Tell me about Tuscany", "return_full_text": True})
        assert status == 200
        assert body["Result"].startswith("Tell me about Tuscany")
        assert ask(url + "/v1/models")[1]["data"][0]["id"] == "phi"
        assert ask(url + "/version")[1]["engine"] == "transformers"
        # SIGTERM in the middle of an answer: it is finished first.
        answers: list[tuple[int, Any]] = []
        options = {"max_new_tokens": 600, "min_new_tokens": 600}
        thread = threading.Thread(
            target=lambda: answers.append(ask(url + "/chat", {"prompt": "long", "generate_kwargs": options}))
        )
        thread.start()
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        thread.join()
        assert answers[0][0] == 200
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.model
def test_sigterm_during_the_load_ends_the_server(tiny_model: Path, tmp_path: Path) -> None:
    port = free_port()
    process = launch(
        f"--pretrained_model_name_or_path={tiny_model}", f"--port={port}", f"--adapters_dir={tmp_path / 'none'}"
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                assert ask(f"http://127.0.0.1:{port}/health") == (503, {"status": "Loading"})
                break
            except urllib.error.URLError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.model
def test_failed_load_ends_the_process_with_the_reason(tmp_path: Path) -> None:
    process = launch(
        f"--pretrained_model_name_or_path={tmp_path}", f"--port={free_port()}", f"--adapters_dir={tmp_path / 'none'}"
    )
    _, output = process.communicate(timeout=100)
    assert process.returncode == 4
    assert output.splitlines()[-1] == f"kaito-inference: {tmp_path} does not contain config.json (found: nothing)"
