"""The Azure SDK with the simulator, over a socket and without one."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError, ServiceResponseError
from azure.mgmt.compute.aio import ComputeManagementClient
from azure.mgmt.containerservice.aio import ContainerServiceClient
from azure.mgmt.containerservice.models import (
    AgentPool,
    AgentPoolManagedClusterAgentPoolProfileProperties as Properties,
)

from kaito.cloud.azure.credential import FakeCredential, FakeTokenPolicy
from kaito.cloud.azure.simulator import Fault, OperationFault, Simulator, SimulatorSettings, named
from kaito.cloud.azure.simulator.inprocess import InProcessTransport
from kaito.cloud.azure.simulator.server import serve

A100 = "Standard_NC24ads_A100_v4"
CLUSTER = ("kaito", "kaito")
SETTINGS = SimulatorSettings(speed=3000, retry_after_seconds=0)


@dataclass
class Azure:
    """The simulator and both SDK clients pointed at it."""

    simulator: Simulator
    containers: ContainerServiceClient
    compute: ComputeManagementClient
    url: str

    async def create(self, name: str, size: str = A100, **options: Any) -> AgentPool:
        properties = Properties(
            count=1,
            vm_size=size,
            os_type="Linux",
            os_sku="Ubuntu",
            type_properties_type="VirtualMachineScaleSets",
            os_disk_size_gb=128,
        )
        poller = await self.containers.agent_pools.begin_create_or_update(
            *CLUSTER, name, AgentPool(properties=properties), **options
        )
        return await poller.result()


@pytest.fixture(params=["socket", "in-process"])
async def azure(request: pytest.FixtureRequest) -> AsyncIterator[Azure]:
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(SETTINGS))
        options: dict[str, Any] = {
            "authentication_policy": FakeTokenPolicy(),
            "credential_scopes": ["none"],
            "polling_interval": 0.01,
            "retry_total": 0,
        }
        url = await stack.enter_async_context(serve(simulator))
        if request.param == "in-process":
            options["transport"] = InProcessTransport(simulator.api)
        subscription = SETTINGS.subscription_id
        containers = await stack.enter_async_context(
            ContainerServiceClient(FakeCredential(), subscription, base_url=url, **options)
        )
        compute = await stack.enter_async_context(
            ComputeManagementClient(FakeCredential(), subscription, base_url=url, **options)
        )
        yield Azure(simulator, containers, compute, url)


async def test_pool_is_created_read_listed_and_deleted(azure: Azure) -> None:
    created = await azure.create("ws1")
    assert created.properties is not None
    assert created.properties.provisioning_state == "Succeeded"
    assert created.properties.vm_size == A100

    read = await azure.containers.agent_pools.get(*CLUSTER, "ws1")
    assert read.id is not None
    assert read.id.endswith("/agentPools/ws1")
    assert [pool.name async for pool in azure.containers.agent_pools.list(*CLUSTER)] == ["ws1"]

    poller = await azure.containers.agent_pools.begin_delete(*CLUSTER, "ws1")
    await poller.result()
    with pytest.raises(ResourceNotFoundError) as gone:
        await azure.containers.agent_pools.get(*CLUSTER, "ws1")
    assert gone.value.error is not None
    assert gone.value.error.code == "NotFound"


async def test_resource_is_polled_without_the_operation_header(azure: Azure) -> None:
    azure.simulator.cluster.settings = SETTINGS.model_copy(update={"operation_header": False})
    created = await azure.create("ws1")
    assert created.properties is not None
    assert created.properties.provisioning_state == "Succeeded"


async def test_if_none_match_rejects_an_existing_pool(azure: Azure) -> None:
    await azure.create("ws1")
    with pytest.raises(ResourceExistsError) as refused:
        await azure.create("ws1", etag="*", match_condition=MatchConditions.IfMissing)
    assert refused.value.status_code == 412


async def test_failed_operation_has_a_code_and_leaves_a_failed_pool(azure: Azure) -> None:
    azure.simulator.faults.add(named("capacity", pool="ws1"))
    with pytest.raises(HttpResponseError) as failed:
        await azure.create("ws1")
    assert failed.value.error is not None
    assert failed.value.error.code == "ReconcileVMSSAgentPoolFailed"
    assert "AllocationFailed" in failed.value.message
    pool = await azure.containers.agent_pools.get(*CLUSTER, "ws1")
    assert pool.properties is not None
    assert pool.properties.provisioning_state == "Failed"
    assert pool.properties.status is not None
    assert pool.properties.status.provisioning_error is not None


async def test_lost_status_url_is_not_a_missing_pool(azure: Azure) -> None:
    azure.simulator.faults.add(named("status-lost"))
    with pytest.raises(HttpResponseError) as lost:
        await azure.create("ws1")
    assert lost.value.status_code == 404
    assert not isinstance(lost.value, ResourceNotFoundError)


async def test_operation_may_succeed_while_the_pool_fails(azure: Azure) -> None:
    azure.simulator.faults.add(named("succeeded-but-failed"))
    created = await azure.create("ws1")
    assert created.properties is not None
    assert created.properties.provisioning_state == "Failed"


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("quota", 400, "ErrCode_InsufficientVCPUQuota"),
        ("quota-nested", 400, "InvalidTemplateDeployment"),
        ("sku", 400, "BadRequest"),
        ("unauthorized", 403, "AuthorizationFailed"),
        ("throttled", 429, "Throttled"),
        ("server-error", 500, "InternalOperationError"),
        ("busy", 409, "OperationNotAllowed"),
    ],
)
async def test_sdk_parses_injected_errors(azure: Azure, fault: str, status: int, code: str) -> None:
    azure.simulator.faults.add(named(fault))
    with pytest.raises(HttpResponseError) as refused:
        await azure.create("ws1")
    assert refused.value.status_code == status
    assert refused.value.error is not None
    assert refused.value.error.code == code
    assert (await azure.create("ws1")).name == "ws1", "the fault applies once"


async def test_dropped_connection_after_acceptance_creates_the_pool(azure: Azure) -> None:
    azure.simulator.faults.add(named("accepted-then-dropped"))
    # aiohttp repeats an idempotent request once after a lost connection; the repetition finds the created pool.
    with pytest.raises((ServiceResponseError, ResourceExistsError)):
        await azure.create("ws1")
    assert [pool.name async for pool in azure.containers.agent_pools.list(*CLUSTER)] == ["ws1"]


async def test_missing_response_ends_with_the_timeout_of_the_client(azure: Azure) -> None:
    azure.simulator.faults.add(Fault(method="GET", pool="ws1", hang=True))
    with pytest.raises(ServiceResponseError):
        await azure.containers.agent_pools.get(*CLUSTER, "ws1", read_timeout=0.05)


async def test_invalid_names_and_sizes_are_rejected(azure: Azure) -> None:
    with pytest.raises(HttpResponseError) as bad_name:
        await azure.create("Not-A-Pool")
    assert bad_name.value.error is not None
    assert bad_name.value.error.code == "InvalidParameter"
    with pytest.raises(HttpResponseError) as bad_size:
        await azure.create("ws1", "Standard_Imaginary")
    assert "not allowed in your subscription in location 'eastus'" in bad_size.value.message


async def test_quota_counts_all_pools(azure: Azure) -> None:
    azure.simulator.cluster.quota["standardncadsa100v4family"] = 24
    await azure.create("ws1")
    with pytest.raises(HttpResponseError) as refused:
        await azure.create("ws2")
    assert "requested 24, remaining 0 for family StandardNCADSA100v4Family" in refused.value.message
    usages = {usage.name.value: usage async for usage in azure.compute.usage.list("eastus")}
    assert usages["StandardNCADSA100v4Family"].current_value == 24
    assert usages["StandardNCADSA100v4Family"].limit == 24


async def test_missing_capacity_fails_the_operation(azure: Azure) -> None:
    azure.simulator.cluster.capacity[A100.lower()] = 1
    await azure.create("ws1")
    with pytest.raises(HttpResponseError, match="AllocationFailed"):
        await azure.create("ws2")


async def test_skus_have_gpus_and_restrictions(azure: Azure) -> None:
    azure.simulator.cluster.catalog.restrict("Standard_NC6s_v3")
    skus = {sku.name: sku async for sku in azure.compute.resource_skus.list(filter="location eq 'eastus'")}
    capabilities = {entry.name: entry.value for entry in skus[A100].capabilities or []}
    assert (capabilities["GPUs"], capabilities["vCPUs"], capabilities["MemoryGB"]) == ("1", "24", "220")
    assert skus["Premium_LRS"].resource_type == "disks"
    assert [r.reason_code for r in skus["Standard_NC6s_v3"].restrictions or []] == ["NotAvailableForSubscription"]
    assert [sku async for sku in azure.compute.resource_skus.list(filter="location eq 'mars'")] == []


async def test_cluster_has_a_location_and_a_node_resource_group(azure: Azure) -> None:
    cluster = await azure.containers.managed_clusters.get(*CLUSTER)
    assert cluster.location == "eastus"
    assert cluster.properties is not None
    assert cluster.properties.node_resource_group == "MC_kaito_kaito_eastus"
    with pytest.raises(ResourceNotFoundError):
        await azure.containers.managed_clusters.get("kaito", "other")


async def test_two_operations_on_one_pool_conflict(azure: Azure) -> None:
    azure.simulator.faults.add(Fault(method="PUT", operation=OperationFault(end="never")))
    poller = await azure.containers.agent_pools.begin_create_or_update(
        *CLUSTER,
        "ws1",
        AgentPool(properties=Properties(count=1, vm_size=A100)),
        polling=False,
    )
    assert (await poller.result()).name == "ws1"
    with pytest.raises(ResourceExistsError, match="is in progress"):
        await azure.create("ws1")


async def test_admin_api_changes_the_simulator(azure: Azure) -> None:
    async with aiohttp.ClientSession(azure.url) as http:
        assert (await http.post("/__admin/faults", json={"named": "throttled", "times": 1})).status == 201
        assert (await http.post("/__admin/faults", json={"named": "earthquake"})).status == 400
        with pytest.raises(HttpResponseError) as throttled:
            await azure.create("ws1")
        assert throttled.value.status_code == 429
        assert vars(throttled.value)["response"].headers["Retry-After"] == "5"
        await http.put("/__admin/quota", json={"StandardNCADSA100v4Family": 0})
        with pytest.raises(HttpResponseError, match="Insufficient vcpu quota"):
            await azure.create("ws1")
        await http.put("/__admin/quota", json={"StandardNCADSA100v4Family": None})
        assert (await http.put("/__admin/pools/foreign", json={"vmSize": "Standard_D2s_v5"})).status == 201
        state = await (await http.get("/__admin/state")).json()
        assert [pool["name"] for pool in state["pools"]] == ["foreign"]
        log = await (await http.get("/__admin/requests")).json()
        assert [entry["status"] for entry in log if entry["method"] == "PUT"] == [429, 400]
        await http.post("/__admin/reset")
        assert (await (await http.get("/__admin/state")).json())["pools"] == []


async def test_request_without_a_token_is_rejected(azure: Azure) -> None:
    async with aiohttp.ClientSession(azure.url) as http:
        path = f"/subscriptions/{SETTINGS.subscription_id}/providers/Microsoft.Compute/skus"
        assert (await http.get(f"{path}?api-version=2021-07-01")).status == 401
        bad = await http.get(path, headers={"Authorization": "Bearer x"})
        assert (await bad.json())["error"]["code"] == "MissingApiVersionParameter"
