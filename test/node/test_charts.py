"""The chart of workspace-controller on a real node: install, upgrade, roll back, uninstall."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from hack.cluster import Cluster
from test.node.conftest import say
from test.node.test_installation import is_admitted
from test.support.node_images import build_and_push
from test.support.real_node import MODELS, PREFIX, ROOT, SYSTEM, Kubernetes

RELEASE = "workspace-controller"
CHART = ROOT / "charts" / RELEASE


@pytest.fixture(scope="module")
def values(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    build_and_push(cluster, [RELEASE], say)
    path = tmp_path_factory.mktemp("helm") / "values.yaml"
    document = {
        "nodeApi": "byo",
        "image": {"repository": f"{PREFIX}/{RELEASE}"},
        "imageRegistry": PREFIX,
        "modelRegistry": MODELS,
    }
    path.write_text(yaml.safe_dump(document))
    return path


def run(cluster: Cluster, helm: str, *words: str | Path) -> str:
    return cluster.run(helm, *words, "--namespace", SYSTEM, timeout_seconds=400).stdout


def names(kubernetes: Kubernetes, *words: str) -> Sequence[str]:
    return [item["metadata"]["name"] for item in kubernetes.items(*words)]


def test_chart_is_installed(cluster: Cluster, kubernetes: Kubernetes, helm: str, values: Path) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubernetes.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": labels}})
    run(cluster, helm, "install", RELEASE, CHART, "--values", values, "--wait", "--timeout", "300s")
    kubernetes.until("admission", lambda: is_admitted(kubernetes), 90)


def test_release_is_upgraded_and_rolled_back(cluster: Cluster, kubernetes: Kubernetes, helm: str, values: Path) -> None:
    change = ("--set", "replicaCount=1", "--wait", "--timeout", "300s")
    run(cluster, helm, "upgrade", RELEASE, CHART, "--values", values, *change)
    assert kubernetes.get("deployment", RELEASE, "-n", SYSTEM)["spec"]["replicas"] == 1
    run(cluster, helm, "rollback", RELEASE, "1", "--wait", "--timeout", "300s")
    assert kubernetes.get("deployment", RELEASE, "-n", SYSTEM)["spec"]["replicas"] == 2
    kubernetes.until("admission", lambda: is_admitted(kubernetes), 90)


def test_release_is_uninstalled(cluster: Cluster, kubernetes: Kubernetes, helm: str) -> None:
    run(cluster, helm, "uninstall", RELEASE, "--wait", "--timeout", "200s")
    assert names(kubernetes, "deployments,services,serviceaccounts", "-n", SYSTEM) == ["default"]
    assert names(kubernetes, "validatingwebhookconfigurations,mutatingwebhookconfigurations") == []
    # The CRD stays: deleting it would delete all Workspaces.
    assert "workspaces.kaito.sh" in names(kubernetes, "crds")
    kubernetes.delete("namespace", SYSTEM)
    kubernetes.delete("crd", "workspaces.kaito.sh")
