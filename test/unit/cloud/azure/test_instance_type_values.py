"""What the list of SKUs and the quota allow: one field of a response at a time, from a size that has no restriction."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from kaito.cloud.azure.provider import AzureProvider
from kaito.cloud.azure.settings import AzureSettings
from kaito.cloud.azure.simulator.http import ArmRequest, ArmResponse
from kaito.cloud.azure.simulator.inprocess import InProcessTransport
from kaito.cloud.errors import (
    AccessDenied,
    CloudUnavailable,
    ErrorCategory as Category,
    InstanceTypeUnavailable,
    QuotaExceeded,
)
from kaito.cloud.metrics import CloudMetrics
from kaito.cloud.provider import InstanceOwner, InstanceSpec, InstanceType

pytestmark = pytest.mark.virtual_time

NAME = "Standard_NC24ads_A100_v4"
FAMILY = "standardNCADSA100v4Family"
SPEC = InstanceSpec(
    name="ws1", instance_type=NAME, owner=InstanceOwner("uid", "NodeClaim", "ws1", "here"), disk_gib=100
)
NONE: list[Any] = []
UNCHANGED: dict[str, Any] = {}
SKU: dict[str, Any] = {
    "resourceType": "virtualMachines",
    "name": NAME,
    "family": FAMILY,
    "locations": ["eastus"],
    "locationInfo": [{"location": "EastUS", "zones": ["3", "1"]}, {"location": "westus", "zones": ["9"]}],
    "capabilities": [
        {"name": "vCPUs", "value": "24"},
        {"name": "MemoryGB", "value": "220"},
        {"name": "GPUs", "value": "1"},
        {"name": "CpuArchitectureType", "value": "x64"},
        {"name": "LowPriorityCapable", "value": "True"},
    ],
    "restrictions": NONE,
}


class Azure:
    """Azure as far as a check reads it: the region of the cluster, SKUs and usage."""

    def __init__(self, *skus: dict[str, Any], usage: dict[str, tuple[int, int]] | None = None) -> None:
        self.skus = [*(skus or (SKU,))]
        self.usage = {FAMILY: (0, 100), "cores": (0, 100), "lowPriorityCores": (0, 100)} | (usage or {})
        self.status: dict[str, int] = {}
        self.requests: list[ArmRequest] = []

    async def handle(self, request: ArmRequest) -> ArmResponse:
        self.requests.append(request)
        kind = request.path.rpartition("/")[2].lower()
        if kind in self.status:
            return ArmResponse(self.status[kind], {"error": {"code": "X", "message": "x"}})
        if kind == "skus":
            return ArmResponse(200, {"value": self.skus})
        if kind == "usages":
            return ArmResponse(200, {"value": [self._usage(name, *amounts) for name, amounts in self.usage.items()]})
        if request.method == "PUT":
            return ArmResponse(201, {"name": "ws1", "properties": {"provisioningState": "Creating"}})
        if kind == "agentpools":
            return ArmResponse(200, {"value": []})
        return ArmResponse(200, {"name": "kaito", "location": "eastus"})

    @staticmethod
    def _usage(name: str, used: int, limit: int) -> dict[str, Any]:
        return {"name": {"value": name}, "currentValue": used, "limit": limit, "unit": "Count"}

    def count(self, kind: str) -> int:
        return sum(request.path.lower().endswith(kind) for request in self.requests)

    def provider(self, metrics: CloudMetrics | None = None, *, location: str = "eastus") -> AzureProvider:
        settings = AzureSettings(
            subscription_id="s",
            resource_group="g",
            cluster="kaito",
            location=location,
            endpoint="http://arm",
            credential_mode="fake",
        )
        return AzureProvider(settings, metrics or CloudMetrics(), transport=InProcessTransport(self))


def capable(**values: str | None) -> dict[str, Any]:
    """The SKU with some capabilities replaced; None removes."""
    found = {entry["name"]: entry["value"] for entry in SKU["capabilities"]} | values
    return SKU | {
        "capabilities": [{"name": name, "value": value} for name, value in found.items() if value is not None]
    }


def restricted(kind: str, *, locations: list[str], zones: list[str] | None = None, reason: str = "") -> dict[str, Any]:
    info = {"locations": locations, "zones": zones or []}
    entry = {"type": kind, "values": locations, "restrictionInfo": info, "reasonCode": reason}
    return SKU | {"restrictions": [entry]}


FOUND = InstanceType(
    name=NAME,
    vcpus=24,
    memory_gib=220,
    gpus=1,
    family=FAMILY,
    architecture="x64",
    zones=("1", "3"),
    spot=True,
    location="eastus",
)


@pytest.mark.parametrize(
    ("sku", "changes"),
    [
        (SKU, UNCHANGED),
        (capable(vCPUsAvailable="12"), {"vcpus": 12}),
        (capable(MemoryGB="3.5"), {"memory_gib": 3.5}),
        (capable(MemoryGB="many"), {"memory_gib": 0}),
        (capable(vCPUs=None), {"vcpus": 0}),
        (capable(GPUs=None), {"gpus": 0}),
        (capable(GPUs="8"), {"gpus": 8}),
        (capable(CpuArchitectureType="Arm64"), {"architecture": "Arm64"}),
        (capable(CpuArchitectureType=None), {"architecture": "x64"}),
        (capable(LowPriorityCapable="False"), {"spot": False}),
        (capable(LowPriorityCapable="false"), {"spot": False}),
        (capable(LowPriorityCapable=None), {"spot": True}),
        (SKU | {"family": None}, {"family": ""}),
        (SKU | {"locationInfo": NONE}, {"zones": None}),
        (SKU | {"locationInfo": [{"location": "westus", "zones": ["9"]}]}, {"zones": None}),
        (SKU | {"locationInfo": [{"location": "eastus", "zones": NONE}]}, {"zones": ()}),
        (restricted("Zone", locations=["eastus"], zones=["3"]), {"zones": ("1",)}),
    ],
)
async def test_every_field_of_an_instance_type_is_read(sku: dict[str, Any], changes: dict[str, Any]) -> None:
    azure = Azure(sku).provider()
    assert await azure.instance_type(NAME.upper()) == replace(FOUND, **changes)


async def test_only_sizes_of_virtual_machines_are_listed() -> None:
    server = Azure(SKU | {"resourceType": "disks"}, SKU | {"name": "Standard_NC6s_v3"})
    azure = server.provider()
    assert await azure.instance_type(NAME) is None
    assert await azure.instance_type("Standard_NC6s_v3") is not None
    (listed,) = (request for request in server.requests if request.path.endswith("/skus"))
    assert listed.query["$filter"] == "location eq 'eastus'"


@pytest.mark.parametrize(
    ("sku", "spec", "message", "code", "category"),
    [
        (
            SKU,
            replace(SPEC, instance_type="Standard_Other"),
            "the VM size Standard_Other is not offered in eastus",
            "SkuNotAvailable",
            Category.SIZE,
        ),
        (
            restricted("Location", locations=["EastUS"], reason="NotAvailableForSubscription"),
            SPEC,
            f"the VM size {NAME} is restricted in eastus: NotAvailableForSubscription",
            "SkuNotAvailable",
            Category.SIZE,
        ),
        (
            restricted("Location", locations=["eastus"]),
            SPEC,
            f"the VM size {NAME} is restricted in eastus: restricted",
            "SkuNotAvailable",
            Category.SIZE,
        ),
        (
            capable(LowPriorityCapable="False"),
            replace(SPEC, spot=True),
            f"the VM size {NAME} is not offered as spot capacity in eastus: use on-demand capacity",
            "SkuNotAvailable",
            Category.SIZE,
        ),
        (
            restricted("Zone", locations=["eastus"], zones=["1", "2"]),
            replace(SPEC, zones=("1",)),
            f"the VM size {NAME} is restricted in zone 1 of eastus",
            "SkuNotAvailable",
            Category.ZONE,
        ),
        (
            SKU,
            replace(SPEC, zones=("2", "4")),
            f"the VM size {NAME} is offered in zone 1, 3 of eastus, not in zone 2, 4",
            "AvailabilityZoneNotSupported",
            Category.ZONE,
        ),
        (
            SKU | {"locationInfo": [{"location": "eastus", "zones": NONE}]},
            replace(SPEC, zones=("1",)),
            f"the VM size {NAME} is offered only without a zone of eastus, not in zone 1",
            "AvailabilityZoneNotSupported",
            Category.ZONE,
        ),
    ],
)
async def test_an_instance_that_cannot_be_created_is_rejected_with_the_cause(
    sku: dict[str, Any], spec: InstanceSpec, message: str, code: str, category: Category
) -> None:
    with pytest.raises(InstanceTypeUnavailable) as caught:
        await Azure(sku).provider().check_availability(spec)
    assert (caught.value.message, caught.value.code, caught.value.category) == (message, code, category)


@pytest.mark.parametrize(
    ("sku", "spec"),
    [
        (SKU, SPEC),
        (SKU, replace(SPEC, spot=True)),
        (SKU, replace(SPEC, zones=("2", "3"))),
        (capable(LowPriorityCapable="False"), SPEC),
        (restricted("Location", locations=["westus"], reason="NotAvailableForSubscription"), SPEC),
        (restricted("Zone", locations=["eastus"], zones=["1"]), SPEC),
        (restricted("Zone", locations=["eastus"], zones=["1"]), replace(SPEC, zones=("1", "3"))),
        (SKU | {"locationInfo": NONE}, replace(SPEC, zones=("7",))),
        (SKU | {"locationInfo": [{"location": "eastus", "zones": NONE}]}, SPEC),
    ],
)
async def test_an_instance_that_can_be_created_is_accepted(sku: dict[str, Any], spec: InstanceSpec) -> None:
    await Azure(sku).provider().check_availability(spec)


@pytest.mark.parametrize(
    ("spec", "usage", "quota", "left", "regional"),
    [
        (SPEC, {FAMILY: (76, 100)}, "", 0, False),
        (SPEC, {FAMILY: (77, 100)}, FAMILY, 23, False),
        (SPEC, {FAMILY: (130, 100)}, FAMILY, 0, False),
        (SPEC, {"cores": (76, 100)}, "", 0, False),
        (SPEC, {"cores": (77, 100)}, "cores", 23, True),
        (SPEC, {"lowPriorityCores": (100, 100)}, "", 0, False),
        (replace(SPEC, spot=True), {"lowPriorityCores": (76, 100)}, "", 0, False),
        (replace(SPEC, spot=True), {"lowPriorityCores": (77, 100)}, "lowPriorityCores", 23, False),
        (replace(SPEC, spot=True), {FAMILY: (100, 100), "cores": (100, 100)}, "", 0, False),
    ],
)
async def test_an_instance_needs_as_many_vcpus_as_its_quota_has_left(
    spec: InstanceSpec, usage: dict[str, tuple[int, int]], quota: str, left: int, *, regional: bool
) -> None:
    azure = Azure(usage=usage).provider()
    if not quota:
        await azure.check_availability(spec)
        return
    with pytest.raises(QuotaExceeded) as caught:
        await azure.check_availability(spec)
    used, limit = usage[quota]
    assert caught.value.message == (
        f"{NAME} needs 24 vCPUs of quota {quota} in eastus: limit {limit}, in use {used}, left {left}"
    )
    assert (caught.value.code, caught.value.regional) == ("QuotaExceeded", regional)


async def test_a_quota_that_is_not_listed_is_not_checked() -> None:
    server = Azure()
    server.usage = {}
    await server.provider().check_availability(SPEC)


async def test_an_accepted_creation_counts_before_the_usage_is_read_again() -> None:
    server = Azure(usage={FAMILY: (52, 100)})
    azure = server.provider()
    await azure.check_availability(SPEC)
    await azure.create(SPEC)
    await azure.check_availability(SPEC)
    await azure.create(replace(SPEC, name="ws2"))
    with pytest.raises(QuotaExceeded, match="limit 100, in use 100, left 0"):
        await azure.check_availability(SPEC)
    await azure.check_availability(replace(SPEC, spot=True))
    assert server.count("/usages") == 1


@pytest.mark.parametrize(("seconds", "reads"), [(19, 1), (20, 2)])
async def test_usage_is_read_again_after_20_seconds(seconds: float, reads: int) -> None:
    server = Azure()
    azure = server.provider()
    await azure.check_availability(SPEC)
    await asyncio.sleep(seconds)
    await azure.check_availability(SPEC)
    assert server.count("/usages") == reads


@pytest.mark.parametrize(
    ("name", "seconds", "reads"),
    [
        (NAME, 12 * 3600, 1),
        (NAME, 12 * 3600 + 1, 2),
        ("Standard_Other", 300, 1),
        ("Standard_Other", 301, 2),
        (NAME, 301, 1),
    ],
)
async def test_instance_types_are_read_again_after_12_hours_and_missing_ones_after_5_minutes(
    name: str, seconds: float, reads: int
) -> None:
    server = Azure()
    azure = server.provider()
    await azure.instance_type(NAME)
    await asyncio.sleep(seconds)
    await azure.instance_type(name)
    assert server.count("/skus") == reads


@pytest.mark.parametrize(("seconds", "reads"), [(899, 1), (900, 2)])
async def test_a_missing_permission_is_tried_again_after_15_minutes(seconds: float, reads: int) -> None:
    server = Azure()
    server.status["skus"] = 403
    azure = server.provider()
    await azure.check_availability(SPEC)
    await asyncio.sleep(seconds)
    await azure.check_availability(SPEC)
    assert server.count("/skus") == reads


async def test_a_permission_that_was_granted_is_used() -> None:
    server = Azure(restricted("Location", locations=["eastus"], reason="NotAvailableForSubscription"))
    server.status["skus"] = 403
    azure = server.provider()
    await azure.check_availability(SPEC)
    server.status.clear()
    await asyncio.sleep(900)
    with pytest.raises(InstanceTypeUnavailable):
        await azure.check_availability(SPEC)


async def test_the_list_of_instance_types_is_needed_once_and_may_be_stale() -> None:
    server = Azure()
    server.status["skus"] = 503
    azure = server.provider()
    with pytest.raises(CloudUnavailable):
        await azure.check_availability(SPEC)
    server.status.clear()
    await azure.check_availability(SPEC)
    server.status["skus"] = 503
    await asyncio.sleep(13 * 3600)
    await azure.check_availability(SPEC)


async def test_usage_that_may_not_be_read_is_not_checked_and_other_failures_are_errors() -> None:
    server = Azure(usage={FAMILY: (100, 100)})
    azure = server.provider()
    server.status["usages"] = 403
    await azure.check_availability(SPEC)
    server.status["usages"] = 503
    await asyncio.sleep(20)
    with pytest.raises(CloudUnavailable):
        await azure.check_availability(SPEC)


async def test_the_region_is_read_from_the_cluster_once_if_it_is_not_configured() -> None:
    server = Azure()
    azure = server.provider(location="")
    await azure.check_availability(SPEC)
    await asyncio.sleep(13 * 3600)
    await azure.check_availability(SPEC)
    assert server.count("/managedclusters/kaito") == 1
    assert server.count("/locations/eastus/usages") == 2
    configured = Azure()
    await configured.provider().check_availability(SPEC)
    assert configured.count("/managedclusters/kaito") == 0


async def test_the_remaining_quota_and_the_results_of_requests_are_metrics() -> None:
    metrics, registry = CloudMetrics(), CollectorRegistry()
    metrics.register(registry)
    server = Azure(usage={FAMILY: (77, 100)})
    azure = server.provider(metrics)
    await azure.instance_type(NAME)
    server.status["usages"] = 401
    await azure.check_availability(SPEC)
    server.status.clear()
    await asyncio.sleep(20)
    with pytest.raises(QuotaExceeded):
        await azure.check_availability(SPEC)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert value("gpu_provisioner_quota_remaining", family=FAMILY) == 23
    assert value("gpu_provisioner_arm_requests_total", op="list_sizes", code="ok") == 1
    assert value("gpu_provisioner_arm_requests_total", op="list_usage", code="401") == 1
    assert value("gpu_provisioner_arm_requests_total", op="list_usage", code="ok") == 1
    errors = {"method": "list_usage", "provider": "azure", "error": AccessDenied.__name__}
    assert value("karpenter_cloudprovider_errors_total", **errors) == 1
    assert value("karpenter_cloudprovider_duration_seconds_count", method="list_sizes", provider="azure") == 1
