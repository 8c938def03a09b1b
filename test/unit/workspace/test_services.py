"""The Services of an inference Workspace, whole: ports, selector, type, DNS of pods that are not ready."""

import pytest

from kaito.api import Workspace
from kaito.workspace.manifests.service import client_service, headless_service

HTTP = {"name": "http", "port": 80, "targetPort": 5000, "protocol": "TCP"}
TORCH = {"name": "torch", "port": 29500, "targetPort": 29500, "protocol": "TCP"}
LABELS = {"kaito.sh/workspace": "workspace-phi-3-mini"}


@pytest.mark.parametrize(
    ("annotation", "kind", "ports"),
    [
        (None, "ClusterIP", [HTTP, TORCH]),
        ("true", "LoadBalancer", [HTTP]),
        ("True", "LoadBalancer", [HTTP]),
        ("false", "ClusterIP", [HTTP, TORCH]),
        ("yes", "ClusterIP", [HTTP, TORCH]),
    ],
)
def test_clients_reach_the_server_on_port_80(
    phi: Workspace, annotation: str | None, kind: str, ports: list[dict[str, object]]
) -> None:
    annotations = {} if annotation is None else {"kaito.sh/enablelb": annotation}
    assert client_service(phi.with_metadata(annotations=annotations)).to_dict() == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "workspace-phi-3-mini", "namespace": "default", "labels": LABELS},
        "spec": {"type": kind, "selector": LABELS, "ports": ports},
    }


def test_pods_find_each_other_before_they_are_ready(phi: Workspace) -> None:
    assert headless_service(phi).to_dict() == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "workspace-phi-3-mini-headless", "namespace": "default", "labels": LABELS},
        "spec": {"clusterIP": "None", "selector": LABELS, "ports": [TORCH], "publishNotReadyAddresses": True},
    }
