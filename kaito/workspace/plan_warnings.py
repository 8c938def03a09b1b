"""Builds the warnings with which admission reports nodes and price of a Workspace.

`kubectl apply` prints them, also with `--dry-run=server`. The plan is the one that `kaito plan` prints without a
cluster, and the price is from a table: admission sends no request. Objects that the Workspace names are not read, so
that a configuration file may change the plan later.
"""

from dataclasses import replace
from typing import Final

from kaito.api import Workspace, conditions
from kaito.prices.book import PriceBook
from kaito.workspace.alternatives import SelectionInputs
from kaito.workspace.budget import limits_of
from kaito.workspace.cost import Cost, offering
from kaito.workspace.plan import Plan
from kaito.workspace.preflight import Finding, PreflightContext, run_checks
from kaito.workspace.preflight.offline import ManifestReader
from kaito.workspace.preview import identified
from kaito.workspace.settings import NodeApi, WorkspaceSettings

_REPORTED: Final = frozenset({conditions.BUDGET_EXCEEDED, conditions.MODEL_PENDING})
"""Reasons that others report: `cost_findings` the budget, and the rules of the catalog a model that is not in it."""


async def plan_warnings(
    workspace: Workspace, old: Workspace | None, settings: WorkspaceSettings, prices: PriceBook
) -> list[str]:
    """Returns the warnings for a valid Workspace; none for existing nodes, and for updates with the same nodes.

    What the checks before the first node find is a warning as well, because the controller reports it and buys nothing.
    """
    if settings.node_api is NodeApi.BYO or workspace.deleting:
        return []
    if old is not None and _plan_fields(old) == _plan_fields(workspace):
        return []
    checked = await _checked(workspace, settings, prices)
    if checked.errors:
        found = [finding for finding in checked.errors if finding.reason not in _REPORTED]
        return [f"{finding}; no node is created until it is corrected{_unread(workspace)}" for finding in found]
    plan = checked.plan
    if plan is None:
        return []
    before = await _plan(old, settings, prices) if old is not None else None
    if before is not None and before.hardware == plan.hardware:
        return []
    count, instance_type = plan.hardware.count, plan.hardware.instance_type
    if count == 0:
        return ["spec.replicas: is 0: no copies run, and nodes are given back"]
    nodes = f"{count} node{'s' if count > 1 else ''} of {instance_type}"
    price = _price(plan, settings, prices)
    return [f"resource: the plan is {nodes}: {price}{_alternatives(plan)}{_unread(workspace)}"]


def _alternatives(plan: Plan) -> str:
    """Returns the further alternatives in order, as the end of a message; empty if there are none."""
    if plan.choice is None:
        return ""
    later = [each for each in plan.choice.candidates[plan.choice.position + 1 :] if each.is_usable]
    described = [f"{each.nodes} of {each.instance_type}" for each in later]
    return f"; if the cloud is out of it: {', then '.join(described)}" if described else ""


def _plan_fields(workspace: Workspace) -> tuple[object, ...]:
    """Returns what a plan depends on, so that an update of other fields computes none."""
    return workspace.annotations, workspace.spec, workspace.resource, workspace.inference, workspace.tuning


async def cost_findings(
    workspace: Workspace, old: Workspace | None, settings: WorkspaceSettings, prices: PriceBook
) -> list[Finding]:
    """Returns why the Workspace is refused because of `resource.maxHourlyCost`; none if an update does not change it.

    With a configuration file, which is not read here and may change the plan, the findings are warnings.
    """
    if settings.node_api is NodeApi.BYO or workspace.deleting or workspace.resource.max_hourly_cost is None:
        return []
    if old is not None and _plan_fields(old) == _plan_fields(workspace):
        return []
    checked = await _checked(workspace, settings, prices)
    found = [finding for finding in checked.errors if finding.reason == conditions.BUDGET_EXCEEDED]
    if old is not None and found:
        before = {str(finding) for finding in (await _checked(old, settings, prices)).errors}
        found = [finding for finding in found if str(finding) not in before]
    return [replace(finding, severity="warning") for finding in found] if _unread(workspace) else found


async def _plan(workspace: Workspace, settings: WorkspaceSettings, prices: PriceBook) -> Plan | None:
    """Returns the plan from the object alone; None if there is an error, which other checks report."""
    checked = await _checked(workspace, settings, prices)
    return None if checked.errors else checked.plan


async def _checked(workspace: Workspace, settings: WorkspaceSettings, prices: PriceBook) -> PreflightContext:
    selection = SelectionInputs(limits=limits_of(workspace, settings, prices))
    return await run_checks(identified(workspace), settings, ManifestReader(), selection)


def _price(plan: Plan, settings: WorkspaceSettings, prices: PriceBook) -> str:
    if not settings.region:
        return "price unknown, because the controller has no --region"
    price = prices.find_offline(offering(plan.hardware, cloud=settings.cloud, region=settings.region))
    if price is None:
        return f"price in {settings.region} unknown"
    as_of = f", {price.as_of}" if price.as_of is not None else ""
    cost = Cost(nodes=plan.hardware.count, price=price)
    return f"{cost}, {price.capacity_type} in {settings.region} ({price.source}{as_of})"


def _unread(workspace: Workspace) -> str:
    part = workspace.inference or workspace.tuning
    return f"; ConfigMap {part.config!r} is read later" if part is not None and part.config else ""
