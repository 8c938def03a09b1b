"""Plans the Workspace: runs the preflight checks against the cluster.

A Workspace that fails a check has no plan. The other steps then only observe: existing nodes and workloads stay.
"""

from dataclasses import replace
from typing import Final

from kaito.api import conditions
from kaito.models.sizing import gib
from kaito.runtime.meta import find_condition
from kaito.workspace.context import ReconcileContext
from kaito.workspace.hub.record import facts_config_map
from kaito.workspace.plan import Plan, PlanFailure
from kaito.workspace.preflight import PreflightContext, run_checks
from kaito.workspace.preflight.live import LiveCluster
from kaito.workspace.steps.alternatives import selection_inputs
from kaito.workspace.steps.budget import RETRY_SECONDS
from kaito.workspace.weights import preset_spec

POLL_SECONDS: Final = 10.0
"""Interval at which a missing Secret, or a rejection by the API server, is checked again: neither is watched."""


_CERTAIN: Final = frozenset({conditions.WORKLOAD_REFUSED, conditions.BUDGET_EXCEEDED})
"""Reasons with status False, although something else than an edit of the Workspace may resolve them."""


async def plan_workspace(ctx: ReconcileContext) -> Plan | None:
    """Returns the plan; None if the Workspace cannot be planned, with one event for each new reason."""
    cluster = LiveCluster(ctx.api, ctx.workspace, ctx.settings, ctx.facts, ctx.models)
    selection = await selection_inputs(ctx)
    preflight = await run_checks(ctx.workspace, ctx.settings, cluster, selection)
    await _keep_facts(ctx, cluster, preflight)
    if not preflight.errors and preflight.plan is not None:
        warnings = tuple(str(finding) for finding in preflight.warnings)
        ctx.state.plan = plan = replace(
            preflight.plan, warnings=tuple(dict.fromkeys((*warnings, *preflight.plan.warnings)))
        )
        return plan
    ctx.state.plan_failure = failure = _plan_failure(preflight)
    _record_event(ctx, failure)
    if any(finding.resolved_by == "poll" for finding in preflight.errors):
        # An edit of the budget requeues at once; only what other Workspaces release is polled for.
        seconds = RETRY_SECONDS if failure.reason == conditions.BUDGET_EXCEEDED else POLL_SECONDS
        ctx.request.requeue_after(seconds, failure.reason)
    return None


async def _keep_facts(ctx: ReconcileContext, cluster: LiveCluster, preflight: PreflightContext) -> None:
    """Stores the facts that were read from the hub, before a claim is created: a restart must not read other ones."""
    record = preflight.facts
    given = preset_spec(ctx.workspace)
    if record is None or given is None or given[0].preset_options.model_facts:
        return
    if ctx.facts.kept.get(ctx.workspace.uid) == record:
        return
    await ctx.api.ensure(facts_config_map(ctx.workspace, record), owner=ctx.workspace)
    cluster.keep_facts(record)
    facts = record.facts
    found = f"{facts.model} at {facts.revision[:12]} is a {facts.architecture} of {gib(facts.weights_bytes)}"
    ctx.request.event("Normal", conditions.MODEL_RESOLVED, f"{found}, read from {record.source}")


def _plan_failure(preflight: PreflightContext) -> PlanFailure:
    """Joins the errors of the check that failed; the first error determines the reason."""
    first = preflight.errors[0]
    message = "; ".join(str(finding) for finding in preflight.errors)
    is_waiting = first.resolved_by != "edit" and first.reason not in _CERTAIN
    return PlanFailure(first.reason, message, is_waiting=is_waiting)


def _record_event(ctx: ReconcileContext, failure: PlanFailure) -> None:
    """Records an event for a new problem.

    If ResourceReady was True until now, the status step records an event with the same message.
    """
    last = find_condition(ctx.workspace.status.conditions, conditions.RESOURCE_READY)
    if last is not None and (last.is_true or (last.reason, last.message) == (failure.reason, failure.message)):
        return
    ctx.request.event("Warning", failure.reason, failure.message)
