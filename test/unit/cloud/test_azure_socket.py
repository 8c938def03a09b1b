"""The Azure provider over a socket, in real time."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from kaito.cloud.azure.provider import AzureProvider
from kaito.cloud.azure.settings import AzureSettings
from kaito.cloud.azure.simulator import Simulator, SimulatorSettings
from kaito.cloud.azure.simulator.server import serve
from kaito.cloud.metrics import CloudMetrics
from kaito.cloud.provider import InstanceOwner, InstanceSpec


async def finished(azure: AzureProvider, operation: str) -> None:
    for _ in range(200):
        if (await azure.operation_status(operation)).state != "running":
            return
        await asyncio.sleep(0.02)
    pytest.fail("the operation did not end")


async def test_pool_is_created_and_deleted_over_http_and_requests_are_counted() -> None:
    registry, metrics = CollectorRegistry(), CloudMetrics()
    metrics.register(registry)
    async with (
        Simulator(SimulatorSettings(speed=3000, retry_after_seconds=0)) as simulator,
        serve(simulator) as url,
    ):
        azure = AzureProvider(
            AzureSettings(
                subscription_id=simulator.settings.subscription_id,
                resource_group="kaito",
                cluster="kaito",
                endpoint=url,
                credential_mode="fake",
            ),
            metrics,
        )
        marker = InstanceOwner("uid", "Machine", "ws1", "here")
        plan = InstanceSpec(name="ws1", instance_type="Standard_NC6s_v3", owner=marker, disk_gib=100)
        await azure.check_availability(plan)
        started = await azure.create(plan)
        await finished(azure, started.status_url)
        (instance,) = await azure.list()
        assert (instance.state, instance.owner) == ("ready", marker)
        removed = await azure.delete("ws1")
        assert removed is not None
        await finished(azure, removed.status_url)
        assert await azure.get("ws1") is None
        await azure.close()
    assert registry.get_sample_value("gpu_provisioner_arm_requests_total", {"op": "create", "code": "ok"}) == 1
    assert registry.get_sample_value("gpu_provisioner_quota_remaining", {"family": "cores"}) == 100_000
