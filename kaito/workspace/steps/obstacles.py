"""Finds what keeps pods from existing or starting when it is not in their status.

Called by the steps of the workload while it is not ready. The answers are in Events only: refused pods are reported on
their StatefulSet or Job, mounts that wait on the pod.
"""

from kaito.api import conditions
from kaito.runtime.kinds import Job, Pod, StatefulSet
from kaito.workspace.causes import why_no_pods, why_waiting
from kaito.workspace.context import Pass
from kaito.workspace.pod_faults import Fault, has_started

MISSING_SECONDS = 5.0
"""How long after its creation a workload may lack pods before its Events are read."""

STARTING_SECONDS = 20.0
"""How long a pod may take to start its first container before its Events are read."""

AGAIN_SECONDS = 15.0
"""How often Events are read while pods are missing or wait."""


async def find_obstacle(run: Pass, workload: StatefulSet | Job, wanted: int) -> Fault | None:
    """Why pods are missing, else why one does not start; None when nothing is known, or it is too early to ask."""
    alive = [pod for pod in run.seen.pods if not pod.deleting]
    if len(alive) < wanted:
        if not _is_older(run, workload, MISSING_SECONDS):
            return None
        refusal = await why_no_pods(run.api, workload)
        if refusal:
            message = f"{workload.kind} {workload.name} may not create its pods: {refusal}"
            return Fault(conditions.POD_CREATION_FAILED, message)
    for pod in alive:
        if has_started(pod) or not pod.spec.node_name or not _is_older(run, pod, STARTING_SECONDS):
            continue
        wait = await why_waiting(run.api, pod)
        if wait:
            return Fault(conditions.CONTAINER_START_ERROR, f"pod {pod.name} cannot start: {wait}")
    return None


def _is_older(run: Pass, thing: StatefulSet | Job | Pod, seconds: float) -> bool:
    """Whether the object is that old; the pass is repeated when it will be, and while the wait lasts."""
    born = thing.metadata.creation_timestamp
    age = (run.now - born).total_seconds() if born is not None else seconds
    run.wake(AGAIN_SECONDS if age >= seconds else seconds - age, f"{thing.kind} {thing.name} waits")
    return age >= seconds
