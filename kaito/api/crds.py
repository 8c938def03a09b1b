"""Generates the CustomResourceDefinitions of Kaito's kinds from the models.

`hack/generate` writes them to `config/crd`; `kaito up` and the tests apply the same manifests.
"""

import copy
import functools
from typing import Any, Final

from kaito.api.inference_set import InferenceSet, InferenceSetV1Alpha1
from kaito.api.karpenter import Machine, NodeClaim
from kaito.api.workspace import Workspace, WorkspaceV1Alpha1
from kaito.runtime.crd import Column, Scale, Version, crd

_AGE: Final = Column("Age", ".metadata.creationTimestamp", "date")


def _condition(name: str, condition_type: str, *, priority: int = 0) -> Column:
    return Column(name, f'.status.conditions[?(@.type=="{condition_type}")].status', priority=priority)


WORKSPACE_COLUMNS: Final = (
    Column("Instance", ".resource.instanceType"),
    _condition("ResourceReady", "ResourceReady"),
    _condition("InferenceReady", "InferenceReady"),
    _condition("WorkspaceReady", "WorkspaceReady"),
    _condition("JobStarted", "JobStarted", priority=1),
    _condition("WorkspaceSucceeded", "WorkspaceSucceeded", priority=1),
    Column("TargetNodeCount", ".status.targetNodeCount", "integer", priority=1),
    Column("State", ".status.state", priority=1),
    Column("Replicas", ".status.replicas", "integer", priority=1),
    _AGE,
)
"""Columns of both versions, because kubectl requests the preferred version. Without `-o wide` they are NAME INSTANCE
RESOURCEREADY INFERENCEREADY WORKSPACEREADY AGE."""

SCALE: Final = Scale(selector=".status.selector")
"""Scale subresource of both kinds: `kubectl scale`, HorizontalPodAutoscaler and KEDA use it."""

INFERENCE_SET_COLUMNS: Final = (
    Column("Replicas", ".spec.replicas", "integer"),
    Column("ReadyReplicas", ".status.readyReplicas", "integer"),
    _condition("Ready", "InferenceSetReady", priority=1),
    _condition("Updated", "InferenceSetUpdated", priority=1),
    Column("Nodes", ".status.nodeCount", "integer", priority=1),
    _AGE,
)
"""Columns of both versions, as upstream's; the others with `-o wide`."""

_MACHINE_COLUMNS: Final = (
    Column("Type", r".metadata.labels.node\.kubernetes\.io/instance-type"),
    Column("Zone", r".metadata.labels.topology\.kubernetes\.io/zone"),
    Column("Node", ".status.nodeName"),
    _condition("Ready", "Ready"),
    _AGE,
    Column("Capacity", r".metadata.labels.karpenter\.sh/capacity-type", priority=1),
    Column("Provisioner", r".metadata.labels.karpenter\.sh/provisioner-name", priority=1),
    Column("Template", ".spec.machineTemplateRef.name", priority=1),
)

_NODE_CLAIM_COLUMNS: Final = (
    Column("Type", r".metadata.labels.node\.kubernetes\.io/instance-type"),
    Column("Capacity", r".metadata.labels.karpenter\.sh/capacity-type"),
    Column("Zone", r".metadata.labels.topology\.kubernetes\.io/zone"),
    Column("Node", ".status.nodeName"),
    _condition("Ready", "Ready"),
    _AGE,
    Column("ImageID", ".status.imageID", priority=1),
    Column("ID", ".status.providerID", priority=1),
    Column("NodePool", r".metadata.labels.karpenter\.sh/nodepool", priority=1),
    Column("NodeClass", ".spec.nodeClassRef.name", priority=1),
)


def workspace_crd() -> dict[str, Any]:
    """Returns the definition of `workspaces.kaito.sh`: v1beta1 is stored, v1alpha1 is served with the same fields."""
    return crd(
        [
            Version(model=WorkspaceV1Alpha1, columns=WORKSPACE_COLUMNS, scale=SCALE),
            Version(model=Workspace, storage=True, columns=WORKSPACE_COLUMNS, scale=SCALE),
        ],
        short_names=("wk", "wks"),
        categories=("workspace",),
    )


def inference_set_crd() -> dict[str, Any]:
    """Returns the definition of `inferencesets.kaito.sh`: v1beta1 is stored, v1alpha1 has the same fields."""
    return crd(
        [
            Version(model=InferenceSetV1Alpha1, columns=INFERENCE_SET_COLUMNS, scale=SCALE),
            Version(model=InferenceSet, storage=True, columns=INFERENCE_SET_COLUMNS, scale=SCALE),
        ],
        short_names=("is", "isets"),
        categories=("inferenceset",),
    )


def machine_crd() -> dict[str, Any]:
    """Returns the definition of `machines.karpenter.sh`."""
    return crd([Version(model=Machine, storage=True, columns=_MACHINE_COLUMNS)], categories=("karpenter",))


def node_claim_crd() -> dict[str, Any]:
    """Returns the definition of `nodeclaims.karpenter.sh`."""
    return crd([Version(model=NodeClaim, storage=True, columns=_NODE_CLAIM_COLUMNS)], categories=("karpenter",))


def manifests() -> tuple[dict[str, Any], ...]:
    """Returns every CustomResourceDefinition of Kaito."""
    return copy.deepcopy(_manifests())


@functools.cache
def _manifests() -> tuple[dict[str, Any], ...]:
    """Generates the definitions once: a simulation installs them in each of its runs."""
    return workspace_crd(), inference_set_crd(), machine_crd(), node_claim_crd()
