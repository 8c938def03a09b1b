"""What a cloud error means for a claim: which condition it gets, and when to try again.

One table, used by every step that talks to the cloud.
"""

from dataclasses import dataclass

from kaito.api.karpenter import conditions as words
from kaito.cloud.errors import (
    AccessDenied,
    AlreadyExists,
    Busy,
    CloudError,
    CloudUnavailable,
    ClusterMissing,
    InstanceTypeUnavailable,
    InsufficientCapacity,
    InvalidRequest,
    OperationCanceled,
    QuotaExceeded,
    Throttled,
)
from kaito.provisioner.settings import ProvisionerSettings
from kaito.runtime.meta import ConditionStatus

MESSAGE_LIMIT = 800
"""Longest cloud message in a condition (Karpenter truncates launch messages too)."""

BUSY_SECONDS = 30.0
TROUBLE_CAP_SECONDS = 60.0
HOPELESS_SECONDS = 1800.0
"""Between attempts at what only a human can change."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A cloud error in the claim's terms."""

    reason: str
    message: str
    retry: float
    """Seconds until the next attempt."""
    status: ConditionStatus = "False"
    """False: the launch failed. Unknown: it is only delayed."""


def failure(error: CloudError, failures: int, settings: ProvisionerSettings) -> Failure:
    """The consequences of an error that was the `failures`-th in a row."""
    text = _text(error)
    doubled = 2 ** min(failures - 1, 10)
    match error:
        case QuotaExceeded():
            return Failure(words.QUOTA_EXCEEDED, _hopeless(text), settings.quota_retry)
        case InsufficientCapacity():
            retry = min(settings.capacity_retry * doubled, settings.capacity_retry_cap)
            return Failure(words.INSUFFICIENT_CAPACITY, _hopeless(text), retry)
        case InstanceTypeUnavailable():
            return Failure(words.UNSUPPORTED_INSTANCE_TYPE, _hopeless(text), HOPELESS_SECONDS)
        case AccessDenied():
            return Failure(words.UNAUTHORIZED, text, settings.denied_retry)
        case ClusterMissing():
            return Failure(words.CLUSTER_NOT_FOUND, text, settings.denied_retry)
        case Throttled():
            return Failure(words.CLOUD_THROTTLED, text, error.retry_after or settings.poll_interval, status="Unknown")
        case Busy():
            return Failure(words.CLOUD_BUSY, text, error.retry_after or BUSY_SECONDS, status="Unknown")
        case OperationCanceled():
            return Failure(words.OPERATION_CANCELED, text, settings.trouble_retry, status="Unknown")
        case AlreadyExists():  # an earlier try of ours whose answer was lost, or a stranger's: the next look tells
            return Failure(words.AGENT_POOL_CREATING, text, 1.0, status="Unknown")
        case CloudUnavailable():
            retry = error.retry_after or min(settings.trouble_retry * doubled, TROUBLE_CAP_SECONDS)
            return Failure(words.CLOUD_UNAVAILABLE, text, retry, status="Unknown")
        case InvalidRequest():
            return Failure(words.LAUNCH_FAILED, text, HOPELESS_SECONDS)
        case _:
            retry = min(settings.capacity_retry * doubled, settings.capacity_retry_cap)
            return Failure(words.LAUNCH_FAILED, text, retry)


def _text(error: CloudError) -> str:
    text = str(error)
    return text if len(text) <= MESSAGE_LIMIT else f"{text[:MESSAGE_LIMIT]}..."


def _hopeless(text: str) -> str:
    return f"{words.UNAVAILABLE_MESSAGE}: {text}"
