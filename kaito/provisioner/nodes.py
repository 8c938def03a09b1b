"""Which nodes belong to which claim, and which claims are ours to serve.

The labels come from the instance itself (the cloud puts them on every node it makes for it), so a node is known from
the moment it joins.
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
"""Nodes by the UID of the claim they were made for."""

NODES_BY_CLAIM_NAME = Index(
    Node, lambda node: [name] if (name := node.labels.get(labels.CLAIM_NAME)) else [], name="by-claim-name"
)
"""Nodes by the name of the claim they were made for, which is also its instance's name."""

OURS = {labels.MANAGED_BY: labels.GPU_PROVISIONER}
"""Labels of the nodes this provisioner made."""


async def nodes_of(api: Api, claim: Claim) -> list[Node]:
    """The nodes made for a claim, by name; one that upstream's provisioner had registered is taken over first."""
    nodes = await api.list(Node, index=NODES_BY_CLAIM(claim.uid))
    if not nodes and claim.status.node_name:
        adopted = await _adopt(api, claim)
        return [adopted] if adopted is not None else []
    return nodes


async def _adopt(api: Api, claim: Claim) -> Node | None:
    """Put our labels on the node that the claim's status names, if it is that machine and nobody's yet.

    Claims that upstream gpu-provisioner has fulfilled have nodes without them; the provider id in the status, which
    only a provisioner writes, says that they belong together.
    """
    node = await api.find(Node, claim.status.node_name, consistency="live")
    same = node is not None and (node.spec.provider_id or "").lower() == claim.status.provider_id.lower() != ""
    if node is None or not same or labels.CLAIM_UID in node.labels:
        return None
    marks = OURS | {labels.CLAIM_NAME: claim.name, labels.CLAIM_KIND: claim.kind, labels.CLAIM_UID: claim.uid}
    return await api.patch(node, MergePatch({"metadata": {"labels": marks}}))


def claim_key(node: Node, _view: object = None) -> ObjectKey | None:
    """The claim a node was made for; a mapper, too."""
    name = node.labels.get(labels.CLAIM_NAME)
    return ObjectKey("", name) if name else None


async def claim_of(api: Api, node: Node, kinds: Sequence[type[Claim]]) -> Claim | None:
    """The very claim a node was made for, or None when it is gone."""
    key = claim_key(node)
    for kind in kinds:
        if key is None or kind.kind != node.labels.get(labels.CLAIM_KIND, kind.kind):
            continue
        claim = await api.find(kind, key.name)
        if claim is not None and claim.uid == node.labels.get(labels.CLAIM_UID):
            return claim
    return None


def owns_instance(instance: Instance, claim_uid: str, *, launched: str | None) -> bool:
    """Whether an instance is the claim's.

    `launched` is the instance that the claim's provider id names: without a marker (upstream's provisioner set none)
    that is the proof, and there is none for a claim that was never launched.
    """
    if instance.marker is not None:
        return instance.marker.claim_uid == claim_uid
    return launched == instance.name


def is_managed(claim: Claim) -> bool:
    """Whether the claim asks for us: by its owner's label, or by the node class (NodeClaim)."""
    if labels.WORKSPACE in claim.labels or labels.RAGENGINE in claim.labels:
        return True
    if not isinstance(claim, NodeClaim):
        return False
    reference = claim.spec.node_class_ref
    return (reference.group, reference.kind) == (KAITO_NODE_CLASS_GROUP, KAITO_NODE_CLASS_KIND)
