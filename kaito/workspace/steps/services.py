"""Applies the two Services of an inference Workspace, before its pods look up each other's DNS names."""

from kaito.runtime.kinds import Service
from kaito.workspace.context import ReconcileContext
from kaito.workspace.manifests.service import services
from kaito.workspace.plan import Plan
from kaito.workspace.steps.guards import is_foreign, unless_rejected


async def ensure_services(ctx: ReconcileContext, plan: Plan | None, *, can_place: bool) -> None:
    """Applies both Services once a workload can be placed. A Service with another owner is left unchanged."""
    if plan is None or ctx.is_read_only or not can_place:
        return
    for service in services(ctx.workspace):
        present = await ctx.api.find(Service, service.name, service.namespace)
        if present is not None and is_foreign(ctx, present):
            continue
        await unless_rejected(ctx, f"Service {service.name}", ctx.api.ensure(service, owner=ctx.workspace))
