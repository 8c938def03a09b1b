"""Launch: the claim's instance exists in the cloud, is the claim's, and has come up.

Each pass looks at the cloud and takes at most one step; nothing is remembered that the cloud or the claim does not
know, so a process that dies anywhere in here is continued by the next one. An instance is only ever made under the
claim's name and only if there is none, so there are never more instances than claims.
"""

from dataclasses import replace
from datetime import datetime

from kaito.api import labels
from kaito.api.karpenter import conditions as words
from kaito.cloud.errors import (
    CloudError,
    Deferred,
    InstanceTypeUnavailable,
    InsufficientCapacity,
    OperationFailed,
    QuotaExceeded,
)
from kaito.cloud.provider import Instance, InstancePlan, Progress
from kaito.provisioner import reasons
from kaito.provisioner.context import Pass
from kaito.provisioner.failures import TROUBLE, failure
from kaito.provisioner.plan import Plan, Unfulfillable, image_family, plan_for
from kaito.runtime.meta import ConditionStatus
from kaito.runtime.meta.model import format_time

CONFLICT_SECONDS = 300.0
"""Between looks at a stranger's instance of our name."""

Unavailable = (InstanceTypeUnavailable, QuotaExceeded)


async def launch(run: Pass) -> bool:
    """Whether the instance is there."""
    if run.report.holds(run.claim.stages.launched):
        return True
    wait = run.tools.ledger.wait(run.claim.uid)
    if wait > 0:
        run.wake(wait, "next launch attempt")
        return False
    installation = await run.tools.installation.id(run.api)
    try:
        plan = plan_for(run.claim, provider=run.cloud, installation=installation, settings=run.settings)
    except Unfulfillable as problem:
        _say_failed(run, "False", words.INVALID_CLAIM, str(problem))
        return False
    try:
        return await _advance(run, plan)
    except CloudError as error:
        _failed(run, error)
        return False


async def _advance(run: Pass, plan: Plan) -> bool:
    progress = await _progress(run)
    if progress.state == "running":
        _creating(run, progress.retry_after)
        return False
    instance = await run.cloud.get(run.claim.name)
    if instance is None:
        await _start(run, plan)
        return False
    if not _is_claims(run, instance):
        await _occupied(run, plan, instance)
        return False
    match instance.state:
        case "ready":
            await _arrived(run, plan, instance)
            return True
        case "creating" | "updating":
            if labels.LAUNCH_STARTED not in run.claim.annotations:  # whoever asked for it died before saying so
                await _remember(run, None, instance.created or run.now)
            _creating(run, None)
        case "deleting":
            _leaving(run)
        case "failed" | "canceled":
            await _clear(run, plan, instance, progress.error or instance.error)
    return False


async def _progress(run: Pass) -> Progress:
    operation = run.claim.annotations.get(labels.ARM_OPERATION)
    return await run.cloud.progress(operation) if operation else Progress("lost")


def _is_claims(run: Pass, instance: Instance) -> bool:
    return instance.marker is not None and instance.marker.claim_uid == run.claim.uid


async def _start(run: Pass, plan: Plan) -> None:
    chosen = replace(await _choose(run, plan), created=run.now)
    started = await run.cloud.create(chosen)
    run.event(reasons.LAUNCHING, f"creating {chosen.instance_type} as agent pool {chosen.name}")
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
    await run.set_metadata(annotations=nothing, add_labels=add_labels)


async def _choose(run: Pass, plan: Plan) -> InstancePlan:
    """The first listed size that has a chance, those that just ran out last; raises why none has."""
    refusals: list[CloudError] = []
    for name in sorted(plan.instance_types, key=run.tools.ledger.is_out_of_stock):  # stable: in the listed order
        size = await run.cloud.instance_type(name)
        candidate = plan.with_type(size.name if size else name, gpus=size.gpus if size else None)
        try:
            if size is not None:
                _check_architecture(run, candidate, size.architecture)
            await run.cloud.check(candidate)
        except Unavailable as refusal:
            refusals.append(refusal)
        else:
            return candidate
    first = refusals[0]
    raise type(first)("; ".join(refusal.message for refusal in refusals), code=first.code)


