"""Decides when nodes of a Workspace that differ from its NodePool may be replaced.

Karpenter replaces nodes of every pool whose template, node class or image changed, each new node first. A copy does not
answer while it moves to its new node. The next node is therefore replaced after all copies are Ready again, unless no
copy is. The Workspaces of a set take turns: one of them has a disruption budget for drift, and only while all others
serve.
"""

from typing import Final

from kaito.api import NodeClaim, Workspace, conditions
from kaito.api.karpenter import NodePool
from kaito.runtime.kinds import StatefulSet
from kaito.runtime.meta import find_condition
from kaito.workspace.context import ReconcileContext
from kaito.workspace.indexes import claims_of, set_of
from kaito.workspace.manifests.node_pool import node_pool_name, permits_drift
from kaito.workspace.ownership import inference_set_name, owns_claim
from kaito.workspace.plan import Plan
from kaito.workspace.state import ClaimsReport

RESYNC_SECONDS: Final = 15.0
"""Interval at which a Workspace whose nodes differ is reconciled until it has its turn."""


async def may_drift(ctx: ReconcileContext, report: ClaimsReport, plan: Plan) -> bool:
    """Whether Karpenter may replace a node of the Workspace now; otherwise notes what it waits for."""
    drifts = any(claim.is_drifted for claim in report.live)
    workload = await ctx.api.find(StatefulSet, ctx.workspace.name, ctx.workspace.namespace)
    if workload is not None and 0 < workload.status.ready_replicas < plan.hardware.copies:
        if drifts:
            report.pool_note = "the next node that differs from the NodePool is replaced when all copies are Ready"
        return False
    if not inference_set_name(ctx.workspace):
        return True
    if not drifts:
        return False
    ctx.request.requeue_after(RESYNC_SECONDS, "the nodes differ from the node pool")
    for other in await ctx.api.list(Workspace, index=set_of(ctx.workspace), unreadable="skip"):
        if other.uid == ctx.workspace.uid or other.deleting:
            continue
        if obstacle := await _obstacle(ctx, report, other):
            report.pool_note = f"the nodes differ from the NodePool, and are replaced when Workspace {obstacle}"
            return False
    return True


async def _obstacle(ctx: ReconcileContext, report: ClaimsReport, other: Workspace) -> str:
    """Returns what another Workspace of the set must do before; empty if it is not waited for.

    A Workspace that has its turn keeps it: Karpenter may have begun with its node, and marks the claims of the others
    one after the other.
    """
    found = await ctx.api.list(NodeClaim, index=claims_of(NodeClaim, other.key))
    claims = [claim for claim in found if owns_claim(other, claim)]
    drifts = any(claim.is_drifted for claim in claims if not claim.deleting)
    pool = await ctx.api.find(NodePool, node_pool_name(other))
    has_turn, is_other_turn = (each is not None and permits_drift(each) for each in (report.pool, pool))
    is_other_first = other.name < ctx.workspace.name if has_turn == is_other_turn else is_other_turn
    if any(claim.deleting for claim in claims) or (drifts and is_other_first):
        return f"{other.name} has its new nodes"
    serving = find_condition(other.status.conditions, conditions.INFERENCE_READY)
    return "" if serving is not None and serving.is_true else f"{other.name} serves"
