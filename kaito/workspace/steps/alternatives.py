"""Moves a Workspace to the next of its instance types if the cloud is out of the chosen one.

A move writes the record first: the stock-out, and the names of the claims that are given up, so that a crash in between
neither counts them as losses nor tries the same offering again. Then it deletes the claims. The next reconcile plans
the next instance type, and creates its claims when those of the former one do not exist any more.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from kaito.api import Claim, Workspace, conditions, labels
from kaito.api.karpenter.conditions import UNAVAILABLE_MESSAGE
from kaito.models.alternatives import alternatives
from kaito.models.instance_types import same_size
from kaito.runtime.client import MergePatch
from kaito.runtime.errors import Conflict
from kaito.workspace.alternatives import (
    AlternativesRecord,
    Choice,
    SelectionInputs,
    choose,
    has_launched,
    keys_of_claim,
    refusal,
    refusal_in,
)
from kaito.workspace.claim_policy import ProvisionAttempts
from kaito.workspace.context import ReconcileContext
from kaito.workspace.failure import shorten
from kaito.workspace.indexes import claims_of
from kaito.workspace.manifests.claim import claim_kind
from kaito.workspace.ownership import owner_labels, owns_claim
from kaito.workspace.plan import Plan
from kaito.workspace.state import ClaimsReport
from kaito.workspace.steps.budget import read_limits
from kaito.workspace.steps.release import release_claims

_NEXT_ATTEMPT: Final = re.compile(r"; next attempt at \S+$")

MIN_USABLE: Final = 2
"""Number of alternatives below which claims stay: the provisioner retries the only one."""


async def selection_inputs(ctx: ReconcileContext) -> SelectionInputs:
    """Returns what the choice depends on: the record, the claims in the cache, and the limits of the cost."""
    workspace = ctx.workspace
    kind = claim_kind(ctx.settings.node_api)
    limits = await read_limits(ctx)
    if kind is None or not (alternatives(workspace) or limits):
        return SelectionInputs()
    found = await ctx.api.list(kind, index=claims_of(kind, workspace.key))
    return SelectionInputs(
        record=AlternativesRecord.from_annotations(workspace.annotations),
        claims=tuple(claim for claim in found if owns_claim(workspace, claim)),
        now=ctx.now,
        limits=limits,
    )


async def leave_instance_type(ctx: ReconcileContext, report: ClaimsReport, plan: Plan) -> bool:
    """Moves to another instance type if the annotation requests it, or if the cloud refuses the claims that exist.

    Returns:
        Whether it moved: the claims are being deleted, and nothing is created in this reconcile.

    Raises:
        Conflict: the Workspace has changed since it was read.
    """
    choice = plan.choice
    if choice is None:
        return False
    if labels.REPLAN in ctx.workspace.annotations:
        return await _replan(ctx, report, choice)
    if not _may_move(choice, plan, report) or not any(refusal(claim) for claim in report.live):
        return False
    report.claims = await _list_live(ctx, report.live[0])
    refused = [(claim, cause) for claim in report.live if (cause := refusal(claim)) is not None]
    if not refused or not _may_move(choice, plan, report):
        return False
    record = AlternativesRecord.from_annotations(ctx.workspace.annotations)
    claim, (reason, message) = refused[0]
    keys = dict.fromkeys(key for each, _ in refused for key in keys_of_claim(each))
    record = record.with_stock_out(keys, reason, _without_next_attempt(message), now=ctx.now)
    if plan.hardware.on_demand_copies and record.paused(choice.candidate.keys, ctx.now) is None:
        return False  # refused for `onDemandCopies` only; the provisioner retries
    await _move(
        ctx, report, choice, record, f"{claim.kind} {claim.name}: {reason}: {shorten(_without_next_attempt(message))}"
    )
    return True


async def leave_after_loss(
    ctx: ReconcileContext, report: ClaimsReport, plan: Plan, attempts: ProvisionAttempts
) -> bool:
    """Moves to another instance type if claims were lost because the cloud is out of it; see `leave_instance_type`.

    Karpenter deletes a claim that it cannot launch, and reports the cause in an Event.
    """
    choice = plan.choice
    reason = refusal_in(attempts.cause)
    if choice is None or not reason or not attempts.is_replacement_pending or not _may_move(choice, plan, report):
        return False
    # The record of attempts was written in this reconcile.
    current = await ctx.api.get(Workspace, ctx.workspace.name, ctx.workspace.namespace, consistency="live")
    record = AlternativesRecord.from_annotations(current.annotations)
    record = record.with_stock_out(choice.candidate.keys, reason, attempts.cause, now=ctx.now)
    await _move(ctx, report, choice, record, attempts.cause, workspace=current)
    return True


def _without_next_attempt(message: str) -> str:
    """Returns a provisioner's message without the time of its next attempt, which does not happen."""
    return _NEXT_ATTEMPT.sub("", message.removeprefix(f"{UNAVAILABLE_MESSAGE}: "))


