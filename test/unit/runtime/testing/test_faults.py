"""Faults of the `World`: which requests they hit, and how they end."""

import pytest

from kaito.runtime import Controller, ObjectMeta, Request
from kaito.runtime.client import Client
from kaito.runtime.errors import ServerError, TransportError
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.testing import NotSettled, World


def config(name: str, namespace: str = "default") -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace=namespace))


async def test_faults_match_verbs_names_and_namespaces(world: World) -> None:
    client = Client(world.transport(), field_manager="test")
    world.put(config("a"))
    fault = world.fail_next("list", ConfigMap, namespace="default", times=None)
    await client.get(ConfigMap, "a", "default")
    await client.list(ConfigMap, namespace="kube-system")
    with pytest.raises(ServerError):
        await client.list(ConfigMap, namespace="default")
    world.heal(fault)
    assert [found.name for found in await client.list(ConfigMap, namespace="default")] == ["a"]
    assert fault.hits >= 1


async def test_a_write_whose_answer_is_lost_has_happened(world: World) -> None:
    transport = world.transport()
    world.fail_next("create", ConfigMap, skip=1, drop_connection=True)
    path = "/api/v1/namespaces/default/configmaps"
    assert (await transport.request("POST", path, body=b'{"metadata":{"name":"a"}}')).status == 201
    with pytest.raises(TransportError, match="connection reset"):
        await transport.request("POST", path, body=b'{"metadata":{"name":"b"}}')
    assert world.find(ConfigMap, "b") is not None


async def test_healing_without_a_name_ends_all_trouble(world: World) -> None:
    client = Client(world.transport(), field_manager="test")
    world.fail_next("get", times=None)
    world.fail_next("GET", hang=True, times=None)
    world.heal()
    world.put(config("a"))
    assert (await client.get(ConfigMap, "a", "default")).name == "a"


async def test_events_that_are_late_are_waited_for(world: World) -> None:
    seen: list[str] = []

    async def look(request: Request[ConfigMap]) -> None:
        seen.append(request.key.name)

    async with world.manager(Controller(ConfigMap, look)):
        world.lag(ConfigMap, 2.0, name="a")
        world.put(config("a"))
        with pytest.raises(NotSettled, match="1 delayed watch events"):
            await world.settle(limit=1)
        assert seen == []
        await world.settle()
        assert seen == ["a"]


async def test_an_informer_relists_when_its_version_is_compacted(world: World) -> None:
    async def look(request: Request[ConfigMap]) -> None: ...

    transport = world.transport()
    async with world.manager(Controller(ConfigMap, look), transport=transport):
        await world.settle()
        transport.reachable = False
        world.cut_watches(ConfigMap)
        await world.settle()
        world.put(config("a"))
        world.compact_history()
        transport.reachable = True
        world.clear_requests()
        await world.advance(60)
        assert [run.key for run in world.reconciles()] == ["default/a"]
        assert world.count("watch", ConfigMap) >= 2, "one is answered 410, another fills the cache"
