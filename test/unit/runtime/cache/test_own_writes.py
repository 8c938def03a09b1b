"""Reads are never older than this process's own writes: waited for, then read live, and never by polling."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kaito.runtime.cache import Cache, Cached, Index
from kaito.runtime.cache.own_writes import RESULTS
from kaito.runtime.cache.selection import EVERYTHING
from kaito.runtime.client import Client
from kaito.runtime.client.api import Api
from kaito.runtime.client.patch import MergePatch
from kaito.runtime.clock import LoopClock, monotonic
from kaito.runtime.errors import NotFound, UndeclaredNamespace
from kaito.runtime.kinds import ConfigMap, Namespace
from kaito.runtime.meta import ObjectKey, ObjectMeta
from kaito.runtime.ownership import controlled_by
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import World
from kaito.runtime.testing.scripted import ScriptedTransport, Stream, bookmark, list_page

KEY = ObjectKey("default", "mine")
by_color = Index(ConfigMap, lambda found: [found.data.get("color", "")], name="by-color")


def config_map(name: str, *, labels: dict[str, str] | None = None, finalizers: list[str] | None = None) -> ConfigMap:
    meta = ObjectMeta(name=name, namespace="default", labels=labels or {}, finalizers=finalizers or [])
    return ConfigMap(metadata=meta, data={"a": "1"})


@asynccontextmanager
async def running(world: World, *kinds: Cached, latency: float = 0.0) -> AsyncGenerator[tuple[Cache, Api]]:
    transport = world.transport(latency=latency)
    cache = Cache(transport, kinds or [Cached(ConfigMap)], clock=LoopClock())
    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        await cache.wait_synced(60)
        world.clear_requests()
        yield cache, Api(Client(transport, field_manager="test"), cache)


def outcomes(cache: Cache) -> dict[str, int]:
    return dict(cache.stats()[0].waits)


@pytest.mark.conformance(32)
async def test_an_own_create_is_in_the_next_list_although_the_watch_lags(world: World) -> None:
    async with running(world) as (cache, api):
        world.lag(ConfigMap, 0.5)
        started = monotonic()
        await api.create(config_map("mine"))
        assert cache.get(ConfigMap, KEY) is None
        listed = [found.name for found in await api.list(ConfigMap, namespace="default")]
        assert "mine" in listed
        assert monotonic() - started == pytest.approx(0.5, abs=0.01)
        assert world.count("list") == 0
        assert outcomes(cache) == {"caught_up": 1}


@pytest.mark.conformance(32)
async def test_an_own_change_is_in_the_next_read_and_other_keys_are_not_waited_for(world: World) -> None:
    world.put(config_map("mine"))
    world.put(config_map("other"))
    async with running(world) as (_, api):
        world.lag(ConfigMap, 0.5)
        mine = await api.get(ConfigMap, "mine", "default")
        await api.patch(mine, MergePatch({"data": {"a": "2"}}))
        started = monotonic()
        await api.get(ConfigMap, "other", "default")
        await api.list(ConfigMap, namespace="kube-system")
        assert monotonic() == started
        assert (await api.get(ConfigMap, "mine", "default", consistency="cached")).data["a"] == "1"
        assert (await api.get(ConfigMap, "mine", "default")).data["a"] == "2"
        assert monotonic() - started == pytest.approx(0.5, abs=0.01)
        assert world.count("get") == 0


@pytest.mark.conformance(33)
async def test_an_own_delete_reads_as_absent(world: World) -> None:
    world.put(config_map("mine"))
    async with running(world) as (cache, api):
        world.lag(ConfigMap, 0.5)
        await api.delete(await api.get(ConfigMap, "mine", "default"))
        assert cache.get(ConfigMap, KEY) is not None
        with pytest.raises(NotFound):
            await api.get(ConfigMap, "mine", "default")
        assert world.count("get") == 0


@pytest.mark.conformance(33)
async def test_an_own_delete_followed_by_anothers_create_reads_as_the_new_object(world: World) -> None:
    world.put(config_map("mine"))
    async with running(world) as (_, api):
        world.lag(ConfigMap, 0.5)
        old = await api.get(ConfigMap, "mine", "default")
        await api.delete(old)
        new = world.put(config_map("mine"))
        read = await api.find(ConfigMap, "mine", "default")
        assert read is None or read.uid == new.uid
        await world.advance(1)
        assert (await api.get(ConfigMap, "mine", "default")).uid == new.uid


@pytest.mark.conformance(33)
async def test_an_own_create_and_delete_in_a_row_read_as_absent(world: World) -> None:
    async with running(world) as (cache, api):
        world.lag(ConfigMap, 0.5)
        mine = await api.create(config_map("mine"))
        await api.delete(mine)
        assert await api.find(ConfigMap, "mine", "default") is None
        await world.advance(3)
        assert cache.get(ConfigMap, KEY) is None
        assert await api.find(ConfigMap, "mine", "default") is None


async def test_a_delete_that_finalizers_hold_reads_as_deleting(world: World) -> None:
    world.put(config_map("mine", finalizers=["example.com/hold"]))
    async with running(world) as (_, api):
        world.lag(ConfigMap, 0.5)
        await api.delete(await api.get(ConfigMap, "mine", "default"))
        assert (await api.get(ConfigMap, "mine", "default")).deleting


@pytest.mark.conformance(34)
async def test_an_object_outside_the_selector_is_read_live_after_two_seconds_and_then_without_waiting(
    world: World,
) -> None:
    async with running(world, Cached(ConfigMap, labels="app")) as (cache, api):
        await api.create(config_map("mine"))
        started = monotonic()
        assert (await api.get(ConfigMap, "mine", "default")).data == {"a": "1"}
        assert monotonic() - started == pytest.approx(2)
        assert (await api.get(ConfigMap, "mine", "default")).data == {"a": "1"}
        assert monotonic() - started == pytest.approx(2)
        assert world.count("get", ConfigMap) == 2
        assert outcomes(cache) == {"live": 2}


@pytest.mark.conformance(34)
async def test_that_an_object_is_outside_the_selector_is_remembered_until_it_comes_in(world: World) -> None:
    async with running(world, Cached(ConfigMap, labels="app")) as (cache, api):
        mine = await api.create(config_map("mine"))
        world.put(config_map("selected", labels={"app": "x"}))
        await world.advance(1)
        # The stream went beyond our write: the answer must not depend on whether it has already, nor on bookmarks.
        started = monotonic()
        assert (await api.get(ConfigMap, "mine", "default")).data == {"a": "1"}
        assert [found.name for found in await api.list(ConfigMap)] == ["selected"]
        assert monotonic() == started
        assert world.count("list", ConfigMap) == 0

        world.patch(ConfigMap, "mine", {"metadata": {"labels": {"app": "x"}}})
        await world.advance(1)
        world.clear_requests()
        assert (await api.get(ConfigMap, "mine", "default")).labels == {"app": "x"}
        assert world.count("get", ConfigMap) == 0

        # Our own write moves it out again.
        world.lag(ConfigMap, 0.5)
        await api.patch(mine, MergePatch({"metadata": {"labels": {"app": None}}}))
        assert (await api.get(ConfigMap, "mine", "default")).labels == {}
        assert cache.get(ConfigMap, KEY) is None
        assert world.count("get", ConfigMap) == 1

        await api.delete(mine)
        assert await api.find(ConfigMap, "mine", "default") is None


async def test_a_list_that_falls_back_asks_the_server_the_question_the_cache_would_answer(world: World) -> None:
    for namespace in ("a", "b", "c"):
        world.put(Namespace(metadata=ObjectMeta(name=namespace)))
        for name, labels in (("in", {"app": "x"}), ("out", {"other": "x"})):
            world.put(ConfigMap(metadata=ObjectMeta(name=name, namespace=namespace, labels=labels)))
    async with running(world, Cached(ConfigMap, namespaces=["a", "b"], labels="app")) as (cache, api):
        key = ObjectKey("b", "in")
        cache.record_write(ConfigMap, key, "999999", "uid")
        assert [str(found.key) for found in await api.list(ConfigMap)] == ["a/in", "b/in"]
        assert world.count("list", ConfigMap) == 2
        world.clear_requests()
        assert [str(found.key) for found in await api.list(ConfigMap, namespace="a")] == ["a/in"]
        assert world.count() == 0
        assert [str(found.key) for found in await api.list(ConfigMap, namespace="b")] == ["b/in"]
        assert await api.list(ConfigMap, namespace="b", labels={"app": "y"}) == []
        with pytest.raises(UndeclaredNamespace):
            await api.list(ConfigMap, namespace="c")
        assert len(await api.list(ConfigMap, namespace="c", consistency="live")) == 2


async def test_a_long_list_lets_the_loop_turn_and_shows_one_moment(world: World) -> None:
    for number in range(200):
        world.put(config_map(f"c{number:03}"))
    async with running(world) as (cache, api):
        async with TaskScope("reader") as scope:
            reading = scope.spawn(api.list(ConfigMap, namespace="default"), name="read")
            turns = 0
            while not reading.done():
                await asyncio.sleep(0)
                turns += 1
            assert turns >= 200 // 32
            assert len(reading.result()) == 200
        assert len(cache.list(ConfigMap, namespace="default")) == 200


async def test_a_write_that_changes_nothing_is_not_waited_for(world: World) -> None:
    world.put(config_map("mine"))
    async with running(world) as (cache, api):
        mine = await api.get(ConfigMap, "mine", "default")
        world.lag(ConfigMap, 0.5)
        await api.patch(mine, MergePatch({"data": {"a": "1"}}))
        started = monotonic()
        await api.get(ConfigMap, "mine", "default")
        assert monotonic() == started
        assert outcomes(cache) == {}


async def test_a_read_waits_for_a_write_under_way(world: World) -> None:
    world.put(config_map("mine"))
    async with running(world, latency=0.3) as (cache, api):
        mine = cache.get(ConfigMap, KEY)
        assert mine is not None
        async with TaskScope("writer") as scope:
            write = scope.spawn(api.patch(mine, MergePatch({"data": {"a": "2"}})), name="write")
            await asyncio.sleep(0.1)
            read = await api.get(ConfigMap, "mine", "default")
            assert read.data["a"] == "2"
            assert write.done()


async def test_a_failed_write_is_not_waited_for(world: World) -> None:
    async with running(world) as (_, api):
        world.fail_next("POST", ConfigMap, status=403)
        with pytest.raises(Exception, match="POST"):
            await api.create(config_map("mine"))
        started = monotonic()
        assert await api.find(ConfigMap, "mine", "default") is None
        assert monotonic() == started


@pytest.mark.parametrize("selection", ["labels", "owner", "index"])
async def test_a_list_does_not_wait_for_objects_it_shows_neither_before_nor_after(world: World, selection: str) -> None:
    owners = {name: world.put(config_map(name)) for name in ("red", "blue")}
    lists: dict[str, Callable[[str], dict[str, Any]]] = {
        "labels": lambda color: {"labels": {"color": color}},
        "owner": lambda color: {"owned_by": owners[color]},
        "index": lambda color: {"index": by_color(color)},
    }

    def child(name: str, color: str) -> ConfigMap:
        made = config_map(name, labels={"color": color}).evolve(data={"color": color})
        return controlled_by(made, owners[color])

    world.put(child("old", "blue"))
    async with running(world, Cached(ConfigMap, indexes=[by_color])) as (cache, api):

        async def listed(color: str) -> list[str]:
            return [found.name for found in await api.list(ConfigMap, namespace="default", **lists[selection](color))]

        world.lag(ConfigMap, 0.5)
        started = monotonic()
        new = await api.create(child("new", "red"))
        assert await listed("blue") == ["old"]
        assert monotonic() == started
        assert outcomes(cache) == {}
        assert await listed("red") == ["new"]
        assert monotonic() - started == pytest.approx(0.5, abs=0.01)

        # It leaves one list and enters another: both wait.
        for color in ("red", "blue"):
            started = monotonic()
            new = await api.patch(new, MergePatch.between(new, child("new", "red" if color == "blue" else "blue")))
            assert await listed(color) == (["old"] if color == "blue" else [])
            assert monotonic() - started == pytest.approx(0.5, abs=0.01)
        assert await listed("blue") == ["old"]

        # Of a deletion only those lists wait that show the object.
        started = monotonic()
        await api.delete(new)
        await listed("blue")
        assert monotonic() == started
        assert await listed("red") == []
        assert monotonic() - started == pytest.approx(0.5, abs=0.01)


async def test_a_list_that_waits_looks_again_at_what_did_not_matter_before(world: World) -> None:
    async with running(world) as (_, api):
        made = await api.create(config_map("a", labels={"color": "red"}))
        await world.settle()
        world.lag(ConfigMap, 0.5)
        # Another client paints "a" blue, we paint it red again. When "c" has arrived, the cache still shows "a" blue.
        world.patch(ConfigMap, "a", {"metadata": {"labels": {"color": "blue"}}})
        await asyncio.sleep(0.1)
        await api.create(config_map("c", labels={"color": "blue"}))
        await asyncio.sleep(0.2)
        await api.patch(made, MergePatch({"metadata": {"labels": {"color": "red"}}}))
        started = monotonic()
        assert [found.name for found in await api.list(ConfigMap, labels={"color": "blue"})] == ["c"]
        assert monotonic() - started == pytest.approx(0.5, abs=0.01)


async def test_results_that_are_changed_by_the_caller_do_not_mislead_lists(world: World) -> None:
    async with running(world) as (_, api):
        world.lag(ConfigMap, 0.5)
        made = await api.create(config_map("a", labels={"color": "red"}))
        made.labels["color"] = "spoilt"
        assert [found.name for found in await api.list(ConfigMap, labels={"color": "red"})] == ["a"]


def painted(document: dict[str, Any]) -> dict[str, Any]:
    return {**document, "metadata": {**document["metadata"], "labels": {"color": "blue"}}}


@pytest.mark.parametrize(
    ("declared", "narrow"),
    [
        (Cached(ConfigMap, transform=painted), {"labels": {"color": "blue"}}),
        (Cached(ConfigMap, drop=["data.color"], indexes=[by_color]), {"index": by_color("")}),
    ],
    ids=["a transform", "a dropped field"],
)
async def test_a_list_waits_for_objects_whose_kept_form_it_cannot_know(
    world: World, declared: Cached, narrow: dict[str, Any]
) -> None:
    async with running(world, declared) as (_, api):
        world.lag(ConfigMap, 0.5)
        await api.create(config_map("mine", labels={"color": "red"}).evolve(data={"color": "red"}))
        found = [each.name for each in await api.list(ConfigMap, namespace="default", **narrow)]
        assert "mine" in found


async def test_many_pending_writes_of_one_key_make_every_list_wait(world: World) -> None:
    async with running(world) as (cache, api):
        world.lag(ConfigMap, 0.5)
        made = await api.create(config_map("a"))
        for turn in range(RESULTS):
            await api.patch(made, MergePatch({"data": {"turn": str(turn)}}))
        assert await api.list(ConfigMap, labels={"color": "red"}) == []
        assert outcomes(cache) == {"caught_up": 1}


async def test_writes_begun_after_the_read_do_not_hold_it_up(world: World) -> None:
    world.put(config_map("mine"))
    async with running(world) as (cache, _):
        version = int(cache.version(ConfigMap))
        cache.record_write(ConfigMap, KEY, str(version + 1), "uid")
        async with TaskScope("reader") as scope:
            read = scope.spawn(cache.caught_up(ConfigMap, KEY), name="read")
            await asyncio.sleep(0.1)
            cache.record_write(ConfigMap, KEY, str(version + 1000), "uid")
            world.put(config_map("other"))
            await asyncio.sleep(0.1)
            assert read.done()
            assert read.result()
        assert not await cache.caught_up(ConfigMap, KEY)


async def test_a_relist_settles_what_the_watch_missed(world: World) -> None:
    world.put(config_map("mine"))
    async with running(world) as (cache, api):
        mine = await api.get(ConfigMap, "mine", "default")
        world.lag(ConfigMap, 3600)
        await api.delete(mine)
        world.server.expire_history()
        world.cut_watches()
        assert await api.find(ConfigMap, "mine", "default") is None
        assert outcomes(cache) == {"live": 1}, "the list comes later than a read waits"
        await asyncio.sleep(5)
        assert cache.stats()[0].relists == {"expired": 1}
        world.clear_requests()
        assert await api.find(ConfigMap, "mine", "default") is None
        assert await api.list(ConfigMap, namespace="default") == []
        assert outcomes(cache) == {"live": 1}
        assert list(world.requests) == []


async def test_servers_without_numeric_versions_get_no_promise_and_one_warning(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(world) as (cache, _):
        cache.record_write(ConfigMap, KEY, "abc", "uid")
        cache.record_write(ConfigMap, KEY, "abd", "uid")
        assert await cache.caught_up(ConfigMap, KEY)
        assert await cache.caught_up(ConfigMap)
        assert capfd.readouterr().err.count("not numbers") == 1


async def test_undeclared_kinds_and_foreign_namespaces_are_none_of_its_business(world: World) -> None:
    async with running(world, Cached(ConfigMap, namespaces=["a"])) as (cache, _):
        with cache.writing(ConfigMap, KEY):
            cache.record_write(ConfigMap, KEY, "999999", "uid")
            cache.record_deletion(ConfigMap, KEY, "uid")
        assert await cache.caught_up(ConfigMap)
        assert await cache.caught_up(ConfigMap, KEY)


@pytest.mark.virtual_time
async def test_a_wait_before_the_first_list_ends_with_it() -> None:
    listed = list_page("9", {"metadata": {"name": "mine", "namespace": "default", "uid": "u", "resourceVersion": "8"}})
    transport = ScriptedTransport()
    cache = Cache(transport, [Cached(ConfigMap)], clock=LoopClock(), streaming=False)
    cache.record_write(ConfigMap, KEY, "8", "u")
    assert not await cache.caught_up(ConfigMap, KEY)
    transport.then(listed)
    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        await cache.wait_synced(1)
        assert await cache.caught_up(ConfigMap, KEY)


@pytest.mark.virtual_time
async def test_floors_mean_nothing_to_a_server_that_was_restored() -> None:
    transport = ScriptedTransport(
        list_page("900"), Stream((10.0, bookmark("20")), keep_open=True), list_page("21"), Stream(keep_open=True)
    )
    cache = Cache(transport, [Cached(ConfigMap)], clock=LoopClock(), streaming=False, own_writes_seconds=60)
    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        await cache.wait_synced(1)
        cache.record_write(ConfigMap, KEY, "1000", "uid")
        cache.record_write(ConfigMap, ObjectKey("default", "other"), "1001", "uid")
        waiting = scope.spawn(cache.caught_up(ConfigMap), name="read")
        await asyncio.sleep(30)
        assert waiting.done()
        assert await cache.caught_up(ConfigMap)
        assert monotonic() == 30


@pytest.mark.virtual_time
async def test_a_list_waits_for_keys_in_the_order_of_their_writes() -> None:
    """An order by hashes would differ between processes, and with it the interleaving of a simulation's tasks."""
    names = [ObjectKey("default", f"map-{number}") for number in range(20)]
    cache = Cache(ScriptedTransport(list_page("9"), Stream(keep_open=True)), [Cached(ConfigMap)], streaming=False)
    async with TaskScope("test") as scope:
        task = scope.spawn(cache.run(), name="cache")
        await cache.wait_synced(1)
        for number, key in enumerate(names):
            cache.record_write(ConfigMap, key, str(10 + number), "uid")
        concern = cache.informer(ConfigMap).shards("")[0].own_writes.concern(None, EVERYTHING)
        assert concern is not None
        assert list(concern.keys) == names
        task.cancel()


