"""ARM's refusals translated to `kaito.cloud.errors`: the one edge where SDK exceptions are understood.

Codes come in two body shapes, nested in `details`, or buried as `Code="X" Message="Y"` in the text of a scale set
failure; all of them are looked at, and the most telling one decides.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, cast

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

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
    OperationFailed,
    QuotaExceeded,
    Throttled,
)

PARENT_CODES = frozenset({"ResourceGroupNotFound", "ParentResourceNotFound", "SubscriptionNotFound"})

_QUOTA = frozenset({"errcode_insufficientvcpuquota", "insufficientvcpuquota", "quotaexceeded"})
_CAPACITY = frozenset(
    {
        "allocationfailed",
        "zonalallocationfailed",
        "overconstrainedallocationrequest",
        "overconstrainedzonalallocationrequest",
    }
)
_ACCESS = frozenset(
    {"authorizationfailed", "linkedauthorizationfailed", "authenticationfailed", "expiredauthenticationtoken"}
)
_CANCELED = frozenset({"canceled", "cancelled", "operationpreempted"})
_SIZE_TEXT = re.compile(r"vm size.*not (allowed|available|supported)", re.IGNORECASE | re.DOTALL)
_EMBEDDED = re.compile(r'Code="(?P<code>[^"]+)"\s+Message="(?P<message>[^"]*)"')

Pair = tuple[str, str]


def translate(error: AzureError) -> CloudError:
    """The cloud error for an exception of the SDK; chain it: `raise translate(error) from error`."""
    if isinstance(error, ClientAuthenticationError):
        return AccessDenied(_first_line(str(error)), code="AuthenticationFailed")
    if isinstance(error, HttpResponseError) and error.status_code is not None:
        document = _body(error)
        return classify(error.status_code, document, retry_after=retry_after(_headers(error)))
    return CloudUnavailable(_first_line(str(error)))


def operation_error(document: Mapping[str, Any]) -> CloudError:
    """The cloud error for the `error` of an operation that ended badly, or of a pool that is Failed."""
    error = classify(0, document)
    return error if type(error) is not CloudUnavailable else OperationFailed(error.message, code=error.code)


def classify(status: int, document: Mapping[str, Any], *, retry_after: float | None = None) -> CloudError:
    """The cloud error for an answer's status and error body."""
    pairs = list(_walk(document))
    code, message = pairs[0] if pairs else ("", f"HTTP {status}")
    for kind, matches in _BY_CODE:
        for pair in pairs:
            if matches(*pair):
                return kind(_told(pair, (code, message)), code=pair[0], retry_after=retry_after)
    return _by_status(status)(message, code=code, retry_after=retry_after)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a `Retry-After` header (ARM sends whole seconds), if it is one."""
    value = headers.get("Retry-After") or headers.get("retry-after")
    try:
        return float(value) if value else None
    except ValueError:
        return None


def _codes(codes: frozenset[str]) -> Callable[[str, str], bool]:
    return lambda code, _: code.lower() in codes


_BY_CODE: tuple[tuple[type[CloudError], Callable[[str, str], bool]], ...] = (
    (QuotaExceeded, _codes(_QUOTA)),
    (InsufficientCapacity, _codes(_CAPACITY)),
    (InstanceTypeUnavailable, lambda code, text: code == "SkuNotAvailable" or _SIZE_TEXT.search(text) is not None),
    (AccessDenied, _codes(_ACCESS)),
    (ClusterMissing, _codes(frozenset(code.lower() for code in PARENT_CODES))),
    (OperationCanceled, _codes(_CANCELED)),
    (Throttled, _codes(frozenset({"toomanyrequests", "subscriptionrequeststhrottled"}))),
    (Busy, lambda code, text: code == "OperationNotAllowed" and "in progress" in text),
    (InvalidRequest, lambda code, text: code == "OperationNotAllowed" and "at least one agent pool" in text),
)
"""In order of how much they tell: a quota error nested in a deployment error is a quota error."""


def _by_status(status: int) -> type[CloudError]:
    match status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return AccessDenied
        case HTTPStatus.NOT_FOUND:
            return ClusterMissing
        case HTTPStatus.CONFLICT:
            return Busy
        case HTTPStatus.PRECONDITION_FAILED:
            return AlreadyExists
        case HTTPStatus.TOO_MANY_REQUESTS:
            return Throttled
        case HTTPStatus.REQUEST_TIMEOUT:
            return CloudUnavailable
        case _ if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return InvalidRequest
        case _:
            return CloudUnavailable


def _walk(document: Mapping[str, Any]) -> Iterator[Pair]:
    """Every (code, message) in an error body, outermost first."""
    inner = document.get("error")
    if isinstance(inner, Mapping):
        yield from _walk(cast("Mapping[str, Any]", inner))
        return
    code, message = str(document.get("code") or ""), str(document.get("message") or "")
    if code or message:
        yield code, message
    for found in _EMBEDDED.finditer(message):
        yield found["code"], found["message"]
    details: object = document.get("details")
    if isinstance(details, list):
        for detail in cast("list[object]", details):
            if isinstance(detail, Mapping):
                yield from _walk(cast("Mapping[str, Any]", detail))


def _told(pair: Pair, outer: Pair) -> str:
    """The telling message; the outer one when it has none of its own."""
    return pair[1] or outer[1]


def _body(error: HttpResponseError) -> Mapping[str, Any]:
    response = cast("Any", error.response)
    try:
        document: Any = response.json()
    except (ValueError, AttributeError):
        document = None
    if isinstance(document, Mapping):
        return cast("Mapping[str, Any]", document)
    return {"message": _first_line(str(error))}


def _headers(error: HttpResponseError) -> Mapping[str, str]:
    return cast("Mapping[str, str]", getattr(error.response, "headers", {}))


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
