"""`Api.update_aggregate`: each change is passed once, with own writes, over relists, and from several tasks."""

import asyncio
from typing import Any

from kaito.runtime.cache import Cached, UnreadableObject
from kaito.runtime.client import MergePatch
from kaito.runtime.kinds import ConfigMap, Secret
from kaito.runtime.meta import ObjectKey
from kaito.runtime.testing import World
from test.unit.runtime.cache.test_reads import config_map


class Colors:
    """The colors of ConfigMaps, and what was passed."""

    def __init__(self, kind: Any = ConfigMap) -> None:
        self.kind = kind
        self.known: dict[str, str] = {}
        self.passed: list[str] = []

    def put(self, key: ObjectKey, obj: Any) -> None:
        self.passed.append(key.name)
        self.known[key.name] = "unreadable" if isinstance(obj, UnreadableObject) else obj.data.get("color", "")

    def remove(self, key: ObjectKey) -> None:
        self.passed.append(f"-{key.name}")
        self.known.pop(key.name, None)

    def take(self) -> list[str]:
        taken, self.passed = sorted(self.passed), []
        return taken


async def test_only_changes_are_passed(world: World) -> None:
    world.put(config_map("one", color="red"))
    world.put(config_map("two", color="blue"))
    async with world.manager(cache=[Cached(ConfigMap)]) as manager:
        colors = Colors()
        assert await manager.api.update_aggregate(colors)
        assert colors.take() == ["one", "two"]
        assert await manager.api.update_aggregate(colors)
        assert colors.take() == []
        world.put(config_map("three", color="white"))
        world.patch(ConfigMap, "one", {"data": {"color": "green"}})
        world.delete(ConfigMap, "two", "default")
        await world.advance(1)
        assert await manager.api.update_aggregate(colors)
        assert colors.take() == ["-two", "one", "three"]
        assert colors.known == {"one": "green", "three": "white"}


async def test_own_writes_are_contained(world: World) -> None:
    async with world.manager(cache=[Cached(ConfigMap)]) as manager:
        colors = Colors()
        assert await manager.api.update_aggregate(colors)
        created = await manager.api.create(config_map("one", color="red"))
        assert await manager.api.update_aggregate(colors, namespace="default")
        await manager.api.patch(created, MergePatch({"data": {"color": "green"}}))
        assert await manager.api.update_aggregate(colors, namespace="default")
        assert colors.known == {"one": "green"}
        await manager.api.delete(created)
        assert await manager.api.update_aggregate(colors, namespace="default")
        assert colors.known == {}


async def test_relists_pass_the_differences(world: World) -> None:
    for name in ("one", "two", "three"):
        world.put(config_map(name, color="red"))
    async with world.manager(cache=[Cached(ConfigMap, relist=60)]) as manager:
        colors = Colors()
        assert await manager.api.update_aggregate(colors)
        colors.take()
        await world.advance(90)
        assert await manager.api.update_aggregate(colors)
        assert colors.take() == []
        world.patch(ConfigMap, "one", {"data": {"color": "green"}})
        world.delete(ConfigMap, "two", "default")
        await world.advance(90)
        assert await manager.api.update_aggregate(colors)
        assert colors.take() == ["-two", "one"]


async def test_several_tasks_update_one_aggregate(world: World) -> None:
    for number in range(100):
        world.put(config_map(f"c{number}", color="red"))
    async with world.manager(cache=[Cached(ConfigMap)]) as manager:
        colors = Colors()

        async def updated() -> int:
            assert await manager.api.update_aggregate(colors)
            return len(colors.known)

        assert list(await asyncio.gather(updated(), updated(), updated())) == [100, 100, 100]
        assert len(colors.take()) == 100


async def test_a_live_kind_has_no_aggregate(world: World) -> None:
    async with world.manager(cache=[Cached(ConfigMap)], live=[Secret]) as manager:
        assert not await manager.api.update_aggregate(Colors(Secret))
        assert not manager.api.require([Secret()])


async def test_required_versions_are_waited_for(world: World) -> None:
    world.put(config_map("one", color="red"))
    async with world.manager(cache=[Cached(ConfigMap)]) as manager:
        colors = Colors()
        assert await manager.api.update_aggregate(colors)
        world.patch(ConfigMap, "one", {"data": {"color": "green"}})
        found = await manager.api.list(ConfigMap, namespace="default", consistency="live")
        assert manager.api.require(found)
        assert await manager.api.update_aggregate(colors, namespace="default")
        assert colors.known == {"one": "green"}
        assert manager.api.require(found)