def _may_move(choice: Choice, plan: Plan, report: ClaimsReport) -> bool:
    """Whether nodes are wanted, there is another alternative, and not even one copy of the model has its nodes."""
    others = plan.hardware.count - report.wanted
    launched = sum(has_launched(claim) for claim in report.live)
    return report.wanted > 0 and choice.usable >= MIN_USABLE and launched + others < plan.hardware.nodes_per_copy


async def _list_live(ctx: ReconcileContext, claim: Claim) -> Sequence[Claim]:
    found = await ctx.api.list(type(claim), labels=owner_labels(ctx.workspace), consistency="live", unreadable="fail")
    return [each for each in found if owns_claim(ctx.workspace, each)]


async def _replan(ctx: ReconcileContext, report: ClaimsReport, choice: Choice) -> bool:
    """Chooses again without regard to claims and stock-outs.

    The annotation is removed when the claims of the former instance type are deleted: after a crash in between, claims
    with an instance would decide again, and the request would be lost.
    """
    first = choose(choice.candidates, AlternativesRecord(), (), now=None)
    current = choice.candidate.instance_type
    if first is None or same_size(first.candidate.instance_type, current):
        record = AlternativesRecord(chosen=current)
        annotations = {labels.REPLAN: None, labels.ALTERNATIVES: record.to_annotation()}
        metadata = {"annotations": annotations, "resourceVersion": ctx.workspace.metadata.resource_version}
        await ctx.api.patch(ctx.workspace, MergePatch({"metadata": metadata}))
        ctx.request.event("Normal", "Replanned", f"the instance type is {current}")
        return True
    await _move(ctx, report, choice, AlternativesRecord(), f"annotation {labels.REPLAN} is set", is_done=False)
    return True


async def _move(
    ctx: ReconcileContext,
    report: ClaimsReport,
    choice: Choice,
    record: AlternativesRecord,
    cause: str,
    *,
    workspace: Workspace | None = None,
    is_done: bool = True,
) -> None:
    """Writes the record, deletes the claims, and reports the move.

    Args:
        ctx: of the reconcile.
        report: the claims.
        choice: the instance type that is left.
        record: the new record.
        cause: why it is left.
        workspace: the Workspace as it was read; that of the reconcile by default.
        is_done: whether a request to choose again is removed.

    Raises:
        Conflict: the Workspace has changed since it was read.
    """
    workspace = workspace or ctx.workspace
    before = ProvisionAttempts.from_annotations(workspace.annotations)
    gone = {claim.name for claim in report.claims} | set(workspace.status.claims)
    # A new series: the next instance type is tried without the backoff of the former one.
    attempts = ProvisionAttempts(serial=before.serial + 1, lost=tuple(sorted(gone)))
    metadata = {
        "annotations": {
            labels.ALTERNATIVES: record.to_annotation(),
            labels.PROVISION_ATTEMPTS: attempts.to_annotation(),
            **({labels.REPLAN: None} if is_done else {}),
        },
        "resourceVersion": workspace.metadata.resource_version,
    }
    await ctx.api.patch(workspace, MergePatch({"metadata": metadata}))
    former = choice.candidate.instance_type
    message = f"{former} is not used any more: {cause}; the next instance type is tried"
    ctx.request.event("Warning", conditions.INSTANCE_TYPE_REFUSED, message)
    ctx.request.log.warning("instance type left", instance_type=former, cause=cause)
    await release_claims(ctx, report.live)
    report.failure = (conditions.INSTANCE_TYPE_REFUSED, message)
    report.claims = [claim for claim in report.claims if claim.deleting]
    report.complete = True


def record_of_choice(workspace: Workspace, plan: Plan, report: ClaimsReport, *, creates: bool) -> dict[str, str]:
    """Returns the annotation with the choice if the stored one differs. It is written before claims are created.

    An offering that the cloud provided is removed from the record.
    """
    if plan.choice is None:
        return {}
    before = AlternativesRecord.from_annotations(workspace.annotations)
    record = before.without(key for claim in report.ready for key in keys_of_claim(claim))
    if creates:
        record = replace(record, chosen=plan.choice.candidate.instance_type)
    elif plan.hardware.count == 0 and not report.claims:
        record = replace(record, chosen="")  # scaled to zero: the next start begins with the first alternative
    return {} if record == before else {labels.ALTERNATIVES: record.to_annotation()}


def is_moved(before: Workspace, current: Workspace) -> bool:
    """Whether the record of the alternatives changed, so that a plan may be for another instance type."""
    return current.annotations.get(labels.ALTERNATIVES) != before.annotations.get(labels.ALTERNATIVES)


async def check_current(ctx: ReconcileContext, workspace: Workspace) -> None:
    """Checks that the cache had the current Workspace, because a stale record names another instance type.

    Raises:
        Conflict: it has changed.
    """
    current = await ctx.api.get(Workspace, workspace.name, workspace.namespace, consistency="live")
    if is_moved(workspace, current):
        raise Conflict(f"Workspace {workspace.name} has another record of alternatives than the cache", code=409)
