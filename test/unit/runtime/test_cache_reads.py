"""Reading the cache: what is declared is there, private to its reader, ordered and selectable; the rest is refused."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kaito.runtime.cache import Cache, Cached, Index, UnreadableObject, View
from kaito.runtime.clock import LoopClock
from kaito.runtime.errors import CacheNotSynced, ConfigurationError, NotFound, UndeclaredKind, UndeclaredNamespace
from kaito.runtime.kinds import ConfigMap, Node, Pod, Secret
from kaito.runtime.meta import LabelSelector, ObjectKey, ObjectMeta, Resource
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import World

by_colour = Index(ConfigMap, lambda found: [found.data["colour"]] if "colour" in found.data else [], name="by-colour")


@asynccontextmanager
async def running(world: World, *kinds: Cached, namespaces: tuple[str, ...] = ()) -> AsyncIterator[Cache]:
    cache = Cache(world.transport(), kinds, clock=LoopClock(), namespaces=namespaces)
    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        await cache.wait_synced(60)
        yield cache


def config_map(
    name: str, namespace: str = "default", *, labels: dict[str, str] | None = None, **data: str
) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace=namespace, labels=labels or {}), data=data)


async def test_what_the_server_has_is_read_from_memory_and_followed(world: World) -> None:
    world.put(config_map("one", colour="red"))
    async with running(world, Cached(ConfigMap)) as cache:
        view = View(cache)
        assert view.get(ConfigMap, "one", "default").data == {"colour": "red"}

        world.put(config_map("two", colour="blue"))
        world.patch(ConfigMap, "one", {"data": {"colour": "green"}})
        await world.advance(1)
        assert [(found.name, found.data["colour"]) for found in view.list(ConfigMap, namespace="default")] == [
            ("one", "green"),
            ("two", "blue"),
        ]

        world.delete(ConfigMap, "one")
        await world.advance(1)
        assert view.find(ConfigMap, "one", "default") is None
        with pytest.raises(NotFound, match="ConfigMap default/one"):
            view.get(ConfigMap, "one", "default")
