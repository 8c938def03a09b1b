"""Keeps the NodePool of a Workspace (`--node-api karpenter`), from which Karpenter creates its NodeClaims.

`pool_policy` decides about the number of nodes. This step reads pool and claims, writes the record of losses before the
pool grows, and applies the pool in each reconcile: a change of the node class therefore reaches it whenever it arrives,
and Karpenter then replaces one node at a time, the new one first. Nothing is sent while the pool does not differ.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from kaito.api import Claim, NodeClaim, conditions, labels
from kaito.api.karpenter import NodePool
from kaito.runtime.errors import ApiError, Conflict, NotFound
from kaito.workspace.claim_policy import MAX_CAUSE_CHARACTERS, find_broken
from kaito.workspace.claim_state import claim_state, last_claim_condition, pool_state, wanted_claims
from kaito.workspace.context import ReconcileContext
from kaito.workspace.events import find_loss_cause
from kaito.workspace.failure import shorten
from kaito.workspace.manifests.node_pool import node_pool, node_pool_name, permits_drift
from kaito.workspace.nodes import NodesReport
from kaito.workspace.ownership import owns_pool
from kaito.workspace.plan import Plan
from kaito.workspace.pool_policy import PoolDecision, decide_pool
from kaito.workspace.state import ClaimsReport
from kaito.workspace.steps.alternatives import leave_after_loss, leave_instance_type
from kaito.workspace.steps.budget import RETRY_SECONDS, find_excess, release_reservation, reserving
from kaito.workspace.steps.claims import (
    delete_broken,
    list_claims,
    record_unused_preferred,
    report_existing,
    with_live_nodes,
    write_record,
)
from kaito.workspace.steps.drift import may_drift
from kaito.workspace.steps.node_class import find_node_class_problem, is_node_class_usable, last_node_class_note
from kaito.workspace.steps.tuning import find_ended_job, release_nodes

UNATTENDED_SECONDS: Final = 60.0
"""Time after which a pool without a claim is reported. Karpenter creates the claims within a second."""

_READY: Final = "Ready"


async def ensure_pool(ctx: ReconcileContext, plan: Plan | None, nodes: NodesReport | None) -> ClaimsReport | None:
    """Applies the Workspace's pool, and reports its claims."""
    claims = await list_claims(ctx, NodeClaim)
    pool = await find_pool(ctx)
    if plan is None and not ctx.is_read_only:
        await release_reservation(ctx, len(claims))
    if plan is None or ctx.is_read_only:
        return report_existing(ctx, claims, nodes, pool)
    ended = await find_ended_job(ctx, plan)
    if ended is not None:
        ctx.state.claims = report = ClaimsReport(wanted=len(claims), claims=claims, pool=pool, complete=True)
        await release_nodes(ctx, report, ended)
        return report
    wanted = wanted_claims(plan.hardware, nodes, claims)
    ctx.state.claims = report = ClaimsReport(wanted=wanted, claims=claims, pool=pool, choice=plan.choice)
    if await leave_instance_type(ctx, report, plan):
        return report
    decision = await _decide_and_record(ctx, report, plan)
    if await leave_after_loss(ctx, report, plan, decision.attempts):
        return report
    report.failures, report.loss_cause = decision.attempts.failures, decision.attempts.cause
    report.retry_at = decision.next_creation_at
    if decision.requeue_at is not None:
        ctx.request.requeue_at(decision.requeue_at, "the node pool may grow")
    await _apply(ctx, report, decision, plan)
    await _replace_broken(ctx, report, nodes, plan)
    _note_pool(ctx, report)
    report.node_class_note = report.node_class_note or last_node_class_note(ctx)
    report.complete = True
    return report


async def find_pool(ctx: ReconcileContext) -> NodePool | None:
    """Returns the Workspace's pool; None if it does not exist."""
    pool = await ctx.api.find(NodePool, node_pool_name(ctx.workspace))
    return pool if pool is not None and not pool.deleting and owns_pool(ctx.workspace, pool) else None


