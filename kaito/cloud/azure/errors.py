"""Translates errors of ARM and of the SDK to `kaito.cloud.errors`.

`kaito.cloud.azure.error_details` extracts every code and message of a response. The table `_RULES` is sorted from
specific to general, so that a quota error inside the message of a failed agent pool becomes `QuotaExceeded`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, cast

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

from kaito.cloud import errors
from kaito.cloud.azure.error_details import ErrorDetail, error_details, inner_statuses
from kaito.cloud.errors import CloudError, ErrorCategory

PARENT_CODES = frozenset({"ResourceGroupNotFound", "ParentResourceNotFound", "SubscriptionNotFound"})

PROVISIONING = 0
"""`status` argument of `classify` for the error of an operation or of a pool, which has no HTTP status."""

Predicate = Callable[[ErrorDetail, int], bool]
"""Whether a rule applies to a detail in a response with this HTTP status."""


@dataclass(frozen=True, slots=True)
class _Rule:
    error_type: type[CloudError]
    matches: Predicate
    category: ErrorCategory | None = None


def translate(error: AzureError) -> CloudError:
    """Translates an exception of the SDK; chain it: `raise translate(error) from error`."""
    if isinstance(error, ClientAuthenticationError) and not _has_response(error):
        return errors.AccessDenied(_first_line(str(error)), code="AuthenticationFailed")
    if isinstance(error, HttpResponseError) and error.status_code is not None:
        document = _body(error)
        return classify(error.status_code, document, retry_after=parse_retry_after(_headers(error)))
    return errors.CloudUnavailable(_first_line(str(error)))


def operation_error(document: Mapping[str, Any]) -> CloudError:
    """Translates the `error` of a failed operation, or the `provisioningError` of a failed pool."""
    error = classify(PROVISIONING, document)
    return (
        error if type(error) is not errors.CloudUnavailable else errors.OperationFailed(error.message, code=error.code)
    )


def classify(status: int, document: Mapping[str, Any], *, retry_after: float | None = None) -> CloudError:
    """Translates an HTTP status and an error body; the status is `PROVISIONING` for errors of operations and pools."""
    details = error_details(document)
    outer = next((detail for detail in details if detail.message), ErrorDetail("", f"HTTP {status}"))
    code = next((detail.code for detail in details if detail.code), "")
    error_type = _BY_STATUS.get(status)
    if error_type is not None:
        return error_type(outer.message, code=code, retry_after=retry_after)
    for rule in _RULES:
        matching = [detail for detail in details if rule.matches(detail, status)]
        if matching:
            return _build(rule, matching, details, retry_after)
    if status == PROVISIONING and HTTPStatus.TOO_MANY_REQUESTS in inner_statuses(details):
        return errors.Throttled(outer.message, code=code, retry_after=retry_after)
    default_type, category = _default_for(status)
    return default_type(outer.message, code=code, retry_after=retry_after, category=category)


def _build(
    rule: _Rule, matching: list[ErrorDetail], details: list[ErrorDetail], retry_after: float | None
) -> CloudError:
    """Builds the error of a rule from the shortest message: outer messages repeat it with more text around it."""
    complete = [detail for detail in matching if detail.code and detail.message]
    innermost = min(complete or matching, key=lambda detail: len(detail.message))
    return rule.error_type(
        innermost.message or next((detail.message for detail in details if detail.message), innermost.code),
        code=innermost.code or next((detail.code for detail in details if detail.code), ""),
        retry_after=retry_after,
        category=rule.category,
        regional=rule.error_type is errors.QuotaExceeded
        and any(_REGIONAL.search(detail.message) for detail in details),
    )


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Parses `Retry-After`, which contains seconds (ARM) or an HTTP date (proxies); None for another value."""
    value = headers.get("Retry-After") or headers.get("retry-after")
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        return _seconds_until(value, headers.get("Date") or headers.get("date") or "")
    return seconds if 0 <= seconds < float("inf") else None


def _seconds_until(text: str, date: str) -> float | None:
    """Returns the seconds from the date of the response, or from now if it has none: the local clock may be wrong."""
    moment = _parse_date(text)
    if moment is None:
        return None
    return max((moment - (_parse_date(date) or datetime.now(UTC))).total_seconds(), 0.0)


def _parse_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _code_in(*codes: str) -> Predicate:
    known = frozenset(code.lower() for code in codes)
    return lambda detail, _: detail.key in known


def _matches(pattern: str) -> Predicate:
    text = re.compile(pattern, re.IGNORECASE | re.DOTALL)
    return lambda detail, _: text.search(detail.message) is not None


def _any_of(*predicates: Predicate) -> Predicate:
    return lambda detail, status: any(predicate(detail, status) for predicate in predicates)


def _all_of(*predicates: Predicate) -> Predicate:
    return lambda detail, status: all(predicate(detail, status) for predicate in predicates)


def _status_in(*statuses: int) -> Predicate:
    return lambda _, status: status in statuses


def _target_contains(part: str) -> Predicate:
    return lambda detail, _: part in detail.target.lower()


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

_SIZE_UNAVAILABLE = (
    r"(vm|virtual machine) sizes?\b[^.]{0,120}\b(is|are) not (allowed|available|supported)"
    r"|is not supported for subscription"
    r"|(vm|virtual machine) size [^.]{0,120}(not (found|offered)|\b(is|are|was|has been) (being )?(retired|deprecated))"
    r"|\bspot\b( vms?| virtual machines?| instances?)? (is|are) not (allowed|available|supported)"
)

