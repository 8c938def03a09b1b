"""The Job controller of the local cluster: pods that run to completion, counted and retried up to the backoff limit.

It implements the fields that Kaito's tuning jobs use (Kubernetes documentation, "Jobs"), without indexed jobs and
parallelism above one.
"""

from typing import Any

from kaito.runtime.client import MergePatch
from kaito.runtime.controller import Controller
from kaito.runtime.kinds import Job, Pod
from kaito.runtime.meta import ObjectMeta, format_time
from kaito.runtime.reconcile import Again, Request

DEFAULT_BACKOFF_LIMIT = 6
JOB_NAME_LABEL = "batch.kubernetes.io/job-name"


def jobs() -> Controller[Job]:
    """The controller, for a manager."""
    return Controller(Job, reconcile, name="job", workers=2).owns(Pod)


async def reconcile(request: Request[Job]) -> Again | None:
    """Runs one pod at a time until one succeeds or too many failed."""
    job = request.object
    if job.has_condition("Complete") or job.has_condition("Failed"):
        return None
    pods = await request.api.list(Pod, namespace=job.namespace, owned_by=job)
    failed = [pod for pod in pods if pod.status.phase == "Failed"]
    succeeded = [pod for pod in pods if pod.status.phase == "Succeeded"]
    active = [pod for pod in pods if pod.status.phase not in {"Failed", "Succeeded"} and not pod.deleting]
    limit = DEFAULT_BACKOFF_LIMIT if job.spec.backoff_limit is None else job.spec.backoff_limit
    too_many = len(failed) > limit
    if not active and not succeeded and not too_many and not job.spec.suspend:
        active = [await request.api.create(pod_of(job, attempt=len(failed)))]
    now = format_time(request.clock.now())
    status: dict[str, Any] = {
        "active": len(active),
        "ready": sum(pod.is_ready for pod in active),
        "succeeded": len(succeeded),
        "failed": len(failed),
        "startTime": format_time(job.status.start_time or request.clock.now()),
    }
    if succeeded:
        status |= {"completionTime": now, "conditions": [_condition("Complete", now)]}
    elif too_many:
        status["conditions"] = [_condition("Failed", now)]
    await request.api.patch(job, MergePatch({"status": status}), subresource="status")
    return None


def pod_of(job: Job, *, attempt: int) -> Pod:
    """The pod of one attempt; its name is deterministic, so that a repeated create is rejected and creates no second
    pod."""
    template = job.spec.template
    return Pod(
        metadata=ObjectMeta(
            name=f"{job.name}-{attempt}",
            namespace=job.namespace,
            labels=template.metadata.labels | {JOB_NAME_LABEL: job.name, "job-name": job.name},
            annotations=template.metadata.annotations,
            owner_references=[job.owner_reference()],
        ),
        spec=template.spec,
    )


_ENDS = {
    "Complete": ("CompletionsReached", "Reached expected number of succeeded pods"),
    "Failed": ("BackoffLimitExceeded", "Job has reached the specified backoff limit"),
}


def _condition(kind: str, now: str) -> dict[str, str]:
    reason, message = _ENDS[kind]
    return {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now}
