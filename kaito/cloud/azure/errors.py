"""ARM's refusals translated to `kaito.cloud.errors`: the one edge where SDK exceptions are understood.

`kaito.cloud.azure.shapes` finds every code and message of an answer; the table `_RULES` orders their meanings by how
specific they are, so that a quota error inside the message of a failed agent pool is a quota error.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, cast

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

from kaito.cloud.azure.shapes import Shape, inner_statuses, shapes
from kaito.cloud.errors import (
    AccessDenied,
    AlreadyExists,
    Busy,
    CloudError,
    CloudUnavailable,
    ClusterMissing,
    ErrorCategory,
    InstanceMissing,
    InstanceTypeUnavailable,
    InsufficientCapacity,
    InvalidRequest,
    OperationCanceled,
    OperationFailed,
    QuotaExceeded,
    Throttled,
)

PARENT_CODES = frozenset({"ResourceGroupNotFound", "ParentResourceNotFound", "SubscriptionNotFound"})

PROVISIONING = 0
"""The `status` of `classify` for an error of provisioning: of an operation or a pool, not of an HTTP answer."""

Predicate = Callable[[Shape, int], bool]
"""Whether a shape, in an answer with this HTTP status, is of a rule's kind."""


@dataclass(frozen=True, slots=True)
class _Rule:
    kind: type[CloudError]
    matches: Predicate
    category: ErrorCategory | None = None


def translate(error: AzureError) -> CloudError:
    """The cloud error for an exception of the SDK; chain it: `raise translate(error) from error`."""
    if isinstance(error, ClientAuthenticationError) and not _is_answered(error):
        return AccessDenied(_first_line(str(error)), code="AuthenticationFailed")
    if isinstance(error, HttpResponseError) and error.status_code is not None:
        document = _body(error)
        return classify(error.status_code, document, retry_after=retry_after(_headers(error)))
    return CloudUnavailable(_first_line(str(error)))


def operation_error(document: Mapping[str, Any]) -> CloudError:
    """The cloud error for the `error` of an operation that ended badly, or of a pool that is Failed."""
    error = classify(PROVISIONING, document)
    return error if type(error) is not CloudUnavailable else OperationFailed(error.message, code=error.code)


def classify(status: int, document: Mapping[str, Any], *, retry_after: float | None = None) -> CloudError:
    """The cloud error for an answer's HTTP status and error body; `PROVISIONING` for errors of operations and pools."""
    found = shapes(document)
    outer = next((shape for shape in found if shape.message), Shape("", f"HTTP {status}"))
    code = next((shape.code for shape in found if shape.code), "")
    decisive = _DECISIVE.get(status)
    if decisive is not None:
        return decisive(outer.message, code=code, retry_after=retry_after)
    for rule in _RULES:
        matching = [shape for shape in found if rule.matches(shape, status)]
        if matching:
            return _build(rule, matching, found, retry_after)
    if status == PROVISIONING and HTTPStatus.TOO_MANY_REQUESTS in inner_statuses(found):
        return Throttled(outer.message, code=code, retry_after=retry_after)
    kind, category = _by_status(status)
    return kind(outer.message, code=code, retry_after=retry_after, category=category)


