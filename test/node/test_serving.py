"""A real language model on a real node: from `kubectl apply` to an answer, by source of the weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hack.cluster import Cluster
from test.node.conftest import say
from test.support.real_node import Kubernetes, workspace

QUESTION = {"role": "user", "content": "What is the capital of France?"}
GREEDY = {"do_sample": False, "max_length": 64}
NAME = "workspace-phi-3-mini"
READY_SECONDS = 600
"""Limit for a model: the first pod pulls an image of several GiB."""


def document(name: str, **preset: object) -> dict[str, Any]:
    """The sample Workspace for nodes that exist, with further fields of the preset."""
    found = workspace(name)
    found["inference"]["preset"] |= preset
    found["resource"] = {"labelSelector": {"matchLabels": {"apps": "phi-3"}}}
    return found


def answer(kubernetes: Kubernetes, name: str) -> str:
    """Sends a request through the Service and returns the text of the answer."""
    body = {"model": "phi-3-mini-4k-instruct", "messages": [QUESTION], "max_tokens": 24, "temperature": 0}
    url = f"http://{kubernetes.service_address(name)}/v1/chat/completions"
    reply: dict[str, Any] = kubernetes.post(url, body)
    return str(reply["choices"][0]["message"]["content"])


def pod_spec(kubernetes: Kubernetes, name: str) -> Mapping[str, Any]:
    pod = kubernetes.get("pod", f"{name}-0")
    spec: Mapping[str, Any] = pod["spec"]
    return spec


@pytest.fixture(scope="module")
def labeled(cluster: Cluster) -> None:
    cluster.kubectl("label", "node", cluster.layout.name, "apps=phi-3", "--overwrite")


@pytest.fixture
def ready(controllers: Kubernetes, serving_image: None, model: str, labeled: None) -> Kubernetes:
    return controllers


def test_sample_workspace_answers_on_an_existing_node(ready: Kubernetes) -> None:
    ready.apply(document(NAME))
    seconds = ready.until_condition(NAME, "WorkspaceReady", seconds=READY_SECONDS)
    say(f"WorkspaceReady after {seconds:.0f} s, image pull included")
    for kind in ("ResourceReady", "InferenceReady"):
        assert ready.condition(NAME, kind)["status"] == "True"
    assert "Paris" in answer(ready, NAME)


def test_chat_route_answers(ready: Kubernetes) -> None:
    reply = ready.post(
        f"http://{ready.service_address(NAME)}/chat", {"prompt": QUESTION["content"], "generate_kwargs": GREEDY}
    )
    assert "Paris" in reply["Result"]


def test_weights_are_an_image_volume_and_the_pod_is_restricted(ready: Kubernetes, model: str) -> None:
    spec = pod_spec(ready, NAME)
    volumes = [volume["image"]["reference"] for volume in spec["volumes"] if "image" in volume]
    assert volumes == [model]
    assert spec["automountServiceAccountToken"] is False
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def test_replaced_pod_answers_without_another_transfer(ready: Kubernetes, cluster: Cluster) -> None:
    before = ready.uid("pod", f"{NAME}-0")
    ready.delete("pod", f"{NAME}-0")
    ready.until("a new pod", lambda: ready.uid("pod", f"{NAME}-0") not in {"", before}, 60)
    seconds = ready.until("its container", lambda: ready.is_pod_ready(f"{NAME}-0"), 300)
    say(f"second pod ready after {seconds:.0f} s")
    events = cluster.kubectl("get", "events", "-o", "jsonpath={range .items[*]}{.reason} {.message}{'\\n'}{end}")
    assert "already present on machine" in events
    assert "Paris" in answer(ready, NAME)


def test_logs_and_exec_of_the_model_pod(ready: Kubernetes, cluster: Cluster) -> None:
    assert cluster.kubectl("logs", f"{NAME}-0").strip()
    listing = cluster.kubectl("exec", f"{NAME}-0", "--", "ls", "/workspace/weights")
    assert "model.safetensors" in listing.split()
    assert cluster.kubectl("exec", f"{NAME}-0", "--", "id", "-u").strip() == "65532"


def test_installation_in_use_is_protected(ready: Kubernetes, installation: Path, cluster: Cluster) -> None:
    result = cluster.run("kubectl", "delete", "-k", installation, "--wait=false", check=False)
    assert result.returncode != 0
    assert "Kaito is in use" in result.stderr
    assert ready.condition(NAME, "WorkspaceReady")["status"] == "True"


def test_deleted_workspace_leaves_nothing(ready: Kubernetes) -> None:
    ready.delete("workspace", NAME)
    # The pod ends after the Workspace: a model server finishes its requests first.
    ready.until("the end of workload and pods", lambda: ready.items("statefulsets,pods") == [], 120)
    assert [item["metadata"]["name"] for item in ready.items("services")] == ["kubernetes"]


def test_namespace_with_pod_security_restricted(ready: Kubernetes, cluster: Cluster) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    ready.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "restricted", "labels": labels}})
    other = Kubernetes(cluster, "restricted")
    try:
        other.apply(document("phi"))
        other.until_condition("phi", "WorkspaceReady", seconds=READY_SECONDS)
        assert "Paris" in answer(other, "phi")
    finally:
        other.delete("workspace", "phi")
        ready.delete("namespace", "restricted")


def trust(kubernetes: Kubernetes, cluster: Cluster) -> dict[str, Any]:
    """Returns podOptions with which the pods trust the registry."""
    authority = (cluster.layout.certificates / "ca.crt").read_text()
    metadata = {"name": "registry-authority"}
    kubernetes.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ca.crt": authority}})
    return {
        "env": [{"name": "SSL_CERT_FILE", "value": "/etc/registry/ca.crt"}],
        "volumes": [{"name": "authority", "configMap": metadata}],
        "volumeMounts": [{"name": "authority", "mountPath": "/etc/registry", "readOnly": True}],
    }


def test_init_container_pulls_weights_from_a_registry_with_a_private_authority(
    ready: Kubernetes, cluster: Cluster
) -> None:
    ready.apply(document("pulled", presetOptions={"weights": {"source": "Pull"}}, podOptions=trust(ready, cluster)))
    try:
        seconds = ready.until_condition("pulled", "WorkspaceReady", seconds=READY_SECONDS)
        say(f"weights pulled by an init container: WorkspaceReady after {seconds:.0f} s")
        assert not any("image" in volume for volume in pod_spec(ready, "pulled")["volumes"])
        assert "Paris" in answer(ready, "pulled")
    finally:
        ready.delete("workspace", "pulled")


def test_second_pod_finds_the_weights_in_the_node_cache(ready: Kubernetes, cluster: Cluster) -> None:
    runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "plain"}, "handler": "runc"}
    ready.apply(runtime)
    options = trust(ready, cluster) | {"runtimeClassName": "plain"}
    ready.apply(document("cached", presetOptions={"weights": {"source": "NodeCache"}}, podOptions=options))
    try:
        seconds = ready.until_condition("cached", "WorkspaceReady", seconds=READY_SECONDS)
        say(f"weights pulled into the node cache: WorkspaceReady after {seconds:.0f} s")
        assert pod_spec(ready, "cached")["runtimeClassName"] == "plain"
        pod = ready.uid("pod", "cached-0")
        cluster.processes.stop("registry")  # nothing can be transferred
        try:
            ready.delete("pod", "cached-0")
            ready.until("a new pod", lambda: ready.uid("pod", "cached-0") not in {"", pod}, 60)
            seconds = ready.until("its container", lambda: ready.is_pod_ready("cached-0"), 300)
        finally:
            cluster.up()
        say(f"second pod with the node cache ready after {seconds:.0f} s, without a registry")
        assert "Paris" in answer(ready, "cached")
    finally:
        ready.delete("workspace", "cached")
        ready.delete("runtimeclass", "plain")


def test_missing_runtime_class_is_reported(ready: Kubernetes) -> None:
    ready.apply(document("no-runtime", podOptions={"runtimeClassName": "missing"}))
    try:
        ready.until(
            "the cause in ResourceReady",
            lambda: (
                "RuntimeClass 'missing' does not exist"
                in ready.condition("no-runtime", "ResourceReady").get("message", "")
            ),
            120,
        )
    finally:
        ready.delete("workspace", "no-runtime")
