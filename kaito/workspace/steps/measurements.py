"""Keeps what the servers of a Workspace measured when they started."""

from collections.abc import Sequence
from typing import Final

from kaito.api import labels
from kaito.models.planning import InferencePlan
from kaito.models.sizing import vllm_available_per_gpu
from kaito.runtime.errors import ApiError, TransportError
from kaito.runtime.kinds import Pod, StatefulSet
from kaito.workspace.context import ReconcileContext
from kaito.workspace.measurements import MeasurementRecord, model_name, sequences_of
from kaito.workspace.plan import Plan
from kaito.workspace.start_figures import StartFigures, measured_peak

REVISION_LABEL: Final = "controller-revision-hash"
"""Label of a StatefulSet's pods: the revision of the template that they were created from."""


async def keep_measurements(
    ctx: ReconcileContext, plan: Plan, present: StatefulSet, wanted: StatefulSet, pods: Sequence[Pod]
) -> None:
    """Keeps the measurements of the pods that run the plan.

    A failure is logged only: it must not delay a Workspace that serves.
    """
    figures = ctx.monitor.figures(_planned_pods(present, wanted, pods))
    record = _record(ctx, plan, figures)
    if record is None or plan.model is None or not record.is_plausible(plan.model.preset, plan.model.instance):
        return
    try:
        if await ctx.facts.measurements.keep(ctx.api, record):
            ctx.request.log.info("measurement kept", model=record.model, gpu=record.gpu, peak_bytes=record.peak_bytes)
    except (ApiError, TransportError) as error:
        ctx.request.log.warning("measurement not kept", model=record.model, error=str(error))


def _planned_pods(present: StatefulSet, wanted: StatefulSet, pods: Sequence[Pod]) -> list[Pod]:
    """Returns the pods that were created from the template of the plan."""
    status = present.status
    if (
        status.observed_generation < present.metadata.generation
        or not status.update_revision
        or present.annotations.get(labels.TEMPLATE_HASH) != wanted.annotations.get(labels.TEMPLATE_HASH)
    ):
        return []
    return [pod for pod in pods if pod.labels.get(REVISION_LABEL) == status.update_revision]


def _record(ctx: ReconcileContext, plan: Plan, figures: Sequence[StartFigures]) -> MeasurementRecord | None:
    """Returns the measurement of the pod with the least memory; None without one, or for a private image."""
    model, container = plan.model, plan.container
    measured = [each for each in figures if each.cache_bytes and each.cache_tokens]
    if not isinstance(model, InferencePlan) or container is None or container.is_private or not measured:
        return None
    usable = vllm_available_per_gpu(model.instance, model.engine.gpu_memory_utilization)
    inference = ctx.workspace.inference
    return MeasurementRecord(
        model=model_name(model.preset),
        gpu=model.instance.gpu.name,
        memory_per_gpu=model.instance.memory_per_gpu,
        dtype=model.dtype,
        tensor=model.parallelism.tensor,
        pipeline=model.parallelism.pipeline,
        data=model.parallelism.data,
        nodes=model.parallelism.nodes,
        settings=plan.memory_settings,
        adapters=len(inference.adapters) if inference else 0,
        sequences=sequences_of(model.preset, model.engine),
        peak_bytes=round(measured_peak(measured, usable)),
        cache_tokens=min(each.cache_tokens for each in measured),
        image=container.image,
        measured_at=ctx.now.replace(microsecond=0),
    )
