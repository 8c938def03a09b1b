"""Evaluates the nodes of a Workspace: which are usable, and what is wrong with the others."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, final

from kaito.api import Workspace, labels
from kaito.models.instance_types import same_size
from kaito.runtime.kinds import Node, Toleration
from kaito.runtime.meta import Quantity
from kaito.workspace.eviction import find_notice
from kaito.workspace.manifests.placement import TOLERATIONS, tolerates
from kaito.workspace.ownership import is_node_of, owner_key, owner_labels
from kaito.workspace.plan import Hardware
from kaito.workspace.settings import NodeApi

_BLOCKING_EFFECTS: Final = frozenset({"NoSchedule", "NoExecute"})
_NONE: Final = Quantity(0)

_DERIVED_TAINTS: Final = frozenset(
    {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable", "node.kubernetes.io/unschedulable"}
)
"""Taints that Kubernetes derives, a moment later, from conditions and fields that are evaluated directly here."""


STABLE_SECONDS: Final = 600.0
"""Time for which a preferred node must be Ready before it replaces a node that was created and that serves."""

MIN_DISK_SHARE: Final = 0.8
"""Share of the planned disk below which a node is reported. A file system and reservations take a part of a disk."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NodesReport:
    """The nodes of one Workspace and their state."""

    wanted: int
    """Number of nodes that the Workspace needs."""
    copies: int | None = None
    """Copies that the usable nodes have the resources for; None unless copies share existing nodes."""
    names: tuple[str, ...] = ()
    """All nodes of the Workspace, sorted."""
    usable: tuple[str, ...] = ()
    """Nodes that are Ready, schedulable, of the right instance type, and advertise their GPUs."""
    ready: frozenset[str] = field(default_factory=frozenset[str])
    """Nodes whose kubelet reports Ready, including cordoned ones: their pods still run."""
    faults: tuple[str, ...] = ()
    """One clause for each node that is unusable for another reason than its GPUs."""
    gpu_faults: tuple[str, ...] = ()
    """One clause for each node that would be usable if it advertised its GPUs."""
    pressures: tuple[str, ...] = ()
    """Nodes that are short of disk, memory or process IDs."""
    small_disks: tuple[str, ...] = ()
    """One clause for each node whose disk is much smaller than planned."""
    by_name: Mapping[str, Node] = field(default_factory=dict[str, Node])
    """The evaluated nodes by name, including those whose labels do not match the Workspace."""

    @property
    def is_sufficient(self) -> bool:
        """Whether enough nodes are usable."""
        return len(self.usable) >= self.wanted


def evaluate_nodes(
    workspace: Workspace,
    hardware: Hardware,
    nodes: Iterable[Node],
    *,
    node_api: NodeApi,
    tolerations: Sequence[Toleration] = TOLERATIONS,
) -> NodesReport:
    """Evaluates the nodes that belong to the Workspace, whose pods have these tolerations."""
    by_name = {node.name: node for node in nodes}
    own = sorted(
        (node for node in by_name.values() if is_node_of(workspace, node, node_api=node_api)),
        key=lambda node: node.name,
    )
    usable: list[str] = []
    faults: list[str] = []
    gpu_faults: list[str] = []
    for node in own:
        fault = _fault(node, hardware, tolerations, any_type=labels.PREFERRED in node.labels)
        gpu_fault = None if fault else _gpu_fault(node, hardware)
        if fault:
            faults.append(f"node {node.name} {fault}")
        elif gpu_fault:
            gpu_faults.append(f"node {node.name} {gpu_fault}")
        else:
            usable.append(node.name)
    return NodesReport(
        wanted=hardware.count_of(usable) if hardware.places else hardware.count,
        copies=sum(hardware.places.get(name, 1) for name in usable) if hardware.places else None,
        names=tuple(node.name for node in own),
        usable=tuple(usable),
        ready=frozenset(node.name for node in own if node.is_ready),
        faults=tuple(faults),
        gpu_faults=tuple(gpu_faults),
        pressures=tuple(filter(None, map(_pressure, own))),
        small_disks=tuple(filter(None, (_small_disk(node, hardware) for node in own))),
        by_name=by_name,
    )


def copies_on(node: Node, requests: Mapping[str, Quantity]) -> int:
    """Returns how many pods with these requests the node has the resources for; 0 if it lacks an extended resource.

    CPU, memory and disk that the node does not report are not considered.
    """
    fits: list[int] = []
    for name, amount in requests.items():
        has = node.status.allocatable.get(name, node.status.capacity.get(name, _NONE if "/" in name else None))
        if amount > _NONE and has is not None:
            fits.append(math.floor(float(has) / float(amount) + 1e-9))
    return min(fits, default=1)