def is_of_pool(pool: NodePool | None, claim: Claim) -> bool:
    """Whether Karpenter created the claim from the pool."""
    return pool is not None and claim.labels.get(labels.NODEPOOL) == pool.name


def replicas_of(report: ClaimsReport) -> int:
    """Returns the number of nodes in the pool's spec; 0 without a pool."""
    return (report.pool.spec.replicas or 0) if report.pool is not None else 0


async def shrink_pool(ctx: ReconcileContext, plan: Plan, report: ClaimsReport, replicas: int) -> None:
    """Lowers the number of nodes. Karpenter deletes claims without an instance first, then nodes without pods."""
    before = replicas_of(report)
    drifts = report.pool is not None and permits_drift(report.pool)
    report.pool = await ctx.api.ensure(_wanted_pool(ctx, report, plan, replicas, drifts=drifts))
    ctx.request.log.info("node pool shrunk", pool=report.pool.name, before=before, after=replicas)
    note = f"NodePool {report.pool.name} has {replicas} instead of {before} nodes: no longer needed"
    ctx.request.event("Normal", "NodePoolShrunk", note)


async def _decide_and_record(ctx: ReconcileContext, report: ClaimsReport, plan: Plan) -> PoolDecision:
    """Decides, and writes the record of losses and the reservation of the budget before the pool grows.

    Raises:
        Conflict: the Workspace has changed since it was read; the reconcile is repeated.
    """
    later = plan.choice.resume_at if plan.choice is not None else None
    decision = await _with_cause(ctx, _decide(ctx, report, not_before=later))
    async with reserving(ctx):
        report.over_budget = await find_excess(ctx, report, plan) if decision.grows else ""
        if report.over_budget:
            blocked = _decide(ctx, report, not_before=ctx.now + timedelta(seconds=RETRY_SECONDS))
            decision = replace(blocked, attempts=decision.attempts, lost=decision.lost)
        await write_record(ctx, ctx.workspace, report, plan, attempts=decision.attempts, creates=decision.grows)
    return decision


def _decide(ctx: ReconcileContext, report: ClaimsReport, *, not_before: datetime | None) -> PoolDecision:
    state = pool_state(
        ctx.workspace, ctx.settings, now=ctx.now, wanted=report.wanted, claims=report.live, pool=report.pool,
        not_before=not_before,
    )  # fmt: skip
    return decide_pool(state)


async def _with_cause(ctx: ReconcileContext, decision: PoolDecision) -> PoolDecision:
    """Adds the cause of a loss: from the claim's Events, else from the node class."""
    attempts = decision.attempts
    if not decision.lost and (attempts.cause or not attempts.failures):
        return decision
    cause = ""
    for name in decision.lost or attempts.lost:
        if found := await find_loss_cause(ctx.api, NodeClaim, name):
            cause = f"NodeClaim {name}: {shorten(found)}"
            break
    if not cause and decision.lost:
        cause = await find_node_class_problem(ctx)
    return replace(decision, attempts=replace(attempts, cause=(cause or attempts.cause)[:MAX_CAUSE_CHARACTERS]))


async def _apply(ctx: ReconcileContext, report: ClaimsReport, decision: PoolDecision, plan: Plan) -> None:
    """Applies the pool if it may exist; a rejection is reported in the condition, and the reconcile is retried."""
    if decision.replicas is None:
        return
    if decision.grows and not await is_node_class_usable(ctx, report):
        return
    drifts = await may_drift(ctx, report, plan)
    wanted = _wanted_pool(ctx, report, plan, decision.replicas, drifts=drifts)
    changed_class = report.pool is not None and report.pool.spec.template.spec.node_class_ref != (
        wanted.spec.template.spec.node_class_ref
    )
    if changed_class and not decision.grows and (problem := await find_node_class_problem(ctx)):
        # The nodes that exist stay: with an unusable class, Karpenter could neither replace nor add one.
        report.node_class_note = f"the node class is not changed: {problem}"
        ctx.request.requeue_after(RETRY_SECONDS, "the node class is not usable")
        return
    try:
        applied = await ctx.api.ensure(wanted)
    except ApiError as error:
        if isinstance(error, Conflict):
            raise
        reason = conditions.CLAIM_KIND_MISSING if isinstance(error, NotFound) else conditions.NODE_POOL_REFUSED
        report.failure = reason, f"NodePool {wanted.name} could not be applied: {error.message}"
        ctx.deferred_errors.append(error)
        return
    if report.pool is None or applied.metadata.generation != report.pool.metadata.generation:
        node_class = str(wanted.spec.template.spec.node_class_ref)
        ctx.request.log.info("node pool applied", pool=wanted.name, replicas=decision.replicas, node_class=node_class)
        if decision.grows:
            record_unused_preferred(ctx, f"NodePool {wanted.name} grows to {decision.replicas} instead")
    report.pool = applied


