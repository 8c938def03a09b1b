"""What a cloud error means for a claim: which condition it gets, and when to try again.

One table by verdict, used by every step that talks to the cloud. Pauses are in seconds; those that grow double with
each failure in a row, up to their cap.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from kaito.api.karpenter import conditions
from kaito.cloud.errors import CloudError, Verdict
from kaito.provisioner.settings import ProvisionerSettings
from kaito.runtime.meta import ConditionStatus

MESSAGE_LIMIT = 800
"""Longest cloud message in a condition (Karpenter truncates launch messages too)."""

BUSY_SECONDS, BUSY_CAP_SECONDS = 30.0, 120.0
"""AKS refills the PUT budget of one agent pool with one request a minute."""
CONFLICT_CAP_SECONDS = 1800.0
TROUBLE_CAP_SECONDS = 120.0
THROTTLED_CAP_SECONDS = 120.0
RETRY_AFTER_CAP_SECONDS = 1800.0
"""A longer time asked for by the cloud is not waited for."""
QUOTA_FACTOR = 3.0
"""The longest pause after a quota refusal, in quota retries: half an hour by default."""
DENIED_CAP_SECONDS = 1800.0
OVERRIDDEN_CAP_SECONDS = 1800.0
BLOCKED_SECONDS, BLOCKED_CAP_SECONDS = 600.0, 3600.0
"""Between attempts while a lock, a policy or a full subnet forbids the request: a person has to act."""
REFUSED_SECONDS, REFUSED_CAP_SECONDS = 1800.0, 4 * 3600.0
"""Between attempts at a request that the cloud calls invalid, or a size the subscription cannot use."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A cloud error in the claim's terms."""

    reason: str
    message: str
    retry: float
    """Seconds until the next attempt."""
    status: ConditionStatus = "False"
    """False: the launch failed. Unknown: it is only delayed."""


_REASONS: Mapping[Verdict, tuple[str, ConditionStatus]] = {
    Verdict.QUOTA: (conditions.QUOTA_EXCEEDED, "False"),
    Verdict.CAPACITY: (conditions.INSUFFICIENT_CAPACITY, "False"),
    Verdict.SIZE: (conditions.UNSUPPORTED_INSTANCE_TYPE, "False"),
    Verdict.ZONE: (conditions.UNSUPPORTED_INSTANCE_TYPE, "False"),
    Verdict.BUSY: (conditions.CLOUD_BUSY, "Unknown"),
    Verdict.CONFLICT: (conditions.CLOUD_CONFLICT, "False"),
    Verdict.THROTTLED: (conditions.CLOUD_THROTTLED, "Unknown"),
    Verdict.OVERRIDDEN: (conditions.OPERATION_CANCELED, "Unknown"),
    Verdict.FAILED: (conditions.LAUNCH_FAILED, "False"),
    Verdict.BLOCKED: (conditions.BLOCKED_BY_CLOUD, "False"),
    Verdict.INVALID: (conditions.LAUNCH_FAILED, "False"),
    Verdict.DENIED: (conditions.UNAUTHORIZED, "False"),
    Verdict.CLUSTER_MISSING: (conditions.CLUSTER_NOT_FOUND, "False"),
    Verdict.GONE: (conditions.CLOUD_UNAVAILABLE, "Unknown"),  # it went while it was asked about: look again
    Verdict.EXISTS: (
        conditions.AGENT_POOL_CREATING,
        "Unknown",
    ),  # the lost answer of an earlier attempt, or another owner's
    Verdict.UNAVAILABLE: (conditions.CLOUD_UNAVAILABLE, "Unknown"),
}

_UNAVAILABLE = frozenset({Verdict.QUOTA, Verdict.CAPACITY, Verdict.SIZE, Verdict.ZONE})


TROUBLE = frozenset(
    {
        Verdict.BUSY,
        Verdict.CONFLICT,
        Verdict.THROTTLED,
        Verdict.DENIED,
        Verdict.CLUSTER_MISSING,
        Verdict.GONE,
        Verdict.EXISTS,
        Verdict.UNAVAILABLE,
    }
)
"""Verdicts about a request, not about the launch: the first useful answer ends the row that makes pauses grow."""


def failure(error: CloudError, failures: int, settings: ProvisionerSettings) -> Failure:
    """The consequences of an error that was the `failures`-th in a row, counted from 1."""
    reason, status = _REASONS[error.verdict]
    text = shortened(str(error))
    message = f"{conditions.UNAVAILABLE_MESSAGE}: {text}" if error.verdict in _UNAVAILABLE else text
    return Failure(reason, message, pause(error, failures, settings), status=status)


def pause(error: CloudError, failures: int, settings: ProvisionerSettings) -> float:
    """Seconds until the next attempt after an error that was the `failures`-th in a row, counted from 1.

    The time that the cloud asks for is kept, up to a limit, and does not keep the pause from growing: a cloud that asks
    for one second and refuses for hours is not asked each second.
    """
    first, cap = _growth(error, settings)
    grown = min(first * 2.0 ** min(max(failures, 1) - 1, 16), max(cap, first))
    return max(grown, min(error.retry_after or 0.0, RETRY_AFTER_CAP_SECONDS))


def _growth(error: CloudError, settings: ProvisionerSettings) -> tuple[float, float]:
    """The first pause and the longest."""
    match error.verdict:
        case Verdict.QUOTA:
            return settings.quota_retry, settings.quota_retry * QUOTA_FACTOR
        case Verdict.CAPACITY | Verdict.FAILED:
            return settings.capacity_retry, settings.capacity_retry_cap
        case Verdict.SIZE | Verdict.ZONE | Verdict.INVALID:
            return REFUSED_SECONDS, REFUSED_CAP_SECONDS
        case Verdict.BLOCKED:
            return BLOCKED_SECONDS, BLOCKED_CAP_SECONDS
        case Verdict.DENIED | Verdict.CLUSTER_MISSING:
            return settings.denied_retry, DENIED_CAP_SECONDS
        case Verdict.THROTTLED:
            first = settings.poll_interval if error.retry_after is None else min(error.retry_after or 1.0, 60.0)
            return first, THROTTLED_CAP_SECONDS
        case Verdict.BUSY:
            return BUSY_SECONDS, BUSY_CAP_SECONDS
        case Verdict.CONFLICT:
            return BUSY_SECONDS, CONFLICT_CAP_SECONDS
        case Verdict.OVERRIDDEN:
            return settings.trouble_retry, OVERRIDDEN_CAP_SECONDS
        case Verdict.EXISTS | Verdict.GONE:
            return 1.0, TROUBLE_CAP_SECONDS
        case Verdict.UNAVAILABLE:
            return settings.trouble_retry, TROUBLE_CAP_SECONDS


def shortened(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """A message of the cloud as one line that fits into a condition; the cut is marked."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]}..."
