"""Builds node affinity and tolerations of a Workspace's pods."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from kaito.api import Workspace, labels
from kaito.api.json_values import json_list, json_object, without_nulls
from kaito.api.workspace.node_count import MAX_NODE_COUNT
from kaito.models.partitions import mig_resource
from kaito.runtime.kinds import Taint, Toleration
from kaito.workspace.ownership import owner_labels, pod_labels
from kaito.workspace.plan import Hardware
from kaito.workspace.pod_options import pod_options
from kaito.workspace.settings import NodeApi, WorkspaceSettings

_AZURE_SPOT = "kubernetes.azure.com/scalesetpriority"

TOLERATIONS = (
    Toleration(key=labels.NVIDIA_GPU, operator="Exists", effect="NoSchedule"),
    Toleration(key=labels.TAINT_SKU, operator="Equal", value=labels.TAINT_SKU_GPU, effect="NoSchedule"),
    Toleration(key=_AZURE_SPOT, operator="Equal", value="spot", effect="NoSchedule"),
)
"""Tolerations of every workload for the taints of GPU nodes, as in upstream Kaito v0.12."""


def pod_tolerations(workspace: Workspace, settings: WorkspaceSettings) -> tuple[Toleration, ...]:
    """Returns the tolerations of the Workspace's pods: Kaito's, and those of its options or its pod template."""
    template = workspace.inference.template if workspace.inference is not None else None
    if template is None:
        given = [each.to_dict() for each in pod_options(workspace, settings.pod_defaults).tolerations]
    else:
        given = [json_object(each) for each in json_list(json_object(template.get("spec")).get("tolerations"))]
    valid: list[Toleration] = []
    for each in given:
        with suppress(ValidationError):  # the checks of the template report it
            valid.append(Toleration.model_validate(without_nulls(each)))
    return (*own_tolerations(workspace), *valid)


def own_tolerations(workspace: Workspace) -> tuple[Toleration, ...]:
    """Returns `TOLERATIONS`, and that for the taint of nodes with the MIG profile of the Workspace."""
    partition = workspace.resource.partition
    if partition is None or not partition.profile:
        return TOLERATIONS
    return (*TOLERATIONS, Toleration(key=mig_resource(partition.profile), operator="Exists", effect="NoSchedule"))


def tolerates(tolerations: Sequence[Toleration], taint: Taint) -> bool:
    """Whether a toleration matches the taint, by the scheduler's rule."""
    return any(
        (not t.key or t.key == taint.key)
        and (not t.effect or t.effect == taint.effect)
        and (t.operator == "Exists" or (t.value or "") == (taint.value or ""))
        for t in tolerations
    )


def node_expressions(workspace: Workspace, node_api: NodeApi) -> list[dict[str, Any]]:
    """Returns `matchExpressions` of a node selector term for the Workspace's nodes."""
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
    """Adds the required node affinity for the Workspace's nodes to every term of the user's affinity."""
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


def placed(workspace: Workspace, hardware: Hardware, node_api: NodeApi) -> dict[str, Any]:
    """Returns the fields of a preset's pod that choose its node among those of the Workspace.

    Copies that share nodes fill one node before the next, so that fewer copies need fewer nodes: the StatefulSet ends
    the pod with the highest ordinal, which was placed last. Without a constraint of the pod, the scheduler spreads pods
    over nodes by default. The constraint here allows every placement, and constraints of this kind add no score.
    """
    own = affinity(workspace, node_api)
    if hardware.copies_per_node == 1:
        return {"affinity": own}
    selector = {"matchLabels": pod_labels(workspace)}
    term = {"labelSelector": selector, "topologyKey": labels.HOSTNAME}
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    spread = {"maxSkew": MAX_NODE_COUNT, "topologyKey": labels.HOSTNAME, "whenUnsatisfiable": "DoNotSchedule"}
    return {
        "affinity": {**own, "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}},
        "topologySpreadConstraints": [{**spread, "labelSelector": selector}],
    }


def tolerations(workspace: Workspace, given: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """Returns the user's tolerations and Kaito's, without duplicates."""
    merged = [dict(toleration) for toleration in given]
    merged.extend(ours for ours in (t.to_dict() for t in own_tolerations(workspace)) if ours not in merged)
    return merged