_RULES: tuple[_Rule, ...] = (
    _Rule(
        errors.InvalidRequest,
        _any_of(
            _code_in(*_BLOCKED_CODES),
            _matches(r"following scope\(s\) are locked|was disallowed by (policy|azure)|deny assignment"),
            _matches(r"max(imum)? (number of )?(agent|node) ?pools?\b"),
            _matches(r"subnet\b[^.]{0,200}(is full|not have enough (capacity|ip)|insufficient (ip|address))"),
        ),
        ErrorCategory.BLOCKED,
    ),
    _Rule(
        errors.Throttled,
        _any_of(
            _code_in("TooManyRequests", "Throttled", "SubscriptionRequestsThrottled", "ResourceRequestsThrottled"),
            _matches(r"too many requests|requests? (is|are) being throttled"),
        ),
    ),
    _Rule(
        errors.QuotaExceeded,
        _any_of(
            _code_in("ErrCode_InsufficientVCPUQuota", "InsufficientVCPUQuota", "QuotaExceeded"),
            _matches(r"exceeding approved\b.{0,120}\bquota|insufficient (regional )?v?cpus? quota"),
        ),
    ),
    _Rule(
        errors.InsufficientCapacity,
        _any_of(
            _code_in(
                "AllocationFailed",
                "ZonalAllocationFailed",
                "OverconstrainedAllocationRequest",
                "OverconstrainedZonalAllocationRequest",
                "SpotPriceGreaterThanProvidedMaxPrice",
            ),
            _all_of(_code_in("SkuNotAvailable"), _status_in(PROVISIONING)),
            _all_of(_code_in("SkuNotAvailable"), _matches(r"capacity restrictions|currently not available|\bspot\b")),
            _matches(r"failed for capacity restrictions|not have (sufficient|enough) capacity for the requested"),
            _matches(r"\b(no|insufficient|not enough) (sufficient )?(vm |compute )?capacity (in|for|available|is)\b"),
        ),
    ),
    _Rule(
        errors.InstanceTypeUnavailable,
        _any_of(
            _code_in("AvailabilityZoneNotSupported", "InvalidAvailabilityZone", "ZonesNotAllowed"),
            _code_in("LocationNotSupportAvailabilityZones", "ResourceTypeNotSupportAvailabilityZones"),
            _matches(r"the zones?(\(s\))? '[^']*'[^.]{0,120}(is|are) not supported"),
            _matches(r"availability zones?\b[^.]{0,120}\bnot (available|supported)"),
            _all_of(_target_contains("availabilityzone"), _status_in(HTTPStatus.BAD_REQUEST)),
        ),
        ErrorCategory.ZONE,
    ),
    _Rule(
        errors.InstanceTypeUnavailable,
        _any_of(
            _code_in("SkuNotAvailable", "VMSizeNotSupported", "InvalidVMSize", "AzureSpotIsNotSupportedForThisVMSize"),
            _code_in("AzureSpotFeatureNotEnabledForSubscription", "NotAvailableForSubscription"),
            _matches(_SIZE_UNAVAILABLE),
            _all_of(_target_contains("vmsize"), _status_in(HTTPStatus.BAD_REQUEST)),
        ),
    ),
    _Rule(
        errors.AccessDenied,
        _code_in(
            "AuthorizationFailed",
            "LinkedAuthorizationFailed",
            "AuthenticationFailed",
            "ExpiredAuthenticationToken",
            "InvalidAuthenticationToken",
            "InvalidAuthenticationTokenTenant",
        ),
    ),
    _Rule(errors.ClusterMissing, _code_in(*PARENT_CODES)),
    _Rule(
        errors.OperationCanceled,
        _any_of(
            _code_in("Canceled", "Cancelled", "OperationPreempted", "OperationCanceled"),
            _matches(r"overrid+en (and cancel+ed )?by|preempted by|superseded by a (later|newer)"),
        ),
    ),
    _Rule(
        errors.Busy,
        _any_of(
            _code_in("AnotherOperationInProgress", "PutAgentPoolInProgress", "OperationInProgress"),
            _matches(r"\b(operation|update|request)\b.{0,200}\bin progress\b|there'?s an in progress\b"),
        ),
    ),
    _Rule(errors.InvalidRequest, _matches("at least one agent pool")),
    _Rule(
        errors.OperationFailed,
        _any_of(_code_in("VMExtensionProvisioningError", "VMExtensionProvisioningTimeout"), _matches(r"\bvmssCSE\b")),
    ),
    _Rule(
        errors.InstanceMissing,
        _all_of(
            _status_in(HTTPStatus.NOT_FOUND),
            _any_of(_code_in("NotFound", "AgentPoolNotFound"), _matches(r"agent ?pools?\b.{0,120}\bnot (be )?found")),
        ),
    ),
)
"""Specific rules first. Codes and messages are those of AKS, ARM and Compute, from recordings of azure-cli, logs and
issues, the documentation of error codes of AKS and Compute, and Karpenter's provider for Azure."""

_BY_STATUS: Mapping[int, type[CloudError]] = {
    HTTPStatus.PRECONDITION_FAILED: errors.AlreadyExists,
    HTTPStatus.TOO_MANY_REQUESTS: errors.Throttled,
}
"""Statuses that determine the error, whatever the body contains."""


def _default_for(status: int) -> tuple[type[CloudError], ErrorCategory | None]:
    """The class and category of a response that matches no rule."""
    match status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return errors.AccessDenied, None
        case HTTPStatus.NOT_FOUND:
            return errors.ClusterMissing, None
        case HTTPStatus.CONFLICT:
            return errors.Busy, ErrorCategory.CONFLICT
        case HTTPStatus.REQUEST_TIMEOUT:
            return errors.CloudUnavailable, None
        case _ if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return errors.InvalidRequest, None
        case _:
            return errors.CloudUnavailable, None


def _has_response(error: HttpResponseError) -> bool:
    """Whether ARM responded: the SDK raises the same class if it cannot get a token."""
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
