"""Applies the StatefulSets of an inference Workspace and observes their pods.

If a copy of the model is divided over several nodes, a second StatefulSet has the workers of the copies. Copies are
updated one after the other: the rolling update of the leaders replaces a leader, and this step deletes the workers of
that copy (`_delete_outdated_workers`).
"""

from collections.abc import Sequence
from typing import Final

from kaito.api import conditions, labels
from kaito.api.workspace import PerformanceStatus
from kaito.runtime.kinds import Pod, StatefulSet
from kaito.workspace.context import ReconcileContext
from kaito.workspace.failure import format_error
from kaito.workspace.held_upgrades import held_template
from kaito.workspace.indexes import PODS
from kaito.workspace.manifests.group import leader_of, workers_name
from kaito.workspace.manifests.inference import inference_stateful_set, worker_stateful_set
from kaito.workspace.ownership import is_controller_of
from kaito.workspace.plan import Plan
from kaito.workspace.pod_faults import Fault
from kaito.workspace.start_figures import performance, planned_figures
from kaito.workspace.start_progress import Progress
from kaito.workspace.state import WorkloadReport
from kaito.workspace.steps.adapters import ensure_adapter_list, observe_adapters
from kaito.workspace.steps.guards import (
    apply_owned,
    is_foreign,
    is_undecided,
    record_rejection,
    was_published_ready,
)
from kaito.workspace.steps.measurements import REVISION_LABEL, keep_measurements
from kaito.workspace.steps.pod_events import find_event_fault

RESYNC_SECONDS: Final = 60.0
"""Interval at which a workload that is not ready is reconciled without an event."""


async def ensure_inference(ctx: ReconcileContext, plan: Plan | None, *, can_place: bool) -> WorkloadReport | None:
    """Applies the StatefulSet once pods can be placed, updates it afterwards, and observes its pods.

    Returns None for a tuning Workspace, and if a StatefulSet of the Workspace's name has another controller.
    """
    if ctx.workspace.inference is None:
        return None
    present = await ctx.api.find(StatefulSet, ctx.workspace.name, ctx.workspace.namespace)
    if present is not None and is_foreign(ctx, present):
        return None
    pods: Sequence[Pod] = () if present is None else await ctx.api.list(Pod, index=PODS(str(ctx.workspace.key)))
    ctx.state.workload = report = WorkloadReport(
        stateful_set=present,
        pods=pods,
        progress=_observe_start(ctx, pods),
        adapters=observe_adapters(ctx, plan, pods),
        performance=_observe_figures(ctx, plan, pods),
    )
    report.workers = workers = await ctx.api.find(StatefulSet, workers_name(ctx.workspace), ctx.workspace.namespace)
    if workers is not None and not is_controller_of(ctx.workspace, workers):
        report.workers = None
    can_write = plan is not None and not ctx.is_read_only
    if present is None and can_place and is_undecided(ctx, plan):
        return report
    if plan is not None and can_write and (can_place or present is not None):
        wanted = _render(ctx, plan)
        if wanted is not None and (held := held_template(ctx.workspace, present, wanted)):
            ctx.state.pending_template = held
        else:
            report.workers = await _apply_workers(ctx, plan, workers, pods)
            report.stateful_set = present = await _apply(ctx, plan, present, wanted)
            if present is not None and wanted is not None:
                await keep_measurements(ctx, plan, present, wanted, pods)
    if present is None:
        return report
    copies = 1 if present.spec.replicas is None else present.spec.replicas
    if present.status.ready_replicas < copies:
        ctx.request.requeue_after(RESYNC_SECONDS, "pods pending")
        if can_write:
            await _delete_blocking_pods(ctx, present, report)
            await _delete_outdated_workers(ctx, plan, report)
        report.event_fault = await _find_event_fault(ctx, report, present)
    return report