def find_free_preferred_nodes(
    workspace: Workspace,
    hardware: Hardware,
    nodes: Iterable[Node],
    tolerations: Sequence[Toleration] = TOLERATIONS,
) -> list[Node]:
    """Returns the nodes of `preferredNodes` that are usable, match the selector, and belong to no Workspace."""
    position = {name: index for index, name in enumerate(workspace.resource.preferred_nodes)}
    wanted = (node for node in nodes if node.name in position)
    free = [node for node in wanted if _preferred_fault(workspace, hardware, node, tolerations) is None]
    return sorted(free, key=lambda node: position[node.name])


def unused_preferred_nodes(
    workspace: Workspace,
    hardware: Hardware,
    nodes: Iterable[Node],
    tolerations: Sequence[Toleration] = TOLERATIONS,
) -> list[str]:
    """Returns one clause for each node of `preferredNodes` that cannot be used, in their order.

    `nodes` are those of them that exist. Nodes that the Workspace has already are not reported.
    """
    by_name = {node.name: node for node in nodes}
    clauses: list[str] = []
    for name in workspace.resource.preferred_nodes:
        node = by_name.get(name)
        if node is not None and owner_key(node) == workspace.key:
            continue
        fault = "does not exist" if node is None else _preferred_fault(workspace, hardware, node, tolerations)
        if fault is not None:
            clauses.append(f"preferred node {name} {fault}")
    return clauses


def _preferred_fault(
    workspace: Workspace, hardware: Hardware, node: Node, tolerations: Sequence[Toleration]
) -> str | None:
    """Returns why a preferred node that the Workspace does not have cannot be used; None if it can."""
    if not workspace.resource.label_selector.matches(node.labels):
        return "does not match resource.labelSelector"
    owner = owner_key(node)
    if owner is not None:
        return f"is used by Workspace {owner}"
    return _fault(node, hardware, tolerations, any_type=True) or _gpu_fault(node, hardware)


def is_stable(node: Node, now: datetime) -> bool:
    """Whether the node has been Ready for `STABLE_SECONDS`, so that a copy may move to it."""
    ready = node.condition("Ready")
    since = ready.last_transition_time if ready is not None else None
    since = since or node.metadata.creation_timestamp
    return node.is_ready and since is not None and (now - since).total_seconds() >= STABLE_SECONDS


def preferred_node_labels(workspace: Workspace) -> dict[str, str]:
    """Returns the labels that make a preferred node the Workspace's, so that only this Workspace uses it."""
    return {**owner_labels(workspace), labels.PREFERRED: labels.TRUE}


def _fault(node: Node, hardware: Hardware, tolerations: Sequence[Toleration], *, any_type: bool = False) -> str | None:
    """Returns why pods cannot be placed on the node; None if they can."""
    if node.deleting:
        return "is being deleted"
    ready = node.condition("Ready")
    if ready is None:
        return "has not reported its state yet"
    if ready.status != "True":
        detail = ": ".join(filter(None, (ready.reason, ready.message)))
        return f"is not Ready ({detail})" if detail else "is not Ready"
    notice = find_notice(node)
    if notice:
        return f"is evicted by the cloud: {notice}"
    if node.spec.unschedulable:
        return "is cordoned"
    blocking = next(
        (
            taint
            for taint in node.spec.taints
            if taint.effect in _BLOCKING_EFFECTS
            and taint.key not in _DERIVED_TAINTS
            and not tolerates(tolerations, taint)
        ),
        None,
    )
    if blocking is not None:
        return f"has the taint {blocking.key}{f'={blocking.value}' if blocking.value else ''}:{blocking.effect}"
    actual = node.labels.get(labels.INSTANCE_TYPE, "")
    if hardware.instance_type and not any_type and not same_size(actual, hardware.instance_type):
        return f"is of instance type {actual or 'unknown'} instead of {hardware.instance_type}"
    return None


def _gpu_fault(node: Node, hardware: Hardware) -> str | None:
    advertised, wanted = int(node.status.capacity.get(hardware.gpu_resource, _NONE)), hardware.gpus_per_node
    if advertised >= wanted:
        return None
    return f"advertises {advertised} of {wanted} {hardware.gpu_resource} (device plugin missing or starting)"


def _small_disk(node: Node, hardware: Hardware) -> str:
    """Describes a disk that is much smaller than planned; empty if it is not, or its size is unknown.

    gpu-provisioner creates the disk in the planned size; with Karpenter, the node class determines it.
    """
    size = node.status.capacity.get("ephemeral-storage")
    if size is None or float(size) >= MIN_DISK_SHARE * float(hardware.disk):
        return ""
    return f"node {node.name} has {size} of ephemeral-storage, less than the planned disk of {hardware.disk}"


def _pressure(node: Node) -> str:
    found = sorted(c.type for c in node.status.conditions if c.type.endswith("Pressure") and c.status == "True")
    return f"{node.name} ({', '.join(found)})" if found else ""
