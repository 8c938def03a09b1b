"""Step: the StatefulSet that serves, and what its pods say."""

from collections.abc import Sequence

from kaito.api import conditions
from kaito.runtime.kinds import Pod, StatefulSet
from kaito.workspace.context import Pass
from kaito.workspace.failure import describe
from kaito.workspace.indexes import PODS
from kaito.workspace.manifests.inference import inference_statefulset
from kaito.workspace.plan import Plan
from kaito.workspace.steps.guards import foreign, note_problem, unless_refused
from kaito.workspace.steps.obstacles import find_obstacle

SAFETY_SECONDS = 60.0
"""How often a workload that is not ready is looked at although nothing was heard."""

REVISION_LABEL = "controller-revision-hash"
"""Label of a StatefulSet's pods: the revision of the template that they were made from."""


async def ensure(run: Pass) -> None:
    """Apply the workload once nodes are ready, keep applying it afterwards, and look at its pods."""
    if run.workspace.inference is None:
        return
    present = await run.api.find(StatefulSet, run.workspace.name, run.workspace.namespace)
    if present is not None and foreign(run, present):
        return
    pods: Sequence[Pod] = () if present is None else await run.api.list(Pod, index=PODS(str(run.workspace.key)))
    run.seen.workload, run.seen.pods, run.seen.looked_at_workload = present, pods, True
    if run.plan is not None and (run.placeable or present is not None):
        run.seen.workload = present = await _apply(run, run.plan, present)
    if present is None:
        return
    wanted = 1 if present.spec.replicas is None else present.spec.replicas
    if present.status.ready_replicas < wanted:
        run.wake(SAFETY_SECONDS, "pods pending")
        if run.plan is not None:
            await _replace_blocking_pods(run, present)
        run.seen.obstacle = await find_obstacle(run, present, wanted)


async def _apply(run: Pass, plan: Plan, present: StatefulSet | None) -> StatefulSet | None:
    """Apply the workload; what the server refuses for its content becomes the condition's words."""
    wanted = _render(run, plan)
    if wanted is None:
        return present
    applied = await unless_refused(run, "the workload", run.api.ensure(wanted, owner=run.workspace))
    if applied is None:
        return present
    if present is None:
        run.request.log.info("workload created", replicas=applied.spec.replicas)
        run.request.event("Normal", "StatefulSetCreated", f"created StatefulSet {applied.name}")
    elif applied.metadata.generation != present.metadata.generation:
        run.request.log.info("workload updated", generation=applied.metadata.generation)
        run.request.event("Normal", "StatefulSetUpdated", f"updated StatefulSet {applied.name}; its pods are replaced")
    return applied


def _render(run: Pass, plan: Plan) -> StatefulSet | None:
    """The workload; None when the user's template cannot be put into one, which is the pass's problem then.

    Raises:
        Exception: rendering failed without a template of the user: an error of the controller.
    """
    try:
        return inference_statefulset(run.workspace, plan, run.settings)
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        inference = run.workspace.inference
        if inference is None or inference.template is None:
            raise
        message = f"inference.template is not a pod template: {describe(error)}"
        note_problem(run, conditions.WORKLOAD_REFUSED, message)
        run.errors.append(error)
        return None


async def _replace_blocking_pods(run: Pass, present: StatefulSet) -> None:
    """Delete pods of an old revision that are not Ready.

    A rolling update waits for an updated pod to become Ready before it replaces the next one. With several pods, an
    updated one may wait for a broken one of the old revision, and the update never ends (Kubernetes documents this as
    forced rollback).
    """
    status = present.status
    if not status.update_revision or status.observed_generation < present.metadata.generation:
        return
    for pod in run.seen.pods:
        revision = pod.labels.get(REVISION_LABEL, "")
        made_here = any(owner.uid == present.uid for owner in pod.metadata.owner_references)
        if pod.deleting or pod.is_ready or not made_here or revision in {"", status.update_revision}:
            continue
        if await run.api.delete(pod):
            run.request.log.info("pod of an old revision deleted", pod=pod.name, revision=revision)
            note = f"deleted pod {pod.name}: it has an old template, is not ready, and blocks the update"
            run.request.event("Normal", "PodReplaced", note)
