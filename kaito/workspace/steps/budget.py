"""Reads the limits of the cost, and reserves a part of a namespace's budget before claims are created.

The reservation is an annotation of the Workspace, which is written in the same request as the record of the claims. A
Workspace that is created at the same time sees it: both run in this process, one after the other (`Budgets.lock`), and
read the Workspaces and claims of the namespace from the API server.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from kaito.api import Claim, Machine, NodeClaim, Workspace, conditions, labels
from kaito.runtime.cache import Derived
from kaito.runtime.client import MergePatch
from kaito.runtime.kinds import Namespace
from kaito.runtime.meta import Resource
from kaito.workspace.budget import (
    BudgetHolder,
    BudgetText,
    ClaimCost,
    Limits,
    Reservation,
    check_cost,
    limits_of,
    namespace_limits,
)
from kaito.workspace.context import ReconcileContext
from kaito.workspace.manifests.claim import claim_kind
from kaito.workspace.plan import Plan
from kaito.workspace.state import ClaimsReport

RETRY_SECONDS: Final = 60.0
"""Interval at which a budget that is used up is checked again, because other Workspaces may have released a part."""


class WorkspaceMetadata(Resource, api=Workspace.api_version, kind=Workspace.kind, plural=Workspace.plural):
    """The metadata of a Workspace: all that the budget depends on."""


_HOLDERS: Final = Derived(WorkspaceMetadata, BudgetHolder.of)
_COSTS: Final[Mapping[type[Claim], Derived[Any, ClaimCost]]] = {
    Machine: Derived(Machine, ClaimCost.of),
    NodeClaim: Derived(NodeClaim, ClaimCost.of),
}


async def read_limits(ctx: ReconcileContext, *, live: bool = False) -> Limits | None:
    """Returns the limits for the nodes of the Workspace; None if there are none.

    Args:
        ctx: the reconcile.
        live: whether to read other Workspaces and claims from the API server instead of the cache.
    """
    workspace, settings, book = ctx.workspace, ctx.settings, ctx.budgets.book
    kind = claim_kind(settings.node_api)
    if kind is None:
        return None
    stated = await _budget_of(ctx)
    if stated is None:
        return limits_of(workspace, settings, book)
    others, claims = await _others(ctx, kind, live=live)
    return namespace_limits(workspace, settings, book, stated=stated, others=others, claims=claims)


async def _budget_of(ctx: ReconcileContext) -> BudgetText | None:
    """Returns the budget of the namespace; None if it has none."""
    namespace = await ctx.api.find(Namespace, ctx.workspace.namespace)
    return None if namespace is None else BudgetText.of(namespace)


async def _others(
    ctx: ReconcileContext, kind: type[Claim], *, live: bool
) -> tuple[Sequence[BudgetHolder], Sequence[ClaimCost]]:
    """Returns the other Workspaces and all claims of the namespace. From the cache, only those that changed are
    decoded, because every reconcile of every Workspace of the namespace reads them."""
    namespace = ctx.workspace.namespace
    selector = {labels.WORKSPACE_NAMESPACE: namespace}
    if live:
        workspaces = await ctx.api.list(WorkspaceMetadata, namespace=namespace, consistency="live", unreadable="fail")
        found = await ctx.api.list(kind, labels=selector, consistency="live", unreadable="fail")
        holders, claims = [BudgetHolder.of(each) for each in workspaces], [ClaimCost.of(claim) for claim in found]
    else:
        holders = await ctx.api.values(_HOLDERS, namespace=namespace)
        claims = await ctx.api.values(_COSTS[kind], labels=selector)
    return [holder for holder in holders if holder.identity.uid != ctx.workspace.uid], claims


@asynccontextmanager
async def reserving(ctx: ReconcileContext) -> AsyncGenerator[None]:
    """Holds the lock of the namespace if it has a budget."""
    if await _budget_of(ctx) is None:
        yield
        return
    async with ctx.budgets.lock(ctx.workspace.namespace):
        yield


async def find_excess(ctx: ReconcileContext, report: ClaimsReport, plan: Plan) -> str:
    """Returns why the claims that are wanted may not all be bought; empty if they may."""
    limits = await read_limits(ctx, live=True)
    if limits is None:
        return ""
    found = check_cost(plan.hardware.instance_type, plan.hardware.capacity_types, report.wanted, limits)
    if found.problem:
        return f"{found.field}: {found.problem}"
    if found.capacity_types != plan.hardware.capacity_types:
        return "the capacity types that the limits allow have changed"
    return ""


async def reservation(
    ctx: ReconcileContext, workspace: Workspace, report: ClaimsReport, plan: Plan, *, creates: bool
) -> dict[str, str | None]:
    """Returns the annotation with the reservation if the stored one differs, to write before claims are created.

    It increases only with claims that are about to be created, which were compared with the budget. A node that is lost
    stays reserved until it is replaced, or refused.
    """
    stored = workspace.annotations.get(labels.RESERVATION)
    if await _budget_of(ctx) is None:
        return {} if stored is None else {labels.RESERVATION: None}
    before = Reservation.from_annotations(workspace.annotations)
    nodes = report.wanted
    if not creates:
        kept = before.nodes if before is not None and not report.over_budget else 0
        nodes = min(nodes, max(len(report.claims), kept))
    hardware = plan.hardware
    record = Reservation(instance_type=hardware.instance_type, capacity_types=hardware.capacity_types, nodes=nodes)
    return {} if record == before else {labels.RESERVATION: record.to_annotation()}


async def release_reservation(ctx: ReconcileContext, claims: int) -> None:
    """Reduces the reservation of a Workspace to its claims if the budget does not allow the nodes that it plans.

    A lost node stays reserved until it is replaced. If the budget was lowered meanwhile, two Workspaces that count what
    the other one has reserved would wait for each other without a limit.
    """
    failure, before = ctx.state.plan_failure, Reservation.from_annotations(ctx.workspace.annotations)
    if failure is None or failure.reason != conditions.BUDGET_EXCEEDED or before is None or before.nodes <= claims:
        return
    annotations = {labels.RESERVATION: replace(before, nodes=claims).to_annotation()}
    metadata = {"annotations": annotations, "resourceVersion": ctx.workspace.metadata.resource_version}
    await ctx.api.patch(ctx.workspace, MergePatch({"metadata": metadata}))
