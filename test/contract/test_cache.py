"""The informers against both servers: what they hold is what the server has, however they got it."""

import asyncio
import random
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from kaito.runtime.cache import Cache, Cached, Event, EventType
from kaito.runtime.client import Client, MergePatch
from kaito.runtime.client.api import Api
from kaito.runtime.client.connect import find_cluster_config
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.client.transport import CONNECT_SECONDS, NO_HEADERS, REQUEST_SECONDS, Reply, StreamReply
from kaito.runtime.errors import CacheNotSynced, TransportError
from kaito.runtime.kinds import ConfigMap, Namespace
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.tasks import TaskScope

SECONDS = 20.0
"""Longest wait for something that takes milliseconds."""


class Server(Protocol):
    """What these tests need of the `server` fixture."""

    @property
    def name(self) -> str: ...
    @property
    def kubeconfig(self) -> Path: ...
    @property
    def namespace(self) -> str: ...


class CuttingTransport:
    """The real transport, with a knife: breaks open streams, and may bend the next targets."""

    def __init__(self, inner: HttpTransport) -> None:
        self._inner = inner
        self.generation = 0
        self.bend: Callable[[str], str] = str
        self.targets: list[str] = []

    @property
    def host(self) -> str:
        return self._inner.host

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        body: bytes | None = None,
        timeout: float = REQUEST_SECONDS,
    ) -> Reply:
        target = self.bend(target)
        self.targets.append(target)
        return await self._inner.request(method, target, headers=headers, body=body, timeout=timeout)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        connect: float = CONNECT_SECONDS,
        idle: float | None = None,
    ) -> AsyncGenerator[StreamReply]:
        target = self.bend(target)
        self.targets.append(target)
        async with self._inner.stream(method, target, headers=headers, connect=connect, idle=idle) as reply:
            yield _Cuttable(reply, self)

    def cut(self) -> None:
        """Breaks every open stream at its next chunk, which is lost."""
        self.generation += 1

    async def close(self) -> None:
        await self._inner.close()


class _Cuttable:
    def __init__(self, inner: StreamReply, transport: CuttingTransport) -> None:
        self._inner = inner
        self._transport = transport
        self._generation = transport.generation

    @property
    def status(self) -> int:
        return self._inner.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._inner.headers

    async def chunks(self) -> AsyncGenerator[bytes]:
        async for chunk in self._inner.chunks():
            if self._generation != self._transport.generation:
                raise TransportError("cut")
            yield chunk

    async def read(self) -> bytes:
        return await self._inner.read()


@asynccontextmanager
async def connected(server: Server, headers: Mapping[str, str] = NO_HEADERS) -> AsyncGenerator[CuttingTransport]:
    access = await find_cluster_config(server.kubeconfig)
    transport = CuttingTransport(HttpTransport(replace(access, headers=dict(headers))))
    try:
        yield transport
    finally:
        await transport.close()


@asynccontextmanager
async def running(transport: CuttingTransport, *kinds: Cached, streaming: bool = True) -> AsyncGenerator[Cache]:
    cache = Cache(transport, kinds, streaming=streaming, rng=random.Random(1))
    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        await cache.wait_synced(SECONDS)
        yield cache


async def until(holds: Callable[[], object]) -> None:
    """Waits for something another process does."""
    async with asyncio.timeout(SECONDS):
        while not holds():  # noqa: ASYNC110 -- the other process has no event to wait for
            await asyncio.sleep(0.02)


def config_map(server: Server, name: str, *, labels: Mapping[str, str] = NO_HEADERS, **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace=server.namespace, labels=dict(labels)), data=data)


def here(server: Server, **options: Any) -> Cached:
    return Cached(ConfigMap, namespaces=[server.namespace], labels="contract", **options)


APP = {"contract": "yes"}


@pytest.mark.conformance(18)
@pytest.mark.parametrize("streaming", [True, False])
async def test_a_cache_is_filled_and_followed_and_its_objects_equal_the_live_ones(
    server: Server, streaming: bool
) -> None:
    async with connected(server) as transport:
        client = Client(transport, field_manager="contract")
        for number in range(30):
            await client.create(config_map(server, f"c{number:02}", labels=APP, number=str(number)))
        async with running(transport, here(server), streaming=streaming) as cache:
            assert ("sendInitialEvents" in "".join(transport.targets)) == streaming
            # The first list may be of the server's watch cache, which follows the last creation.
            await until(lambda: len(cache.list(ConfigMap)) == 30)
            first = cache.list(ConfigMap)
            assert [found.name for found in first] == [f"c{number:02}" for number in range(30)]
            live = await client.list(ConfigMap, namespace=server.namespace, labels="contract")
            manifests = [found.to_dict() for found in live]
            for manifest in manifests:
                manifest["metadata"].pop("managedFields", None)
            assert [found.to_dict() for found in first] == manifests
            await client.patch(first[3], MergePatch({"data": {"number": "new"}}))
            await client.delete(first[4])
            await until(lambda: len(cache.list(ConfigMap)) == 29)
            assert cache.list(ConfigMap)[3].data == {"number": "new"}


