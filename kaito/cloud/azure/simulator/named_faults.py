"""Faults by name: rejected requests and failed operations as AKS and Compute return them.

Codes, messages and nesting are those of recorded responses and of errors that users of Azure have published. A fault
applies once by default; `named("quota", times=None)` applies until it is removed.
"""

from collections.abc import Mapping
from typing import Any

from kaito.cloud.azure.simulator.faults import Fault

_A100_FAMILY = "standardNCADSA100v4Family"
_COMPUTE_QUOTA = (
    "Operation could not be completed as it results in exceeding approved {family} Cores quota. Additional details - "
    "Deployment Model: Resource Manager, Location: eastus, Current Limit: 24, Current Usage: 24, "
    "Additional Required: 24, (Minimum) New Limit Required: 48."
)
"""Compute's message for an exceeded quota; `family` is `Total Regional` or a family."""


def _nested(status: int, code: str, message: str, **more: Any) -> dict[str, Any]:
    """ARM's format: the fields are below `error`."""
    return {"status": status, "body": {"error": {"code": code, "message": message, **more}}}


def _flat(status: int, code: str, message: str, *, target: str = "", subcode: str = "") -> dict[str, Any]:
    """The container service's format: the fields are at the top level."""
    body: dict[str, Any] = {"code": code, "details": None, "message": message, "subcode": subcode}
    return {"status": status, "body": body | ({"target": target} if target else {})}


def _pool_fails(code: str, message: str, end: str = "failed") -> dict[str, Any]:
    """The PUT is accepted, and the pool fails."""
    return {"method": "PUT", "operation": {"end": end, "code": code, "message": message}}


_QUOTA: Mapping[str, Mapping[str, Any]] = {
    "quota": {
        "method": "PUT",
        **_flat(
            400,
            "ErrCode_InsufficientVCPUQuota",
            "Insufficient vcpu quota requested 24, remaining 0 for family StandardNCADSA100v4Family for region eastus.",
            target="agentPoolProfile.vmSize",
        ),
    },
    "quota-regional": {
        "method": "PUT",
        **_flat(
            400,
            "ErrCode_InsufficientVCPUQuota",
            "Insufficient regional vcpu quota left for location eastus. left regional vcpu quota 0, "
            "requested quota 24.",
            target="agentPoolProfile.vmSize",
        ),
    },
    "quota-nested": {
        "method": "PUT",
        **_nested(
            400,
            "InvalidTemplateDeployment",
            "The template deployment failed with error: see details.",
            details=[{"code": "QuotaExceeded", "message": _COMPUTE_QUOTA.format(family=_A100_FAMILY)}],
        ),
    },
    "quota-details": {
        "method": "PUT",
        **_nested(
            400,
            "QuotaExceeded",
            "Provisioning of resource(s) for Agent Pool failed.",
            details=[{"code": "OperationNotAllowed", "message": _COMPUTE_QUOTA.format(family=_A100_FAMILY)}],
        ),
    },
    "quota-conflict": {
        "method": "PUT",
        **_nested(409, "OperationNotAllowed", _COMPUTE_QUOTA.format(family="Total Regional")),
    },
    "quota-pool": _pool_fails(
        "CreateVMSSAgentPoolFailed",
        "Unable to establish outbound connection from agents. Details: VMSSAgentPoolReconciler retry failed: Category: "
        "ClientError; SubCode: QuotaExceeded; Dependency: Microsoft.Compute/VirtualMachineScaleSet; OrginalError: "
        'autorest/azure: Service returned an error. Status=<nil> Code="OperationNotAllowed" '
        f'Message="{_COMPUTE_QUOTA.format(family=_A100_FAMILY)}"; AKSTeam: NodeProvisioning',
    ),
}

