"""The fence: a former leader sends reads but no writes."""

import asyncio

import pytest
from aiohttp import web

from kaito.cloud.azure.provider import AzureProvider
from kaito.cloud.azure.settings import AzureSettings
from kaito.cloud.azure.simulator import Simulator, SimulatorSettings
from kaito.cloud.azure.simulator.inprocess import InProcessTransport
from kaito.cloud.azure.simulator.server import serve
from kaito.cloud.metrics import CloudMetrics
from kaito.cloud.provider import InstanceOwner, InstanceSpec
from kaito.runtime.errors import NotLeader

SPEC = InstanceSpec(
    name="ws1", instance_type="Standard_NC6s_v3", owner=InstanceOwner("uid", "Machine", "ws1", "here"), disk_gib=100
)


class Lease:
    """A fence that tests open and close."""

    def __init__(self) -> None:
        self.held = True
        self.checks = 0

    def check(self) -> None:
        self.checks += 1
        if not self.held:
            raise NotLeader("the lease is lost")


def settings(endpoint: str) -> AzureSettings:
    return AzureSettings(
        subscription_id=SimulatorSettings().subscription_id,
        resource_group="kaito",
        cluster="kaito",
        endpoint=endpoint,
        credential_mode="fake",
    )


@pytest.mark.parametrize("sockets", [False, True], ids=["in-process", "sockets"])
async def test_write_without_the_lease_is_not_sent(sockets: bool) -> None:
    lease = Lease()
    async with Simulator(SimulatorSettings(speed=3000)) as simulator, serve(simulator) as url:
        transport = None if sockets else InProcessTransport(simulator.api)
        azure = AzureProvider(settings(url), CloudMetrics(), transport=transport, fence=lease.check)
        try:
            await azure.create(SPEC)
            assert lease.checks == 1, "one write, one check; reads are not fenced"
            lease.held = False
            with pytest.raises(NotLeader):
                await azure.delete("ws1")
            with pytest.raises(NotLeader):
                await azure.create(SPEC)
            assert await azure.get("ws1") is not None
            writes = [entry.method for entry in simulator.api.requests if entry.method != "GET"]
            assert writes == ["PUT"]
        finally:
            await azure.close()


async def test_fence_is_checked_after_the_connection_is_established() -> None:
    """A process that is stopped while it connects may have lost the lease when it is connected."""
    lease = Lease()
    received: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        received.append(request.method)
        return web.json_response({"value": []})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        azure = AzureProvider(settings(f"http://{host}:{port}"), CloudMetrics(), fence=lease.check)
        loop = asyncio.get_running_loop()
        connect = loop.sock_connect

        async def slow_connect(*arguments: object) -> None:
            await connect(*arguments)  # type: ignore[arg-type]  # handed on as it came
            lease.held = False

        loop.sock_connect = slow_connect  # type: ignore[method-assign, assignment]  # the loss happens while it connects
        try:
            with pytest.raises(NotLeader):
                await azure.delete("ws1")
        finally:
            loop.sock_connect = connect  # type: ignore[method-assign]
            await azure.close()
        assert received == []
    finally:
        await runner.cleanup()
