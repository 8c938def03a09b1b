"""Builds Nodes as AKS, kubelet and device plugin write them. Pure functions."""

from datetime import datetime
from typing import Any

from kaito.cloud.azure.simulator.api import MAX_PODS, node_image
from kaito.cloud.azure.simulator.catalog import MIG_SLICES
from kaito.cloud.azure.simulator.pools import Pool
from kaito.cloud.azure.simulator.settings import SimulatorSettings
from kaito.runtime.kinds import Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo, Taint
from kaito.runtime.meta import ObjectMeta, Quantity

UNINITIALIZED = Taint(key="node.cloudprovider.kubernetes.io/uninitialized", value="true", effect="NoSchedule")
NOT_READY = (
    Taint(key="node.kubernetes.io/not-ready", effect="NoSchedule"),
    Taint(key="node.kubernetes.io/not-ready", effect="NoExecute"),
)
UNREACHABLE = (
    Taint(key="node.kubernetes.io/unreachable", effect="NoSchedule"),
    Taint(key="node.kubernetes.io/unreachable", effect="NoExecute"),
)
MEMORY_OVERHEAD = 0.02
"""Part of the memory that firmware and kernel use."""
CPU_RESERVED = 0.02
MEMORY_RESERVED = 0.07
"""Parts that are not allocatable, similar to the reservations of AKS."""
DEFAULT_DISK_GIB = 128
NVIDIA_GPU = "nvidia.com/gpu"
VM_EVENT = "VMEventScheduled"
"""Condition for the Scheduled Events of a virtual machine, and its reason."""
_MORE = "For more information, see https://aka.ms/aks/scheduled-events"


def node_name(pool: Pool, number: int) -> str:
    """The name of a node: that of its virtual machine."""
    return f"{pool.scale_set}{number:06d}"


def provider_id(pool: Pool, number: int, settings: SimulatorSettings, *, lowercase: bool = False) -> str:
    """The providerID of a node.

    Args:
        pool: The node's pool.
        number: The node's number in it.
        settings: Names of subscription and cluster.
        lowercase: Whether the resource group is in lower case, as some versions of AKS write it.
    """
    group = settings.node_resource_group.lower() if lowercase else settings.node_resource_group
    return (
        f"azure:///subscriptions/{settings.subscription_id}/resourceGroups/{group}/providers/Microsoft.Compute"
        f"/virtualMachineScaleSets/{pool.scale_set}/virtualMachines/{number}"
    )


def registered(name: str, pool: Pool, settings: SimulatorSettings) -> Node:
    """The Node that the kubelet registers: with labels and taints of the pool, without providerID, not Ready."""
    texts: list[str] = pool.properties.get("nodeTaints") or []
    taints = [_taint(text) for text in texts]
    return Node(
        metadata=ObjectMeta(name=name, labels=_labels(name, pool, settings)),
        spec=NodeSpec(taints=[*taints, UNINITIALIZED, *NOT_READY]),
    )


def with_provider_id(node: Node, provider_id: str) -> Node:
    """The Node after the cloud node manager has set its providerID and removed the taint for that."""
    taints = [taint for taint in node.spec.taints if taint.key != UNINITIALIZED.key]
    return node.evolve(spec=node.spec.evolve(provider_id=provider_id, taints=taints))


def with_readiness_taints(node: Node, *, ready: bool, gpus: int) -> Node:
    """The Node with the taints of the node controller and the label of the device plugin after a kubelet report."""
    managed = {taint.key for taint in (*NOT_READY, *UNREACHABLE)}
    taints = [taint for taint in node.spec.taints if taint.key not in managed]
    if not ready:
        taints += NOT_READY
    labels = dict(node.labels) | ({"accelerator": "nvidia"} if gpus else {})
    if _same(taints, node.spec.taints) and labels == node.labels:
        return node
    return node.evolve(spec=node.spec.evolve(taints=taints), metadata=node.metadata.evolve(labels=labels))


def with_unreachable_taint(node: Node) -> Node:
    """The Node with the taints of the node controller after missing heartbeats."""
    taints = [taint for taint in node.spec.taints if taint.key != UNREACHABLE[0].key]
    return node.evolve(spec=node.spec.evolve(taints=[*taints, *UNREACHABLE]))


def gpu_resource(pool: Pool, settings: SimulatorSettings) -> str:
    """The extended resource under which the device plugin registers the GPUs of a node, or slices of them."""
    if not pool.gpu_profile or settings.mig_strategy == "single":
        return NVIDIA_GPU
    return f"nvidia.com/mig-{pool.size.mig[list(MIG_SLICES).index(pool.gpu_profile)]}"


def reporting(node: Node, pool: Pool, *, ready: bool, gpus: int, now: datetime, resource: str = NVIDIA_GPU) -> Node:
    """The Node with the status that the kubelet reports: conditions, capacity and allocatable.

    Args:
        node: The Node.
        pool: Its pool.
        ready: Whether it is Ready.
        gpus: Number of registered GPUs, or slices of them.
        now: The time of the report.
        resource: The extended resource under which they are registered.
    """
    conditions = [
        _condition(node, "MemoryPressure", "False", "KubeletHasSufficientMemory", now),
        _condition(node, "DiskPressure", "False", "KubeletHasNoDiskPressure", now),
        _condition(node, "PIDPressure", "False", "KubeletHasSufficientPID", now),
        _condition(node, "Ready", "True", "KubeletReady", now)
        if ready
        else _condition(node, "Ready", "False", "KubeletNotReady", now),
    ]
    capacity = _capacity(pool, resource, gpus)
    return node.evolve(
        status=NodeStatus(
            capacity=capacity,
            allocatable=_allocatable(capacity),
            conditions=conditions,
            addresses=[NodeAddress(type="Hostname", address=node.name)],
            node_info=_system(pool),
        )
    )


