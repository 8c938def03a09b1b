"""LIST and WATCH, and every way a watch can end: what is asked of the server, and what the store holds after it."""

import asyncio
import random
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import structlog

from kaito.runtime.cache import Cache, Cached, Event, Index, InformerHealth, UnreadableObject
from kaito.runtime.cache.reflector.reconnect import Ending, ReconnectDelay
from kaito.runtime.clock import LoopClock
from kaito.runtime.errors import CacheNotSynced, TransportError
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import Resource
from kaito.runtime.tasks import TaskScope
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


def config_map(name: str, version: int, uid: str = "", **data: str) -> Mapping[str, Any]:
    metadata = {"name": name, "namespace": "ns", "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": metadata, "data": data}


def watch(*pieces: Piece, keep_open: bool = False) -> Stream:
    return Stream(pieces, keep_open=keep_open)


OPEN = Stream(keep_open=True)


@asynccontextmanager
async def reflected(
    *answers: Answer, streaming: bool = False, relist: float = 0.0
) -> AsyncGenerator[tuple[ScriptedTransport, Cache]]:
    transport = ScriptedTransport(*answers)
    declared = [Cached(ConfigMap, relist=relist)]
    cache = Cache(transport, declared, clock=LoopClock(), rng=random.Random(1), streaming=streaming)
    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        yield transport, cache


async def after(seconds: float) -> None:
    await asyncio.sleep(seconds)


def names(cache: Cache) -> list[str]:
    return [found.name for found in cache.list(ConfigMap)]


def versions(cache: Cache) -> dict[str, str]:
    return {found.name: found.metadata.resource_version for found in cache.list(ConfigMap)}


def health(cache: Cache) -> InformerHealth:
    return cache.health()[0]


