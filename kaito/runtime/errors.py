"""Every error the framework raises.

    KaitoRuntimeError
    ├── ApiError                 the API server said no (status, reason, details)
    │   ├── BadRequest      400
    │   ├── Unauthorized    401
    │   ├── Forbidden       403
    │   ├── NotFound        404
    │   ├── Conflict        409  stale resourceVersion, or a field owned by another manager
    │   ├── AlreadyExists   409  reason AlreadyExists
    │   ├── Gone            410  expired resourceVersion or continue token
    │   ├── Invalid         422
    │   ├── TooManyRequests 429  carries retry_after
    │   └── ServerError     5xx  carries retry_after when the server sent it
    ├── TransportError           no answer: refused, reset, timed out, TLS
    │   └── RequestTimeout
    ├── UnreadableObject         the answer does not fit the model of its kind
    ├── AlreadyOwned             the object has another controller, or one of the same name with another UID
    ├── ConfigurationError       wrong use, found at construction or start
    │   └── UndeclaredKind       a cached read of a kind nobody declared
    │       └── UndeclaredNamespace  a cached read outside the namespaces declared for the kind
    ├── CacheNotSynced           a cached read before the informer's first list
    ├── NotLeader                a write after leadership was lost (fenced)
    ├── Terminal                 raised by reconcilers: do not retry until the object changes
    └── InvariantError           our bug, never the cluster's: the process ends

`aiohttp` and credential errors are translated in `kaito.runtime.client.transport` only.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar


class KaitoRuntimeError(Exception):
    """Root of the tree."""


class ApiError(KaitoRuntimeError):
    """The API server answered with an error status. Retryable or not: see `retryable`."""

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
        """The server's sentence."""
        self.code = code
        """HTTP status."""
        self.reason = reason
        """Machine readable reason of the Status object, for example `NotFound`."""
        self.details: Mapping[str, Any] = details or {}
        """`details` of the Status object: name, group, kind, uid, causes, retryAfterSeconds."""
        self.retry_after = retry_after
        """Seconds the server asked to wait, from `Retry-After` or the details."""
        self.request = request
        """Method and path, for the reader of the log."""
        self.after_lost_response = False
        """An earlier attempt of the same request got no answer: it may have been done, and this be its consequence."""

    @property
    def causes(self) -> list[dict[str, str]]:
        """`details.causes`: one entry a field, with `field`, `message`, `reason`."""
        return list(self.details.get("causes") or [])

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later (409 on a version, 429, 5xx)."""
        return self.code in {409, 429} or self.code >= 500


class BadRequest(ApiError):
    """400: the request is malformed; retrying cannot help."""

    status = 400


class Unauthorized(ApiError):
    """401: the credentials were refused even after reloading them."""

    status = 401


class Forbidden(ApiError):
    """403: RBAC or admission denied it; the message names the missing verb or the webhook."""

    status = 403


class NotFound(ApiError):
    """404: no such object, or no such resource type or subresource; `is_object` distinguishes them."""

    status = 404

    @property
    def is_object(self) -> bool:
        """Whether an object (or its namespace) is missing, and the server does serve its kind.

        A 404 about the kind, the version or a subresource names no object. The server answers a missing subresource of
        a custom kind as a missing object; `Client` looks whether the object is there and makes that another error.
        """
        return bool(self.details.get("name"))


class Conflict(ApiError):
    """409: the object changed since it was read, or another manager owns an applied field. Read again and retry."""

    status = 409


class AlreadyExists(ApiError):
    """409 with reason AlreadyExists: somebody created it first."""

    status = 409


class Gone(ApiError):
    """410: the resourceVersion or continue token expired. List again."""

    status = 410


class Invalid(ApiError):
    """422: validation failed; `causes` names the fields."""

    status = 422


class TooManyRequests(ApiError):
    """429: wait `retry_after` seconds."""

    status = 429


class ServerError(ApiError):
    """5xx: the server's trouble. Retry with backoff."""

    status = 500


_BY_CODE: dict[int, type[ApiError]] = {
    kind.status: kind
    for kind in (BadRequest, Unauthorized, Forbidden, NotFound, Conflict, Gone, Invalid, TooManyRequests)
}


_UNKNOWN_API = {"404 page not found", "the server could not find the requested resource"}
"""What kube-apiserver says of a group, version or resource it does not know; it says it of no object."""


def api_error(
    code: int,
    body: Mapping[str, Any] | str,
    *,
    retry_after: float | None = None,
    request: str = "",
) -> ApiError:
    """The typed error for a status code and the body of the answer (a Status object, or whatever a proxy sent)."""
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
    """The request got no answer: connection refused or reset, TLS failure. The write may or may not have happened."""


class RequestTimeout(TransportError):
    """No answer within the request's time limit."""


class UnreadableObject(KaitoRuntimeError):
    """An object (or a whole answer) of the server does not fit the model; the message names it and the fields.

    In the cache it stays under its key, so that events and owners still work; only reading it fails. Lists leave it out
    or fail, see `Api.list`. The message never holds values: they may be those of a Secret.
    """

    def __init__(
        self, message: str, *, key: str = "", resource_version: str = "", owners: Collection[str] = ()
    ) -> None:
        super().__init__(message)
        self.key = key
        """Namespace and name of the object, as `str(obj.key)`; empty when not even they could be read."""
        self.resource_version = resource_version
        """Which state of it does not fit."""
        self.owners: frozenset[str] = frozenset(owners)
        """UIDs of its owners."""


class AlreadyOwned(KaitoRuntimeError):
    """The object is controlled by something else. An owner recreated under its name is something else, too."""


class ConfigurationError(KaitoRuntimeError):
    """The program is put together wrongly; the message names what and the remedy."""


class UndeclaredKind(ConfigurationError):
    """A cached read of a kind that no controller watches and no `Cached(...)` declares."""

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"{kind} is read from the cache but nothing declares it: add Cached({kind}) to cache= of the controller or "
            f"of the manager, or name it in the manager's live= to read it from the API server each time"
        )
        self.kind = kind


class UndeclaredNamespace(UndeclaredKind):
    """A cached read in a namespace that the kind's `Cached(..., namespaces=...)` leaves out: not the same as absent."""

    def __init__(self, kind: str, namespace: str, declared: Sequence[str]) -> None:
        super().__init__(kind)
        self.namespace = namespace
        message = (
            f"{kind} in namespace {namespace!r} is read from the cache, which keeps only {', '.join(declared)}: "
            f"add the namespace to Cached({kind}, namespaces=...) or read it live"
        )
        self.args: tuple[str, ...] = (message,)


class CacheNotSynced(KaitoRuntimeError):
    """A cached read before the first list of that kind arrived; carries the last list or watch error if any."""


class NotLeader(KaitoRuntimeError):
    """A write was fenced off because this process can no longer be sure to hold the lease."""


class Terminal(KaitoRuntimeError):
    """Raised by a reconciler: retrying cannot help until the object (or something watched) changes.

    Logged and counted, never requeued by backoff.
    """


def may_have_happened(error: BaseException) -> bool:
    """Whether a write that ended with this error may have been done all the same, or may be done in a moment.

    A refusal of the server is an answer (4xx, unless an earlier attempt of the same request got none), and what was
    stopped before it was sent has not happened. Anything else leaves it open: no answer, a cancelled run, 5xx.
    """
    if isinstance(error, ApiError):
        return error.code >= 500 or error.after_lost_response
    return not isinstance(error, NotLeader | ConfigurationError)


class InvariantError(KaitoRuntimeError):
    """Something that cannot happen did: a bug of the framework. The process ends; please report it."""
