"""Step: ask for the nodes that are missing, replace claims that failed, and say why the others are not ready."""

import re
from collections.abc import Sequence
from dataclasses import replace

from kaito.api import Claim, Machine, Workspace, conditions, labels
from kaito.api.karpenter.conditions import AWAITING_RECONCILIATION
from kaito.runtime.client import MergePatch
from kaito.runtime.errors import AlreadyExists, ApiError, Conflict, NotFound
from kaito.runtime.meta import Condition, find_condition
from kaito.workspace.causes import why_lost
from kaito.workspace.claim_policy import CAUSE_LENGTH, Attempts, Decision, Situation, decide
from kaito.workspace.context import Pass
from kaito.workspace.indexes import claims_of
from kaito.workspace.manifests.claim import claim, claim_kind, claim_name
from kaito.workspace.ownership import owner_labels, owns
from kaito.workspace.plan import Hardware
from kaito.workspace.status import ClaimsReport, claim_condition_type
from kaito.workspace.steps.tuning import is_finished

_CREATION_REFUSED = frozenset({conditions.CLAIM_CREATE_FAILED, conditions.CLAIM_KIND_MISSING})
"""Reasons with which the last pass ended because the API server refused a claim."""

_COUNT = re.compile(r"\d{1,6} of (\d{1,6}) (?:machines|node claims) ready")
"""How the condition of the claims begins when they are in place."""

CAUSE_SECONDS = 10.0
"""How long after a loss its cause is looked for: an Event may arrive after the deletion that it explains."""
CAUSE_RETRY_SECONDS = 2.0

RECORD_TRIES = 3
"""Tries to write the record while others change the Workspace."""


async def ensure(run: Pass) -> None:
    """Create, give up and report claims. Nothing to do when the nodes are the user's own."""
    kind = claim_kind(run.settings.node_api)
    if kind is None:
        return
    existing = await _existing(run, kind)
    plan = run.plan
    if plan is None:
        if existing or run.seen.refusal is None:
            hardware = run.seen.hardware(run.workspace)
            wanted = len(existing) if run.seen.refusal else _wanted(run, hardware, existing)
            run.seen.claims = ClaimsReport(wanted=wanted, claims=existing)
        return
    if await is_finished(run, plan):
        # Nothing will run there any more: a node lost now is not bought again.
        run.seen.claims = ClaimsReport(wanted=len(existing), claims=existing, decided=True)
        return
    report = ClaimsReport(wanted=_wanted(run, plan.hardware, existing), claims=existing)
    run.seen.claims = report
    decision = await _decide_and_record(run, report, kind)
    report.failures, report.cause = decision.attempts.failures, decision.attempts.cause
    report.retry_at, report.leaving = decision.next_at, decision.leaving
    if decision.retry_at is not None:
        run.wake_at(decision.retry_at, "a claim is due")
    await _give_up(run, report, decision)
    await _create(run, report, decision, plan.hardware)
    report.decided = True


async def _decide_and_record(run: Pass, report: ClaimsReport, kind: type[Claim]) -> Decision:
    """Decide, and keep the record before anything is done, so that a crash in between costs a pause, not a node.

    Losses and replacements are decided on what the API server has, because the cache of a new process may be behind.
    The record is written for the version of the Workspace that it was read from.

    Raises:
        Conflict: others keep changing the Workspace.
    """
    workspace = run.workspace
    for attempt in range(1, RECORD_TRIES + 1):
        decision = _decide(run, workspace, report)
        if decision.lost or decision.unknown or (decision.create and decision.attempts.failures):
            report.claims = await _existing(run, kind, live=True)
            decision = _decide(run, workspace, report)
        if decision.unknown:
            proven = frozenset([name for name in decision.unknown if await why_lost(run.api, kind, name)])
            decision = _decide(run, workspace, report, proven)
        decision = await _with_cause(run, kind, report, decision)
        try:
            await _record(run, workspace, decision.attempts)
        except Conflict:
            if attempt == RECORD_TRIES:
                raise
            current = await run.api.get(Workspace, workspace.name, workspace.namespace, consistency="live")
            if current.deleting or current.uid != workspace.uid:
                raise
            workspace = current
        else:
            return decision
    raise AssertionError  # pragma: no cover -- the last try returns or raises


