"""All exceptions of the framework.

    KaitoRuntimeError
    ├── ApiError                 the API server rejected a request (status, reason, details)
    │   ├── BadRequest      400
    │   ├── Unauthorized    401
    │   ├── Forbidden       403
    │   ├── NotFound        404
    │   ├── Conflict        409  stale resourceVersion, or a field owned by another manager
    │   ├── AlreadyExists   409  reason AlreadyExists
    │   ├── Gone            410  expired resourceVersion or continue token
    │   ├── Invalid         422
    │   ├── TooManyRequests 429  with retry_after
    │   └── ServerError     5xx  with retry_after, if the server sent it
    ├── TransportError           no response: connection refused or reset, timeout, TLS
    │   └── RequestTimeout
    ├── UnreadableObject         the response does not match the model of its kind
    ├── AlreadyOwned             the object has another controller, or one of the same name with another UID
    ├── ConfigurationError       wrong use, found at construction or at the start
    │   └── UndeclaredKind       a cached read of a kind that is not declared
    │       └── UndeclaredNamespace  a cached read outside the namespaces declared for the kind
    ├── CacheNotSynced           a cached read before the informer's first list
    ├── NotLeader                a write after leadership was lost (fenced)
    ├── Terminal                 raised by reconcilers: no retry until something changes
    ├── Retry                    raised by reconcilers: a failure that is retried after a delay of its own
    └── InvariantError           a bug of the framework: the process exits

Exceptions of aiohttp and of the operating system become `TransportError` in `kaito.runtime.client.http`, those of
credential plugins in `kaito.runtime.client.execplugin`.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar


class KaitoRuntimeError(Exception):
    """Base class of all errors of the framework."""


class ApiError(KaitoRuntimeError):
    """The API server responded with an error status."""

    status: ClassVar[int] = 0

    def __init__(
        self,
        message: str,
        *,
        code: int,
        reason: str = "",
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
        request: str = "",
    ) -> None:
        super().__init__(f"{request}: {message}" if request else message)
        self.message = message
        """The message of the server."""
        self.code = code
        """HTTP status."""
        self.reason = reason
        """Machine-readable reason of the Status object, for example `NotFound`."""
        self.details: Mapping[str, Any] = details or {}
        """`details` of the Status object: name, group, kind, uid, causes, retryAfterSeconds."""
        self.retry_after = retry_after
        """Seconds until a retry, from `Retry-After` or the details."""
        self.request = request
        """Method and path, for logs."""
        self.after_lost_response = False
        """Whether the response to an earlier attempt was lost. That attempt may have succeeded and caused this
        error."""

    @property
    def causes(self) -> list[dict[str, str]]:
        """`details.causes`: an entry for each field, with `field`, `message` and `reason`."""
        return list(self.details.get("causes") or [])

    @property
    def retryable(self) -> bool:
        """Whether a repeated request may succeed: after a conflict, once the object was read again; 429; 5xx."""
        return isinstance(self, Conflict) or self.code == 429 or self.code >= 500


class BadRequest(ApiError):
    """400: the request is malformed; a retry does not help."""

    status = 400


class Unauthorized(ApiError):
    """401: the credentials were rejected, even after they were read again."""

    status = 401


class Forbidden(ApiError):
    """403: RBAC or admission denied the request; the message contains the missing verb or the webhook."""

    status = 403


class NotFound(ApiError):
    """404: the object, its resource type or its subresource does not exist; `is_object` distinguishes them."""

    status = 404

    @property
    def is_object(self) -> bool:
        """Whether the object (or its namespace) does not exist, although the server serves its kind.

        A 404 for a kind, a version or a subresource contains no name of an object. For a missing subresource of a
        custom kind the server responds as for a missing object; `Client` then checks whether the object exists.
        """
        return bool(self.details.get("name"))


class Conflict(ApiError):
    """409: the object changed concurrently, or another manager owns an applied field. Read again and retry."""

    status = 409


class AlreadyExists(ApiError):
    """409 with reason AlreadyExists: an object with this name exists."""

    status = 409


class Gone(ApiError):
    """410: the resourceVersion or the continue token has expired. List again."""

    status = 410


class Invalid(ApiError):
    """422: validation failed; `causes` contains the fields."""

    status = 422


class TooManyRequests(ApiError):
    """429: retry after `retry_after` seconds."""

    status = 429


class ServerError(ApiError):
    """5xx: the server failed. Retry with backoff."""

    status = 500


_BY_CODE: dict[int, type[ApiError]] = {
    kind.status: kind
    for kind in (BadRequest, Unauthorized, Forbidden, NotFound, Conflict, Gone, Invalid, TooManyRequests)
}


_UNKNOWN_API = {"404 page not found", "the server could not find the requested resource"}
"""Messages of kube-apiserver for an unknown group, version or resource; never for an object."""


def api_error(
    code: int,
    body: Mapping[str, Any] | str,
    *,
    retry_after: float | None = None,
    request: str = "",
) -> ApiError:
    """Makes the typed error of a response: from a Status object, or from the text of a proxy."""
    status: Mapping[str, Any] = {"message": body[:256].strip()} if isinstance(body, str) else body
    if code == 404 and str(status.get("message")) in _UNKNOWN_API:
        status = {"reason": "NotFound", "message": f"{status['message']} (is its CustomResourceDefinition installed?)"}
    details: Mapping[str, Any] = status.get("details") or {}
    reason = str(status.get("reason") or "")
    kind = AlreadyExists if reason == "AlreadyExists" else _BY_CODE.get(code, ServerError if code >= 500 else ApiError)
    wait = details.get("retryAfterSeconds")
    return kind(
        str(status.get("message") or f"HTTP {code}"),
        code=code,
        reason=reason,
        details=details,
        retry_after=retry_after if retry_after is not None else (float(wait) if wait else None),
        request=request,
    )


class TransportError(KaitoRuntimeError):
    """There was no response: connection refused or reset, TLS failure. A write may have succeeded."""


class RequestTimeout(TransportError):
    """There was no response within the request's timeout."""


