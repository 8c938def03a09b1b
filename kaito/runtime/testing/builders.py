"""Objects that tests need over and over: nodes and pods as a healthy cluster has them."""

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
    """A node that has joined the cluster.

    Args:
        name: its name, also its `kubernetes.io/hostname` label.
        labels: further labels.
        capacity: resources by name, for example `{"nvidia.com/gpu": "2"}`, on top of CPU, memory and pods.
        ready: whether the kubelet reports Ready.
        provider_id: the cloud's id of the machine.
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
    """A scheduled pod with its containers running.

    Args:
        name: its name.
        namespace: its namespace.
        labels: its labels.
        node_name: the node it runs on.
        ready: whether its containers are ready.
        owner: the controller it belongs to; must have a UID.
        containers: names of its containers.
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
