"""Creates missing node claims, replaces lost ones, and deletes those that do not become ready.

`claim_policy` decides; this step reads the claims, writes the record, and carries out the decision.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from kaito.api import Claim, Machine, Workspace, conditions, labels
from kaito.api.karpenter import NodePool
from kaito.api.karpenter.conditions import AWAITING_RECONCILIATION
from kaito.runtime.client import MergePatch
from kaito.runtime.errors import AlreadyExists, ApiError, Conflict, NotFound
from kaito.runtime.kinds import Node
from kaito.runtime.meta import Condition
from kaito.workspace.claim_policy import MAX_CAUSE_CHARACTERS, ClaimDecision, ProvisionAttempts, decide
from kaito.workspace.claim_state import claim_state, last_claim_condition, wanted_claims
from kaito.workspace.context import ReconcileContext
from kaito.workspace.events import find_loss_cause
from kaito.workspace.failure import shorten
from kaito.workspace.indexes import claims_of
from kaito.workspace.manifests.claim import claim_kind, node_claim
from kaito.workspace.nodes import NodesReport
from kaito.workspace.ownership import owner_labels, owns_claim
from kaito.workspace.plan import Hardware, Plan
from kaito.workspace.state import ClaimsReport
from kaito.workspace.steps.alternatives import (
    check_current,
    is_moved,
    leave_after_loss,
    leave_instance_type,
    record_of_choice,
)
from kaito.workspace.steps.budget import (
    RETRY_SECONDS,
    find_excess,
    release_reservation,
    reservation,
    reserving,
)
from kaito.workspace.steps.node_class import find_node_class_problem, is_node_class_usable, last_node_class_note
from kaito.workspace.steps.tuning import find_ended_job, release_nodes

CAUSE_LOOKUP_SECONDS: Final = 10.0
"""Time after a loss for which its cause is looked up: an Event may arrive after the deletion that it explains."""
CAUSE_LOOKUP_INTERVAL_SECONDS: Final = 2.0

UNATTENDED_SECONDS: Final = 60.0
"""Time after which a claim without any condition is reported. Provisioners set the first one within a second."""

MAX_RECORD_ATTEMPTS: Final = 3
"""Attempts to write the record while other clients change the Workspace."""


async def ensure_claims(ctx: ReconcileContext, plan: Plan | None, nodes: NodesReport | None) -> ClaimsReport | None:
    """Creates, deletes and reports the Workspace's claims; returns None with existing nodes (`--node-api byo`)."""
    kind = claim_kind(ctx.settings.node_api)
    if kind is None:
        return None
    existing = await list_claims(ctx, kind)
    if plan is None and not ctx.is_read_only:
        await release_reservation(ctx, len(existing))
    if plan is None or ctx.is_read_only:
        return report_existing(ctx, existing, nodes)
    ended = await find_ended_job(ctx, plan)
    if ended is not None:
        # Nothing will run on the node any more: a node that is lost now is not replaced.
        ctx.state.claims = report = ClaimsReport(wanted=len(existing), claims=existing, complete=True)
        await release_nodes(ctx, report, ended)
        return report
    wanted = wanted_claims(plan.hardware, nodes, existing)
    ctx.state.claims = report = ClaimsReport(wanted=wanted, claims=existing, choice=plan.choice)
    if await leave_instance_type(ctx, report, plan):
        return report
    decision = await _decide_and_record(ctx, report, kind, nodes, plan)
    if await leave_after_loss(ctx, report, plan, decision.attempts):
        return report
    report.failures, report.loss_cause = decision.attempts.failures, decision.attempts.cause
    report.retry_at, report.terminating = decision.next_creation_at, decision.terminating
    if decision.requeue_at is not None:
        ctx.request.requeue_at(decision.requeue_at, "a claim is due")
    await delete_broken(ctx, report, decision.delete)
    if not decision.create or await is_node_class_usable(ctx, report):
        await _create_missing(ctx, report, decision, plan.hardware)
    report.node_class_note = last_node_class_note(ctx)
    _note_unattended(ctx, report)
    report.complete = True
    return report


