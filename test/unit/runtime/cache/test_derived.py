"""`Derived`: one computation for each version of an object, and none for objects that do not exist any more."""

from typing import Any

import pytest
from pydantic import Field

from kaito.runtime.cache import Cache, Cached, Derived
from kaito.runtime.client import MergePatch
from kaito.runtime.errors import CacheNotSynced, UndeclaredKind
from kaito.runtime.kinds import ConfigMap, Secret
from kaito.runtime.meta import ObjectKey
from kaito.runtime.testing import World
from test.unit.runtime.cache.test_reads import config_map, namespace, running


class Computed:
    """Records the objects for which a value was computed."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, found: ConfigMap) -> str:
        self.names.append(found.name)
        return found.data.get("color", "")

    def take(self) -> list[str]:
        """The names since the last call."""
        taken, self.names = sorted(self.names), []
        return taken


async def test_only_changed_objects_are_computed_again(world: World) -> None:
    world.put(config_map("one", color="red"))
    world.put(config_map("two", color="blue"))
    async with running(world, Cached(ConfigMap)) as cache:
        computed = Computed()
        colors = Derived(ConfigMap, computed)
        assert sorted(colors.values(cache)) == ["blue", "red"]
        assert computed.take() == ["one", "two"]
        assert sorted(colors.values(cache)) == ["blue", "red"]
        assert computed.take() == []

        world.patch(ConfigMap, "one", {"data": {"color": "green"}})
        await world.advance(1)
        assert dict(colors.items(cache)) == {ObjectKey("default", "one"): "green", ObjectKey("default", "two"): "blue"}
        assert computed.take() == ["one"]


async def test_values_of_a_list_contain_own_writes_and_no_unchanged_object_is_decoded_again(world: World) -> None:
    world.put(namespace("here"))
    world.put(namespace("there"))
    world.put(config_map("one", "here", color="red"))
    world.put(config_map("two", "there", color="blue"))
    computed = Computed()
    colors = Derived(ConfigMap, computed)
    async with world.manager(cache=[Cached(ConfigMap)]) as manager:
        api = manager.api
        assert await api.values(colors, namespace="here") == ["red"]
        assert await api.values(colors) == ["red", "blue"]
        assert computed.take() == ["one", "two"]
        await api.create(config_map("three", "here", labels={"new": "yes"}, color="green"))
        assert await api.values(colors, namespace="here") == ["red", "green"]
        assert await api.values(colors, labels={"new": "yes"}) == ["green"]
        assert computed.take() == ["three"]


async def test_values_are_computed_from_a_live_list_while_the_cache_is_late(world: World) -> None:
    world.put(config_map("one", color="red"))
    computed = Computed()
    colors = Derived(ConfigMap, computed)
    async with world.manager(cache=[Cached(ConfigMap)]) as manager:
        assert await manager.api.values(colors) == ["red"]
        world.lag(ConfigMap, 30)
        await manager.api.patch(world.get(ConfigMap, "one"), MergePatch({"data": {"color": "green"}}))
        assert await manager.api.values(colors) == ["green"]


async def test_deleted_objects_have_no_value_and_their_successors_a_new_one(world: World) -> None:
    world.put(config_map("one", color="red"))
    world.put(config_map("two", color="blue"))
    async with running(world, Cached(ConfigMap)) as cache:
        computed = Computed()
        colors = Derived(ConfigMap, computed)
        assert sorted(colors.values(cache)) == ["blue", "red"]
        world.delete(ConfigMap, "one")
        await world.advance(1)
        assert list(colors.values(cache)) == ["blue"]
        world.put(config_map("one", color="red"))
        await world.advance(1)
        computed.take()
        assert sorted(colors.values(cache)) == ["blue", "red"]
        assert computed.take() == ["one"]


async def test_a_relist_without_changes_computes_nothing(world: World) -> None:
    world.put(config_map("one", color="red"))
    async with running(world, Cached(ConfigMap, relist=60)) as cache:
        computed = Computed()
        colors = Derived(ConfigMap, computed)
        list(colors.values(cache))
        await world.advance(200)
        assert cache.stats()[0].relists["periodic"] >= 2
        assert computed.take() == ["one"]
        assert list(colors.values(cache)) == ["red"]
        assert computed.take() == []


class StrictMap(ConfigMap, api="v1", kind="ConfigMap"):
    """A ConfigMap whose name of a color has at most four letters."""

    data: dict[str, str] = Field(default_factory=dict[str, str])

    def model_post_init(self, context: Any, /) -> None:
        """Checks the color."""
        del context
        if len(self.data.get("color", "")) > 4:
            message = "too long"
            raise ValueError(message)


async def test_objects_that_do_not_fit_their_model_have_no_value(world: World) -> None:
    world.put(config_map("one", color="red"))
    world.put(config_map("two", color="yellow"))
    async with running(world, Cached(StrictMap)) as cache:
        colors = Derived(StrictMap, lambda found: found.data["color"])
        assert list(colors.values(cache)) == ["red"]
        world.patch(ConfigMap, "two", {"data": {"color": "gold"}})
        await world.advance(1)
        assert sorted(colors.values(cache)) == ["gold", "red"]


async def test_an_error_of_the_function_is_raised_and_tried_again(world: World) -> None:
    world.put(config_map("one", color="red"))
    async with running(world, Cached(ConfigMap)) as cache:
        fails = True

        def compute(found: ConfigMap) -> str:
            if fails:
                raise LookupError(found.name)
            return found.data["color"]

        colors = Derived(ConfigMap, compute)
        with pytest.raises(LookupError, match="one"):
            list(colors.values(cache))
        fails = False
        assert list(colors.values(cache)) == ["red"]


async def test_values_of_a_kind_that_is_not_cached_are_refused(world: World) -> None:
    async with running(world, Cached(ConfigMap)) as cache:
        with pytest.raises(UndeclaredKind, match="Secret"):
            list(Derived(Secret, lambda found: found.name).values(cache))
    cold = Cache(world.transport(), [Cached(ConfigMap)])
    with pytest.raises(CacheNotSynced):
        list(Derived(ConfigMap, lambda found: found.name).values(cold))
