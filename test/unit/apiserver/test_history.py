"""Bookmarks, bounded history and expired list tokens, in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from kaito.apiserver import ApiServer

if TYPE_CHECKING:
    from test.unit.apiserver.conftest import Client

MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"
pytestmark = pytest.mark.virtual_time


async def test_bookmarks_come_once_a_minute_with_the_newest_version(server: ApiServer, client: Client) -> None:
    stream = await client.watch(MAPS, resourceVersion=str(server.resource_version), allowWatchBookmarks="true")
    await client.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "elsewhere"}})
    loop = asyncio.get_running_loop()
    before = loop.time()
    bookmark = await stream.event()
    assert loop.time() - before == pytest.approx(60)
    assert bookmark["type"] == "BOOKMARK"
    assert bookmark["object"]["metadata"]["resourceVersion"] == str(server.resource_version)


async def test_a_watch_without_bookmarks_only_ends(server: ApiServer, client: Client) -> None:
    stream = await client.watch(MAPS, resourceVersion=str(server.resource_version), timeoutSeconds="300")
    loop = asyncio.get_running_loop()
    before = loop.time()
    assert await stream.rest() == []
    assert loop.time() - before == pytest.approx(300)


async def test_history_is_bounded_for_each_type(server: ApiServer, client: Client) -> None:
    await client.ok("POST", MAPS, {"metadata": {"name": "a"}})
    then = str(server.resource_version)
    for number in range(25):
        await client.ok("PATCH", f"{MAPS}/a", {"data": {"n": str(number)}}, MERGE)
    gone = await (await client.watch(MAPS, resourceVersion=then)).rest()
    assert [event["object"]["code"] for event in gone] == [410]
    namespaces = await client.watch("/api/v1/namespaces", resourceVersion=then)
    await client.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "n"}})
    assert (await namespaces.event())["type"] == "ADDED", "other types keep their own history"


async def test_an_expired_list_token_offers_an_inconsistent_one(client: Client) -> None:
    for name in "abcd":
        await client.ok("POST", MAPS, {"metadata": {"name": name}})
    first = await client.ok("GET", MAPS, limit="2")
    for number in range(25):
        await client.ok("PATCH", f"{MAPS}/a", {"data": {"n": str(number)}}, MERGE)
    await client.ok("DELETE", f"{MAPS}/c")
    expired = await client.call("GET", MAPS, limit="2", **{"continue": first["metadata"]["continue"]})
    assert (expired.status, expired.body["reason"]) == (410, "Expired")
    rest = await client.ok("GET", MAPS, limit="2", **{"continue": expired.body["metadata"]["continue"]})
    assert [item["metadata"]["name"] for item in rest["items"]] == ["d"]


async def test_resource_versions_are_one_counter_over_all_types(client: Client) -> None:
    first = await client.ok("POST", MAPS, {"metadata": {"name": "a"}})
    second = await client.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "n"}})
    third = await client.ok("PATCH", f"{MAPS}/a", {"data": {"x": "y"}}, MERGE)
    versions = [int(item["metadata"]["resourceVersion"]) for item in (first, second, third)]
    assert versions == [versions[0], versions[0] + 1, versions[0] + 2]


async def test_same_seed_same_names() -> None:
    from test.unit.apiserver.conftest import Client as Requests

    async def names() -> list[str]:
        client = Requests(ApiServer(seed=7))
        made = [await client.ok("POST", MAPS, {"metadata": {"generateName": "x-"}}) for _ in range(3)]
        return [item["metadata"]["name"] + item["metadata"]["uid"] for item in made]

    assert await names() == await names()


async def test_an_abandoned_watch_leaves_nothing_behind(server: ApiServer, client: Client) -> None:
    stream = await client.watch(MAPS)
    await stream.close()
    assert server.cut_watches("ConfigMap") == 0