async def _existing(run: Pass, kind: type[Claim], *, live: bool = False) -> list[Claim]:
    if live:
        found = await run.api.list(kind, labels=owner_labels(run.workspace), consistency="live", unreadable="fail")
    else:
        found = await run.api.list(kind, index=claims_of(kind, run.workspace.key))
    return [each for each in found if owns(run.workspace, each)]


def _wanted(run: Pass, hardware: Hardware, existing: Sequence[Claim]) -> int:
    """Nodes to claim: all, less those the Workspace has without a claim (preferred ones, or labeled by hand)."""
    nodes = run.seen.nodes
    if nodes is None:
        return hardware.count
    claimed = {each.status.node_name for each in existing}
    provisioned = (labels.NODEPOOL, labels.PROVISIONER_NAME, labels.MANAGED_BY)
    free = [
        name
        for name in nodes.usable
        if name not in claimed and not any(key in run.seen.node_objects[name].labels for key in provisioned)
    ]
    return max(hardware.count - len(free), 0)


def _decide(run: Pass, workspace: Workspace, report: ClaimsReport, proven: frozenset[str] = frozenset()) -> Decision:
    last = _last_verdict(run, workspace)
    resources = find_condition(workspace.status.conditions, conditions.RESOURCE_READY)
    attempts = Attempts.read(workspace.annotations)
    situation = Situation(
        now=run.now,
        wanted=report.wanted,
        claims=report.claims,
        nodes=run.seen.node_objects,
        attempts=attempts,
        expected=_expected(workspace, last, attempts.serial),
        proven=proven,
        refused=last is not None and last.reason in _CREATION_REFUSED,
        ready_since=resources.last_transition_time
        if last and last.is_true and resources and resources.is_true
        else None,
        name=lambda index, serial: claim_name(workspace, index=index, serial=serial),
    )
    return decide(situation, run.settings)


def _expected(workspace: Workspace, last: Condition | None, serial: int) -> frozenset[str]:
    """Names of the claims that the last pass left in place.

    A CRD of an earlier version drops `status.claims`. The condition then still contains their number, and the names
    of the current serial stand for them: without any name no loss would ever be counted.
    """
    if last is None:
        return frozenset()
    if workspace.status.claims:
        return frozenset(workspace.status.claims)
    counted = _COUNT.match(last.message)
    if counted is None or last.status == "Unknown" or last.reason == conditions.CLAIM_REPLACEMENT_PENDING:
        return frozenset()
    wanted = min(int(counted.group(1)), workspace.status.target_node_count)
    return frozenset(claim_name(workspace, index=index, serial=serial) for index in range(wanted))


def _last_verdict(run: Pass, workspace: Workspace) -> Condition | None:
    """What the last pass reported about claims of the configured kind."""
    return find_condition(workspace.status.conditions, claim_condition_type(run.settings.node_api))


async def _with_cause(run: Pass, kind: type[Claim], report: ClaimsReport, decision: Decision) -> Decision:
    """The decision with the cause of the loss in its record: what the claim, its Events, or the last pass know."""
    attempts = decision.attempts
    if not decision.lost and (attempts.cause or not attempts.pending):
        return decision
    cause = _known_cause(report, decision)
    for name in () if cause else decision.lost or attempts.lost:
        found = await why_lost(run.api, kind, name)
        if found:
            cause = f"{kind.kind} {name}: {found}"
            break
    if not cause:
        recent = attempts.since is not None and (run.now - attempts.since).total_seconds() < CAUSE_SECONDS
        if decision.lost or recent:
            run.wake(CAUSE_RETRY_SECONDS, "the cause of a loss may be in an Event")
        return decision
    return replace(decision, attempts=replace(attempts, cause=cause[:CAUSE_LENGTH]))