@pytest.mark.conformance(22)
async def test_handlers_hear_what_happens_in_order_and_leaving_the_selector_is_a_deletion(server: Server) -> None:
    async with connected(server) as transport, running(transport, here(server)) as cache:
        client = Client(transport, field_manager="contract")
        received: list[str] = []
        cache.informer(ConfigMap).subscribe(lambda event: received.append(f"{event.type} {event.key.name}"), name="h")
        one = await client.create(config_map(server, "one", labels=APP))
        await client.patch(one, MergePatch({"data": {"a": "b"}}))
        await client.patch(one, MergePatch({"metadata": {"labels": {"contract": None}}}))
        two = await client.create(config_map(server, "two", labels=APP))
        await client.delete(two)
        await until(lambda: len(received) == 5)
        assert received == ["create one", "update one", "delete one", "create two", "delete two"]
        assert cache.list(ConfigMap) == []


@pytest.mark.conformance(32)
@pytest.mark.conformance(33)
async def test_own_writes_are_read_back_at_once(server: Server) -> None:
    async with connected(server) as transport, running(transport, here(server)) as cache:
        api = Api(Client(transport, field_manager="contract"), cache)

        async def write_and_read(name: str) -> None:
            mine = await api.create(config_map(server, name, labels=APP))
            assert name in [found.name for found in await api.list(ConfigMap, namespace=server.namespace)]
            for turn in range(5):
                await api.patch(mine, MergePatch({"data": {"turn": str(turn)}}))
                assert (await api.get(ConfigMap, name, server.namespace)).data["turn"] == str(turn)
            await api.delete(mine)
            assert await api.find(ConfigMap, name, server.namespace) is None

        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(write_and_read(f"own{number}"))
        assert cache.stats()[0].waits["live"] == 0


@pytest.mark.conformance(34)
async def test_an_own_object_outside_the_selector_is_read_live(server: Server) -> None:
    async with connected(server) as transport, running(transport, here(server)) as cache:
        api = Api(Client(transport, field_manager="contract"), cache)
        await api.create(config_map(server, "outside", a="b"))
        assert (await api.get(ConfigMap, "outside", server.namespace)).data == {"a": "b"}


async def test_metadata_only_fetches_nothing_else(server: Server) -> None:
    async with connected(server) as transport:
        client = Client(transport, field_manager="contract")
        await client.create(config_map(server, "big", labels=APP, text="x" * 900_000))
        async with running(transport, here(server, only="metadata")) as cache:
            (found,) = cache.list(ConfigMap)
            assert (found.name, found.labels) == ("big", APP)
            assert cache.stats()[0].size < 2_000


@pytest.mark.parametrize("streaming", [True, False])
async def test_namespaces_with_options_of_their_own_and_the_rest_of_the_cluster(
    server: Server, streaming: bool
) -> None:
    other = f"{server.namespace}-rest"
    async with connected(server) as transport:
        client = Client(transport, field_manager="contract")
        await client.create(Namespace(metadata=ObjectMeta(name=other)))
        for place in (server.namespace, other):
            for name in ("front", "back"):
                labels = {"contract": server.namespace, "tier": name}
                await client.create(ConfigMap(metadata=ObjectMeta(name=name, namespace=place, labels=labels)))
        cached = Cached(
            ConfigMap,
            labels=f"contract={server.namespace}",
            namespaces={server.namespace: {"labels": "tier=front"}, "": {}},
        )
        async with running(transport, cached, streaming=streaming) as cache:

            def held() -> list[tuple[str, str]]:
                return [(found.namespace, found.name) for found in cache.list(ConfigMap)]

            assert held() == [(server.namespace, "front"), (other, "back"), (other, "front")]
            for place in (server.namespace, other):
                (back,) = [each for each in await client.list(ConfigMap, namespace=place) if each.name == "back"]
                await client.delete(back)
                await client.create(config_map(server, "late", labels={"tier": "front"}).with_metadata(namespace=place))
            await until(lambda: held() == [(server.namespace, "front"), (server.namespace, "late"), (other, "front")])


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_periodic_relist_is_a_consistent_read_and_changes_nothing(server: Server, streaming: bool) -> None:
    async with connected(server) as transport:
        client = Client(transport, field_manager="contract")
        await client.create(config_map(server, "one", labels=APP))
        async with running(transport, here(server, relist=0.2), streaming=streaming) as cache:
            received: list[str] = []
            cache.informer(ConfigMap).subscribe(
                lambda event: received.append(f"{event.type} {event.unchanged}"), name="h"
            )
            transport.targets.clear()
            await until(lambda: cache.stats()[0].relists["periodic"])
            first = transport.targets[0]
            assert "resourceVersion=" not in first
            assert ("sendInitialEvents" in first) == streaming
            await client.create(config_map(server, "two", labels=APP))
            await until(lambda: len(cache.list(ConfigMap)) == 2)
            assert received[:2] == ["create False", "update True"]


