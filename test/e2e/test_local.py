"""`kaito up` as a person uses it: kubectl and curl, the death of a process, bad Workspaces, a deletion."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRESETS = ROOT / "presets" / ".venv"

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not (PRESETS / "bin" / "kaito-inference").exists(), reason="run `make presets-env` first"),
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed"),
]


class Up:
    """A running `kaito up`."""

    def __init__(self, kubeconfig: str) -> None:
        self.kubeconfig = kubeconfig

    def kubectl(self, *arguments: str) -> str:
        result = subprocess.run(
            ["kubectl", *arguments],
            env={**os.environ, "KUBECONFIG": self.kubeconfig},
            capture_output=True,
            text=True,
            check=False,
        )
        return result.stdout + result.stderr

    def apply(self, manifest: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["kubectl", "apply", "-f", "-"],
            input=manifest,
            env={**os.environ, "KUBECONFIG": self.kubeconfig},
            capture_output=True,
            text=True,
            check=False,
        )

    def condition(self, workspace: str, name: str) -> str:
        path = f'{{.status.conditions[?(@.type=="{name}")].status}}'
        return self.kubectl("get", "workspace", workspace, "-o", f"jsonpath={path}")

    def is_ready(self, workspace: str) -> bool:
        return self.condition(workspace, "WorkspaceReady") == "True"

    def container(self, pod: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.kubectl("get", "pod", pod, "-o", "json"))["status"][
            "containerStatuses"
        ][0]
        return found


def until(condition: Callable[[], bool], what: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    output = folder / "output"
    command: list[str | Path] = [
        Path(sys.executable).parent / "kaito",
        "up",
        f"--folder={folder}",
        f"--presets={PRESETS}",
        "--model=tiny",  # the adapters of the tests belong to it
    ]
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT)
    try:
        until(lambda: "export KUBECONFIG" in output.read_text() or process.poll() is not None, "kaito up")
        found = re.search(r"KUBECONFIG=(\S+)", output.read_text())
        assert found, output.read_text()
        yield Up(found.group(1))
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, output.read_text()


def test_a_workspace_answers_chat_survives_a_death_and_goes(up: Up) -> None:
    name = "workspace-phi-3-mini"
    assert "created" in up.kubectl("apply", "-f", "config/samples/workspace-phi-3-mini.yaml")
    until(partial(up.is_ready, name), "the Workspace to be ready")

    address = up.kubectl("get", "service", name, "-o", "jsonpath={.spec.clusterIP}")
    question = ["curl", "-s", "-X", "POST", f"http://{address}/chat", "-H", "accept: application/json"]
    question += ["-H", "Content-Type: application/json", "-d", '{"prompt":"What is the capital of France?"}']
    answer = json.loads(subprocess.run(question, capture_output=True, check=True).stdout)
    assert answer["Result"].startswith("What is the capital of France?")
    assert "ready after" in up.kubectl("logs", f"{name}-0")

    pid = int(str(up.container(f"{name}-0")["containerID"]).removeprefix("process://"))
    os.kill(pid, signal.SIGKILL)
    until(lambda: up.condition(name, "InferenceReady") == "False", "the death to be reported", 20)
    until(lambda: "137" in up.kubectl("describe", "workspace", name), "the exit code in words", 20)
    until(partial(up.is_ready, name), "recovery")
    assert up.container(f"{name}-0")["restartCount"] == 1

    assert "deleted" in up.kubectl("delete", "workspace", name, "--timeout=60s")
    assert "No resources found" in up.kubectl("get", "machines")
    until(lambda: "No resources found" in up.kubectl("get", "nodes"), "the node to go", 20)


def test_two_workspaces_serve_side_by_side_on_both_runtimes(up: Up) -> None:
    sizes = {"first": "Standard_NC6s_v3", "second": "Standard_NC24ads_A100_v4"}
    for name, size in sizes.items():
        manifest = GOOD.replace("NAME", name).replace("Standard_NC6s_v3", size).replace("apps: bad", f"apps: {name}")
        assert up.apply(manifest).returncode == 0
    for name in sizes:
        until(partial(up.is_ready, name), f"{name} to be ready")
        address = up.kubectl("get", "service", name, "-o", "jsonpath={.spec.clusterIP}")
        question = ["curl", "-s", "-X", "POST", f"http://{address}/chat", "-H", "Content-Type: application/json"]
        answer = subprocess.run([*question, "-d", '{"prompt":"Hello"}'], capture_output=True, check=True)
        assert json.loads(answer.stdout)["Result"].startswith("Hello")
    assert "deleted" in up.kubectl("delete", "workspace", *sizes, "--timeout=60s")


GOOD = """
apiVersion: kaito.sh/v1alpha1
kind: Workspace
metadata: {name: NAME}
resource:
  instanceType: Standard_NC6s_v3
  labelSelector: {matchLabels: {apps: bad}}
inference:
  preset: {name: phi-3-mini-4k-instruct}
"""
TUNING = """
tuning:
  preset: {name: phi-3-mini-128k-instruct}
  method: qlora
  input: {urls: ["https://datasets.example/train.parquet"]}
  output: {image: "registry.example/tuned:1", imagePushSecret: push}
"""
INFERENCE = "inference:\n  preset: {name: phi-3-mini-4k-instruct}\n"

BAD = {
    "unknown preset": ("phi-3-mini-4k-instruct", "phi-4000", "inference.preset.name", "phi-4"),
    "no such instance type": ("Standard_NC6s_v3", "Standard_XX9", "resource.instanceType", "Standard_N"),
    "instance type without GPU": ("Standard_NC6s_v3", "Standard_D4s_v5", "resource.instanceType", "GPU"),
    "too small for the model": ("phi-3-mini-4k-instruct", "llama-3.3-70b-instruct", "resource.instanceType", "Gi"),
    "no selector": ("  labelSelector: {matchLabels: {apps: bad}}\n", "", "labelSelector", "equired"),
    "empty selector": ("{matchLabels: {apps: bad}}", "{}", "labelSelector", "label"),
    "inference and tuning": (INFERENCE, INFERENCE + TUNING, "inference", "tuning"),
    "neither": (INFERENCE, "", "inference", "tuning"),
    "name too long": ("NAME", "n" * 60, "metadata.name", "52"),
    "name no Service can have": ("NAME", "1abc", "metadata.name", "letter"),
    "unknown field": ("  labelSelector", "  gpuCount: 3\n  labelSelector", "gpuCount", "unknown field"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_workspace_is_refused_with_field_and_remedy(up: Up, case: str) -> None:
    old, new, field, remedy = BAD[case]
    assert old in GOOD
    message = up.apply(GOOD.replace(old, new).replace("NAME", "bad"))
    assert message.returncode == 1
    assert field in message.stderr
    assert remedy in message.stderr


def test_the_instance_type_of_a_living_workspace_cannot_change(up: Up) -> None:
    assert up.apply(GOOD.replace("NAME", "living")).returncode == 0
    message = up.apply(GOOD.replace("NAME", "living").replace("Standard_NC6s_v3", "Standard_NC24ads_A100_v4"))
    assert message.returncode == 1
    assert "resource.instanceType" in message.stderr
    assert "deleted" in up.kubectl("delete", "workspace", "living", "--timeout=60s")
