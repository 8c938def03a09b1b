"""Who belongs to whom: the labels that tie claims, nodes and pods to a Workspace, and back.

Claims and nodes are cluster-scoped, so a namespaced Workspace cannot own them by reference; two labels name the owner
and a third carries its UID, so that a Workspace created again under an old name inherits nothing.
"""

from kaito.api import Claim, Workspace, labels
from kaito.runtime.kinds import Node
from kaito.runtime.meta import ObjectKey, Resource
from kaito.workspace.settings import NodeApi


def owner_labels(workspace: Workspace) -> dict[str, str]:
    """Labels of the Workspace's claims, which provisioners copy to the nodes."""
    return {labels.WORKSPACE: workspace.name, labels.WORKSPACE_NAMESPACE: workspace.namespace}


def pod_labels(workspace: Workspace) -> dict[str, str]:
    """Labels of the Workspace's pods; they live in its namespace, so the name is enough."""
    return {labels.WORKSPACE: workspace.name}


def owner_key(thing: Resource) -> ObjectKey | None:
    """The Workspace a cluster-scoped thing names as its owner."""
    name, namespace = thing.labels.get(labels.WORKSPACE), thing.labels.get(labels.WORKSPACE_NAMESPACE)
    return ObjectKey(namespace, name) if name and namespace else None


def pod_owner_key(thing: Resource) -> ObjectKey | None:
    """The Workspace a namespaced thing names as its owner."""
    name = thing.labels.get(labels.WORKSPACE)
    return ObjectKey(thing.namespace, name) if name else None


def owns(workspace: Workspace, claim: Claim) -> bool:
    """Whether the claim is this very Workspace's.

    A claim without a UID label (made by upstream Kaito) counts when it is not older than the Workspace.
    """
    if owner_key(claim) != workspace.key:
        return False
    uid = claim.labels.get(labels.WORKSPACE_UID)
    if uid is not None:
        return uid == workspace.uid
    made, born = claim.metadata.creation_timestamp, workspace.metadata.creation_timestamp
    return made is None or born is None or made >= born


def controls(workspace: Workspace, thing: Resource) -> bool:
    """Whether the Workspace is the thing's controller, by UID."""
    return any(owner.controller and owner.uid == workspace.uid for owner in thing.metadata.owner_references)


def name_conflict(thing: Resource) -> str:
    """The message about an object of the Workspace's name that it does not control, with the remedy."""
    owners = ", ".join(f"{owner.kind} {owner.name}" for owner in thing.metadata.owner_references) or "no controller"
    return f"{thing.kind} {thing.name} exists and belongs to {owners}: delete it, or give the workspace another name"


def belongs(workspace: Workspace, node: Node, *, node_api: NodeApi) -> bool:
    """Whether the node is one of the Workspace's: the full selector, and the owner labels unless nodes are byo.

    Provisioners copy the claim's labels to the node, the owner's UID among them; a node without it counts by name.
    """
    if not workspace.resource.label_selector.matches(node.labels):
        return False
    if node_api is NodeApi.BYO:
        return True
    return owner_key(node) == workspace.key and node.labels.get(labels.WORKSPACE_UID, workspace.uid) == workspace.uid
