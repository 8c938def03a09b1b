"""Recorded shapes of Azure's answers about agent pools: one table for provider and simulator.

Sources are recordings of azure-cli and azure-cli-extensions (R1 `test_aks_nodepool_create_scale_delete`, R2
`test_aks_create_spot_node_pool`, R3 `test_aks_create_gpu_driver_flow`, R4 `test_aks_nodepool_abort`, R7
`test_vm_usage`, R8 `test_aks_nodepool_delete_with_ignore_pod_disruption_budget`), the examples of azure-rest-api-specs
(S), and error texts that users published (I). Identifiers are replaced; keys, types, nesting and headers are those of
the sources.
`{url}` stands for the address of the resource manager.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
CLUSTER = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/kaito/providers/Microsoft.ContainerService/managedClusters/kaito"
)
POOL = f"{CLUSTER}/agentPools/ws1"
LOCATION = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerService/locations/eastus"
OPERATION_ID = "2c1b5c5e-8d3f-4a8e-9a0e-6d6b3f6f2a11"
SIGNATURE = f"t=638760000000000000&c={'MIIHhzCCBm-gAwIBAgITfAZ5' * 120}&s={'kQx_Zy0-' * 42}&h=Yq3u4LrXx2m"
OPERATION = f"{LOCATION}/operations/{OPERATION_ID}?api-version=2025-03-01&{SIGNATURE}"
RESULT = f"{LOCATION}/operationresults/{OPERATION_ID}?api-version=2025-03-01&{SIGNATURE}"


@dataclass(frozen=True)
class Shape:
    """One recorded answer."""

    name: str
    source: str
    method: str
    path: str
    status: int
    body: Any = None
    """None: the answer has no body."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    absent: tuple[str, ...] = ("Retry-After",)
    """Headers that the recorded answer did not have."""


def pool(state: str, **more: Any) -> dict[str, Any]:
    """A pool as AKS describes it."""
    return {
        "id": f"/subscriptions/{SUBSCRIPTION}/resourcegroups/kaito/providers/Microsoft.ContainerService/managedClusters"
        "/kaito/agentPools/ws1",
        "name": "ws1",
        "type": "Microsoft.ContainerService/managedClusters/agentPools",
        "properties": {
            "count": 1,
            "currentOrchestratorVersion": "1.33.2",
            "eTag": "3f0d4a0b-1f2c-4b4b-8f3a-0c7c9b7c8a55",
            "enableAutoScaling": False,
            "enableFIPS": False,
            "kubeletDiskType": "OS",
            "maxPods": 250,
            "mode": "User",
            "nodeImageVersion": "AKSUbuntu-2204gen2containerd-202607.02.0",
            "orchestratorVersion": "1.33.2",
            "osDiskSizeGB": 128,
            "osDiskType": "Managed",
            "osSKU": "Ubuntu",
            "osType": "Linux",
            "powerState": {"code": "Running"},
            "provisioningState": state,
            "scaleDownMode": "Delete",
            "securityProfile": {"enableSecureBoot": False, "enableVTPM": False},
            "type": "VirtualMachineScaleSets",
            "upgradeSettings": {"maxSurge": "10%", "maxUnavailable": "0"},
            "vmSize": "Standard_NC6s_v3",
            **more,
        },
    }


SPOT = {
    "nodeLabels": {"kubernetes.azure.com/scalesetpriority": "spot"},
    "nodeTaints": ["kubernetes.azure.com/scalesetpriority=spot:NoSchedule"],
    "scaleSetEvictionPolicy": "Delete",
    "scaleSetPriority": "Spot",
    "spotMaxPrice": -1.0,
}

READS = {"x-ms-ratelimit-remaining-subscription-global-reads": "16499"}
WRITES = {
    "x-ms-ratelimit-remaining-subscription-writes": "799",
    "x-ms-ratelimit-remaining-subscription-global-writes": "11999",
}
BOTH = {"Azure-AsyncOperation": f"{{url}}{OPERATION}", "Location": f"{{url}}{RESULT}"}
TIMES = {"startTime": "2025-03-17T08:12:15.1234567Z"}
FIRST_PAGE = {
    "value": [pool("Succeeded")],
    "nextLink": f"{{url}}{CLUSTER}/agentPools?%24skipToken=100&api-version=2025-04-01&skipToken=100",
}

