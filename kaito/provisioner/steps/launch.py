"""Launch: the claim's instance exists in the cloud, is the claim's, and has come up.

Each pass looks at the cloud and takes at most one step; nothing is remembered that the cloud or the claim does not
know, so a process that dies anywhere in here is continued by the next one. An instance is only ever made under the
claim's name and only if there is none, so there are never more instances than claims.
"""

from datetime import datetime

from kaito.api import labels
from kaito.api.karpenter import conditions
from kaito.cloud.errors import CloudError, OperationFailed
from kaito.cloud.provider import Instance, Progress
from kaito.provisioner import attempts, reasons
from kaito.provisioner.context import Pass
from kaito.provisioner.ending import raise_failed_deletion
from kaito.provisioner.failures import shortened
from kaito.provisioner.ledger import Offer
from kaito.provisioner.offers import choice
from kaito.provisioner.plan import Plan, Unfulfillable, image_family, plan_for
from kaito.provisioner.record import WORDS_LIMIT
from kaito.provisioner.steps.start import NoOffer, next_offer_in, refuse_all_alike, start
from kaito.runtime.meta import format_time

CONFLICT_SECONDS = 300.0
"""Between looks at a stranger's instance of our name."""


async def launch(run: Pass) -> bool:
    """Whether the instance is there."""
    if run.report.holds(run.claim.stages.launched):
        return True
    await attempts.recall(run)
    await attempts.begin_afresh(run)
    wait = run.tools.ledger.wait(run.claim.uid)
    if wait > 0:
        run.wake(wait, "next launch attempt")
        return False
    installation = await run.tools.installation.id(run.api)
    try:
        plan = plan_for(run.claim, provider=run.cloud, installation=installation, settings=run.settings)
    except Unfulfillable as problem:
        attempts.say_failed(run, "False", conditions.INVALID_CLAIM, str(problem))
        return False
    try:
        return await _advance(run, plan)
    except NoOffer as none:
        await attempts.failed(run, none.error, retry=none.retry)
    except CloudError as error:
        await attempts.failed(run, error)
    return False


async def _advance(run: Pass, plan: Plan) -> bool:
    instance = await run.cloud.get(run.claim.name)
    if instance is None:
        if await _is_being_created(run):
            _creating(run, None)
            return False
        await _start(run, plan)
        return False
    if not _is_claims(run, instance):
        await _occupied(run, plan, instance)
        return False
    match instance.state:
        case "ready":
            await _arrived(run, instance)
            return True
        case "creating" | "updating":
            if labels.LAUNCH_STARTED not in run.claim.annotations:  # whoever asked for it died before saying so
                await _remember(run, None, instance.created or run.now)
            _creating(run, None)
        case "deleting":
            _leaving(run)
        case "failed" | "canceled":
            progress = await _progress(run)
            await _clear(run, plan, instance, progress.error or instance.error)
    return False


async def _progress(run: Pass) -> Progress:
    """How the claim's operation is: asked only about an instance that ended badly or is missing."""
    operation = run.claim.annotations.get(labels.ARM_OPERATION)
    return await run.cloud.progress(operation) if operation else Progress("lost")


async def _is_being_created(run: Pass) -> bool:
    """Whether an instance that is not there is on its way: its operation was accepted and has not ended."""
    return (await _progress(run)).state == "running"


def _is_claims(run: Pass, instance: Instance) -> bool:
    return instance.marker is not None and instance.marker.claim_uid == run.claim.uid


async def _start(run: Pass, plan: Plan) -> None:
    begun = await start(run, plan)
    if begun is None:
        message = f"looking for an offer among {len(plan.instance_types)} sizes"
        run.report.launched("Unknown", conditions.AGENT_POOL_CREATING, message)
        return
    candidate, started = begun
    run.event(reasons.LAUNCHING, f"creating {candidate.offer} as agent pool {run.claim.name}")
    if not image_family(run.claim.annotations.get(labels.NODE_IMAGE_FAMILY, ""))[1]:
        note = f"annotation {labels.NODE_IMAGE_FAMILY} is neither ubuntu nor azurelinux: using ubuntu"
        run.event(reasons.UNKNOWN_IMAGE_FAMILY, note, warning=True)
    await _remember(run, started.operation or None, run.now)
    _creating(run, started.retry_after)


async def _remember(run: Pass, operation: str | None, since: datetime) -> None:
    """Write down what is under way, and since when, for whoever goes on with it."""
    await run.set_metadata(annotations={labels.ARM_OPERATION: operation, labels.LAUNCH_STARTED: format_time(since)})


