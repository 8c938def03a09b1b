"""Relates claims, nodes and pods to their Workspace by labels.

Claims and nodes are cluster-scoped, so an owner reference cannot name a namespaced Workspace. Two labels name the
owner, and a third contains its UID, so that a new Workspace does not own what a deleted one of the same name left.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Self, final

from kaito.api import Claim, InferenceSet, Workspace, labels
from kaito.api.karpenter import NodePool
from kaito.runtime.kinds import Node
from kaito.runtime.meta import ObjectKey, Resource
from kaito.workspace.settings import NodeApi


def owner_labels(workspace: Workspace) -> dict[str, str]:
    """Returns the labels of the Workspace's claims, which provisioners copy to the nodes."""
    return {labels.WORKSPACE: workspace.name, labels.WORKSPACE_NAMESPACE: workspace.namespace}


def pod_labels(workspace: Workspace) -> dict[str, str]:
    """Returns the labels of the Workspace's pods, which are in its namespace."""
    return {labels.WORKSPACE: workspace.name}


def owner_key(obj: Resource) -> ObjectKey | None:
    """Returns the Workspace that the labels of a cluster-scoped object name."""
    name, namespace = obj.labels.get(labels.WORKSPACE), obj.labels.get(labels.WORKSPACE_NAMESPACE)
    return ObjectKey(namespace, name) if name and namespace else None


def pod_owner_key(obj: Resource) -> ObjectKey | None:
    """Returns the Workspace that the label of a namespaced object names."""
    name = obj.labels.get(labels.WORKSPACE)
    return ObjectKey(obj.namespace, name) if name else None


@final
@dataclass(frozen=True, slots=True)
class Identity:
    """What distinguishes a Workspace from others, and from a deleted one of the same name."""

    key: ObjectKey
    uid: str
    created: datetime | None

    @classmethod
    def of(cls, workspace: Resource) -> Self:
        """Returns the identity of a Workspace."""
        return cls(workspace.key, workspace.uid, workspace.metadata.creation_timestamp)


@final
@dataclass(frozen=True, slots=True)
class ClaimOwner:
    """The owner that the labels of a claim name."""

    key: ObjectKey | None
    uid: str | None
    """None for a claim that upstream Kaito created."""
    claim_created: datetime | None

    @classmethod
    def of(cls, claim: Claim) -> Self:
        """Reads the labels of a claim."""
        return cls(owner_key(claim), claim.labels.get(labels.WORKSPACE_UID), claim.metadata.creation_timestamp)

    def is_identity(self, workspace: Identity) -> bool:
        """Whether it is this Workspace. A claim without a UID belongs to it if it is not older than the Workspace."""
        if self.key != workspace.key:
            return False
        if self.uid is not None:
            return self.uid == workspace.uid
        return self.claim_created is None or workspace.created is None or self.claim_created >= workspace.created


def owns_claim(workspace: Workspace, claim: Claim) -> bool:
    """Whether the claim belongs to this Workspace, and not to a deleted one of the same name."""
    return ClaimOwner.of(claim).is_identity(Identity.of(workspace))


def owns_pool(workspace: Workspace, pool: NodePool) -> bool:
    """Whether the NodePool belongs to this Workspace, and not to a deleted one of the same name."""
    return owner_key(pool) == workspace.key and pool.labels.get(labels.WORKSPACE_UID) == workspace.uid


def is_controller_of(owner: Resource, obj: Resource) -> bool:
    """Whether a Workspace, or an InferenceSet, is the controller of an object, by UID."""
    return any(reference.controller and reference.uid == owner.uid for reference in obj.metadata.owner_references)


def inference_set_name(workspace: Workspace) -> str:
    """Returns the name of the InferenceSet that controls the Workspace; empty if none does."""
    owners = workspace.metadata.owner_references
    return next((owner.name for owner in owners if owner.controller and owner.kind == InferenceSet.kind), "")


def serving_pod_labels(workspace: Workspace) -> dict[str, str]:
    """Returns the additional labels of the pods that serve requests, by which the Service of an InferenceSet and
    autoscalers select them."""
    name = inference_set_name(workspace)
    return {labels.CREATED_BY_INFERENCESET: name} if name else {}


def name_conflict_message(obj: Resource, named: str = "workspace") -> str:
    """Returns the message about an object that has a Workspace's name and another controller, with the remedy.

    Args:
        obj: the object.
        named: what has the name, if not a Workspace.
    """
    owners = ", ".join(f"{owner.kind} {owner.name}" for owner in obj.metadata.owner_references) or "no controller"
    return f"{obj.kind} {obj.name} exists and belongs to {owners}: delete it, or give the {named} another name"


def is_node_of(workspace: Workspace, node: Node, *, node_api: NodeApi) -> bool:
    """Whether the node belongs to the Workspace: it matches the selector and, unless nodes are byo, the owner labels.

    Provisioners copy the claim's labels, including the owner's UID, to the node. A node without the UID belongs to the
    Workspace by name.
    """
    if not workspace.resource.label_selector.matches(node.labels):
        return False
    if node_api is NodeApi.BYO:
        return True
    return owner_key(node) == workspace.key and node.labels.get(labels.WORKSPACE_UID, workspace.uid) == workspace.uid
