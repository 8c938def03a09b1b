"""Step: the Job that tunes, and what its pod says. An edited Workspace gets a new Job once the old one is gone."""

from collections.abc import Sequence

from kaito.api import labels
from kaito.runtime.kinds import Job, Pod
from kaito.workspace.context import Pass
from kaito.workspace.indexes import PODS
from kaito.workspace.manifests.tuning import tuning_job
from kaito.workspace.plan import Plan
from kaito.workspace.steps.guards import foreign, unless_refused
from kaito.workspace.steps.obstacles import find_obstacle

SAFETY_SECONDS = 60.0
"""How often a Job that has not started is looked at although nothing was heard."""

REPLACED_SECONDS = 5.0
"""How often the end of a deleted Job is looked for although nothing was heard."""


async def ensure(run: Pass) -> None:
    """Create the Job once the node is ready; replace it when its inputs changed; look at its pods."""
    if run.workspace.tuning is None:
        return
    present = await run.api.find(Job, run.workspace.name, run.workspace.namespace)
    if present is not None and foreign(run, present):
        return
    pods: Sequence[Pod] = () if present is None else await run.api.list(Pod, index=PODS(str(run.workspace.key)))
    run.seen.job, run.seen.pods, run.seen.looked_at_workload = present, pods, True
    if run.plan is not None:
        run.seen.job = present = await _converge(run, run.plan, present)
    if present is not None and not is_ended(present) and not present.status.ready:
        run.wake(SAFETY_SECONDS, "the tuning job is starting")
        run.seen.obstacle = await find_obstacle(run, present, 1)


def is_ended(job: Job) -> bool:
    """Whether the Job completed or failed."""
    return job.has_condition("Complete") or job.has_condition("Failed")


async def is_finished(run: Pass, plan: Plan) -> bool:
    """Whether the Workspace tunes, and the Job for what it says now has ended, well or not."""
    if run.workspace.tuning is None:
        return False
    job = await run.api.find(Job, run.workspace.name, run.workspace.namespace)
    if job is None or job.deleting or not is_ended(job):
        return False
    wanted = tuning_job(run.workspace, plan, run.settings)
    return job.annotations.get(labels.TEMPLATE_HASH) == wanted.annotations[labels.TEMPLATE_HASH]


async def _converge(run: Pass, plan: Plan, present: Job | None) -> Job | None:
    """A Job's template cannot be changed, so a Job with another digest is deleted and made again."""
    wanted = tuning_job(run.workspace, plan, run.settings)
    if present is not None:
        if present.deleting:
            run.wake(REPLACED_SECONDS, "the old tuning job is going away")
        elif present.annotations.get(labels.TEMPLATE_HASH) != wanted.annotations[labels.TEMPLATE_HASH]:
            await run.api.delete(present, propagation="Foreground")
            run.request.event("Normal", "JobReplaced", f"deleted Job {present.name}: its inputs changed")
            run.wake(REPLACED_SECONDS, "the old tuning job is going away")
        return present
    if not run.placeable:
        return None
    return await _create(run, plan, wanted)


async def _create(run: Pass, plan: Plan, wanted: Job) -> Job | None:
    if plan.training is not None:
        config = run.api.ensure(plan.training, owner=run.workspace)
        if await unless_refused(run, "the training configuration", config) is None:
            return None
    made = await unless_refused(run, "the job", run.api.ensure(wanted, owner=run.workspace))
    if made is not None:
        run.request.log.info("tuning job created")
        run.request.event("Normal", "JobCreated", f"created Job {made.name}")
    return made
