"""A kind with two versions and a conversion webhook: both servers ask our webhook server, and show the same objects."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from kaito.runtime.certs.authority import new_authority, new_leaf
from kaito.runtime.certs.serving import ServingContext
from kaito.runtime.crd import Version, crd
from kaito.runtime.meta import Model, Resource
from kaito.runtime.metrics import Metrics
from kaito.runtime.webhook import (
    Admission,
    Conversion,
    Spoke,
    Webhook,
    WebhookServer,
    admission_manifests,
    conversion_manifest,
)

if TYPE_CHECKING:
    from test.contract.conftest import Answer, Server

PATIENCE = 100
"""Tries, a tenth of a second apart, until a real server serves a new kind."""


UNLUCKY = 13
"""Liters that the old version cannot show."""


class TankSpec(Model):
    liters: int = 0
    color: str | None = None
    valves: list[str] | None = None
    """The old version has no such field, and no fractions of gallons; the conversion keeps them."""


class OldTankSpec(Model):
    gallons: int = 0


class Tank(Resource, api="water.example.com/v1", kind="Tank"):
    spec: TankSpec = TankSpec()


class OldTank(Resource, api="water.example.com/v1beta1", kind="Tank"):
    spec: OldTankSpec = OldTankSpec()


def up(old: OldTank) -> Tank:
    if old.spec.gallons < 0:
        message = "a tank cannot hold less than nothing"
        raise ValueError(message)
    return Tank(metadata=old.metadata, spec=TankSpec(liters=old.spec.gallons * 4, color=old.labels.get("color")))


def down(new: Tank) -> OldTank:
    if new.spec.liters == UNLUCKY:
        message = "there is no such tank"
        raise ValueError(message)
    labels = new.labels | ({"color": new.spec.color} if new.spec.color else {})
    metadata = new.metadata.evolve(labels=labels) if labels else new.metadata
    return OldTank(metadata=metadata, spec=OldTankSpec(gallons=new.spec.liters // 4))


@dataclass
class Tanks:
    """Paths of the kind on one server."""

    server: Server
    new: str
    old: str
    url: str
    bundle: str

    async def put(self, name: str, **spec: Any) -> Any:
        body = {"apiVersion": "water.example.com/v1", "kind": "Tank", "metadata": {"name": name}, "spec": spec}
        return await self.server.ok("POST", self.new, body)

    async def put_old(self, name: str, gallons: int) -> Any:
        body = {"apiVersion": "water.example.com/v1beta1", "kind": "Tank", "metadata": {"name": name}}
        return await self.server.ok("POST", self.old, body | {"spec": {"gallons": gallons}})


def paint(tank: Tank) -> Tank:
    return tank if tank.spec.color else tank.evolve(spec=tank.spec.evolve(color="white"))


def check(admission: Admission[Tank]) -> None:
    if admission.object is not None and admission.object.spec.liters > 100:
        admission.deny("spec.liters", "at most 100")


@pytest.fixture
async def tanks(server: Server) -> AsyncIterator[Tanks]:
    metrics, now = Metrics(), datetime.now(UTC)
    authority = new_authority("contract", now)
    serving = ServingContext(metrics)
    serving.load(new_leaf(authority, ["127.0.0.1"], now))
    conversion = Conversion(Tank, Spoke(OldTank, to_hub=up, from_hub=down), lossless=True)
    webhooks = [Webhook(Tank, default=paint, validate=check)]
    webhook = WebhookServer(webhooks, [conversion], metrics=metrics, host="127.0.0.1", port=0)
    await webhook.start(serving.context)
    url, bundle = f"https://127.0.0.1:{webhook.port}", base64.b64encode(authority.certificate).decode()
    requested = conversion_manifest(url=url)
    requested["webhook"]["clientConfig"]["caBundle"] = bundle
    definition = crd([Version(model=Tank, storage=True), Version(model=OldTank)], conversion=requested)
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    await server.ok("POST", definitions, definition)
    paths = [f"/apis/water.example.com/{version}/namespaces/{{ns}}/tanks" for version in ("v1", "v1beta1")]
    try:
        for path in paths:
            for _ in range(PATIENCE):
                if (await server.call("GET", path)).status == 200:
                    break
                await asyncio.sleep(0.1)
        yield Tanks(server, paths[0], paths[1], url, bundle)
    finally:
        for path in paths[:1]:
            await server.call("DELETE", path)
        await server.call("DELETE", f"{definitions}/tanks.water.example.com")
        for _ in range(PATIENCE):
            if (await server.call("GET", f"{definitions}/tanks.water.example.com")).status == 404:
                break
            await asyncio.sleep(0.1)
        await webhook.stop()


async def test_every_version_reads_what_any_version_wrote(tanks: Tanks) -> None:
    server = tanks.server
    assert (await tanks.put_old("a", 3))["spec"] == {"gallons": 3}
    await tanks.put("b", liters=40, color="blue")
    new = await server.ok("GET", tanks.new)
    assert [item["spec"] for item in new["items"]] == [{"liters": 12}, {"liters": 40, "color": "blue"}]
    old = await server.ok("GET", tanks.old)
    assert [item["spec"] for item in old["items"]] == [{"gallons": 3}, {"gallons": 10}]
    assert {item["apiVersion"] for item in old["items"]} == {"water.example.com/v1beta1"}
    blue = await server.ok("GET", f"{tanks.old}/b")
    assert blue["metadata"]["labels"] == {"color": "blue"}
    assert blue["metadata"]["uid"] == new["items"][1]["metadata"]["uid"]


async def test_a_lossless_conversion_keeps_what_the_other_version_cannot_say(tanks: Tanks) -> None:
    server = tanks.server
    await tanks.put("a", liters=42, valves=["top", "bottom"])
    old = await server.ok("GET", f"{tanks.old}/a")
    assert old["spec"] == {"gallons": 10}
    old["metadata"].pop("managedFields", None)
    replaced = await server.ok("PUT", f"{tanks.old}/a", old)
    assert replaced["metadata"]["generation"] == 1  # nothing has changed
    assert (await server.ok("GET", f"{tanks.new}/a"))["spec"] == {"liters": 42, "valves": ["top", "bottom"]}
    await server.ok("PATCH", f"{tanks.old}/a", {"spec": {"gallons": 5}}, "application/merge-patch+json")
    new = await server.ok("GET", f"{tanks.new}/a")
    assert new["spec"] == {"liters": 20, "valves": ["top", "bottom"]}
    assert "annotations" not in new["metadata"]


async def test_writes_through_the_other_version_keep_what_it_cannot_say(tanks: Tanks) -> None:
    server = tanks.server
    await tanks.put("a", liters=40, color="blue")
    merge = "application/merge-patch+json"
    patched = await server.ok("PATCH", f"{tanks.old}/a", {"spec": {"gallons": 5}}, merge)
    assert (patched["spec"], patched["metadata"]["generation"]) == ({"gallons": 5}, 2)
    assert (await server.ok("GET", f"{tanks.new}/a"))["spec"] == {"liters": 20, "color": "blue"}
    body = {
        "apiVersion": "water.example.com/v1beta1",
        "kind": "Tank",
        "metadata": {"name": "c"},
        "spec": {"gallons": 1},
    }
    applied = await server.ok("PATCH", f"{tanks.old}/c", body, "application/apply-patch+yaml", fieldManager="m")
    assert applied["spec"] == {"gallons": 1}
    assert (await server.ok("GET", f"{tanks.new}/c"))["spec"] == {"liters": 4}
    again = await server.ok("PATCH", f"{tanks.old}/c", body, "application/apply-patch+yaml", fieldManager="m")
    assert again["metadata"]["resourceVersion"] == applied["metadata"]["resourceVersion"]


async def test_watches_show_the_version_they_ask_for(tanks: Tanks) -> None:
    server = tanks.server
    await tanks.put("a", liters=8)
    started = (await server.ok("GET", tanks.old))["metadata"]["resourceVersion"]
    await tanks.put("b", liters=12)
    await server.ok("DELETE", f"{tanks.new}/b")
    found: list[tuple[str, str, int]] = []
    async with aclosing(server.watch(tanks.old, resourceVersion=started, timeoutSeconds="20")) as stream:
        async for event in stream:
            assert event["object"]["apiVersion"] == "water.example.com/v1beta1"
            found.append((event["type"], event["object"]["metadata"]["name"], event["object"]["spec"]["gallons"]))
            if len(found) == 2:
                await server.ok("PATCH", f"{tanks.new}/a", {"spec": {"liters": 40}}, "application/merge-patch+json")
            if len(found) == 3:
                break
    assert found == [("ADDED", "b", 3), ("DELETED", "b", 3), ("MODIFIED", "a", 10)]


async def test_what_cannot_be_converted_fails_with_the_reason(tanks: Tanks) -> None:
    body = {
        "apiVersion": "water.example.com/v1beta1",
        "kind": "Tank",
        "metadata": {"name": "a"},
        "spec": {"gallons": -1},
    }
    answer = await tanks.server.call("POST", tanks.old, body)
    assert answer.status == 500, answer.body
    assert answer.body["message"] == (
        "conversion webhook for water.example.com/v1beta1, Kind=Tank failed: Tank a from water.example.com/v1beta1 "
        "to water.example.com/v1: ValueError: a tank cannot hold less than nothing"
    )
    assert "reason" not in answer.body


async def test_what_the_other_version_cannot_show_fails_its_readers_and_nobody_else(tanks: Tanks) -> None:
    server = tanks.server
    await tanks.put("good", liters=4)
    started = (await server.ok("GET", tanks.new))["metadata"]["resourceVersion"]
    await tanks.put("unlucky", liters=UNLUCKY)
    assert len((await server.ok("GET", tanks.new))["items"]) == 2
    reason = (
        "conversion webhook for water.example.com/v1, Kind=Tank failed: Tank unlucky from water.example.com/v1 "
        "to water.example.com/v1beta1: ValueError: there is no such tank"
    )
    gotten = await server.call("GET", f"{tanks.old}/unlucky")
    assert (gotten.status, gotten.body["message"]) == (500, reason)
    assert (await server.call("GET", f"{tanks.old}/good")).status == 200
    listed = await server.call("GET", tanks.old)
    assert (listed.status, listed.body["message"]) == (500, reason)
    seen = [
        (event["type"], event["object"].get("message"))
        async for event in server.watch(tanks.old, resourceVersion=started, timeoutSeconds="5")
    ]
    assert seen == []


STREAMED = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
"""Parameters of a watch that begins with everything there is."""


async def test_initial_events_with_a_conversion_failure_are_not_complete(tanks: Tanks) -> None:
    """Without the end bookmark a client knows that it has not seen everything."""
    server = tanks.server
    await tanks.put("good", liters=4)
    whole = [event async for event in server.watch(tanks.old, **STREAMED, timeoutSeconds="2")]
    assert [event["type"] for event in whole] == ["ADDED", "BOOKMARK"]
    await tanks.put("unlucky", liters=UNLUCKY)
    seen = [event async for event in server.watch(tanks.old, **STREAMED, timeoutSeconds="3")]
    assert "BOOKMARK" not in [event["type"] for event in seen]
    assert "unlucky" not in [event["object"].get("metadata", {}).get("name") for event in seen]


async def test_a_page_with_an_object_that_cannot_be_converted_is_rejected(tanks: Tanks) -> None:
    """A page is never answered with the object left out."""
    server = tanks.server
    for name in ("a", "b", "d"):
        await tanks.put(name, liters=4)
    await tanks.put("c", liters=UNLUCKY)
    first = await server.call("GET", tanks.old, limit="2")
    if first.status == 200:
        names = [item["metadata"]["name"] for item in first.body["items"]]
        assert names == ["a", "b"]
        token: dict[str, Any] = {"continue": first.body["metadata"]["continue"]}
        second = await server.call("GET", tanks.old, limit="2", **token)
        assert second.status in {500, 504}, second.body  # the real one may wait for its cache, in vain
    else:
        assert first.status == 500, first.body
    table = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    assert (await server.call("GET", tanks.old, headers=table)).status in {500, 504}


async def refused_soon(tanks: Tanks, body: dict[str, Any]) -> Answer:
    """The refusal of an object, once both configurations count: a real server reads them from a cache."""
    for _ in range(PATIENCE):
        answer = await tanks.server.call("POST", tanks.old, body)
        if answer.status >= 400:
            return answer
        await tanks.server.ok("DELETE", f"{tanks.old}/{body['metadata']['name']}")
        await asyncio.sleep(0.1)
    raise AssertionError


async def test_admission_sees_the_version_it_is_declared_for(tanks: Tanks) -> None:
    server = tanks.server
    group = "/apis/admissionregistration.k8s.io/v1"
    made: list[str] = []
    for manifest in admission_manifests(
        Webhook(Tank, default=paint, validate=check), name=server.namespace, url=tanks.url
    ):
        for hook in manifest["webhooks"]:
            hook["clientConfig"]["caBundle"] = tanks.bundle
            hook["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": server.namespace}}
        await server.ok("POST", f"{group}/{manifest['kind'].lower()}s", manifest)
        made.append(f"{group}/{manifest['kind'].lower()}s/{server.namespace}")
    try:
        body = {"apiVersion": "water.example.com/v1beta1", "kind": "Tank", "metadata": {"name": "big"}}
        answer = await refused_soon(tanks, body | {"spec": {"gallons": 30}})
        assert answer.status == 422, answer.body
        assert answer.body["message"].endswith('Tank "big" is invalid: spec.liters: at most 100')
        created = await tanks.put_old("a", 3)
        for _ in range(PATIENCE):  # the two configurations have a cache each
            if "labels" in created["metadata"]:
                break
            await server.ok("DELETE", f"{tanks.old}/a")
            await asyncio.sleep(0.1)
            created = await tanks.put_old("a", 3)
        assert created["metadata"]["labels"] == {"color": "white"}
        assert (await server.ok("GET", f"{tanks.new}/a"))["spec"] == {"liters": 12, "color": "white"}
    finally:
        for path in made:
            await server.call("DELETE", path)
