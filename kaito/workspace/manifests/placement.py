"""Where a Workspace's pods may run: node affinity from the full selector, and the taints they tolerate."""

from collections.abc import Mapping, Sequence
from typing import Any

from kaito.api import Workspace, labels
from kaito.runtime.kinds import Taint, Toleration
from kaito.workspace.ownership import owner_labels
from kaito.workspace.settings import NodeApi

_AZURE_SPOT = "kubernetes.azure.com/scalesetpriority"

TOLERATIONS = (
    Toleration(key=labels.NVIDIA_GPU, operator="Exists", effect="NoSchedule"),
    Toleration(key=labels.TAINT_SKU, operator="Equal", value=labels.TAINT_SKU_GPU, effect="NoSchedule"),
    Toleration(key=_AZURE_SPOT, operator="Equal", value="spot", effect="NoSchedule"),
)
"""Taints of GPU nodes that every workload of ours puts up with (upstream Kaito v0.12's list)."""


def tolerates(tolerations: Sequence[Toleration], taint: Taint) -> bool:
    """Whether some toleration matches the taint, by the scheduler's rule."""
    return any(
        (not t.key or t.key == taint.key)
        and (not t.effect or t.effect == taint.effect)
        and (t.operator == "Exists" or (t.value or "") == (taint.value or ""))
        for t in tolerations
    )


def node_expressions(workspace: Workspace, node_api: NodeApi) -> list[dict[str, Any]]:
    """What a node's labels must satisfy, as `matchExpressions` of a node selector term."""
    selector = workspace.resource.label_selector
    equal: Mapping[str, str] = (
        selector.match_labels
        if node_api is NodeApi.BYO
        else {
            **selector.match_labels,
            **owner_labels(workspace),
        }
    )
    return [
        *({"key": key, "operator": "In", "values": [value]} for key, value in sorted(equal.items())),
        *(
            {"key": e.key, "operator": e.operator} | ({"values": list(e.values)} if e.values else {})
            for e in selector.match_expressions
        ),
    ]


def affinity(workspace: Workspace, node_api: NodeApi, *, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Required node affinity for the Workspace's nodes, ANDed into every term of an affinity the user gave."""
    ours = node_expressions(workspace, node_api)
    merged: dict[str, Any] = dict(given or {})
    node: dict[str, Any] = dict(merged.get("nodeAffinity") or {})
    required: dict[str, Any] = dict(node.get("requiredDuringSchedulingIgnoredDuringExecution") or {})
    terms: list[dict[str, Any]] = list(required.get("nodeSelectorTerms") or [{}])
    required["nodeSelectorTerms"] = [
        {**term, "matchExpressions": [*(term.get("matchExpressions") or []), *ours]} for term in terms
    ]
    node["requiredDuringSchedulingIgnoredDuringExecution"] = required
    merged["nodeAffinity"] = node
    return merged


def tolerations(given: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """The user's tolerations and ours, without repeating one."""
    merged = [dict(toleration) for toleration in given]
    merged.extend(ours for ours in (t.to_dict() for t in TOLERATIONS) if ours not in merged)
    return merged
