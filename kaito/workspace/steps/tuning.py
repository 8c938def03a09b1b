"""Applies the Job of a tuning Workspace and observes its pod.

The template of a Job is immutable. If the Workspace changes, the Job is deleted, and a new one is created once the old
one does not exist any more.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from kaito.api import conditions, labels
from kaito.runtime.kinds import Job, Pod
from kaito.runtime.meta import format_time
from kaito.workspace.context import ReconcileContext
from kaito.workspace.indexes import PODS
from kaito.workspace.manifests.tuning import tuning_job
from kaito.workspace.plan import Plan
from kaito.workspace.state import ClaimsReport, WorkloadReport
from kaito.workspace.steps.guards import apply_owned, is_foreign, is_undecided, was_published_ready
from kaito.workspace.steps.pod_events import find_event_fault
from kaito.workspace.steps.release import release_claims

RESYNC_SECONDS: Final = 60.0
"""Interval at which a Workspace whose Job has not started is reconciled without an event."""

DELETION_POLL_SECONDS: Final = 5.0
"""Interval at which a Workspace whose old Job is being deleted is reconciled without an event."""


async def ensure_tuning(ctx: ReconcileContext, plan: Plan | None, *, can_place: bool) -> WorkloadReport | None:
    """Creates the Job once its pod can be placed, replaces it if its inputs changed, and observes its pods.

    Returns None for an inference Workspace, and if a Job of the Workspace's name has another controller.
    """
    if ctx.workspace.tuning is None:
        return None
    present = await ctx.api.find(Job, ctx.workspace.name, ctx.workspace.namespace)
    if present is not None and is_foreign(ctx, present):
        return None
    pods: Sequence[Pod] = () if present is None else await ctx.api.list(Pod, index=PODS(str(ctx.workspace.key)))
    ctx.state.workload = report = WorkloadReport(job=present, pods=pods)
    if plan is not None and not ctx.is_read_only:
        report.job = present = await _apply(ctx, plan, present, can_place=can_place)
    if present is not None and not is_ended(present) and not present.status.ready:
        ctx.request.requeue_after(RESYNC_SECONDS, "the tuning job is starting")
        report.event_fault = await find_event_fault(ctx, present, report.pods, wanted=1)
    return report


def is_ended(job: Job) -> bool:
    """Whether the Job completed or failed."""
    return job.has_condition("Complete") or job.has_condition("Failed")


async def find_ended_job(ctx: ReconcileContext, plan: Plan) -> Job | None:
    """Returns the Job of the Workspace's current spec if it completed or failed; None for an inference Workspace."""
    if ctx.workspace.tuning is None:
        return None
    job = await ctx.api.find(Job, ctx.workspace.name, ctx.workspace.namespace)
    if job is None or job.deleting or not is_ended(job):
        return None
    return job if _has_inputs_of(job, tuning_job(ctx.workspace, plan, ctx.settings)) else None


async def release_nodes(ctx: ReconcileContext, report: ClaimsReport, job: Job) -> None:
    """Deletes the claims of a run that ended `tuning.ttlSecondsAfterFinished` ago; requeues for that time before.

    The Job stays: without it, the run would be repeated.
    """
    ttl = ctx.workspace.tuning.ttl_seconds_after_finished if ctx.workspace.tuning is not None else None
    ended_at = _ended_at(job)
    if ttl is None or ended_at is None:
        return
    due = ended_at + timedelta(seconds=ttl)
    if due > ctx.now:
        ctx.request.requeue_at(due, "the nodes of the ended run are given back")
        return
    report.is_released = True
    deleted = await release_claims(ctx, report.live)
    if deleted:
        names = ", ".join(claim.name for claim in deleted)
        ctx.request.log.info("claims of the ended run deleted", claims=names)
        note = f"deleted {deleted[0].kind} {names}: tuning ended at {format_time(ended_at)}"
        ctx.request.event("Normal", conditions.NODES_RELEASED, f"{note}, and ttlSecondsAfterFinished is {ttl}")


def _ended_at(job: Job) -> datetime | None:
    ends = [c for c in job.status.conditions if c.type in {"Complete", "Failed"} and c.status == "True"]
    times = [condition.last_transition_time for condition in ends]
    return next((time for time in times if time is not None), job.status.completion_time)


def _has_inputs_of(present: Job, wanted: Job) -> bool:
    """Whether the Job is for the current Workspace. One without the digest is of an older version and is kept."""
    recorded = present.annotations.get(labels.INPUTS_HASH)
    return recorded is None or recorded == wanted.annotations[labels.INPUTS_HASH]


async def _apply(ctx: ReconcileContext, plan: Plan, present: Job | None, *, can_place: bool) -> Job | None:
    """Creates the Job, or deletes the present one if the Workspace requests another run."""
    wanted = tuning_job(ctx.workspace, plan, ctx.settings)
    if present is None:
        return await _create(ctx, plan, wanted) if can_place and not is_undecided(ctx, plan) else None
    if present.deleting:
        ctx.request.requeue_after(DELETION_POLL_SECONDS, "the old tuning job is being deleted")
    elif not _has_inputs_of(present, wanted):
        await ctx.api.delete(present, propagation="Foreground")
        ctx.request.event("Normal", "JobReplaced", f"deleted Job {present.name}: its inputs changed")
        ctx.request.requeue_after(DELETION_POLL_SECONDS, "the old tuning job is being deleted")
    return present


async def _create(ctx: ReconcileContext, plan: Plan, wanted: Job) -> Job | None:
    config = plan.training_config
    if config is not None and await apply_owned(ctx, "the training configuration", config) is None:
        return None
    created = await apply_owned(ctx, "the job", wanted)
    if created is not None:
        ctx.state.workload_created = True
        ctx.request.log.info("tuning job created")
        if was_published_ready(ctx):
            ctx.request.event("Normal", "JobCreated", f"created Job {created.name}")
    return created
