"""What the charts install only if it is wanted: tracing, the activator of scale to zero, and the console."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.cluster import Cluster
from hack.cluster.layout import ADDRESS
from test.node.conftest import say
from test.node.test_charts import CHART, RELEASE, run
from test.node.test_installation import is_admitted
from test.node.test_serving import QUESTION, READY_SECONDS, answer, document
from test.support.collector import Collector, listener_in
from test.support.node_images import build_and_push
from test.support.real_node import MODELS, PREFIX, ROOT, SYSTEM, VERSION, Kubernetes

NAME = "phi"
HOST = "console.example.com"
IDLE_SECONDS = 60
WAKE_SECONDS = 600
"""Limit of a request that starts a model."""
VALUES = {
    "nodeApi": "byo",
    "image": {"repository": f"{PREFIX}/{RELEASE}"},
    "imageRegistry": PREFIX,
    "modelRegistry": MODELS,
    "activator": {"enabled": True},
}


@pytest.fixture(scope="module")
def collector(cluster: Cluster) -> Iterator[Collector]:
    """Receives the spans of all pods."""
    found = Collector(listener=listener_in(cluster.layout.namespace_file, ADDRESS))
    yield found
    found.close()


@pytest.fixture(scope="module")
def installed(
    cluster: Cluster,
    helm: str,
    serving_image: None,
    model: str,
    collector: Collector,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Kubernetes]:
    """The chart with a collector and the activator; a Workspace that scales to zero, and answers."""
    kubernetes = Kubernetes(cluster)
    build_and_push(cluster, [RELEASE, "console"], say)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubernetes.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": labels}})
    values = tmp_path_factory.mktemp("helm") / "values.yaml"
    values.write_text(yaml.safe_dump(VALUES | {"tracing": {"endpoint": collector.url}}))
    run(cluster, helm, "install", RELEASE, CHART, "--values", values, "--wait", "--timeout", "300s")
    kubernetes.until("admission", lambda: is_admitted(kubernetes), 90)
    cluster.kubectl("label", "node", cluster.layout.name, "apps=phi-3", "--overwrite")
    workspace = document(NAME)
    workspace["spec"] = {"autoscaling": {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": IDLE_SECONDS}}
    kubernetes.apply(workspace)
    kubernetes.until_condition(NAME, "WorkspaceReady", seconds=READY_SECONDS)
    yield kubernetes
    kubernetes.delete("workspace", NAME)
    uninstall = (helm, "uninstall", RELEASE, "--namespace", SYSTEM, "--wait")
    # The protection of an installation in use ends a few seconds after the last Workspace.
    kubernetes.until("the uninstallation", lambda: cluster.run(*uninstall, check=False).returncode == 0, 120)
    kubernetes.delete("crd", "workspaces.kaito.sh", "inferencesets.kaito.sh")
    kubernetes.delete("namespace", SYSTEM)


def replicas(kubernetes: Kubernetes) -> int:
    found: int = kubernetes.get("workspace", NAME)["spec"].get("replicas", 1)
    return found


def test_model_with_a_collector_answers(installed: Kubernetes) -> None:
    assert "Paris" in answer(installed, NAME)


def test_one_trace_has_spans_of_the_controller_and_of_the_server(installed: Kubernetes, collector: Collector) -> None:
    context: str = installed.get("workspace", NAME)["metadata"]["annotations"]["kaito.sh/traceparent"]
    _, trace, admission, _ = context.split("-")
    expected = {
        "workspace-controller: POST /default/workspace.kaito.sh",
        "workspace-controller: reconcile workspace",
        "workspace-controller: WorkspaceReady",
        "workspace-controller: schedule pod",
        "kaito-inference: start server",
        "kaito-inference: load model",
    }

    def received() -> set[str]:
        return {f"{span.service}: {span.name}" for span in collector.spans if span.trace == trace}

    installed.until("the spans", lambda: expected <= received(), 60)
    root = next(span for span in collector.spans if span.id == admission)
    assert (root.service, root.name, root.trace) == ("workspace-controller", "POST /default/workspace.kaito.sh", trace)


@dataclass(frozen=True)
class Console:
    """The console as users reach it: by its Service, with a token of their own."""

    kubernetes: Kubernetes
    address: str

    def request(self, path: str, token: str, body: Mapping[str, Any] | None = None) -> tuple[int, str]:
        """Sends a request; returns the status and the body of the answer."""
        command = ["curl", "-sS", "--max-time", "240", "-w", "\n%{http_code}", "-H", f"Host: {HOST}"]
        command += ["-H", f"Authorization: Bearer {token}"] if token else []
        if body is not None:
            command += ["-H", "X-Kaito-Console: 1", "-H", "Content-Type: application/json", "--data-binary", "@-"]
        sent = json.dumps(body) if body is not None else None
        output = self.kubernetes.cluster.run(*command, f"http://{self.address}{path}", stdin=sent).stdout
        text, _, status = output.rpartition("\n")
        return int(status), text

    def token(self, name: str) -> str:
        """Returns a token of a service account."""
        return self.kubernetes.cluster.kubectl("create", "token", name).strip()


@pytest.fixture(scope="module")
def console(installed: Kubernetes, cluster: Cluster, helm: str) -> Iterator[Console]:
    """The console with two users: `editor` has the role edit in the namespace, `stranger` has none."""
    words = ("--set", f"hosts={{{HOST}}}", "--set", f"image.repository={PREFIX}/console")
    run(cluster, helm, "install", "console", ROOT / "charts" / "console", *words, "--wait", "--timeout", "300s")
    for user in ("editor", "stranger"):
        cluster.kubectl("create", "serviceaccount", user)
    cluster.kubectl("create", "rolebinding", "editor", "--clusterrole=edit", "--serviceaccount=default:editor")
    service = installed.get("service", "kaito-console", "-n", SYSTEM)
    yield Console(installed, service["spec"]["clusterIP"])
    run(cluster, helm, "uninstall", "console", "--wait")
    installed.delete("rolebinding,serviceaccount", "editor", "stranger")


def test_page_of_the_console_is_served(console: Console) -> None:
    status, page = console.request("/", "")
    assert (status, "<title>" in page) == (200, True)


def test_console_identifies_its_users(console: Console) -> None:
    assert console.request("/api/session", "")[0] == 401
    status, text = console.request("/api/session", console.token("stranger"))
    session = json.loads(text)
    assert (status, session["version"]) == (200, VERSION)
    assert (session["user"], session["namespaces"]) == ("system:serviceaccount:default:stranger", [])
    assert console.request(f"/api/workspaces/default/{NAME}", console.token("stranger"))[0] == 403


def test_console_shows_a_workspace_and_relays_a_chat(console: Console) -> None:
    token = console.token("editor")
    status, text = console.request(f"/api/workspaces/default/{NAME}", token)
    assert (status, json.loads(text)["state"]) == (200, "ready")
    body = {"messages": [QUESTION], "maxTokens": 24, "temperature": 0}
    status, text = console.request(f"/api/workspaces/default/{NAME}/chat", token, body)
    assert status == 200, text
    assert "Paris" in text


def test_idle_workspace_is_scaled_to_zero(installed: Kubernetes) -> None:
    # The chats before have extended the time.
    seconds = installed.until("no copies", lambda: replicas(installed) == 0, IDLE_SECONDS + 180)
    say(f"scaled to zero after {seconds:.0f} s")
    installed.until("the end of the pod", lambda: installed.items("pods") == [], 120)
    message = installed.condition(NAME, "InferenceReady")["message"]
    assert message.startswith("no copies, because spec.replicas is 0; a request to its Service starts a copy")


def test_request_starts_a_copy_and_is_answered(installed: Kubernetes, tmp_path: Path) -> None:
    headers = tmp_path / "headers"
    body = {"model": "phi-3-mini-4k-instruct", "messages": [QUESTION], "max_tokens": 24, "temperature": 0}
    url = f"http://{installed.service_address(NAME)}/v1/chat/completions"
    command = ("curl", "-sS", "--fail-with-body", "--max-time", str(WAKE_SECONDS), "-D", headers)
    begun = time.monotonic()
    sent = (*command, "-H", "Content-Type: application/json", "--data-binary", "@-", url)
    reply = installed.cluster.run(*sent, stdin=json.dumps(body), timeout_seconds=WAKE_SECONDS + 10).stdout
    say(f"answer after {time.monotonic() - begun:.0f} s, from zero copies")
    assert "Paris" in json.loads(reply)["choices"][0]["message"]["content"]
    assert "x-kaito-waited-seconds" in headers.read_text().lower()
    assert replicas(installed) == 1
    installed.until_condition(NAME, "WorkspaceReady", seconds=120)
    assert "Paris" in answer(installed, NAME)
