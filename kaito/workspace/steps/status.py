"""Sets the status of a Workspace from what the steps observed, and records events for conditions that changed.

The framework writes the status once, at the end of the reconcile, if it differs. The reconcile that creates the
workload does not write it: the next one does, after `NEW_WORKLOAD_SECONDS` at the latest, so that a Workspace whose
pods become ready at once gets one write instead of two.

An event reports what the conditions alone do not: a failure, a repair, the end of a start that took longer. A condition
that has its first value, and conditions that become True together without an earlier problem, have no event.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from kaito.api import Workspace, conditions
from kaito.runtime.client import ConditionUpdate, StatusScope
from kaito.runtime.meta import Condition
from kaito.workspace.context import ReconcileContext
from kaito.workspace.manifests.group import copy_selector
from kaito.workspace.status import claim_condition_type, condition_updates, workspace_state
from kaito.workspace.tracing import record_claim, record_condition, record_pod

_EVENT_REASONS: Final = {
    conditions.RESOURCE_READY: ("ResourcesReady", "ResourcesNotReady"),
    conditions.INFERENCE_READY: ("InferenceReady", "InferenceNotReady"),
    conditions.JOB_STARTED: ("TuningStarted", "TuningNotRunning"),
}
"""Reasons of the events for conditions that become True, and that are True no longer.

WorkspaceSucceeded has none, because it summarizes the others; only the end of tuning has an event of its own."""

_FAILURE_REASONS: Final = frozenset(
    {conditions.WORKLOAD_REFUSED, conditions.NAME_CONFLICT, conditions.POD_CREATION_FAILED}
)
"""Reasons of a workload's condition that have an event also if the condition was not True before."""

_START_REASONS: Final = frozenset(
    {conditions.PULLING_WEIGHTS, conditions.DOWNLOADING_WEIGHTS, conditions.LOADING_MODEL, conditions.WARMING_UP}
)
"""Reasons of InferenceReady for the phases of a start, which have a Normal event."""

MAX_MESSAGE_CHARACTERS: Final = 8192
"""Longest message of a condition. The API server accepts 32768 bytes."""

_MAX_REASON_CHARACTERS: Final = 1024

_NEW_REASONS: Final = frozenset(
    {
        conditions.MACHINE_NOT_READY,
        conditions.CLAIM_NOT_READY,
        conditions.NODE_NOT_READY,
        conditions.RESOURCES_NOT_READY,
        conditions.WAITING_FOR_RESOURCES,
        conditions.PENDING,
    }
)
"""Reasons of conditions of a new Workspace for which no work has been reported yet."""

NEW_WORKLOAD_SECONDS: Final = 1.0
"""Time after the creation of the workload until the status is written, unless something changes before."""

OWNED_CONDITIONS: Final = frozenset(
    {
        conditions.MODEL_RESOLVED,
        conditions.MACHINE_READY,
        conditions.NODE_CLAIM_READY,
        conditions.NODES_READY,
        conditions.RESOURCE_READY,
        conditions.INFERENCE_READY,
        conditions.ADAPTERS_READY,
        conditions.JOB_STARTED,
        conditions.WORKSPACE_SUCCEEDED,
        conditions.WORKSPACE_READY,
    }
)
"""Conditions that only this controller writes. It does not change others."""


WORKLOAD_CONDITIONS: Final = frozenset({conditions.INFERENCE_READY, conditions.JOB_STARTED})
"""Conditions that report the workload."""


def defers_status(ctx: ReconcileContext, status: StatusScope[Workspace]) -> bool:
    """Whether the next reconcile writes the status, because this one only created the workload; requeues for it.

    Claims are always recorded by the reconcile that created them: without the record no loss would be counted.
    """
    state = ctx.state
    has_problem = bool(ctx.failures or ctx.deferred_errors or state.rejection or state.plan_failure)
    if not state.workload_created or has_problem:
        return False
    recorded = ctx.workspace.status.claims
    if state.claims is not None and sorted(claim.name for claim in state.claims.live) != recorded:
        return False
    if any(condition.is_true for condition in status.conditions if condition.type in WORKLOAD_CONDITIONS):
        return False  # the workload was lost, which is reported at once
    ctx.request.requeue_after(NEW_WORKLOAD_SECONDS, "the status of the new workload")
    return True


