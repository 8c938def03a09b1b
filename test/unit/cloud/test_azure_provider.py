"""The Azure provider with the SDK and the simulator, without sockets, in virtual time."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from kaito.cloud.azure.provider import AzureProvider
from kaito.cloud.azure.settings import AzureSettings
from kaito.cloud.azure.simulator import Fault, Simulator, SimulatorSettings, named
from kaito.cloud.azure.simulator.inprocess import InProcessTransport
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
    QuotaExceeded,
    Throttled,
)
from kaito.cloud.metrics import CloudMetrics
from kaito.cloud.provider import InstanceOwner, InstanceSpec, OperationStatus
from kaito.runtime.clock import LoopClock, monotonic

pytestmark = pytest.mark.virtual_time

ENDPOINT = "http://simulator"
A100 = "Standard_NC24ads_A100_v4"
OWNER = InstanceOwner("uid-1", "NodeClaim", "ws1", "cluster-1")
SPEC = InstanceSpec(name="ws1", instance_type=A100, owner=OWNER, disk_gib=1024, labels={"kaito.sh/workspace": "phi"})


NODE_ID = (
    "azure:///subscriptions/s/resourceGroups/MC_a/providers/Microsoft.Compute/virtualMachineScaleSets"
    "/aks-ws1-12345678-vmss/virtualMachines/0"
)


def settings(**changes: Any) -> AzureSettings:
    values: dict[str, Any] = {
        "subscription_id": SimulatorSettings().subscription_id,
        "resource_group": "kaito",
        "cluster": "kaito",
        "endpoint": ENDPOINT,
        "credential_mode": "fake",
        **changes,
    }
    return AzureSettings(**values)


def provider_for(simulator: Simulator, **changes: Any) -> AzureProvider:
    return AzureProvider(settings(**changes), CloudMetrics(), transport=InProcessTransport(simulator.api))


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorSettings(provision_seconds=300), clock=LoopClock()) as simulator:
        yield simulator


@pytest.fixture
async def azure(simulator: Simulator) -> AsyncIterator[AzureProvider]:
    provider = provider_for(simulator)
    yield provider
    await provider.close()


async def finish(azure: AzureProvider, operation: str) -> OperationStatus:
    progress = await azure.operation_status(operation)
    for _ in range(1000):
        if progress.state != "running":
            break
        await asyncio.sleep(progress.retry_after or 30)
        progress = await azure.operation_status(operation)
    return progress


async def test_creation_returns_at_once_and_is_polled(azure: AzureProvider) -> None:
    started = await azure.create(SPEC)
    assert monotonic() == 0, "create does not wait for the instance"
    assert started.retry_after is None, "as recorded, AKS sends no Retry-After"
    instance = await azure.get("ws1")
    assert instance is not None
    assert (instance.state, instance.owner, instance.instance_type) == ("creating", OWNER, A100)
    assert instance.labels == {"kaito.sh/workspace": "phi"}

    assert (await finish(azure, started.status_url)).state == "succeeded"
    assert monotonic() == 300
    ready = await azure.get("ws1")
    assert ready is not None
    assert ready.state == "ready"


async def test_deletion_returns_at_once_and_removes_the_pool(azure: AzureProvider) -> None:
    await finish(azure, (await azure.create(SPEC)).status_url)
    started = await azure.delete("ws1")
    assert started is not None
    deleting = await azure.get("ws1")
    assert deleting is not None
    assert deleting.state == "deleting"
    assert (await finish(azure, started.status_url)).state == "succeeded"
    assert await azure.get("ws1") is None
    assert await azure.delete("ws1") is None
    assert await azure.list() == []


@pytest.mark.parametrize("status", [204, 404])
async def test_deletion_of_a_missing_pool_returns_none(status: int) -> None:
    async with Simulator(SimulatorSettings(delete_gone_status=status), clock=LoopClock()) as simulator:
        azure = provider_for(simulator)
        assert await azure.delete("ws1") is None
        assert await azure.get("ws1") is None


async def test_existing_pool_is_never_changed(azure: AzureProvider, simulator: Simulator) -> None:
    simulator.cluster.put("ws1", {"properties": {"vmSize": "Standard_D2s_v5"}})
    with pytest.raises(AlreadyExists):
        await azure.create(SPEC)
    foreign = await azure.get("ws1")
    assert foreign is not None
    assert (foreign.owner, foreign.instance_type) == (None, "Standard_D2s_v5")


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("quota", QuotaExceeded, "Insufficient vcpu quota requested 24, remaining 0"),
        ("quota-nested", QuotaExceeded, "Current Limit: 24, Current Usage: 24, Additional Required: 24"),
        ("sku", InstanceTypeUnavailable, "not allowed in your subscription"),
        ("unauthorized", AccessDenied, "does not have authorization"),
        ("throttled", Throttled, "being throttled"),
        ("server-error", CloudUnavailable, "Internal server error"),
        ("busy", Busy, "is in progress"),
        ("drop", CloudUnavailable, "Connection aborted"),
    ],
)
async def test_rejected_creation_raises_the_type_of_the_error(
    azure: AzureProvider, simulator: Simulator, fault: str, kind: type[CloudError], words: str
) -> None:
    simulator.faults.add(named(fault, method="PUT", times=None))
    with pytest.raises(kind, match=words):
        await azure.create(SPEC)
    if fault != "drop":
        assert len([r for r in simulator.api.requests if r.method == "PUT"]) <= 1, (
            "the work queue retries errors, not the SDK"
        )


async def test_invalid_name_is_an_invalid_request(azure: AzureProvider) -> None:
    with pytest.raises(InvalidRequest, match="invalid"):
        await azure.create(replace(SPEC, name="Bad-Name"))
    assert azure.name_error("ws0123456789a") is not None
    assert azure.name_error("ws1") is None


async def test_request_without_a_response_times_out(azure: AzureProvider, simulator: Simulator) -> None:
    simulator.faults.add(named("hang", times=None))
    with pytest.raises(CloudUnavailable, match="no response from Azure within 60 seconds"):
        await azure.get("ws1")
    assert monotonic() == 60


async def test_unreadable_response_is_unavailable(azure: AzureProvider, simulator: Simulator) -> None:
    await azure.create(SPEC)
    simulator.faults.add(Fault(method="GET", path="/agentPools", times=None, truncate=True))
    with pytest.raises(CloudUnavailable):
        await azure.get("ws1")


async def test_accepted_put_without_a_response_creates_the_pool(azure: AzureProvider, simulator: Simulator) -> None:
    simulator.faults.add(named("accepted-then-dropped"))
    with pytest.raises((CloudUnavailable, AlreadyExists)):
        await azure.create(SPEC)
    instance = await azure.get("ws1")
    assert instance is not None
    assert instance.owner == OWNER


@pytest.mark.parametrize(
    ("fault", "state", "kind"),
    [("capacity", "failed", InsufficientCapacity), ("canceled", "canceled", OperationCanceled)],
)
async def test_failed_operation_has_its_error(
    azure: AzureProvider, simulator: Simulator, fault: str, state: str, kind: type[CloudError]
) -> None:
    simulator.faults.add(named(fault))
    progress = await finish(azure, (await azure.create(SPEC)).status_url)
    assert progress.state == state
    assert isinstance(progress.error, kind)
    pool = await azure.get("ws1")
    assert pool is not None
    assert (pool.state, type(pool.error)) == (state, kind), "the pool has the error as well"


async def test_lost_operation_is_not_a_missing_pool(azure: AzureProvider, simulator: Simulator) -> None:
    simulator.faults.add(named("status-lost"))
    started = await azure.create(SPEC)
    assert (await azure.operation_status(started.status_url)).state == "lost"
    assert await azure.get("ws1") is not None
    assert (await azure.operation_status("")).state == "lost"


async def test_token_is_sent_to_the_endpoint_only(azure: AzureProvider, simulator: Simulator) -> None:
    for url in (
        "https://evil.example/operations/1",
        "http://simulator.evil.example/operations/1",
        "http://simulator/subscriptions/s/providers/Microsoft.Compute/skus",
    ):
        assert (await azure.operation_status(url)).state == "lost"
    assert not simulator.api.requests
    with pytest.raises(ValidationError, match="only sent encrypted"):
        settings(credential_mode="workload")


async def test_missing_cluster_is_not_a_missing_pool(simulator: Simulator) -> None:
    azure = provider_for(simulator, cluster="other")
    with pytest.raises(ClusterMissing):
        await azure.get("ws1")
    with pytest.raises(ClusterMissing):
        await azure.create(SPEC)
    with pytest.raises(ClusterMissing):  # with None, the claim would lose its finalizer, and the pool its owner
        await azure.delete("ws1")
    with pytest.raises(ClusterMissing):
        await provider_for(simulator, resource_group="other").get("ws1")


async def test_instance_type_is_checked_before_creation(azure: AzureProvider, simulator: Simulator) -> None:
    await azure.check_availability(SPEC)
    with pytest.raises(InstanceTypeUnavailable, match="Standard_Imaginary is not offered in eastus"):
        await azure.check_availability(replace(SPEC, instance_type="Standard_Imaginary"))
    simulator.cluster.catalog.restrict("Standard_NC6s_v3")
    await asyncio.sleep(13 * 3600)
    with pytest.raises(InstanceTypeUnavailable, match="NotAvailableForSubscription"):
        await azure.check_availability(replace(SPEC, instance_type="Standard_NC6s_v3"))
    size = await azure.instance_type(A100.lower())
    assert size is not None
    assert (size.name, size.gpus, size.vcpus) == (A100, 1, 24)


async def test_quota_is_checked_and_read_again(azure: AzureProvider, simulator: Simulator) -> None:
    simulator.cluster.quota["standardncadsa100v4family"] = 12
    with pytest.raises(QuotaExceeded, match=r"needs 24 vCPUs of quota StandardNCADSA100v4Family.*limit 12, in use 0"):
        await azure.check_availability(SPEC)
    simulator.cluster.quota["standardncadsa100v4family"] = 24
    await asyncio.sleep(30)
    await azure.check_availability(SPEC)
    simulator.cluster.quota["cores"] = 1
    await asyncio.sleep(30)
    with pytest.raises(QuotaExceeded, match="quota cores"):
        await azure.check_availability(SPEC)


async def test_check_passes_without_permission_to_read_instance_types(
    azure: AzureProvider, simulator: Simulator
) -> None:
    simulator.faults.add(named("unauthorized", path="/skus", times=None))
    await azure.check_availability(replace(SPEC, instance_type="Standard_Imaginary"))
    assert await azure.instance_type(A100) is None


async def test_instance_types_are_read_once_for_many_checks(azure: AzureProvider, simulator: Simulator) -> None:
    await asyncio.gather(*(azure.check_availability(SPEC) for _ in range(20)))
    assert len([entry for entry in simulator.api.requests if entry.path.endswith("/skus")]) == 1
    assert len([entry for entry in simulator.api.requests if entry.path.endswith("/usages")]) == 1


@pytest.mark.parametrize(
    ("provider_id", "pool"),
    [
        (NODE_ID, "ws1"),
        (NODE_ID.lower(), "ws1"),
        ("azure:///subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/plain", None),
        ("aws:///us-west-2a/i-0", None),
        ("", None),
    ],
)
def test_pool_is_parsed_from_the_provider_id(provider_id: str, pool: str | None) -> None:
    azure = AzureProvider(settings(), CloudMetrics())
    assert azure.instance_name(provider_id) == pool


async def test_spot_zones_and_image_family_are_set_on_the_pool(azure: AzureProvider, simulator: Simulator) -> None:
    await azure.create(
        replace(SPEC, spot=True, zones=("3",), image_family="azurelinux", taints=("sku=gpu:NoSchedule",))
    )
    properties = simulator.cluster.pools["ws1"].properties
    assert properties["scaleSetPriority"] == "Spot"
    assert properties["spotMaxPrice"] == -1
    assert properties["availabilityZones"] == ["3"]
    assert properties["osSKU"] == "AzureLinux"
    assert properties["nodeTaints"] == ["sku=gpu:NoSchedule", "kubernetes.azure.com/scalesetpriority=spot:NoSchedule"]
    assert properties["osDiskSizeGB"] == 1024
    assert properties["count"] == 1
    assert properties["type"] == "VirtualMachineScaleSets"
    assert properties["mode"] == "User"


async def test_subnet_of_the_cluster_is_read_once_and_used(azure: AzureProvider, simulator: Simulator) -> None:
    system = {"vmSize": "Standard_D2s_v5", "mode": "System", "vnetSubnetID": "/subnets/nodes"}
    simulator.cluster.put("system", {"properties": system})
    await azure.create(SPEC)
    await azure.create(replace(SPEC, name="ws2"))
    assert simulator.cluster.pools["ws1"].properties["vnetSubnetID"] == "/subnets/nodes"
    lists = [entry for entry in simulator.api.requests if entry.path.lower().endswith("/agentpools")]
    assert len(lists) == 2, "one list of two pages, the second of which is empty"


async def test_deletion_ignores_disruption_budgets(azure: AzureProvider, simulator: Simulator) -> None:
    await finish(azure, (await azure.create(SPEC)).status_url)
    await azure.delete("ws1")
    assert simulator.api.requests[-1].query["ignore-pod-disruption-budget"] == "true"