_CAPACITY: Mapping[str, Mapping[str, Any]] = {
    "capacity": _pool_fails(
        "ReconcileVMSSAgentPoolFailed",
        'Unable to provision the virtual machine scale set: Code="AllocationFailed" Message="Allocation '
        'failed. We do not have sufficient capacity for the requested VM size in this region."',
    ),
    "zonal-capacity": _pool_fails(
        "ReconcileVMSSAgentPoolFailed",
        'Code="ZonalAllocationFailed" Message="Allocation failed. We do not have sufficient capacity for the requested '
        "VM size in this zone. Read more about improving likelihood of allocation success at "
        'http://aka.ms/allocation-guidance"',
    ),
    "overconstrained": _pool_fails(
        "ReconcileVMSSAgentPoolFailed",
        'Code="OverconstrainedAllocationRequest" Message="Allocation failed. VM(s) with the following constraints '
        "cannot be allocated, because the condition is too restrictive. Constraints applied are: VM Size, Networking "
        'Constraints."',
    ),
    "overconstrained-zonal": _pool_fails(
        "ReconcileVMSSAgentPoolFailed",
        'Code="OverconstrainedZonalAllocationRequest" Message="Allocation failed. VM(s) with the following constraints '
        "cannot be allocated, because the condition is too restrictive. Please remove some constraints and try again. "
        'Constraints applied are: - Availability Zone - Low priority VMs - VM Size"',
    ),
    "sku-not-available": _pool_fails(
        "SkuNotAvailable",
        'Code="SkuNotAvailable" Message="The requested VM size for resource \'Following SKUs have failed for Capacity '
        "Restrictions: Standard_NC24ads_A100_v4' is currently not available in location 'eastus'. Please try another "
        'size or deploy to a different location or different zone." Target="sku.name"',
    ),
}

_SIZE: Mapping[str, Mapping[str, Any]] = {
    "sku": {
        "method": "PUT",
        **_flat(
            400,
            "BadRequest",
            "The VM size of AgentPoolProfile:ws1 is not allowed in your subscription in location 'eastus'. The "
            "available VM sizes are 'standard_d2s_v5,standard_d4s_v5'",
            target="agentPoolProfile.vmSize",
        ),
    },
    "size-not-supported": {
        "method": "PUT",
        **_flat(
            400,
            "VMSizeNotSupported",
            "Virtual Machine size: 'Standard_NC24ads_A100_v4' is not supported for subscription "
            "00000000-0000-0000-0000-000000000000 in location 'eastus'. Please refer to aka.ms/aks/vm-size-selector to "
            "find supported VM sizes in location 'eastus'.",
        ),
    },
    "zone-not-supported": {
        "method": "PUT",
        **_flat(
            400,
            "AvailabilityZoneNotSupported",
            "Preflight validation check for resource(s) for container service kaito in resource group MC_kaito_kaito_"
            "eastus failed. Message: The zone(s) '1' for resource 'ws1' is not supported. The supported zones for "
            "location 'eastus' are '3'.",
            target="agentPoolProfile.availabilityZone",
        ),
    },
}

_BUSY: Mapping[str, Mapping[str, Any]] = {
    "busy": {
        "method": "PUT",
        **_nested(
            409,
            "OperationNotAllowed",
            "Another agentpool operation (other - Creating) is in progress, please wait for it to finish.",
        ),
    },
    "busy-cluster": {
        "method": "PUT",
        **_nested(
            409,
            "OperationNotAllowed",
            "Operation is not allowed: Another operation (Updating) is in progress, please wait for it to finish "
            "before starting a new operation. See https://aka.ms/aks-pending-operation for more details",
        ),
    },
    "busy-creating": {
        "method": "PUT",
        **_nested(
            409,
            "OperationNotAllowed",
            "Operation is not allowed because there's an in progress create node pool operation on the node pool, "
            "please wait for it to finish.",
        ),
    },
    "throttled": {
        **_flat(429, "Throttled", "The request is being throttled as the limit has been reached."),
        "headers": {"Retry-After": "5"},
    },
    "throttled-by-arm": {
        **_nested(
            429,
            "SubscriptionRequestsThrottled",
            "Number of requests for subscription '00000000-0000-0000-0000-000000000000' and operation 'GET' exceeded.",
        ),
        "headers": {"Retry-After": "17"},
    },
    "throttled-pool": _pool_fails(
        "ReconcileVMSSAgentPoolFailed",
        "VMSSAgentPoolReconciler retry failed: autorest/azure: Service returned an error. Status=429 "
        'Code="OperationNotAllowed" Message="The server rejected the request because too many requests have been '
        'received for this subscription." Details=[{"code":"TooManyRequests","message":"{\\"operationGroup\\":'
        '\\"HighCostGetVMScaleSet3Min\\",\\"allowedRequestCount\\":162,\\"measuredRequestCount\\":191}",'
        '"target":"HighCostGetVMScaleSet3Min"}]',
    ),
    "canceled": _pool_fails(
        "Canceled", "The operation was overriden and canceled by a later operation", end="canceled"
    ),
}

