"""Step: the StatefulSet that serves, and what its pods say."""

from kaito.runtime.kinds import Pod, StatefulSet
from kaito.workspace.context import Pass
from kaito.workspace.indexes import PODS
from kaito.workspace.manifests.inference import inference_statefulset
from kaito.workspace.plan import Plan
from kaito.workspace.steps.takeover import REFUSALS, foreign, refused

SAFETY_SECONDS = 60.0
"""How often a workload that is not ready is looked at although nothing was heard."""


async def ensure(run: Pass) -> None:
    """Apply the workload once nodes are ready, keep applying it afterwards, and look at its pods."""
    if run.workspace.inference is None:
        return
    present = await run.api.find(StatefulSet, run.workspace.name, run.workspace.namespace)
    if present is not None and foreign(run, present):
        return
    if run.plan is not None and (run.placeable or present is not None):
        present = await _apply(run, run.plan, present)
    run.seen.workload, run.seen.looked_at_workload = present, True
    if present is not None:
        run.seen.pods = await run.api.list(Pod, index=PODS(str(run.workspace.key)))
        if present.status.ready_replicas < (present.spec.replicas or 0):
            run.wake(SAFETY_SECONDS, "pods pending")


async def _apply(run: Pass, plan: Plan, present: StatefulSet | None) -> StatefulSet | None:
    """Apply the workload; what the server refuses for its content becomes the condition's words."""
    try:
        applied = await run.api.ensure(inference_statefulset(run.workspace, plan, run.settings), owner=run.workspace)
    except REFUSALS as refusal:
        refused(run, "the workload", refusal)
        return present
    if present is None:
        run.request.log.info("workload created", replicas=applied.spec.replicas)
        run.request.event("Normal", "StatefulSetCreated", f"created StatefulSet {applied.name}")
    elif applied.metadata.generation != present.metadata.generation:
        run.request.log.info("workload updated", generation=applied.metadata.generation)
        run.request.event("Normal", "StatefulSetUpdated", f"updated StatefulSet {applied.name}; its pods are replaced")
    return applied
