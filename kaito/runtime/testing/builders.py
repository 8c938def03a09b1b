"""Builds nodes and pods as in a healthy cluster."""

from collections.abc import Mapping

from kaito.runtime.kinds import Container, Node, Pod, PodSpec
from kaito.runtime.meta import ObjectMeta, Resource


def node(
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    capacity: Mapping[str, str] | None = None,
    ready: bool = True,
    provider_id: str = "",
) -> Node:
    """Builds a node that has joined the cluster.

    Args:
        name: Name and `kubernetes.io/hostname` label.
        labels: Additional labels.
        capacity: Resources by name, for example `{"nvidia.com/gpu": "2"}`, in addition to CPU, memory and pods.
        ready: Whether the kubelet reports Ready.
        provider_id: The provider ID of the instance.
    """
    resources = {"cpu": "8", "memory": "64Gi", "pods": "110"} | dict(capacity or {})
    return Node.model_validate(
        {
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name} | dict(labels or {})},
            "spec": {"providerID": provider_id} if provider_id else {},
            "status": {
                "capacity": resources,
                "allocatable": resources,
                "conditions": [
                    {
                        "type": "Ready",
                        "status": "True" if ready else "False",
                        "reason": "KubeletReady" if ready else "KubeletNotReady",
                    }
                ],
            },
        }
    )


def pod(
    name: str,
    namespace: str = "default",
    *,
    labels: Mapping[str, str] | None = None,
    node_name: str = "",
    ready: bool = True,
    owner: Resource | None = None,
    containers: tuple[str, ...] = ("main",),
) -> Pod:
    """Builds a scheduled pod with running containers.

    Args:
        name: Name.
        namespace: Namespace.
        labels: Labels.
        node_name: The node on which it runs.
        ready: Whether its containers are ready.
        owner: The controlling owner, which must have a UID.
        containers: Names of the containers.
    """
    metadata = ObjectMeta(name=name, namespace=namespace, labels=dict(labels or {}))
    if owner is not None:
        metadata = metadata.evolve(owner_references=[owner.owner_reference()])
    spec = PodSpec(containers=[Container(name=container, image="test") for container in containers])
    truth = "True" if ready else "False"
    return Pod.model_validate(
        {
            "metadata": metadata.to_dict(),
            "spec": spec.to_dict() | ({"nodeName": node_name} if node_name else {}),
            "status": {
                "phase": "Running",
                "conditions": [{"type": kind, "status": truth} for kind in ("ContainersReady", "Ready")],
                "containerStatuses": [
                    {
                        "name": container,
                        "image": "test",
                        "imageID": "test",
                        "ready": ready,
                        "restartCount": 0,
                        "state": {"running": {}},
                    }
                    for container in containers
                ],
            },
        }
    )
