"""A whole operator against both servers: status, ownership, finalizer, lease, webhooks, conversion."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

from kaito.runtime.client import Client
from kaito.runtime.client.connect import find_cluster_config
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.controller import Controller
from kaito.runtime.crd import Version, crd
from kaito.runtime.errors import ApiError, NotFound
from kaito.runtime.kinds import ConfigMap, Lease
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.meta import Condition, Model, ObjectMeta, Resource
from kaito.runtime.reconcile import Again, Request
from kaito.runtime.webhook import Admission, Conversion, Spoke, Webhook, admission_manifests, conversion_manifest

SECONDS = 30.0
"""Longest wait for something that takes milliseconds."""


class Server(Protocol):
    """What these tests need of the `server` fixture."""

    @property
    def name(self) -> str: ...
    @property
    def kubeconfig(self) -> Path: ...
    @property
    def namespace(self) -> str: ...
    async def ok(self, method: str, path: str, body: object = None, content: str = ..., **query: str) -> Any: ...
    async def call(self, method: str, path: str, body: object = None, content: str = ...) -> Any: ...


class PotSpec(Model):
    size: int | None = None


class PotStatus(Model):
    copies: int = 0
    conditions: list[Condition] = []


class Pot(Resource, api="manager.contract.dev/v1", kind="Pot"):
    spec: PotSpec = PotSpec()
    status: PotStatus = PotStatus()


class OldPotSpec(Model):
    liters: str | None = None


class OldPot(Resource, api="manager.contract.dev/v1beta1", kind="Pot"):
    spec: OldPotSpec = OldPotSpec()


class Potter:
    def __init__(self) -> None:
        self.cleaned: list[str] = []

    async def reconcile(self, request: Request[Pot]) -> Again | None:
        pot, api = request.object, request.api
        async with request.status() as status:
            for number in range(pot.spec.size or 0):
                copy = ConfigMap(metadata=ObjectMeta(name=f"{pot.name}-{number}"), data={"pot": pot.name})
                await api.ensure(copy, owner=pot)
            copies = await api.list(ConfigMap, owned_by=pot)
            status.set(copies=len(copies))
            status.condition("Ready", len(copies) == pot.spec.size, "Counted", f"{len(copies)} copies")
        request.event("Normal", "Converged", f"{len(copies)} copies")
        return None

    async def clean_up(self, request: Request[Pot]) -> Again | None:
        self.cleaned.append(request.key.name)
        return None

    def controller(self) -> Controller[Pot]:
        return Controller(Pot, self.reconcile).owns(ConfigMap).finalizes("manager.contract.dev/potter", self.clean_up)


@asynccontextmanager
async def installed(server: Server, manifest: dict[str, Any]) -> AsyncGenerator[None]:
    """The CRD, served; gone afterwards."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    name, group = manifest["metadata"]["name"], manifest["spec"]["group"]
    await server.ok("POST", path, manifest)
    for version in manifest["spec"]["versions"]:
        listing = f"/apis/{group}/{version['name']}/namespaces/{{ns}}/{manifest['spec']['names']['plural']}"
        await until(partial(_served, server, listing))
    try:
        yield
    finally:
        await server.call("DELETE", f"{path}/{name}")
        await until(partial(_gone, server, f"{path}/{name}"))


async def _served(server: Server, path: str) -> bool:
    return bool((await server.call("GET", path)).status == 200)


async def _gone(server: Server, path: str) -> bool:
    return bool((await server.call("GET", path)).status == 404)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SECONDS):
        while not await condition():  # noqa: ASYNC110 - polled, as a user would
            await asyncio.sleep(0.05)


@asynccontextmanager
async def client_of(server: Server) -> AsyncGenerator[Client]:
    transport = HttpTransport(await find_cluster_config(server.kubeconfig))
    try:
        yield Client(transport, field_manager="contract")
    finally:
        await transport.close()


def settings_for(server: Server, **more: Any) -> Settings:
    return Settings(
        kubeconfig=server.kubeconfig,
        namespaces=(server.namespace,),
        leader_election_namespace=server.namespace,
        metrics_bind_address="0",
        health_probe_bind_address="0",
        **more,
    )


def pot(server: Server, name: str = "p", **spec: Any) -> Pot:
    return Pot(metadata=ObjectMeta(name=name, namespace=server.namespace), spec=PotSpec(**spec))


