"""Delivery to handlers: every event, in order, for each handler separately, again when one fails."""

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from kaito.runtime.cache import Cache, Cached, Event, EventType, Subscription
from kaito.runtime.clock import LoopClock, monotonic
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import ObjectKey, ObjectMeta
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import World
from kaito.runtime.testing.scripted import Answer, ScriptedTransport, Stream, list_page, status, watch_event

pytestmark = pytest.mark.virtual_time

OPEN = Stream(keep_open=True)


def config_map(name: str, version: int, uid: str = "", **data: str) -> Mapping[str, Any]:
    metadata = {"name": name, "namespace": "ns", "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": metadata | {"managedFields": [{"manager": "x"}]}, "data": data}


class Ear:
    """A handler that remembers."""

    def __init__(self, cache: Cache) -> None:
        self.notified: list[Event[ConfigMap]] = []
        self.subscription: Subscription[ConfigMap] = cache.informer(ConfigMap).subscribe(self, name="ear")

    def __call__(self, event: Event[ConfigMap]) -> None:
        self.notified.append(event)

    def words(self) -> list[str]:
        """Everything heard since the last time, in short."""
        notified, self.notified = self.notified, []
        return [
            f"{event.type} {event.key.name} "
            f"{event.old.header.resource_version if event.old else '-'}>"
            f"{event.new.header.resource_version if event.new else '-'}"
            f"{' initial' if event.initial else ''}{' unknown' if event.state_unknown else ''}"
            for event in notified
        ]


@asynccontextmanager
async def running(*answers: Answer, drop: tuple[str, ...] = ("metadata.managedFields",)) -> AsyncGenerator[Cache]:
    cache = Cache(
        ScriptedTransport(*answers),
        [Cached(ConfigMap, drop=drop)],
        clock=LoopClock(),
        rng=random.Random(1),
        streaming=False,
    )
    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        yield cache


async def test_creations_updates_and_deletions_in_order_with_both_states() -> None:
    changes = Stream(
        (
            1.0,
            watch_event("ADDED", config_map("b", 8)),
            watch_event("MODIFIED", config_map("b", 9)),
            watch_event("DELETED", config_map("a", 10)),
            watch_event("DELETED", config_map("never-seen", 11)),
        ),
        keep_open=True,
    )
    async with running(list_page("7", config_map("a", 5)), changes) as cache:
        ear = Ear(cache)
        await asyncio.sleep(0.5)
        assert ear.words() == ["create a ->5 initial"]
        await asyncio.sleep(1)
        assert ear.words() == ["create b ->8", "update b 8>9", "delete a 10>-"]


@pytest.mark.conformance(19)
async def test_a_deletion_nobody_saw_is_told_with_the_last_state_and_a_flag() -> None:
    async with running(
        list_page("7", config_map("a", 5, color="red"), config_map("b", 6)),
        status(410, "Expired"),
        list_page("20", config_map("b", 6), config_map("c", 19)),
        OPEN,
    ) as cache:
        ear = Ear(cache)
        await asyncio.sleep(0.5)
        ear.words()
        await asyncio.sleep(3)
        assert ear.notified[0].state_unknown
        assert ear.notified[0].old is not None
        assert ear.notified[0].old.object.data == {"color": "red"}
        assert ear.words() == ["delete a 5>- unknown", "update b 6>6", "create c ->19"]


@pytest.mark.conformance(20)
async def test_a_deletion_and_recreation_nobody_saw_are_two_events() -> None:
    async with running(
        list_page("7", config_map("a", 5, "first")),
        status(410, "Expired"),
        list_page("20", config_map("a", 19, "second")),
        Stream((1.0, watch_event("MODIFIED", config_map("a", 30, "third"))), keep_open=True),
    ) as cache:
        ear = Ear(cache)
        await asyncio.sleep(0.5)
        ear.words()
        await asyncio.sleep(5)
        assert ear.words() == [
            "delete a 5>- unknown",
            "create a ->19",
            "delete a 19>- unknown",
            "create a ->30",
        ]