def with_eviction_notice(node: Node, at: datetime, now: datetime) -> Node:
    """The Node with the condition of the node problem detector of AKS before an eviction at that time."""
    others = [condition for condition in node.status.conditions if condition.type != VM_EVENT]
    notice = _condition(node, VM_EVENT, "True", VM_EVENT, now)
    notice = notice.evolve(message=f"Preempt Scheduled: {at:%a, %d %b %Y %H:%M:%S} GMT. {_MORE}")
    return node.evolve(status=node.status.evolve(conditions=[*others, notice]))


def unknown(node: Node, now: datetime) -> Node:
    """The Node with all conditions Unknown, after missing heartbeats."""
    conditions = [
        _condition(node, condition.type, "Unknown", "NodeStatusUnknown", now) for condition in node.status.conditions
    ]
    return node.evolve(status=node.status.evolve(conditions=conditions))


def _labels(name: str, pool: Pool, settings: SimulatorSettings) -> dict[str, str]:
    pool_labels: dict[str, str] = dict(pool.properties.get("nodeLabels") or {})
    zones: list[Any] = list(pool.properties.get("availabilityZones") or [])
    accelerator = {"kubernetes.azure.com/accelerator": "nvidia"} if pool.size.gpus else {}
    return {
        **pool_labels,
        **accelerator,
        "agentpool": pool.name,
        "kubernetes.azure.com/agentpool": pool.name,
        "kubernetes.azure.com/cluster": settings.node_resource_group,
        "kubernetes.azure.com/mode": "user",
        "kubernetes.azure.com/role": "agent",
        "kubernetes.azure.com/managedby": "aks",
        "kubernetes.azure.com/priority": "spot" if pool.spot else "regular",
        "kubernetes.azure.com/node-image-version": node_image(pool),
        "kubernetes.azure.com/os-sku": str(pool.properties.get("osSKU", "Ubuntu")),
        "kubernetes.azure.com/nodepool-type": "VirtualMachineScaleSets",
        "kubernetes.io/hostname": name,
        "kubernetes.io/arch": "arm64" if pool.size.architecture == "Arm64" else "amd64",
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": pool.size.name,
        "beta.kubernetes.io/instance-type": pool.size.name,
        "topology.kubernetes.io/region": settings.location,
        "topology.kubernetes.io/zone": f"{settings.location}-{zones[0]}" if zones else "0",
    }


def _taint(text: str) -> Taint:
    """Parses `key=value:effect`, the format of `nodeTaints`."""
    pair, _, effect = text.rpartition(":")
    key, _, value = pair.partition("=")
    return Taint(key=key, value=value, effect=effect) if value else Taint(key=key, effect=effect)


def _capacity(pool: Pool, resource: str, gpus: int) -> dict[str, Quantity]:
    memory_kib = int(pool.size.memory_gib * (1 - MEMORY_OVERHEAD) * 2**20)
    disk = int(pool.properties.get("osDiskSizeGB") or DEFAULT_DISK_GIB)
    amounts = {
        "cpu": Quantity(str(pool.size.vcpus)),
        "memory": Quantity(f"{memory_kib}Ki"),
        "ephemeral-storage": Quantity(f"{disk}Gi"),
        "pods": Quantity(str(pool.properties.get("maxPods") or MAX_PODS)),
    }
    return amounts | ({resource: Quantity(str(gpus))} if gpus else {})


def _allocatable(capacity: dict[str, Quantity]) -> dict[str, Quantity]:
    milli = int(capacity["cpu"].milli * (1 - CPU_RESERVED))
    memory_kib = int(int(capacity["memory"]) * (1 - MEMORY_RESERVED) / 1024)
    return capacity | {"cpu": Quantity(f"{milli}m"), "memory": Quantity(f"{memory_kib}Ki")}


def _system(pool: Pool) -> NodeSystemInfo:
    azure_linux = pool.properties.get("osSKU") == "AzureLinux"
    return NodeSystemInfo(
        os_image="Microsoft Azure Linux 3.0" if azure_linux else "Ubuntu 22.04.5 LTS",
        operating_system="linux",
        architecture="arm64" if pool.size.architecture == "Arm64" else "amd64",
        container_runtime_version="containerd://1.7.27",
        kubelet_version=f"v{pool.properties.get('orchestratorVersion', '1.33.2')}",
        kernel_version="5.15.0-1089-azure",
        kube_proxy_version="",
        machine_id=pool.uid,
        boot_id=pool.uid,
        system_uuid=pool.uid,
    )


def _condition(node: Node, kind: str, status: str, reason: str, now: datetime) -> NodeCondition:
    old = node.condition(kind)
    since = old.last_transition_time if old is not None and old.status == status else now
    return NodeCondition(
        type=kind,
        status=status,
        reason=reason,
        message="",
        last_heartbeat_time=now,
        last_transition_time=since or now,
    )


def _same(left: list[Taint], right: list[Taint]) -> bool:
    def identity(taint: Taint) -> tuple[str, str, str]:
        return taint.key, taint.value or "", taint.effect

    return sorted(map(identity, left)) == sorted(map(identity, right))
