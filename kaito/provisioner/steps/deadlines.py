"""Deadlines: a claim that will never get a usable node does not wait for one for ever.

Counted from a moment that is written on the claim, so that a restart changes nothing. A launch that is refused (quota,
capacity, size, a cloud in trouble) has no deadline: the claim stays, says why, and is served when the reason goes.
"""

from kaito.api import labels
from kaito.api.karpenter import conditions
from kaito.cloud.errors import CloudError
from kaito.provisioner.context import Pass, moment

LARGE_GPUS, LARGE_FACTOR = 8, 2.0
"""Sizes with so many GPUs get the launch timeout times the factor: AKS took 26 minutes for one of them."""


async def enforce_deadlines(run: Pass) -> None:
    """Look at the stage the claim is in."""
    launched, registered, initialized = run.claim.stages
    if not run.report.holds(launched):
        await _launch(run, launched)
    elif not run.report.holds(registered):
        _registration(run, launched)
    elif not run.report.holds(initialized):
        _initialization(run, registered, initialized)


async def _launch(run: Pass, launched: str) -> None:
    statement = run.report.statements.get(launched)
    begun = moment(run.claim.annotations.get(labels.LAUNCH_STARTED, ""))
    if begun is None or statement is None or statement.reason != conditions.AGENT_POOL_CREATING:
        return
    timeout = run.settings.launch_timeout
    if run.age(begun) >= timeout:
        timeout *= await _factor(run)
    remaining = timeout - run.age(begun)
    if remaining > 0:
        run.wake(remaining, "launch deadline")
        return
    message = f"no instance within {timeout:.0f} s of asking for it; last: {statement.message}"
    run.report.launched("False", conditions.LAUNCH_TIMEOUT, message)
    _expire(run, conditions.LAUNCH_TIMEOUT, "launch_timeout", message)


async def _factor(run: Pass) -> float:
    """How much longer the largest of the claim's sizes may take; a size that is not known may be a large one."""
    for name in run.claim.spec.values(labels.INSTANCE_TYPE):
        try:
            size = await run.cloud.instance_type(name)
        except CloudError:
            return LARGE_FACTOR
        if size is not None and size.gpus >= LARGE_GPUS:
            return LARGE_FACTOR
    return 1.0


def _registration(run: Pass, launched: str) -> None:
    since = run.report.condition(launched)
    waited = run.age(since.last_transition_time) if since is not None and since.is_true else 0.0
    remaining = run.settings.registration_timeout - waited
    if remaining > 0:
        run.wake(remaining, "registration deadline")
        return
    message = f"no node joined within {run.settings.registration_timeout:.0f} s of the launch"
    run.report.registered("False", conditions.REGISTRATION_TIMEOUT, message)
    _expire(run, conditions.REGISTRATION_TIMEOUT, "registration_timeout", message)


def _initialization(run: Pass, registered: str, initialized: str) -> None:
    since, before = run.report.condition(registered), run.report.condition(initialized)
    waited = run.age(since.last_transition_time) if since is not None and since.is_true else 0.0
    remaining = run.settings.initialization_timeout - waited
    if remaining > 0:
        run.wake(remaining, "initialization deadline")
        return
    said = run.report.statements.get(initialized)
    cause = f"{said.reason}: {said.message}" if said else "its node is not in the cluster"
    message = f"the node is not usable {run.settings.initialization_timeout:.0f} s after it joined; {cause}"
    run.report.initialized("Unknown", conditions.INITIALIZATION_TIMEOUT, message)
    if before is None or before.reason != conditions.INITIALIZATION_TIMEOUT:
        run.event(conditions.INITIALIZATION_TIMEOUT, message, warning=True)
    if run.settings.replace_uninitialized:
        _expire(run, conditions.INITIALIZATION_TIMEOUT, "initialization_timeout", message)


def _expire(run: Pass, reason: str, metric: str, message: str) -> None:
    run.event(reason, f"{message}: the claim is deleted", warning=True)
    run.tools.metrics.disrupted.labels(metric, run.nodepool).inc()
    run.expired = True
