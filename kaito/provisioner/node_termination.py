"""Finalizes nodes: deletes the claim, drains the node, deletes the instance, and then removes the finalizer.

The node controller calls this for nodes with our finalizer, whether a user or the claim controller deleted them. If the
instance does not exist, the finalizer is removed at once.
"""

from kaito.api import labels
from kaito.api.karpenter import Claim
from kaito.cloud.errors import CloudError
from kaito.provisioner import drain, reasons
from kaito.provisioner.context import Dependencies
from kaito.provisioner.instance_deletion import advance_deletion, record_failure
from kaito.provisioner.nodes import claim_of, owns_instance, reports_ready
from kaito.provisioner.steps.delete_instance import termination_time
from kaito.provisioner.volumes import blocking_attachments
from kaito.runtime import Again, Request
from kaito.runtime.client import MergePatch
from kaito.runtime.errors import Conflict
from kaito.runtime.kinds import Node, Taint

DRAIN_SECONDS = 1.0
"""Requeue delay while a node is drained, as in Karpenter."""

SLOW_DRAIN_SECONDS = 600.0
"""Draining that takes longer is reported by an event."""

DISRUPTED = Taint(key=labels.TAINT_DISRUPTED, effect="NoSchedule")
EXCLUDED_BY = "karpenter"


async def reconcile_node(_: Request[Node], *, deps: Dependencies) -> Again | None:
    """Does nothing for a node that is not being deleted: the claim controller reconciles it."""
    del deps
    return None


async def finalize_node(request: Request[Node], *, deps: Dependencies) -> Again | None:
    """Drains a node and deletes its instance; None removes the node's finalizer."""
    node, api = request.object, request.api
    name, uid = node.labels.get(labels.CLAIM_NAME, ""), node.labels.get(labels.CLAIM_UID, "")
    claim = await claim_of(api, node, deps.kinds)
    provider_id = claim.status.provider_id if claim is not None else ""
    if claim is not None and not claim.deleting:
        await api.delete(claim)
    try:
        if not reports_ready(node) and not await _has_instance(deps, name, uid, provider_id):
            _count(node, deps)
            return None
        requeue = await _cordon(request, node) or await _drain(request, claim, deps)
        if requeue is not None:
            return requeue
        wait = await advance_deletion(deps, name, uid, provider_id)
    except CloudError as error:
        failure = record_failure(deps, uid, error)
        request.log.warning("instance deletion rejected", reason=failure.reason, error=str(error))
        return Again(after=failure.retry, why=failure.reason)
    if wait is not None:
        return Again(after=wait, why="instance terminating")
    _count(node, deps)
    return None


def _count(node: Node, deps: Dependencies) -> None:
    pool = node.labels.get(labels.NODEPOOL) or node.labels.get(labels.PROVISIONER_NAME) or ""
    deps.metrics.nodes_terminated.labels(pool).inc()


async def _has_instance(deps: Dependencies, name: str, uid: str, provider_id: str) -> bool:
    instance = await deps.cloud.get(name) if name else None
    launched = deps.cloud.instance_name(provider_id)
    return instance is not None and owns_instance(instance, uid, launched=launched)


async def _cordon(request: Request[Node], node: Node) -> Again | None:
    """Taints the node, so that no pods are scheduled, and excludes it from load balancers."""
    if _is_cordoned(node):
        return None
    taints = [taint for taint in node.spec.taints if taint.key != DISRUPTED.key]
    cordoned = node.evolve(
        spec=node.spec.evolve(taints=[*taints, DISRUPTED]),
        metadata=node.metadata.evolve(labels={**node.labels, labels.EXCLUDE_FROM_LOAD_BALANCERS: EXCLUDED_BY}),
    )
    try:
        await request.api.patch(node, MergePatch.between(node, cordoned, lock=True))
    except Conflict:
        return Again(after=DRAIN_SECONDS, why="conflict: the node changed concurrently")
    return None


def _is_cordoned(node: Node) -> bool:
    has_taint = any((taint.key, taint.effect) == (DISRUPTED.key, DISRUPTED.effect) for taint in node.spec.taints)
    return has_taint and node.labels.get(labels.EXCLUDE_FROM_LOAD_BALANCERS) == EXCLUDED_BY


async def _drain(request: Request[Node], claim: Claim | None, deps: Dependencies) -> Again | None:
    """Evicts the next wave of pods, then waits for volumes to be detached; None once the node is drained."""
    node, api, now = request.object, request.api, request.clock.now()
    deadline = termination_time(claim)
    pods = await drain.pods_on(api, node)
    remaining = drain.pods_to_drain(pods, now)
    if remaining:
        wave = drain.next_wave(remaining)
        await drain.evict(api, node, wave, deadline=deadline, now=now, metrics=deps.metrics)
        _report_slow_drain(request, len(remaining))
        return Again(after=DRAIN_SECONDS, why=f"{len(remaining)} pods to evict")
    if deadline is None or now < deadline:
        attachments = await blocking_attachments(api, node.name, drain.exempt_pods(pods))
        if attachments:
            names = ", ".join(attachment.name for attachment in attachments[:5])
            note = f"Awaiting deletion of bound volumeattachments ({names})"
            request.event("Normal", reasons.AWAITING_VOLUME_DETACHMENT, note)
            return Again(after=DRAIN_SECONDS, why="volumes attached")
    return None


def _report_slow_drain(request: Request[Node], pods: int) -> None:
    deleted = request.object.metadata.deletion_timestamp
    waited = (request.clock.now() - deleted).total_seconds() if deleted else 0.0
    if waited > SLOW_DRAIN_SECONDS:
        note = f"draining for {waited / 60:.0f} minutes; {pods} pods remain"
        request.event("Warning", reasons.FAILED_DRAINING, note)
