"""Counts, records and reports launch attempts that failed."""

from datetime import timedelta

from kaito.api import labels
from kaito.cloud.errors import NEXT_OFFERING, CloudError, ErrorCategory
from kaito.provisioner import launch_record, reasons
from kaito.provisioner.context import ReconcileContext
from kaito.provisioner.failures import REQUEST_FAILURES, Failure, describe, retry_seconds
from kaito.provisioner.unavailable_offerings import Offering, Unavailability
from kaito.runtime.meta import ConditionStatus, format_time

VISIBLE_SECONDS = 60.0
"""The condition contains the time of the next attempt if it is at least this far away."""


async def restore_records(ctx: ReconcileContext) -> None:
    """Restores the launch records of all claims, once per process.

    The reconciles of a new leader run concurrently: each waits, so that none repeats an attempt that a record delays.
    """
    backoff = ctx.deps.backoff
    if backoff.is_restored:
        return
    async with backoff.restoring:
        if not backoff.is_restored:
            for claim in [claim for kind in ctx.deps.kinds for claim in await ctx.api.list(kind)]:
                launch_record.restore(ctx.deps, claim, ctx.now)
            backoff.is_restored = True


async def reset_if_requested(ctx: ReconcileContext) -> None:
    """Resets the backoff of a claim whose spec changed, or that has the annotation to retry."""
    is_requested = labels.RETRY_LAUNCH in ctx.claim.annotations
    if not is_requested and not launch_record.is_stale(ctx.claim):
        return
    uid = ctx.claim.uid
    if is_requested:
        ctx.deps.unavailable.clear(ctx.deps.backoff.attempts(uid).unavailable)
        ctx.event(reasons.RETRYING, f"annotation {labels.RETRY_LAUNCH} is set: retrying the launch now")
    ctx.deps.forget(uid)
    await ctx.set_metadata(annotations={labels.RETRY_LAUNCH: None, labels.LAUNCH_RECORD: None})


def mark_unavailable(ctx: ReconcileContext, offering: Offering, error: CloudError) -> Unavailability:
    """Marks an offering as unavailable for all claims."""
    key, entry = ctx.deps.unavailable.mark(
        offering,
        error,
        retry=lambda failures: retry_seconds(error, failures, ctx.settings),
        deprioritize=ctx.settings.deprioritize_seconds,
    )
    ctx.deps.backoff.attempts(ctx.claim.uid).unavailable.add(key)
    ctx.deps.metrics.rejected_offerings.labels(offering.instance_type, offering.capacity, error.category.value).inc()
    return entry


async def record_failure(
    ctx: ReconcileContext,
    error: CloudError,
    *,
    retry: float | None = None,
    is_created: bool = False,
    continues: bool = False,
) -> None:
    """Records a failed attempt, or a request that failed, and schedules the next attempt.

    Args:
        ctx: the reconcile.
        error: the cloud's error.
        retry: seconds until the next attempt, if the offerings determine it.
        is_created: whether an instance was created and failed; then errors of every category count as a failed launch.
        continues: whether another offering of the claim is tried next. The launch then has not failed, so that readers
            of the condition, which may give the claim up, wait for the other offerings.
    """
    backoff, uid = ctx.deps.backoff, ctx.claim.uid
    is_launch_failure = is_created or error.category not in REQUEST_FAILURES
    failures = backoff.record_failure(uid) if is_launch_failure else backoff.record_request_failure(uid)
    failure = describe(error, failures, ctx.settings)
    wait = failure.retry if retry is None else retry
    if is_created and retry is None and error.category is not ErrorCategory.OVERRIDDEN:
        wait = max(wait, min(VISIBLE_SECONDS * 2.0 ** min(failures - 1, 10), ctx.settings.capacity_retry_cap_seconds))
    backoff.defer(uid, wait)
    ctx.request.requeue_after(wait, failure.reason)
    report_failure(ctx, "Unknown" if continues else failure.status, failure.reason, _message(ctx, failure, wait))
    if is_launch_failure:
        backoff.attempts(uid).last_failure = f"{failure.reason}: {error}"
        await write_record(ctx)


def _message(ctx: ReconcileContext, failure: Failure, wait: float) -> str:
    if failure.status != "False" or wait < VISIBLE_SECONDS:
        return failure.message
    at = (ctx.now + timedelta(seconds=wait)).replace(microsecond=0)
    return f"{failure.message}; next attempt at {format_time(at)}"


async def write_record(ctx: ReconcileContext) -> None:
    """Writes the launch record to the claim."""
    await ctx.set_metadata(annotations={labels.LAUNCH_RECORD: launch_record.render(ctx)})


def report_failure(ctx: ReconcileContext, status: ConditionStatus, reason: str, message: str) -> None:
    """Sets the launch condition; if the reason is new, also records an event, a metric and a log entry."""
    update = ctx.status.set_launched(status, reason, message)
    if ctx.request.event_on_change(update):
        instance_type = next(iter(ctx.claim.spec.values(labels.INSTANCE_TYPE)), "")
        ctx.deps.metrics.launch_failures.labels(instance_type, reason).inc()
        ctx.request.log.warning("instance launch failed", reason=reason, message=message)


def combine(errors: list[CloudError]) -> CloudError:
    """Combines errors of several offerings into one of the most temporary category: capacity, quota, zone, size."""
    by_duration = (ErrorCategory.CAPACITY, ErrorCategory.QUOTA, ErrorCategory.ZONE, ErrorCategory.SIZE)
    first = min(errors, key=lambda error: by_duration.index(error.category))
    message = "; ".join(dict.fromkeys(error.message for error in errors))
    return type(first)(message, code=first.code, category=first.category)


def is_about_offering(error: CloudError) -> bool:
    """Whether another instance type, zone or capacity type may succeed."""
    return error.category in NEXT_OFFERING