@pytest.mark.conformance(12)
async def test_the_first_list_takes_any_version_and_the_watch_goes_on_from_the_lists() -> None:
    async with reflected(list_page("7", config_map("a", 5)), OPEN) as (transport, cache):
        await after(0.5)
        assert names(cache) == ["a"]
        first, second = transport.calls
        assert first.path == "/api/v1/configmaps"
        assert first.query == {"limit": "500", "resourceVersion": "0"}
        assert second.query.pop("timeoutSeconds") in {str(seconds) for seconds in range(300, 600)}  # type: ignore[attr-defined]
        assert second.query == {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": "7"}


async def test_pages_are_followed_to_the_end() -> None:
    async with reflected(
        list_page("7", config_map("a", 5), token="t1"),
        list_page("7", config_map("b", 6), token="t2"),
        list_page("7"),
        OPEN,
    ) as (transport, cache):
        await after(0.5)
        assert names(cache) == ["a", "b"]
        assert [call.query.get("continue") for call in transport.lists] == [None, "t1", "t2"]


@pytest.mark.conformance(13)
async def test_a_stream_that_ends_in_good_order_is_reopened_from_the_last_version_without_a_list() -> None:
    async with reflected(
        list_page("7", config_map("a", 5)),
        watch(watch_event("ADDED", config_map("b", 8)), watch_event("MODIFIED", config_map("a", 9))),
        OPEN,
    ) as (transport, cache):
        await after(5)
        assert versions(cache) == {"a": "9", "b": "8"}
        assert len(transport.lists) == 1
        assert [call.query["resourceVersion"] for call in transport.watches] == ["7", "9"]
        assert cache.stats()[0].restarts == {"closed": 1}


@pytest.mark.conformance("client-04")
async def test_streams_that_the_server_closes_at_once_are_reopened_at_most_once_a_second() -> None:
    closing = [watch(watch_event("MODIFIED", config_map("a", 8 + turn))) for turn in range(60)]
    async with reflected(list_page("7", config_map("a", 5)), *closing) as (transport, _):
        await after(30)
        assert 28 <= len(transport.watches) <= 31
        assert len(transport.lists) == 1


@pytest.mark.conformance("client-04")
async def test_a_stream_that_ends_at_once_without_an_event_is_an_error() -> None:
    async with reflected(list_page("7"), watch(), list_page("8", config_map("a", 8)), OPEN) as (transport, cache):
        await after(3)
        assert names(cache) == ["a"]
        assert len(transport.lists) == 2
        assert transport.lists[1].at - transport.watches[0].at >= 1
        assert cache.stats()[0].relists == {"empty": 1}


@pytest.mark.conformance("client-05")
@pytest.mark.conformance(14)
@pytest.mark.parametrize(
    "gone",
    [
        pytest.param(watch(error_event(410, "Expired", "too old resource version")), id="as an ERROR event"),
        pytest.param(status(410, "Expired", "too old resource version"), id="as the status of the watch"),
    ],
)
async def test_an_expired_version_relists_once_and_ends_consistent(gone: Answer) -> None:
    async with reflected(
        list_page("7", config_map("a", 5), config_map("gone", 6), config_map("again", 4, "first")),
        gone,
        list_page("20", config_map("a", 18, text="new"), config_map("b", 19), config_map("again", 17, "second")),
        OPEN,
    ) as (transport, cache):
        await after(3)
        assert versions(cache) == {"a": "18", "again": "17", "b": "19"}
        assert {found.name: found.uid for found in cache.list(ConfigMap)}["again"] == "second"
        assert [call.query["resourceVersion"] for call in transport.lists] == ["0", "7"]
        assert transport.lists[1].query == {"resourceVersion": "7", "resourceVersionMatch": "NotOlderThan"}
        assert transport.watches[-1].query["resourceVersion"] == "20"
        assert cache.stats()[0].relists == {"expired": 1}


@pytest.mark.conformance(14)
async def test_an_expired_version_on_the_list_itself_asks_for_the_newest_at_once() -> None:
    async with reflected(
        list_page("7", config_map("a", 5)),
        status(410, "Expired"),
        status(410, "Expired", "the version is too old"),
        list_page("20", config_map("b", 19)),
        OPEN,
    ) as (transport, cache):
        await after(3)
        assert names(cache) == ["b"]
        assert [call.query.get("resourceVersion") for call in transport.lists] == ["0", "7", None]
        assert transport.lists[2].at == transport.lists[1].at


@pytest.mark.conformance("client-05")
@pytest.mark.conformance(14)
async def test_a_continue_token_that_expires_restarts_the_list_in_one_piece() -> None:
    async with reflected(
        list_page("7", config_map("a", 5), token="t1"),
        status(410, "Expired", "the continue token expired"),
        list_page("9", config_map("a", 5), config_map("b", 8)),
        OPEN,
    ) as (transport, cache):
        await after(0.5)
        assert names(cache) == ["a", "b"]
        assert transport.lists[2].query == {"resourceVersion": "0"}
        assert len(transport.lists) == 3


@pytest.mark.conformance(15)
async def test_a_version_the_server_has_not_reached_falls_back_to_the_newest_list() -> None:
    too_large = status(
        504, "Timeout", "Too large resource version: 7, current: 3", causes=[{"reason": "ResourceVersionTooLarge"}]
    )
    async with reflected(
        list_page("7", config_map("a", 5)), status(410, "Expired"), too_large, list_page("3", config_map("b", 2)), OPEN
    ) as (transport, cache):
        await after(3)
        assert names(cache) == ["b"]
        assert [call.query.get("resourceVersion") for call in transport.lists] == ["0", "7", None]
        assert transport.watches[-1].query["resourceVersion"] == "3"


@pytest.mark.conformance(16)
@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        pytest.param(status(429, "TooManyRequests"), "throttled", id="429"),
        pytest.param(REFUSED, "broken", id="refused"),
        pytest.param(watch(error_event(429, "TooManyRequests")), "throttled", id="429 as an event"),
        pytest.param(watch(TransportError("connection reset")), "broken", id="reset at once"),
    ],
)
async def test_a_busy_or_absent_server_is_asked_again_without_a_list(trouble: Answer, reason: str) -> None:
    async with reflected(list_page("7", config_map("a", 5)), trouble, trouble, OPEN) as (transport, cache):
        await after(20)
        assert len(transport.lists) == 1
        assert [call.query["resourceVersion"] for call in transport.watches] == ["7", "7", "7"]
        assert cache.stats()[0].restarts == {reason: 2}
        assert health(cache).watching
        assert not health(cache).error


@pytest.mark.conformance(13)
async def test_a_connection_that_breaks_after_it_worked_is_reopened_at_once_however_often() -> None:
    broken = [
        watch(watch_event("MODIFIED", config_map("a", 10 + turn)), 2.0, TransportError("connection reset"))
        for turn in range(10)
    ]
    async with reflected(list_page("7", config_map("a", 5)), *broken, OPEN) as (transport, cache):
        await after(30)
        assert len(transport.lists) == 1
        at = [call.at for call in transport.watches]
        assert [later - earlier for earlier, later in pairwise(at)] == [pytest.approx(2.0)] * 10
        assert versions(cache) == {"a": "19"}
        assert cache.stats()[0].restarts == {"reset": 10}