@pytest.mark.sample(4)
@pytest.mark.seeds(20)
async def test_whatever_the_interleaving_a_reader_sees_its_own_writes(world: World) -> None:
    async with running(world) as (_, api):
        world.lag(ConfigMap, 0.05)

        async def write_and_read(name: str) -> None:
            mine = await api.create(config_map(name))
            for turn in range(5):
                await api.patch(mine, MergePatch({"data": {"turn": str(turn)}}))
                assert (await api.get(ConfigMap, name, "default")).data["turn"] == str(turn)
            await api.delete(mine)
            assert await api.find(ConfigMap, name, "default") is None
            assert name not in [found.name for found in await api.list(ConfigMap, namespace="default")]

        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(write_and_read(f"c{number}"))


@pytest.mark.sample(4)
@pytest.mark.seeds(20)
async def test_whatever_the_interleaving_a_narrow_list_shows_what_was_written_last(world: World) -> None:
    colors = ("red", "green", "blue")
    async with running(world, Cached(ConfigMap, indexes=[by_color]), latency=0.01) as (cache, api):
        world.lag(ConfigMap, 0.05)

        async def check(name: str, expected: str, rng: random.Random) -> None:
            for color in rng.sample(colors, 2):
                narrow: dict[str, Any] = (
                    {"labels": {"color": color}} if rng.random() < 0.5 else {"index": by_color(color)}
                )
                shown = [found.name for found in await api.list(ConfigMap, namespace="default", **narrow)]
                assert (name in shown) == (color == expected), (name, color, expected, narrow)

        async def write_and_list(name: str) -> None:
            rng = random.Random(name)
            mine = await api.create(config_map(name))
            for _ in range(10):
                color = rng.choice(colors)
                painted = {"metadata": {"labels": {"color": color}}, "data": {"color": color}}
                await api.patch(mine, MergePatch(painted))
                if rng.random() < 0.3:
                    await asyncio.sleep(rng.random() / 10)
                await check(name, color, rng)
            await api.delete(mine)
            await check(name, "", rng)

        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(write_and_list(f"c{number}"))
        assert set(outcomes(cache)) == {"caught_up"}
