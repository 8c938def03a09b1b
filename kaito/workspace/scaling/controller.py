"""Writes the number of copies of Workspaces and InferenceSets by the load of their servers.

One controller for each kind. It evaluates every `EVALUATE_SECONDS`, and writes `spec.replicas` only if the object is
still the one that was read: a change by the user takes precedence. `status.autoscaling` contains the last decision. It
is written when the number or the reason changes.
"""

import contextlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final, TypeVar, final

from kaito.api import InferenceSet, Workspace
from kaito.api.windows import is_open
from kaito.api.workspace import Autoscaling, AutoscalingStatus
from kaito.models.copies import copies_per_workspace
from kaito.runtime import Again, Request
from kaito.runtime.client import MergePatch
from kaito.runtime.controller import Controller
from kaito.runtime.errors import Conflict
from kaito.runtime.kinds import Pod
from kaito.runtime.meta import format_time
from kaito.runtime.predicate import changed
from kaito.runtime.source import FunctionSource
from kaito.workspace.indexes import PODS
from kaito.workspace.scaling.copies import ready_copies
from kaito.workspace.scaling.decision import Decision, Policy, decide
from kaito.workspace.scaling.monitor import LoadMonitor

EVALUATE_SECONDS: Final = 15.0
"""Interval of the evaluations, that of a HorizontalPodAutoscaler."""

WORKERS: Final = 8

Scaled = TypeVar("Scaled", Workspace, InferenceSet)


def policy_of(scaling: Autoscaling, now: datetime, *, copies_per_replica: int = 1) -> Policy | None:
    """Returns the policy at this time; None without a target or a limit, or with an invalid schedule.

    A set or Workspace with an invalid field reports it in its conditions and is not scaled.
    """
    target, most = scaling.target, scaling.max_replicas
    if target is None or most is None:
        return None
    try:
        scheduled = max((each.min_replicas for each in scaling.schedule if is_open(each, now)), default=0)
    except ValueError:
        return None
    defaults = Policy(least=1, most=1)
    up, down = scaling.scale_up, scaling.scale_down
    up_seconds = up.window_seconds if up is not None else None
    down_seconds = down.window_seconds if down is not None else None
    return Policy(
        least=max(scaling.min_replicas, 1),
        most=most,
        requests=target.requests,
        queue_seconds=target.queue_seconds,
        cache_usage=target.cache_usage_percent / 100 if target.cache_usage_percent else None,
        up_seconds=defaults.up_seconds if up_seconds is None else up_seconds,
        down_seconds=defaults.down_seconds if down_seconds is None else down_seconds,
        up_step=(up.copies_per_minute if up is not None else None) or defaults.up_step,
        down_step=(down.copies_per_minute if down is not None else None) or defaults.down_step,
        scheduled=scheduled,
        copies_per_replica=copies_per_replica,
    )


async def copies_of_workspace(request: Request[Workspace]) -> Sequence[Pod]:
    """Returns the ready pods of a Workspace, one of each copy."""
    return ready_copies(await request.api.list(Pod, index=PODS(str(request.object.key))))


async def copies_of_set(request: Request[InferenceSet]) -> Sequence[Pod]:
    """Returns the ready pods of all Workspaces of a set, one of each copy."""
    found: list[Pod] = []
    for workspace in await request.api.list(Workspace, owned_by=request.object):
        if not workspace.deleting:
            found += ready_copies(await request.api.list(Pod, index=PODS(str(workspace.key))))
    return found


