"""The end of an installation: it is protected while a Workspace lives, and leaves nothing."""

from pathlib import Path

from hack.cluster import Cluster
from test.support.real_node import Kubernetes


def test_uninstalled_without_a_trace(controllers: Kubernetes, installation: Path, cluster: Cluster) -> None:
    cluster.kubectl("delete", "-k", installation, "--timeout=180s", timeout_seconds=200)
    webhooks = "validatingwebhookconfigurations,mutatingwebhookconfigurations"
    kinds = f"crd,clusterroles,clusterrolebindings,namespaces,{webhooks}"
    left = controllers.items(kinds, "-l", "kaito.sh/installation=true")
    assert [item["metadata"]["name"] for item in left] == []
