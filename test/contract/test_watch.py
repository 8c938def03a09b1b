"""Watches and lists over time: resuming, bookmarks, history that has gone, pages of one moment."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from kaito.runtime.tasks import together

if TYPE_CHECKING:
    from test.contract.conftest import Server

MERGE = "application/merge-patch+json"
MAPS = "/api/v1/namespaces/{ns}/configmaps"


def config_map(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}}


async def version(server: Server) -> str:
    listed = await server.ok("GET", MAPS)
    return str(listed["metadata"]["resourceVersion"])


async def test_a_watch_from_a_version_gets_everything_after_it(server: Server) -> None:
    start = await version(server)
    await server.ok("POST", MAPS, config_map("a"))
    await server.ok("PATCH", f"{MAPS}/a", {"data": {"x": "1"}}, MERGE)
    await server.ok("DELETE", f"{MAPS}/a")
    events = await server.events(MAPS, 3, resourceVersion=start)
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions)), "the deletion has a resource version of its own"
    assert events[2]["object"]["data"] == {"x": "1"}
    assert events[0]["object"]["kind"] == "ConfigMap"


async def test_a_watch_without_a_version_starts_with_what_is_there(server: Server) -> None:
    await server.ok("POST", MAPS, config_map("b"))
    await server.ok("POST", MAPS, config_map("a"))
    events = await server.events(MAPS, 2)
    assert {(event["type"], event["object"]["metadata"]["name"]) for event in events} == {
        ("ADDED", "a"),
        ("ADDED", "b"),
    }


async def test_objects_enter_and_leave_a_selection(server: Server) -> None:
    start = await version(server)
    await server.ok("POST", MAPS, config_map("a"))
    await server.ok("PATCH", f"{MAPS}/a", {"metadata": {"labels": {"l": "1"}}}, MERGE)
    await server.ok("PATCH", f"{MAPS}/a", {"data": {"x": "1"}}, MERGE)
    left = await server.ok("PATCH", f"{MAPS}/a", {"metadata": {"labels": {"l": "2"}}}, MERGE)
    await server.ok("DELETE", f"{MAPS}/a")
    await server.ok("POST", MAPS, config_map("end", l="1"))
    events = await server.events(MAPS, 4, resourceVersion=start, labelSelector="l=1")
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED", "ADDED"]
    gone = events[2]["object"]
    assert gone["metadata"]["resourceVersion"] == left["metadata"]["resourceVersion"]
    assert gone["metadata"]["labels"] == {"l": "1"}, "the last state that was selected"


async def test_a_watch_of_one_object_by_field(server: Server) -> None:
    start = await version(server)
    await server.ok("POST", MAPS, config_map("a"))
    await server.ok("POST", MAPS, config_map("b"))
    events = await server.events(MAPS, 1, resourceVersion=start, fieldSelector="metadata.name=b")
    assert events[0]["object"]["metadata"]["name"] == "b"


async def test_a_watch_ends_at_its_timeout(server: Server) -> None:
    start = await version(server)
    events = [event async for event in server.watch(MAPS, resourceVersion=start, timeoutSeconds="1")]
    assert all(event["type"] == "BOOKMARK" for event in events)


async def test_initial_events_end_with_a_marked_bookmark(server: Server) -> None:
    await server.ok("POST", MAPS, config_map("a"))
    await server.ok("POST", MAPS, config_map("b"))
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    stream = server.watch(MAPS, **query)
    first = [await anext(stream) for _ in range(3)]
    assert [event["type"] for event in first] == ["ADDED", "ADDED", "BOOKMARK"]
    bookmark = first[2]["object"]
    assert bookmark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert bookmark["kind"] == "ConfigMap"
    listed = await version(server)
    assert int(bookmark["metadata"]["resourceVersion"]) <= int(listed)
    await server.ok("POST", MAPS, config_map("c"))
    follow = await anext(stream)
    assert (follow["type"], follow["object"]["metadata"]["name"]) == ("ADDED", "c")
    await stream.aclose()


async def test_no_op_writes_send_no_events(server: Server) -> None:
    start = await version(server)
    made = await server.ok("POST", MAPS, config_map("a"))
    same = await server.ok("PATCH", f"{MAPS}/a", {"metadata": {"labels": {}}}, MERGE)
    assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    same = await server.ok("PUT", f"{MAPS}/a", made)
    assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    await server.ok("POST", MAPS, config_map("b"))
    events = await server.events(MAPS, 2, resourceVersion=start)
    assert [event["type"] for event in events] == ["ADDED", "ADDED"]


async def test_pages_show_one_moment(server: Server) -> None:
    for name in "abcde":
        await server.ok("POST", MAPS, config_map(name))
    first = await server.ok("GET", MAPS, limit="2")
    assert [item["metadata"]["name"] for item in first["items"]] == ["a", "b"]
    assert first["metadata"]["remainingItemCount"] == 3
    await server.ok("DELETE", f"{MAPS}/d")
    await server.ok("POST", MAPS, config_map("cc"))
    second = await server.ok("GET", MAPS, limit="2", **{"continue": first["metadata"]["continue"]})
    third = await server.ok("GET", MAPS, limit="2", **{"continue": second["metadata"]["continue"]})
    names = [item["metadata"]["name"] for page in (second, third) for item in page["items"]]
    assert names == ["c", "d", "e"], "as it was when the first page was given"
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert "continue" not in third["metadata"]


async def test_an_exact_list_shows_the_past(server: Server) -> None:
    await server.ok("POST", MAPS, config_map("a"))
    then = await version(server)
    await server.ok("POST", MAPS, config_map("b"))
    exact = await server.ok("GET", MAPS, resourceVersion=then, resourceVersionMatch="Exact")
    assert [item["metadata"]["name"] for item in exact["items"]] == ["a"]
    assert exact["metadata"]["resourceVersion"] == then
    fresh = await server.ok("GET", MAPS, resourceVersion=then, resourceVersionMatch="NotOlderThan")
    assert len(fresh["items"]) == 2


async def test_a_version_from_the_future_times_out_with_its_cause(server: Server) -> None:
    answer = await server.call("GET", MAPS, resourceVersion="9999999999", resourceVersionMatch="NotOlderThan")
    assert answer.status == 504
    assert answer.body["reason"] == "Timeout"
    assert [cause["reason"] for cause in answer.body["details"]["causes"]] == ["ResourceVersionTooLarge"]
    assert "Too large resource version" in answer.body["message"]


async def test_metadata_only_and_table_watches(server: Server) -> None:
    start = await version(server)
    await server.ok("POST", MAPS, config_map("a"))
    await server.ok("POST", MAPS, config_map("b"))
    url = server.url + MAPS.replace("{ns}", server.namespace)
    for form, kind in (("PartialObjectMetadata", "PartialObjectMetadata"), ("Table", "Table")):
        accept = f"application/json;as={form};v=v1;g=meta.k8s.io"
        params = {"watch": "1", "resourceVersion": start}
        async with server.session.get(url, params=params, headers={"accept": accept}) as response:
            lines = [await response.content.readline() for _ in range(2)]
        objects = [json.loads(line)["object"] for line in lines]
        assert [item["kind"] for item in objects] == [kind, kind]
        if form == "Table":
            assert objects[0]["columnDefinitions"]
            assert not objects[1].get("columnDefinitions")
            assert objects[1]["rows"][0]["cells"][0] == "b"


async def test_many_watchers_of_one_change(server: Server) -> None:
    start = await version(server)
    watches = [server.events(MAPS, 1, resourceVersion=start) for _ in range(5)]
    found = (await asyncio.gather(*watches, server.ok("POST", MAPS, config_map("a"))))[:5]
    assert all(events == found[0] for events in found)


AHEAD = 1_000_000
"""Versions by which a client is ahead of a server that was restored from an older state."""


async def test_a_watch_from_a_version_that_is_not_reached_yet_is_accepted_and_silent(server: Server) -> None:
    """No event and no bookmark of a lower version is sent, so the client cannot detect it there."""
    future = str(int(await version(server)) + AHEAD)
    query = {"resourceVersion": future, "allowWatchBookmarks": "true", "timeoutSeconds": "3"}
    seen: list[dict[str, Any]] = []

    async def follow() -> None:
        seen.extend([event async for event in server.watch(MAPS, **query)])

    async def write() -> None:
        await asyncio.sleep(0.5)
        await server.ok("POST", MAPS, config_map("unseen"))

    await together(follow(), write())
    assert seen == []


async def test_a_list_of_one_object_and_a_stream_that_selects_nothing_return_the_newest_version(
    server: Server,
) -> None:
    """The two requests by which an informer checks its watch."""
    await server.ok("POST", MAPS, config_map("a"))
    newest = await server.ok("POST", MAPS, config_map("b"))
    written = int(newest["metadata"]["resourceVersion"])
    listed = await server.ok("GET", MAPS, limit="1")
    assert int(listed["metadata"]["resourceVersion"]) >= written
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    none = {"labelSelector": "runtime.kaito.sh/none=none", "timeoutSeconds": "10"}
    (event,) = await server.events(MAPS, 1, **query, **none)
    assert event["type"] == "BOOKMARK"
    assert int(event["object"]["metadata"]["resourceVersion"]) >= written


async def test_initial_events_of_a_version_that_is_not_reached_yet_are_rejected(server: Server) -> None:
    """As an event of the stream; a client then requests the newest."""
    await server.ok("POST", MAPS, config_map("a"))
    future = str(int(await version(server)) + AHEAD)
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    seen = [event async for event in server.watch(MAPS, resourceVersion=future, timeoutSeconds="3", **query)]
    assert [(event["type"], event["object"].get("code")) for event in seen] == [("ERROR", 504)]
    assert "Too large resource version" in seen[0]["object"]["message"]
