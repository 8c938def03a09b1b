"""Launches the instance of a claim, or waits until it is ready.

Each reconcile reads the cloud and takes one step. Everything it needs is in the cloud or on the claim, so the next
process continues after a crash at any line. Instances have the name of their claim and are created only if the name is
free; therefore there are never more instances than claims.
"""

from datetime import datetime

from kaito.api import labels
from kaito.api.karpenter import conditions
from kaito.cloud.errors import CloudError, OperationFailed
from kaito.cloud.provider import Instance, OperationStatus
from kaito.provisioner import launch_attempts, reasons
from kaito.provisioner.context import ReconcileContext
from kaito.provisioner.failures import shorten
from kaito.provisioner.instance_deletion import raise_recent_failure
from kaito.provisioner.launch_record import MESSAGE_LIMIT
from kaito.provisioner.offerings import list_candidates
from kaito.provisioner.plan import InvalidClaim, LaunchPlan, image_family, plan_for
from kaito.provisioner.steps.create_instance import (
    NoOfferingAvailable,
    create_instance,
    has_other_offering,
    mark_unavailable,
    next_offering_seconds,
)
from kaito.provisioner.unavailable_offerings import Offering
from kaito.runtime.meta import format_time

NAME_CONFLICT_SECONDS = 300.0
"""Requeue delay while another owner has an instance of the claim's name."""


async def launch(ctx: ReconcileContext) -> bool:
    """Takes the next step of the launch; True once the instance is ready."""
    if ctx.status.is_true(ctx.claim.stages.launched):
        return True
    await launch_attempts.restore_records(ctx)
    await launch_attempts.reset_if_requested(ctx)
    wait = ctx.deps.backoff.remaining_seconds(ctx.claim.uid)
    if wait > 0:
        ctx.request.requeue_after(wait, "next launch attempt")
        return False
    installation = await ctx.deps.installation.id(ctx.api)
    try:
        plan = plan_for(ctx.claim, provider=ctx.cloud, installation=installation, settings=ctx.settings)
    except InvalidClaim as error:
        launch_attempts.report_failure(ctx, "False", conditions.INVALID_CLAIM, str(error))
        return False
    try:
        return await _advance(ctx, plan)
    except NoOfferingAvailable as unavailable:
        await launch_attempts.record_failure(ctx, unavailable.error, retry=unavailable.retry)
    except CloudError as error:
        await launch_attempts.record_failure(ctx, error)
    return False


async def _advance(ctx: ReconcileContext, plan: LaunchPlan) -> bool:
    instance = await ctx.cloud.get(ctx.claim.name)
    if instance is None:
        if await _is_being_created(ctx):
            _report_creating(ctx, None)
        else:
            await _create(ctx, plan)
        return False
    if not _is_owned(ctx, instance):
        await _handle_name_conflict(ctx, plan, instance)
        return False
    match instance.state:
        case "ready":
            _complete_launch(ctx, instance)
            return True
        case "creating" | "updating":
            if labels.LAUNCH_STARTED not in ctx.claim.annotations:  # a process died between the PUT and the annotation
                await _write_operation(ctx, None, instance.created or ctx.now)
            _report_creating(ctx, None)
        case "deleting":
            _report_deleting(ctx)
        case "failed" | "canceled":
            operation = await _operation_status(ctx)
            await _delete_failed_pool(ctx, plan, instance, operation.error or instance.error)
    return False


async def _operation_status(ctx: ReconcileContext) -> OperationStatus:
    """Status of the claim's operation; read only if the instance failed or does not exist."""
    status_url = ctx.claim.annotations.get(labels.ARM_OPERATION)
    return await ctx.cloud.operation_status(status_url) if status_url else OperationStatus("lost")


async def _is_being_created(ctx: ReconcileContext) -> bool:
    """Whether a creation was accepted and runs, although the cloud does not list the instance yet."""
    return (await _operation_status(ctx)).state == "running"


def _is_owned(ctx: ReconcileContext, instance: Instance) -> bool:
    return instance.owner is not None and instance.owner.claim_uid == ctx.claim.uid


async def _create(ctx: ReconcileContext, plan: LaunchPlan) -> None:
    created = await create_instance(ctx, plan)
    if created is None:
        message = f"trying the offerings of {len(plan.instance_types)} instance types"
        ctx.status.set_launched("Unknown", conditions.AGENT_POOL_CREATING, message)
        return
    candidate, started = created
    ctx.event(reasons.LAUNCHING, f"creating agent pool {ctx.claim.name} of {candidate.offering}")
    _, is_known = image_family(ctx.claim.annotations.get(labels.NODE_IMAGE_FAMILY, ""))
    if not is_known:
        note = f"annotation {labels.NODE_IMAGE_FAMILY} is neither ubuntu nor azurelinux: using ubuntu"
        ctx.event(reasons.UNKNOWN_IMAGE_FAMILY, note, warning=True)
    await _write_operation(ctx, started.status_url or None, ctx.now)
    _report_creating(ctx, started.retry_after)


async def _write_operation(ctx: ReconcileContext, status_url: str | None, since: datetime) -> None:
    """Writes the running operation and its start to the claim, for the next process."""
    annotations = {labels.ARM_OPERATION: status_url, labels.LAUNCH_STARTED: format_time(since)}
    await ctx.set_metadata(annotations=annotations)


