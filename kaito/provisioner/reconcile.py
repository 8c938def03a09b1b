"""Reconciles claims: `reconcile` launches an instance and registers its node, `finalize` deletes both.

    launch      create the instance, or wait for it       steps.launch, steps.create_instance
    register    label and taint the node that joined      steps.register
    initialize  wait until the node is usable             steps.initialize
    deadlines   delete claims that make no progress       steps.deadlines

    delete      drain the node, delete the instance       steps.delete_instance

Each reconcile reads the cluster and the cloud, takes the next step, and writes the status once. It never waits for an
instance: the cloud's changes and requeues start the next reconcile.
"""

from kaito.api.karpenter import Claim
from kaito.provisioner import reasons
from kaito.provisioner.context import Dependencies, ReconcileContext
from kaito.provisioner.nodes import is_managed
from kaito.provisioner.steps.deadlines import enforce_deadlines
from kaito.provisioner.steps.delete_instance import delete_instance
from kaito.provisioner.steps.initialize import initialize
from kaito.provisioner.steps.launch import launch
from kaito.provisioner.steps.register import register
from kaito.provisioner.tracing import record_stages
from kaito.runtime import Request
from kaito.runtime.errors import Invalid


async def reconcile(request: Request[Claim], *, deps: Dependencies) -> None:
    """Reconciles a claim that is not being deleted."""
    if not is_managed(request.object):
        return  # a requeue of a former claim of this name
    ctx = ReconcileContext.of(request, deps)
    try:
        if await launch(ctx):
            node = await register(ctx)
            if node is not None:
                await initialize(ctx, node)
        await enforce_deadlines(ctx)
    finally:
        await _write_status(ctx)
    if ctx.expired:
        await ctx.api.delete(ctx.claim)


async def finalize(request: Request[Claim], *, deps: Dependencies) -> None:
    """Deletes the node and the instance of a claim; without a requeue, the framework removes the claim's finalizer."""
    ctx = ReconcileContext.of(request, deps)
    is_deleted = False
    try:
        is_deleted = await delete_instance(ctx)
    finally:
        if not is_deleted:
            await _write_status_if_valid(ctx)
    if is_deleted:
        _report_terminated(ctx)
        deps.forget(ctx.claim.uid)
        deps.unavailable.clear_quota()


def _report_terminated(ctx: ReconcileContext) -> None:
    ctx.event(reasons.TERMINATED, f"agent pool {ctx.claim.name} is deleted")
    ctx.deps.metrics.terminated.labels(ctx.nodepool).inc()
    age = ctx.age_seconds(ctx.claim.metadata.deletion_timestamp)
    ctx.deps.metrics.termination_seconds.labels(ctx.nodepool).observe(age)


async def _write_status(ctx: ReconcileContext) -> None:
    await ctx.write_metadata()
    async with ctx.api.status(ctx.claim) as scope:
        ctx.status.write(scope)
    record_stages(ctx)


async def _write_status_if_valid(ctx: ReconcileContext) -> None:
    """Writes the status, and continues the deletion if the server rejects it.

    Claims that older versions created may fail the validation of a newer definition; their instances must not remain.
    """
    try:
        await _write_status(ctx)
    except Invalid as error:
        ctx.request.log.warning("status update rejected, continuing deletion", error=str(error))
