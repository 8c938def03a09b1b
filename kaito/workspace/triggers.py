"""Declares which changes of which objects queue a Workspace.

Most events in a busy cluster do not concern a Workspace: heartbeats of nodes, counters of pods, the controller's own
writes. The predicates drop them, which keeps the cost of hundreds of Workspaces low.
"""

from collections.abc import Hashable, Iterable
from typing import Final

from kaito.api import Claim, Workspace, labels
from kaito.runtime.cache import EventType, View
from kaito.runtime.handler import label_key
from kaito.runtime.kinds import ConfigMap, EndpointSlice, Namespace, Node, Pod
from kaito.runtime.meta import ObjectKey
from kaito.runtime.predicate import changed, differs, on
from kaito.workspace.budget import BudgetText
from kaito.workspace.indexes import WORKSPACES_BY_CONFIG, may_select, scale_to_zero
from kaito.workspace.pod_faults import find_fault, has_started

_NOT_CREATED: Final = on(EventType.UPDATE, EventType.DELETE)
"""Drops the creation of objects that only the controller creates."""


def _claim_state(claim: Claim) -> Hashable:
    blocking = claim.blocking_termination_condition() if claim.deleting else claim.blocking_condition()
    cause = (blocking.reason, blocking.message) if blocking else None
    return claim.is_ready, claim.deleting, claim.status.node_name, claim.status.provider_id, cause


def _pool_claim_state(claim: Claim) -> Hashable:
    return _claim_state(claim), claim.is_drifted


def _node_state(node: Node) -> Hashable:
    conditions = frozenset((c.type, c.status) for c in node.status.conditions)
    taints = frozenset((t.key, t.value, t.effect) for t in node.spec.taints)
    devices = frozenset(
        (name, str(amount))
        for offered in (node.status.capacity, node.status.allocatable)
        for name, amount in offered.items()
        if "/" in name
    )
    return node.deleting, node.spec.unschedulable, conditions, taints, devices, frozenset(node.labels.items())


def _pod_state(pod: Pod) -> Hashable:
    fault = find_fault([pod])
    cause = (fault.reason, fault.message) if fault else None
    return pod.spec.node_name, pod.deleting, has_started(pod), pod.status.pod_ip, cause


WORKSPACE_CHANGED: Final = changed("generation", "annotations", "labels", "deletionTimestamp")
CLAIM_CHANGED: Final = _NOT_CREATED & differs(_claim_state)
POOL_CLAIM_CHANGED: Final = differs(_pool_claim_state)
"""Of claims that Karpenter creates, also with their drift."""
POOL_CHANGED: Final = _NOT_CREATED & changed("generation", "status.conditions", "deletionTimestamp")
NODE_CHANGED: Final = differs(_node_state)
POD_CHANGED: Final = _NOT_CREATED & differs(_pod_state)
SERVICE_CHANGED: Final = _NOT_CREATED & changed("spec", "labels")
WORKLOAD_CHANGED: Final = _NOT_CREATED & changed(
    "generation", "status.readyReplicas", "status.replicas", "deletionTimestamp"
)
BUDGET_CHANGED: Final = on(EventType.UPDATE) & differs(BudgetText.of)
JOB_CHANGED: Final = _NOT_CREATED & changed("generation", "status")


owner: Final = label_key(labels.WORKSPACE, labels.WORKSPACE_NAMESPACE)
"""Maps a claim or a node to the Workspace that its labels name."""

owner_of_pod: Final = label_key(labels.WORKSPACE)
"""Maps a pod to the Workspace that its label names."""


def users_of_activator(found: EndpointSlice, view: View) -> Iterable[ObjectKey]:
    """Maps an EndpointSlice of a Workspace to it, and the addresses of the activator to all that scale to zero."""
    if found.labels.get(labels.ACTIVATOR) != labels.ACTIVATOR_ADDRESS:
        name = found.labels.get(labels.SERVICE_NAME)
        return [ObjectKey(found.namespace, name)] if name else []
    return [each.key for each in view.list(Workspace, index=scale_to_zero(), unreadable="skip")]


def users_of_node(node: Node, view: View) -> Iterable[ObjectKey]:
    """Maps an existing node (`--node-api byo`) to every Workspace whose selector it matches."""
    candidates = view.list(Workspace, index=may_select(node))
    return [workspace.key for workspace in candidates if workspace.resource.label_selector.matches(node.labels)]


def workspaces_in(namespace: Namespace, view: View) -> Iterable[ObjectKey]:
    """Maps a namespace to its Workspaces."""
    return [workspace.key for workspace in view.list(Workspace, namespace=namespace.name)]


def users_of_config(config: ConfigMap, view: View) -> Iterable[ObjectKey]:
    """Maps a ConfigMap to the Workspaces that name it."""
    return [workspace.key for workspace in view.list(Workspace, index=WORKSPACES_BY_CONFIG(str(config.key)))]
