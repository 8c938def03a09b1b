"""First step: what does the Workspace need, or why can it not run? The checks of `preflight`, on the live cluster.

A Workspace that fails a check has no plan: the other steps then only look. Nodes and workload that exist stay.
"""

from dataclasses import replace
from typing import Final

from kaito.api import conditions
from kaito.runtime.meta import find_condition
from kaito.workspace.context import Pass
from kaito.workspace.plan import Refusal
from kaito.workspace.preflight import Examination, examine
from kaito.workspace.preflight.live import LiveCluster

POLL_SECONDS: Final = 10.0
"""How often a missing Secret, or a refusal of the API server, is looked at again: neither is watched."""


async def decide(run: Pass) -> None:
    """Plan the Workspace, or note why it cannot be planned, with one event for each new reason."""
    cluster = LiveCluster(run.api, run.workspace, run.accepted)
    examination = await examine(run.workspace, run.settings, cluster)
    if not examination.errors and examination.plan is not None:
        warnings = tuple(str(finding) for finding in examination.warnings)
        plan = examination.plan
        run.seen.plan = replace(plan, notes=tuple(dict.fromkeys((*warnings, *plan.notes))))
        return
    run.seen.refusal = refusal = _refusal(examination)
    _announce(run, refusal)
    if any(finding.cure == "polled" for finding in examination.errors):
        run.wake(POLL_SECONDS, refusal.reason)


def _refusal(examination: Examination) -> Refusal:
    """All errors of the check that failed; the first one gives the reason."""
    first = examination.errors[0]
    message = "; ".join(str(finding) for finding in examination.errors)
    return Refusal(first.reason, message, waiting=first.cure != "edit" and first.reason != conditions.WORKLOAD_REFUSED)


def _announce(run: Pass, refusal: Refusal) -> None:
    """One event when the problem is new. The end of ResourceReady is announced with the status, so not here again."""
    last = find_condition(run.workspace.status.conditions, conditions.RESOURCE_READY)
    if last is not None and (last.is_true or (last.reason, last.message) == (refusal.reason, refusal.message)):
        return
    run.request.event("Warning", refusal.reason, refusal.message)
