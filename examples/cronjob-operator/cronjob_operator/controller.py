"""Reconciles CronJobs: creates the Job of each scheduled time, and deletes the old ones."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from cronsim import CronSim, CronSimError
from kaito.runtime import Again, Controller, ObjectMeta, Request, Terminal
from kaito.runtime.kinds import Job, ObjectReference

from cronjob_operator.api import CronJob

SCHEDULED_AT = "batch.tutorial.example.com/scheduled-at"
MAX_MISSED = 100


async def reconcile(request: Request[CronJob]) -> Again | None:
    """Reports the active Jobs, deletes old ones, starts the due run, and requeues at the time of the next one."""
    cron, api, now = request.object, request.api, request.clock.now()
    jobs = await api.list(Job, namespace=cron.namespace, owned_by=cron)
    active = [job for job in jobs if not finished(job)]
    for job in expired(cron, jobs):
        await api.delete(job)
    async with request.status() as status:
        times = [each for job in jobs if (each := scheduled_at(job))]
        last = max([*times, *filter(None, [cron.status.last_schedule_time])], default=None)
        status.set(active=[reference(job) for job in active], last_schedule_time=last)
        if cron.spec.suspend:
            return None
        due, following = schedule(cron, last, now)
        wait = Again(max((following - now).total_seconds(), 0.001), "next run")
        if due is None or (active and cron.spec.concurrency_policy == "Forbid"):
            return wait  # the end of an active Job triggers the next reconcile
        if cron.spec.concurrency_policy == "Replace":
            for job in active:
                await api.delete(job)
            active = []
        job = await api.ensure(job_for(cron, due), owner=cron)
        status.set(active=[reference(each) for each in (*active, job)], last_schedule_time=due)
    return wait


def schedule(cron: CronJob, last: datetime | None, now: datetime) -> tuple[datetime | None, datetime]:
    """Returns the latest time that is due and not too late, and the next one; raises Terminal for a bad schedule."""
    earliest = last or cron.metadata.creation_timestamp or now
    deadline = cron.spec.starting_deadline_seconds
    if deadline is not None:
        earliest = max(earliest, now - timedelta(seconds=deadline))
    due: datetime | None = None
    try:
        for missed, each in enumerate(CronSim(cron.spec.schedule, earliest)):
            if each > now:
                return due, each
            if missed >= MAX_MISSED:
                raise Terminal(f"more than {MAX_MISSED} missed runs: set startingDeadlineSeconds, or check the clock")
            due = each
    except CronSimError as error:
        raise Terminal(f"schedule {cron.spec.schedule!r} is not valid: {error}") from error
    raise Terminal(f"schedule {cron.spec.schedule!r} has no next time")


def job_for(cron: CronJob, moment: datetime) -> Job:
    """Renders the Job of a scheduled time. Its name follows from the time, so that no run starts twice."""
    template = cron.spec.job_template
    annotations = {**template.metadata.annotations, SCHEDULED_AT: moment.isoformat()}
    name = f"{cron.name}-{int(moment.timestamp())}"
    metadata = ObjectMeta(name=name, labels=template.metadata.labels, annotations=annotations)
    return Job(metadata=metadata, spec=template.spec)


def scheduled_at(job: Job) -> datetime | None:
    """Returns the time for which a Job was created."""
    text = job.annotations.get(SCHEDULED_AT, "")
    return datetime.fromisoformat(text) if text else None


def finished(job: Job) -> bool:
    """Whether a Job succeeded or failed."""
    return job.has_condition("Complete") or job.has_condition("Failed")


def expired(cron: CronJob, jobs: list[Job]) -> Iterator[Job]:
    """Yields the finished Jobs beyond the limits of the history."""
    succeeded = sorted((job for job in jobs if job.has_condition("Complete")), key=lambda job: job.name)
    failed = sorted((job for job in jobs if job.has_condition("Failed")), key=lambda job: job.name)
    yield from succeeded[: max(len(succeeded) - cron.spec.successful_jobs_history_limit, 0)]
    yield from failed[: max(len(failed) - cron.spec.failed_jobs_history_limit, 0)]


def reference(job: Job) -> ObjectReference:
    """Returns a reference to a Job."""
    return ObjectReference(
        api_version=job.api_version, kind=job.kind, namespace=job.namespace, name=job.name, uid=job.uid
    )


controller = Controller(CronJob, reconcile, workers=4, deadline=60).owns(Job)
