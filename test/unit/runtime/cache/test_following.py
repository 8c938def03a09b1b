"""Following a kind from a script: everything first, then every change, and an error instead of silence."""

import asyncio
from typing import assert_type

import pytest

from kaito.runtime.cache import Cached, Event, following
from kaito.runtime.client import Client
from kaito.runtime.errors import CacheNotSynced, ConfigurationError
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import ObjectMeta, Resource
from kaito.runtime.testing import World


def config(name: str, **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="default"), data=data)


def client_of(world: World) -> Client:
    return Client(world.transport(), field_manager="test")


async def test_everything_first_then_what_changes_also_across_lost_history(world: World) -> None:
    world.put(config("a"))
    seen: list[str] = []
    async with following(client_of(world), Cached(ConfigMap, namespaces=["default"])) as events:
        async for event in events:
            seen.append(repr(event))
            if event.initial and event.key.name == "a":
                world.put(config("b"))
            elif event.key.name == "b" and len(seen) < 4:
                world.cut_watches()
                await world.advance(0.1)
                world.delete(ConfigMap, "a")
                world.server.expire_history()
            elif event.key.name == "a":
                break
    assert [text for text in seen if "kube-root-ca" not in text] == [
        "<create ConfigMap default/a initial>",
        "<create ConfigMap default/b>",
        "<delete ConfigMap default/a state_unknown>",
    ]


async def test_a_script_waits_until_something_holds_and_leaves_nothing_behind(world: World) -> None:
    async with asyncio.timeout(60):
        world.put(config("a"))
        async with following(client_of(world), ConfigMap) as events:
            asyncio.get_running_loop().call_later(5, lambda: world.patch(ConfigMap, "a", {"data": {"done": "yes"}}))
            async for event in events:
                assert_type(event, Event[ConfigMap])
                if event.new is not None and event.new.object.data.get("done"):
                    break
        assert world.cut_watches() == 0


async def test_a_slow_reader_sees_the_last_state(world: World) -> None:
    made = world.put(config("a", turn="0"))
    async with following(client_of(world), Cached(ConfigMap, fields="metadata.name=a")) as events:
        for turn in range(1, 500):
            world.patch(ConfigMap, made.name, {"data": {"turn": str(turn)}})
            await world.advance(0.01)
        async for event in events:
            assert event.new is not None
            if event.new.object.data["turn"] == "499":
                break


async def test_a_refusal_is_told_in_the_servers_words(world: World) -> None:
    fault = world.fail_next("GET", ConfigMap, status=403, message="configmaps is forbidden")
    fault.times = 1000
    with pytest.raises(CacheNotSynced, match="forbidden"):
        async with following(client_of(world), ConfigMap, sync_seconds=5):
            raise AssertionError("never synced")
    with pytest.raises(ConfigurationError, match="keeps nothing"):
        async with following(client_of(world), Cached(Resource)):
            raise AssertionError("nothing to follow")
