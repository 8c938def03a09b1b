"""The connection of a member: replaced and revoked while it is used."""

import asyncio

import pytest

from kaito.runtime import ObjectMeta
from kaito.runtime.client import Client
from kaito.runtime.client.pods import Pods
from kaito.runtime.clusters.link import DRAIN_SECONDS, Link
from kaito.runtime.errors import ClusterRemoved, TransportError
from kaito.runtime.kinds import ConfigMap, Container, Pod, PodSpec
from kaito.runtime.tasks import TaskScope, settle
from kaito.runtime.testing import ExecResult, World
from test.support.cluster_fleet import config


async def test_a_command_runs_in_a_pod_of_a_member(world: World) -> None:
    spec = PodSpec(containers=[Container(name="main", image="postgres")])
    pod = world.put(Pod(metadata=ObjectMeta(name="db"), spec=spec))
    world.answer_exec(lambda call: ExecResult(b"done"))
    link = Link("east", world.transport())
    assert (await Pods(Client(link, field_manager="test")).run(pod, ["true"])).stdout == b"done"
    link.revoke()
    with pytest.raises(ClusterRemoved):
        await Pods(Client(link, field_manager="test")).run(pod, ["true"])
    await link.close()


async def test_requests_end_on_the_connection_on_which_they_began(world: World) -> None:
    world.put(config("a"))
    first, second = world.transport(latency=2), world.transport()
    link = Link("east", first)
    client = Client(link, field_manager="test")
    async with TaskScope("test") as scope:
        reading = scope.spawn(client.get(ConfigMap, "a", "default"), name="reading")
        await asyncio.sleep(1)
        replacing = scope.spawn(link.replace(second), name="replacing")
        await asyncio.sleep(0)
        assert (await client.get(ConfigMap, "a", "default")).name == "a"
        assert not reading.done()  # on the second connection, which is fast
        closed = [first.is_closed]
        assert (await reading).name == "a"
        await replacing
        closed.append(first.is_closed)
        assert closed == [False, True]
        assert link.open_connections == 1


async def test_a_replaced_connection_is_closed_although_a_request_hangs(world: World) -> None:
    fault = world.fail_next("get", ConfigMap, hang=True)
    first, second = world.transport(), world.transport()
    link = Link("east", first)
    async with TaskScope("test") as scope:
        reading = scope.spawn(read(link), name="reading")
        await asyncio.sleep(1)
        started = asyncio.get_running_loop().time()
        await link.replace(second)
        assert asyncio.get_running_loop().time() - started == DRAIN_SECONDS
        assert first.is_closed
        link.revoke()
        assert await reading == "cluster east: removed from its set"
    world.heal(fault)
    await link.close()
    assert second.is_closed
    with pytest.raises(TransportError):
        await link.request("GET", "/version")


async def test_a_cancelled_request_is_cancelled_and_not_removed(world: World) -> None:
    world.fail_next("get", ConfigMap, hang=True)
    link = Link("east", world.transport())
    async with TaskScope("test") as scope:
        reading = scope.spawn(read(link), name="reading")
        await asyncio.sleep(1)
        reading.cancel()
        assert await settle(reading) is None
        link.revoke()  # the cancelled request is not among those that are failed


async def read(link: Link) -> str:
    """Reads an object; the error of a revocation."""
    try:
        await Client(link, field_manager="test").find(ConfigMap, "a", "default")
    except ClusterRemoved as error:
        return str(error)
    return "no error"
