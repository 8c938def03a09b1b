"""Check of the cost: the planned nodes are within the limits of the Workspace and of its namespace.

A Workspace that has claims keeps them: the check is then only a warning, and the claims step buys no further node.
"""

from collections.abc import Iterable
from dataclasses import replace

from kaito.api import Workspace, conditions
from kaito.workspace.budget import check_cost
from kaito.workspace.plan import Hardware
from kaito.workspace.preflight.context import PreflightContext
from kaito.workspace.preflight.finding import Finding
from kaito.workspace.settings import NodeApi


async def cost(ctx: PreflightContext) -> Iterable[Finding]:
    """Compares the cost with the limits. If only some capacity types are within them, the plan has only these."""
    plan, limits = ctx.plan, ctx.selection.limits
    if plan is None or limits is None or ctx.settings.node_api is NodeApi.BYO:
        return ()
    checked = check_cost(
        plan.hardware.instance_type, plan.hardware.capacity_types, bought_nodes(ctx.workspace, plan.hardware), limits
    )
    if not checked.problem:
        ctx.plan = replace(plan, hardware=replace(plan.hardware, capacity_types=checked.capacity_types))
        return ()
    if any(not claim.deleting for claim in ctx.selection.claims):
        message = f"{checked.problem}; nodes that exist stay, and none is added"
        return (Finding(conditions.BUDGET_EXCEEDED, checked.field, message, "warning"),)
    return (Finding(conditions.BUDGET_EXCEEDED, checked.field, checked.problem, resolved_by="poll"),)


def bought_nodes(workspace: Workspace, hardware: Hardware) -> int:
    """Returns the number of nodes to buy if all preferred nodes are free; the claims step knows the exact number."""
    return max(hardware.count - len(workspace.resource.preferred_nodes), 0)
