"""Step: give back nodes that nothing runs on any more, after the node count went down or a preferred node was found.

Careful rather than quick: only while the workload is complete, only claims on whose node none of its pods is, and only
as many as are too many. A claim whose node is not known yet counts as idle: nothing can run there.
"""

from collections.abc import Sequence

from kaito.api import Claim
from kaito.workspace.claim_policy import index_of
from kaito.workspace.context import Pass


async def release(run: Pass) -> None:
    """Delete claims beyond the number wanted."""
    report, workload = run.seen.claims, run.seen.workload
    if report is None or run.plan is None or workload is None or not run.seen.pods:
        return
    settled = workload.spec.replicas == run.plan.hardware.count == workload.status.ready_replicas
    excess = len(report.live) - report.wanted
    if not settled or excess <= 0:
        return
    busy = {pod.spec.node_name for pod in run.seen.pods}
    for claim in _idle(report.live, busy)[:excess]:
        if await run.api.delete(claim):
            run.request.log.info("surplus claim deleted", claim=claim.name)
            run.request.event("Normal", f"{claim.kind}Released", f"deleted {claim.kind} {claim.name}: no longer needed")


def _idle(claims: Sequence[Claim], busy: set[str | None]) -> list[Claim]:
    """Claims without a pod of the Workspace on their node, the last place first."""
    return sorted((claim for claim in claims if claim.status.node_name not in busy), key=index_of, reverse=True)