async def _find_event_fault(ctx: ReconcileContext, report: WorkloadReport, leaders: StatefulSet) -> Fault | None:
    """Returns why pods of either StatefulSet are missing or do not start."""
    for stateful_set in filter(None, (leaders, report.workers)):
        wanted = 1 if stateful_set.spec.replicas is None else stateful_set.spec.replicas
        own = [pod for pod in report.pods if is_pod_of(stateful_set, pod)]
        fault = await find_event_fault(ctx, stateful_set, own, wanted=wanted)
        if fault is not None:
            return fault
    return None


def _observe_start(ctx: ReconcileContext, pods: Sequence[Pod]) -> dict[str, Progress]:
    """Has the pods of a preset polled until they are ready; returns what they did at the last poll."""
    if not ctx.workspace.preset_name:
        return {}
    ctx.monitor.watch(ctx.workspace.key, pods)
    found = {pod.name: ctx.monitor.find(pod) for pod in pods}
    return {name: progress for name, progress in found.items() if progress is not None}


def _observe_figures(ctx: ReconcileContext, plan: Plan | None, pods: Sequence[Pod]) -> PerformanceStatus | None:
    """Returns the figures of the ready pods; those of the last status until a pod has reported some."""
    inference = ctx.workspace.inference
    planned = planned_figures(plan, adapters=len(inference.adapters) if inference else 0)
    found = performance(ctx.monitor.figures(pods), planned)
    return found or ctx.workspace.status.performance


async def _apply(
    ctx: ReconcileContext, plan: Plan, present: StatefulSet | None, wanted: StatefulSet | None
) -> StatefulSet | None:
    """Applies the StatefulSet. Returns the present one if the new one cannot be rendered or is rejected."""
    if wanted is None or not await ensure_adapter_list(ctx, plan):
        return present
    applied = await apply_owned(ctx, "the workload", wanted)
    if applied is None:
        return present
    if present is None:
        ctx.state.workload_created = True
        ctx.request.log.info("workload created", replicas=applied.spec.replicas)
        if was_published_ready(ctx):
            ctx.request.event("Normal", "StatefulSetCreated", f"created StatefulSet {applied.name}")
    elif applied.metadata.generation != present.metadata.generation:
        _record_update(ctx, present, applied)
    return applied


def _record_update(ctx: ReconcileContext, before: StatefulSet, after: StatefulSet) -> None:
    """Records an event for a changed StatefulSet: for another number of copies, or for another template."""
    ctx.request.log.info("workload updated", generation=after.metadata.generation, replicas=after.spec.replicas)
    copies = (before.spec.replicas, after.spec.replicas)
    if copies[0] != copies[1]:
        reason = conditions.SCALED_TO_ZERO if copies[1] == 0 else "Scaled"
        ctx.request.event("Normal", reason, f"scaled StatefulSet {after.name} from {copies[0]} to {copies[1]} copies")
    if before.annotations.get(labels.TEMPLATE_HASH) != after.annotations.get(labels.TEMPLATE_HASH) or (
        copies[0] == copies[1]
    ):
        ctx.request.event("Normal", "StatefulSetUpdated", f"updated StatefulSet {after.name}; its pods are replaced")


async def _apply_workers(
    ctx: ReconcileContext, plan: Plan, present: StatefulSet | None, pods: Sequence[Pod]
) -> StatefulSet | None:
    """Applies the StatefulSet of the workers, or deletes it if each node serves the whole model.

    Workers whose leader still exists stay when the number of copies decreases: the leader finishes its requests.
    """
    wanted = worker_stateful_set(ctx.workspace, plan, ctx.settings)
    if wanted is None:
        if present is not None and is_controller_of(ctx.workspace, present):
            await ctx.api.delete(present, propagation="Background")
        return None
    if present is not None and is_foreign(ctx, present):
        return None
    kept = (present.spec.replicas or 0) if present is not None else 0
    needed = max(plan.hardware.workers, min(kept, _workers_of_leaders(plan, pods)))
    wanted = wanted.evolve(spec=wanted.spec.evolve(replicas=needed))
    applied = await apply_owned(ctx, "the workers", wanted)
    if applied is not None and present is None and was_published_ready(ctx):
        ctx.request.event("Normal", "StatefulSetCreated", f"created StatefulSet {applied.name}")
    return applied or present