def _note_unattended(ctx: ReconcileContext, report: ClaimsReport) -> None:
    """Notes the claims that no provisioner has reported on for `UNATTENDED_SECONDS`.

    Karpenter ignores claims of node classes that it does not support, without a condition and without an Event.
    """
    for claim in report.live:
        created = claim.metadata.creation_timestamp
        if claim.status.conditions or created is None:
            continue
        due = created + timedelta(seconds=UNATTENDED_SECONDS)
        if due <= ctx.now:
            report.unattended.append(claim.name)
        else:
            ctx.request.requeue_at(due, "a provisioner should have reported on the claim")


def report_existing(
    ctx: ReconcileContext, existing: Sequence[Claim], nodes: NodesReport | None, pool: NodePool | None = None
) -> ClaimsReport | None:
    """Reports the claims of a Workspace without a plan; returns None if it has none and is rejected."""
    is_rejected = ctx.state.plan_failure is not None
    if is_rejected and not existing:
        return None
    wanted = len(existing) if is_rejected else wanted_claims(ctx.state.hardware(ctx.workspace), nodes, existing)
    ctx.state.claims = report = ClaimsReport(wanted=wanted, claims=existing, pool=pool)
    return report


async def _decide_and_record(
    ctx: ReconcileContext, report: ClaimsReport, kind: type[Claim], nodes: NodesReport | None, plan: Plan
) -> ClaimDecision:
    """Decides and writes the record before anything is created, so that a crash in between costs a delay, not a node.

    Losses and replacements are decided with the claims, and deletions with the nodes, that the API server has, because
    the cache may be stale. The patch of the record contains the resource version of the Workspace that the decision is
    based on.

    Raises:
        Conflict: other clients keep changing the Workspace.
    """
    workspace = ctx.workspace
    for attempt in range(1, MAX_RECORD_ATTEMPTS + 1):
        decision = _decide(ctx, workspace, report, nodes)
        if decision.lost or decision.delete or decision.unconfirmed or (decision.create and decision.attempts.failures):
            report.claims = await list_claims(ctx, kind, live=True)
            nodes = await with_live_nodes(ctx, nodes, [claim for claim, _ in decision.delete])
            decision = _decide(ctx, workspace, report, nodes)
        if decision.unconfirmed:
            names = [name for name in decision.unconfirmed if await find_loss_cause(ctx.api, kind, name)]
            decision = _decide(ctx, workspace, report, nodes, confirmed=frozenset(names))
        decision = await _with_cause(ctx, kind, report, decision)
        try:
            async with reserving(ctx):
                report.over_budget = await find_excess(ctx, report, plan) if decision.create else ""
                if report.over_budget:
                    later = ctx.now + timedelta(seconds=RETRY_SECONDS)
                    decision = _decide(ctx, workspace, report, nodes, not_before=later)
                await write_record(
                    ctx, workspace, report, plan, attempts=decision.attempts, creates=bool(decision.create)
                )
        except Conflict:
            if attempt == MAX_RECORD_ATTEMPTS:
                raise
            current = await ctx.api.get(Workspace, workspace.name, workspace.namespace, consistency="live")
            if current.deleting or current.uid != workspace.uid or is_moved(workspace, current):
                raise
            workspace = current
        else:
            return decision
    raise AssertionError  # pragma: no cover -- the last attempt returns or raises


async def list_claims(ctx: ReconcileContext, kind: type[Claim], *, live: bool = False) -> list[Claim]:
    """Returns the Workspace's claims, sorted by name: from the cache, or with `live` from the API server."""
    if live:
        found = await ctx.api.list(kind, labels=owner_labels(ctx.workspace), consistency="live", unreadable="fail")
    else:
        found = await ctx.api.list(kind, index=claims_of(kind, ctx.workspace.key))
    return [claim for claim in found if owns_claim(ctx.workspace, claim)]


def _decide(
    ctx: ReconcileContext,
    workspace: Workspace,
    report: ClaimsReport,
    nodes: NodesReport | None,
    *,
    confirmed: frozenset[str] = frozenset(),
    not_before: datetime | None = None,
) -> ClaimDecision:
    state = claim_state(
        workspace,
        ctx.settings,
        now=ctx.now,
        wanted=report.wanted,
        claims=report.claims,
        nodes=nodes,
        confirmed=confirmed,
        choice=report.choice,
        not_before=not_before,
    )
    return decide(state, ctx.settings)


