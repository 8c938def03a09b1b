"""Last step: the status, from everything the others saw. One write, made by the framework, only if it differs."""

from datetime import timedelta

from kaito.api import Workspace, conditions as words
from kaito.runtime.client.status import StatusScope
from kaito.workspace.context import Pass
from kaito.workspace.status import Verdict, claim_condition_type, state, verdicts

_ANNOUNCED = {
    words.RESOURCE_READY: ("ResourcesReady", "ResourcesNotReady"),
    words.INFERENCE_READY: ("InferenceReady", "InferenceNotReady"),
    words.JOB_STARTED: ("TuningStarted", "TuningNotRunning"),
}
"""Conditions whose change is worth an event: reason when it becomes true, and when it stops being true. The whole
(WorkspaceSucceeded) is their sum and would only repeat them, except for the end of tuning."""


def conclude(run: Pass, status: StatusScope[Workspace]) -> None:
    """Set every condition and field. What the pass did not get to look at keeps its last verdict."""
    found = verdicts(run.workspace, run.seen, run.settings.node_api)
    for verdict in found:
        if verdict.holds is None and status.find(verdict.type) is not None:
            continue
        _announce(run, status, verdict)
        status.condition(verdict.type, verdict.holds, verdict.reason, verdict.message)
    known = {verdict.type for verdict in found}
    for stale in {words.MACHINE_READY, words.NODE_CLAIM_READY} - {claim_condition_type(run.settings.node_api)} - known:
        status.remove_condition(stale)
    whole = next(verdict for verdict in found if verdict.type == words.WORKSPACE_SUCCEEDED)
    if whole.holds is not None:
        status.set(state=state(run.workspace, run.seen, whole))
    if run.seen.nodes is not None:
        status.set(worker_nodes=list(run.seen.nodes.names))
    if run.seen.plan is not None:
        status.set(target_node_count=run.seen.plan.hardware.count)


def _announce(run: Pass, status: StatusScope[Workspace], verdict: Verdict) -> None:
    """An event, and the time it took, when a condition turns. The first False of a new Workspace is no news."""
    before = status.find(verdict.type)
    was = before is not None and before.is_true
    if was is bool(verdict.holds):
        return
    if verdict.holds:
        _measure(run, verdict.type)
    if verdict.type == words.WORKSPACE_SUCCEEDED and run.workspace.tuning is not None and verdict.holds:
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
    elif condition == words.WORKSPACE_SUCCEEDED and run.workspace.status.state in {None, "Pending", "Running"}:
        run.metrics.time_to_ready_seconds.observe(waited.total_seconds())


def _age(run: Pass, workspace: Workspace) -> timedelta:
    born = workspace.metadata.creation_timestamp
    return run.now - born if born else timedelta()
