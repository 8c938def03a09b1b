"""Builds the two Services of an inference Workspace: one for clients, and a headless one for the pods' DNS names."""

from kaito.api import Workspace, labels
from kaito.runtime.kinds import Service, ServicePort, ServiceSpec
from kaito.runtime.meta import ObjectMeta
from kaito.workspace.ownership import pod_labels

SERVER_PORT = 5000
"""Port of the inference servers, as in upstream Kaito."""
TORCH_PORT = 29500
"""Rendezvous port of torch.distributed, as in upstream Kaito."""


def headless_name(workspace: Workspace) -> str:
    """Returns the name of the Service that gives the pods their DNS names."""
    return f"{workspace.name}-headless"


def services(workspace: Workspace, *, leaders_only: bool = False) -> tuple[Service, ...]:
    """Returns the Services of a Workspace in the order in which they are applied; none for tuning."""
    if workspace.inference is None:
        return ()
    return client_service(workspace, leaders_only=leaders_only), headless_service(workspace)


def copy_labels(workspace: Workspace, *, leaders_only: bool) -> dict[str, str]:
    """Returns the labels of the pods that answer requests, one for each copy of the model."""
    return {**pod_labels(workspace), **({labels.GROUP_ROLE: labels.LEADER} if leaders_only else {})}


def client_service(workspace: Workspace, *, leaders_only: bool = False) -> Service:
    """Returns the Service for clients: port 80 for the server, port 29500 for torch.

    Every ready pod is an endpoint, because each serves the whole model. With `leaders_only`, for copies that are
    divided over several nodes, the leaders are. Then, and with a load balancer (annotation `kaito.sh/enablelb`), the
    Service has only port 80: the other port is for the pods.
    """
    public = labels.is_true(workspace.annotations.get(labels.ENABLE_LOAD_BALANCER))
    selector = copy_labels(workspace, leaders_only=leaders_only)
    ports = [ServicePort(name="http", port=80, target_port=SERVER_PORT, protocol="TCP")]
    if not public and not leaders_only:
        ports.append(ServicePort(name="torch", port=TORCH_PORT, target_port=TORCH_PORT, protocol="TCP"))
    return Service(
        metadata=ObjectMeta(name=workspace.name, namespace=workspace.namespace, labels=pod_labels(workspace)),
        spec=ServiceSpec(type="LoadBalancer" if public else "ClusterIP", selector=selector, ports=ports),
    )


def headless_service(workspace: Workspace) -> Service:
    """Returns the headless Service. It publishes pods that are not ready, because they connect while they start."""
    return Service(
        metadata=ObjectMeta(name=headless_name(workspace), namespace=workspace.namespace, labels=pod_labels(workspace)),
        spec=ServiceSpec(
            cluster_ip="None",
            selector=pod_labels(workspace),
            ports=[ServicePort(name="torch", port=TORCH_PORT, target_port=TORCH_PORT, protocol="TCP")],
            publish_not_ready_addresses=True,
        ),
    )
