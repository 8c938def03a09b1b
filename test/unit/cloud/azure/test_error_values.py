"""Codes, statuses and headers of Azure's errors, one by one."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ServiceRequestError
from azure.core.rest import HttpRequest

from kaito.cloud.azure.arm import is_success
from kaito.cloud.azure.error_details import ErrorDetail, error_details, inner_statuses
from kaito.cloud.azure.errors import PROVISIONING, classify, operation_error, parse_retry_after, translate
from kaito.cloud.azure.provider import is_about_cluster
from kaito.cloud.azure.simulator.http import ArmResponse
from kaito.cloud.azure.simulator.inprocess import InProcessResponse
from kaito.cloud.errors import (
    NEXT_OFFERING,
    AccessDenied,
    AlreadyExists,
    Busy,
    CloudError,
    CloudUnavailable,
    ClusterMissing,
    ErrorCategory as Category,
    InstanceMissing,
    InstanceTypeUnavailable,
    InsufficientCapacity,
    InvalidRequest,
    OperationCanceled,
    OperationFailed,
    QuotaExceeded,
    Throttled,
)

CODES: dict[str, tuple[type[CloudError], Category]] = {
    # an administrator must act
    "ScopeLocked": (InvalidRequest, Category.BLOCKED),
    "RequestDisallowedByPolicy": (InvalidRequest, Category.BLOCKED),
    "RequestDisallowedByAzure": (InvalidRequest, Category.BLOCKED),
    "PolicyViolation": (InvalidRequest, Category.BLOCKED),
    "SubnetIsFull": (InvalidRequest, Category.BLOCKED),
    "InsufficientSubnetSize": (InvalidRequest, Category.BLOCKED),
    "SubnetNotEnoughIPs": (InvalidRequest, Category.BLOCKED),
    "MissingSubscriptionRegistration": (InvalidRequest, Category.BLOCKED),
    "ReadOnlyDisabledSubscription": (InvalidRequest, Category.BLOCKED),
    "SubscriptionNotRegistered": (InvalidRequest, Category.BLOCKED),
    "DisabledSubscription": (InvalidRequest, Category.BLOCKED),
    "RequestDisallowedByDenyAssignment": (InvalidRequest, Category.BLOCKED),
    "DenyAssignmentAuthorizationFailed": (InvalidRequest, Category.BLOCKED),
    "AgentPoolLimitExceeded": (InvalidRequest, Category.BLOCKED),
    "MaxAgentPoolCountReached": (InvalidRequest, Category.BLOCKED),
    # too many requests
    "TooManyRequests": (Throttled, Category.THROTTLED),
    "Throttled": (Throttled, Category.THROTTLED),
    "SubscriptionRequestsThrottled": (Throttled, Category.THROTTLED),
    "ResourceRequestsThrottled": (Throttled, Category.THROTTLED),
    # quota
    "ErrCode_InsufficientVCPUQuota": (QuotaExceeded, Category.QUOTA),
    "InsufficientVCPUQuota": (QuotaExceeded, Category.QUOTA),
    "QuotaExceeded": (QuotaExceeded, Category.QUOTA),
    # capacity
    "AllocationFailed": (InsufficientCapacity, Category.CAPACITY),
    "ZonalAllocationFailed": (InsufficientCapacity, Category.CAPACITY),
    "OverconstrainedAllocationRequest": (InsufficientCapacity, Category.CAPACITY),
    "OverconstrainedZonalAllocationRequest": (InsufficientCapacity, Category.CAPACITY),
    "SpotPriceGreaterThanProvidedMaxPrice": (InsufficientCapacity, Category.CAPACITY),
    # zones
    "AvailabilityZoneNotSupported": (InstanceTypeUnavailable, Category.ZONE),
    "InvalidAvailabilityZone": (InstanceTypeUnavailable, Category.ZONE),
    "ZonesNotAllowed": (InstanceTypeUnavailable, Category.ZONE),
    "LocationNotSupportAvailabilityZones": (InstanceTypeUnavailable, Category.ZONE),
    "ResourceTypeNotSupportAvailabilityZones": (InstanceTypeUnavailable, Category.ZONE),
    # instance types
    "VMSizeNotSupported": (InstanceTypeUnavailable, Category.SIZE),
    "InvalidVMSize": (InstanceTypeUnavailable, Category.SIZE),
    "AzureSpotIsNotSupportedForThisVMSize": (InstanceTypeUnavailable, Category.SIZE),
    "AzureSpotFeatureNotEnabledForSubscription": (InstanceTypeUnavailable, Category.SIZE),
    "NotAvailableForSubscription": (InstanceTypeUnavailable, Category.SIZE),
    # permissions
    "AuthorizationFailed": (AccessDenied, Category.DENIED),
    "LinkedAuthorizationFailed": (AccessDenied, Category.DENIED),
    "AuthenticationFailed": (AccessDenied, Category.DENIED),
    "ExpiredAuthenticationToken": (AccessDenied, Category.DENIED),
    "InvalidAuthenticationToken": (AccessDenied, Category.DENIED),
    "InvalidAuthenticationTokenTenant": (AccessDenied, Category.DENIED),
    # the cluster
    "ResourceGroupNotFound": (ClusterMissing, Category.CLUSTER_MISSING),
    "ParentResourceNotFound": (ClusterMissing, Category.CLUSTER_MISSING),
    "SubscriptionNotFound": (ClusterMissing, Category.CLUSTER_MISSING),
    # other operations
    "Canceled": (OperationCanceled, Category.OVERRIDDEN),
    "Cancelled": (OperationCanceled, Category.OVERRIDDEN),
    "OperationPreempted": (OperationCanceled, Category.OVERRIDDEN),
    "OperationCanceled": (OperationCanceled, Category.OVERRIDDEN),
    "AnotherOperationInProgress": (Busy, Category.BUSY),
    "PutAgentPoolInProgress": (Busy, Category.BUSY),
    "OperationInProgress": (Busy, Category.BUSY),
    # the node
    "VMExtensionProvisioningError": (OperationFailed, Category.FAILED),
    "VMExtensionProvisioningTimeout": (OperationFailed, Category.FAILED),
}


@pytest.mark.parametrize("code", CODES)
def test_a_code_determines_the_error_in_any_case_and_at_any_level(code: str) -> None:
    expected = CODES[code]
    for found in (
        classify(400, {"code": code, "message": "text"}),
        classify(400, {"error": {"code": code.upper(), "message": "text"}}),
        operation_error({"code": code, "message": "text"}),
        operation_error({"code": "CreateVMSSAgentPoolFailed", "message": f'x Code="{code}" Message="text"'}),
    ):
        assert (type(found), found.category) == expected
        assert found.message == "text"
    assert classify(400, {"code": code, "message": "text"}).code == code


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "x", InstanceTypeUnavailable),
        (409, "x", InstanceTypeUnavailable),
        (409, "is currently not available in location 'eastus'", InsufficientCapacity),
        (409, "failed due to Capacity Restrictions", InsufficientCapacity),
        (409, "not available for Spot", InsufficientCapacity),
        (PROVISIONING, "x", InsufficientCapacity),
    ],
)
def test_sku_not_available_is_a_lack_of_capacity_while_provisioning_or_by_its_message(
    status: int, message: str, expected: type[CloudError]
) -> None:
    assert type(classify(status, {"code": "SkuNotAvailable", "message": message})) is expected


@pytest.mark.parametrize(
    ("status", "target", "expected", "category"),
    [
        (400, "agentPoolProfile.vmSize", InstanceTypeUnavailable, Category.SIZE),
        (400, "properties.VMSize", InstanceTypeUnavailable, Category.SIZE),
        (400, "agentPoolProfile.availabilityZones", InstanceTypeUnavailable, Category.ZONE),
        (400, "agentPoolProfile.name", InvalidRequest, Category.INVALID),
        (409, "agentPoolProfile.vmSize", Busy, Category.CONFLICT),
        (409, "agentPoolProfile.availabilityZones", Busy, Category.CONFLICT),
    ],
)
def test_the_target_of_a_bad_request_decides(
    status: int, target: str, expected: type[CloudError], category: Category
) -> None:
    found = classify(status, {"code": "InvalidParameter", "message": "wrong", "target": target})
    assert (type(found), found.category) == (expected, category)


DEFAULTS = [
    (400, InvalidRequest, Category.INVALID),
    (401, AccessDenied, Category.DENIED),
    (403, AccessDenied, Category.DENIED),
    (404, ClusterMissing, Category.CLUSTER_MISSING),
    (405, InvalidRequest, Category.INVALID),
    (408, CloudUnavailable, Category.UNAVAILABLE),
    (409, Busy, Category.CONFLICT),
    (412, AlreadyExists, Category.EXISTS),
    (422, InvalidRequest, Category.INVALID),
    (429, Throttled, Category.THROTTLED),
    (499, InvalidRequest, Category.INVALID),
    (500, CloudUnavailable, Category.UNAVAILABLE),
    (503, CloudUnavailable, Category.UNAVAILABLE),
    (302, CloudUnavailable, Category.UNAVAILABLE),
    (399, CloudUnavailable, Category.UNAVAILABLE),
]


@pytest.mark.parametrize(("status", "expected", "category"), DEFAULTS)
def test_a_status_without_a_known_code_has_a_default(
    status: int, expected: type[CloudError], category: Category
) -> None:
    found = classify(status, {"error": {"code": "New", "message": "text"}}, retry_after=7)
    assert (type(found), found.category, found.retry_after) == (expected, category, 7)
    assert str(found) == "New: text"
    assert str(classify(status, {})) == f"HTTP {status}"
    assert not found.regional


@pytest.mark.parametrize("status", [412, 429])
def test_two_statuses_decide_whatever_the_body_contains(status: int) -> None:
    body = {"error": {"code": "QuotaExceeded", "message": "limit"}}
    assert type(classify(status, body)) is {412: AlreadyExists, 429: Throttled}[status]
    assert str(classify(status, body)) == "QuotaExceeded: limit"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (404, {"code": "NotFound", "message": ""}, InstanceMissing),
        (404, {"code": "AgentPoolNotFound", "message": "x"}, InstanceMissing),
        (404, {"code": "X", "message": "Agent pool ws1 could not be found"}, InstanceMissing),
        (404, {"code": "X", "message": "agentpool ws1 not found"}, InstanceMissing),
        (404, {"code": "X", "message": "the cluster was not found"}, ClusterMissing),
        (400, {"code": "NotFound", "message": ""}, InvalidRequest),
    ],
)
def test_only_a_404_about_the_pool_is_a_missing_instance(
    status: int, body: dict[str, Any], expected: type[CloudError]
) -> None:
    assert type(classify(status, body)) is expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("There has to be at least one agent pool.", InvalidRequest),
        ("failed: Status=429 from Compute", Throttled),
        ("failed: StatusCode: 429", Throttled),
        ("failed: Status=503 from Compute", OperationFailed),
        ("failed: exit status 429", OperationFailed),
        ("superseded by a newer request", OperationCanceled),
        ("preempted by another operation", OperationCanceled),
        ("the create operation of another pool is still in progress", Busy),
        ("VM failed in vmssCSE with exit status 50", OperationFailed),
    ],
)
def test_messages_of_failed_operations(message: str, expected: type[CloudError]) -> None:
    assert type(operation_error({"code": "New", "message": message})) is expected


def test_the_first_rule_wins_over_the_outer_code() -> None:
    body = {
        "code": "QuotaExceeded",
        "message": "outer",
        "details": [{"code": "ScopeLocked", "message": "locked"}, {"code": "ScopeLocked", "message": "longer: locked"}],
    }
    found = classify(400, body)
    assert (found.category, str(found)) == (Category.BLOCKED, "ScopeLocked: locked")


@pytest.mark.parametrize(
    ("code", "message", "regional"),
    [
        ("QuotaExceeded", "exceeding approved Total Regional Cores quota", True),
        ("QuotaExceeded", "Insufficient regional vcpu quota left", True),
        ("QuotaExceeded", "exceeding approved standardNCFamily Cores quota", False),
        ("AllocationFailed", "no capacity: total regional cores", False),
    ],
)
def test_only_a_quota_can_be_regional(code: str, message: str, *, regional: bool) -> None:
    assert classify(400, {"code": code, "message": message}).regional is regional


def test_an_operation_error_that_names_nothing_has_failed() -> None:
    found = operation_error({"code": "New", "message": "text"})
    assert (type(found), found.code, found.message) == (OperationFailed, "New", "text")
    assert operation_error({"code": "QuotaExceeded", "message": "x"}).category is Category.QUOTA


def test_these_categories_let_another_offering_be_tried() -> None:
    assert {Category.QUOTA, Category.CAPACITY, Category.SIZE, Category.ZONE} == NEXT_OFFERING


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "17"}, 17),
        ({"Retry-After": "1.5"}, 1.5),
        ({"retry-after": "17"}, 17),
        ({"Retry-After": "17", "retry-after": "3"}, 17),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 -0000"}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers) == seconds


def test_a_date_in_the_future_is_a_wait() -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert parse_retry_after({"Retry-After": moment}) == pytest.approx(90, abs=5)


def response(
    status: int, body: object = None, *, path: str = "/x", headers: dict[str, str] | None = None
) -> InProcessResponse:
    return InProcessResponse(HttpRequest("GET", f"http://arm{path}"), ArmResponse(status, body, headers or {}))


@pytest.mark.parametrize(
    ("status", "expected"), [(199, False), (200, True), (202, True), (204, True), (299, True), (300, False)]
)
def test_only_2xx_is_a_success(status: int, *, expected: bool) -> None:
    assert is_success(response(status)) is expected


def http_error(status: int, body: object, **headers: str) -> HttpResponseError:
    return HttpResponseError(response=response(status, body, headers=dict(headers)))


def test_an_http_error_keeps_status_body_and_retry_after() -> None:
    found = translate(http_error(503, {"error": {"code": "ServerBusy", "message": "later"}}, **{"Retry-After": "9"}))
    assert (type(found), str(found), found.retry_after) == (CloudUnavailable, "ServerBusy: later", 9)
    assert type(translate(http_error(403, {"error": {"code": "New"}}))) is AccessDenied


@pytest.mark.parametrize("body", [None, b"<html>", [], "text"])
def test_an_error_without_a_json_object_has_the_first_line_of_its_text(body: object) -> None:
    found = translate(http_error(400, body))
    assert type(found) is InvalidRequest
    assert found.message
    assert "\n" not in found.message


def test_a_rejected_token_is_a_matter_of_the_response_only_if_there_is_one() -> None:
    without = translate(ClientAuthenticationError(message="no token\nTrace ID: x"))
    assert (type(without), str(without)) == (AccessDenied, "AuthenticationFailed: no token")
    body = {"error": {"code": "ExpiredAuthenticationToken", "message": "expired"}}
    answered = translate(ClientAuthenticationError(response=response(401, body)))
    assert (type(answered), str(answered)) == (AccessDenied, "ExpiredAuthenticationToken: expired")
    assert str(translate(ServiceRequestError("cannot connect\nmore"))) == "cannot connect"


CLUSTER = "Microsoft.ContainerService/managedClusters/kaito"


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        ("ResourceGroupNotFound", "x", True),
        ("ParentResourceNotFound", "x", True),
        ("SubscriptionNotFound", "x", True),
        ("ResourceNotFound", f"The Resource '{CLUSTER}' was not found", True),
        ("ResourceNotFound", f"The Resource '{CLUSTER}/agentPools/ws1' was not found", False),
        ("NotFound", "Agent Pool ws1 not found", False),
    ],
)
def test_a_404_is_about_the_cluster_or_about_the_pool(code: str, message: str, *, expected: bool) -> None:
    assert is_about_cluster(http_error(404, {"error": {"code": code, "message": message}})) is expected


def test_details_are_read_to_a_depth_of_8() -> None:
    def nested(levels: int) -> dict[str, Any]:
        body: dict[str, Any] = {"code": "QuotaExceeded", "message": "inner"}
        for _ in range(levels):
            body = {"innererror": body}
        return body

    assert [detail.code for detail in error_details(nested(7))] == ["QuotaExceeded"]
    assert error_details(nested(8)) == []


@pytest.mark.parametrize(
    "key", ["error", "innererror", "innerError", "inner_error", "details", "additionalInfo", "info"]
)
def test_inner_errors_have_these_names(key: str) -> None:
    assert error_details({key: {"code": "Inner", "message": "m", "target": "t"}}) == [ErrorDetail("Inner", "m", "t")]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('Code="Inner" Message="m"', "Inner"),
        ("(Inner) m", "Inner"),
        ("ErrorCode: Inner", "Inner"),
        ("code=Inner", "Inner"),
        ('{"code":"Inner"', "Inner"),
        ('{"errorCode": "Inner"', "Inner"),
    ],
)
def test_codes_inside_messages(text: str, code: str) -> None:
    assert code in [detail.code for detail in error_details({"message": f"{text}"})]


@pytest.mark.parametrize("text", ["exit code: 50", "Code: abc", "no (Inner) m", "barcode: Inner"])
def test_other_words_are_not_codes(text: str) -> None:
    assert {detail.code for detail in error_details({"message": text})} == {""}


def test_statuses_of_inner_requests() -> None:
    details = error_details({"message": "Status=429 then StatusCode: 503, exit status 500, Status=999"})
    assert inner_statuses(details) == {429, 503}
