"""Deletes claims that do not get a usable node in time.

Deadlines count from times that are written on the claim, so that a restart does not extend them. A launch that the
cloud rejects (quota, capacity, instance type, outage) has no deadline: the claim reports the cause and is launched once
the cause is removed.
"""

from kaito.api import labels
from kaito.api.karpenter import conditions
from kaito.cloud.errors import CloudError
from kaito.provisioner.context import ReconcileContext, parse_time

LARGE_GPUS, LARGE_FACTOR = 8, 2.0
"""Instance types with that many GPUs get a multiple of the launch timeout: AKS took 26 minutes for one of them."""


async def enforce_deadlines(ctx: ReconcileContext) -> None:
    """Checks the deadline of the stage that the claim has not reached yet."""
    launched, registered, initialized = ctx.claim.stages
    if not ctx.status.is_true(launched):
        await _check_launch(ctx, launched)
    elif not ctx.status.is_true(registered):
        _check_registration(ctx, launched)
    elif not ctx.status.is_true(initialized):
        _check_initialization(ctx, registered, initialized)


async def _check_launch(ctx: ReconcileContext, launched: str) -> None:
    update = ctx.status.conditions.get(launched)
    started = parse_time(ctx.claim.annotations.get(labels.LAUNCH_STARTED, ""))
    if started is None or update is None or update.reason != conditions.AGENT_POOL_CREATING:
        return
    timeout = ctx.settings.launch_timeout_seconds
    if ctx.age_seconds(started) >= timeout:
        timeout *= await _timeout_factor(ctx)
    remaining = timeout - ctx.age_seconds(started)
    if remaining > 0:
        ctx.request.requeue_after(remaining, "launch deadline")
        return
    message = f"no instance within {timeout:.0f} s of the request; last status: {update.message}"
    ctx.status.set_launched("False", conditions.LAUNCH_TIMEOUT, message)
    _expire(ctx, conditions.LAUNCH_TIMEOUT, "launch_timeout", message)


async def _timeout_factor(ctx: ReconcileContext) -> float:
    """Multiple of the launch timeout for the largest of the claim's instance types; an unknown one may be large."""
    for name in ctx.claim.spec.values(labels.INSTANCE_TYPE):
        try:
            instance_type = await ctx.cloud.instance_type(name)
        except CloudError:
            return LARGE_FACTOR
        if instance_type is not None and instance_type.gpus >= LARGE_GPUS:
            return LARGE_FACTOR
    return 1.0


def _check_registration(ctx: ReconcileContext, launched: str) -> None:
    remaining = ctx.settings.registration_timeout_seconds - _seconds_since(ctx, launched)
    if remaining > 0:
        ctx.request.requeue_after(remaining, "registration deadline")
        return
    message = f"no node joined within {ctx.settings.registration_timeout_seconds:.0f} s of the launch"
    ctx.status.set_registered("False", conditions.REGISTRATION_TIMEOUT, message)
    _expire(ctx, conditions.REGISTRATION_TIMEOUT, "registration_timeout", message)


def _check_initialization(ctx: ReconcileContext, registered: str, initialized: str) -> None:
    remaining = ctx.settings.initialization_timeout_seconds - _seconds_since(ctx, registered)
    if remaining > 0:
        ctx.request.requeue_after(remaining, "initialization deadline")
        return
    update = ctx.status.conditions.get(initialized)
    cause = f"{update.reason}: {update.message}" if update else "the node does not exist"
    message = f"the node is not usable {ctx.settings.initialization_timeout_seconds:.0f} s after it joined; {cause}"
    ctx.request.event_on_change(ctx.status.set_initialized("Unknown", conditions.INITIALIZATION_TIMEOUT, message))
    if ctx.settings.replace_uninitialized:
        _expire(ctx, conditions.INITIALIZATION_TIMEOUT, "initialization_timeout", message)


def _seconds_since(ctx: ReconcileContext, stage: str) -> float:
    """Seconds since the stage was reached; 0 if this reconcile reached it."""
    condition = ctx.status.previous(stage)
    return ctx.age_seconds(condition.last_transition_time) if condition is not None and condition.is_true else 0.0


def _expire(ctx: ReconcileContext, reason: str, metric: str, message: str) -> None:
    ctx.event(reason, f"{message}: deleting the claim", warning=True)
    ctx.deps.metrics.disrupted.labels(metric, ctx.nodepool).inc()
    ctx.expired = True