def update_status(ctx: ReconcileContext, status: StatusScope[Workspace]) -> None:
    """Sets every condition and field from this reconcile, and removes conditions that do not apply any more."""
    state = ctx.state
    updates = [*map(_truncated, condition_updates(ctx.workspace, state, ctx.settings.node_api, ctx.failures))]
    _record_failures(ctx, status)
    _record_ready(ctx, status, updates)
    for update in updates:
        _record_change(ctx, status, update)
        status.set_condition(update)
    for condition_type in OWNED_CONDITIONS - {update.type for update in updates}:
        status.remove_condition(condition_type)
    summary = next(update for update in updates if update.type == conditions.WORKSPACE_SUCCEEDED)
    status.set(state=workspace_state(ctx.workspace, state, summary))
    if state.claims is not None and state.claims.complete:
        status.set(claims=sorted(claim.name for claim in state.claims.live))
    _set_copies(ctx, status)
    if state.workload is not None and state.plan is not None:
        status.set(adapters=list(state.workload.adapters or ()), performance=state.workload.performance)
        if state.pending_template or ctx.workspace.status.pending_template:
            status.set(pending_template=state.pending_template)
    if state.nodes is not None:
        status.set(worker_nodes=list(state.nodes.names))
    if state.plan is not None:
        status.set(target_node_count=state.nodes.wanted if state.nodes is not None else state.plan.hardware.count)
        chosen = state.plan.choice.candidate.instance_type if state.plan.choice is not None else ""
        if chosen != ctx.workspace.status.instance_type:
            status.set(instance_type=chosen)


def _set_copies(ctx: ReconcileContext, status: StatusScope[Workspace]) -> None:
    """Sets what the scale subresource contains: copies that exist, copies that are ready, and the pods' labels."""
    workload, plan = ctx.state.workload, ctx.state.plan
    if ctx.workspace.inference is None or workload is None:
        return
    observed = workload.stateful_set.status if workload.stateful_set is not None else None
    status.set(
        replicas=observed.replicas if observed is not None else 0,
        ready_replicas=observed.ready_replicas if observed is not None else 0,
    )
    activation = ctx.state.activation
    scales_to_zero = ctx.workspace.spec.autoscaling is not None and ctx.workspace.spec.autoscaling.scales_to_zero
    if activation is not None or not scales_to_zero:
        status.set(scaling=activation.scaling if activation is not None else None)
    if plan is not None:
        status.set(selector=copy_selector(ctx.workspace, plan))


def _truncated(update: ConditionUpdate) -> ConditionUpdate:
    """Returns the condition with a valid reason and message; those copied from other controllers may be invalid."""
    reason = re.sub(r"[^A-Za-z0-9_]", "", update.reason).lstrip("0123456789_").rstrip("_")[:_MAX_REASON_CHARACTERS]
    message = update.message
    if len(message) > MAX_MESSAGE_CHARACTERS:
        message = message[: MAX_MESSAGE_CHARACTERS - 1] + "…"
    return replace(update, reason=reason or conditions.PENDING, message=message)


def set_all_unknown(ctx: ReconcileContext, status: StatusScope[Workspace]) -> None:
    """Sets every existing condition and the two summaries to Unknown, because the status could not be computed."""
    _record_failures(ctx, status)
    message = "; ".join(failure.message for failure in ctx.failures)
    present = {condition.type for condition in status.conditions} & OWNED_CONDITIONS
    for condition_type in sorted(present | {conditions.WORKSPACE_SUCCEEDED, conditions.WORKSPACE_READY}):
        status.set_condition(ConditionUpdate.unknown(condition_type, conditions.RECONCILE_ERROR, message))


