"""Scripted trouble: answers, delays, broken watches, lost and late events, forgotten history."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from kaito.apiserver import ApiServer, ConnectionDropped, Fault

if TYPE_CHECKING:
    from test.unit.apiserver.conftest import Client

MAPS = "/api/v1/namespaces/default/configmaps"
pytestmark = pytest.mark.virtual_time


def config_map(name: str) -> dict[str, object]:
    return {"metadata": {"name": name}, "data": {"x": "1"}}


async def test_a_status_is_answered_as_often_as_requested(server: ApiServer, client: Client) -> None:
    fault = server.inject(Fault(method="POST", kind="ConfigMap", status=429, retry_after=7, times=2))
    answers = [await client.call("POST", MAPS, config_map("a")) for _ in range(3)]
    assert [answer.status for answer in answers] == [429, 429, 201]
    assert answers[0].headers["retry-after"] == "7"
    assert answers[0].body["reason"] == "TooManyRequests"
    assert answers[0].body["details"]["retryAfterSeconds"] == 7
    assert fault.hits == 2


async def test_faults_match_verb_name_and_subresource(server: ApiServer, client: Client) -> None:
    server.inject(Fault(verb="patch", name="a", subresource="status", status=500, times=None))
    server.inject(Fault(verb="get", name="b", status=404, skip=1))
    await client.ok("POST", MAPS, config_map("b"))
    assert [(await client.call("GET", f"{MAPS}/b")).status for _ in range(3)] == [200, 404, 200]


async def test_a_delay_passes_in_the_loops_time(server: ApiServer, client: Client) -> None:
    server.inject(Fault(verb="list", delay=30))
    loop = asyncio.get_running_loop()
    before = loop.time()
    await client.ok("GET", MAPS)
    assert loop.time() - before == pytest.approx(30)


async def test_a_hanging_request_never_answers(server: ApiServer, client: Client) -> None:
    server.inject(Fault(verb="get", hang=True))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.call("GET", f"{MAPS}/a"), 3600)


async def test_a_dropped_connection_has_done_its_write(server: ApiServer, client: Client) -> None:
    server.inject(Fault(verb="create", drop_connection=True))
    with pytest.raises(ConnectionDropped):
        await client.call("POST", MAPS, config_map("a"))
    assert (await client.call("GET", f"{MAPS}/a")).status == 200


async def test_a_watch_is_cut_after_some_events(server: ApiServer, client: Client) -> None:
    server.inject(Fault(verb="watch", cut_after=1))
    stream = await client.watch(MAPS, resourceVersion=str(server.resource_version))
    await client.ok("POST", MAPS, config_map("a"))
    await client.ok("POST", MAPS, config_map("b"))
    assert [event["object"]["metadata"]["name"] for event in await stream.rest()] == ["a"]


async def test_garbage_comes_before_the_events(server: ApiServer, client: Client) -> None:
    server.inject(Fault(verb="watch", garbage=True))
    stream = await client.watch(MAPS)
    await client.ok("POST", MAPS, config_map("a"))
    line = await stream.line()
    with pytest.raises(json.JSONDecodeError):
        json.loads(line)
    assert (await stream.event())["type"] == "ADDED"


async def test_lost_events_are_missing_from_the_watch_but_not_from_a_list(server: ApiServer, client: Client) -> None:
    server.inject(Fault(kind="ConfigMap", name="a", lose_events=True))
    stream = await client.watch(MAPS, resourceVersion=str(server.resource_version))
    await client.ok("POST", MAPS, config_map("a"))
    await client.ok("POST", MAPS, config_map("b"))
    assert (await stream.event())["object"]["metadata"]["name"] == "b"
    listed = await client.ok("GET", MAPS)
    assert [item["metadata"]["name"] for item in listed["items"]] == ["a", "b"]


async def test_late_events_arrive_late(server: ApiServer, client: Client) -> None:
    server.inject(Fault(kind="ConfigMap", lag=0.5, times=None))
    stream = await client.watch(MAPS, resourceVersion=str(server.resource_version))
    loop = asyncio.get_running_loop()
    before = loop.time()
    await client.ok("POST", MAPS, config_map("a"))
    await stream.event()
    assert loop.time() - before == pytest.approx(0.5)


async def test_forgotten_history_is_gone_for_watches_and_exact_lists(server: ApiServer, client: Client) -> None:
    then = str(server.resource_version)
    await client.ok("POST", MAPS, config_map("a"))
    server.inject(Fault(expire=True, times=0))
    stream = await client.watch(MAPS, resourceVersion=then)
    events = await stream.rest()
    assert [event["type"] for event in events] == ["ERROR"]
    assert (events[0]["object"]["code"], events[0]["object"]["reason"]) == (410, "Expired")
    exact = await client.call("GET", MAPS, resourceVersion=then, resourceVersionMatch="Exact")
    assert (exact.status, exact.body["reason"]) == (410, "Expired")


async def test_cut_watches_end_all_streams_of_a_kind(server: ApiServer, client: Client) -> None:
    maps, pods = await client.watch(MAPS), await client.watch("/api/v1/pods")
    assert server.cut_watches("ConfigMap") == 1
    assert await maps.rest() == []
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    await client.ok("POST", "/api/v1/namespaces/default/pods", pod)
    assert (await pods.event())["type"] == "ADDED"


async def test_requests_are_logged(server: ApiServer, client: Client) -> None:
    await client.call("GET", f"{MAPS}/none")
    seen = server.requests[-1]
    assert (seen.method, seen.status, seen.verb, seen.kind, seen.name) == ("GET", 404, "get", "ConfigMap", "none")
    assert seen.user_agent == "unit/1.0"
