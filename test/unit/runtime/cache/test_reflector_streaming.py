"""Filling by WatchList: the stream that begins with everything, and when LIST has to do instead."""

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kaito.runtime.cache import Cache, Cached
from kaito.runtime.clock import LoopClock
from kaito.runtime.errors import CacheNotSynced
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import World
from kaito.runtime.testing.scripted import (
    REFUSED,
    Answer,
    Piece,
    ScriptedTransport,
    Stream,
    bookmark,
    error_event,
    list_page,
    status,
    watch_event,
)

pytestmark = pytest.mark.virtual_time


def config_map(name: str, version: int) -> Mapping[str, Any]:
    metadata = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": metadata}


def stream(*pieces: Piece, keep_open: bool = False) -> Stream:
    return Stream(pieces, keep_open=keep_open)


OPEN = Stream(keep_open=True)


@asynccontextmanager
async def reflected(*answers: Answer) -> AsyncGenerator[tuple[ScriptedTransport, Cache]]:
    transport = ScriptedTransport(*answers)
    cache = Cache(transport, [Cached(ConfigMap)], clock=LoopClock(), rng=random.Random(1))
    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        yield transport, cache


def names(cache: Cache) -> list[str]:
    return [found.name for found in cache.list(ConfigMap)]


@pytest.mark.conformance(18)
async def test_the_store_is_filled_at_the_end_bookmark_and_the_same_stream_goes_on() -> None:
    async with reflected(
        stream(
            watch_event("ADDED", config_map("a", 5)),
            watch_event("ADDED", config_map("gone", 6)),
            watch_event("DELETED", config_map("gone", 7)),
            5.0,
            bookmark("8"),
            bookmark("9", initial_events_end=True),
            5.0,
            watch_event("ADDED", config_map("b", 10)),
            keep_open=True,
        )
    ) as (transport, cache):
        await asyncio.sleep(4)
        with pytest.raises(CacheNotSynced, match="ConfigMap: the server has begun to stream it and not ended"):
            names(cache)
        await asyncio.sleep(3)
        assert names(cache) == ["a"]
        await asyncio.sleep(5)
        assert names(cache) == ["a", "b"]
        (only,) = transport.calls
        assert only.query.pop("timeoutSeconds")  # type: ignore[attr-defined]
        assert only.query == {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "sendInitialEvents": "true",
            "resourceVersionMatch": "NotOlderThan",
        }


@pytest.mark.conformance(18)
@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(status(422, "Invalid", "sendInitialEvents is forbidden for watch"), id="422"),
        pytest.param(status(400, "BadRequest", "unknown parameter"), id="400"),
    ],
)
async def test_a_server_that_does_not_know_it_is_listed_from_then_on(refusal: Answer) -> None:
    async with reflected(
        refusal,
        list_page("7", config_map("a", 5)),
        status(410, "Expired"),
        list_page("9", config_map("b", 8)),
        stream(3.0, watch_event("ADDED", config_map("c", 10)), keep_open=True),
    ) as (transport, cache):
        await asyncio.sleep(10)
        assert names(cache) == ["b", "c"]
        assert sum("sendInitialEvents" in call.query for call in transport.calls) == 1
        assert len(transport.lists) == 2


@pytest.mark.conformance(18)
async def test_a_server_that_ignores_it_and_falls_silent_is_listed_after_half_a_minute() -> None:
    async with reflected(
        stream(
            watch_event("ADDED", config_map("a", 5)), 10.0, watch_event("ADDED", config_map("b", 6)), keep_open=True
        ),
        list_page("7", config_map("a", 5), config_map("b", 6)),
        OPEN,
    ) as (transport, cache):
        await asyncio.sleep(39)
        assert not transport.lists
        await asyncio.sleep(2)
        assert names(cache) == ["a", "b"]
        assert len(transport.lists) == 1