def _workers_of_leaders(plan: Plan, pods: Sequence[Pod]) -> int:
    """Returns the number of workers of the copies whose leader exists, or finishes its requests."""
    leaders = [pod.name for pod in pods if pod.labels.get(labels.GROUP_ROLE) == labels.LEADER]
    ordinals = [int(ordinal) for name in leaders if (ordinal := name.rpartition("-")[2]).isdecimal()]
    return (max(ordinals, default=-1) + 1) * (plan.hardware.nodes_per_copy - 1)


def _render(ctx: ReconcileContext, plan: Plan) -> StatefulSet | None:
    """Renders the StatefulSet; returns None if the user's template has the wrong structure, which is recorded.

    Raises:
        Exception: rendering a preset failed, which is an error of the controller.
    """
    try:
        return inference_stateful_set(ctx.workspace, plan, ctx.settings)
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        inference = ctx.workspace.inference
        if inference is None or inference.template is None:
            raise
        message = f"inference.template is not a pod template: {format_error(error)}"
        record_rejection(ctx, conditions.WORKLOAD_REFUSED, message)
        ctx.deferred_errors.append(error)
        return None


async def _delete_blocking_pods(ctx: ReconcileContext, stateful_set: StatefulSet, report: WorkloadReport) -> None:
    """Deletes pods of an old revision that are not Ready.

    A rolling update waits for an updated pod to become Ready before it replaces the next one. With several pods, an
    updated pod may depend on a broken one of the old revision, and the update never ends (Kubernetes documents this as
    forced rollback).
    """
    status = stateful_set.status
    if not status.update_revision or status.observed_generation < stateful_set.metadata.generation:
        return
    for pod in report.pods:
        revision = pod.labels.get(REVISION_LABEL, "")
        if pod.deleting or pod.is_ready or revision in {"", status.update_revision}:
            continue
        if is_pod_of(stateful_set, pod) and await ctx.api.delete(pod):
            ctx.request.log.info("pod of an old revision deleted", pod=pod.name, revision=revision)
            note = f"deleted pod {pod.name}: it has an old template, is not ready, and blocks the update"
            ctx.request.event("Normal", "PodReplaced", note)


async def _delete_outdated_workers(ctx: ReconcileContext, plan: Plan | None, report: WorkloadReport) -> None:
    """Deletes workers of an old revision whose leader does not serve: it was replaced, or it will be.

    A leader that is Ready serves with its workers, whatever their revision. The rolling update replaces the leaders one
    after the other, so that the other copies serve meanwhile.
    """
    workers = report.workers
    if plan is None or workers is None or workers.status.observed_generation < workers.metadata.generation:
        return
    ready = {pod.name for pod in report.pods if pod.is_ready and not pod.deleting}
    for pod in report.pods:
        revision = pod.labels.get(REVISION_LABEL, "")
        if pod.deleting or not is_pod_of(workers, pod) or revision in {"", workers.status.update_revision}:
            continue
        leader = leader_of(ctx.workspace, pod.name, plan.hardware.nodes_per_copy)
        if leader not in ready and await ctx.api.delete(pod):
            ctx.request.log.info("outdated worker deleted", pod=pod.name, leader=leader)
            note = f"deleted pod {pod.name}: it has an old template, and its leader {leader} is replaced"
            ctx.request.event("Normal", "PodReplaced", note)


def is_pod_of(stateful_set: StatefulSet, pod: Pod) -> bool:
    """Whether the StatefulSet owns the pod."""
    return any(owner.uid == stateful_set.uid for owner in pod.metadata.owner_references)
