"""The end of a node: its claim is deleted with it, its pods leave, its instance goes, and then the node object does.

Called by the node controller for nodes that carry our finalizer, whoever deleted them. A node whose machine is gone
already is let go at once.
"""

from kaito.api import labels
from kaito.api.karpenter import Claim
from kaito.cloud.errors import CloudError
from kaito.provisioner import drain, reasons
from kaito.provisioner.context import Tools
from kaito.provisioner.ending import end_instance, refused
from kaito.provisioner.nodes import claim_of, owns_instance
from kaito.provisioner.steps.release import termination_time
from kaito.provisioner.volumes import blocking_attachments
from kaito.runtime import Again, Request
from kaito.runtime.client import MergePatch
from kaito.runtime.errors import Conflict
from kaito.runtime.kinds import Node, Taint

DRAIN_SECONDS = 1.0
"""Between looks at a draining node (Karpenter)."""

SLOW_DRAIN_SECONDS = 600.0
DISRUPTED = Taint(key=labels.TAINT_DISRUPTED, effect="NoSchedule")
EXCLUDED_BY = "karpenter"


async def observe(_: Request[Node], *, tools: Tools) -> Again | None:
    """A node that is wanted: its claim's controller looks after it."""
    del tools
    return None


async def terminate(request: Request[Node], *, tools: Tools) -> Again | None:
    """One pass over a node that is deleted; None lets its finalizer go."""
    node, api = request.object, request.api
    name, uid = node.labels.get(labels.CLAIM_NAME, ""), node.labels.get(labels.CLAIM_UID, "")
    claim = await claim_of(api, node, tools.kinds)
    provider_id = claim.status.provider_id if claim is not None else ""
    if claim is not None and not claim.deleting:
        await api.delete(claim)
    try:
        if not _reports_ready(node) and await _machine_is_gone(tools, name, uid, provider_id):
            _count(node, tools)
            return None
        leaving = await _leave_service(request, node)
        if leaving is not None:
            return leaving
        draining = await _drain(request, claim, tools)
        if draining is not None:
            return draining
        wait = await end_instance(tools, name, uid, provider_id)
    except CloudError as error:
        found = refused(tools, uid, error)
        if not found.deferred:
            request.log.warning("instance not deleted", reason=found.failure.reason, error=str(error))
        return Again(after=found.retry, why=found.failure.reason)
    if wait is not None:
        return Again(after=wait, why="instance terminating")
    _count(node, tools)
    return None


def _count(node: Node, tools: Tools) -> None:
    pool = node.labels.get(labels.NODEPOOL) or node.labels.get(labels.PROVISIONER_NAME) or ""
    tools.metrics.nodes_terminated.labels(pool).inc()


async def _machine_is_gone(tools: Tools, name: str, uid: str, provider_id: str) -> bool:
    instance = await tools.cloud.get(name) if name else None
    launched = tools.cloud.instance_name(provider_id)
    return instance is None or not owns_instance(instance, uid, launched=launched)


async def _leave_service(request: Request[Node], node: Node) -> Again | None:
    """No new pods, no traffic from load balancers."""
    taints = [taint for taint in node.spec.taints if taint.key != DISRUPTED.key]
    wanted = node.evolve(
        spec=node.spec.evolve(taints=[*taints, DISRUPTED]),
        metadata=node.metadata.evolve(labels={**node.labels, labels.EXCLUDE_FROM_LOAD_BALANCERS: EXCLUDED_BY}),
    )
    if _is_out_of_service(node):
        return None
    try:
        await request.api.patch(node, MergePatch.between(node, wanted, lock=True))
    except Conflict:
        return Again(after=DRAIN_SECONDS, why="the node changed meanwhile")
    return None


def _is_out_of_service(node: Node) -> bool:
    tainted = any((taint.key, taint.effect) == (DISRUPTED.key, DISRUPTED.effect) for taint in node.spec.taints)
    return tainted and node.labels.get(labels.EXCLUDE_FROM_LOAD_BALANCERS) == EXCLUDED_BY


async def _drain(request: Request[Node], claim: Claim | None, tools: Tools) -> Again | None:
    node, api, now = request.object, request.api, request.clock.now()
    deadline = termination_time(claim)
    pods = await drain.pods_on(api, node)
    awaited = drain.awaited(pods, now)
    if awaited:
        wave = drain.next_wave(awaited)
        await drain.evict(api, node, wave, deadline=deadline, now=now, metrics=tools.metrics)
        _report_slow_drain(request, len(awaited))
        return Again(after=DRAIN_SECONDS, why=f"{len(awaited)} pods have to leave")
    if deadline is None or now < deadline:
        attachments = await blocking_attachments(api, node.name, drain.staying(pods))
        if attachments:
            names = ", ".join(attachment.name for attachment in attachments[:5])
            request.event(
                "Normal", "AwaitingVolumeDetachment", f"Awaiting deletion of bound volumeattachments ({names})"
            )
            return Again(after=DRAIN_SECONDS, why="volumes are attached")
    return None


def _report_slow_drain(request: Request[Node], pods: int) -> None:
    deleted = request.object.metadata.deletion_timestamp
    waited = (request.clock.now() - deleted).total_seconds() if deleted else 0.0
    if waited > SLOW_DRAIN_SECONDS:
        note = f"{pods} pods have kept the node for {waited / 60:.0f} minutes"
        request.event("Warning", reasons.FAILED_DRAINING, note)


def _reports_ready(node: Node) -> bool:
    ready = node.condition("Ready")
    return ready is not None and ready.status == "True"
