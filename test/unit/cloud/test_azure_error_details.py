"""Class and category of the 26 errors of recorded Azure traffic, in several wordings and nestings.

The rows are recorded responses of Azure.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from kaito.cloud.azure.errors import PROVISIONING, classify, operation_error
from kaito.cloud.errors import (
    AlreadyExists,
    Busy,
    CloudError,
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

A100 = "Standard_NC24ads_A100_v4"
FAMILY_QUOTA = (
    "Operation could not be completed as it results in exceeding approved standardNCADSA100v4Family Cores quota"
)
REGIONAL_QUOTA = (
    "Operation could not be completed as it results in exceeding approved Total Regional Cores quota. Additional "
    "details - Location: eastus, Current Limit: 10, Current Usage: 10, Additional Required: 24."
)
NUMBERS = (
    "Additional details - Deployment Model: Resource Manager, Location: eastus, Current Limit: 24, Current Usage: 24"
)
NO_CAPACITY = "We do not have sufficient capacity for the requested VM size in this region."
CAPACITY_RESTRICTIONS = (
    f"The requested VM size for resource 'Following SKUs have failed for Capacity Restrictions: {A100}' is currently "
    "not available in location 'eastus'. Please try another size or deploy to a different location or different zone."
)
NOT_SUPPORTED = (
    f"Virtual Machine size: '{A100}' is not supported for subscription 0 in location 'eastus'. Please refer to "
    "aka.ms/aks/vm-size-selector to find supported VM sizes in location 'eastus'."
)
NOT_ALLOWED = (
    f"The VM size of {A100} is not allowed in your subscription in location 'eastus'. The available VM sizes are "
    "'standard_d2s_v3,standard_d4s_v3'"
)
SCALE_SET = (
    "Unable to establish outbound connection. Error: VMSSAgentPoolReconciler retry failed: autorest/azure: Service"
)
LOCKED = (
    "The scope '/subscriptions/0/resourceGroups/MC_x' cannot perform delete operation because following scope(s) are "
    "locked: '/subscriptions/0/resourceGroups/MC_x'. Please remove the lock and try again."
)
THROTTLED_BY_COMPUTE = (
    "The server rejected the request because too many requests have been received for this subscription."
)

Case = tuple[int, int, dict[str, Any], type[CloudError], Category]


def flat(code: str, message: str, *, target: str | None = None) -> dict[str, Any]:
    return {"code": code, "details": None, "message": message, "subcode": "", "target": target}


def nested(code: str, message: str = "", *details: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "details": list(details), **more}}


def detail(code: str, message: str = "") -> dict[str, Any]:
    return {"code": code, "message": message}


def scale_set(code: str, message: str, *, outer: str = "CreateVMSSAgentPoolFailed", **status: int) -> dict[str, Any]:
    """The text of the Go SDK inside the message of a failed pool."""
    before = "".join(f"Status={value} " for value in status.values())
    text = f'{SCALE_SET} returned an error. {before}Code="{code}" Message="{message}"'
    return {"code": outer, "message": text}


ROWS: list[Case] = [
    # 1 quota of the family, refused by AKS
    (1, 400, flat("ErrCode_InsufficientVCPUQuota", "Insufficient vcpu quota requested 24, remaining 0 for family "
     "StandardNCADSA100v4Family for region eastus.", target="agentPoolProfile.vmSize"), QuotaExceeded, Category.QUOTA),
    (1, 400, nested("ErrCode_InsufficientVCPUQuota", "requested 24"), QuotaExceeded, Category.QUOTA),
    (1, 400, nested("BadRequest", "Insufficient vcpu quota requested 24, remaining 0"), QuotaExceeded, Category.QUOTA),
    (1, 400, flat("InsufficientVCPUQuota", "requested 24"), QuotaExceeded, Category.QUOTA),
    (1, 400, nested("InvalidTemplateDeployment", "", detail("errcode_insufficientvcpuquota", "x")), QuotaExceeded,
     Category.QUOTA),
    # 2 quota of the region
    (2, 400, flat("ErrCode_InsufficientVCPUQuota", "Insufficient regional vcpu quota left for location eastus. left "
     "regional vcpu quota 0, requested quota 24."), QuotaExceeded, Category.QUOTA),
    (2, 400, nested("ErrCode_InsufficientVCPUQuota", "Insufficient regional vcpu quota left"), QuotaExceeded,
     Category.QUOTA),
    # 3 Compute's quota refusal inside a failed pool
    (3, PROVISIONING, scale_set("OperationNotAllowed", f"{FAMILY_QUOTA}. {NUMBERS}"), QuotaExceeded, Category.QUOTA),
    (3, PROVISIONING, detail("CreateVMSSAgentPoolFailed",
     f'Code="OperationNotAllowed" Message="{REGIONAL_QUOTA}"'), QuotaExceeded, Category.QUOTA),
    (3, PROVISIONING, nested("CreateVMSSAgentPoolFailed", "VMSS failed", detail("OperationNotAllowed", FAMILY_QUOTA)),
     QuotaExceeded, Category.QUOTA),
    (3, PROVISIONING, detail("CreateVMSSAgentPoolFailed",
     f'Code=\\"OperationNotAllowed\\" Message=\\"{FAMILY_QUOTA}\\"'), QuotaExceeded, Category.QUOTA),
    # 4 the same as an HTTP answer
    (4, 409, nested("OperationNotAllowed", REGIONAL_QUOTA), QuotaExceeded, Category.QUOTA),
    (4, 403, nested("OperationNotAllowed", f"{FAMILY_QUOTA}."), QuotaExceeded, Category.QUOTA),
    (4, 409, flat("OperationNotAllowed", f"{FAMILY_QUOTA}. {NUMBERS}"), QuotaExceeded, Category.QUOTA),
    # 5 QuotaExceeded around it
    (5, PROVISIONING, nested("QuotaExceeded", "Provisioning failed", detail("OperationNotAllowed", FAMILY_QUOTA)),
     QuotaExceeded, Category.QUOTA),
    (5, 409, nested("QuotaExceeded", FAMILY_QUOTA), QuotaExceeded, Category.QUOTA),
    (5, 400, flat("BadRequest", "Provisioning of resource(s) for container service aks failed. Message: "
     + json.dumps({"error": detail("QuotaExceeded", FAMILY_QUOTA)}) + ". Details: "), QuotaExceeded, Category.QUOTA),
    (5, 400, flat("BadRequest", json.dumps(json.dumps(detail("QuotaExceeded", FAMILY_QUOTA)))), QuotaExceeded,
     Category.QUOTA),
    (5, 400, flat("BadRequest", 'Operation failed: {"error":{"code":"QuotaExceeded","message":"cut of'), QuotaExceeded,
     Category.QUOTA),
    # 6 no capacity
    (6, PROVISIONING, scale_set("AllocationFailed", f"Allocation failed. {NO_CAPACITY}",
     outer="ReconcileVMSSAgentPoolFailed"), InsufficientCapacity, Category.CAPACITY),
    (6, PROVISIONING, nested("ReconcileVMSSAgentPoolFailed", "x", detail("AllocationFailed", NO_CAPACITY)),
     InsufficientCapacity, Category.CAPACITY),
    (6, PROVISIONING, detail("ReconcileVMSSAgentPoolFailed", f'{SCALE_SET}: Code="Failed" Message="The async operation '
     'failed." Details=[{"code":"AllocationFailed","message":"no machine"}]'), InsufficientCapacity, Category.CAPACITY),
    # 7 constraints that no machine meets
    (7, PROVISIONING, detail("OverconstrainedZonalAllocationRequest", "in zone 3"), InsufficientCapacity,
     Category.CAPACITY),
    (7, PROVISIONING, scale_set("OverconstrainedAllocationRequest", "constraints"), InsufficientCapacity,
     Category.CAPACITY),
    (7, PROVISIONING, {"code": "ReconcileVMSSAgentPoolFailed", "message": "x",
     "innererror": detail("OverconstrainedZonalAllocationRequest")}, InsufficientCapacity, Category.CAPACITY),
    # 8 no capacity in a zone
    (8, PROVISIONING, scale_set("ZonalAllocationFailed", "zone 3"), InsufficientCapacity, Category.CAPACITY),
    (8, 409, nested("ZonalAllocationFailed", "zone 3"), InsufficientCapacity, Category.CAPACITY),
    # 9 SkuNotAvailable while provisioning, or for lack of capacity
    (9, PROVISIONING, detail("SkuNotAvailable",
     f'Code="SkuNotAvailable" Message="{CAPACITY_RESTRICTIONS}" Target="sku.name"'), InsufficientCapacity,
     Category.CAPACITY),
    (9, 409, nested("SkuNotAvailable", CAPACITY_RESTRICTIONS), InsufficientCapacity, Category.CAPACITY),
    (9, PROVISIONING, scale_set("SkuNotAvailable", "The requested size is not available for Spot"),
     InsufficientCapacity, Category.CAPACITY),
    (9, 400, nested("InvalidTemplateDeployment", "x", detail("SkuNotAvailable", CAPACITY_RESTRICTIONS)),
     InsufficientCapacity, Category.CAPACITY),
    # 10 a size the subscription may not have
    (10, 400, flat("BadRequest", NOT_ALLOWED), InstanceTypeUnavailable, Category.SIZE),
    (10, 400, nested("BadRequest", "The VM size of AgentPoolProfile:x is not allowed in your subscription"),
     InstanceTypeUnavailable, Category.SIZE),
    (10, 400, flat("InvalidParameter", "The value is wrong", target="agentPoolProfile.vmSize"),
     InstanceTypeUnavailable, Category.SIZE),
    # 11 newer wordings
    (11, 400, flat("VMSizeNotSupported", NOT_SUPPORTED), InstanceTypeUnavailable, Category.SIZE),
    (11, 400, flat("BadRequest", f"Virtual Machine size: '{A100}' is not supported for subscription 0 in location "
     "'eastus'."), InstanceTypeUnavailable, Category.SIZE),
    (11, 400, nested("BadRequest", "x", detail("VMSizeNotSupported", NOT_SUPPORTED)), InstanceTypeUnavailable,
     Category.SIZE),
    # 12 a zone the size does not have
    (12, 400, flat("AvailabilityZoneNotSupported", "The zone(s) '1' for resource 'ws1' is not supported. The supported "
     "zones for location 'eastus' are '3'", target="agentPoolProfile.availabilityZone"), InstanceTypeUnavailable,
     Category.ZONE),
    (12, 400, nested("BadRequest", "The zone(s) '1' for resource 'ws1' is not supported."), InstanceTypeUnavailable,
     Category.ZONE),
    (12, 400, nested("BadRequest", "Availability zone 1 is not supported for this VM size"), InstanceTypeUnavailable,
     Category.ZONE),
    # 13 to 15 another operation
    (13, 409, nested("OperationNotAllowed", "Another operation (x - Updating) is in progress, please wait for it to "
     "finish before starting a new operation."), Busy, Category.BUSY),
    (14, 409, nested("OperationNotAllowed", "Another agentpool operation (x - Creating) is in progress"), Busy,
     Category.BUSY),
    (15, 409, flat("OperationNotAllowed", "Operation is not allowed because there's an in progress create node pool "
     "operation"), Busy, Category.BUSY),
    (15, 400, nested("BadRequest", "Operation is not allowed because there's an in progress create node pool "
     "operation on the agent pool"), Busy, Category.BUSY),
    # 16 too many requests
    (16, 429, nested("Throttled", "The request is throttled"), Throttled, Category.THROTTLED),
    (16, 429, nested("OperationNotAllowed", THROTTLED_BY_COMPUTE, detail("TooManyRequests", "{}")), Throttled,
     Category.THROTTLED),
    (16, 429, {}, Throttled, Category.THROTTLED),
    # 17 Compute throttled AKS
    (17, PROVISIONING, scale_set("OperationNotAllowed", THROTTLED_BY_COMPUTE, status=429), Throttled,
     Category.THROTTLED),
    (17, PROVISIONING, detail("ReconcileVMSSAgentPoolFailed", 'Service returned an error. Status=429 Code="Failed" '
     'Message="x" Details=[{"code":"TooManyRequests","message":"{\\"operationGroup\\":\\"HighCostGet30Min\\"}",'
     '"target":"HighCostGet30Min"}]'), Throttled, Category.THROTTLED),
    (17, PROVISIONING, detail("ReconcileVMSSAgentPoolFailed", "VMSS: StatusCode=429, retry later"), Throttled,
     Category.THROTTLED),
    # 18 overridden
    (18, PROVISIONING, detail("OperationPreempted", "preempted"), OperationCanceled, Category.OVERRIDDEN),
    (18, PROVISIONING, detail("Canceled", "The operation was overriden and canceled by a later operation"),
     OperationCanceled, Category.OVERRIDDEN),
    (18, PROVISIONING, scale_set("OperationNotAllowed", "The operation was overridden by a later operation."),
     OperationCanceled, Category.OVERRIDDEN),
    # 19 an extension failed
    (19, PROVISIONING, detail("VMExtensionProvisioningError", "VM has reported a failure when processing extension "
     "'vmssCSE'. Error message: Enable failed: failed to execute command: exit status=50"), OperationFailed,
     Category.FAILED),
    (19, PROVISIONING, scale_set("VMExtensionProvisioningError", "vmssCSE"), OperationFailed, Category.FAILED),
    # 20 no addresses left
    (20, 400, nested("SubnetIsFull", "Subnet x with address prefix 10.0.0.0/24 does not have enough capacity for 1 IP "
     "addresses."), InvalidRequest, Category.BLOCKED),
    (20, PROVISIONING, scale_set("SubnetIsFull", "Subnet aks-subnet with address prefix 10.0.0.0/24 is full"),
     InvalidRequest, Category.BLOCKED),
    (20, 400, flat("InsufficientSubnetSize", "Pre-allocated IPs 93 exceeds IPs available 14 in Subnet Cidr"),
     InvalidRequest, Category.BLOCKED),
    # 21 a policy
    (21, 403, nested("RequestDisallowedByPolicy", "Resource 'ws1' was disallowed by policy.", target="ws1"),
     InvalidRequest, Category.BLOCKED),
    (21, PROVISIONING, scale_set("RequestDisallowedByPolicy", "Resource was disallowed by policy"), InvalidRequest,
     Category.BLOCKED),
    (21, 403, nested("RequestDisallowedByAzure", "Resource 'ws1' was disallowed by Azure"), InvalidRequest,
     Category.BLOCKED),
    # 22 a lock
    (22, 409, nested("ScopeLocked", LOCKED), InvalidRequest, Category.BLOCKED),
    (22, PROVISIONING, scale_set("ScopeLocked", LOCKED), InvalidRequest, Category.BLOCKED),
    # 23 the pool exists
    (23, 412, {}, AlreadyExists, Category.EXISTS),
    (23, 412, nested("PreconditionFailed", "quota of vm size not allowed"), AlreadyExists, Category.EXISTS),
    # 24 the cluster does not
    (24, 404, nested("ResourceNotFound", "The Resource 'Microsoft.ContainerService/managedClusters/x' under resource "
     "group 'g' was not found."), ClusterMissing, Category.CLUSTER_MISSING),
    (24, 404, nested("ResourceGroupNotFound", "x"), ClusterMissing, Category.CLUSTER_MISSING),
    (24, 404, nested("ParentResourceNotFound", "x"), ClusterMissing, Category.CLUSTER_MISSING),
    # 25 the pool does not
    (25, 404, flat("NotFound", "Agent Pool ws1 not found"), InstanceMissing, Category.GONE),
    (25, 404, nested("NotFound", "", subcode="GetAgentPool_NotFound"), InstanceMissing, Category.GONE),
    # 26 nothing more precise
    (26, PROVISIONING, detail("ReconcileVMSSAgentPoolFailed", "We are unable to serve this request due to an internal "
     "error, Correlation ID: x"), OperationFailed, Category.FAILED),
    (26, PROVISIONING, {"message": "the operation failed"}, OperationFailed, Category.FAILED),
    (26, PROVISIONING, {}, OperationFailed, Category.FAILED),
]  # fmt: skip


@pytest.mark.parametrize(("row", "status", "document", "kind", "category"), ROWS)
def test_recorded_errors_have_their_class_and_category(
    row: int, status: int, document: dict[str, Any], kind: type[CloudError], category: Category
) -> None:
    error = operation_error(document) if status == PROVISIONING else classify(status, document)
    assert (type(error), error.category) == (kind, category), f"row {row}: {error}"
    assert error.message, "every error has a message"


def test_the_table_covers_every_row() -> None:
    assert {row for row, *_ in ROWS} == set(range(1, 27))


@pytest.mark.parametrize(
    ("status", "document", "regional"),
    [(status, document, row == 2 or "Regional" in str(document)) for row, status, document, *_ in ROWS if row <= 5],
)
def test_regional_quota_is_distinguished_from_family_quota(
    status: int, document: dict[str, Any], regional: bool
) -> None:
    assert classify(status, document).regional is regional


WRAPPINGS: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...] = (
    lambda body: body,
    lambda body: {"error": body},
    lambda body: {"details": [body]},
    lambda body: {"message": json.dumps(body)},
    lambda body: {"message": "failed: " + json.dumps({"error": body}) + " ."},
    lambda body: {"error": {"code": "X", "innererror": body}},
    lambda body: {"error": {"message": "x", "details": json.dumps([body])}},
    lambda body: {"error": json.dumps(body)},
)


@pytest.mark.parametrize("wrapped", WRAPPINGS)
@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        ("QuotaExceeded", FAMILY_QUOTA, QuotaExceeded),
        ("OperationNotAllowed", FAMILY_QUOTA, QuotaExceeded),
        ("AllocationFailed", "no machine", InsufficientCapacity),
        ("VMSizeNotSupported", NOT_SUPPORTED, InstanceTypeUnavailable),
        ("ScopeLocked", LOCKED, InvalidRequest),
        ("TooManyRequests", "slow down", Throttled),
    ],
)
def test_nesting_does_not_change_the_error(wrapped: Any, code: str, message: str, kind: type[CloudError]) -> None:
    error = operation_error(wrapped({"code": code, "message": message}))
    assert type(error) is kind
    assert message in error.message
    assert error.code == code


def test_message_of_the_innermost_error_is_used() -> None:
    error = operation_error(scale_set("OperationNotAllowed", f"{FAMILY_QUOTA}. {NUMBERS}"))
    assert str(error) == f"OperationNotAllowed: {FAMILY_QUOTA}. {NUMBERS}"


@pytest.mark.parametrize(
    ("status", "document", "kind", "category"),
    [
        (409, nested("SomethingNew", "no"), Busy, Category.CONFLICT),
        (400, nested("SomethingNew", "no"), InvalidRequest, Category.INVALID),
        (PROVISIONING, nested("SomethingNew", "no"), OperationFailed, Category.FAILED),
        (400, {"error": {"code": 7, "message": {"a": 1}, "details": 3}}, InvalidRequest, Category.INVALID),
        (400, {"error": None, "details": [None, 1, "x"]}, InvalidRequest, Category.INVALID),
        (400, {"message": "[" * 5000 + "{" * 5000}, InvalidRequest, Category.INVALID),
    ],
)
def test_unknown_errors_have_a_default(
    status: int, document: dict[str, Any], kind: type[CloudError], category: Category
) -> None:
    error = operation_error(document) if status == PROVISIONING else classify(status, document)
    assert (type(error), error.category) == (kind, category)


@pytest.mark.parametrize(
    ("status", "message", "category"),
    [
        (400, "The VM size 'Standard_NC6' is retired.", Category.SIZE),
        (400, "Virtual Machine size Standard_NC12 has been retired in this region.", Category.SIZE),
        (400, "Azure Spot is not supported for this VM size.", Category.SIZE),
        (400, "Spot VMs are not supported in the subscription's offer.", Category.SIZE),
        (400, "Availability zone 3 not supported by the VM size.", Category.ZONE),
        (400, "No sufficient capacity in region eastus for Standard_ND96asr_v4.", Category.CAPACITY),
        (PROVISIONING, "Insufficient capacity for the size in zone 1.", Category.CAPACITY),
        (PROVISIONING, "We do not have enough capacity for the requested size.", Category.CAPACITY),
        (400, "The maximum number of agent pools (100) is reached.", Category.BLOCKED),
        (400, "The subnet does not have enough capacity for 30 IP addresses: subnet x is full.", Category.BLOCKED),
    ],
)
def test_messages_decide_under_generic_codes(status: int, message: str, category: Category) -> None:
    body = {"code": "BadRequest", "message": message}
    error = operation_error(body) if status == PROVISIONING else classify(status, {"error": body})
    assert error.category is category
    nested = {"code": "CreateVMSSAgentPoolFailed", "message": f"failed: {json.dumps({'error': body})}"}
    assert operation_error(nested).category is category
