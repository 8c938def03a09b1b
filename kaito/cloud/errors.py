"""Errors of cloud providers.

    CloudError
    ├── InvalidRequest           the request is not valid; repeating it has no effect
    ├── InstanceTypeUnavailable  the instance type is not offered in the region or zone, or to the subscription
    ├── QuotaExceeded            the subscription's quota is exhausted
    ├── InsufficientCapacity     the cloud has no such instance now
    ├── AccessDenied             the provisioner's identity lacks the permission (401, 403)
    ├── ClusterMissing           the cluster, its group or the subscription does not exist
    ├── InstanceMissing          no instance of this name exists
    ├── AlreadyExists            an instance of this name exists
    ├── Busy                     another operation is in progress, or the state of the resource conflicts
    ├── Throttled                too many requests; has `retry_after`
    ├── OperationCanceled        a later operation overrode the operation
    ├── OperationFailed          the operation was accepted and failed for another reason
    └── CloudUnavailable         5xx, no response, or an unreadable one: the request may have been accepted

The class is the cause, `CloudError.category` determines the reaction. Providers raise no other exceptions: they
translate those of their SDK.
"""

from enum import StrEnum
from typing import ClassVar


class ErrorCategory(StrEnum):
    """Reaction to an error."""

    QUOTA = "quota"
    """Try another instance type, else retry slowly until the quota is raised."""
    CAPACITY = "capacity"
    """Try another instance type or zone, else retry with exponential backoff."""
    SIZE = "size"
    """Try another instance type: the subscription cannot use this one in the region."""
    ZONE = "zone"
    """Try another zone or instance type: the zone does not offer this instance type."""
    BUSY = "busy"
    """Retry soon: another operation is in progress."""
    CONFLICT = "conflict"
    """Retry with exponential backoff: the state of the resource does not allow the request, for an unknown reason."""
    THROTTLED = "throttled"
    """Retry after the delay that the cloud returned."""
    OVERRIDDEN = "overridden"
    """Read the instance again, then decide."""
    FAILED = "failed"
    """Delete the instance, report the error, and retry with backoff."""
    BLOCKED = "blocked"
    """Report the error and retry rarely: an administrator must remove a lock or policy, or enlarge a subnet."""
    INVALID = "invalid"
    """Report the error and retry rarely: repeating the request has no effect."""
    DENIED = "denied"
    """The identity lacks a permission."""
    CLUSTER_MISSING = "cluster missing"
    """The provisioner is configured for a cluster that does not exist."""
    GONE = "gone"
    """The instance does not exist."""
    EXISTS = "exists"
    """The instance exists: read it."""
    UNAVAILABLE = "unavailable"
    """The result is unknown: read the instance, then retry."""


NEXT_OFFERING = frozenset({ErrorCategory.QUOTA, ErrorCategory.CAPACITY, ErrorCategory.SIZE, ErrorCategory.ZONE})
"""Categories that concern one instance type, zone or capacity type: another offering may succeed."""


class CloudError(Exception):
    """A request that the cloud rejected, or an operation that failed."""

    default_category: ClassVar[ErrorCategory] = ErrorCategory.FAILED
    """Category if the cause is not known more precisely than by the class."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        retry_after: float | None = None,
        category: ErrorCategory | None = None,
        regional: bool = False,
    ) -> None:
        super().__init__(f"{code}: {message}" if code else message)
        self.message = message
        """Message of the cloud."""
        self.code = code
        """Error code of the cloud."""
        self.retry_after = retry_after
        """Seconds to wait before the next request, as returned by the cloud."""
        self.category = category or self.default_category
        """Determines the reaction."""
        self.regional = regional
        """Quota only: whether the limit applies to all instance types of the region."""


class InvalidRequest(CloudError):
    """The request is not valid; with category BLOCKED, an administrator must remove the cause."""

    default_category = ErrorCategory.INVALID


class InstanceTypeUnavailable(CloudError):
    """The instance type is not offered in the region or zone, or to the subscription."""

    default_category = ErrorCategory.SIZE


class QuotaExceeded(CloudError):
    """The subscription's quota is exhausted."""

    default_category = ErrorCategory.QUOTA


class InsufficientCapacity(CloudError):
    """The cloud has no such instance now."""

    default_category = ErrorCategory.CAPACITY


class AccessDenied(CloudError):
    """The identity was not authenticated, or lacks a permission."""

    default_category = ErrorCategory.DENIED


class ClusterMissing(CloudError):
    """The cluster that instances belong to does not exist."""

    default_category = ErrorCategory.CLUSTER_MISSING


class InstanceMissing(CloudError):
    """No instance of this name exists."""

    default_category = ErrorCategory.GONE


class AlreadyExists(CloudError):
    """An instance of this name exists."""

    default_category = ErrorCategory.EXISTS


class Busy(CloudError):
    """Another operation is in progress; with category CONFLICT, the cause is unknown."""

    default_category = ErrorCategory.BUSY


class Throttled(CloudError):
    """Too many requests."""

    default_category = ErrorCategory.THROTTLED


class OperationCanceled(CloudError):
    """A later operation overrode the operation."""

    default_category = ErrorCategory.OVERRIDDEN


class OperationFailed(CloudError):
    """The operation was accepted and failed."""


class CloudUnavailable(CloudError):
    """No usable response. A write may have been accepted."""

    default_category = ErrorCategory.UNAVAILABLE
