"""Maps nodes and instances to claims, and selects the claims that this provisioner reconciles.

The cloud sets the labels of an agent pool on its nodes, so a node is mapped as soon as it joins.
"""

from collections.abc import Sequence

from kaito.api import labels
from kaito.api.karpenter import Claim, NodeClaim
from kaito.api.karpenter.nodeclaim import KAITO_NODE_CLASS_GROUP, KAITO_NODE_CLASS_KIND
from kaito.cloud.provider import Instance
from kaito.runtime import Api, Index, ObjectKey
from kaito.runtime.client import MergePatch
from kaito.runtime.kinds import Node

NODES_BY_CLAIM = Index(Node, lambda node: [uid] if (uid := node.labels.get(labels.CLAIM_UID)) else [], name="by-claim")
"""Nodes by the UID of their claim."""

NODES_BY_CLAIM_NAME = Index(
    Node, lambda node: [name] if (name := node.labels.get(labels.CLAIM_NAME)) else [], name="by-claim-name"
)
"""Nodes by the name of their claim, which is also the name of the instance."""

MANAGED_NODE_LABELS = {labels.MANAGED_BY: labels.GPU_PROVISIONER}
"""Labels of the nodes that this provisioner created."""


async def nodes_of(api: Api, claim: Claim) -> list[Node]:
    """The nodes of a claim; adopts a node that upstream's provisioner registered."""
    nodes = await api.list(Node, index=NODES_BY_CLAIM(claim.uid))
    if not nodes and claim.status.node_name:
        adopted = await _adopt(api, claim)
        return [adopted] if adopted is not None else []
    return nodes


async def _adopt(api: Api, claim: Claim) -> Node | None:
    """Labels the node named by the claim's status, if the provider IDs are equal and it has no claim label yet.

    Nodes of claims that upstream's gpu-provisioner launched lack the labels. Only provisioners write the provider ID of
    the claim's status, so an equal ID proves that the node belongs to the claim.
    """
    node = await api.find(Node, claim.status.node_name, consistency="live")
    same = node is not None and (node.spec.provider_id or "").lower() == claim.status.provider_id.lower() != ""
    if node is None or not same or labels.CLAIM_UID in node.labels:
        return None
    claim_labels = MANAGED_NODE_LABELS | {
        labels.CLAIM_NAME: claim.name,
        labels.CLAIM_KIND: claim.kind,
        labels.CLAIM_UID: claim.uid,
    }
    return await api.patch(node, MergePatch({"metadata": {"labels": claim_labels}}))


def claim_key(node: Node, _view: object = None) -> ObjectKey | None:
    """The key of the node's claim; usable as the mapping of a watch."""
    name = node.labels.get(labels.CLAIM_NAME)
    return ObjectKey("", name) if name else None


async def claim_of(api: Api, node: Node, kinds: Sequence[type[Claim]]) -> Claim | None:
    """The claim of a node, compared by UID; None if it does not exist."""
    key = claim_key(node)
    for kind in kinds:
        if key is None or kind.kind != node.labels.get(labels.CLAIM_KIND, kind.kind):
            continue
        claim = await api.find(kind, key.name)
        if claim is not None and claim.uid == node.labels.get(labels.CLAIM_UID):
            return claim
    return None


def owns_instance(instance: Instance, claim_uid: str, *, launched: str | None) -> bool:
    """Whether an instance belongs to a claim.

    Instances of upstream's provisioner have no owner tags. They belong to the claim if its provider ID names them:
    `launched` is the instance in that ID, None for a claim that was never launched.
    """
    if instance.owner is not None:
        return instance.owner.claim_uid == claim_uid
    return launched == instance.name


def is_managed(claim: Claim) -> bool:
    """Whether this provisioner reconciles the claim: by the label of its owner, or by the node class of a NodeClaim."""
    if labels.WORKSPACE in claim.labels or labels.RAGENGINE in claim.labels:
        return True
    if not isinstance(claim, NodeClaim):
        return False
    reference = claim.spec.node_class_ref
    return (reference.group, reference.kind) == (KAITO_NODE_CLASS_GROUP, KAITO_NODE_CLASS_KIND)


def reports_ready(node: Node) -> bool:
    """Whether the node's condition Ready is True."""
    ready = node.condition("Ready")
    return ready is not None and ready.status == "True"
