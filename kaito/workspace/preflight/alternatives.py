"""Check of the alternatives: plans each instance type for itself, and chooses the one that the Workspace uses.

The checks before it fill in what all alternatives share: model, configuration file and source of the weights. The
checks after it see a Workspace that names only the chosen instance type.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import final

from kaito.api import conditions
from kaito.models.alternatives import FIELD, alternatives, resolved
from kaito.models.errors import PlanError
from kaito.models.instance_types import FIELD as INSTANCE_FIELD, cloud_name, same_size
from kaito.workspace.alternatives import Candidate, SelectionInputs, choose, has_launched, offering_keys
from kaito.workspace.budget import CostCheck, check_cost
from kaito.workspace.preflight import capacity, planning, workload
from kaito.workspace.preflight.budget import bought_nodes
from kaito.workspace.preflight.context import PreflightContext
from kaito.workspace.preflight.finding import Finding


async def select(ctx: PreflightContext) -> Iterable[Finding]:
    """Chooses the alternative, and reports the ones that cannot run the model as warnings.

    If none can, each is reported as an error.
    """
    named = alternatives(ctx.workspace)
    if not named:
        return ()
    inputs = ctx.selection
    planned = [await _evaluate(ctx, name, index) for index, name in enumerate(named)]
    known = [each.candidate.instance_type for each in planned]
    for claim in inputs.claims:
        name = claim.instance_type
        if name and has_launched(claim) and not any(same_size(name, each) for each in known):
            planned.append(await _evaluate(ctx, name, None))
            known.append(name)
    candidates = [each.candidate for each in planned]
    choice = choose(candidates, inputs.record, inputs.claims, now=inputs.now)
    if choice is None:
        over_budget = [finding for each in planned for finding in each.budget]
        return [*over_budget, *(finding for each in planned for finding in each.findings)]
    ctx.choice = choice
    chosen = planned[choice.position]
    ctx.workspace, ctx.instance = chosen.ctx.workspace, chosen.ctx.instance
    if chosen.findings:
        return chosen.findings
    skipped = [
        replace(finding, severity="warning", message=f"{finding.message}; this alternative is skipped")
        for each in planned
        for finding in (*each.findings, *(each.budget if each is not chosen else ()))
    ]
    if not choice.candidate.is_listed:
        message = f"does not contain {choice.candidate.instance_type}, of which nodes exist: they stay"
        skipped.append(Finding(conditions.INVALID_SPEC, FIELD, message, "warning"))
    return skipped


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Evaluated:
    """One alternative with the context in which it was checked."""

    candidate: Candidate
    ctx: PreflightContext
    findings: tuple[Finding, ...] = ()
    """Why it cannot run the model."""
    budget: tuple[Finding, ...] = ()
    """Why it is not bought."""


async def _evaluate(ctx: PreflightContext, name: str, index: int | None) -> _Evaluated:
    """Runs the checks that depend on the instance type.

    Args:
        ctx: with the results of the checks before.
        name: the instance type.
        index: its place in the list; None for one that the Workspace does not name.
    """
    limits = ctx.selection.limits
    sub = replace(ctx, workspace=resolved(ctx.workspace, name), findings=[], selection=SelectionInputs())
    try:
        for check in (planning.hardware, planning.plan, workload.render, capacity.requests):
            sub.findings.extend(await check(sub))
            if sub.errors:
                break
    except PlanError as error:
        sub.findings.append(Finding.from_plan_error(error))
    path = FIELD if index is None else f"{FIELD}[{index}]"
    findings = tuple(_about(finding, path, name) for finding in sub.errors)
    hardware = sub.plan.hardware if sub.plan is not None else None
    checked = (
        check_cost(hardware.instance_type, hardware.capacity_types, bought_nodes(ctx.workspace, hardware), limits)
        if hardware and limits
        else CostCheck()
    )
    if hardware is not None and limits is not None and not checked.problem:
        hardware = replace(hardware, capacity_types=checked.capacity_types)
    candidate = Candidate(
        instance_type=hardware.instance_type if hardware else cloud_name(name, ctx.settings.cloud),
        keys=offering_keys(hardware.instance_type, hardware.capacity_types, hardware.zones) if hardware else (),
        nodes=hardware.count if hardware is not None else 0,
        problem="; ".join(finding.message for finding in findings),
        over_budget=checked.problem,
        is_listed=index is not None,
    )
    budget: tuple[Finding, ...] = ()
    if checked.problem:
        budget = (Finding(conditions.BUDGET_EXCEEDED, path, f"{name}: {checked.problem}", resolved_by="poll"),)
    return _Evaluated(candidate=candidate, ctx=sub, findings=findings, budget=budget)


def _about(finding: Finding, path: str, name: str) -> Finding:
    """Returns the finding with the entry of the list as its field, and with the name of the instance type."""
    if finding.field == INSTANCE_FIELD:
        message = finding.message if name in finding.message else f"{name} {finding.message}"
        return replace(finding, field=path, message=message)
    return replace(finding, field=path, message=f"{name}: {finding.field}: {finding.message}")