def _known_cause(report: ClaimsReport, decision: Decision) -> str:
    """Why a claim was lost, from the controller's own decision or the claim's conditions; empty when unknown."""
    for given_up, why in decision.give_up:
        if given_up.name in decision.lost:
            return f"{given_up.kind} {given_up.name}: {_with_words(why, given_up)}"
    for each in report.claims:
        if each.name in decision.lost and not each.is_ready and (message := _with_words("", each)):
            return f"{each.kind} {each.name}: {message}"
    return ""


def _with_words(why: str, claim: Claim) -> str:
    """The reason in words, with what the claim's own conditions add."""
    trouble = claim.trouble()
    message = "" if trouble is None or trouble.reason == AWAITING_RECONCILIATION else trouble.message or trouble.reason
    return "; ".join(filter(None, (why, message)))


async def _record(run: Pass, workspace: Workspace, attempts: Attempts) -> None:
    """Keep the record on the Workspace, if it differs from the one there.

    Raises:
        Conflict: the Workspace has changed since it was read.
    """
    if attempts == Attempts.read(workspace.annotations):
        return
    metadata = {
        "annotations": {labels.PROVISION_ATTEMPTS: attempts.write()},
        "resourceVersion": workspace.metadata.resource_version,
    }
    await run.api.patch(workspace, MergePatch({"metadata": metadata}))


async def _give_up(run: Pass, report: ClaimsReport, decision: Decision) -> None:
    reasons: list[str] = []
    for each, why in decision.give_up:
        if await run.api.delete(each):
            run.request.log.warning("claim given up", claim=each.name, why=why)
            run.request.event("Warning", f"{each.kind}GivenUp", f"deleted {each.kind} {each.name}: {why}")
        reasons.append(f"{each.name}: {why}")
    report.given_up = reasons


async def _create(run: Pass, report: ClaimsReport, decision: Decision, hardware: Hardware) -> None:
    """Create what the decision says. A refusal becomes the condition's words; the pass goes on and is retried."""
    created: list[Claim] = []
    for index, serial in decision.create:
        wanted = claim(run.workspace, hardware, run.settings, index=index, serial=serial)
        try:
            created.append(await _create_one(run, wanted))
        except ApiError as refused:
            run.metrics.claim_creates.labels(wanted.kind, "error").inc()
            missing_kind = isinstance(refused, NotFound)
            reason = conditions.CLAIM_KIND_MISSING if missing_kind else conditions.CLAIM_CREATE_FAILED
            report.failure = (reason, f"{wanted.kind} {wanted.name} could not be created: {refused.message}")
            last = _last_verdict(run, run.workspace)
            if last is None or last.reason != reason or not last.message.startswith(report.failure[1]):
                run.request.event("Warning", f"{wanted.kind}CreationFailed", refused.message)
            run.errors.append(refused)
            break
    if created:
        names = {each.name for each in created}
        others = [each for each in report.claims if each.name not in names]
        report.claims = sorted([*others, *created], key=lambda each: each.name)


async def _create_one(run: Pass, wanted: Machine | Claim) -> Claim:
    """Create one claim, or find the one that an earlier attempt made.

    Raises:
        ApiError: the server refused, or the name is taken by a claim of somebody else.
    """
    try:
        made = await run.api.create(wanted)
    except AlreadyExists:
        present = await run.api.get(type(wanted), wanted.name, consistency="live")
        if not owns(run.workspace, present):
            raise
        return present
    run.metrics.claim_creates.labels(made.kind, "success").inc()
    run.request.log.info("claim created", claim=made.name, instance_type=made.instance_type)
    note = f"created {made.kind} {made.name} for a node of type {made.instance_type}"
    run.request.event("Normal", f"{made.kind}Created", note)
    return made