def _wanted_pool(ctx: ReconcileContext, report: ClaimsReport, plan: Plan, replicas: int, *, drifts: bool) -> NodePool:
    return node_pool(
        ctx.workspace, plan.hardware, ctx.settings, replicas=replicas, may_drift=drifts, present=report.pool
    )


async def _replace_broken(ctx: ReconcileContext, report: ClaimsReport, nodes: NodesReport | None, plan: Plan) -> None:
    """Deletes claims that do not become usable; Karpenter replaces them, or the pool is paused after the next loss.

    A claim that drifts is left to Karpenter, which creates the new node first.
    """
    broken, deadlines = _find_broken(ctx, report, nodes, plan)
    if broken:
        report.claims = await list_claims(ctx, NodeClaim, live=True)  # the cache may be stale
        nodes = await with_live_nodes(ctx, nodes, [claim for claim, _ in broken])
        broken, deadlines = _find_broken(ctx, report, nodes, plan)
    if deadlines:
        ctx.request.requeue_at(min(deadlines), "a claim is due")
    await delete_broken(ctx, report, broken)


def _find_broken(
    ctx: ReconcileContext, report: ClaimsReport, nodes: NodesReport | None, plan: Plan
) -> tuple[list[tuple[Claim, str]], list[datetime]]:
    state = claim_state(
        ctx.workspace, ctx.settings, now=ctx.now, wanted=report.wanted, claims=report.claims, nodes=nodes,
        choice=plan.choice,
    )  # fmt: skip
    return find_broken(state, ctx.settings)


def _note_pool(ctx: ReconcileContext, report: ClaimsReport) -> None:
    """Reports why a pool has no claims, and which of its nodes Karpenter replaces."""
    pool = report.pool
    drifted = [claim.name for claim in report.live if claim.is_drifted]
    if drifted and not report.pool_note:
        report.pool_note = (
            f"Karpenter replaces one node at a time, because they differ from the NodePool: {', '.join(drifted)}"
        )
    if pool is None or report.failure is not None or report.retry_at is not None or report.live or not report.wanted:
        return
    ready = pool.condition(_READY)
    if ready is not None and ready.status == "False":
        causes = [c for c in pool.status.conditions if c.status == "False" and c.type != _READY] or [ready]
        text = "; ".join(f"{c.type}: {': '.join(filter(None, (c.reason, c.message)))}" for c in causes)
        report.failure = conditions.NODE_POOL_NOT_READY, f"NodePool {pool.name} is not Ready: {text}"
        return
    last = last_claim_condition(ctx.workspace, ctx.settings)
    since = [pool.metadata.creation_timestamp, last.last_transition_time if last is not None else None]
    begun = max((time for time in since if time is not None), default=ctx.now)
    due = begun + timedelta(seconds=UNATTENDED_SECONDS)
    if due > ctx.now:
        ctx.request.requeue_at(due, "Karpenter should have created claims")
        return
    node_class = pool.spec.template.spec.node_class_ref
    message = (
        f"Karpenter has created no NodeClaim for NodePool {pool.name} within {UNATTENDED_SECONDS:.0f} s: check that "
        f"Karpenter for node class {node_class} runs, with the feature gate StaticCapacity=true"
    )
    report.failure = conditions.NODE_POOL_IGNORED, message