class UnreadableObject(KaitoRuntimeError):
    """An object (or a whole response) does not match the model; the message contains its key and the fields.

    The cache keeps the object by its key, so that events and owners still work; only a read fails. Lists skip it or
    fail, see `Api.list`. The message never contains values, because they may be those of a Secret.
    """

    def __init__(
        self, message: str, *, key: str = "", resource_version: str = "", owners: Collection[str] = ()
    ) -> None:
        super().__init__(message)
        self.key = key
        """Namespace and name of the object, as `str(obj.key)`; empty if they could not be read."""
        self.resource_version = resource_version
        """The version of the object."""
        self.owners: frozenset[str] = frozenset(owners)
        """UIDs of the owners of the object."""


class AlreadyOwned(KaitoRuntimeError):
    """The object has another controller. A recreated owner with the same name counts as another one."""


class ConfigurationError(KaitoRuntimeError):
    """The framework is used in a wrong way; the message contains the problem and the remedy."""


class UndeclaredKind(ConfigurationError):
    """A cached read of a kind that no controller watches and no `Cached(...)` declares."""

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"{kind} is read from the cache but not declared: add Cached({kind}) to cache= of the controller or "
            f"of the manager, or name it in the manager's live= to read it from the API server each time"
        )
        self.kind = kind


class UndeclaredNamespace(UndeclaredKind):
    """A cached read in a namespace that `Cached(..., namespaces=...)` of the kind excludes."""

    def __init__(self, kind: str, namespace: str, declared: Sequence[str]) -> None:
        super().__init__(kind)
        self.namespace = namespace
        message = (
            f"{kind} in namespace {namespace!r} is read from the cache, which keeps only {', '.join(declared)}: "
            f"add the namespace to Cached({kind}, namespaces=...) or read it live"
        )
        self.args: tuple[str, ...] = (message,)


class CacheNotSynced(KaitoRuntimeError):
    """A cached read before the first list of the kind; the message contains the last error of a list or watch."""


class ClusterUnavailable(KaitoRuntimeError):
    """A cluster of a `kaito.runtime.clusters.ClusterSet` cannot be used at present."""

    def __init__(self, cluster: str, problem: str) -> None:
        super().__init__(f"cluster {cluster}: {problem}")
        self.cluster: str = cluster
        """Its name."""


class ClusterRemoved(ClusterUnavailable, TransportError):
    """The cluster was removed from its `ClusterSet`, or replaced by another of the same name."""


class NotLeader(KaitoRuntimeError):
    """A write was fenced, because this process may no longer hold the lease."""


class Terminal(KaitoRuntimeError):
    """Raised by a reconcile function: no retry until the object, or another watched object, changes.

    It is logged and counted.
    """


class Retry(KaitoRuntimeError):
    """Raised by a reconcile function: it failed, and is retried after a delay of its own instead of the backoff.

    It counts as a failure: in the metrics, in `Request.attempt`, for the limit of attempts and for failure reports. To
    wait for something that is not a failure, return `Again`.

    Raises:
        ValueError: the delay is negative or not finite.
    """

    def __init__(self, after: float, why: str = "") -> None:
        if not 0 <= after < math.inf:
            message = f"Retry.after must be a number of seconds, 0 or more, not {after}"
            raise ValueError(message)
        super().__init__(why or f"retried after {after:g} s")
        self.after: float = after
        """Seconds until the retry."""


def may_have_happened(error: BaseException) -> bool:
    """Whether a write that failed with this error may have succeeded on the server, or may still succeed.

    It cannot have succeeded if the server rejected it (4xx, unless the response to an earlier attempt was lost) or if
    it was never sent. In all other cases it may have: no response, cancellation, 5xx.
    """
    if isinstance(error, ApiError):
        return error.code >= 500 or error.after_lost_response
    return not isinstance(error, NotLeader | ConfigurationError)


def raise_collected(errors: list[Exception], what: str) -> None:
    """Raises the only error, or a group "N `what` failed" of several; does nothing if there is none.

    The list is emptied: each traceback refers to the caller's frame, and the frame to the list. The errors would stay
    in memory until the garbage collector runs.
    """
    try:
        if len(errors) == 1:
            raise errors[0]
        if errors:
            message = f"{len(errors)} {what} failed"
            raise ExceptionGroup(message, errors)
    finally:
        errors.clear()


class InvariantError(KaitoRuntimeError):
    """An invariant of the framework does not hold: a bug. The process exits; please report it."""
