"""Deletes instances step by step, and keeps the cloud's answer for the claim's status.

The node controller ends the instances whose node is drained, the claim controller those without a node; both come here.
"""

from dataclasses import dataclass

from kaito.api.karpenter import conditions
from kaito.cloud.errors import CloudError, Deferred, Verdict
from kaito.cloud.provider import Instance
from kaito.provisioner.context import Tools
from kaito.provisioner.failures import Failure, failure, pause
from kaito.provisioner.ledger import Ending
from kaito.provisioner.nodes import owns_instance
from kaito.runtime.clock import monotonic

_OF_LAUNCH = frozenset({conditions.LAUNCH_FAILED, conditions.QUOTA_EXCEEDED, conditions.INSUFFICIENT_CAPACITY})
"""Reasons that would mislead about a deletion."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The cloud did not do what the deletion needs."""

    failure: Failure
    retry: float
    """Seconds until the next attempt."""
    deferred: bool = False
    """Nothing was sent, and there is nothing to report."""


async def end_instance(tools: Tools, name: str, claim_uid: str, provider_id: str = "") -> float | None:
    """One step towards an instance's end: seconds until the next look, or None when it is gone (or not the claim's).

    `provider_id` is the one in the claim's status, if there is a claim.

    Raises:
        CloudError: the cloud refused, or accepted a deletion that then failed.
    """
    ledger = tools.ledger
    instance = await tools.cloud.get(name)
    launched = tools.cloud.instance_name(provider_id)
    if instance is None or not owns_instance(instance, claim_uid, launched=launched):
        return None
    if instance.state != "deleting":
        raise_failed_deletion(tools, instance, claim_uid)
        started = await tools.cloud.delete(name)
        if started is None:
            return None
        ledger.deletion_asked(claim_uid)
        ledger.keep_pace(claim_uid, started.retry_after)
    ledger.untroubled(claim_uid)
    ledger.ending(claim_uid, Ending("True"))
    return ledger.pace(claim_uid, tools.settings.poll_interval)


def refused(tools: Tools, claim_uid: str, error: CloudError) -> Refused:
    """What an error of `end_instance` means; kept for the claim's status, and counted."""
    settings, ledger = tools.settings, tools.ledger
    if isinstance(error, Deferred):
        found = failure(error, 1, settings)
        return Refused(found, error.retry_after or settings.poll_interval, deferred=True)
    found = failure(error, ledger.troubled(claim_uid), settings)
    reason = conditions.DELETION_FAILED if found.reason in _OF_LAUNCH else found.reason
    message = f"the cloud did not delete the instance: {found.message}"
    ledger.ending(claim_uid, Ending(found.status, reason, message))
    tools.metrics.refused_deletions.labels(reason).inc()
    return Refused(found, min(found.retry, settings.denied_retry))


def raise_failed_deletion(tools: Tools, instance: Instance, claim_uid: str) -> None:
    """A deletion that was accepted and failed is tried again after a pause, not at each look.

    A lock on the resource group of the nodes shows like this: AKS accepts the deletion, and the pool becomes Failed.
    """
    asked, error = tools.ledger.deletion_asked_at(claim_uid), instance.error
    if asked is None or error is None or instance.state not in {"failed", "canceled"}:
        return
    if error.verdict is Verdict.OVERRIDDEN:
        return
    wait = min(pause(error, 1, tools.settings), tools.settings.denied_retry)
    if monotonic() - asked < wait - 1.0:  # the pass that waited for it must not be a moment too early
        raise error
