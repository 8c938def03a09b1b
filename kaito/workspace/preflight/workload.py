"""Checks of the whole workload: it can be rendered, and the API server accepts it."""

from collections.abc import Iterable
from dataclasses import replace

from pydantic import ValidationError

from kaito.api import conditions
from kaito.models.weights import SOURCE
from kaito.workspace.manifests.adapters import adapter_list
from kaito.workspace.manifests.inference import inference_stateful_set
from kaito.workspace.manifests.tuning import tuning_job
from kaito.workspace.preflight.context import LookupUnavailable, PreflightContext, Workload
from kaito.workspace.preflight.finding import Finding, workload_field
from kaito.workspace.preflight.objects import name_conflict
from kaito.workspace.preflight.weights import FEATURE_DISABLED
from kaito.workspace.tracing import trace_environment
from kaito.workspace.weights import preset_spec


async def render(ctx: PreflightContext) -> Iterable[Finding]:
    """Checks that the StatefulSet or Job can be rendered."""
    workspace, plan = ctx.workspace, ctx.plan
    if plan is None:
        return ()
    if plan.container is not None:
        environment = trace_environment(workspace, ctx.settings, await _present(ctx))
        ctx.plan = plan = replace(plan, trace_environment=environment)
    try:
        if workspace.tuning is not None:
            ctx.workload = tuning_job(workspace, plan, ctx.settings)
        else:
            ctx.workload = inference_stateful_set(workspace, plan, ctx.settings)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        return (Finding(conditions.WORKLOAD_REFUSED, workload_field(workspace), f"{path}: {first['msg']}"),)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        return (Finding(conditions.WORKLOAD_REFUSED, workload_field(workspace), f"cannot be rendered: {error}"),)
    return ()


async def _present(ctx: PreflightContext) -> Workload | None:
    try:
        return await ctx.cluster.present_workload()
    except LookupUnavailable:
        return None


async def config_maps(ctx: PreflightContext) -> Iterable[Finding]:
    """Checks that no ConfigMap of another owner has the name of one that the controller writes for the pods."""
    if ctx.plan is None:
        return ()
    written = (ctx.plan.training_config, adapter_list(ctx.workspace, ctx.plan))
    conflicts = [await name_conflict(ctx, config.name) for config in written if config is not None]
    return [conflict for conflict in conflicts if conflict is not None]


async def dry_run(ctx: PreflightContext) -> Iterable[Finding]:
    """Checks that the API server accepts the workload in a dry run."""
    if ctx.workload is None:
        return ()
    rejection = await ctx.cluster.find_rejection(ctx.workload)
    return () if rejection is None else (_explained(ctx, rejection),)


def _explained(ctx: PreflightContext, rejection: Finding) -> Finding:
    """Returns the rejection of an image volume by an API server without the feature as a problem of that field."""
    found = preset_spec(ctx.workspace)
    is_mounted = ctx.weights is not None and ctx.weights.weights.method == "ImageVolume"
    if found is None or not is_mounted or FEATURE_DISABLED not in rejection.message:
        return rejection
    message = "is ImageVolume, but the feature gate ImageVolume of the API server is off: use Pull, or turn it on"
    return replace(rejection, field=f"{found[1]}.{SOURCE}", message=message)