def _last_condition(ctx: ReconcileContext) -> Condition | None:
    return last_claim_condition(ctx.workspace, ctx.settings)


async def _with_cause(
    ctx: ReconcileContext, kind: type[Claim], report: ClaimsReport, decision: ClaimDecision
) -> ClaimDecision:
    """Adds the cause of a loss to the decision's record: from the decision, the claim's conditions, or its Events."""
    attempts = decision.attempts
    if not decision.lost and (attempts.cause or not attempts.is_replacement_pending):
        return decision
    cause = _known_cause(report, decision)
    for name in () if cause else decision.lost or attempts.lost:
        found = await find_loss_cause(ctx.api, kind, name)
        if found:
            cause = f"{kind.kind} {name}: {shorten(found)}"
            break
    if not cause:
        cause = await find_node_class_problem(ctx)  # Karpenter deletes the claims of a class that is not ready silently
    if not cause:
        started = attempts.backoff_started_at
        is_recent = started is not None and (ctx.now - started).total_seconds() < CAUSE_LOOKUP_SECONDS
        if decision.lost or is_recent:
            ctx.request.requeue_after(CAUSE_LOOKUP_INTERVAL_SECONDS, "an Event may contain the cause of a loss")
        return decision
    return replace(decision, attempts=replace(attempts, cause=cause[:MAX_CAUSE_CHARACTERS]))


def _known_cause(report: ClaimsReport, decision: ClaimDecision) -> str:
    """Returns why a claim was lost, from the decision or the claim's conditions; empty if unknown."""
    for claim, reason in decision.delete:
        if claim.name in decision.lost:
            return f"{claim.kind} {claim.name}: {_with_condition_message(reason, claim)}"
    for claim in report.claims:
        if claim.name in decision.lost and not claim.is_ready and (message := _with_condition_message("", claim)):
            return f"{claim.kind} {claim.name}: {message}"
    return ""


def _with_condition_message(reason: str, claim: Claim) -> str:
    """Appends the message of the claim's failed condition to a reason."""
    failed = _failed_stage(claim)
    message = "" if failed is None else failed.message or failed.reason
    return "; ".join(filter(None, (reason, shorten(message))))


def _failed_stage(claim: Claim) -> Condition | None:
    """Returns the first stage that is not True, if the provisioner has reported on it.

    Karpenter deletes a claim that it cannot launch before it reports on the launch. The later stages then contain that
    there is no node, which is not the cause.
    """
    for stage in claim.stages:
        condition = claim.condition(stage)
        if condition is not None and condition.is_true:
            continue
        return None if condition is None or condition.reason == AWAITING_RECONCILIATION else condition
    return None


async def write_record(
    ctx: ReconcileContext,
    workspace: Workspace,
    report: ClaimsReport,
    plan: Plan,
    *,
    attempts: ProvisionAttempts,
    creates: bool,
) -> None:
    """Writes the records to the Workspace if they differ.

    Args:
        ctx: of the reconcile.
        workspace: the Workspace that the decision is based on.
        report: the claims.
        plan: the planned nodes.
        attempts: the new record of losses.
        creates: whether nodes are requested after this.

    Raises:
        Conflict: the Workspace has changed since it was read.
    """
    annotations = await reservation(ctx, workspace, report, plan, creates=creates)
    annotations |= record_of_choice(workspace, plan, report, creates=creates)
    if attempts != ProvisionAttempts.from_annotations(workspace.annotations):
        annotations[labels.PROVISION_ATTEMPTS] = attempts.to_annotation()
    if annotations:
        metadata = {"annotations": annotations, "resourceVersion": workspace.metadata.resource_version}
        await ctx.api.patch(workspace, MergePatch({"metadata": metadata}))
    elif creates and plan.choice is not None:
        await check_current(ctx, workspace)


async def with_live_nodes(
    ctx: ReconcileContext, nodes: NodesReport | None, claims: Sequence[Claim]
) -> NodesReport | None:
    """Returns the report with the nodes of these claims as the API server has them.

    A claim is not given up for a state of its node that has ended and that the cache still contains.
    """
    if nodes is None or not claims:
        return nodes
    by_name = dict(nodes.by_name)
    for name in {claim.status.node_name: None for claim in claims if claim.status.node_name in by_name}:
        node = await ctx.api.find(Node, name, consistency="live")
        if node is None:
            del by_name[name]
        else:
            by_name[name] = node
    return replace(nodes, by_name=by_name)


