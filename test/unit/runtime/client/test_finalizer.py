"""Finalizers are added before anything else happens and taken away without touching others'."""

from collections.abc import AsyncIterator

import pytest

from kaito.runtime.cache import Cached
from kaito.runtime.client import Api
from kaito.runtime.errors import Conflict, Invalid, NotFound
from kaito.runtime.finalizer import add_finalizer, has_finalizer, remove_finalizer
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.testing import World

OURS, THEIRS = "example.com/ours", "example.com/theirs"


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    async with world.manager(cache=[Cached(ConfigMap)]) as manager:
        yield manager.api


def put(world: World, *finalizers: str) -> ConfigMap:
    return world.put(ConfigMap(metadata=ObjectMeta(name="a", namespace="default", finalizers=list(finalizers))))


def stored(world: World) -> list[str]:
    return world.get(ConfigMap, "a").metadata.finalizers


async def test_add_once(api: Api, world: World) -> None:
    obj = await add_finalizer(api, put(world, THEIRS), OURS)
    assert has_finalizer(obj, OURS)
    assert stored(world) == [THEIRS, OURS]
    assert await add_finalizer(api, obj, OURS) is obj
    assert world.count("PATCH") == 1


async def test_add_keeps_what_was_added_meanwhile(api: Api, world: World) -> None:
    stale = put(world)
    world.patch(ConfigMap, "a", {"metadata": {"finalizers": [THEIRS]}})
    await add_finalizer(api, stale, OURS)
    assert stored(world) == [THEIRS, OURS]


async def test_other_changes_cause_no_conflict(api: Api, world: World) -> None:
    stale = put(world)
    world.patch(ConfigMap, "a", {"data": {"k": "v"}})
    world.clear_requests()
    obj = await add_finalizer(api, stale, OURS)
    assert (obj.data, stored(world)) == ({"k": "v"}, [OURS])
    assert (world.count("PATCH"), world.count("GET")) == (1, 0)


async def test_a_rejected_object_is_not_tried_again(api: Api, world: World) -> None:
    world.fail_next("PATCH", status=422, times=None)
    with pytest.raises(Invalid):
        await add_finalizer(api, put(world, THEIRS), OURS)
    assert world.count("PATCH") == 1


async def test_add_to_a_deleting_object_is_rejected_by_the_server(api: Api, world: World) -> None:
    put(world, THEIRS)
    world.delete(ConfigMap, "a")
    with pytest.raises(Invalid):
        await add_finalizer(api, world.get(ConfigMap, "a"), OURS)


async def test_add_to_an_object_that_is_deleted(api: Api, world: World) -> None:
    stale = put(world)
    world.delete(ConfigMap, "a")
    with pytest.raises(NotFound):
        await add_finalizer(api, stale, OURS)
    put(world)
    with pytest.raises(NotFound):  # the object of that name is another one now
        await add_finalizer(api, stale, OURS)


async def test_add_gives_up_when_others_never_stop(api: Api, world: World) -> None:
    world.fail_next("PATCH", status=409, times=None)
    with pytest.raises(Conflict):
        await add_finalizer(api, put(world), OURS)


async def test_remove_every_occurrence_and_nothing_else(api: Api, world: World) -> None:
    obj = put(world, THEIRS)
    # The server de-duplicates nothing: the list may hold an entry twice.
    world.patch(ConfigMap, "a", {"metadata": {"finalizers": [OURS, THEIRS, OURS]}})
    await remove_finalizer(api, world.get(ConfigMap, "a"), OURS)
    assert stored(world) == [THEIRS]
    await remove_finalizer(api, obj, OURS)
    assert world.count("PATCH") == 1


async def test_remove_finds_the_entry_where_it_moved_to(api: Api, world: World) -> None:
    stale = put(world, OURS)
    world.patch(ConfigMap, "a", {"metadata": {"finalizers": [THEIRS, OURS]}})
    await remove_finalizer(api, stale, OURS)
    assert stored(world) == [THEIRS]


async def test_removing_the_last_one_of_a_deleting_object_lets_it_go(api: Api, world: World) -> None:
    put(world, OURS)
    world.delete(ConfigMap, "a")
    deleting = world.get(ConfigMap, "a")
    await remove_finalizer(api, deleting, OURS)
    assert world.find(ConfigMap, "a") is None
    await remove_finalizer(api, deleting, OURS)  # gone is as good as removed


async def test_remove_from_a_recreated_object_does_nothing(api: Api, world: World) -> None:
    stale = put(world, OURS)
    world.patch(ConfigMap, "a", {"metadata": {"finalizers": None}})
    world.delete(ConfigMap, "a")
    put(world, THEIRS, OURS)
    await remove_finalizer(api, stale, OURS)
    assert stored(world) == [THEIRS, OURS]


async def test_remove_gives_up_when_others_never_stop(api: Api, world: World) -> None:
    obj = put(world, OURS)
    world.fail_next("PATCH", status=422, times=None)
    with pytest.raises(Invalid):
        await remove_finalizer(api, obj, OURS)
