"""Maps cloud errors to the reason of a claim's condition and to the delay before the next attempt.

Every step that calls the cloud uses these tables by error category. Delays are seconds; each consecutive failure
doubles them, up to a cap.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from kaito.api.karpenter import conditions
from kaito.cloud.errors import CloudError, ErrorCategory
from kaito.provisioner.settings import ProvisionerSettings
from kaito.runtime.meta import ConditionStatus

MESSAGE_LIMIT = 800
"""Longest cloud message in a condition (Karpenter truncates launch messages too)."""

BUSY_SECONDS, BUSY_CAP_SECONDS = 30.0, 120.0
"""AKS allows one PUT per minute and agent pool."""
CONFLICT_CAP_SECONDS = 1800.0
TRANSIENT_RETRY_CAP_SECONDS = 120.0
THROTTLED_CAP_SECONDS = 120.0
RETRY_AFTER_CAP_SECONDS = 1800.0
"""Upper limit for a `Retry-After` of the cloud."""
QUOTA_FACTOR = 3.0
"""Longest delay after an exceeded quota, as a multiple of `quota_retry`: 30 min by default."""
DENIED_CAP_SECONDS = 1800.0
OVERRIDDEN_CAP_SECONDS = 1800.0
BLOCKED_SECONDS, BLOCKED_CAP_SECONDS = 600.0, 3600.0
"""While a lock, a policy or a full subnet forbids the request, until an administrator removes it."""
PERMANENT_FAILURE_RETRY_SECONDS, PERMANENT_FAILURE_CAP_SECONDS = 1800.0, 4 * 3600.0
"""For an invalid request, or an instance type that the subscription cannot use."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A cloud error as a condition of a claim."""

    reason: str
    message: str
    retry: float
    """Seconds until the next attempt."""
    status: ConditionStatus = "False"
    """False: the launch failed. Unknown: it is delayed."""


_REASONS: Mapping[ErrorCategory, tuple[str, ConditionStatus]] = {
    ErrorCategory.QUOTA: (conditions.QUOTA_EXCEEDED, "False"),
    ErrorCategory.CAPACITY: (conditions.INSUFFICIENT_CAPACITY, "False"),
    ErrorCategory.SIZE: (conditions.UNSUPPORTED_INSTANCE_TYPE, "False"),
    ErrorCategory.ZONE: (conditions.UNSUPPORTED_INSTANCE_TYPE, "False"),
    ErrorCategory.BUSY: (conditions.CLOUD_BUSY, "Unknown"),
    ErrorCategory.CONFLICT: (conditions.CLOUD_CONFLICT, "False"),
    ErrorCategory.THROTTLED: (conditions.CLOUD_THROTTLED, "Unknown"),
    ErrorCategory.OVERRIDDEN: (conditions.OPERATION_CANCELED, "Unknown"),
    ErrorCategory.FAILED: (conditions.LAUNCH_FAILED, "False"),
    ErrorCategory.BLOCKED: (conditions.BLOCKED_BY_CLOUD, "False"),
    ErrorCategory.INVALID: (conditions.LAUNCH_FAILED, "False"),
    ErrorCategory.DENIED: (conditions.UNAUTHORIZED, "False"),
    ErrorCategory.CLUSTER_MISSING: (conditions.CLUSTER_NOT_FOUND, "False"),
    ErrorCategory.GONE: (conditions.CLOUD_UNAVAILABLE, "Unknown"),  # deleted between two requests: read it again
    # Created by an earlier attempt whose response was lost, or by another owner: the next reconcile reads it.
    ErrorCategory.EXISTS: (conditions.AGENT_POOL_CREATING, "Unknown"),
    ErrorCategory.UNAVAILABLE: (conditions.CLOUD_UNAVAILABLE, "Unknown"),
}

_UNAVAILABLE = frozenset({ErrorCategory.QUOTA, ErrorCategory.CAPACITY, ErrorCategory.SIZE, ErrorCategory.ZONE})

REQUEST_FAILURES = frozenset(
    {
        ErrorCategory.BUSY,
        ErrorCategory.CONFLICT,
        ErrorCategory.THROTTLED,
        ErrorCategory.DENIED,
        ErrorCategory.CLUSTER_MISSING,
        ErrorCategory.GONE,
        ErrorCategory.EXISTS,
        ErrorCategory.UNAVAILABLE,
    }
)
"""Categories that concern a request and not the launch: the first usable response resets their backoff."""


def describe(error: CloudError, failures: int, settings: ProvisionerSettings) -> Failure:
    """Returns the condition and the retry delay for an error; `failures` counts consecutive errors, from 1."""
    reason, status = _REASONS[error.category]
    text = shorten(str(error))
    message = f"{conditions.UNAVAILABLE_MESSAGE}: {text}" if error.category in _UNAVAILABLE else text
    return Failure(reason, message, retry_seconds(error, failures, settings), status=status)


def retry_seconds(error: CloudError, failures: int, settings: ProvisionerSettings) -> float:
    """Returns the delay before the next attempt; `failures` counts consecutive errors, from 1.

    A `Retry-After` of the cloud is a lower bound, up to a limit. The delay still grows: a cloud that returns a
    `Retry-After` of one second for hours is not called every second.
    """
    first, cap = _delays(error, settings)
    grown = min(first * 2.0 ** min(max(failures, 1) - 1, 16), max(cap, first))
    return max(grown, min(error.retry_after or 0.0, RETRY_AFTER_CAP_SECONDS))


def _delays(error: CloudError, settings: ProvisionerSettings) -> tuple[float, float]:
    """The first and the longest delay."""
    match error.category:
        case ErrorCategory.QUOTA:
            return settings.quota_retry_seconds, settings.quota_retry_seconds * QUOTA_FACTOR
        case ErrorCategory.CAPACITY | ErrorCategory.FAILED:
            return settings.capacity_retry_seconds, settings.capacity_retry_cap_seconds
        case ErrorCategory.SIZE | ErrorCategory.ZONE | ErrorCategory.INVALID:
            return PERMANENT_FAILURE_RETRY_SECONDS, PERMANENT_FAILURE_CAP_SECONDS
        case ErrorCategory.BLOCKED:
            return BLOCKED_SECONDS, BLOCKED_CAP_SECONDS
        case ErrorCategory.DENIED | ErrorCategory.CLUSTER_MISSING:
            return settings.denied_retry_seconds, DENIED_CAP_SECONDS
        case ErrorCategory.THROTTLED:
            first = settings.poll_interval_seconds if error.retry_after is None else min(error.retry_after or 1.0, 60.0)
            return first, THROTTLED_CAP_SECONDS
        case ErrorCategory.BUSY:
            return BUSY_SECONDS, BUSY_CAP_SECONDS
        case ErrorCategory.CONFLICT:
            return BUSY_SECONDS, CONFLICT_CAP_SECONDS
        case ErrorCategory.OVERRIDDEN:
            return settings.transient_retry_seconds, OVERRIDDEN_CAP_SECONDS
        case ErrorCategory.EXISTS | ErrorCategory.GONE:
            return 1.0, TRANSIENT_RETRY_CAP_SECONDS
        case ErrorCategory.UNAVAILABLE:
            return settings.transient_retry_seconds, TRANSIENT_RETRY_CAP_SECONDS


def shorten(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Joins a message to one line and cuts it at `limit` characters, marked by `...`."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]}..."