@pytest.mark.conformance(16)
async def test_waits_double_to_thirty_seconds_with_jitter_and_start_anew_after_two_quiet_minutes() -> None:
    async with reflected(list_page("7"), *[REFUSED] * 12, watch(130.0), REFUSED, OPEN) as (transport, _):
        await after(700)
        at = [call.at for call in transport.watches]
        waits = [later - earlier for earlier, later in pairwise(at)]
        for step, wait in enumerate(waits[:12]):
            least = max(1.0, min(0.8 * 2**step, 30.0))
            assert least <= wait < max(2 * least, 1.7), (step, wait)
        # The stream that lived 130 s ended in good order and was reopened at once; the refusal after it is new trouble.
        assert waits[12] == pytest.approx(130)
        assert waits[13] < 1.7
        assert len(transport.lists) == 1


@pytest.mark.conformance(16)
async def test_the_server_may_ask_for_a_longer_wait() -> None:
    busy = status(429, "TooManyRequests", retryAfterSeconds=45)
    async with reflected(list_page("7"), busy, OPEN) as (transport, _):
        await after(60)
        assert transport.watches[1].at - transport.watches[0].at >= 45


@pytest.mark.conformance(17)
async def test_a_bookmark_moves_the_version_and_nothing_else() -> None:
    async with reflected(list_page("7", config_map("a", 5)), watch(bookmark("99")), OPEN) as (transport, cache):
        recorded: list[str] = []
        cache.informer(ConfigMap).subscribe(lambda event: recorded.append(repr(event)), name="all")
        await after(3)
        assert versions(cache) == {"a": "5"}
        assert transport.watches[-1].query["resourceVersion"] == "99"
        assert recorded == ["<create ConfigMap ns/a initial>"]


async def test_a_server_that_went_back_in_time_is_noticed_at_its_next_bookmark_and_listed_anew() -> None:
    async with reflected(
        list_page("700", config_map("a", 500)),
        watch(60.0, bookmark("20"), keep_open=True),
        list_page("21", config_map("b", 19)),
    ) as (transport, cache):
        await after(65)
        assert names(cache) == ["b"]
        assert [call.query.get("resourceVersion") for call in transport.lists] == ["0", None]
        assert transport.watches[-1].query["resourceVersion"] == "21"


@pytest.mark.conformance(24)
async def test_a_silent_connection_is_given_up_three_minutes_after_the_last_bookmark() -> None:
    async with reflected(list_page("7", config_map("a", 5)), watch(60.0, bookmark("8"), keep_open=True), OPEN) as (
        transport,
        cache,
    ):
        await after(239)
        assert len(transport.watches) == 1
        await after(2)
        assert len(transport.watches) == 2
        assert len(transport.lists) == 1
        assert transport.watches[1].query["resourceVersion"] == "8"
        assert cache.stats()[0].restarts == {"stalled": 1}


@pytest.mark.conformance("client-03")
@pytest.mark.conformance(24)
async def test_a_connection_without_bookmarks_is_given_up_when_the_server_should_have_closed_it() -> None:
    async with reflected(list_page("7", config_map("a", 5)), watch(keep_open=True), OPEN) as (transport, _):
        await after(1)
        requested = int(transport.watches[0].query["timeoutSeconds"])
        await after(requested + 3)
        assert len(transport.watches) == 1
        await after(3)
        assert len(transport.watches) == 2
        assert len(transport.lists) == 1


@pytest.mark.conformance(25)
async def test_refused_credentials_resume_the_watch_once_they_are_renewed() -> None:
    async with reflected(list_page("7", config_map("a", 5)), status(401, "Unauthorized"), OPEN) as (transport, cache):
        await after(3)
        assert len(transport.lists) == 1
        assert [call.query["resourceVersion"] for call in transport.watches] == ["7", "7"]
        assert cache.stats()[0].restarts == {"unauthorized": 1}


@pytest.mark.conformance("client-07")
@pytest.mark.parametrize(
    "noise",
    [
        pytest.param(b"<html>502 Bad Gateway</html>\n", id="a proxy's page"),
        pytest.param(b'{"type":"ADDED","object":{"metadata":{"na\n', id="a cut line"),
        pytest.param(b'{"type":"ADDED","object":{"metadata":{"na', id="a cut line at the end"),
        pytest.param(watch_event("RENAMED", config_map("a", 9)), id="an unknown type"),
        pytest.param(b"x" * (17 * 1024 * 1024), id="17 MiB without an end"),
    ],
)
async def test_what_is_no_watch_stream_is_counted_and_leads_to_a_relist(noise: bytes) -> None:
    async with reflected(
        list_page("7", config_map("a", 5)),
        watch(watch_event("ADDED", config_map("b", 8)), noise),
        list_page("10", config_map("c", 10)),
        OPEN,
    ) as (transport, cache):
        await after(3)
        assert names(cache) == ["c"]
        assert len(transport.lists) == 2
        assert cache.stats()[0].relists == {"malformed": 1}


