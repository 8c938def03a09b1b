"""Finds in Events why pods are missing or do not start, for cases that the pods' status does not report.

The workload steps call it while the workload is not ready. Events of a StatefulSet or Job report pods that could not be
created; Events of a pod report volumes that cannot be mounted.
"""

from collections.abc import Sequence
from typing import Final

from kaito.api import conditions
from kaito.runtime.kinds import Job, Pod, StatefulSet
from kaito.workspace.context import ReconcileContext
from kaito.workspace.events import find_pod_creation_failure, find_pod_start_failure
from kaito.workspace.pod_faults import Fault, has_started

MISSING_SECONDS: Final = 5.0
"""Age of a workload from which missing pods are looked up in Events."""

STARTING_SECONDS: Final = 20.0
"""Age of a pod from which a first container that does not start is looked up in Events."""

POLL_SECONDS: Final = 15.0
"""Interval at which Events are read while pods are missing or do not start."""


async def find_event_fault(
    ctx: ReconcileContext, workload: StatefulSet | Job, pods: Sequence[Pod], *, wanted: int
) -> Fault | None:
    """Returns why pods are missing, else why one does not start; None if unknown, or if it is too early to look."""
    live = [pod for pod in pods if not pod.deleting]
    if len(live) < wanted:
        if not _is_older(ctx, workload, MISSING_SECONDS):
            return None
        rejection = await find_pod_creation_failure(ctx.api, workload)
        if rejection:
            message = f"{workload.kind} {workload.name} cannot create its pods: {rejection}"
            return Fault(conditions.POD_CREATION_FAILED, message)
    for pod in live:
        if has_started(pod) or not pod.spec.node_name or not _is_older(ctx, pod, STARTING_SECONDS):
            continue
        failure = await find_pod_start_failure(ctx.api, pod)
        if failure:
            return Fault(conditions.CONTAINER_START_ERROR, f"pod {pod.name} cannot start: {failure}")
    return None


def _is_older(ctx: ReconcileContext, obj: StatefulSet | Job | Pod, seconds: float) -> bool:
    """Whether the object is at least that old. Requeues for when it will be, and for the next read of its Events."""
    created = obj.metadata.creation_timestamp
    age = (ctx.now - created).total_seconds() if created is not None else seconds
    is_older = age >= seconds
    ctx.request.requeue_after(POLL_SECONDS if is_older else seconds - age, f"{obj.kind} {obj.name} is not running yet")
    return is_older
