"""Writes to other systems than Kubernetes are fenced like those to the API server."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from kaito.runtime.client.fencing import FencedConnector
from kaito.runtime.client.transport import check_send_guard, sending_guarded_by
from kaito.runtime.controller import Controller
from kaito.runtime.errors import NotLeader
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.manager import Settings
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.reconcile import Again, KeyedRequest, PeriodicRequest, Request
from kaito.runtime.testing import World

PAUSE_SECONDS = 20.0
"""Longer than a lease lasts."""


class Cloud:
    """Another system; `send` is what its client does right before the first byte leaves."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def write(self, what: str, *, wait: float = 0.0) -> None:
        """Sends something, after waiting for a connection."""
        await asyncio.sleep(wait)
        check_send_guard()
        self.sent.append(what)


async def test_a_stopped_and_resumed_leader_sends_nothing_to_a_cloud(world: World) -> None:
    cloud = Cloud()
    refused: list[str] = []

    async def reconcile(request: Request[ConfigMap]) -> Again | None:
        request.fence()
        await cloud.write("before")
        world.suspend(PAUSE_SECONDS)
        try:
            request.fence()
            await cloud.write("after")
        except NotLeader as error:
            refused.append(str(error))
            raise
        return None

    async def story() -> None:
        async with world.manager(Controller(ConfigMap, reconcile), lease="op", name="a"):
            world.put(ConfigMap(metadata=ObjectMeta(name="one")))
            await world.advance(60)

    with pytest.raises(NotLeader, match="leader election lost"):
        await story()
    assert cloud.sent == ["before"]
    assert refused
    assert "write rejected" in refused[0]


async def test_the_fence_is_checked_again_when_the_bytes_leave(world: World) -> None:
    cloud = Cloud()
    refused: list[str] = []

    async def reconcile(request: Request[ConfigMap]) -> Again | None:
        with sending_guarded_by(request.fence):
            await cloud.write("first", wait=1)
            asyncio.get_running_loop().call_later(0.5, world.suspend, PAUSE_SECONDS)  # while it waits for a connection
            try:
                await cloud.write("second", wait=1)
            except NotLeader as error:
                refused.append(str(error))
                raise
        return None

    async def story() -> None:
        async with world.manager(Controller(ConfigMap, reconcile), lease="op", name="a"):
            world.put(ConfigMap(metadata=ObjectMeta(name="one")))
            await world.advance(60)

    with pytest.raises(NotLeader):
        await story()
    assert cloud.sent == ["first"]
    assert len(refused) == 1


async def test_keyed_and_periodic_runs_have_the_fence_too(world: World) -> None:
    passed: list[str] = []

    async def visit(visit: KeyedRequest[str]) -> None:
        visit.fence()
        passed.append(visit.key)

    async def tick(tick: PeriodicRequest) -> None:
        tick.fence()
        passed.append("tick")

    keyed = Controller.keyed(str, visit, name="keyed").watches(ConfigMap, to=lambda obj, _: [obj.name])
    async with world.manager(keyed, Controller.every(3600, tick, name="hourly"), lease="op"):
        world.put(ConfigMap(metadata=ObjectMeta(name="one")))
        await world.advance(1)
    assert sorted(passed) == ["one", "tick"]


async def test_a_manager_is_fenced_before_it_starts_and_after_it_stops(world: World) -> None:
    manager = world.manager(lease="op")
    with pytest.raises(NotLeader, match="has not started"):
        manager.fence()
    async with manager:
        await manager.wait_elected()
        manager.fence()
        world.suspend(PAUSE_SECONDS)
        with pytest.raises(NotLeader, match="write rejected"):
            manager.fence()
        with pytest.raises(NotLeader):
            manager.api.fence()


async def test_a_standby_is_fenced(world: World) -> None:
    leader, standby = world.manager(lease="op", name="a"), world.manager(lease="op", name="b", seed=2)
    async with leader:
        await leader.wait_elected()
        async with standby:
            await world.advance(10)
            with pytest.raises(NotLeader):
                standby.fence()
            leader.fence()


async def test_without_a_lease_nothing_is_fenced(world: World) -> None:
    without = world.manager()
    without.fence()
    switched_off = world.manager(
        lease="op",
        settings=Settings(leader_elect=False, metrics_bind_address="0", health_probe_bind_address="0"),
    )
    switched_off.fence()
    async with without:
        without.fence()
        without.api.fence()


@asynccontextmanager
async def counting_server(seen: list[bytes]) -> AsyncGenerator[str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            seen.append(head.split(b" ")[0])
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def test_the_connector_stops_a_request_that_has_its_connection() -> None:
    seen: list[bytes] = []
    leads = True

    def fence() -> None:
        if not leads:
            message = "lease lost"
            raise NotLeader(message)

    async def main() -> None:
        nonlocal leads
        async with (
            counting_server(seen) as url,
            aiohttp.ClientSession(connector=FencedConnector()) as session,
        ):
            with sending_guarded_by(fence):
                async with session.put(url, data=b"1") as reply:
                    assert reply.status == 200
                leads = False
                with pytest.raises(NotLeader):
                    await session.put(url, data=b"2")
            async with session.get(url) as reply:  # outside of the guard: reads go on
                assert reply.status == 200

    asyncio.run(main())
    assert seen == [b"PUT", b"GET"]