@pytest.mark.conformance("client-07")
async def test_an_object_without_metadata_is_counted_and_the_stream_goes_on() -> None:
    async with reflected(
        list_page("7", {"spec": {}}, config_map("a", 5)),
        watch(
            watch_event("ADDED", {"metadata": {"labels": 3}}), watch_event("ADDED", config_map("b", 8)), keep_open=True
        ),
    ) as (transport, cache):
        await after(1)
        assert names(cache) == ["a", "b"]
        assert cache.stats()[0].undecodable == 2
        assert len(transport.lists) == 1


async def test_requests_say_who_asks_and_are_observed() -> None:
    seen: list[tuple[str, str]] = []

    class Observer:
        def finished(self, *, method: str, host: str, code: str, seconds: float, sent: int, received: int) -> None:
            assert (method, host, sent) == ("GET", "scripted", 0)
            assert seconds == 0
            seen.append((code, "body" if received else ""))

        def retried(self, *, method: str, host: str, code: str) -> None: ...
        def limited(self, *, method: str, host: str, seconds: float) -> None: ...
        def dated(self, date: str, seconds: float) -> None: ...

    transport = ScriptedTransport(REFUSED, list_page("7"), REFUSED, status(429, "TooManyRequests"), OPEN)
    cache = Cache(
        transport, [Cached(ConfigMap)], streaming=False, user_agent="memcached-operator/1.0", observer=Observer()
    )
    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        await after(30)
    assert seen == [("<error>", ""), ("200", "body"), ("<error>", ""), ("429", ""), ("200", "")]
    assert {call.headers["user-agent"] for call in transport.calls} == {"memcached-operator/1.0"}


class Secretive(Resource, api="v1", kind="Secret"):
    """A secret whose data must be numbers."""

    data: dict[str, int]


async def test_no_log_line_and_no_error_shows_an_object() -> None:
    value = "aHVudGVyMg"
    secret = {"metadata": {"name": "s", "namespace": "ns", "resourceVersion": "5"}, "data": {"password": value}}
    nameless = {"data": {"password": value}, "metadata": {"labels": {"password": value}}}
    cut = watch_event("ADDED", {"data": {"password": value}})[:-4] + b"\n"
    transport = ScriptedTransport(
        Stream((b'{"data":"' + value.encode() + b'"',)),
        list_page("7", secret, nameless),
        watch(watch_event("ADDED", nameless), cut),
        list_page("9", secret),
        OPEN,
    )
    by_password = Index(Secretive, lambda found: [str(found.data["password"])], name="by-password")
    cache = Cache(transport, [Cached(Secretive, indexes=[by_password])], streaming=False, clock=LoopClock())

    def handler(event: Event[Secretive]) -> None:
        assert event.new is not None
        event.new.object.data.clear()

    cache.informer(Secretive).subscribe(handler, name="handler")
    with structlog.testing.capture_logs() as lines:
        async with TaskScope("test") as scope:
            scope.spawn(cache.run(), name="cache")
            await after(60)
            with pytest.raises(UnreadableObject) as failure:
                cache.list(Secretive, unreadable="fail")
    raised = [failure.value, *(line["exc_info"] for line in lines if "exc_info" in line)]
    printed = str(lines) + "".join("".join(traceback.format_exception(error)) for error in raised)
    assert "bytes of JSON" in printed
    assert "event handler failed" in printed
    assert value not in printed


async def test_why_nothing_arrives_is_known_and_named_until_it_is_over() -> None:
    sentence = 'configmaps is forbidden: User "operator" cannot list resource "configmaps" at the cluster scope'
    denied = status(403, "Forbidden", sentence)
    async with reflected(denied, denied, list_page("7", config_map("a", 5)), OPEN) as (transport, cache):
        await after(0.5)
        assert sentence in health(cache).error
        with pytest.raises(CacheNotSynced, match="cannot list resource"):
            cache.list(ConfigMap)
        with pytest.raises(CacheNotSynced, match=r"ConfigMap.*cannot list resource"):
            await cache.wait_synced(0.1)
        await after(10)
        assert names(cache) == ["a"]
        assert not health(cache).error
        assert len(transport.lists) == 3


