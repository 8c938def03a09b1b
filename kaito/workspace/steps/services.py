"""Applies the two Services of an inference Workspace, before its pods look up each other's DNS names.

Copies of a model that are divided over several nodes also get a NetworkPolicy.
"""

from kaito.runtime.kinds import NetworkPolicy, Service
from kaito.workspace.context import ReconcileContext
from kaito.workspace.manifests.group import is_group, network_policy, policy_name
from kaito.workspace.manifests.service import services
from kaito.workspace.ownership import is_controller_of
from kaito.workspace.plan import Plan
from kaito.workspace.steps.guards import apply_owned, is_foreign


async def ensure_services(ctx: ReconcileContext, plan: Plan | None, *, can_place: bool) -> None:
    """Applies both Services once a workload can be placed. A Service with another owner is left unchanged."""
    if plan is None or ctx.is_read_only or not can_place:
        return
    await _ensure_network_policy(ctx, plan)
    for service in services(ctx.workspace, leaders_only=is_group(plan)):
        present = await ctx.api.find(Service, service.name, service.namespace)
        if present is not None and is_foreign(ctx, present):
            continue
        await apply_owned(ctx, f"Service {service.name}", service)


async def _ensure_network_policy(ctx: ReconcileContext, plan: Plan) -> None:
    """Applies the policy that protects the ports of the engines, or deletes it if each node serves the whole model."""
    name = policy_name(ctx.workspace)
    present = await ctx.api.find(NetworkPolicy, name, ctx.workspace.namespace)
    if is_group(plan):
        if present is None or not is_foreign(ctx, present):
            await apply_owned(ctx, f"NetworkPolicy {name}", network_policy(ctx.workspace))
    elif present is not None and is_controller_of(ctx.workspace, present):
        await ctx.api.delete(present)
