"""Why a cloud said no, in words every provider shares.

    CloudError
    ├── InvalidRequest           the request itself cannot be fulfilled; repeating it is pointless
    ├── InstanceTypeUnavailable  the size does not exist here, or the subscription may not use it
    ├── QuotaExceeded            the subscription's limit; a human has to raise it or free something
    ├── InsufficientCapacity     the cloud has no such machine right now
    ├── AccessDenied             who we are may not do that (401, 403)
    ├── ClusterMissing           the cluster, its group or the subscription does not exist
    ├── AlreadyExists            an instance of that name is there already
    ├── Busy                     another operation is in progress; wait, this is no failure
    ├── Throttled                too many requests; carries `retry_after`
    ├── OperationCanceled        a later operation overrode ours
    ├── OperationFailed          accepted, then ended badly for no reason that has a name of its own
    └── CloudUnavailable         5xx, no answer, or an answer nobody can read: the request may have been accepted

Adapters translate their SDK's exceptions to these at one edge; nothing above them sees another one.
"""


class CloudError(Exception):
    """The cloud did not do what was asked."""

    def __init__(self, message: str, *, code: str = "", retry_after: float | None = None) -> None:
        super().__init__(f"{code}: {message}" if code else message)
        self.message = message
        """The cloud's sentence."""
        self.code = code
        """The cloud's own error code."""
        self.retry_after = retry_after
        """Seconds the cloud asked to wait."""


class InvalidRequest(CloudError):
    """The request can never be fulfilled as it is."""


class InstanceTypeUnavailable(CloudError):
    """No such size in this location, or not for this subscription."""


class QuotaExceeded(CloudError):
    """The subscription's quota does not allow it."""


class InsufficientCapacity(CloudError):
    """The cloud has run out of such machines for now."""


class AccessDenied(CloudError):
    """Our identity was refused, or lacks a permission."""


class ClusterMissing(CloudError):
    """The place where instances go does not exist."""


class AlreadyExists(CloudError):
    """Somebody made an instance of that name first."""


class Busy(CloudError):
    """Another operation has to end first."""


class Throttled(CloudError):
    """Too many requests."""


class OperationCanceled(CloudError):
    """Our operation was overridden by a later one."""


class OperationFailed(CloudError):
    """The operation was accepted and ended badly."""


class CloudUnavailable(CloudError):
    """No usable answer. A write may or may not have been accepted."""
