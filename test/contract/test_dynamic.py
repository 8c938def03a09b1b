"""What comes and goes while a manager runs, against both servers: a kind installed later, and a second cluster."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from kaito.runtime.cache import View
from kaito.runtime.client import Client
from kaito.runtime.client.connect import find_cluster_config
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.controller import Controller, kind_availability as served
from kaito.runtime.crd import Version, crd
from kaito.runtime.kinds import ConfigMap, Secret
from kaito.runtime.manager import Cluster, Manager, Settings
from kaito.runtime.meta import Model, ObjectKey, ObjectMeta, Resource
from kaito.runtime.reconcile import Again, Request

SECONDS = 30.0
"""Longest wait for something that takes a second at most."""

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class Server(Protocol):
    """What these tests need of the `server` fixture."""

    @property
    def kubeconfig(self) -> Path: ...
    @property
    def namespace(self) -> str: ...
    async def ok(self, method: str, path: str, body: object = None, content: str = ..., **query: str) -> Any: ...
    async def call(self, method: str, path: str, body: object = None, content: str = ...) -> Any: ...


class LateSpec(Model):
    size: int = 0


class Late(Resource, api="dynamic.contract.dev/v1", kind="Late", plural="lates"):
    spec: LateSpec = LateSpec()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SECONDS):
        while not await condition():  # noqa: ASYNC110 - polled, as a user would
            await asyncio.sleep(0.05)


def settings_for(server: Server) -> Settings:
    return Settings(
        kubeconfig=server.kubeconfig,
        namespaces=(server.namespace,),
        metrics_bind_address="0",
        health_probe_bind_address="0",
    )


@asynccontextmanager
async def client_of(server: Server) -> AsyncGenerator[Client]:
    transport = HttpTransport(await find_cluster_config(server.kubeconfig))
    try:
        yield Client(transport, field_manager="contract")
    finally:
        await transport.close()


async def install(server: Server) -> None:
    await server.ok("POST", CRDS, crd([Version(model=Late, storage=True)]))

    async def is_served() -> bool:
        path = "/apis/dynamic.contract.dev/v1/namespaces/{ns}/lates"
        return bool((await server.call("GET", path)).status == 200)

    await until(is_served)


async def uninstall(server: Server) -> None:
    await server.call("DELETE", f"{CRDS}/lates.dynamic.contract.dev")

    async def gone() -> bool:
        return bool((await server.call("GET", f"{CRDS}/lates.dynamic.contract.dev")).status == 404)

    await until(gone)


async def test_a_kind_may_be_installed_after_the_start_and_go_away_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "LOOKUP_SECONDS", 0.2)
    seen: list[str] = []

    async def reconcile(request: Request[Late]) -> Again | None:
        seen.append(request.key.name)
        return None

    def late(name: str) -> Late:
        return Late(metadata=ObjectMeta(name=name, namespace=server.namespace))

    def ran(name: str) -> Callable[[], Awaitable[bool]]:
        async def check() -> bool:
            return name in seen

        return check

    controller = Controller(Late, reconcile, wait_for_kinds=True)
    async with client_of(server) as client, Manager(settings_for(server), controllers=[controller]) as manager:
        assert manager.readyz.report().healthy
        try:
            await install(server)
            await client.create(late("first"))
            await until(ran("first"))
            await uninstall(server)

            async def rests() -> bool:
                return not manager.cache.declares(Late)

            await until(rests)
            assert manager.readyz.report().healthy
            await install(server)
            await client.create(late("second"))
            await until(ran("second"))
        finally:
            await uninstall(server)


async def test_a_second_cluster_is_reached_by_its_kubeconfig(server: Server) -> None:
    away = f"{server.namespace}-away"
    await server.ok("POST", "/api/v1/namespaces", {"metadata": {"name": away}})
    member = Cluster("member", kubeconfig=server.kubeconfig, namespaces=[away])

    def same_name(secret: Secret, _: View) -> ObjectKey:
        return ObjectKey(server.namespace, secret.name)

    async def copy(request: Request[ConfigMap]) -> Again | None:
        secret = await member.api.find(Secret, request.key.name, away)
        if secret is not None:
            metadata = ObjectMeta(name=secret.name, namespace=away)
            await member.api.ensure(Secret(metadata=metadata, string_data={"copied": request.object.data["value"]}))
        return None

    controller = Controller(ConfigMap, copy).watches(Secret, to=same_name, cluster=member)
    async with (
        client_of(server) as client,
        Manager(settings_for(server), controllers=[controller], clusters=[member], name="copier"),
    ):
        await client.create(ConfigMap(metadata=ObjectMeta(name="a", namespace=server.namespace), data={"value": "1"}))
        await client.create(Secret(metadata=ObjectMeta(name="a", namespace=away)))

        async def copied() -> bool:
            return "copied" in (await client.get(Secret, "a", away)).data

        await until(copied)
        assert {each.key.namespace for each in member.cache.list(Secret)} == {away}
