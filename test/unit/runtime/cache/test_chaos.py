"""Whatever goes wrong between the server and us: when it is over, cache and handlers know what the server has."""

import random
from collections.abc import Sequence

import pytest

from kaito.runtime.cache import Cache, Cached, Event, EventType, Index
from kaito.runtime.clock import LoopClock
from kaito.runtime.kinds import ConfigMap, Namespace
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import World

by_color = Index(ConfigMap, lambda found: [found.data.get("color", "")], name="by-color")
COLORS = ("red", "green", "blue")
PLACES = ("default", "web", "other")
DECLARED = {
    "whole": Cached(ConfigMap, labels="app", indexes=[by_color]),
    "split": Cached(ConfigMap, labels="app", namespaces={"web": {}, "": {}}, relist=30, indexes=[by_color]),
}


class Replica:
    """A handler that rebuilds the cluster from events alone, and checks that they fit together."""

    def __init__(self) -> None:
        self.versions: dict[str, str] = {}
        self.uids: dict[str, str] = {}
        self.misfits: list[str] = []

    def __call__(self, event: Event[ConfigMap]) -> None:
        name = str(event.key)
        known = name in self.versions
        if known != (event.type is not EventType.CREATE):
            self.misfits.append(f"{event!r}, {'known' if known else 'unknown'}")
        if event.type is EventType.DELETE:
            assert event.old is not None
            if event.old.header.uid != self.uids.pop(name, ""):
                self.misfits.append(f"{event!r}: another object")
            self.versions.pop(name, None)
            return
        assert event.new is not None
        if event.type is EventType.UPDATE and self.uids.get(name) != event.new.header.uid:
            self.misfits.append(f"{event!r}: another object")
        self.versions[name] = event.new.header.resource_version
        self.uids[name] = event.new.header.uid


def change_something(world: World, rng: random.Random) -> None:
    name, place = f"c{rng.randrange(4)}", rng.choice(PLACES)
    present = world.find(ConfigMap, name, place)
    if present is None:
        metadata = ObjectMeta(name=name, namespace=place, labels={"app": "x"})
        world.put(ConfigMap(metadata=metadata, data={"color": rng.choice(COLORS)}))
    elif rng.random() < 0.4:
        world.delete(ConfigMap, name, place)
    elif rng.random() < 0.2:
        world.patch(
            ConfigMap, name, {"metadata": {"labels": {"app": None if present.labels else "x"}}}, namespace=place
        )
    else:
        world.patch(ConfigMap, name, {"data": {"color": rng.choice(COLORS)}}, namespace=place)


def break_something(world: World, rng: random.Random) -> None:
    match rng.randrange(6):
        case 0:
            world.cut_watches()
        case 1:
            world.server.expire_history()
            world.cut_watches()
        case 2:
            world.fail_next("GET", ConfigMap, status=rng.choice([429, 500, 503, 410, 401]))
            world.cut_watches()
        case 3:
            fault = world.lag(ConfigMap, rng.random() * 3)
            fault.times = 5
        case _:
            pass


def shown(found: Sequence[ConfigMap]) -> dict[str, str]:
    return {str(one.key): one.metadata.resource_version for one in found}


@pytest.mark.sample(8)
@pytest.mark.seeds(25)
@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "listing"])
@pytest.mark.parametrize("declared", DECLARED)
async def test_cache_index_and_handlers_end_equal_to_the_server(
    world: World, declared: str, streaming: bool, request: pytest.FixtureRequest
) -> None:
    rng = random.Random(request.node.name)
    for place in PLACES[1:]:
        world.put(Namespace(metadata=ObjectMeta(name=place)))
    cache = Cache(
        world.transport(),
        [DECLARED[declared]],
        clock=LoopClock(),
        rng=random.Random(1),
        streaming=streaming,
    )
    replicas = [Replica()]
    cache.informer(ConfigMap).subscribe(replicas[0], name="early")
    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        for _ in range(150):
            change_something(world, rng)
            if rng.random() < 0.15:
                break_something(world, rng)
            if rng.random() < 0.5:
                await world.advance(rng.random() * 2)
            if rng.random() < 0.02:
                replicas.append(Replica())
                cache.informer(ConfigMap).subscribe(replicas[-1], name=f"late-{len(replicas)}")
        await world.advance(300)

        live = [found for found in world.list(ConfigMap) if "app" in found.labels]
        assert shown(cache.list(ConfigMap)) == shown(live)
        for color in COLORS:
            colored = [found for found in live if found.data["color"] == color]
            assert shown(cache.list(ConfigMap, index=by_color(color))) == shown(colored)
        for replica in replicas:
            assert replica.misfits == []
            assert replica.versions == shown(live)
        assert cache.stats()[0].handler_errors == {}
        assert cache.stats()[0].objects == len(live)
        assert all(row.watching for row in cache.health())
        assert (cache.stats()[0].relists["periodic"] > 0) == (declared == "split")
