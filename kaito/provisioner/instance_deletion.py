"""Deletes instances without waiting, and stores the cloud's responses for the claim's status.

The node controller deletes instances whose node is drained; the claim controller deletes those without a node.
"""

from dataclasses import dataclass

from kaito.api.karpenter import conditions
from kaito.cloud.errors import CloudError, ErrorCategory
from kaito.cloud.provider import Instance
from kaito.provisioner.context import Dependencies
from kaito.provisioner.failures import describe, retry_seconds
from kaito.provisioner.nodes import owns_instance
from kaito.runtime.client import ConditionUpdate
from kaito.runtime.clock import monotonic

_LAUNCH_REASONS = frozenset({conditions.LAUNCH_FAILED, conditions.QUOTA_EXCEEDED, conditions.INSUFFICIENT_CAPACITY})
"""Reasons that a failed deletion does not report, because they name a failed launch."""


@dataclass(frozen=True, slots=True)
class DeletionFailure:
    """A deletion that the cloud rejected or did not complete."""

    reason: str
    retry: float
    """Seconds until the next attempt."""


async def advance_deletion(deps: Dependencies, name: str, claim_uid: str, provider_id: str = "") -> float | None:
    """Requests the deletion of an instance if that is needed.

    Args:
        deps: the controllers' dependencies.
        name: the instance.
        claim_uid: the claim that must own it.
        provider_id: `status.providerID` of the claim, if there is a claim.

    Returns:
        Seconds until the next read of the instance; None if it does not exist or does not belong to the claim.

    Raises:
        CloudError: the cloud rejected the deletion, or accepted one that failed.
    """
    deletions = deps.deletions
    instance = await deps.cloud.get(name)
    launched = deps.cloud.instance_name(provider_id)
    if instance is None or not owns_instance(instance, claim_uid, launched=launched):
        return None
    if instance.state != "deleting":
        raise_recent_failure(deps, instance, claim_uid)
        started = await deps.cloud.delete(name)
        if started is None:
            return None
        deletions.record_accepted(claim_uid)
        deletions.set_poll_interval(claim_uid, started.retry_after)
    deps.backoff.reset_request_failures(claim_uid)
    deletions.set_condition(
        claim_uid, ConditionUpdate.true(conditions.INSTANCE_TERMINATING, conditions.INSTANCE_TERMINATING)
    )
    return deletions.poll_interval(claim_uid, deps.settings.poll_interval_seconds)


def record_failure(deps: Dependencies, claim_uid: str, error: CloudError) -> DeletionFailure:
    """Stores an error of `advance_deletion` for the claim's status, and counts it."""
    failure = describe(error, deps.backoff.record_request_failure(claim_uid), deps.settings)
    reason = conditions.DELETION_FAILED if failure.reason in _LAUNCH_REASONS else failure.reason
    message = f"the cloud did not delete the instance: {failure.message}"
    update = ConditionUpdate(conditions.INSTANCE_TERMINATING, failure.status, reason, message)
    deps.deletions.set_condition(claim_uid, update)
    deps.metrics.rejected_deletions.labels(reason).inc()
    return DeletionFailure(failure.reason, min(failure.retry, deps.settings.denied_retry_seconds))


def raise_recent_failure(deps: Dependencies, instance: Instance, claim_uid: str) -> None:
    """Raises the error of a deletion that was accepted and failed a short time ago, so that it is retried later.

    AKS accepts the deletion of a pool although the resource group of its nodes is locked; then the pool becomes Failed.

    Raises:
        CloudError: the instance's error; its retry delay has not passed.
    """
    accepted_at, error = deps.deletions.accepted_at(claim_uid), instance.error
    if accepted_at is None or error is None or instance.state not in {"failed", "canceled"}:
        return
    if error.category is ErrorCategory.OVERRIDDEN:
        return
    wait = min(retry_seconds(error, 1, deps.settings), deps.settings.denied_retry_seconds)
    # One second less: the requeue after `wait` may run slightly early, and must not wait a second time.
    if monotonic() - accepted_at < wait - 1.0:
        raise error