def _build(rule: _Rule, matching: list[Shape], found: list[Shape], retry_after: float | None) -> CloudError:
    """The error of a rule, with the message of the innermost shape: outer ones repeat it with more around it."""
    complete = [shape for shape in matching if shape.code and shape.message]
    innermost = min(complete or matching, key=lambda shape: len(shape.message))
    return rule.kind(
        innermost.message or next((shape.message for shape in found if shape.message), innermost.code),
        code=innermost.code or next((shape.code for shape in found if shape.code), ""),
        retry_after=retry_after,
        category=rule.category,
        regional=rule.kind is QuotaExceeded and any(_REGIONAL.search(shape.message) for shape in found),
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a `Retry-After` header: whole seconds (ARM), or an HTTP date (proxies); None for anything else."""
    value = headers.get("Retry-After") or headers.get("retry-after")
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        return _until(value)
    return seconds if 0 <= seconds < float("inf") else None


def _until(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    now = datetime.now(UTC)
    return max((moment - now).total_seconds(), 0.0) if moment.tzinfo is not None else None


def _codes(*codes: str) -> Predicate:
    known = frozenset(code.lower() for code in codes)
    return lambda shape, _: shape.key in known


def _says(pattern: str) -> Predicate:
    text = re.compile(pattern, re.IGNORECASE | re.DOTALL)
    return lambda shape, _: text.search(shape.message) is not None


def _either(*predicates: Predicate) -> Predicate:
    return lambda shape, status: any(predicate(shape, status) for predicate in predicates)


def _both(*predicates: Predicate) -> Predicate:
    return lambda shape, status: all(predicate(shape, status) for predicate in predicates)


def _at(*statuses: int) -> Predicate:
    return lambda _, status: status in statuses


def _about(part: str) -> Predicate:
    return lambda shape, _: part in shape.target.lower()


_REGIONAL = re.compile(r"regional (vcpu|cores?)|total regional", re.IGNORECASE)

_BLOCKED_CODES = (
    "ScopeLocked",
    "RequestDisallowedByPolicy",
    "RequestDisallowedByAzure",
    "PolicyViolation",
    "SubnetIsFull",
    "InsufficientSubnetSize",
    "SubnetNotEnoughIPs",
    "MissingSubscriptionRegistration",
    "ReadOnlyDisabledSubscription",
    "SubscriptionNotRegistered",
    "DisabledSubscription",
    "RequestDisallowedByDenyAssignment",
    "DenyAssignmentAuthorizationFailed",
    "AgentPoolLimitExceeded",
    "MaxAgentPoolCountReached",
)

_NO_SIZE_WORDS = (
    r"(vm|virtual machine) sizes?\b[^.]{0,120}\b(is|are) not (allowed|available|supported)"
    r"|is not supported for subscription"
    r"|(vm|virtual machine) size [^.]{0,120}(not (found|offered)|\b(is|are|was|has been) (being )?(retired|deprecated))"
    r"|\bspot\b( vms?| virtual machines?| instances?)? (is|are) not (allowed|available|supported)"
)

_RULES: tuple[_Rule, ...] = (
    _Rule(
        InvalidRequest,
        _either(
            _codes(*_BLOCKED_CODES),
            _says(r"following scope\(s\) are locked|was disallowed by (policy|azure)|deny assignment"),
            _says(r"max(imum)? (number of )?(agent|node) ?pools?\b"),
            _says(r"subnet\b[^.]{0,200}(is full|not have enough (capacity|ip)|insufficient (ip|address))"),
        ),
        ErrorCategory.BLOCKED,
    ),
    _Rule(
        Throttled,
        _either(
            _codes("TooManyRequests", "Throttled", "SubscriptionRequestsThrottled", "ResourceRequestsThrottled"),
            _says(r"too many requests|requests? (is|are) being throttled"),
        ),
    ),
    _Rule(
        QuotaExceeded,
        _either(
            _codes("ErrCode_InsufficientVCPUQuota", "InsufficientVCPUQuota", "QuotaExceeded"),
            _says(r"exceeding approved\b.{0,120}\bquota|insufficient (regional )?v?cpus? quota"),
        ),
    ),
    _Rule(
        InsufficientCapacity,
        _either(
            _codes(
                "AllocationFailed",
                "ZonalAllocationFailed",
                "OverconstrainedAllocationRequest",
                "OverconstrainedZonalAllocationRequest",
                "SpotPriceGreaterThanProvidedMaxPrice",
            ),
            _both(_codes("SkuNotAvailable"), _at(PROVISIONING)),
            _both(_codes("SkuNotAvailable"), _says(r"capacity restrictions|currently not available|\bspot\b")),
            _says(r"failed for capacity restrictions|not have (sufficient|enough) capacity for the requested"),
            _says(r"\b(no|insufficient|not enough) (sufficient )?(vm |compute )?capacity (in|for|available|is)\b"),
        ),
    ),
    _Rule(
        InstanceTypeUnavailable,
        _either(
            _codes("AvailabilityZoneNotSupported", "InvalidAvailabilityZone", "ZonesNotAllowed"),
            _codes("LocationNotSupportAvailabilityZones", "ResourceTypeNotSupportAvailabilityZones"),
            _says(r"the zones?(\(s\))? '[^']*'[^.]{0,120}(is|are) not supported"),
            _says(r"availability zones?\b[^.]{0,120}\bnot (available|supported)"),
            _both(_about("availabilityzone"), _at(HTTPStatus.BAD_REQUEST)),
        ),
        ErrorCategory.ZONE,
    ),
    _Rule(
        InstanceTypeUnavailable,
        _either(
            _codes("SkuNotAvailable", "VMSizeNotSupported", "InvalidVMSize", "AzureSpotIsNotSupportedForThisVMSize"),
            _codes("AzureSpotFeatureNotEnabledForSubscription", "NotAvailableForSubscription"),
            _says(_NO_SIZE_WORDS),
            _both(_about("vmsize"), _at(HTTPStatus.BAD_REQUEST)),
        ),
    ),
    _Rule(
        AccessDenied,
        _codes(
            "AuthorizationFailed",
            "LinkedAuthorizationFailed",
            "AuthenticationFailed",
            "ExpiredAuthenticationToken",
            "InvalidAuthenticationToken",
            "InvalidAuthenticationTokenTenant",
        ),
    ),
    _Rule(ClusterMissing, _codes(*PARENT_CODES)),
    _Rule(
        OperationCanceled,
        _either(
            _codes("Canceled", "Cancelled", "OperationPreempted", "OperationCanceled"),
            _says(r"overrid+en (and cancel+ed )?by|preempted by|superseded by a (later|newer)"),
        ),
    ),
    _Rule(
        Busy,
        _either(
            _codes("AnotherOperationInProgress", "PutAgentPoolInProgress", "OperationInProgress"),
            _says(r"\b(operation|update|request)\b.{0,200}\bin progress\b|there'?s an in progress\b"),
        ),
    ),
    _Rule(InvalidRequest, _says("at least one agent pool")),
    _Rule(
        OperationFailed,
        _either(_codes("VMExtensionProvisioningError", "VMExtensionProvisioningTimeout"), _says(r"\bvmssCSE\b")),
    ),
    _Rule(
        InstanceMissing,
        _both(
            _at(HTTPStatus.NOT_FOUND),
            _either(_codes("NotFound", "AgentPoolNotFound"), _says(r"agent ?pools?\b.{0,120}\bnot (be )?found")),
        ),
    ),
)
"""The most specific first. The codes and wordings are those of AKS, ARM and Compute: recordings of azure-cli,
logs and issues, the AKS and Compute documents on error codes, and what Karpenter's Azure provider handles."""

_DECISIVE: Mapping[int, type[CloudError]] = {
    HTTPStatus.PRECONDITION_FAILED: AlreadyExists,
    HTTPStatus.TOO_MANY_REQUESTS: Throttled,
}
"""Statuses with one meaning, whatever the body contains."""


def _by_status(status: int) -> tuple[type[CloudError], ErrorCategory | None]:
    """The class and category of an answer whose code and message are unknown."""
    match status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return AccessDenied, None
        case HTTPStatus.NOT_FOUND:
            return ClusterMissing, None
        case HTTPStatus.CONFLICT:
            return Busy, ErrorCategory.CONFLICT
        case HTTPStatus.REQUEST_TIMEOUT:
            return CloudUnavailable, None
        case _ if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return InvalidRequest, None
        case _:
            return CloudUnavailable, None


def _is_answered(error: HttpResponseError) -> bool:
    """Whether ARM answered: the SDK raises the same class when the identity gets no token at all."""
    return error.status_code is not None and error.response is not None


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