def _record_failures(ctx: ReconcileContext, status: StatusScope[Workspace]) -> None:
    """Records a Warning for each failure that no condition of the last reconcile reports."""
    reported = [condition.message for condition in status.conditions if condition.type in OWNED_CONDITIONS]
    for failure in ctx.failures:
        if not any(failure.message in message for message in reported):
            ctx.request.event("Warning", conditions.RECONCILE_ERROR, failure.message)


def _record_change(ctx: ReconcileContext, status: StatusScope[Workspace], update: ConditionUpdate) -> None:
    """Records an event and the duration when a condition becomes True, or is True no longer.

    The initial False of a new Workspace has no event.
    """
    before = status.find(update.type)
    if not update.differs_from(before, on="status"):
        has_event = update.type in _EVENT_REASONS and update.reason in _FAILURE_REASONS
        if has_event and ctx.state.plan_failure is None and update.differs_from(before, on="reason"):
            ctx.request.event("Warning", update.reason, update.message)
        is_start = update.type == conditions.INFERENCE_READY and update.reason in _START_REASONS
        if is_start and update.differs_from(before, on="reason"):
            ctx.request.event("Normal", update.reason, update.message)
        return
    if update.is_true:
        _observe_duration(ctx, update.type)
        _record_spans(ctx, update.type, before)
    if update.type == conditions.WORKSPACE_SUCCEEDED and ctx.workspace.tuning is not None and update.is_true:
        ctx.request.event("Normal", "TuningSucceeded", update.message)
    if update.reason in {conditions.SCALED_TO_ZERO, conditions.NODES_RELEASED}:
        return  # recorded by the step that scaled the workload, or gave the nodes back
    if update.type in _EVENT_REASONS and not update.is_true:
        ctx.request.event("Warning", _EVENT_REASONS[update.type][1], update.message)


def _record_ready(ctx: ReconcileContext, status: StatusScope[Workspace], updates: Sequence[ConditionUpdate]) -> None:
    """Records one event for all conditions that become True in this reconcile, with the reason of the last one.

    There is none if the Workspace becomes ready at once: its conditions, all of the same time, report the same.
    """
    ready = [update for update in updates if update.type in _EVENT_REASONS and update.is_true]
    became = [update for update in ready if update.differs_from(status.find(update.type), on="status")]
    is_new = ctx.workspace.status.state in {None, "Pending"} and all(_is_new(status.find(each.type)) for each in became)
    if not became or (len(became) > 1 and is_new):
        return
    note = "; ".join(update.message for update in became)
    ctx.request.event("Normal", _EVENT_REASONS[became[-1].type][0], note)


def _is_new(before: Condition | None) -> bool:
    """Whether nothing had been reported about a condition."""
    return before is None or before.reason in _NEW_REASONS


def _record_spans(ctx: ReconcileContext, condition_type: str, before: Condition | None) -> None:
    """Records the phases of the start that end with the condition."""
    record_condition(ctx.tracer, ctx.workspace, condition_type, before, ctx.now)
    if condition_type == claim_condition_type(ctx.settings.node_api) and ctx.state.claims is not None:
        since = None if before is None else before.last_transition_time
        for claim in ctx.state.claims.live:
            record_claim(ctx.tracer, ctx.workspace, claim, since, ctx.now)
    if condition_type in WORKLOAD_CONDITIONS and ctx.state.workload is not None:
        for pod in ctx.state.workload.pods:
            record_pod(ctx.tracer, ctx.workspace, pod, ctx.now)


def _observe_duration(ctx: ReconcileContext, condition_type: str) -> None:
    """Observes how long after the Workspace's creation a condition became True."""
    created = ctx.workspace.metadata.creation_timestamp
    seconds = (ctx.now - created).total_seconds() if created else 0.0
    if condition_type == claim_condition_type(ctx.settings.node_api):
        ctx.metrics.claim_ready_seconds.labels(ctx.settings.node_api.value).observe(seconds)
    elif condition_type == conditions.WORKSPACE_SUCCEEDED and ctx.workspace.status.state in {
        None,
        "Pending",
        "Running",
    }:
        ctx.metrics.time_to_ready_seconds.observe(seconds)
