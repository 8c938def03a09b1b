"""Check of the source of the weights: it is known, and the cluster supports it. It fills in the choice for the plan."""

from collections.abc import Iterable
from functools import partial
from typing import Final

from kaito.api import conditions
from kaito.models.copies import wanted_copies
from kaito.models.weights import SOURCE, Weights, select_weights
from kaito.workspace.image_volumes import BY_DEFAULT, IF_ENABLED, node_problem, server_problem
from kaito.workspace.preflight.context import LookupUnavailable, PreflightContext
from kaito.workspace.preflight.finding import Finding
from kaito.workspace.settings import NodeApi
from kaito.workspace.weights import WeightsChoice, preset_spec, recorded_weights, weights_inputs

FEATURE_DISABLED: Final = "must specify a volume type"
"""Message with which an API server rejects an image volume if its feature gate is off: it drops the field."""


async def source(ctx: PreflightContext) -> Iterable[Finding]:
    """Selects the source of the weights. A workload that exists keeps the source that it was created with.

    Raises:
        WeightsUnavailable: the source needs an artifact or a cache that is not known.
        KaitoRuntimeError: the cluster could not be read.
    """
    found = preset_spec(ctx.workspace)
    if found is None or ctx.preset is None:
        return ()
    spec, path = found
    inputs = weights_inputs(spec)
    recorded = await _recorded(ctx, inputs)
    if recorded is not None:
        ctx.weights = WeightsChoice(weights=recorded, inputs=inputs)
        return ()
    select = partial(select_weights, spec, ctx.preset, ctx.settings.weights, path=path)
    without, best = select(image_volumes=False), select(image_volumes=True)
    if best.method != "ImageVolume":
        ctx.weights = WeightsChoice(weights=best, inputs=inputs)
        return ()
    if without.method == "ImageVolume":
        ctx.weights = WeightsChoice(weights=best, inputs=inputs)
        return await _unsupported(ctx, f"{path}.{SOURCE}")
    ctx.weights = await _choose(ctx, best, without, inputs)
    return ()


async def _recorded(ctx: PreflightContext, inputs: str) -> Weights | None:
    try:
        return recorded_weights(await ctx.cluster.present_workload(), inputs)
    except LookupUnavailable:
        return None


async def _unsupported(ctx: PreflightContext, field: str) -> Iterable[Finding]:
    """Reports why image volumes, which were requested, cannot be used. Nodes may not exist yet."""
    try:
        problem = server_problem(await ctx.cluster.server_version(), IF_ENABLED)
        problem = problem or node_problem(await ctx.cluster.own_nodes(), IF_ENABLED)
    except LookupUnavailable:
        return ()
    if not problem:
        return ()
    message = f"is ImageVolume, but {problem}: use Auto, Pull or NodeCache, or upgrade"
    return (Finding(conditions.INVALID_SPEC, field, message, resolved_by="poll"),)


async def _choose(ctx: PreflightContext, mounted: Weights, pulled: Weights, inputs: str) -> WeightsChoice:
    """Selects an image volume if the API server and all nodes support it.

    Until all nodes exist, the choice is provisional.
    """
    try:
        version, nodes = await ctx.cluster.server_version(), await ctx.cluster.own_nodes()
    except LookupUnavailable:
        return WeightsChoice(weights=pulled, inputs=inputs, is_provisional=True)
    if server_problem(version, BY_DEFAULT) or node_problem(nodes, BY_DEFAULT):
        return WeightsChoice(weights=pulled, inputs=inputs)
    # Copies may share existing nodes; before the plan, it is not known how many do.
    before_plan = 1 if ctx.settings.node_api is NodeApi.BYO else wanted_copies(ctx.workspace)
    is_provisional = not nodes or len(nodes) < (ctx.workspace.status.target_node_count or before_plan)
    return WeightsChoice(weights=pulled if is_provisional else mounted, inputs=inputs, is_provisional=is_provisional)