@pytest.mark.conformance(21)
async def test_dropped_paths_are_missing_from_every_event_and_tombstones_are_what_was_stored() -> None:
    async with running(
        list_page("7", config_map("a", 5, secret="x"), config_map("b", 6, secret="x")),
        Stream(
            (
                1.0,
                watch_event("MODIFIED", config_map("a", 8, secret="y")),
                watch_event("DELETED", config_map("b", 9, secret="z")),
            )
        ),
        status(410, "Expired"),
        list_page("20"),
        OPEN,
        drop=("metadata.managedFields", "data.secret"),
    ) as cache:
        ear = Ear(cache)
        await asyncio.sleep(0.5)
        stored = cache.informer(ConfigMap).get(ObjectKey("ns", "b"))
        assert stored is not None
        assert b"managedFields" not in stored.text
        await asyncio.sleep(10)
        states = [state for event in ear.notified for state in event.states]
        assert all(state.object.data == {} for state in states)
        assert all("managedFields" not in (state.object.metadata.model_extra or {}) for state in states)
        assert ear.words() == [
            "create a ->5 initial",
            "create b ->6 initial",
            "update a 5>8",
            "delete b 9>-",
            "delete a 8>- unknown",
        ]


async def test_priorities_are_low_for_what_a_restart_causes() -> None:
    async with running(
        list_page("7", config_map("a", 5), config_map("b", 6)),
        Stream((1.0, watch_event("MODIFIED", config_map("a", 8)), watch_event("DELETED", config_map("b", 9)))),
        status(410, "Expired"),
        list_page("20", config_map("a", 8)),
        OPEN,
    ) as cache:
        ear = Ear(cache)
        await asyncio.sleep(10)
        assert [(str(event.type), event.unchanged, event.priority) for event in ear.notified] == [
            ("create", False, -100),
            ("create", False, -100),
            ("update", False, 0),
            ("delete", False, 0),
            ("update", True, -100),
        ]


@pytest.mark.conformance(26)
async def test_a_late_handler_is_told_everything_as_initial_and_then_what_changes() -> None:
    async with running(
        list_page("7", config_map("a", 5)), Stream((5.0, watch_event("ADDED", config_map("b", 8))), keep_open=True)
    ) as cache:
        await asyncio.sleep(1)
        ear = Ear(cache)
        assert not ear.subscription.synced
        await ear.subscription.wait_synced()
        assert ear.words() == ["create a ->5 initial"]
        await asyncio.sleep(5)
        assert ear.words() == ["create b ->8"]


@pytest.mark.conformance(26)
async def test_a_handler_added_while_a_relist_is_told_hears_each_object_once() -> None:
    many = [config_map(f"c{number:04}", number + 10) for number in range(500)]
    async with running(
        list_page("7", config_map("gone", 5)), status(410, "Expired"), list_page("900", *many), OPEN
    ) as cache:
        late: list[Ear] = []
        received_before: list[int] = []
        early = Ear(cache)

        def join(event: Event[ConfigMap]) -> None:
            if event.type is EventType.DELETE:
                received_before.append(len(early.subscription) + len(early.notified))
                late.append(Ear(cache))

        cache.informer(ConfigMap).subscribe(join, name="join")
        await asyncio.sleep(5)
        assert received_before[0] < 502, "the relist was delivered completely already: nothing is tested"
        (ear,) = late
        assert ear.words() == [f"create c{number:04} ->{number + 10} initial" for number in range(500)]
        words = early.words()
        assert words[:2] == ["create gone ->5 initial", "delete gone 5>- unknown"]
        assert len(words) == 502


@pytest.mark.conformance(37)
async def test_a_subscription_is_synced_when_its_handler_has_processed_the_initial_list() -> None:
    handled: list[str] = []

    async def slow(event: Event[ConfigMap]) -> None:
        await asyncio.sleep(3)
        handled.append(event.key.name)

    async with running(list_page("7", config_map("a", 5), config_map("b", 6)), OPEN) as cache:
        subscription = cache.informer(ConfigMap).subscribe(slow, name="slow")
        await asyncio.sleep(1)
        assert cache.synced
        assert not subscription.synced
        await subscription.wait_synced()
        assert handled == ["a", "b"]


