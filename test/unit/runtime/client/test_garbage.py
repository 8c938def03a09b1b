"""What failed is freed at once: no error keeps itself, a frame or a connection until a garbage collection.

The collector counts objects, not bytes, and a connection with TLS holds 256 KiB: an operator whose server is away would
grow by many MiB before the collector comes.
"""

import asyncio
import gc
import weakref
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from kaito.runtime.cache.reflector.watch import WatchStream
from kaito.runtime.client import Client, MergePatch
from kaito.runtime.client.config import ClusterConfig, NoCredentials
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.controller import Controller
from kaito.runtime.dependents import Dependents
from kaito.runtime.errors import AlreadyOwned, ApiError, KaitoRuntimeError, TransportError
from kaito.runtime.kinds import ConfigMap, Secret
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.reconcile import Request
from kaito.runtime.testing import World

pytestmark = pytest.mark.usefixtures("direct")

ABSENT = ConfigMap(metadata=ObjectMeta(name="absent", namespace="default"))


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Only reference counts free anything."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def living(kind: type) -> int:
    return sum(isinstance(found, kind) for found in gc.get_objects())


@asynccontextmanager
async def server_without_tls(greeting: bytes) -> AsyncGenerator[str]:
    """Answers a handshake with the greeting, or never."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if greeting:
            await reader.read(1)
            writer.write(greeting)
            writer.close()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.sample(2)
@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("greeting", [b"this is not TLS\n", b""], ids=["foreign", "silent"])
async def test_a_failed_handshake_leaves_no_buffers(greeting: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaito.runtime.client.http.CONNECT_SECONDS", 0.1)
    async with server_without_tls(greeting) as url:
        transport = HttpTransport(ClusterConfig(server=url, credentials=NoCredentials()))
        for _ in range(3):
            with pytest.raises(TransportError):
                await transport.request("GET", "/version")
        await asyncio.sleep(0.05)  # the loop calls `connection_lost`
        assert living(SSLProtocol) == 0
        await transport.close()


@pytest.mark.usefixtures("no_collector")
async def test_an_error_of_the_client_is_freed_when_it_was_handled(world: World) -> None:
    errors: list[weakref.ref[BaseException]] = []
    transport = world.transport()
    client = Client(transport, field_manager="test")
    for reachable in (True, False):
        transport.reachable = reachable
        try:
            await client.patch(ABSENT, MergePatch({"data": {}}))
        except (ApiError, TransportError) as error:
            errors.append(weakref.ref(error))
    assert [error() for error in errors] == [None, None]


@pytest.mark.usefixtures("no_collector")
async def test_an_error_of_a_reconcile_is_freed_after_it_is_logged(world: World) -> None:
    errors: list[weakref.ref[BaseException]] = []

    def keep(error: BaseException) -> BaseException:
        errors.append(weakref.ref(error))
        return error

    async def reconcile(request: Request[ConfigMap]) -> None:
        if request.object.name == "slow":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError as error:
                keep(error)
                raise
        try:
            await request.api.patch(ABSENT, MergePatch({"data": {}}))
        except ApiError as error:
            keep(error)
            raise

    async def clean_up(_: Request[ConfigMap]) -> None:
        raise keep(KaitoRuntimeError("not yet"))

    controller = Controller(ConfigMap, reconcile, deadline=5).finalizes("example.com/a", clean_up)
    async with world.manager(controller.finalizes("example.com/b", clean_up)):
        for name in ("quick", "slow"):
            world.put(ConfigMap(metadata=ObjectMeta(name=name, namespace="default")))
        await world.advance(20)
        world.delete(ConfigMap, "quick")
        await world.advance(1)
        assert len(errors) > 4
        assert [error() for error in errors if error() is not None] == []


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("names", [("a",), ("a", "b")], ids=["one", "a group"])
async def test_errors_of_dependents_are_freed_after_they_are_logged(world: World, names: tuple[str, ...]) -> None:
    errors: list[weakref.ref[BaseException]] = []
    dependents = Dependents("set", ConfigMap)

    async def reconcile(request: Request[Secret]) -> None:
        try:
            await dependents.apply(request, [ConfigMap(metadata=ObjectMeta(name=name)) for name in names])
        except* AlreadyOwned as group:
            errors.extend(weakref.ref(error) for error in group.exceptions)
            raise

    for name in names:
        world.put(ConfigMap(metadata=ObjectMeta(name=name, namespace="default")))
    async with world.manager(dependents.watched_by(Controller(Secret, reconcile))):
        world.put(Secret(metadata=ObjectMeta(name="owner", namespace="default")))
        await world.advance(1)
        assert len(errors) >= len(names)
        assert [error() for error in errors if error() is not None] == []


@pytest.mark.usefixtures("no_collector")
async def test_a_broken_watch_is_freed_when_the_next_one_is_open(world: World) -> None:
    transport = world.transport()

    async def reconcile(_: Request[ConfigMap]) -> None: ...

    before = living(WatchStream)  # of tests that failed, whose tracebacks are kept
    async with world.manager(Controller(ConfigMap, reconcile), transport=transport):
        for _ in range(5):
            transport.break_streams()
            await world.advance(10)
        assert living(WatchStream) == before + 1
    with suppress(TransportError):
        await transport.close()