_REFUSED: Mapping[str, Mapping[str, Any]] = {
    "unauthorized": _nested(
        403, "AuthorizationFailed", "The client does not have authorization to perform action over scope."
    ),
    "policy": {
        "method": "PUT",
        **_nested(
            403,
            "RequestDisallowedByPolicy",
            'Resource \'ws1\' was disallowed by policy. Policy identifiers: \'[{"policyAssignment":{"name":"Allowed '
            "virtual machine size SKUs\"}}]'.",
            target="ws1",
        ),
    },
    "locked": {
        "method": "DELETE",
        **_nested(
            409,
            "ScopeLocked",
            "The scope '/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/kaito' cannot perform "
            "delete operation because "
            "following scope(s) are locked: '/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/kaito'"
            ". Please remove the lock and try again.",
        ),
    },
    "locked-read-only": {
        "method": "PUT",
        **_nested(
            409,
            "ScopeLocked",
            "The scope '/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/kaito' cannot perform "
            "write operation because "
            "following scope(s) are locked: '/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/kaito'"
            ". Please remove the lock and try again.",
        ),
    },
    "exists": {
        "method": "PUT",
        **_nested(412, "PreconditionFailed", "The condition '*' in the If-None-Match header was not satisfied."),
    },
    "cluster-gone": {
        **_nested(
            404,
            "ResourceNotFound",
            "The Resource 'Microsoft.ContainerService/managedClusters/kaito' under resource group 'kaito' was not "
            "found. For more details please go to https://aka.ms/ARMResourceNotFoundFix",
        ),
    },
    "pool-gone": {
        **_flat(404, "NotFound", "Could not find the agent pool 'ws1'", subcode="GetAgentPool_NotFound"),
    },
}

_BROKEN: Mapping[str, Mapping[str, Any]] = {
    "server-error": _nested(500, "InternalOperationError", "Internal server error"),
    "hang": {"hang": True},
    "drop": {"drop": True},
    "accepted-then-dropped": {"method": "PUT", "drop": True, "after": True},
    "truncated": {"truncate": True},
    "status-lost": {"method": "PUT", "operation": {"end": "status-lost"}},
    "never-ends": {"method": "PUT", "operation": {"end": "never"}},
    "status-stuck": {"method": "PUT", "operation": {"end": "status-stuck"}},
    "status-stuck-failed": {
        "method": "PUT",
        "operation": {
            "end": "status-stuck-failed",
            "code": "ReconcileVMSSAgentPoolFailed",
            "message": 'Code="AllocationFailed" Message="Allocation failed."',
        },
    },
    "succeeded-but-failed": {"method": "PUT", "operation": {"end": "succeeded-but-failed"}},
    "slow-delete": {"method": "DELETE", "operation": {"end": "succeeded", "slower": 10.0}},
    "extension": _pool_fails(
        "VMExtensionProvisioningError",
        "VM has reported a failure when processing extension 'vmssCSE' (publisher 'Microsoft.Azure.Extensions' and "
        "type 'CustomScript'). Error message: 'Enable failed: failed to execute command: command terminated with exit "
        "status=50'.",
    ),
    "subnet-full": _pool_fails(
        "SubnetIsFull",
        "Subnet nodes with address prefix 10.224.0.0/24 does not have enough capacity for 31 IP addresses.",
    ),
    "internal": _pool_fails("ReconcileVMSSAgentPoolFailed", "We are sorry, an internal error happened."),
}

NAMED: Mapping[str, Mapping[str, Any]] = {**_QUOTA, **_CAPACITY, **_SIZE, **_BUSY, **_REFUSED, **_BROKEN}
"""Arguments of `Fault` by name."""


def named(name: str, **changes: Any) -> Fault:
    """Builds a named fault with changes: `named("throttled", times=20)`, `named("capacity", pool="ws.*")`.

    Raises:
        KeyError: there is no fault with this name.
    """
    return Fault(name=name, **{**NAMED[name], **changes})
