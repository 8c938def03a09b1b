"""Registers the node of the instance: checks that it belongs to the claim, and copies the claim's metadata to it."""

from kaito.api import labels
from kaito.api.karpenter import conditions
from kaito.provisioner import reasons
from kaito.provisioner.context import ReconcileContext
from kaito.provisioner.nodes import nodes_of
from kaito.provisioner.steps.initialize import find_obstacle, initialized
from kaito.runtime.client import MergePatch
from kaito.runtime.errors import Conflict
from kaito.runtime.kinds import Node, Taint

SYNC_ATTEMPTS = 5
"""Conflicts are frequent while kubelet and cloud node manager write a new node."""

NOT_COPIED = frozenset(
    {
        labels.ARM_OPERATION,
        labels.LAUNCH_STARTED,
        labels.LAUNCH_RECORD,
        labels.RETRY_LAUNCH,
        "kubectl.kubernetes.io/last-applied-configuration",
    }
)
"""Annotations that concern the claim only."""


async def register(ctx: ReconcileContext) -> Node | None:
    """Returns the claim's node once it is registered."""
    nodes = await nodes_of(ctx.api, ctx.claim)
    if ctx.status.is_true(ctx.claim.stages.registered):
        return _find_registered(ctx, nodes)
    if not nodes:
        ctx.status.set_registered("Unknown", conditions.NODE_NOT_FOUND, "Node not registered with cluster")
        return None
    if len(nodes) > 1:
        names = ", ".join(node.name for node in nodes)
        message = f"Invariant violated, matched multiple nodes: {names}"
        ctx.status.set_registered("False", conditions.MULTIPLE_NODES_FOUND, message)
        return None
    node = nodes[0]
    if node.deleting:
        ctx.status.set_registered("Unknown", conditions.NODE_NOT_FOUND, f"node {node.name} is being deleted")
        return None
    if not node.spec.provider_id:
        message = f"node {node.name} has joined and has no providerID yet"
        ctx.status.set_registered("Unknown", conditions.PROVIDER_ID_MISSING, message)
        return None
    if ctx.cloud.instance_name(node.spec.provider_id) != ctx.claim.name:
        message = (
            f"node {node.name} has providerID {node.spec.provider_id}, which does not belong to claim {ctx.claim.name}"
        )
        ctx.status.set_registered("False", conditions.PROVIDER_ID_MISMATCH, message)
        return None
    ctx.stage_metadata(add_labels=_topology_labels(node))
    node = await _sync(ctx, node)
    _report_registered(ctx, node)
    return node


def _find_registered(ctx: ReconcileContext, nodes: list[Node]) -> Node | None:
    """The node that was registered earlier; a second node, as in a surge upgrade, does not replace it."""
    name = ctx.claim.status.node_name
    node = next((node for node in nodes if node.name == name), None)
    if node is None:
        ctx.status.set_node_ready("False", conditions.NODE_NOT_FOUND, f"node {name} does not exist")
    return node


def _topology_labels(node: Node) -> dict[str, str]:
    """Region and zone, to select and list claims by them. AKS sets zone `0` on nodes without a zone."""
    return {key: node.labels[key] for key in (labels.REGION, labels.ZONE) if node.labels.get(key, "0") != "0"}


def _report_registered(ctx: ReconcileContext, node: Node) -> None:
    ctx.status.set_registered("True")
    ctx.status.set_fields(
        node_name=node.name,
        provider_id=node.spec.provider_id,
        capacity=node.status.capacity,
        allocatable=node.status.allocatable,
    )
    ctx.event(reasons.REGISTERED, f"node {node.name} has joined")
    ctx.deps.metrics.nodes_created.labels(ctx.nodepool).inc()
    instance_type = ctx.claim.labels.get(labels.INSTANCE_TYPE, "")
    age = ctx.age_seconds(ctx.claim.metadata.creation_timestamp)
    ctx.deps.metrics.stage_seconds.labels("registered", instance_type).observe(age)


async def _sync(ctx: ReconcileContext, node: Node) -> Node:
    """Writes the claim's metadata and taints to the node in one request; repeats it after a conflict.

    A node that is usable already is marked as initialized by the same request.
    """
    for attempt in range(1, SYNC_ATTEMPTS + 1):
        try:
            wanted = synced(ctx, node)
            if await find_obstacle(ctx, wanted) is None:
                wanted = initialized(wanted)
            return await ctx.api.patch(node, MergePatch.between(node, wanted, lock=True))
        except Conflict:
            if attempt == SYNC_ATTEMPTS:
                raise
            node = await ctx.api.get(Node, node.name, consistency="live")
    raise AssertionError  # pragma: no cover - the last attempt returns or raises


def synced(ctx: ReconcileContext, node: Node) -> Node:
    """The node with the finalizer, owner, labels, annotations and taints of its claim."""
    claim, metadata = ctx.claim, node.metadata
    owners = metadata.owner_references
    if all(owner.uid != claim.uid for owner in owners):
        owners = [*owners, claim.owner_reference(controller=False)]
    finalizers = metadata.finalizers
    if labels.TERMINATION_FINALIZER not in finalizers:
        finalizers = [*finalizers, labels.TERMINATION_FINALIZER]
    annotations = {name: value for name, value in claim.annotations.items() if name not in NOT_COPIED}
    return node.evolve(
        metadata=metadata.evolve(
            owner_references=owners,
            finalizers=finalizers,
            labels={**metadata.labels, **claim.labels, labels.REGISTERED: labels.TRUE},
            annotations={**metadata.annotations, **annotations},
        ),
        spec=node.spec.evolve(taints=_taints(ctx, node)),
    )


def _taints(ctx: ReconcileContext, node: Node) -> list[Taint]:
    taints = [taint for taint in node.spec.taints if taint.key != labels.TAINT_UNREGISTERED]
    if labels.is_true(node.labels.get(labels.DO_NOT_SYNC_TAINTS)):
        return taints
    for wanted in (*ctx.claim.spec.taints, *ctx.claim.spec.startup_taints):
        if all((taint.key, taint.effect) != (wanted.key, wanted.effect) for taint in taints):
            taint = Taint(key=wanted.key, effect=wanted.effect)
            taints.append(taint.evolve(value=wanted.value) if wanted.value else taint)
    return taints
