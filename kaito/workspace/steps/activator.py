"""Scales a Workspace to zero and leads its requests to the activator.

Applies the EndpointSlice of a Workspace with `spec.autoscaling.minReplicas: 0`, keeps the number of copies within its
limits, and scales to zero after the idle time (`idleness`). The slice contains the activator while no copy is ready,
while the last copies end, and shortly before they are removed.
"""

import contextlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from kaito.api import labels
from kaito.api.workspace import ScalingStatus
from kaito.runtime.cache import Derived
from kaito.runtime.client import MergePatch
from kaito.runtime.errors import Conflict
from kaito.runtime.kinds import EndpointSlice
from kaito.workspace.context import ReconcileContext
from kaito.workspace.idleness import IdleDecision, IdleState, decide_idle
from kaito.workspace.manifests.activator import activator_slice, addresses_of, port_of, slice_name, slice_port
from kaito.workspace.ownership import is_controller_of
from kaito.workspace.plan import Plan
from kaito.workspace.state import ActivationReport, WorkloadReport
from kaito.workspace.steps.guards import apply_owned, is_foreign
from kaito.workspace.steps.inference import is_pod_of

LISTEN_SECONDS: Final = 3.0
"""Time from the creation of the slice until it has endpoints: the activator opens the port meanwhile."""

PORTS: Final = Derived(EndpointSlice, port_of)
"""The ports of all Workspaces, of which the EndpointSlices that changed are decoded for each new Workspace."""


async def ensure_activator(ctx: ReconcileContext, plan: Plan | None, workload: WorkloadReport | None) -> None:
    """Applies the EndpointSlice, and scales to zero or into the limits."""
    workspace = ctx.workspace
    if workspace.inference is None:
        return
    scaling = workspace.spec.autoscaling
    scales_to_zero = scaling is not None and scaling.scales_to_zero
    name = slice_name(workspace.name)
    present = await ctx.api.find(EndpointSlice, name, workspace.namespace)
    if not scales_to_zero:
        ctx.activity.watch(workspace.key, ())
        if present is not None and is_controller_of(workspace, present) and not ctx.is_read_only:
            await ctx.api.delete(present)
        if plan is not None and not ctx.is_read_only:
            await _keep_limits(ctx, plan)
        return
    family, addresses = addresses_of(
        await ctx.api.list(EndpointSlice, labels={labels.ACTIVATOR: labels.ACTIVATOR_ADDRESS})
    )
    decision = _decide(ctx, plan, workload, present, has_activator=bool(addresses))
    ctx.state.activation = ActivationReport(
        scaling=decision.scaling, has_activator=bool(addresses), problem=decision.problem
    )
    ctx.activity.report_changes(workspace.key, on=decision.hand_over)
    if decision.requeue_at is not None:
        ctx.request.requeue_at(decision.requeue_at, "the Workspace may be idle")
    if plan is None or workload is None or ctx.is_read_only:
        return
    needs_activator = plan.hardware.copies == 0 or _ready_copies(workload) == 0 or decision.hand_over
    await _apply_slice(ctx, present, family, addresses if needs_activator else [])
    if decision.scale_to_zero:
        seconds = scaling.idle_limit_seconds if scaling is not None else 0
        await _set_replicas(ctx, 0, "Idle", f"scaled to zero after {seconds} s without requests")
    else:
        await _keep_limits(ctx, plan)


def _decide(
    ctx: ReconcileContext,
    plan: Plan | None,
    workload: WorkloadReport | None,
    present: EndpointSlice | None,
    *,
    has_activator: bool,
) -> IdleDecision:
    """Decides about an idle Workspace, and records starts from zero."""
    workspace, autoscaling = ctx.workspace, ctx.workspace.spec.autoscaling
    recorded = workspace.status.scaling or ScalingStatus()
    pods = workload.pods if workload is not None else ()
    wanted = plan.hardware.copies if plan is not None else 0
    ctx.activity.watch(workspace.key, pods if wanted else ())
    if plan is None or workload is None or autoscaling is None:
        return IdleDecision(scaling=recorded)
    ready = _ready_copies(workload)
    recorded = _with_start(recorded, ctx, wanted=wanted, ready=ready)
    if wanted == 0:
        return IdleDecision(scaling=recorded.evolve(last_activity_time=None, requests_seen=""))
    return decide_idle(
        IdleState(
            now=ctx.now,
            idle_seconds=autoscaling.idle_limit_seconds,
            scaling=recorded,
            is_ready=ready >= wanted,
            activity=ctx.activity.find(workspace.key),
            has_activator=has_activator,
            handed_over_at=_since(present),
        )
    )


