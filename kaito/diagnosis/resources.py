"""Finds the causes among the claims and the nodes of a Workspace."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from kaito.api import Claim, NodeClaim, conditions
from kaito.api.karpenter import conditions as stages
from kaito.diagnosis.advice import ADVICE, specific_reason
from kaito.diagnosis.deletion import describe_deployment
from kaito.diagnosis.finding import Finding, cause_of, workspace_finding
from kaito.diagnosis.result import NO_PROVISIONER, Cause, NextStep
from kaito.diagnosis.situation import LaunchRecord, Situation, next_time, without_next_time
from kaito.runtime.kinds import Node
from kaito.runtime.meta import Condition

UNATTENDED_SECONDS: Final = 60.0
"""Time after which a claim without any condition is one that no provisioner processes."""

CREATION_REASONS: Final = frozenset(
    {
        conditions.CLAIM_CREATE_FAILED,
        conditions.CLAIM_KIND_MISSING,
        conditions.ALTERNATIVES_EXHAUSTED,
        conditions.BUDGET_EXCEEDED,
        conditions.NODE_CLASS_KIND_MISSING,
        conditions.NODE_CLASS_NOT_FOUND,
        conditions.NODE_CLASS_NOT_READY,
        conditions.NODE_POOL_IGNORED,
        conditions.NODE_POOL_NOT_READY,
        conditions.NODE_POOL_REFUSED,
    }
)
"""Reasons for which no claim exists: only the Workspace reports them."""

_LOST: Final = frozenset({conditions.CLAIM_REPLACEMENT_PENDING, conditions.PROVISION_TIMEOUT})


def find_claims(situation: Situation) -> Finding | None:
    """Returns why claims are missing or not ready; None if they are, or if the Workspace has none."""
    condition = situation.claim_condition
    if condition is not None and not condition.is_true and condition.reason in CREATION_REASONS:
        at = next_time(condition.message)
        due = (NextStep(what="the workspace-controller tries again", at=at, is_retry=True),) if at is not None else ()
        return workspace_finding(situation, condition, next_steps=due or _replacement(situation))
    waiting = [claim for claim in situation.live_claims if not claim.is_ready and not _has_all_stages(claim)]
    found = _worst(waiting)
    if found is not None:
        claim, blocking = found
        if blocking is None:
            return _unattended(situation, claim)
        return _blocked(situation, claim, blocking)
    if condition is None or condition.is_true:
        return None
    if condition.reason in _LOST or situation.attempts.is_replacement_pending:
        return _lost(situation, condition)
    if situation.live_claims and all(map(_has_all_stages, situation.live_claims)):
        return None  # the instances exist: the nodes have the cause
    return workspace_finding(situation, condition, next_steps=_replacement(situation))


def _lost(situation: Situation, condition: Condition) -> Finding:
    """Returns the finding about claims that were lost or given up and are not replaced yet."""
    attempts = situation.attempts
    message = condition.message
    if attempts.cause and attempts.cause not in message:
        message = f"{attempts.cause}; {message}"
    is_timeout = "not launched within" in message
    workspace = situation.workspace
    cause = Cause(
        kind=workspace.kind,
        name=workspace.name,
        reason=conditions.PROVISION_TIMEOUT if is_timeout else condition.reason,
        message=without_next_time(message),
        since=attempts.backoff_started_at or situation.since(workspace, condition),
    )
    return Finding(cause=cause, next=_replacement(situation))


def _has_all_stages(claim: Claim) -> bool:
    """Whether the claim has reached every stage, so that its node was usable once."""
    found = [claim.condition(stage) for stage in claim.stages]
    return all(condition is not None and condition.is_true for condition in found)


def _worst(waiting: Sequence[Claim]) -> tuple[Claim, Condition | None] | None:
    """Returns the claim whose cause is the most serious, with its condition; None if no claim waits."""

    def severity(item: tuple[Claim, Condition | None]) -> int:
        blocking = item[1]
        if blocking is None:
            return 2
        if blocking.reason in stages.TERMINAL_LAUNCH_REASONS:
            return 0
        return 1 if blocking.status == "False" and not is_in_progress(blocking) else 3

    blocked = [(claim, claim.blocking_condition()) for claim in waiting]
    return min(blocked, key=severity, default=None)


def is_in_progress(condition: Condition) -> bool:
    """Whether a stage that is not True only takes its time. Machines report False where NodeClaims report Unknown."""
    advice = ADVICE.get(specific_reason(condition.reason, condition.message))
    return advice is not None and advice.progress


def _blocked(situation: Situation, claim: Claim, blocking: Condition) -> Finding:
    record = LaunchRecord.of(claim)
    given_up = _give_up(situation, claim)
    steps: list[NextStep] = []
    at = next_time(blocking.message) or record.next_attempt_at
    # A claim that is given up before has no further attempt.
    if at is not None and at > situation.now and not any(step.at is not None and step.at < at for step in given_up):
        count = f"; {record.failures} failed so far" if record.failures else ""
        steps.append(NextStep(what=f"the provisioner makes the next launch attempt{count}", at=at, is_retry=True))
    steps.extend(given_up)
    return Finding(cause=cause_of(situation, claim, blocking), next=tuple(steps), claim=claim.name)


def _give_up(situation: Situation, claim: Claim) -> list[NextStep]:
    """Returns when the workspace controller replaces a claim that has not launched."""
    created = claim.metadata.creation_timestamp
    launched = claim.condition(claim.stages.launched)
    has_launched = claim.status.provider_id or (launched is not None and launched.is_true)
    if created is None or has_launched or situation.claim_condition is None:
        return []
    at = created + timedelta(seconds=situation.settings.node_provision_timeout_seconds)
    return [NextStep(what=f"{claim.kind} {claim.name} is given up and replaced", at=at)]


def _unattended(situation: Situation, claim: Claim) -> Finding:
    """Returns the finding about a claim without conditions."""
    age = situation.age_seconds(claim)
    provisioner = "gpu-provisioner"
    if age < UNATTENDED_SECONDS:
        message = f"{claim.kind} {claim.name} was created {age:.0f} s ago; no provisioner has reported on it yet"
        progress: bool | None = True
    else:
        state = "whether one runs could not be read"
        if "controllers" not in situation.unread:
            state = describe_deployment(situation.controller("provisioner", "karpenter"), provisioner)
        message = f"no provisioner has reported on {claim.kind} {claim.name}; {state}"
        progress = None
    cause = Cause(
        kind=claim.kind,
        name=claim.name,
        reason=NO_PROVISIONER,
        message=message,
        since=claim.metadata.creation_timestamp,
    )
    steps = tuple(_give_up(situation, claim))
    return Finding(cause=cause, next=steps, claim=claim.name, progress=progress)


def _replacement(situation: Situation) -> tuple[NextStep, ...]:
    """Returns when the workspace controller creates the next claim, from its record."""
    at = situation.attempts.next_attempt_at
    if at is None or at <= situation.now:
        return ()
    count = situation.attempts.failures
    return (
        NextStep(what=f"the workspace-controller creates the next claim; {count} lost so far", at=at, is_retry=True),
    )


def find_nodes(situation: Situation) -> Finding | None:
    """Returns which node is not usable; None if enough are."""
    condition = situation.condition(conditions.NODES_READY)
    if condition is not None and condition.is_true:
        return None
    for node in situation.nodes:
        ready = node.condition("Ready")
        if ready is None or ready.status != "True":
            return _not_ready(situation, node)
    if condition is None:
        return None
    node_name = next((node.name for node in situation.nodes if node.name in condition.message), "")
    named = situation.node(node_name)
    if named is None:
        return workspace_finding(situation, condition, next_steps=_replacement(situation))
    cause = Cause(
        kind=named.kind,
        name=named.name,
        reason=condition.reason,
        message=condition.message,
        since=situation.since(situation.workspace, condition),
    )
    return Finding(cause=cause, node=named.name)


def _not_ready(situation: Situation, node: Node) -> Finding:
    ready = node.condition("Ready")
    since = node.metadata.creation_timestamp
    detail = "the kubelet has not reported yet"
    if ready is not None:
        since = ready.last_transition_time or since
        detail = ": ".join(filter(None, (ready.reason, ready.message))) or "the kubelet reports it"
    cause = Cause(
        kind=node.kind,
        name=node.name,
        reason=conditions.NODE_NOT_READY,
        message=f"node {node.name} is not Ready ({detail})",
        since=since,
    )
    limit = situation.settings.node_unhealthy_timeout_seconds
    steps: list[NextStep] = []
    if situation.has_claims and limit and since is not None:
        kind = situation.claims[0].kind if situation.claims else NodeClaim.kind
        at = since + timedelta(seconds=limit)
        steps.append(NextStep(what=f"the {kind} of the node is deleted and replaced", at=at))
    return Finding(cause=cause, next=tuple(steps), node=node.name)
