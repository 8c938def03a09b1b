"""Writes `status.cost`: with other changes of the status, when a node begins or ends, and otherwise once an hour."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from kaito.api import Workspace
from kaito.runtime.client import StatusScope
from kaito.runtime.kinds import Node
from kaito.workspace.context import ReconcileContext
from kaito.workspace.cost_ledger import account, has_changed
from kaito.workspace.settings import NodeApi

INTERVAL: Final = timedelta(hours=1)
"""Longest age of the amounts in the status while nodes exist. Metrics are computed when they are read."""


def update_cost(ctx: ReconcileContext, status: StatusScope[Workspace]) -> None:
    """Sets the cost, as the last field of the status; requeues for the next hour."""
    report = ctx.state.claims
    if ctx.settings.node_api is NodeApi.BYO or (report is None and ctx.state.plan_failure is None):
        return
    claims = report.claims if report is not None else ()
    nodes: Mapping[str, Node] = ctx.state.nodes.by_name if ctx.state.nodes is not None else {}
    before = ctx.workspace.status.cost
    seen = ctx.prices.seen(ctx.workspace.uid, claims)
    found = account(before, ctx.prices.instances(claims, nodes, ctx.settings), now=ctx.now, seen=seen)
    if found is None:
        return
    updated_at = before.updated_at if before is not None else None
    is_due = updated_at is None or (bool(found.nodes) and ctx.now - updated_at >= INTERVAL)
    if is_due or has_changed(before, found) or status.patch_for(ctx.workspace).document:
        status.set(cost=found)
        updated_at = ctx.now
    if found.nodes and updated_at is not None:
        ctx.request.requeue_at(updated_at + INTERVAL, "the cost in the status is an hour old")