@final
class Autoscaler:
    """Evaluates the load of objects and writes their number of copies.

    Args:
        monitor: polls the servers.
    """

    def __init__(self, monitor: LoadMonitor) -> None:
        self.monitor = monitor

    async def reconcile_workspace(self, request: Request[Workspace]) -> Again | None:
        """Evaluates a Workspace; one that is scaled to zero is left to the activator and to the user."""
        workspace = request.object
        pods = await copies_of_workspace(request) if workspace.spec.autoscaling is not None else ()
        return await self._evaluate(request, workspace.spec.replicas, workspace.status.autoscaling, pods)

    async def reconcile_set(self, request: Request[InferenceSet]) -> Again | None:
        """Evaluates an InferenceSet; one that is scaled to zero is left to the user."""
        found = request.object
        pods = await copies_of_set(request) if found.spec.autoscaling is not None else ()
        each = copies_per_workspace(found)
        return await self._evaluate(
            request, found.spec.replicas, found.status.autoscaling, pods, copies_per_replica=each
        )

    async def _evaluate(
        self,
        request: Request[Scaled],
        replicas: int | None,
        last: AutoscalingStatus | None,
        pods: Sequence[Pod],
        *,
        copies_per_replica: int = 1,
    ) -> Again | None:
        scaling, now = request.object.spec.autoscaling, request.clock.now()
        policy = policy_of(scaling, now, copies_per_replica=copies_per_replica) if scaling is not None else None
        if policy is None or request.object.deleting:
            self.monitor.forget(request.key)
            if last is not None and not request.object.deleting:
                await _write_status(request, None)
            return None
        if replicas:
            history = self.monitor.take(request.key, pods)
            last_change = last.last_scale_time if last is not None else None
            decision = decide(replicas, history, policy, now=now, last_change=last_change)
            await _act(request, replicas, decision, last)
        return Again(EVALUATE_SECONDS, "evaluation of the load")


async def _act(request: Request[Scaled], replicas: int, decision: Decision, last: AutoscalingStatus | None) -> None:
    """Writes the number of copies if it changed, and the decision if it is another one."""
    is_change = decision.replicas != replicas
    if is_change:
        metadata = {"resourceVersion": request.object.metadata.resource_version}
        change = MergePatch({"metadata": metadata, "spec": {"replicas": decision.replicas}})
        try:
            await request.api.patch(request.object, change)
        except Conflict:
            return  # the object has changed, which is evaluated next
        note = f"changed replicas from {replicas} to {decision.replicas}: {decision.message}"
        request.event("Normal", "ScaledUp" if decision.replicas > replicas else "ScaledDown", note)
        request.log.info("scaled", before=replicas, after=decision.replicas, reason=decision.reason)
    if is_change or last is None or (last.replicas, last.reason) != (decision.replicas, decision.reason):
        await _write_status(request, decision, last, is_change=is_change)


async def _write_status(
    request: Request[Scaled],
    decision: Decision | None,
    last: AutoscalingStatus | None = None,
    *,
    is_change: bool = False,
) -> None:
    """Writes `status.autoscaling` alone: another controller writes the rest of the status."""
    now = format_time(request.clock.now())
    document: dict[str, object] | None = None
    if decision is not None:
        document = {
            "replicas": decision.replicas,
            "reason": decision.reason,
            "message": decision.message,
            "time": now,
        }
        if is_change:
            document["lastScaleTime"] = now
        elif last is not None and last.last_scale_time is not None:
            document["lastScaleTime"] = format_time(last.last_scale_time)
    with contextlib.suppress(Conflict):
        await request.api.patch(request.object, MergePatch({"status": {"autoscaling": document}}), subresource="status")


def workspace_autoscaler(autoscaler: Autoscaler) -> Controller[Workspace]:
    """Returns the controller that scales Workspaces by load."""
    return Controller(
        Workspace,
        autoscaler.reconcile_workspace,
        name="workspace-autoscaler",
        workers=WORKERS,
        when=changed("spec", "deletionTimestamp"),
    ).receives(FunctionSource(autoscaler.monitor.run, name="load"))


def inference_set_autoscaler(autoscaler: Autoscaler) -> Controller[InferenceSet]:
    """Returns the controller that scales InferenceSets by load. It is idle while the kind is not installed."""
    return Controller(
        InferenceSet,
        autoscaler.reconcile_set,
        name="inference-set-autoscaler",
        workers=WORKERS,
        when=changed("spec", "deletionTimestamp"),
        wait_for_kinds=True,
    ).receives(FunctionSource(autoscaler.monitor.run, name="set-load"))