@pytest.mark.conformance(18)
async def test_a_server_that_ignores_it_and_goes_on_with_changes_is_listed_too() -> None:
    changes: list[Piece] = []
    for version in range(10, 30):
        changes += [10.0, watch_event("MODIFIED", config_map("a", version))]
    async with reflected(
        stream(watch_event("ADDED", config_map("a", 5)), *changes), list_page("31", config_map("a", 30)), OPEN
    ) as (transport, cache):
        await asyncio.sleep(29)
        assert not transport.lists
        await asyncio.sleep(2)
        assert names(cache) == ["a"]


@pytest.mark.conformance(18)
async def test_a_stream_cut_before_its_end_bookmark_leaves_nothing_behind() -> None:
    async with reflected(
        stream(watch_event("ADDED", config_map("a", 5)), REFUSED),
        stream(watch_event("ADDED", config_map("b", 6)), bookmark("7", initial_events_end=True), keep_open=True),
    ) as (transport, cache):
        await asyncio.sleep(3)
        assert names(cache) == ["b"]
        assert len(transport.calls) == 2


@pytest.mark.conformance(18)
@pytest.mark.conformance(16)
@pytest.mark.parametrize("busy", [status(429, "TooManyRequests"), REFUSED, stream(error_event(429, "TooManyRequests"))])
async def test_a_busy_server_is_asked_for_the_stream_again_not_for_a_list(busy: Answer) -> None:
    async with reflected(busy, busy, stream(bookmark("7", initial_events_end=True), keep_open=True)) as (
        transport,
        cache,
    ):
        await asyncio.sleep(20)
        assert cache.synced
        assert not transport.lists
        assert len(transport.calls) == 3


@pytest.mark.conformance(14)
async def test_an_expired_version_is_followed_by_a_stream_from_the_newest() -> None:
    async with reflected(
        stream(
            watch_event("ADDED", config_map("a", 5)),
            bookmark("7", initial_events_end=True),
            error_event(410, "Expired"),
        ),
        status(410, "Expired"),
        stream(watch_event("ADDED", config_map("b", 20)), bookmark("21", initial_events_end=True), keep_open=True),
    ) as (transport, cache):
        await asyncio.sleep(5)
        assert names(cache) == ["b"]
        assert [call.query.get("resourceVersion") for call in transport.calls] == [None, "7", None]
        assert not transport.lists
        assert cache.stats()[0].relists == {"expired": 1}


async def test_another_refusal_is_tried_as_a_list_once_and_the_stream_is_not_given_up() -> None:
    async with reflected(
        status(500, "InternalError"),
        status(500, "InternalError"),
        stream(bookmark("7", initial_events_end=True), keep_open=True),
    ) as (transport, cache):
        await asyncio.sleep(5)
        assert cache.synced
        assert [call.is_watch for call in transport.calls] == [True, False, True]


async def test_metadata_only_asks_for_metadata() -> None:
    transport = ScriptedTransport(status(400, "BadRequest"), list_page("7"))
    cache = Cache(transport, [Cached(ConfigMap, only="metadata")], clock=LoopClock(), rng=random.Random(1))
    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        await asyncio.sleep(1)
        accepted = [call.headers["accept"].split(";")[1] for call in transport.calls]
        assert accepted == ["as=PartialObjectMetadata", "as=PartialObjectMetadataList", "as=PartialObjectMetadata"]


@pytest.mark.conformance(18)
@pytest.mark.parametrize("streaming", [True, False])
async def test_both_ways_end_in_the_same_store(world: World, streaming: bool) -> None:
    for number in range(3):
        world.put(ConfigMap.model_validate({"metadata": {"name": f"c{number}"}}))
    cache = Cache(world.transport(), [Cached(ConfigMap)], streaming=streaming)
    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        await cache.wait_synced(10)
        world.cut_watches()
        world.delete(ConfigMap, "c1")
        await world.advance(5)
        assert [found for found in names(cache) if found.startswith("c")] == ["c0", "c2"]
        assert bool([requested for requested in world.requests if "sendInitialEvents" in str(requested)]) == streaming
