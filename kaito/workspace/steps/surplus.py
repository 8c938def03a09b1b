"""Deletes claims that are no longer needed, after the node count decreased or a preferred node was found.

Deletes only while the workload is complete, only claims whose node runs no pod of the Workspace, and only as many as
exceed the wanted number. A claim without a node counts as idle.
"""

from collections.abc import Sequence

from kaito.api import Claim
from kaito.workspace.claim_policy import index_of
from kaito.workspace.context import ReconcileContext
from kaito.workspace.plan import Plan
from kaito.workspace.state import ClaimsReport, WorkloadReport


async def delete_surplus_claims(
    ctx: ReconcileContext, plan: Plan | None, claims: ClaimsReport | None, workload: WorkloadReport | None
) -> None:
    """Deletes idle claims beyond the wanted number."""
    if plan is None or ctx.is_read_only or claims is None or workload is None:
        return
    stateful_set = workload.stateful_set
    if stateful_set is None or not workload.pods:
        return
    hardware = plan.hardware
    is_complete = stateful_set.spec.replicas == hardware.copies == stateful_set.status.ready_replicas
    if hardware.workers:
        is_complete = (
            is_complete and workload.workers is not None and workload.workers.status.replicas == hardware.workers
        )
    surplus = len(claims.live) - claims.wanted
    if not is_complete or surplus <= 0:
        return
    busy_nodes = {pod.spec.node_name for pod in workload.pods}
    for claim in _idle(claims.live, busy_nodes)[:surplus]:
        if await ctx.api.delete(claim):
            ctx.request.log.info("surplus claim deleted", claim=claim.name)
            ctx.request.event("Normal", f"{claim.kind}Released", f"deleted {claim.kind} {claim.name}: no longer needed")


def _idle(claims: Sequence[Claim], busy_nodes: set[str | None]) -> list[Claim]:
    """Returns the claims whose node runs no pod of the Workspace, highest index first."""
    return sorted((claim for claim in claims if claim.status.node_name not in busy_nodes), key=index_of, reverse=True)
