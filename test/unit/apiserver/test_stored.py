"""`ApiServer.stored`: the objects as they are now, also after each kind of write."""

from collections.abc import Mapping
from typing import Any

from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.testing import World


async def test_the_stored_objects_are_those_of_the_last_write(world: World) -> None:
    def texts() -> dict[str, str]:
        return {name: obj["data"]["a"] for (_, name), obj in world.server.stored("configmaps").items()}

    def put(name: str, text: str) -> None:
        world.put(ConfigMap(metadata=ObjectMeta(name=name, namespace="default"), data={"a": text}))

    put("one", "1")
    assert texts() == {"one": "1"}
    seen: list[dict[str, str]] = []

    def note(resource: str, obj: Mapping[str, Any], previous: Mapping[str, Any] | None) -> None:
        del resource, obj, previous
        seen.append(texts())

    world.server.on_write(note)
    put("two", "1")
    world.patch(ConfigMap, "one", {"data": {"a": "2"}})
    assert texts() == {"one": "2", "two": "1"}
    backup = world.server.backup()
    world.delete(ConfigMap, "two")
    assert texts() == {"one": "2"}
    assert seen == [{"one": "1", "two": "1"}, {"one": "2", "two": "1"}, {"one": "2"}]
    world.server.restore(backup)
    assert texts() == {"one": "2", "two": "1"}


async def test_one_dictionary_serves_all_readers_until_the_next_write(world: World) -> None:
    world.put(ConfigMap(metadata=ObjectMeta(name="one", namespace="default")))
    before = world.server.stored("configmaps")
    assert world.server.stored("configmaps") is before
    world.delete(ConfigMap, "one")
    assert world.server.stored("configmaps") == {}
    assert len(before) == 1