async def test_an_operator_keeps_its_objects_converged(server: Server) -> None:
    potter = Potter()
    async with (
        installed(server, crd([Version(model=Pot, storage=True)])),
        client_of(server) as client,
        Manager(settings_for(server), controllers=[potter.controller()], lease="potter", name="potter") as manager,
    ):
        await client.create(pot(server, size=3))

        async def copies(count: int) -> bool:
            return (await client.get(Pot, "p", server.namespace)).status.copies == count

        await until(lambda: copies(3))
        stored = await client.get(Pot, "p", server.namespace)
        assert stored.metadata.finalizers == ["manager.contract.dev/potter"]
        [ready] = stored.status.conditions
        assert (ready.type, ready.status, ready.observed_generation) == ("Ready", "True", 1)
        await client.delete(ConfigMap(metadata=ObjectMeta(name="p-1", namespace=server.namespace)), if_uid=False)

        async def back() -> bool:
            return await client.find(ConfigMap, "p-1", server.namespace) is not None

        await until(back)
        assert manager.is_leader
        holder = (await client.get(Lease, "potter", server.namespace)).spec.holder_identity
        assert holder
        await client.delete(stored)

        async def gone() -> bool:
            return await client.find(Pot, "p", server.namespace) is None

        await until(gone)
        assert potter.cleaned == ["p"]
    async with client_of(server) as client:
        assert (await client.get(Lease, "potter", server.namespace)).spec.holder_identity == ""


@pytest.mark.conformance(45)
async def test_a_clean_stop_hands_the_lease_over_at_once(server: Server) -> None:
    first = Manager(settings_for(server), lease="turns", name="first")
    second = Manager(settings_for(server), lease="turns", name="second")
    await first.__aenter__()
    async with asyncio.timeout(SECONDS):
        await first.wait_elected()
        async with second:
            assert not second.is_leader
            loop = asyncio.get_running_loop()
            stopped_at = loop.time()
            await first.__aexit__(None, None, None)
            await second.wait_elected()
            assert loop.time() - stopped_at < 6


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def validate(admission: Admission[Pot]) -> None:
    if admission.object is not None and (admission.object.spec.size or 0) > 9:
        admission.deny("spec.size", "at most 9 fit on the shelf")


def fill_in(obj: Pot) -> Pot:
    return obj if obj.spec.size is not None else obj.evolve(spec=obj.spec.evolve(size=2))


potter_webhook = Webhook(Pot, default=fill_in, validate=validate)


@asynccontextmanager
async def requested(server: Server, port: int) -> AsyncGenerator[None]:
    """Webhook configurations that point at the port, still without a CA bundle."""
    name, url = f"potter-{server.namespace}", f"https://127.0.0.1:{port}"
    group = "/apis/admissionregistration.k8s.io/v1"
    manifests = admission_manifests(potter_webhook, name=name, url=url)
    for manifest in manifests:
        for entry in manifest["webhooks"]:
            entry["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": server.namespace}}
        await server.ok("POST", f"{group}/{manifest['kind'].lower()}s", manifest)
    try:
        yield
    finally:
        for manifest in manifests:
            await server.call("DELETE", f"{group}/{manifest['kind'].lower()}s/{name}")


async def test_the_api_server_calls_webhooks_with_the_configured_ca(server: Server) -> None:
    port = free_port()
    settings = settings_for(server, webhook_bind_address="127.0.0.1", webhook_port=port, webhook_hosts=("127.0.0.1",))
    manager = Manager(settings, webhooks=[potter_webhook], name="potter")
    async with (
        installed(server, crd([Version(model=Pot, storage=True)])),
        client_of(server) as client,
        requested(server, port),
        manager,
    ):

        async def defaulted() -> bool:
            """True once the API server has heard of configuration and bundle."""
            try:
                made = await client.create(pot(server, name=f"p{asyncio.get_running_loop().time()}"))
            except ApiError as error:
                if "failed calling webhook" not in str(error):
                    raise
                return False
            return made.spec.size == 2

        await until(defaulted)
        with pytest.raises(ApiError, match=r"spec\.size: at most 9 fit on the shelf"):
            await client.create(pot(server, name="large", size=10))
        assert (await client.create(pot(server, name="small", size=9))).spec.size == 9


def up(old: OldPot) -> Pot:
    return Pot(metadata=old.metadata, spec=PotSpec(size=int(old.spec.liters or 0)))


def down(new: Pot) -> OldPot:
    return OldPot(metadata=new.metadata, spec=OldPotSpec(liters=str(new.spec.size or 0)))


@pytest.mark.parametrize("server", ["real"], indirect=True)
async def test_the_api_server_converts_through_our_webhook(server: Server) -> None:
    port = free_port()
    manifest = crd(
        [Version(model=Pot, storage=True), Version(model=OldPot, storage=False)],
        conversion=conversion_manifest(url=f"https://127.0.0.1:{port}"),
    )
    settings = settings_for(server, webhook_bind_address="127.0.0.1", webhook_port=port, webhook_hosts=("127.0.0.1",))
    manager = Manager(settings, conversions=[Conversion(Pot, Spoke(OldPot, up, down))], name="potter")
    async with installed(server, manifest), client_of(server) as client, manager:
        await client.create(pot(server, size=4))

        async def converted() -> bool:
            try:
                return (await client.get(OldPot, "p", server.namespace)).spec.liters == "4"
            except NotFound:
                raise
            except ApiError:
                return False

        await until(converted)
        old = OldPot(metadata=ObjectMeta(name="q", namespace=server.namespace), spec=OldPotSpec(liters="7"))
        await client.create(old)
        assert (await client.get(Pot, "q", server.namespace)).spec.size == 7
