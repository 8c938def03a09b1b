"""Reads the limits of the cost, and reserves a part of a namespace's budget before claims are created.

The reservation is an annotation of the Workspace, which is written in the same request as the record of the claims. It
counts for a Workspace that is created at the same time: both run in this process, one after the other (`Budgets.lock`),
and read what the process has written.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from kaito.api import Claim, Workspace, conditions, labels
from kaito.runtime.client import MergePatch
from kaito.runtime.kinds import Namespace
from kaito.workspace.budget import (
    BudgetText,
    Limits,
    NamespaceBudget,
    Reservation,
    ReservedByOthers,
    check_cost,
    limits_of,
    with_namespace,
)
from kaito.workspace.budget_ledger import Ledger, WorkspaceMetadata
from kaito.workspace.context import ReconcileContext
from kaito.workspace.manifests.claim import claim_kind
from kaito.workspace.plan import Plan
from kaito.workspace.state import ClaimsReport

RETRY_SECONDS: Final = 60.0
"""Interval at which a budget that is used up is checked again, because other Workspaces may have released a part."""


async def read_limits(ctx: ReconcileContext, *, live: bool = False) -> Limits | None:
    """Returns the limits for the nodes of the Workspace; None if there are none.

    Args:
        ctx: the reconcile.
        live: whether what earlier leaders have reserved must be contained. Otherwise, the cache may be late.
    """
    workspace, settings, book = ctx.workspace, ctx.settings, ctx.budgets.book
    kind = claim_kind(settings.node_api)
    if kind is None:
        return None
    stated = await _budget_of(ctx)
    if stated is None:
        return limits_of(workspace, settings, book)
    reserved = await _reserved(ctx, kind, live=live)
    return with_namespace(workspace, settings, book, NamespaceBudget(workspace.namespace, stated, reserved))


async def _budget_of(ctx: ReconcileContext) -> BudgetText | None:
    """Returns the budget of the namespace; None if it has none."""
    namespace = await ctx.api.find(Namespace, ctx.workspace.namespace)
    return None if namespace is None else BudgetText.of(namespace)


async def _reserved(ctx: ReconcileContext, kind: type[Claim], *, live: bool) -> ReservedByOthers:
    """Returns what the other Workspaces of the namespace cost.

    Reservations are increased, and claims created, by this process only, so that the cache, which contains own writes,
    contains all of them; but when this process became the leader, its watch may have been late. Therefore the first
    read of a namespace is from the API server, and later ones wait for the versions that it returned.
    """
    namespace, budgets = ctx.workspace.namespace, ctx.budgets
    ledger = budgets.ledger(kind, ctx.settings)
    selector = {labels.WORKSPACE_NAMESPACE: namespace}
    is_current = (
        (not live or namespace in budgets.confirmed)
        and await ctx.api.update_aggregate(ledger.holders, namespace=namespace)
        and await ctx.api.update_aggregate(ledger.claims, labels=selector)
    )
    if is_current and ledger.is_readable:
        return ledger.others(ctx.workspace)
    workspaces = await ctx.api.list(WorkspaceMetadata, namespace=namespace, consistency="live", unreadable="fail")
    claims = await ctx.api.list(kind, labels=selector, consistency="live", unreadable="fail")
    if ctx.api.require(workspaces) and ctx.api.require(claims):
        budgets.confirmed.add(namespace)
    total = Ledger(kind, ledger.limits)
    for workspace in workspaces:
        total.holders.put(workspace.key, workspace)
    for claim in claims:
        total.claims.put(claim.key, claim)
    return total.others(ctx.workspace)


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