async def _forget(run: Pass, **add_labels: str) -> None:
    nothing: dict[str, str | None] = {labels.ARM_OPERATION: None, labels.LAUNCH_STARTED: None}
    if not run.tools.ledger.has_record(run.claim.uid):
        nothing[labels.LAUNCH_RECORD] = None
    await run.set_metadata(annotations=nothing, add_labels=add_labels)


async def _occupied(run: Pass, plan: Plan, instance: Instance) -> None:
    """The name is taken by an instance that is not this claim's."""
    marker, ours = instance.marker, plan.instance.marker
    if instance.state == "deleting":
        _leaving(run)
    elif marker is not None and (marker.installation, marker.claim_kind) == (ours.installation, ours.claim_kind):
        # Made by us for an earlier claim of the same name, which no longer exists: two cannot.
        raise_failed_deletion(run.tools, instance, run.claim.uid)
        await run.cloud.delete(instance.name)
        run.tools.ledger.deletion_asked(run.claim.uid)
        _leaving(run)
    else:
        message = f"agent pool {instance.name} exists and was not made for this claim: it is left alone"
        attempts.say_failed(run, "False", conditions.AGENT_POOL_NAME_CONFLICT, message)
        run.tools.ledger.postpone(run.claim.uid, CONFLICT_SECONDS)
        run.wake(CONFLICT_SECONDS, "name taken")


async def _arrived(run: Pass, instance: Instance) -> None:
    offer = _offer(instance)
    run.tools.ledger.obtained(offer)
    run.tools.ledger.forget(run.claim.uid)
    await _forget(run, **{labels.INSTANCE_TYPE: instance.instance_type, labels.CAPACITY_TYPE: offer.capacity})
    run.report.launched("True")
    run.report.set(image_id=instance.image)
    run.event(reasons.LAUNCHED, f"agent pool {instance.name} of {offer} is there")
    age = run.age(run.claim.metadata.creation_timestamp)
    run.tools.metrics.stage_seconds.labels("launched", instance.instance_type).observe(age)


async def _clear(run: Pass, plan: Plan, instance: Instance, error: CloudError | None) -> None:
    """The instance ended badly: it goes, the reason stays, and the next attempt starts from nothing."""
    error = error or OperationFailed(f"agent pool {instance.name} is {instance.state}")
    retry = await _refused_after_creation(run, plan, instance, error) if attempts.is_about_offer(error) else None
    await attempts.failed(run, error, retry=retry, made=True)  # written down before the evidence goes
    await run.cloud.delete(instance.name)
    await _forget(run)


async def _refused_after_creation(run: Pass, plan: Plan, instance: Instance, error: CloudError) -> float:
    """Remember what the cloud could not deliver; seconds until another offer, or the same again, may be tried."""
    offer = _offer(instance)
    try:
        found = await choice(run, plan)
    except CloudError:
        return (attempts.refuse(run, offer, error).retry_at - run.now).total_seconds()
    made = next((candidate for candidate in found.candidates if candidate.offer.key == offer.key), None)
    if made is None:
        attempts.refuse(run, offer, error)
    else:
        refuse_all_alike(run, made, found, error)
    return max(next_offer_in(run, found), run.settings.poll_interval)


def _offer(instance: Instance) -> Offer:
    """The offer that an instance is."""
    zone = instance.zones[0] if len(instance.zones) == 1 else ""
    return Offer(instance.instance_type, zone, "spot" if instance.spot else "on-demand")


def _creating(run: Pass, retry_after: float | None) -> None:
    run.tools.ledger.untroubled(run.claim.uid)
    minutes = int(run.age(run.claim.metadata.creation_timestamp) // 60)  # not finer: each text is one more write
    message = f"agent pool {run.claim.name} is being created, {minutes} min since the claim"
    last = run.tools.ledger.attempt(run.claim.uid).last
    if last:
        message = f"{message}; the attempt before failed: {shortened(last, WORDS_LIMIT)}"
    run.report.launched("Unknown", conditions.AGENT_POOL_CREATING, message)
    run.wake(retry_after or run.settings.poll_interval, "agent pool creating")


def _leaving(run: Pass) -> None:
    message = f"a former agent pool {run.claim.name} is being deleted"
    run.report.launched("Unknown", conditions.AGENT_POOL_DELETING, message)
    run.wake(run.settings.poll_interval, "former agent pool deleting")