async def delete_broken(ctx: ReconcileContext, report: ClaimsReport, broken: Sequence[tuple[Claim, str]]) -> None:
    """Deletes claims that do not become usable, each for a reason, and reports them.

    Raises:
        Conflict: a claim has changed since it was read: it may have become usable.
    """
    given_up: list[str] = []
    for claim, reason in broken:
        if await ctx.api.delete(claim, if_unchanged=True):
            ctx.request.log.warning("claim given up", claim=claim.name, reason=reason)
            ctx.request.event("Warning", f"{claim.kind}GivenUp", f"deleted {claim.kind} {claim.name}: {reason}")
        given_up.append(f"{claim.name}: {reason}")
    report.given_up = given_up


async def _create_missing(
    ctx: ReconcileContext, report: ClaimsReport, decision: ClaimDecision, hardware: Hardware
) -> None:
    """Creates the decided claims. A rejection is reported in the condition, and the reconcile is retried."""
    present: list[Claim] = []
    created: list[Claim] = []
    try:
        for index, serial in decision.create:
            wanted = node_claim(ctx.workspace, hardware, ctx.settings, index=index, serial=serial)
            try:
                claim, is_new = await _create(ctx, wanted)
            except ApiError as error:
                ctx.metrics.claim_creates.labels(wanted.kind, "error").inc()
                _record_creation_failure(ctx, report, wanted, error)
                break
            present.append(claim)
            created += [claim] if is_new else []
    finally:
        _record_created(ctx, created)
    if present:
        names = {claim.name for claim in present}
        others = [claim for claim in report.claims if claim.name not in names]
        report.claims = sorted([*others, *present], key=lambda claim: claim.name)


def _record_creation_failure(ctx: ReconcileContext, report: ClaimsReport, wanted: Claim, error: ApiError) -> None:
    """Reports the rejection of a claim, with an event unless the status already reports it."""
    reason = conditions.CLAIM_KIND_MISSING if isinstance(error, NotFound) else conditions.CLAIM_CREATE_FAILED
    message = f"{wanted.kind} {wanted.name} could not be created: {error.message}"
    report.failure = (reason, message)
    last = _last_condition(ctx)
    if last is None or last.reason != reason or not last.message.startswith(message):
        ctx.request.event("Warning", f"{wanted.kind}CreationFailed", error.message)
    ctx.deferred_errors.append(error)


def _record_created(ctx: ReconcileContext, created: Sequence[Claim]) -> None:
    """Records one event for the claims that replace or follow others. The status reports the first ones."""
    if not created:
        return
    kind, names = created[0].kind, ", ".join(claim.name for claim in created)
    record_unused_preferred(ctx, f"created {kind} {names} instead")
    if _last_condition(ctx) is None:
        return
    nodes = "a node" if len(created) == 1 else "nodes"
    note = f"created {kind} {names} for {nodes} of type {created[0].instance_type}"
    ctx.request.event("Normal", f"{kind}Created", note)


def record_unused_preferred(ctx: ReconcileContext, instead: str) -> None:
    """Records an event with the reason if nodes are bought that `preferredNodes` was to save."""
    if ctx.state.unused_preferred:
        ctx.request.event("Warning", "PreferredNodesNotUsed", "; ".join((*ctx.state.unused_preferred, instead)))


async def _create(ctx: ReconcileContext, wanted: Machine | Claim) -> tuple[Claim, bool]:
    """Creates a claim, or returns the one that an earlier attempt created, and whether it was created now.

    Raises:
        ApiError: the API server rejected the claim, or a claim of that name has another owner.
    """
    try:
        created = await ctx.api.create(wanted)
    except AlreadyExists:
        present = await ctx.api.get(type(wanted), wanted.name, consistency="live")
        if not owns_claim(ctx.workspace, present):
            raise
        return present, False
    ctx.metrics.claim_creates.labels(created.kind, "success").inc()
    ctx.request.log.info("claim created", claim=created.name, instance_type=created.instance_type)
    return created, True
