"""Owners, namespaces and definitions: what goes with what, and what waits for what."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from kaito.apiserver import ApiServer

if TYPE_CHECKING:
    from test.unit.apiserver.conftest import Client

MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"
pytestmark = pytest.mark.virtual_time


async def owner(client: Client, name: str = "owner") -> dict[str, Any]:
    found: dict[str, Any] = await client.ok("POST", MAPS, {"metadata": {"name": name}})
    return found


def owned(name: str, *owners: dict[str, Any], block: bool = False) -> dict[str, Any]:
    references = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": item["metadata"]["name"],
            "uid": item["metadata"]["uid"],
            "blockOwnerDeletion": block,
        }
        for item in owners
    ]
    return {"metadata": {"name": name, "ownerReferences": references}}


async def names(client: Client) -> list[str]:
    await asyncio.sleep(0)
    listed = await client.ok("GET", MAPS)
    return [item["metadata"]["name"] for item in listed["items"]]


async def test_dependents_go_with_their_last_owner(client: Client) -> None:
    first, second = await owner(client, "one"), await owner(client, "two")
    await client.ok("POST", MAPS, owned("child", first, second))
    await client.ok("POST", MAPS, owned("grandchild", await client.ok("GET", f"{MAPS}/child")))
    await client.ok("DELETE", f"{MAPS}/one")
    assert await names(client) == ["child", "grandchild", "two"]
    child = await client.ok("GET", f"{MAPS}/child")
    assert [item["name"] for item in child["metadata"]["ownerReferences"]] == ["two"], (
        "the dangling reference is dropped"
    )
    await client.ok("DELETE", f"{MAPS}/two")
    assert await names(client) == []


async def test_a_child_of_nobody_is_collected(client: Client) -> None:
    gone = {"metadata": {"name": "gone", "uid": "00000000-0000-0000-0000-000000000000"}}
    await client.ok("POST", MAPS, owned("child", gone))
    assert await names(client) == []


async def test_a_recreated_owner_is_another_owner(client: Client) -> None:
    first = await owner(client)
    await client.ok("POST", MAPS, owned("child", first))
    await client.ok("DELETE", f"{MAPS}/owner")
    await owner(client)
    assert await names(client) == ["owner"]


async def test_orphans_stay(client: Client) -> None:
    await client.ok("POST", MAPS, owned("child", await owner(client)))
    await client.ok("DELETE", f"{MAPS}/owner", {"propagationPolicy": "Orphan"})
    assert await names(client) == ["child"]
    assert "ownerReferences" not in (await client.ok("GET", f"{MAPS}/child"))["metadata"]


async def test_foreground_deletion_waits_for_what_blocks(client: Client) -> None:
    child = owned("child", await owner(client), block=True)
    child["metadata"]["finalizers"] = ["example.com/hold"]
    await client.ok("POST", MAPS, child)
    marked = await client.ok("DELETE", f"{MAPS}/owner", {"propagationPolicy": "Foreground"})
    assert marked["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert await names(client) == ["child", "owner"]
    await client.ok("PATCH", f"{MAPS}/child", {"metadata": {"finalizers": None}}, MERGE)
    assert await names(client) == []


async def test_a_namespace_goes_when_its_last_object_has_gone(client: Client) -> None:
    await client.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "n"}})
    held = {"metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
    await client.ok("POST", "/api/v1/namespaces/n/configmaps", held)
    await client.ok("POST", "/api/v1/namespaces/n/secrets", {"metadata": {"name": "s"}})
    marked = await client.ok("DELETE", "/api/v1/namespaces/n")
    assert marked["status"]["phase"] == "Terminating"
    await asyncio.sleep(0)
    assert (await client.call("GET", "/api/v1/namespaces/n/secrets/s")).status == 404
    refused = await client.call("POST", "/api/v1/namespaces/n/secrets", {"metadata": {"name": "late"}})
    assert refused.status == 403
    assert refused.body["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    assert (await client.call("GET", "/api/v1/namespaces/n")).status == 200
    await client.ok("PATCH", "/api/v1/namespaces/n/configmaps/held", {"metadata": {"finalizers": None}}, MERGE)
    await asyncio.sleep(0)
    assert (await client.call("GET", "/api/v1/namespaces/n")).status == 404


THINGS = {
    "metadata": {"name": "things.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
    },
}
"""A CustomResourceDefinition."""


async def test_a_definition_takes_its_objects_with_it(client: Client) -> None:
    things, definitions = "/apis/example.com/v1/things", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    await client.ok("POST", definitions, THINGS)
    thing = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}}
    await client.ok("POST", "/apis/example.com/v1/namespaces/default/things", thing)
    stream = await client.watch(things)
    assert (await stream.event())["type"] == "ADDED"
    await client.ok("DELETE", f"{definitions}/things.example.com")
    await asyncio.sleep(0)
    assert (await client.call("GET", things)).status == 404
    assert [event["type"] for event in await stream.rest()] == ["DELETED"], "and the watch ends"


async def test_a_definition_that_is_being_removed_accepts_no_new_object(client: Client) -> None:
    things, definitions = (
        "/apis/example.com/v1/namespaces/default/things",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    )
    await client.ok("POST", definitions, THINGS)
    held = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t", "finalizers": ["a.com/hold"]}}
    await client.ok("POST", things, held)
    await client.ok("DELETE", f"{definitions}/things.example.com")
    await asyncio.sleep(0)
    answer = await client.call("POST", things, held | {"metadata": {"name": "new"}})
    why = "create not allowed while custom resource definition is terminating"
    assert (answer.status, answer.body["message"]) == (403, f'things.example.com "new" is forbidden: {why}')
    await client.ok("PATCH", f"{things}/t", {"metadata": {"finalizers": []}}, MERGE)
    await asyncio.sleep(0)
    assert (await client.call("GET", f"{definitions}/things.example.com")).status == 404


async def test_without_garbage_collection_nothing_follows() -> None:
    from test.unit.apiserver.conftest import Client as Requests

    client = Requests(ApiServer(collect_garbage=False))
    await client.ok("POST", MAPS, owned("child", await owner(client)))
    await client.ok("DELETE", f"{MAPS}/owner")
    assert await names(client) == ["child"]


async def test_a_claim_in_use_stays_until_its_pod_has_gone(client: Client) -> None:
    claims, pods = "/api/v1/namespaces/default/persistentvolumeclaims", "/api/v1/namespaces/default/pods"
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    await client.ok("POST", claims, {"metadata": {"name": "data"}, "spec": spec})
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}
    pod = {"containers": [{"name": "c", "image": "i"}], "volumes": [volume]}
    await client.ok("POST", pods, {"metadata": {"name": "p"}, "spec": pod})
    await client.ok("DELETE", f"{claims}/data")
    await asyncio.sleep(0)
    assert (await client.call("GET", f"{claims}/data")).status == 200
    await client.ok("DELETE", f"{pods}/p")
    await asyncio.sleep(0)
    assert (await client.call("GET", f"{claims}/data")).status == 404
