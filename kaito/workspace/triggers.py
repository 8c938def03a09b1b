"""What wakes a Workspace: which changes of which objects matter, and to whom.

Most events in a busy cluster change nothing a Workspace cares about: heartbeats of nodes, the counters of pods, our own
writes coming back. Dropping them here is what keeps hundreds of Workspaces cheap.
"""

from collections.abc import Hashable, Iterable

from kaito.api import Claim, Workspace, labels
from kaito.runtime.cache import EventType, View
from kaito.runtime.handler import label_key
from kaito.runtime.kinds import ConfigMap, Node, Pod
from kaito.runtime.meta import ObjectKey
from kaito.runtime.predicate import changed, differs, on
from kaito.workspace.indexes import WORKSPACES_BY_CONFIG
from kaito.workspace.pod_faults import classify, has_started

_LATER = on(EventType.UPDATE, EventType.DELETE)
"""Creations of objects that only we create tell us nothing we do not know."""


def _claim_state(claim: Claim) -> Hashable:
    trouble = claim.termination_trouble() if claim.deleting else claim.trouble()
    words = (trouble.reason, trouble.message) if trouble else None
    return claim.is_ready, claim.deleting, claim.status.node_name, claim.status.provider_id, words


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
    fault = classify([pod])
    words = (fault.reason, fault.message) if fault else None
    return pod.spec.node_name, pod.deleting, has_started(pod), words


WORKSPACE_CHANGED = changed("generation", "annotations", "labels", "deletionTimestamp")
CLAIM_CHANGED = _LATER & differs(_claim_state)
NODE_CHANGED = differs(_node_state)
POD_CHANGED = _LATER & differs(_pod_state)
SERVICE_CHANGED = _LATER & changed("spec", "labels")
WORKLOAD_CHANGED = _LATER & changed("generation", "status.readyReplicas", "status.replicas", "deletionTimestamp")
JOB_CHANGED = _LATER & changed("generation", "status")


owner = label_key(labels.WORKSPACE, labels.WORKSPACE_NAMESPACE)
"""The Workspace that a claim or a node names as its owner."""

owner_of_pod = label_key(labels.WORKSPACE)
"""The Workspace that a pod names as its owner."""


def users_of_node(node: Node, view: View) -> Iterable[ObjectKey]:
    """Every Workspace whose selector the node matches, where nodes are the user's own."""
    return [w.key for w in view.list(Workspace) if w.resource.label_selector.matches(node.labels)]


def users_of_config(config: ConfigMap, view: View) -> Iterable[ObjectKey]:
    """The Workspaces that name the ConfigMap."""
    return [workspace.key for workspace in view.list(Workspace, index=WORKSPACES_BY_CONFIG(str(config.key)))]