async def test_any_other_refusal_of_the_watch_waits_and_relists() -> None:
    async with reflected(
        list_page("7", config_map("a", 5)), status(500, "InternalError"), list_page("9", config_map("b", 9)), OPEN
    ) as (_, cache):
        await after(0.5)
        assert health(cache).error
        assert not health(cache).watching
        await after(3)
        assert names(cache) == ["b"]
        assert cache.stats()[0].relists == {"failed": 1}


async def test_cut_streams_keep_every_object_once() -> None:
    changes = [watch_event("ADDED", config_map(f"n{number}", 10 + number)) for number in range(20)]
    cut = [watch(*changes[start : start + 4], TransportError("reset")) for start in range(0, 20, 4)]
    async with reflected(list_page("7"), *cut) as (transport, cache):
        await after(300)
        assert len(names(cache)) == 20
        assert len(transport.lists) == 1


async def test_a_periodic_relist_asks_for_the_newest_list_although_the_watch_works() -> None:
    quiet = watch(*(piece for turn in range(60) for piece in (60.0, bookmark(str(100 + turn)))))
    async with reflected(
        list_page("7", config_map("a", 5), config_map("missed", 6)),
        quiet,
        list_page("9", config_map("a", 8, text="new"), config_map("missed too", 9)),
        relist=1000,
    ) as (transport, cache):
        await after(899)
        assert len(transport.lists) == 1
        assert cache.stats()[0].relists == {}
        await after(202)
        assert versions(cache) == {"a": "8", "missed too": "9"}
        assert cache.list(ConfigMap)[0].data == {"text": "new"}
        assert transport.lists[1].query == {"limit": "500"}
        assert transport.watches[-1].query["resourceVersion"] == "9"
        assert cache.stats()[0].relists == cache.stats()[0].restarts == {"periodic": 1}
        assert not health(cache).error


async def test_a_stream_that_is_never_quiet_is_relisted_all_the_same_and_loses_nothing() -> None:
    class Busy(Stream):
        async def chunks(self) -> AsyncIterator[bytes]:
            for number in range(10_000):
                yield watch_event("ADDED", config_map(f"n{number}", 10 + number))
                if number % 100 == 0:
                    await asyncio.sleep(1)

    async with reflected(list_page("7"), Busy(), list_page("5000", config_map("n0", 10)), OPEN, relist=50) as (
        _,
        cache,
    ):
        await after(60)
        assert cache.stats()[0].relists == {"periodic": 1}
        assert names(cache) == ["n0"]


async def test_a_periodic_relist_is_due_that_long_after_any_fill() -> None:
    gone = watch(250.0, error_event(410, "Expired"))
    quiet = watch(*(piece for turn in range(60) for piece in (60.0, bookmark(str(100 + turn)))))
    async with reflected(list_page("7"), gone, list_page("8"), quiet, list_page("9"), relist=1000) as (
        transport,
        cache,
    ):
        await after(1140)
        assert cache.stats()[0].relists == {"expired": 1}
        await after(230)
        assert cache.stats()[0].relists == {"expired": 1, "periodic": 1}
        assert transport.lists[2].at - transport.lists[1].at >= 900


async def test_a_periodic_relist_streams_where_the_server_can() -> None:
    before = (
        watch_event("ADDED", config_map("a", 5)),
        watch_event("ADDED", config_map("missed", 6)),
        bookmark("9", initial_events_end=True),
    )
    now = (
        watch_event("ADDED", config_map("a", 12, text="new")),
        watch_event("ADDED", config_map("b", 11)),
        bookmark("13", initial_events_end=True),
    )
    async with reflected(watch(*before, keep_open=True), watch(*now, keep_open=True), streaming=True, relist=100) as (
        transport,
        cache,
    ):
        await after(80)
        assert versions(cache) == {"a": "5", "missed": "6"}
        await after(32)
        assert [call.query.get("resourceVersion") for call in transport.watches] == [None, None]
        assert cache.stats()[0].relists == {"periodic": 1}
        assert versions(cache) == {"a": "12", "b": "11"}
        assert cache.list(ConfigMap)[0].data == {"text": "new"}


def test_every_ending_says_whether_to_relist_and_whether_to_wait() -> None:
    assert {ending.reason for ending in Ending if ending.relist} == {
        "expired",
        "empty",
        "malformed",
        "failed",
        "periodic",
    }
    assert {ending.reason for ending in Ending if not ending.pause} == {"closed", "reset", "stalled", "periodic"}


def test_the_delay_is_remembered_between_failures_and_forgotten_after_quiet() -> None:
    delay = ReconnectDelay(random.Random(3))
    now = 0.0
    for least in (0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30):
        wait = delay.next(now)
        assert least <= wait < 2 * least
        now += wait
    assert 0.8 <= delay.next(now + 121) < 1.6