SHAPES: tuple[Shape, ...] = (
    Shape("list", "R2", "GET", f"{CLUSTER}/agentPools", 200, FIRST_PAGE, READS),
    Shape("list-second-page", "R2", "GET", f"{CLUSTER}/agentPools?skipToken", 200, {"value": []}, READS),
    Shape("pool", "R1", "GET", POOL, 200, pool("Succeeded"), READS),
    Shape(
        "create",
        "R3",
        "PUT",
        POOL,
        201,
        pool("Creating"),
        {"Azure-AsyncOperation": BOTH["Azure-AsyncOperation"], **WRITES},
    ),
    Shape(
        "create-spot",
        "R2",
        "PUT",
        POOL,
        201,
        pool("Creating", **SPOT),
        {"Azure-AsyncOperation": BOTH["Azure-AsyncOperation"], **WRITES},
    ),
    Shape("delete", "R8", "DELETE", POOL, 202, None, BOTH),
    Shape("delete-absent", "S1", "DELETE", POOL, 204),
    Shape("abort", "R4", "POST", f"{POOL}/abort", 202, pool("Canceling"), BOTH),
    Shape("running", "R3", "GET", OPERATION, 200, {"name": OPERATION_ID, "status": "InProgress", **TIMES}, READS),
    Shape(
        "succeeded",
        "R3",
        "GET",
        OPERATION,
        200,
        {"name": OPERATION_ID, "status": "Succeeded", **TIMES, "endTime": "2025-03-17T08:15:50Z"},
        READS,
    ),
    Shape("result-running", "R4", "GET", RESULT, 202, None, {"Location": BOTH["Location"]}),
    Shape("result", "R4", "GET", RESULT, 204),
    Shape(
        "failed",
        "I",
        "GET",
        OPERATION,
        200,
        {
            "name": OPERATION_ID,
            "status": "Failed",
            **TIMES,
            "endTime": "2025-03-17T08:15:50Z",
            "error": {
                "code": "ReconcileVMSSAgentPoolFailed",
                "message": 'Code="AllocationFailed" Message="Allocation failed."',
            },
        },
        READS,
    ),
    Shape(
        "failed-pool",
        "S4",
        "GET",
        POOL,
        200,
        pool("Failed", status={"provisioningError": {"code": "SkuNotAvailable", "message": "Capacity Restrictions"}}),
        READS,
    ),
    Shape(
        "usages",
        "R7",
        "GET",
        f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/locations/eastus/usages",
        200,
        {
            "value": [
                {
                    "limit": 100,
                    "unit": "Count",
                    "currentValue": 0,
                    "name": {"value": "lowPriorityCores", "localizedValue": "Total Regional Low-priority vCPUs"},
                },
                {
                    "limit": 100,
                    "unit": "Count",
                    "currentValue": 0,
                    "name": {"value": "cores", "localizedValue": "Total Regional vCPUs"},
                },
            ]
        },
        READS,
    ),
)


def _flat(code: str, target: str = "") -> dict[str, Any]:
    body: dict[str, Any] = {"code": code, "details": None, "message": "words", "subcode": ""}
    return body | ({"target": target} if target else {})


def _nested(code: str, **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": "words", **more}}


REFUSALS: Mapping[str, tuple[int, dict[str, Any], str]] = {
    "quota": (400, _flat("ErrCode_InsufficientVCPUQuota", "agentPoolProfile.vmSize"), "QuotaExceeded"),
    "quota-regional": (400, _flat("ErrCode_InsufficientVCPUQuota", "agentPoolProfile.vmSize"), "QuotaExceeded"),
    "quota-conflict": (409, _nested("OperationNotAllowed"), "QuotaExceeded"),
    "quota-details": (400, _nested("QuotaExceeded", details=[{"code": "x", "message": "y"}]), "QuotaExceeded"),
    "sku": (400, _flat("BadRequest", "agentPoolProfile.vmSize"), "InstanceTypeUnavailable"),
    "size-not-supported": (400, _flat("VMSizeNotSupported"), "InstanceTypeUnavailable"),
    "zone-not-supported": (
        400,
        _flat("AvailabilityZoneNotSupported", "agentPoolProfile.availabilityZone"),
        "InstanceTypeUnavailable",
    ),
    "busy": (409, _nested("OperationNotAllowed"), "Busy"),
    "busy-cluster": (409, _nested("OperationNotAllowed"), "Busy"),
    "busy-creating": (409, _nested("OperationNotAllowed"), "Busy"),
    "throttled": (429, _flat("Throttled"), "Throttled"),
    "throttled-by-arm": (429, _nested("SubscriptionRequestsThrottled"), "Throttled"),
    "unauthorized": (403, _nested("AuthorizationFailed"), "AccessDenied"),
    "policy": (403, _nested("RequestDisallowedByPolicy", target="ws1"), "InvalidRequest"),
    "locked-read-only": (409, _nested("ScopeLocked"), "InvalidRequest"),
    "exists": (412, _nested("PreconditionFailed"), "AlreadyExists"),
    "cluster-gone": (404, _nested("ResourceNotFound"), "ClusterMissing"),
}
"""Answers to a PUT by the name of the simulator's fault: status, shape of the body, and the provider's verdict."""

FAILURES: Mapping[str, str] = {
    "quota-pool": "QuotaExceeded",
    "capacity": "InsufficientCapacity",
    "zonal-capacity": "InsufficientCapacity",
    "overconstrained": "InsufficientCapacity",
    "overconstrained-zonal": "InsufficientCapacity",
    "sku-not-available": "InsufficientCapacity",
    "throttled-pool": "Throttled",
    "canceled": "OperationCanceled",
    "extension": "OperationFailed",
    "subnet-full": "InvalidRequest",
    "internal": "OperationFailed",
}
"""Verdicts on a pool that was accepted and ended badly, by the name of the simulator's fault."""