def _with_start(recorded: ScalingStatus, ctx: ReconcileContext, *, wanted: int, ready: int) -> ScalingStatus:
    """Returns the status with the beginning or the duration of a start from zero copies."""
    if wanted == 0:
        return recorded.evolve(woken_time=None)
    if recorded.woken_time is None:
        is_start = ctx.workspace.status.state == "ScaledToZero" and not ready
        return recorded.evolve(woken_time=ctx.now.replace(microsecond=0)) if is_start else recorded
    if not ready:
        return recorded
    seconds = (ctx.now - recorded.woken_time).total_seconds()
    return recorded.evolve(woken_time=None, last_start_seconds=max(round(seconds), 0))


def _ready_copies(workload: WorkloadReport) -> int:
    """Returns how many copies accept new requests.

    The status of a StatefulSet counts pods that are being deleted until they have ended: they leave the endpoints of
    the Service earlier.
    """
    stateful_set = workload.stateful_set
    if stateful_set is None:
        return 0
    ending = [pod for pod in workload.pods if pod.deleting and is_pod_of(stateful_set, pod)]
    still_counted = sum(1 for pod in ending if (ready := pod.condition("Ready")) is not None and ready.status == "True")
    return max(stateful_set.status.ready_replicas - still_counted, 0)


def _since(present: EndpointSlice | None) -> datetime | None:
    """Returns since when the slice has endpoints."""
    if present is None or not present.endpoints:
        return None
    try:
        return datetime.fromisoformat(present.annotations.get(labels.ACTIVATOR_SINCE, ""))
    except ValueError:
        return None


async def _apply_slice(
    ctx: ReconcileContext,
    present: EndpointSlice | None,
    family: str,
    addresses: Sequence[str],
) -> None:
    """Applies the slice with its port, and with endpoints once the activator listens."""
    workspace = ctx.workspace
    if present is not None and is_foreign(ctx, present):
        return
    if present is not None and present.address_type != family and addresses:
        await ctx.api.delete(present)  # the family is immutable; the next reconcile creates it again
        return
    port = slice_port(present) if present is not None else None
    if port is None:
        used = await ctx.api.values(PORTS)
        port = ctx.ports.allocate(workspace.key, dict(each for each in used if each is not None))
    created = present.metadata.creation_timestamp if present is not None else None
    listens_at = (created or ctx.now) + timedelta(seconds=LISTEN_SECONDS)
    if addresses and listens_at > ctx.now:
        ctx.request.requeue_at(listens_at, "the activator opens the port of the Workspace")
        addresses = []
    since = (_since(present) or ctx.now) if addresses else None
    address_type = present.address_type if present is not None else family
    wanted = activator_slice(workspace, port=port, family=address_type, addresses=addresses, since=since)
    await apply_owned(ctx, f"EndpointSlice {wanted.name}", wanted)


async def _keep_limits(ctx: ReconcileContext, plan: Plan) -> None:
    """Changes `spec.replicas` to the nearest limit. A Workspace that was scaled to zero by hand stays there."""
    autoscaling, copies = ctx.workspace.spec.autoscaling, plan.hardware.copies
    if autoscaling is None or copies == 0:
        return
    wanted = max(copies, autoscaling.min_replicas)
    if autoscaling.max_replicas is not None:
        wanted = min(wanted, autoscaling.max_replicas)
    if wanted != copies:
        limits = f"minReplicas {autoscaling.min_replicas}, maxReplicas {autoscaling.max_replicas or 'not set'}"
        await _set_replicas(ctx, wanted, "Scaled", f"spec.replicas set from {copies} to {wanted}: {limits}")


async def _set_replicas(ctx: ReconcileContext, replicas: int, reason: str, note: str) -> None:
    """Sets `spec.replicas`, unless the Workspace has changed meanwhile, which queues it again."""
    metadata = {"resourceVersion": ctx.workspace.metadata.resource_version}
    change = MergePatch({"metadata": metadata, "spec": {"replicas": replicas}})
    with contextlib.suppress(Conflict):
        await ctx.api.patch(ctx.workspace, change)
        ctx.request.event("Normal", reason, note)
