"""From a Workspace to its own node: both controllers from their charts, agent pools of the simulator, a real kubelet.

The controllers run on a system node. The other node of the cluster leaves first and joins again as the instance of the
agent pool that gpu-provisioner creates.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.cluster import Cluster, agent_pools
from hack.generate import dashboard
from test.node.conftest import say
from test.node.test_charts import CHART as WORKSPACE_CHART
from test.node.test_installation import is_admitted
from test.node.test_serving import READY_SECONDS, answer
from test.support import prometheus
from test.support.node_images import build_and_push, refresh
from test.support.prometheus import Prometheus
from test.support.real_node import MODELS, PREFIX, ROOT, SYSTEM, Kubernetes

SAMPLE = ROOT / "config" / "samples" / "workspace-phi-3-mini.yaml"
NAME = "workspace-phi-3-mini"
SIZE = "Standard_NC6s_v3"
PROVISIONER_CHART = ROOT / "charts" / "gpu-provisioner"
CLAIMS = {"machine": "machines.karpenter.sh", "nodeclaim": "nodeclaims.karpenter.sh"}
HELM_SECONDS = 400
WITHOUT_DATA = (
    "vllm:",
    "kaito_gpu_memory",
    "kaito_orphan",
    "failures",
    "errors",
    "refused",
    "throttled",
    "panics",
    "queue_oldest",
)
"""Metrics that do not exist here: of vLLM, GPUs, failures and claims without a Workspace, and of a queue that is empty
whenever it is read."""

WORKSPACE_VALUES = {
    "image": {"repository": f"{PREFIX}/workspace-controller"},
    "imageRegistry": PREFIX,
    "modelRegistry": MODELS,
}
PROVISIONER_VALUES = {
    "settings": {
        "azure": {
            "subscriptionId": "00000000-0000-0000-0000-000000000000",
            "resourceGroup": "kaito",
            "clusterName": "kaito",
            "location": "eastus",
        }
    },
    "controller": {
        "image": {"repository": f"{PREFIX}/gpu-provisioner"},
        "extraArgs": [f"--arm-endpoint={agent_pools.URL}", "--azure-credential=fake"],
    },
}


@dataclass(frozen=True)
class Installation:
    """Both releases, the simulator that gpu-provisioner calls, and Prometheus."""

    cluster: Cluster
    kubernetes: Kubernetes
    helm: str
    folder: Path
    prometheus: Prometheus

    def install(self, release: str, chart: Path, values: object, *words: str) -> None:
        """Installs or upgrades a release and waits for it."""
        path = self.folder / f"{release}.yaml"
        path.write_text(yaml.safe_dump(values))
        command = (self.helm, "upgrade", "--install", release, chart, "--namespace", SYSTEM, "--values", path)
        self.cluster.run(*command, *words, "--wait", "--timeout", "300s", timeout_seconds=HELM_SECONDS)

    def pools(self) -> list[dict[str, Any]]:
        """Returns the agent pools of the simulated AKS cluster."""
        found: list[dict[str, Any]] = json.loads(self.cluster.run("curl", "-sf", agent_pools.STATE).stdout)["pools"]
        return found

    def nodes(self) -> list[str]:
        """Returns the names of the nodes besides the system node."""
        names = [item["metadata"]["name"] for item in self.kubernetes.items("nodes")]
        return [name for name in names if name != self.cluster.layout.system.node_name]


@pytest.fixture(scope="module")
def installation_from_charts(
    cluster: Cluster, helm: str, serving_image: None, model: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """Both controllers on a system node; no other node."""
    kubernetes = Kubernetes(cluster)
    controllers = ["workspace-controller", "gpu-provisioner"]
    build_and_push(cluster, controllers, say)
    cluster.leave()
    cluster.kubectl("delete", "node", cluster.layout.node_name, "--ignore-not-found")
    cluster.join_system_node()
    for name in controllers:
        refresh(cluster, name, say, node=cluster.layout.system.node_name)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubernetes.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": labels}})
    try:
        agent_pools.start(cluster)
        observer = prometheus.start(cluster)
        found = Installation(cluster, kubernetes, helm, tmp_path_factory.mktemp("helm"), observer)
        found.install("gpu-provisioner", PROVISIONER_CHART, PROVISIONER_VALUES)
        found.install("workspace-controller", WORKSPACE_CHART, WORKSPACE_VALUES)
        kubernetes.until("admission", lambda: is_admitted(kubernetes, instanceType=SIZE), 90)
        yield found
    finally:
        prometheus.stop(cluster)
        agent_pools.stop(cluster)
        cluster.leave_system_node()


@pytest.fixture(scope="module", params=list(CLAIMS))
def node_api(request: pytest.FixtureRequest, installation_from_charts: Installation) -> str:
    """The kind of claims that the workspace controller creates."""
    name: str = request.param
    release = ("workspace-controller", WORKSPACE_CHART, WORKSPACE_VALUES)
    installation_from_charts.install(*release, "--set", f"nodeApi={name}")
    kubernetes = installation_from_charts.kubernetes
    kubernetes.until("admission", lambda: is_admitted(kubernetes, instanceType=SIZE), 90)
    return name


def test_sample_workspace_gets_its_own_node_and_answers(installation_from_charts: Installation, node_api: str) -> None:
    kubernetes = installation_from_charts.kubernetes
    assert installation_from_charts.nodes() == []
    kubernetes.apply(yaml.safe_load(SAMPLE.read_text()))
    seconds = kubernetes.until_condition(NAME, "WorkspaceReady", seconds=READY_SECONDS)
    say(f"{node_api}: WorkspaceReady after {seconds:.0f} s, agent pool and node included")
    assert kubernetes.get("workspace", NAME)["status"]["workerNodes"] == installation_from_charts.nodes()
    assert "Paris" in answer(kubernetes, NAME)


def test_claim_pool_node_and_pod_belong_together(installation_from_charts: Installation, node_api: str) -> None:
    kubernetes = installation_from_charts.kubernetes
    (claim,) = kubernetes.items(CLAIMS[node_api])
    (pool,) = installation_from_charts.pools()
    (name,) = installation_from_charts.nodes()
    node = kubernetes.get("node", name)
    assert (pool["name"], pool["state"], pool["vmSize"]) == (claim["metadata"]["name"], "Succeeded", SIZE)
    assert pool["nodeLabels"].items() <= node["metadata"]["labels"].items()
    assert {"key": "sku", "value": "gpu", "effect": "NoSchedule"} in node["spec"]["taints"]
    assert claim["status"]["nodeName"] == name
    assert claim["status"]["providerID"] == node["spec"]["providerID"]
    ready = next(condition for condition in claim["status"]["conditions"] if condition["type"] == "Ready")
    assert ready["status"] == "True"
    assert kubernetes.get("pod", f"{NAME}-0")["spec"]["nodeName"] == name


def test_deleted_workspace_leaves_no_claim_pool_or_node(installation_from_charts: Installation, node_api: str) -> None:
    kubernetes = installation_from_charts.kubernetes
    kubernetes.delete("workspace", NAME)
    kubernetes.until("the end of the claim", lambda: kubernetes.items(CLAIMS[node_api]) == [], 180)
    assert installation_from_charts.pools() == []
    assert installation_from_charts.nodes() == []
    kubernetes.until("the end of workload and pods", lambda: kubernetes.items("pods,statefulsets") == [], 60)


def test_prometheus_scrapes_every_replica_and_the_model(installation_from_charts: Installation) -> None:
    observer = installation_from_charts.prometheus
    pods = {
        program: {labels["pod"] for labels in observer.labels_with_data(f'up{{pod=~"{program}-.*"}} == 1')}
        for program in ("workspace-controller", "gpu-provisioner", NAME)
    }
    assert len(pods["workspace-controller"]) >= 2
    assert len(pods["gpu-provisioner"]) >= 2
    assert pods[NAME] == {f"{NAME}-0"}


def test_every_panel_of_the_dashboard_has_data(installation_from_charts: Installation) -> None:
    observer = installation_from_charts.prometheus
    empty = [text for text in dashboard.expressions() if not observer.labels_with_data(text)]
    assert [text for text in empty if not any(part in text for part in WITHOUT_DATA)] == []


def test_alerts_are_loaded_and_one_noticed_the_pending_workspace(installation_from_charts: Installation) -> None:
    observer = installation_from_charts.prometheus
    rules = observer.rules()
    assert len(rules) > 10
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}
    pending = observer.labels_with_data('ALERTS{alertname="KaitoWorkspacePending", alertstate="pending"}')
    assert {(labels["namespace"], labels["name"]) for labels in pending} == {("default", NAME)}
    assert [labels["alertname"] for labels in observer.labels_with_data('ALERTS{alertstate="firing"}')] == []


def test_releases_are_uninstalled(installation_from_charts: Installation) -> None:
    kubernetes, cluster = installation_from_charts.kubernetes, installation_from_charts.cluster
    for release in ("workspace-controller", "gpu-provisioner"):
        command = (installation_from_charts.helm, "uninstall", release, "--namespace", SYSTEM, "--wait")

        def is_uninstalled(command: tuple[str, ...] = command) -> bool:
            return cluster.run(*command, check=False, timeout_seconds=HELM_SECONDS).returncode == 0

        # The protection of an installation in use ends a few seconds after the last Workspace.
        kubernetes.until(f"the uninstallation of {release}", is_uninstalled, 120)
    kinds = "deployments,clusterroles,clusterrolebindings,validatingwebhookconfigurations,mutatingwebhookconfigurations"
    assert kubernetes.items(kinds, "-A", "-l", "kaito.sh/installation=true") == []
