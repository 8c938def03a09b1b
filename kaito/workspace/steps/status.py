"""Last step: the status, from everything the others saw. One write, made by the framework, only if it differs."""

import re
from datetime import timedelta
from typing import Final

from kaito.api import Workspace, conditions
from kaito.runtime.client import StatusScope
from kaito.workspace.context import Pass
from kaito.workspace.failure import MESSAGE_LENGTH
from kaito.workspace.status import Verdict, claim_condition_type, state, verdicts

_ANNOUNCED = {
    conditions.RESOURCE_READY: ("ResourcesReady", "ResourcesNotReady"),
    conditions.INFERENCE_READY: ("InferenceReady", "InferenceNotReady"),
    conditions.JOB_STARTED: ("TuningStarted", "TuningNotRunning"),
}
"""Conditions whose change is worth an event: reason when it becomes true, and when it stops being true. The whole
(WorkspaceSucceeded) is their sum and would only repeat them, except for the end of tuning."""

_CAUSES: Final = frozenset({conditions.WORKLOAD_REFUSED, conditions.NAME_CONFLICT, conditions.POD_CREATION_FAILED})
"""Reasons of the workload that are worth an event of their own, also when it was not ready before."""

LONGEST_MESSAGE: Final = 8192
"""Longest message of a condition, in characters. The API server accepts 32768 bytes."""

OWN_CONDITIONS: Final = frozenset(
    {
        conditions.MODEL_RESOLVED,
        conditions.MACHINE_READY,
        conditions.NODE_CLAIM_READY,
        conditions.NODES_READY,
        conditions.RESOURCE_READY,
        conditions.INFERENCE_READY,
        conditions.JOB_STARTED,
        conditions.WORKSPACE_SUCCEEDED,
        conditions.WORKSPACE_READY,
    }
)
"""Conditions that this controller alone writes. Others (those of other controllers too) are left as they are."""


def conclude(run: Pass, status: StatusScope[Workspace]) -> None:
    """Set every condition and field to what this pass saw: no condition keeps the message of an earlier one."""
    found = verdicts(run.workspace, run.seen, run.settings.node_api, run.failures)
    _announce_failures(run, status)
    for each in found:
        verdict = _fitting(each)
        _announce(run, status, verdict)
        status.condition(verdict.type, verdict.holds, verdict.reason, verdict.message)
    for stale in OWN_CONDITIONS - {verdict.type for verdict in found}:
        status.remove_condition(stale)
    whole = next(verdict for verdict in found if verdict.type == conditions.WORKSPACE_SUCCEEDED)
    status.set(state=state(run.workspace, run.seen, whole))
    if run.seen.claims is not None and run.seen.claims.decided:
        status.set(claims=sorted(claim.name for claim in run.seen.claims.live))
    if run.seen.nodes is not None:
        status.set(worker_nodes=list(run.seen.nodes.names))
    if run.seen.plan is not None:
        status.set(target_node_count=run.seen.plan.hardware.count)


def _fitting(verdict: Verdict) -> Verdict:
    """The verdict as the API server accepts it: reasons and messages of others may be too long or of another form."""
    reason = re.sub(r"[^A-Za-z0-9_]", "", verdict.reason).lstrip("0123456789_").rstrip("_")[:MESSAGE_LENGTH]
    message = verdict.message
    if len(message) > LONGEST_MESSAGE:
        message = message[: LONGEST_MESSAGE - 1] + "…"
    return verdict._replace(reason=reason or conditions.PENDING, message=message)


def conclude_nothing(run: Pass, status: StatusScope[Workspace]) -> None:
    """Set every condition that exists, and the two of the whole, to Unknown: the status could not be computed."""
    _announce_failures(run, status)
    message = "; ".join(failure.message for failure in run.failures)
    present = {condition.type for condition in status.conditions} & OWN_CONDITIONS
    for each in sorted(present | {conditions.WORKSPACE_SUCCEEDED, conditions.WORKSPACE_READY}):
        status.condition(each, None, conditions.RECONCILE_ERROR, message)


def _announce_failures(run: Pass, status: StatusScope[Workspace]) -> None:
    """One Warning for each failure that the conditions of the last pass do not report."""
    reported = [condition.message for condition in status.conditions if condition.type in OWN_CONDITIONS]
    for failure in run.failures:
        if not any(failure.message in message for message in reported):
            run.request.event("Warning", conditions.RECONCILE_ERROR, failure.message)


def _announce(run: Pass, status: StatusScope[Workspace], verdict: Verdict) -> None:
    """An event, and the time it took, when a condition turns. The first False of a new Workspace is no news."""
    before = status.find(verdict.type)
    was = before is not None and before.is_true
    if was is bool(verdict.holds):
        if run.seen.refusal is not None:
            return  # the step that planned announced it
        if verdict.reason in _CAUSES and verdict.type in _ANNOUNCED and (not before or before.reason != verdict.reason):
            run.request.event("Warning", verdict.reason, verdict.message)
        return
    if verdict.holds:
        _measure(run, verdict.type)
    if verdict.type == conditions.WORKSPACE_SUCCEEDED and run.workspace.tuning is not None and verdict.holds:
        run.request.event("Normal", "TuningSucceeded", verdict.message)
    if verdict.type in _ANNOUNCED:
        became, ceased = _ANNOUNCED[verdict.type]
        if verdict.holds:
            run.request.event("Normal", became, verdict.message)
        else:
            run.request.event("Warning", ceased, verdict.message)


def _measure(run: Pass, condition: str) -> None:
    waited = _age(run, run.workspace)
    if condition == claim_condition_type(run.settings.node_api):
        run.metrics.claim_ready_seconds.labels(run.settings.node_api.value).observe(waited.total_seconds())
    elif condition == conditions.WORKSPACE_SUCCEEDED and run.workspace.status.state in {None, "Pending", "Running"}:
        run.metrics.time_to_ready_seconds.observe(waited.total_seconds())


def _age(run: Pass, workspace: Workspace) -> timedelta:
    born = workspace.metadata.creation_timestamp
    return run.now - born if born else timedelta()
