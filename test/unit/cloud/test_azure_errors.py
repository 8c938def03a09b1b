"""Translation of ARM's errors to cloud errors."""

from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError

from kaito.cloud.azure.errors import classify, operation_error, parse_retry_after, translate
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


def nested(code: str, message: str = "", *details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "details": list(details)}}


@pytest.mark.parametrize(
    ("status", "document", "kind"),
    [
        (400, {"code": "ErrCode_InsufficientVCPUQuota", "message": "requested 24"}, QuotaExceeded),
        (
            400,
            nested("InvalidTemplateDeployment", "", {"code": "QuotaExceeded", "message": "Limit: 24"}),
            QuotaExceeded,
        ),
        (409, nested("OperationNotAllowed", "", {"code": "QuotaExceeded", "message": "Limit: 24"}), QuotaExceeded),
        (400, nested("SkuNotAvailable", "no"), InstanceTypeUnavailable),
        (
            400,
            nested("BadRequest", "The VM size of AgentPoolProfile:x is not allowed in your subscription"),
            InstanceTypeUnavailable,
        ),
        (400, nested("BadRequest", "something else"), InvalidRequest),
        (401, {}, AccessDenied),
        (403, nested("AuthorizationFailed", "no permission"), AccessDenied),
        (404, nested("ResourceNotFound", "managedClusters/x was not found"), ClusterMissing),
        (404, nested("ResourceGroupNotFound", "x"), ClusterMissing),
        (409, nested("OperationNotAllowed", "Another operation (x - Updating) is in progress"), Busy),
        (409, nested("OperationNotAllowed", "There has to be at least one agent pool."), InvalidRequest),
        (412, {}, AlreadyExists),
        (429, nested("TooManyRequests", "slow down"), Throttled),
        (429, {}, Throttled),
        (500, nested("InternalOperationError", "x"), CloudUnavailable),
        (503, {}, CloudUnavailable),
        (408, {}, CloudUnavailable),
    ],
)
def test_responses_are_classified(status: int, document: dict[str, Any], kind: type[CloudError]) -> None:
    error = classify(status, document, retry_after=7)
    assert type(error) is kind
    assert error.retry_after == 7


@pytest.mark.parametrize(
    ("document", "kind", "words"),
    [
        (
            {
                "code": "ReconcileVMSSAgentPoolFailed",
                "message": 'VMSS failed: Code="ZonalAllocationFailed" Message="no capacity in zone 3"',
            },
            InsufficientCapacity,
            "no capacity in zone 3",
        ),
        (
            {"code": "VMExtensionProvisioningError", "message": "outer", "details": [{"code": "AllocationFailed"}]},
            InsufficientCapacity,
            "outer",
        ),
        ({"code": "ReconcileVMSSAgentPoolFailed", "message": "internal error"}, OperationFailed, "internal error"),
        ({"code": "Canceled", "message": "overriden by a later operation"}, OperationCanceled, "overriden"),
        ({"code": "QuotaExceeded", "message": "Current Limit: 24"}, QuotaExceeded, "Limit: 24"),
    ],
)
def test_failed_operations_are_classified(document: dict[str, Any], kind: type[CloudError], words: str) -> None:
    error = operation_error(document)
    assert type(error) is kind
    assert words in error.message


def test_text_starts_with_the_code_and_is_cut_to_one_line() -> None:
    error = translate(ClientAuthenticationError(message="AADSTS700016: unknown application\nTrace ID: x\nmore"))
    assert str(error) == "AuthenticationFailed: AADSTS700016: unknown application"
    assert isinstance(translate(ServiceRequestError("Cannot connect to host")), CloudUnavailable)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "17"}, 17),
        ({"Retry-After": "soon"}, None),
        ({}, None),
        ({"Retry-After": "Tue, 01 Jan 2030 00:02:00 GMT", "Date": "Tue, 01 Jan 2030 00:00:00 GMT"}, 120),
        ({"retry-after": "Tue, 01 Jan 2030 00:00:00 GMT", "date": "Tue, 01 Jan 2030 00:02:00 GMT"}, 0),
        ({"Retry-After": "Mon, 01 Jan 2001 00:00:00 GMT"}, 0),
    ],
)
def test_retry_after_is_a_number_or_none(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers) == seconds
