"""Registration: the instance's node has joined, is the claim's, and carries what the claim asks for."""

from kaito.api import labels
from kaito.api.karpenter import conditions
from kaito.provisioner import reasons
from kaito.provisioner.context import Pass
from kaito.provisioner.nodes import nodes_of
from kaito.runtime.client import MergePatch
from kaito.runtime.errors import Conflict
from kaito.runtime.kinds import Node, Taint

ATTEMPTS = 5
"""Tries while kubelet and cloud node manager keep writing the node."""

NOT_COPIED = frozenset(
    {
        labels.ARM_OPERATION,
        labels.LAUNCH_STARTED,
        labels.LAUNCH_RECORD,
        labels.RETRY_LAUNCH,
        "kubectl.kubernetes.io/last-applied-configuration",
    }
)
"""Annotations of the claim that mean nothing on its node."""


async def register(run: Pass) -> Node | None:
    """The claim's node, once it is registered."""
    nodes = await nodes_of(run.api, run.claim)
    if run.report.holds(run.claim.stages.registered):
        return _registered(run, nodes)
    if not nodes:
        run.report.registered("Unknown", conditions.NODE_NOT_FOUND, "Node not registered with cluster")
        return None
    if len(nodes) > 1:
        names = ", ".join(node.name for node in nodes)
        message = f"Invariant violated, matched multiple nodes: {names}"
        run.report.registered("False", conditions.MULTIPLE_NODES_FOUND, message)
        return None
    node = nodes[0]
    if node.deleting:
        run.report.registered("Unknown", conditions.NODE_NOT_FOUND, f"node {node.name} is being deleted")
        return None
    if not node.spec.provider_id:
        message = f"node {node.name} has joined and waits for its providerID"
        run.report.registered("Unknown", conditions.PROVIDER_ID_MISSING, message)
        return None
    if run.cloud.instance_name(node.spec.provider_id) != run.claim.name:
        message = f"node {node.name} says it is {node.spec.provider_id}, which is no machine of {run.claim.name}"
        run.report.registered("False", conditions.PROVIDER_ID_MISMATCH, message)
        return None
    await run.set_metadata(add_labels=_placement(node))
    node = await _sync(run, node)
    _say_registered(run, node)
    return node


def _registered(run: Pass, nodes: list[Node]) -> Node | None:
    """The node registered earlier; a second one (a surge upgrade) changes nothing."""
    name = run.claim.status.node_name
    node = next((node for node in nodes if node.name == name), None)
    if node is None:
        run.report.node_ready("False", conditions.NODE_NOT_FOUND, f"node {name} is not in the cluster any more")
    return node


def _placement(node: Node) -> dict[str, str]:
    """Where the machine is, for the claim's own columns and selectors. AKS writes zone `0` for "no zone"."""
    return {key: node.labels[key] for key in (labels.REGION, labels.ZONE) if node.labels.get(key, "0") != "0"}


def _say_registered(run: Pass, node: Node) -> None:
    run.report.registered("True")
    run.report.set(
        node_name=node.name,
        provider_id=node.spec.provider_id,
        capacity=node.status.capacity,
        allocatable=node.status.allocatable,
    )
    run.event(reasons.REGISTERED, f"node {node.name} has joined")
    run.tools.metrics.nodes_created.labels(run.nodepool).inc()
    size = run.claim.labels.get(labels.INSTANCE_TYPE, "")
    age = run.age(run.claim.metadata.creation_timestamp)
    run.tools.metrics.stage_seconds.labels("registered", size).observe(age)


async def _sync(run: Pass, node: Node) -> Node:
    """Finalizer, owner, labels, annotations and taints of the claim on its node, in one write."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await run.api.patch(node, MergePatch.between(node, synced(run, node), lock=True))
        except Conflict:
            if attempt == ATTEMPTS:
                raise
            node = await run.api.get(Node, node.name, consistency="live")
    raise AssertionError  # pragma: no cover - the last attempt returns or raises


def synced(run: Pass, node: Node) -> Node:
    """The node as its claim wants it."""
    claim, metadata = run.claim, node.metadata
    reference = claim.owner_reference(controller=False)
    owners = metadata.owner_references
    if all(owner.uid != claim.uid for owner in owners):
        owners = [*owners, reference]
    finalizers = metadata.finalizers
    if labels.TERMINATION_FINALIZER not in finalizers:
        finalizers = [*finalizers, labels.TERMINATION_FINALIZER]
    copied = {name: value for name, value in claim.annotations.items() if name not in NOT_COPIED}
    return node.evolve(
        metadata=metadata.evolve(
            owner_references=owners,
            finalizers=finalizers,
            labels={**metadata.labels, **claim.labels, labels.REGISTERED: labels.TRUE},
            annotations={**metadata.annotations, **copied},
        ),
        spec=node.spec.evolve(taints=_taints(run, node)),
    )


def _taints(run: Pass, node: Node) -> list[Taint]:
    taints = [taint for taint in node.spec.taints if taint.key != labels.TAINT_UNREGISTERED]
    if labels.is_true(node.labels.get(labels.DO_NOT_SYNC_TAINTS)):
        return taints
    for wanted in (*run.claim.spec.taints, *run.claim.spec.startup_taints):
        if all((taint.key, taint.effect) != (wanted.key, wanted.effect) for taint in taints):
            taint = Taint(key=wanted.key, effect=wanted.effect)
            taints.append(taint.evolve(value=wanted.value) if wanted.value else taint)
    return taints