def _clear_operation(ctx: ReconcileContext, **add_labels: str) -> None:
    """Stages the removal of the operation from the claim: an operation that ended is observed again after a crash."""
    annotations: dict[str, str | None] = {labels.ARM_OPERATION: None, labels.LAUNCH_STARTED: None}
    if not ctx.deps.backoff.has_attempts(ctx.claim.uid):
        annotations[labels.LAUNCH_RECORD] = None
    ctx.stage_metadata(annotations=annotations, add_labels=add_labels)


async def _handle_name_conflict(ctx: ReconcileContext, plan: LaunchPlan, instance: Instance) -> None:
    """Deletes the instance of a former claim of this name; reports an instance of another owner."""
    owner, expected = instance.owner, plan.instance.owner
    if instance.state == "deleting":
        _report_deleting(ctx)
    elif owner is not None and (owner.installation, owner.claim_kind) == (expected.installation, expected.claim_kind):
        # Two claims of one kind and name cannot exist at once, so the claim of that instance was deleted.
        raise_recent_failure(ctx.deps, instance, ctx.claim.uid)
        await ctx.cloud.delete(instance.name)
        ctx.deps.deletions.record_accepted(ctx.claim.uid)
        _report_deleting(ctx)
    else:
        message = f"agent pool {instance.name} already exists for another owner; left unchanged"
        launch_attempts.report_failure(ctx, "False", conditions.AGENT_POOL_NAME_CONFLICT, message)
        ctx.deps.backoff.defer(ctx.claim.uid, NAME_CONFLICT_SECONDS)
        ctx.request.requeue_after(NAME_CONFLICT_SECONDS, "name conflict")


def _complete_launch(ctx: ReconcileContext, instance: Instance) -> None:
    offering = _offering_of(instance)
    ctx.deps.unavailable.mark_available(offering)
    ctx.deps.forget(ctx.claim.uid)
    _clear_operation(ctx, **{labels.INSTANCE_TYPE: instance.instance_type, labels.CAPACITY_TYPE: offering.capacity})
    ctx.status.set_launched("True")
    ctx.status.set_fields(image_id=instance.image)
    ctx.event(reasons.LAUNCHED, f"agent pool {instance.name} of {offering} is ready")
    age = ctx.age_seconds(ctx.claim.metadata.creation_timestamp)
    ctx.deps.metrics.stage_seconds.labels("launched", instance.instance_type).observe(age)


async def _delete_failed_pool(
    ctx: ReconcileContext, plan: LaunchPlan, instance: Instance, error: CloudError | None
) -> None:
    """Records why the instance failed, and deletes it; the next attempt creates another one."""
    error = error or OperationFailed(f"agent pool {instance.name} is {instance.state}")
    retry: float | None = None
    continues = False
    if launch_attempts.is_about_offering(error):
        retry, continues = await _mark_unavailable(ctx, plan, instance, error)
        retry = max(retry, ctx.settings.poll_interval_seconds)
    # Recorded before the deletion: afterwards the cloud does not return the error any more.
    await launch_attempts.record_failure(ctx, error, retry=retry, is_created=True, continues=continues)
    await ctx.cloud.delete(instance.name)
    _clear_operation(ctx)


async def _mark_unavailable(
    ctx: ReconcileContext, plan: LaunchPlan, instance: Instance, error: CloudError
) -> tuple[float, bool]:
    """Marks the instance's offering as unavailable.

    Returns:
        The seconds until an offering may be tried (0 for now), and whether one is left that was not unavailable before.
    """
    offering = _offering_of(instance)
    try:
        candidates = await list_candidates(ctx, plan)
    except CloudError:
        entry = launch_attempts.mark_unavailable(ctx, offering, error)
        return entry.retry_seconds, False
    candidate = next((c for c in candidates.accepted if c.offering.key == offering.key), None)
    if candidate is None:
        launch_attempts.mark_unavailable(ctx, offering, error)
    else:
        mark_unavailable(ctx, candidate, candidates, error)
    return next_offering_seconds(ctx, candidates), has_other_offering(ctx, candidates)


def _offering_of(instance: Instance) -> Offering:
    zone = instance.zones[0] if len(instance.zones) == 1 else ""
    return Offering(instance.instance_type, zone, "spot" if instance.spot else "on-demand")


def _report_creating(ctx: ReconcileContext, retry_after: float | None) -> None:
    ctx.deps.backoff.reset_request_failures(ctx.claim.uid)
    # In minutes: each change of the message is one more status update.
    minutes = int(ctx.age_seconds(ctx.claim.metadata.creation_timestamp) // 60)
    message = f"agent pool {ctx.claim.name} is being created, {minutes} min since the claim was created"
    last_failure = ctx.deps.backoff.attempts(ctx.claim.uid).last_failure
    if last_failure:
        message = f"{message}; the previous attempt failed: {shorten(last_failure, MESSAGE_LIMIT)}"
    ctx.status.set_launched("Unknown", conditions.AGENT_POOL_CREATING, message)
    ctx.request.requeue_after(retry_after or ctx.settings.poll_interval_seconds, "agent pool creating")


def _report_deleting(ctx: ReconcileContext) -> None:
    message = f"the previous agent pool {ctx.claim.name} is being deleted"
    ctx.status.set_launched("Unknown", conditions.AGENT_POOL_DELETING, message)
    ctx.request.requeue_after(ctx.settings.poll_interval_seconds, "previous agent pool deleting")
