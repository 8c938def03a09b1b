"""One trace from the admission of a Workspace to its first answer: `kaito up` with a collector of its own.

The webhook, both managers and the server in the pod are processes; each sends its spans to the collector.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from test.support.collector import Collector, Span

ROOT = Path(__file__).resolve().parents[2]
PRESETS = ROOT / "presets" / ".venv"
NAME = "workspace-phi-3-mini"

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (PRESETS / "bin" / "kaito-inference").exists(), reason="run `make presets-env` first"),
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed"),
]


def named(collector: Collector, trace: str) -> dict[str, Span]:
    return {f"{span.service}: {span.name}": span for span in collector.spans if span.trace == trace}


def until(condition: Callable[[], bool], what: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.close()


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("up")
    output = folder / "output"
    command: list[str | Path] = [
        Path(sys.executable).parent / "kaito",
        "up",
        f"--folder={folder}",
        f"--presets={PRESETS}",
        "--model=tiny",
        f"--tracing-endpoint={collector.url}",
    ]
    environment = os.environ | {"OTEL_BSP_SCHEDULE_DELAY": "200"}
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT, env=environment)
    try:
        until(lambda: "export KUBECONFIG" in output.read_text() or process.poll() is not None, "kaito up")
        found = re.search(r"KUBECONFIG=(\S+)", output.read_text())
        assert found, output.read_text()
        yield found.group(1)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, output.read_text()


def kubectl(kubeconfig: str, *arguments: str) -> str:
    environment = os.environ | {"KUBECONFIG": kubeconfig}
    ended = subprocess.run(["kubectl", *arguments], env=environment, capture_output=True, text=True, check=False)
    return ended.stdout + ended.stderr


def test_one_trace_from_the_admission_to_the_answer(kubeconfig: str, collector: Collector) -> None:
    assert "created" in kubectl(kubeconfig, "apply", "-f", "config/samples/workspace-phi-3-mini.yaml")
    path = '{.status.conditions[?(@.type=="WorkspaceReady")].status}'
    until(lambda: kubectl(kubeconfig, "get", "workspace", NAME, "-o", f"jsonpath={path}") == "True", "the Workspace")

    workspace = json.loads(kubectl(kubeconfig, "get", "workspace", NAME, "-o", "json"))
    context = workspace["metadata"]["annotations"]["kaito.sh/traceparent"]
    _, trace, admission, _ = context.split("-")
    (claim,) = json.loads(kubectl(kubeconfig, "get", "machines", "-o", "json"))["items"]
    assert claim["metadata"]["annotations"]["kaito.sh/traceparent"] == context
    address = kubectl(kubeconfig, "get", "service", NAME, "-o", "jsonpath={.spec.clusterIP}")
    question = ["curl", "-s", "-X", "POST", f"http://{address}/chat", "-H", f"traceparent: {context}"]
    question += ["-H", "Content-Type: application/json", "-d", '{"prompt":"What is the capital of France?"}']
    answer = json.loads(subprocess.run(question, capture_output=True, check=True).stdout)
    assert answer["Result"].startswith("What is the capital of France?")

    started = {f"{name}: start server": name for name in ("kaito-inference", "kaito-vllm")}
    until(lambda: not started.keys().isdisjoint(named(collector, trace)), "the spans of the server", 60)
    (server,) = (started[name] for name in named(collector, trace).keys() & started.keys())
    expected = {
        "workspace-controller: POST /default/workspace.kaito.sh",
        "workspace-controller: reconcile workspace",
        "workspace-controller: ResourceReady",
        "workspace-controller: InferenceReady",
        "workspace-controller: schedule pod",
        "gpu-provisioner: launch",
        "gpu-provisioner: register",
        "gpu-provisioner: initialize",
        f"{server}: start server",
        f"{server}: load model",
        f"{server}: POST /chat",
    }
    until(lambda: expected <= named(collector, trace).keys(), "the spans", 60)
    spans = named(collector, trace)
    assert spans["workspace-controller: POST /default/workspace.kaito.sh"].id == admission
    assert spans["workspace-controller: POST /default/workspace.kaito.sh"].parent == ""
    of_the_admission = expected - {
        "workspace-controller: POST /default/workspace.kaito.sh",
        f"{server}: load model",
    }
    assert {name: spans[name].parent for name in of_the_admission} == dict.fromkeys(of_the_admission, admission)
    assert spans[f"{server}: load model"].parent == spans[f"{server}: start server"].id

    in_trace = [span for span in collector.spans if span.trace == trace]
    ids = {span.id for span in in_trace}
    assert [span for span in in_trace if span.parent and span.parent not in ids] == []
    reconciles = {span.id for span in in_trace if span.name == "reconcile workspace"}
    creation = next(span for span in in_trace if span.name == "POST /apis/karpenter.sh/v1alpha5/machines")
    assert creation.parent in reconciles
    arm = [span for span in in_trace if span.service == "gpu-provisioner" and span.name.startswith("ARM ")]
    assert arm
    claims = {span.id for span in in_trace if span.service == "gpu-provisioner" and span.name.startswith("reconcile")}
    assert {span.parent for span in arm} <= claims
    assert spans["workspace-controller: InferenceReady"].seconds >= spans["gpu-provisioner: launch"].seconds > 0
