"""Finds the notice with which a cloud announces that it takes a node back: a pure function of the Node.

Azure announces the eviction of a spot virtual machine at least 30 seconds before (a Scheduled Event of the type
Preempt). The node problem detector of AKS writes it to a condition, and AKS and the cloud provider taint the node. The
node termination handlers of AWS and Google Cloud use taints.
"""

from typing import Final

from kaito.api import labels
from kaito.runtime.kinds import Node, NodeCondition, Taint

_CONDITIONS: Final = frozenset({"PreemptionScheduled", "PreemptScheduled"})
"""Conditions of AKS for evictions only. Versions of its node problem detector differ in the name."""

_SCHEDULED_EVENT: Final = "VMEventScheduled"
"""Condition of AKS for every Scheduled Event: also reboots, moves and pauses, after which the node is there again."""

_PREEMPT: Final = "Preempt Scheduled"
"""Start of its message before an eviction."""

_TAINTS: Final = frozenset(
    {
        "aws-node-termination-handler/spot-itn",
        "cloud.google.com/impending-node-termination",
        "cloudprovider.azure.microsoft.com/draining",
    }
)

_REMEDIATOR: Final = frozenset(
    {"remediator.kubernetes.azure.com/unschedulable", "remediator.aks.microsoft.com/unschedulable"}
)
"""Taints with which AKS drains a node before it is evicted or moved. Only spot nodes are evicted."""

_SPOT_PRIORITY: Final = "kubernetes.azure.com/scalesetpriority"


def is_spot(node: Node) -> bool:
    """Whether the cloud may evict the node."""
    return "spot" in {node.labels.get(labels.CAPACITY_TYPE), node.labels.get(_SPOT_PRIORITY)}


def find_notice(node: Node) -> str:
    """Returns what announces that the cloud takes the node back; empty if nothing does."""
    for condition in node.status.conditions:
        if condition.status == "True" and _is_notice(condition):
            return condition.message.partition(". ")[0].strip() or condition.type
    for taint in node.spec.taints:
        if taint.key in _TAINTS or (taint.key in _REMEDIATOR and is_spot(node)):
            return _text(taint)
    return ""


def _is_notice(condition: NodeCondition) -> bool:
    if condition.type == _SCHEDULED_EVENT:
        return condition.message.startswith(_PREEMPT)
    return condition.type in _CONDITIONS


def _text(taint: Taint) -> str:
    return f"taint {taint.key}{f'={taint.value}' if taint.value else ''}"
