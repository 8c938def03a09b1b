"""Deletes claims that are no longer needed, after the number of copies decreased or a preferred node was found.

Deletes only while the workload is complete, only claims whose node runs no pod of the Workspace, and only as many as
exceed the wanted number. A claim without a node counts as idle. A pod that is being deleted still runs its requests, so
that its node is kept until the pod does not exist any more.

The claims of a NodePool (`--node-api karpenter`) are deleted by Karpenter: this step lowers the number of nodes of the
pool, and Karpenter deletes those without pods first.

If a preferred node of the Workspace has no pod, the claim of a node that serves is deleted, one at a time: the node is
drained, and its copy starts on the preferred node while the other copies serve.
"""

from collections.abc import Sequence
from typing import Final

from kaito.api import Claim, labels
from kaito.runtime.kinds import StatefulSet
from kaito.workspace.claim_policy import index_of
from kaito.workspace.context import ReconcileContext
from kaito.workspace.plan import Hardware, Plan
from kaito.workspace.state import ClaimsReport, WorkloadReport
from kaito.workspace.steps.nodes import may_replace
from kaito.workspace.steps.pool import is_of_pool, replicas_of, shrink_pool

RESYNC_SECONDS: Final = 60.0
"""Interval at which a Workspace with surplus claims is reconciled without an event."""


async def delete_surplus_claims(
    ctx: ReconcileContext, plan: Plan | None, claims: ClaimsReport | None, workload: WorkloadReport | None
) -> None:
    """Deletes idle claims beyond the wanted number."""
    if plan is None or ctx.is_read_only or claims is None or workload is None:
        return
    surplus = _surplus(claims)
    if surplus <= 0:
        return
    if not _is_complete(plan.hardware, workload):
        ctx.request.requeue_after(RESYNC_SECONDS, "nodes are given back once the pods are those of the wanted copies")
        return
    busy_nodes = {pod.spec.node_name for pod in workload.pods}
    idle = _idle(claims.live, busy_nodes)
    if not idle and _can_move(ctx, plan.hardware, claims, busy_nodes):
        idle = sorted(claims.live, key=index_of, reverse=True)[:1]
    pooled = [claim for claim in idle[:surplus] if is_of_pool(claims.pool, claim)]
    if pooled:
        await shrink_pool(ctx, plan, claims, replicas_of(claims) - len(pooled))
    for claim in idle[:surplus]:
        if claim not in pooled and await ctx.api.delete(claim):
            ctx.request.log.info("surplus claim deleted", claim=claim.name)
            ctx.request.event("Normal", f"{claim.kind}Released", f"deleted {claim.kind} {claim.name}: no longer needed")


def _surplus(claims: ClaimsReport) -> int:
    """Returns the number of nodes beyond the wanted number.

    A NodePool has one more claim than replicas while Karpenter replaces a node, which is not a surplus.
    """
    others = [claim for claim in claims.live if not is_of_pool(claims.pool, claim)]
    return replicas_of(claims) + len(others) - claims.wanted


def _can_move(ctx: ReconcileContext, hardware: Hardware, claims: ClaimsReport, busy_nodes: set[str | None]) -> bool:
    """Whether a copy may move to a preferred node: one is free, and no other claim is being deleted."""
    nodes = ctx.state.nodes
    if nodes is None or not may_replace(ctx.workspace, hardware, nodes) or any(each.deleting for each in claims.claims):
        return False
    free = [name for name in nodes.usable if labels.PREFERRED in nodes.by_name[name].labels and name not in busy_nodes]
    return bool(free)


def _is_complete(hardware: Hardware, workload: WorkloadReport) -> bool:
    """Whether the pods are those of the wanted copies, so that a node without a pod gets none later.

    Without copies, every node is given back once the last pod does not exist. A Workspace that was scaled to zero
    before its nodes were ready has no StatefulSet.
    """
    leaders, workers = workload.stateful_set, workload.workers
    if hardware.copies == 0:
        return not workload.pods and all(map(_is_empty, (leaders, workers)))
    if leaders is None or not workload.pods:
        return False
    is_complete = leaders.spec.replicas == hardware.copies == leaders.status.ready_replicas
    if hardware.is_group:
        is_complete = is_complete and workers is not None and workers.status.replicas == hardware.workers
    return is_complete


def _is_empty(stateful_set: StatefulSet | None) -> bool:
    """Whether no pod exists, according to a status of the current generation.

    A StatefulSet of generation 1 that has no replicas never had a pod.
    """
    if stateful_set is None:
        return True
    status, generation = stateful_set.status, stateful_set.metadata.generation
    is_observed = status.observed_generation >= generation or generation == 1
    return is_observed and stateful_set.spec.replicas == 0 == status.replicas


def _idle(claims: Sequence[Claim], busy_nodes: set[str | None]) -> list[Claim]:
    """Returns the claims whose node runs no pod of the Workspace, highest index first."""
    return sorted((claim for claim in claims if claim.status.node_name not in busy_nodes), key=index_of, reverse=True)