def _check_architecture(run: Pass, candidate: InstancePlan, architecture: str) -> None:
    asked = run.claim.spec.values(labels.ARCH)
    offered = "arm64" if architecture.lower() == "arm64" else "amd64"
    if asked and offered not in asked:
        raise InstanceTypeUnavailable(
            f"{candidate.instance_type} is {offered}, the claim requires {labels.ARCH} In {list(asked)}"
        )


async def _occupied(run: Pass, plan: Plan, instance: Instance) -> None:
    """The name is taken by an instance that is not this claim's."""
    marker, ours = instance.marker, plan.instance.marker
    if instance.state == "deleting":
        _leaving(run)
    elif marker is not None and (marker.installation, marker.claim_kind) == (ours.installation, ours.claim_kind):
        # Made by us for an earlier claim of the same name, which no longer exists: two cannot.
        await run.cloud.delete(instance.name)
        _leaving(run)
    else:
        message = f"agent pool {instance.name} exists and was not made for this claim: it is left alone"
        _say_failed(run, "False", words.AGENT_POOL_NAME_CONFLICT, message)
        run.tools.ledger.postpone(run.claim.uid, CONFLICT_SECONDS)
        run.wake(CONFLICT_SECONDS, "name taken")


async def _arrived(run: Pass, plan: Plan, instance: Instance) -> None:
    run.tools.ledger.forget(run.claim.uid)
    capacity = "spot" if plan.instance.spot else "on-demand"
    await _forget(run, **{labels.INSTANCE_TYPE: instance.instance_type, labels.CAPACITY_TYPE: capacity})
    run.report.launched("True")
    run.report.set(image_id=instance.image)
    run.event(reasons.LAUNCHED, f"agent pool {instance.name} of {instance.instance_type} is there")
    age = run.age(run.claim.metadata.creation_timestamp)
    run.tools.metrics.stage_seconds.labels("launched", instance.instance_type).observe(age)


async def _clear(run: Pass, plan: Plan, instance: Instance, error: CloudError | None) -> None:
    """The instance ended badly: it goes, the reason stays, and the next attempt starts from nothing."""
    error = error or OperationFailed(f"agent pool {instance.name} is {instance.state}")
    if isinstance(error, InsufficientCapacity):
        run.tools.ledger.out_of_stock(instance.instance_type, run.settings.out_of_stock)
    await run.cloud.delete(instance.name)
    await _forget(run)
    _failed(run, error, instance.instance_type)
    if isinstance(error, InsufficientCapacity) and len(plan.instance_types) > 1:
        run.tools.ledger.postpone(run.claim.uid, run.settings.poll_interval)
        run.wake(run.settings.poll_interval, "next listed size")


def _creating(run: Pass, retry_after: float | None) -> None:
    run.tools.ledger.untroubled(run.claim.uid)
    minutes = int(run.age(run.claim.metadata.creation_timestamp) // 60)  # not finer: each text is one more write
    message = f"agent pool {run.claim.name} is being created, {minutes} min since the claim"
    run.report.launched("Unknown", words.AGENT_POOL_CREATING, message)
    run.wake(retry_after or run.settings.poll_interval, "agent pool creating")


def _leaving(run: Pass) -> None:
    message = f"a former agent pool {run.claim.name} is being deleted"
    run.report.launched("Unknown", words.AGENT_POOL_DELETING, message)
    run.wake(run.settings.poll_interval, "former agent pool deleting")


def _failed(run: Pass, error: CloudError, instance_type: str = "") -> None:
    ledger, uid = run.tools.ledger, run.claim.uid
    if isinstance(error, Deferred):  # the cloud said nothing, so there is nothing to report about it
        run.wake(error.retry_after or run.settings.poll_interval, "request budget")
        return
    failures = ledger.troubled(uid) if error.verdict in TROUBLE else ledger.failed(uid)
    found = failure(error, failures, run.settings)
    ledger.postpone(uid, found.retry)
    run.wake(found.retry, found.reason)
    _say_failed(run, found.status, found.reason, found.message, instance_type)


def _say_failed(run: Pass, status: ConditionStatus, reason: str, message: str, instance_type: str = "") -> None:
    before = run.report.condition(run.claim.stages.launched)
    run.report.launched(status, reason, message)
    if before is None or before.reason != reason:
        size = instance_type or next(iter(run.claim.spec.values(labels.INSTANCE_TYPE)), "")
        run.tools.metrics.launch_failures.labels(size, reason).inc()
        run.event(reason, message, warning=True)
        run.request.log.warning("launch", reason=reason, message=message)
