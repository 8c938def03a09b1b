"""A Workspace with the ID of a model outside the catalog, from a hub on this machine to the answer of `/chat`."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kaito.local.presets import COMPLETE, REAL, models_cache
from test.support.hub_server import COMMIT, HubServer, Repository, hub_server

ROOT = Path(__file__).resolve().parents[2]
PRESETS = ROOT / "presets" / ".venv"
MODEL = f"HuggingFaceTB/{REAL}"

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not (PRESETS / "bin" / "kaito-inference").exists(), reason="run `make presets-env` first"),
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed"),
    pytest.mark.skipif(not (models_cache() / REAL / COMPLETE).exists(), reason="run hack.models.smollm2 first"),
]

WORKSPACE = f"""
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata:
  name: any
resource:
  instanceType: Standard_NC24ads_A100_v4
  labelSelector:
    matchLabels:
      apps: any
inference:
  preset:
    name: {MODEL}
"""


def until(condition: Callable[[], bool], what: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    """A hub with the files of the real model, in a thread."""
    ready: list[HubServer] = []
    started, ended = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with hub_server() as server:
            folder = models_cache() / REAL
            files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
            server.repositories[MODEL] = Repository({name: body for name, body in files.items() if name != COMPLETE})
            ready.append(server)
            started.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    started.wait(30)
    yield ready[0]
    loop.call_soon_threadsafe(ended.set)
    thread.join(30)
    loop.close()


def chat(address: str) -> str:
    body = json.dumps({"prompt": "What is the capital of France?", "generate_kwargs": {"do_sample": False}}).encode()
    request = urllib.request.Request(f"{address}/chat", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        answer: str = json.loads(response.read())["Result"]
        return answer


def test_a_workspace_with_an_id_is_read_planned_bought_and_answers(hub: HubServer, tmp_path: Path) -> None:
    output = tmp_path / "output"
    command: list[str | Path] = [
        Path(sys.executable).parent / "kaito",
        "up",
        f"--folder={tmp_path / 'up'}",
        f"--presets={PRESETS}",
    ]
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, cwd=ROOT, env={**os.environ, "HF_ENDPOINT": hub.address}
        )
    try:
        until(lambda: "export KUBECONFIG" in output.read_text() or process.poll() is not None, "kaito up")
        found = re.search(r"KUBECONFIG=(\S+)", output.read_text())
        assert found, output.read_text()
        environment = {**os.environ, "KUBECONFIG": found.group(1)}

        def kubectl(*arguments: str, given: str = "") -> str:
            result = subprocess.run(
                ["kubectl", *arguments], env=environment, input=given, capture_output=True, text=True, check=False
            )
            return result.stdout + result.stderr

        assert "is not in the catalog" in kubectl("apply", "-f", "-", given=WORKSPACE)
        state = ("get", "workspace", "any", "-o", "jsonpath={.status.state}")
        until(lambda: kubectl(*state) == "Ready", "the Workspace")
        status = kubectl("get", "workspace", "any", "-o", "yaml")
        assert "LlamaForCausalLM bfloat16, 0.13 billion parameters" in status.replace("\n      ", " ")
        assert COMMIT in kubectl("get", "configmap", "any-model-facts", "-o", "yaml")
        pod = kubectl("get", "statefulset", "any", "-o", "json")
        assert f"--revision={COMMIT}" in pod
        assert hub.address in pod
        address = kubectl("get", "service", "any", "-o", "jsonpath={.spec.clusterIP}")
        assert "Paris" in chat(f"http://{address}")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def test_the_command_of_the_pod_downloads_the_pinned_commit(hub: HubServer, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    hub.requests.clear()
    command: list[str | Path] = [
        PRESETS / "bin" / "kaito-inference",
        f"--pretrained_model_name_or_path={MODEL}",
        f"--revision={COMMIT}",
        "--allow_remote_files",
        "--pipeline=text-generation",
        "--torch_dtype=bfloat16",
        "--served_model_name=smollm2-135m-instruct",
        "--host=127.0.0.1",
        f"--port={port}",
    ]
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=file,
            env={**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1"},
        )

    def is_ready() -> bool:
        assert process.poll() is None, output.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    try:
        until(is_ready, "the server")
        assert "Paris" in chat(f"http://127.0.0.1:{port}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    files = [path for path, _, _ in hub.requests if path.endswith("model.safetensors")]
    assert files
    assert all(f"/resolve/{COMMIT}/" in path for path in files)