@pytest.mark.conformance(27)
async def test_a_raising_handler_is_logged_counted_retried_and_disturbs_nobody() -> None:
    tried: list[tuple[float, str]] = []

    def raising(event: Event[ConfigMap]) -> None:
        tried.append((monotonic(), event.key.name))
        if event.key.name == "a" and len(tried) < 6:
            raise RuntimeError("not today")

    async with running(
        list_page("7", config_map("a", 5), config_map("b", 6)),
        Stream((0.1, watch_event("ADDED", config_map("c", 8))), keep_open=True),
    ) as cache:
        subscription = cache.informer(ConfigMap).subscribe(raising, name="raising")
        ear = Ear(cache)
        await asyncio.sleep(0.3)
        assert subscription.synced
        assert [name for _, name in tried] == ["a", "b", "c"]
        assert ear.words() == ["create a ->5 initial", "create b ->6 initial", "create c ->8"]
        await asyncio.sleep(60)
        assert [name for _, name in tried] == ["a", "b", "c", "a", "a", "a"]
        at = [moment for moment, name in tried if name == "a"]
        for ceiling, (earlier, later) in zip((0.5, 1, 2), pairwise(at), strict=True):
            assert ceiling / 2 <= later - earlier <= ceiling
        assert cache.stats()[0].handler_errors == {"raising": 3}


@pytest.mark.conformance(27)
async def test_a_failed_update_comes_again_with_the_newest_state_and_the_oldest_difference() -> None:
    broken = True
    notified: list[str] = []

    def handler(event: Event[ConfigMap]) -> None:
        if broken:
            raise RuntimeError("not today")
        assert event.old is not None
        assert event.new is not None
        notified.append(f"{event.old.header.resource_version}>{event.new.header.resource_version}")

    async with running(
        list_page("7"),
        Stream(
            (
                *(1.0, watch_event("ADDED", config_map("a", 8))),
                *(0.1, watch_event("MODIFIED", config_map("a", 9))),
                *(0.1, watch_event("MODIFIED", config_map("a", 10))),
            ),
            keep_open=True,
        ),
    ) as cache:
        await asyncio.sleep(1.05)
        subscription = cache.informer(ConfigMap).subscribe(
            lambda event: handler(event) if event.type is EventType.UPDATE else None, name="late"
        )
        await asyncio.sleep(0.2)
        broken = False
        await asyncio.sleep(60)
        assert notified == ["8>10"]
        assert subscription.idle


@pytest.mark.conformance(27)
async def test_a_failed_event_of_an_object_that_is_gone_leaves_only_its_deletion() -> None:
    notified: list[str] = []

    def handler(event: Event[ConfigMap]) -> None:
        if event.type is EventType.CREATE:
            raise RuntimeError("never")
        notified.append(str(event.type))

    async with running(
        list_page("7", config_map("a", 5)), Stream((0.1, watch_event("DELETED", config_map("a", 8))), keep_open=True)
    ) as cache:
        cache.informer(ConfigMap).subscribe(handler, name="h")
        await asyncio.sleep(300)
        assert notified == ["delete"]
        assert cache.stats()[0].handler_errors == {"h": 1}


@pytest.mark.conformance(27)
async def test_a_later_success_does_not_make_up_for_an_earlier_failure() -> None:
    received: list[tuple[str, str]] = []

    def handler(event: Event[ConfigMap]) -> None:
        if event.type is not EventType.UPDATE or event.old is None or event.new is None:
            return
        if event.old.header.resource_version == "8" and len(received) < 1:
            raise RuntimeError("not today")
        received.append((event.old.header.resource_version, event.new.header.resource_version))

    async with running(
        list_page("7", config_map("a", 8)),
        Stream(
            (0.1, watch_event("MODIFIED", config_map("a", 9)), watch_event("MODIFIED", config_map("a", 10))),
            keep_open=True,
        ),
    ) as cache:
        cache.informer(ConfigMap).subscribe(handler, name="h")
        await asyncio.sleep(60)
        # The step from 8, which no handler has seen, comes again and reaches to the newest state.
        assert received == [("9", "10"), ("8", "10")]


