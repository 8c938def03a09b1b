"""What operators do to a running installation, and what fails under it: upgrade, rollback, drain, killed processes."""

import subprocess
from pathlib import Path

import pytest

from hack.cluster import Cluster
from test.node.conftest import say
from test.node.test_serving import NAME, READY_SECONDS, answer, document
from test.support.real_node import SYSTEM, Kubernetes, leader, leader_identity

DEPLOYMENT = "deployment/workspace-controller"


@pytest.fixture(scope="module")
def serving(cluster: Cluster, installation: Path, serving_image: None, model: str) -> Kubernetes:
    """A Workspace that answers."""
    kubernetes = Kubernetes(cluster)
    cluster.kubectl("label", "node", cluster.layout.name, "apps=phi-3", "--overwrite")
    kubernetes.rolled_out("workspace-controller")
    kubernetes.apply(document(NAME))
    kubernetes.until_condition(NAME, "WorkspaceReady", seconds=READY_SECONDS)
    return kubernetes


def image(kubernetes: Kubernetes) -> str:
    found = kubernetes.get(DEPLOYMENT, "-n", SYSTEM)
    return str(found["spec"]["template"]["spec"]["containers"][0]["image"])


def test_upgrade_and_rollback_leave_the_model_pod_alone(serving: Kubernetes, cluster: Cluster) -> None:
    before, pod = image(serving), serving.uid("pod", f"{NAME}-0")
    newer = f"{before.rpartition(':')[0]}:next"
    local = f"docker.io/kaito/{before.rpartition('/')[2]}"
    cluster.run("buildah", "push", "--tls-verify=false", "--disable-compression", local, f"docker://{newer}")
    cluster.kubectl("set", "image", DEPLOYMENT, "-n", SYSTEM, f"controller={newer}")
    serving.rolled_out("workspace-controller")
    assert image(serving) == newer
    cluster.kubectl("rollout", "undo", DEPLOYMENT, "-n", SYSTEM)
    serving.rolled_out("workspace-controller")
    assert image(serving) == before
    serving.until("a leader", lambda: bool(leader(serving)), 60)
    assert serving.uid("pod", f"{NAME}-0") == pod
    assert serving.condition(NAME, "WorkspaceReady")["status"] == "True"


def test_model_answers_while_all_controllers_are_killed(serving: Kubernetes, cluster: Cluster) -> None:
    identity = leader_identity(serving)
    words = ("pods", "-n", SYSTEM, "-l", "app.kubernetes.io/name=workspace-controller")
    # A replica of the rollback before may still be ending.
    serving.until("two controllers", lambda: len(serving.items(*words)) == 2, 90)
    for pod in serving.items(*words):
        cluster.kill_container(SYSTEM, pod["metadata"]["name"], "controller")
    assert "Paris" in answer(serving, NAME)
    serving.rolled_out("workspace-controller")
    serving.until("another leader", lambda: leader_identity(serving) not in {"", identity}, 90)
    assert serving.condition(NAME, "WorkspaceReady")["status"] == "True"


def test_killed_model_server_is_reported_and_recovers(serving: Kubernetes, cluster: Cluster) -> None:
    name = serving.get("pod", f"{NAME}-0")["spec"]["containers"][0]["name"]
    cluster.kill_container("default", f"{NAME}-0", name)
    serving.until_condition(NAME, "InferenceReady", "False", seconds=120)
    say(f"InferenceReady=False: {serving.condition(NAME, 'InferenceReady')['message']}")
    serving.until_condition(NAME, "InferenceReady", "True", seconds=300)
    assert "Paris" in answer(serving, NAME)


def test_drained_node_is_served_again_after_uncordon(serving: Kubernetes, cluster: Cluster) -> None:
    node = cluster.layout.name
    words = ("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s")
    # Of two controllers only one may be evicted at a time, and its replacement has no other node: the budget holds.
    drain = cluster.run("kubectl", *words, "--pod-selector=!app.kubernetes.io/name", check=False, timeout_seconds=150)
    try:
        assert drain.returncode == 0, drain.stderr
        serving.until_condition(NAME, "InferenceReady", "False", seconds=120)
        message = serving.condition(NAME, "InferenceReady")["message"]
        say(f"drained: {message}")
    finally:
        cluster.kubectl("uncordon", node)
    serving.until_condition(NAME, "WorkspaceReady", "True", seconds=READY_SECONDS)
    assert "Paris" in answer(serving, NAME)


def test_cluster_survives_a_restart_of_kubelet_and_containerd(serving: Kubernetes, cluster: Cluster) -> None:
    pod = serving.uid("pod", f"{NAME}-0")
    for process in ("kubelet", "containerd"):
        record = cluster.processes.record(process)
        assert record is not None
        subprocess.run(["kill", "-9", str(record.pid)], check=True)
    cluster.up()
    assert serving.uid("pod", f"{NAME}-0") == pod
    assert "Paris" in answer(serving, NAME)


def test_workspace_is_deleted(serving: Kubernetes) -> None:
    serving.delete("workspace", NAME)
    serving.until("the end of workload and pods", lambda: serving.items("statefulsets,pods") == [], 120)
