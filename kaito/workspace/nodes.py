"""Which nodes a Workspace has, which of them count, and what is wrong with the others, in words."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import final

from kaito.api import Workspace, labels
from kaito.models.instance_types import same_size
from kaito.runtime.kinds import Node
from kaito.runtime.meta import Quantity
from kaito.workspace.manifests.placement import TOLERATIONS, tolerates
from kaito.workspace.ownership import belongs, owner_key
from kaito.workspace.plan import Hardware
from kaito.workspace.settings import NodeApi

_BLOCKING_EFFECTS = frozenset({"NoSchedule", "NoExecute"})
_NONE = Quantity(0)

_MIRRORS = frozenset(
    {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable", "node.kubernetes.io/unschedulable"}
)
"""Taints that Kubernetes derives from what is judged directly here. They come and go a moment later than it."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NodesReport:
    """What the cluster's nodes mean for one Workspace."""

    wanted: int
    """How many nodes it needs."""
    names: tuple[str, ...] = ()
    """Its nodes, sorted, whatever their state."""
    usable: tuple[str, ...] = ()
    """Those that are Ready, take pods, are of the right type, and advertise their GPUs."""
    alive: frozenset[str] = field(default_factory=frozenset[str])
    """Those whose kubelet reports Ready, cordoned ones included: what runs there still runs."""
    faults: tuple[str, ...] = ()
    """One sentence for each node that is not usable, GPUs aside."""
    gpu_faults: tuple[str, ...] = ()
    """One sentence for each node that would be usable if it advertised its GPUs."""
    pressures: tuple[str, ...] = ()
    """Warnings: nodes short of disk, memory or process ids."""

    @property
    def enough(self) -> bool:
        """Whether the workload can be placed."""
        return len(self.usable) >= self.wanted


def report(workspace: Workspace, hardware: Hardware, nodes: Iterable[Node], *, node_api: NodeApi) -> NodesReport:
    """Judge every node that belongs to the Workspace."""
    own = sorted((node for node in nodes if belongs(workspace, node, node_api=node_api)), key=lambda node: node.name)
    usable: list[str] = []
    faults: list[str] = []
    gpu_faults: list[str] = []
    for node in own:
        fault = _fault(node, hardware, any_type=labels.PREFERRED in node.labels)
        missing = None if fault else _missing_gpus(node, hardware)
        if fault:
            faults.append(f"node {node.name} {fault}")
        elif missing:
            gpu_faults.append(f"node {node.name} {missing}")
        else:
            usable.append(node.name)
    return NodesReport(
        wanted=hardware.count,
        names=tuple(node.name for node in own),
        usable=tuple(usable),
        alive=frozenset(node.name for node in own if node.is_ready),
        faults=tuple(faults),
        gpu_faults=tuple(gpu_faults),
        pressures=tuple(filter(None, map(_pressure, own))),
    )


def preferred(workspace: Workspace, hardware: Hardware, nodes: Iterable[Node]) -> list[Node]:
    """Existing nodes named in `preferredNodes` that can be taken: usable, matching, and nobody else's."""
    named = {name: index for index, name in enumerate(workspace.resource.preferred_nodes)}
    fitting = [
        node
        for node in nodes
        if node.name in named
        and workspace.resource.label_selector.matches(node.labels)
        and owner_key(node) is None
        and _fault(node, hardware, any_type=True) is None
        and _missing_gpus(node, hardware) is None
    ]
    return sorted(fitting, key=lambda node: named[node.name])


def _fault(node: Node, hardware: Hardware, *, any_type: bool = False) -> str | None:
    if node.deleting:
        return "is being deleted"
    ready = node.condition("Ready")
    if ready is None:
        return "has not reported its state yet"
    if ready.status != "True":
        detail = ": ".join(filter(None, (ready.reason, ready.message)))
        return f"is not Ready ({detail})" if detail else "is not Ready"
    if node.spec.unschedulable:
        return "is cordoned"
    blocking = next(
        (
            taint
            for taint in node.spec.taints
            if taint.effect in _BLOCKING_EFFECTS and taint.key not in _MIRRORS and not tolerates(TOLERATIONS, taint)
        ),
        None,
    )
    if blocking is not None:
        return f"has the taint {blocking.key}{f'={blocking.value}' if blocking.value else ''}:{blocking.effect}"
    actual = node.labels.get(labels.INSTANCE_TYPE, "")
    if hardware.instance_type and not any_type and not same_size(actual, hardware.instance_type):
        return f"is of instance type {actual or 'unknown'} instead of {hardware.instance_type}"
    return None


def _missing_gpus(node: Node, hardware: Hardware) -> str | None:
    offered = int(node.status.capacity.get(hardware.gpu_resource, _NONE))
    if offered >= hardware.gpus:
        return None
    return f"advertises {offered} of {hardware.gpus} {hardware.gpu_resource} (device plugin missing or starting)"


def _pressure(node: Node) -> str:
    found = sorted(c.type for c in node.status.conditions if c.type.endswith("Pressure") and c.status == "True")
    return f"{node.name} ({', '.join(found)})" if found else ""