@pytest.mark.conformance(23)
async def test_the_largest_objects_pass(server: Server) -> None:
    async with connected(server) as transport, running(transport, here(server)) as cache:
        client = Client(transport, field_manager="contract")
        text = "größer 漢字 🚀 " * 40_000
        await client.create(config_map(server, "big", labels=APP, text=text))
        await until(lambda: cache.list(ConfigMap))
        assert cache.list(ConfigMap)[0].data["text"] == text


@pytest.mark.conformance(15)
async def test_a_version_the_server_has_not_reached_leads_to_the_newest_list(server: Server) -> None:
    async with connected(server) as transport, running(transport, here(server), streaming=False) as cache:
        client = Client(transport, field_manager="contract")
        await client.create(config_map(server, "one", labels=APP))
        await until(lambda: cache.list(ConfigMap))

        def bend(target: str) -> str:
            version = "none" if "watch=" in target else "99999999999"
            return re.sub(r"resourceVersion=\d+", f"resourceVersion={version}", target)

        transport.bend = bend
        transport.targets.clear()
        transport.cut()
        await client.create(config_map(server, "two", labels=APP))
        await until(lambda: cache.stats()[0].relists)
        transport.bend = str
        await until(lambda: len(cache.list(ConfigMap)) == 2)
        listed = [target for target in transport.targets if "labelSelector" in target and "watch=" not in target]
        assert ["resourceVersion=" in target for target in listed[:2]] == [True, False]
        await client.create(config_map(server, "three", labels=APP))
        await until(lambda: len(cache.list(ConfigMap)) == 3)


@pytest.mark.real
async def test_the_error_of_a_denied_kind_contains_the_permission(real: Server) -> None:
    async with connected(real, {"Impersonate-User": "nobody"}) as transport:
        cache = Cache(transport, [Cached(ConfigMap)], rng=random.Random(1))
        async with TaskScope("test") as scope:
            scope.spawn(cache.run(), name="cache")
            with pytest.raises(CacheNotSynced, match=r'configmaps is forbidden: User "nobody" cannot (list|watch)'):
                await cache.wait_synced(2)


async def test_churn_with_cut_watches_ends_with_the_cache_equal_to_a_live_list(server: Server) -> None:
    rng = random.Random(7)
    async with connected(server) as transport, running(transport, here(server)) as cache:
        client = Client(transport, field_manager="contract")
        replica: dict[str, str] = {}

        def replay(event: Event[ConfigMap]) -> None:
            if event.type is EventType.DELETE:
                del replica[event.key.name]
            else:
                assert event.new is not None
                replica[event.key.name] = event.new.header.resource_version

        cache.informer(ConfigMap).subscribe(replay, name="replica")

        async def churn(name: str) -> None:
            for turn in range(15):
                mine = await client.create(config_map(server, name, labels=APP))
                await client.patch(mine, MergePatch({"data": {"turn": str(turn)}}))
                if turn < 14 or rng.random() < 0.5:
                    await client.delete(mine)
                if rng.random() < 0.1:
                    transport.cut()

        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(churn(f"churn{number}"))

        live = await client.list(ConfigMap, namespace=server.namespace, labels="contract")
        expected = {found.name: found.metadata.resource_version for found in live}

        def held() -> dict[str, str]:
            return {found.name: found.metadata.resource_version for found in cache.list(ConfigMap)}

        await until(lambda: held() == expected and replica == expected)
        assert cache.stats()[0].restarts["reset"] > 0
        assert cache.stats()[0].handler_errors == {}