async def test_a_handler_that_cannot_keep_up_sees_fewer_larger_steps_that_still_fit_together() -> None:
    gate = asyncio.Event()
    steps: list[tuple[str, str, str]] = []

    async def slow(event: Event[ConfigMap]) -> None:
        await gate.wait()
        old = event.old.header.resource_version if event.old else ""
        new = event.new.header.resource_version if event.new else ""
        steps.append((event.key.name, old, new))

    changes = [watch_event("MODIFIED", config_map(f"c{number % 10}", 100 + number)) for number in range(5_000)]
    first = [config_map(f"c{number}", number + 1) for number in range(10)]
    async with running(list_page("50", *first), Stream((1.0, *changes), keep_open=True)) as cache:
        subscription = cache.informer(ConfigMap).subscribe(slow, name="slow")
        await asyncio.sleep(2)
        assert len(subscription) <= 1024 + 10
        gate.set()
        await asyncio.sleep(1)
        assert subscription.idle
        for name in {name for name, _, _ in steps}:
            own = [(old, new) for each, old, new in steps if each == name]
            assert own[-1][1] == cache.list(ConfigMap)[int(name[1:])].metadata.resource_version
            assert all(earlier[1] == later[0] for earlier, later in pairwise(own))


async def test_a_resync_tells_everything_once_more_without_asking_the_server() -> None:
    async with running(list_page("7", config_map("a", 5), config_map("b", 6)), OPEN) as cache:
        received: list[tuple[float, bool, int]] = []
        cache.informer(ConfigMap).subscribe(
            lambda event: received.append((monotonic(), event.unchanged, event.priority)), name="resynced", resync=100.0
        )
        once = Ear(cache)
        await asyncio.sleep(250)
        assert [(unchanged, priority) for _, unchanged, priority in received] == [(False, -100)] * 2 + [
            (True, -100)
        ] * 4
        assert 90 <= received[2][0] <= 110
        assert 180 <= received[4][0] <= 220
        assert len(once.words()) == 2
        assert cache.stats()[0].relists == {}


@pytest.mark.conformance(28)
async def test_a_slow_handler_blocks_neither_the_store_nor_the_others() -> None:
    async def slow(_: Event[ConfigMap]) -> None:
        await asyncio.sleep(1_000)

    changes = [watch_event("ADDED", config_map(f"c{number}", 10 + number)) for number in range(200)]
    async with running(list_page("7"), Stream((1.0, *changes), keep_open=True)) as cache:
        subscription = cache.informer(ConfigMap).subscribe(slow, name="slow")
        ear = Ear(cache)
        await asyncio.sleep(2)
        assert len(cache.list(ConfigMap)) == 200
        assert len(ear.words()) == 200
        assert len(subscription) == 199


async def test_a_cancelled_subscription_hears_nothing_more() -> None:
    async with running(
        list_page("7", config_map("a", 5)), Stream((5.0, watch_event("ADDED", config_map("b", 8))), keep_open=True)
    ) as cache:
        ear = Ear(cache)
        other = Ear(cache)
        await asyncio.sleep(1)
        ear.subscription.cancel()
        ear.subscription.cancel()
        await asyncio.sleep(10)
        assert ear.words() == ["create a ->5 initial"]
        assert other.words() == ["create a ->5 initial", "create b ->8"]


async def test_a_handler_that_reads_the_cache_finds_its_own_event_there(world: World) -> None:
    cache = Cache(world.transport(), [Cached(ConfigMap)], clock=LoopClock())
    missing: list[str] = []

    def check(event: Event[ConfigMap]) -> None:
        stored = cache.get(ConfigMap, event.key)
        if (stored is None) != (event.type is EventType.DELETE):
            missing.append(repr(event))

    cache.informer(ConfigMap).subscribe(check, name="check")
    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        for number in range(5):
            world.put(ConfigMap(metadata=ObjectMeta(name=f"c{number}")))
            await world.advance(1)
            world.delete(ConfigMap, f"c{number}")
            await world.advance(1)
    assert missing == []


async def test_a_big_relist_lets_the_loop_turn() -> None:
    many = [config_map(f"c{number:05}", number + 10, text="x" * 500) for number in range(3_000)]
    async with running(list_page("9000", *many), OPEN) as cache:
        cache.informer(ConfigMap).subscribe(lambda _: None, name="all")
        turns = 0
        while not cache.synced:
            await asyncio.sleep(0)
            turns += 1
        # 3,000 objects in groups of 64.
        assert turns >= 3_000 // 64
