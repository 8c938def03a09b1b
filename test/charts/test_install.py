"""The charts on a real kube-apiserver: install, upgrade, rollback, uninstall, and taking over from kustomize."""

import base64
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.envtest import ControlPlane
from kaito.workspace.in_use_policy import binding, policy
from test.charts.rendering import CHARTS, NAMES, NAMESPACE, ROOT, helm

CONTROLLER, PROVISIONER = NAMES
AZURE = [f"--set=settings.azure.{name}=x" for name in ("subscriptionId", "resourceGroup", "clusterName")]
WEBHOOK = "validatingwebhookconfiguration/validation.workspace.kaito.sh"
pytestmark = pytest.mark.timeout(300)


class Cluster:
    """kubectl and helm on one control plane."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def kubectl(self, *arguments: str) -> str:
        command = ["kubectl", f"--kubeconfig={self.kubeconfig}", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{' '.join(arguments)}: {result.stderr}"
        return result.stdout

    def kubectl_fails(self, *arguments: str) -> str:
        command = ["kubectl", f"--kubeconfig={self.kubeconfig}", f"--namespace={NAMESPACE}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    def get(self, what: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", what, f"--namespace={NAMESPACE}", "-o=json"))
        return found

    def helm(self, *arguments: str | Path, check: bool = True) -> str:
        result = helm(*arguments, f"--kubeconfig={self.kubeconfig}", f"--namespace={NAMESPACE}", check=check)
        return result.stdout + result.stderr


def until(condition: Callable[[], bool]) -> None:
    """Waits, since the API server reads its policies with a delay."""
    for _ in range(100):
        if condition():
            return
        time.sleep(0.2)
    raise AssertionError("the API server did not change its answer within 20 s")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Each test has an API server of its own, since the deletion of CRDs sometimes takes longer than a start."""
    with ControlPlane() as control_plane:
        found = Cluster(control_plane.kubeconfig)
        found.kubectl("create", "namespace", NAMESPACE)
        yield found


def test_install_upgrade_rollback_and_uninstall(cluster: Cluster) -> None:
    cluster.helm("install", PROVISIONER, CHARTS / PROVISIONER, *AZURE)
    notes = cluster.helm("install", CONTROLLER, CHARTS / CONTROLLER)
    assert "kubectl delete inferencesets,workspaces --all --all-namespaces" in notes
    assert "kubectl delete crd workspaces.kaito.sh" in notes
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")

    bundle = base64.b64encode(b"written by the controller").decode()
    patch = [{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]
    cluster.kubectl("patch", WEBHOOK, "--type=json", f"--patch={json.dumps(patch)}")
    # an older CRD, as an earlier version would have installed it
    versions = [{"op": "remove", "path": "/spec/names/shortNames"}]
    cluster.kubectl("patch", "crd/workspaces.kaito.sh", "--type=json", f"--patch={json.dumps(versions)}")

    cluster.helm("upgrade", CONTROLLER, CHARTS / CONTROLLER, "--set=replicaCount=1,webhook.timeoutSeconds=9")
    assert cluster.get(f"deployment/{CONTROLLER}")["spec"]["replicas"] == 1
    webhook = cluster.get(WEBHOOK)["webhooks"][0]
    assert webhook["timeoutSeconds"] == 9
    assert webhook["clientConfig"]["caBundle"] == bundle, "an upgrade leaves the CA bundle of the controller"
    assert cluster.get("crd/workspaces.kaito.sh")["spec"]["names"]["shortNames"] == ["wk", "wks"]

    cluster.helm("rollback", CONTROLLER, "1")
    assert cluster.get(f"deployment/{CONTROLLER}")["spec"]["replicas"] == 2
    assert cluster.get(WEBHOOK)["webhooks"][0]["clientConfig"]["caBundle"] == bundle

    for name in NAMES:
        cluster.helm("uninstall", name)
    kept = cluster.kubectl("get", "crd", "--output=name").split()
    assert [name.partition("/")[2] for name in kept] == [
        "inferencesets.kaito.sh", "machines.karpenter.sh", "nodeclaims.karpenter.sh", "workspaces.kaito.sh"
    ]  # fmt: skip
    marked = "deployments,services,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets,configmaps"
    assert cluster.kubectl("get", marked, f"--namespace={NAMESPACE}", "-l=kaito.sh/installation", "-o=name") == ""
    assert cluster.kubectl("get", "clusterroles,clusterrolebindings", "-l=kaito.sh/installation", "-o=name") == ""

    cluster.helm("install", CONTROLLER, CHARTS / CONTROLLER)  # over the CRD that was kept


def test_an_installation_in_use_is_not_uninstalled(cluster: Cluster) -> None:
    cluster.helm("install", CONTROLLER, CHARTS / CONTROLLER)
    for obj in (policy(NAMESPACE), binding()):
        text = json.dumps(obj.to_dict())
        command = ["kubectl", f"--kubeconfig={cluster.kubeconfig}", "apply", "--server-side", "-f", "-"]
        subprocess.run(command, input=text, text=True, check=True, capture_output=True)
    until(lambda: "Kaito is in use" in cluster.kubectl_fails("delete", f"deployment/{CONTROLLER}", "--dry-run=server"))
    assert "Kaito is in use" in cluster.helm("uninstall", CONTROLLER, "--debug", check=False)
    assert cluster.get(f"deployment/{CONTROLLER}")["spec"]["replicas"] == 2
    assert cluster.get("clusterrole/workspace-controller")["rules"]

    cluster.kubectl("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", "kaito-in-use")
    probe = ("delete", f"deployment/{CONTROLLER}", "--dry-run=server")
    until(lambda: "Kaito is in use" not in cluster.kubectl_fails(*probe))
    cluster.helm("uninstall", CONTROLLER)


def test_an_installation_by_kustomize_is_taken_over(cluster: Cluster) -> None:
    cluster.kubectl("apply", "--server-side", f"--kustomize={ROOT / 'config' / 'default'}")
    refused = cluster.helm("install", CONTROLLER, CHARTS / CONTROLLER, check=False)
    assert "invalid ownership metadata" in refused
    cluster.helm("install", CONTROLLER, CHARTS / CONTROLLER, "--take-ownership")
    cluster.helm("install", PROVISIONER, CHARTS / PROVISIONER, "--take-ownership", *AZURE)
    labels = cluster.get(f"deployment/{CONTROLLER}")["metadata"]["labels"]
    assert labels["app.kubernetes.io/managed-by"] == "Helm"
