"""An installation for existing nodes: manifests, roles, admission, certificates, failures of controllers."""

from pathlib import Path

import yaml

from hack.cluster import Cluster
from test.node.conftest import say
from test.support.real_node import SYSTEM, Kubernetes, leader, leader_identity, workspace

CONTROLLER = "app.kubernetes.io/name=workspace-controller"


def is_admitted(kubernetes: Kubernetes, **resource: object) -> bool:
    """Whether the webhook answers: a valid Workspace passes a dry run."""
    text = yaml.safe_dump(workspace("probe", **resource))
    result = kubernetes.cluster.run("kubectl", "create", "--dry-run=server", "-f", "-", stdin=text, check=False)
    return result.returncode == 0


def restarts(kubernetes: Kubernetes) -> dict[str, int]:
    pods = kubernetes.items("pods", "-n", SYSTEM, "-l", CONTROLLER)
    statuses = {pod["metadata"]["name"]: pod["status"].get("containerStatuses", []) for pod in pods}
    return {name: sum(status["restartCount"] for status in found) for name, found in statuses.items()}


def test_controllers_start_under_pod_security_restricted(controllers: Kubernetes, cluster: Cluster) -> None:
    labels = controllers.get("namespace", SYSTEM)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert list(restarts(controllers).values()) == [0, 0]


def test_manifests_are_applied_again_without_a_conflict(installation: Path, cluster: Cluster) -> None:
    cluster.kubectl("apply", "--server-side", "-k", installation)


def test_instance_type_is_rejected_without_node_provisioning(controllers: Kubernetes) -> None:
    message = controllers.rejection(workspace("bought", instanceType="Standard_NC6s_v3"))
    assert "instanceType" in message


def test_webhook_certificate_is_replaced_after_its_secret_is_deleted(controllers: Kubernetes, cluster: Cluster) -> None:
    def bundle() -> str:
        found = controllers.get("validatingwebhookconfiguration", "validation.workspace.kaito.sh")
        return str(found["webhooks"][0]["clientConfig"].get("caBundle", ""))

    controllers.until("admission", lambda: is_admitted(controllers), 60)
    before = bundle()
    secrets = [
        secret["metadata"]["name"]
        for secret in controllers.items("secrets", "-n", SYSTEM)
        if "tls.crt" in (secret.get("data") or {})
    ]
    assert secrets
    cluster.kubectl("delete", "secret", "-n", SYSTEM, *secrets)
    controllers.until("a new certificate authority", lambda: bundle() not in {"", before}, 60)
    controllers.until("admission with the new certificate", lambda: is_admitted(controllers), 60)
    # Both replicas have to serve it: the Service chooses one at random.
    controllers.until("ten admissions in succession", lambda: all(is_admitted(controllers) for _ in range(10)), 60)


def test_another_process_leads_after_the_leader_is_killed(controllers: Kubernetes, cluster: Cluster) -> None:
    before, identity = leader(controllers), leader_identity(controllers)
    cluster.kill_container(SYSTEM, before, "controller")
    # The other replica, or the restarted container: both wait until the lease expires.
    seconds = controllers.until("another leader", lambda: leader_identity(controllers) not in {"", identity}, 60)
    say(f"new leader after {seconds:.0f} s")
    controllers.rolled_out("workspace-controller")
    assert restarts(controllers)[before] == 1


def test_metrics_are_served(controllers: Kubernetes, cluster: Cluster) -> None:
    pods = controllers.items("pods", "-n", SYSTEM, "-l", CONTROLLER)
    for pod in pods:
        address = pod["status"]["podIP"]
        text = cluster.run("curl", "-sf", f"http://{address}:8080/metrics").stdout
        assert "leader_election_master_status" in text
