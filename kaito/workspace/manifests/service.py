"""The two Services of an inference Workspace: the one clients call, and the headless one pods find each other by."""

from kaito.api import Workspace, labels
from kaito.runtime.kinds import Service, ServicePort, ServiceSpec
from kaito.runtime.meta import ObjectMeta
from kaito.workspace.ownership import pod_labels

SERVER_PORT = 5000
"""Where the inference servers listen, upstream Kaito's port."""
TORCH_PORT = 29500
"""torch.distributed's rendezvous port, part of the founding contract."""


def headless_name(workspace: Workspace) -> str:
    """Name of the Service that gives pods their DNS names."""
    return f"{workspace.name}-headless"


def client_service(workspace: Workspace) -> Service:
    """What clients call: port 80 to the server, 29500 for torch.

    Every ready pod is behind it: each serves the whole model. A load balancer (annotation `kaito.sh/enablelb`) carries
    port 80 alone: the other is for pods among themselves.
    """
    public = labels.is_true(workspace.annotations.get(labels.ENABLE_LOAD_BALANCER))
    ports = [ServicePort(name="http", port=80, target_port=SERVER_PORT, protocol="TCP")]
    if not public:
        ports.append(ServicePort(name="torch", port=TORCH_PORT, target_port=TORCH_PORT, protocol="TCP"))
    return Service(
        metadata=ObjectMeta(name=workspace.name, namespace=workspace.namespace, labels=pod_labels(workspace)),
        spec=ServiceSpec(type="LoadBalancer" if public else "ClusterIP", selector=pod_labels(workspace), ports=ports),
    )


def headless_service(workspace: Workspace) -> Service:
    """DNS names for the pods, published before they are ready: they look for each other while they start."""
    return Service(
        metadata=ObjectMeta(name=headless_name(workspace), namespace=workspace.namespace, labels=pod_labels(workspace)),
        spec=ServiceSpec(
            cluster_ip="None",
            selector=pod_labels(workspace),
            ports=[ServicePort(name="torch", port=TORCH_PORT, target_port=TORCH_PORT, protocol="TCP")],
            publish_not_ready_addresses=True,
        ),
    )
