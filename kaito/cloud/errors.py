"""Why a cloud refused, in terms that every provider shares.

    CloudError
    ├── InvalidRequest           the request cannot be fulfilled as it is; repeating it changes nothing
    ├── InstanceTypeUnavailable  the size does not exist here, or not in that zone, or not for this subscription
    ├── QuotaExceeded            the subscription's limit; it must be raised, or something must be freed
    ├── InsufficientCapacity     the cloud has no such machine now
    ├── AccessDenied             the provisioner's identity lacks the permission (401, 403)
    ├── ClusterMissing           the cluster, its group or the subscription does not exist
    ├── InstanceMissing          no instance of that name exists
    ├── AlreadyExists            an instance of that name exists
    ├── Busy                     another operation is in progress, or the state conflicts; not a failure of the request
    ├── Throttled                too many requests; carries `retry_after`
    │   └── Deferred             the request budget of this process is used up; nothing was sent
    ├── OperationCanceled        a later operation overrode this one
    ├── OperationFailed          accepted, then failed for a reason without a class of its own
    └── CloudUnavailable         5xx, no answer, or an unreadable answer: the request may have been accepted

The class names the cause; `CloudError.verdict` is what a caller can do about it. Adapters translate the exceptions of
their SDK to these at one edge; the code above them handles no other ones.
"""

from enum import StrEnum
from typing import ClassVar


class Verdict(StrEnum):
    """What a caller can do about an error."""

    QUOTA = "quota"
    """Take another size; otherwise try again slowly, until the quota is raised."""
    CAPACITY = "capacity"
    """Take another size or zone; otherwise try again with growing pauses."""
    SIZE = "size"
    """Take another size: the subscription cannot use this one in this region."""
    ZONE = "zone"
    """Take another zone or size: the region does not offer this size in this zone."""
    BUSY = "busy"
    """Try again soon: another operation has to end first."""
    CONFLICT = "conflict"
    """Try again with growing pauses: the resource's state does not allow the request, for an unknown reason."""
    THROTTLED = "throttled"
    """Try again when the cloud allows."""
    OVERRIDDEN = "overridden"
    """Look at the instance again, then decide."""
    FAILED = "failed"
    """Delete the instance, pause, report."""
    BLOCKED = "blocked"
    """Only a person can remove the cause (a lock, a policy, a full subnet): report, and try again rarely."""
    INVALID = "invalid"
    """Repeating the request changes nothing: report, and try again rarely."""
    DENIED = "denied"
    """The identity needs a permission."""
    CLUSTER_MISSING = "cluster missing"
    """The provisioner is configured for a cluster that does not exist."""
    GONE = "gone"
    """The instance does not exist."""
    EXISTS = "exists"
    """The instance exists: look at it."""
    UNAVAILABLE = "unavailable"
    """The outcome is unknown: look at the instance, then try again."""


NEXT_OFFERING = frozenset({Verdict.QUOTA, Verdict.CAPACITY, Verdict.SIZE, Verdict.ZONE})
"""Verdicts about one size, zone or capacity type: another one may succeed."""


class CloudError(Exception):
    """The cloud did not do what was asked."""

    default_verdict: ClassVar[Verdict] = Verdict.FAILED
    """The verdict of errors whose cause is not known more precisely than their class."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        retry_after: float | None = None,
        verdict: Verdict | None = None,
        regional: bool = False,
    ) -> None:
        super().__init__(f"{code}: {message}" if code else message)
        self.message = message
        """The cloud's sentence."""
        self.code = code
        """The cloud's own error code."""
        self.retry_after = retry_after
        """Seconds the cloud asked to wait."""
        self.verdict = verdict or self.default_verdict
        """What a caller can do about it."""
        self.regional = regional
        """Quota only: the limit is of the region, and every size draws on it."""


class InvalidRequest(CloudError):
    """The request cannot be fulfilled as it is; with the verdict BLOCKED, until a person removes the cause."""

    default_verdict = Verdict.INVALID


class InstanceTypeUnavailable(CloudError):
    """No such size in this location or zone, or not for this subscription."""

    default_verdict = Verdict.SIZE


class QuotaExceeded(CloudError):
    """The subscription's quota does not allow it."""

    default_verdict = Verdict.QUOTA


class InsufficientCapacity(CloudError):
    """The cloud has run out of such machines for now."""

    default_verdict = Verdict.CAPACITY


class AccessDenied(CloudError):
    """The identity was refused, or lacks a permission."""

    default_verdict = Verdict.DENIED


class ClusterMissing(CloudError):
    """The cluster in which instances are made does not exist."""

    default_verdict = Verdict.CLUSTER_MISSING


class InstanceMissing(CloudError):
    """No instance of that name exists."""

    default_verdict = Verdict.GONE


class AlreadyExists(CloudError):
    """An instance of that name exists."""

    default_verdict = Verdict.EXISTS


class Busy(CloudError):
    """Another operation has to end first; with the verdict CONFLICT, the cause is unknown."""

    default_verdict = Verdict.BUSY


class Throttled(CloudError):
    """Too many requests."""

    default_verdict = Verdict.THROTTLED


class Deferred(Throttled):
    """The request budget of this process is used up: nothing was sent, and the cloud refused nothing."""


class OperationCanceled(CloudError):
    """The operation was overridden by a later one."""

    default_verdict = Verdict.OVERRIDDEN


class OperationFailed(CloudError):
    """The operation was accepted and failed."""


class CloudUnavailable(CloudError):
    """No usable answer. A write may have been accepted."""

    default_verdict = Verdict.UNAVAILABLE
