"""A kind without news fails `readyz` after three minutes, whatever the cause, until the server answers again."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from kaito.apiserver import ApiServer
from kaito.runtime import Cached, Controller, Model, ObjectMeta, Request, Resource
from kaito.runtime.cache import Cache, InformerHealth
from kaito.runtime.client import Reply
from kaito.runtime.client.transport import CONNECT_SECONDS, NO_HEADERS, REQUEST_SECONDS, StreamReply
from kaito.runtime.clock import LoopClock
from kaito.runtime.kinds import ConfigMap, CustomResourceDefinition
from kaito.runtime.manager import Cluster, Manager, Settings
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import InMemoryTransport, World
from kaito.runtime.testing.scripted import ScriptedTransport, Stream, bookmark, list_page

BOUND = 180
OFF = Settings(metrics_bind_address="0", health_probe_bind_address="0")

pytestmark = pytest.mark.virtual_time


class AppSpec(Model):
    n: int = 0


class App(Resource, api="example.com/v1", kind="App"):
    spec: AppSpec = AppSpec()


async def reconcile(request: Request[App]) -> None: ...


def app(name: str) -> App:
    return App(metadata=ObjectMeta(name=name))


@dataclass
class _Mute:
    """A stream that is accepted and never delivers anything."""

    reply: StreamReply
    bookmarks_only: bool = False

    @property
    def status(self) -> int:
        return self.reply.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self.reply.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self.reply.chunks():
            if self.bookmarks_only and b'"BOOKMARK"' not in chunk:
                yield chunk

    async def read(self) -> bytes:
        return await self.reply.read()


class Muffler:
    """A transport whose watches may be muted: all of them, or only the bookmarks on watches that follow."""

    def __init__(self, inner: InMemoryTransport) -> None:
        self.inner = inner
        self.muted = False
        self.without_bookmarks = False
        self.targets: list[str] = []

    @property
    def host(self) -> str:
        return self.inner.host

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        body: bytes | None = None,
        timeout: float = REQUEST_SECONDS,
    ) -> Reply:
        self.targets.append(target)
        return await self.inner.request(method, target, headers=headers, body=body, timeout=timeout)

    def stream(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        connect: float = CONNECT_SECONDS,
        idle: float | None = None,
    ) -> AbstractAsyncContextManager[StreamReply]:
        self.targets.append(target)
        return self._stream(method, target, headers, connect, idle)

    @asynccontextmanager
    async def _stream(
        self, method: str, target: str, headers: Mapping[str, str], connect: float, idle: float | None
    ) -> AsyncGenerator[StreamReply]:
        async with self.inner.stream(method, target, headers=headers, connect=connect, idle=idle) as reply:
            if self.muted and "watch=true" in target:
                yield _Mute(_Silent(reply))
            elif self.without_bookmarks and "watch=true" in target and "sendInitialEvents" not in target:
                yield _Mute(reply, bookmarks_only=True)
            else:
                yield reply

    async def close(self) -> None:
        await self.inner.close()


@dataclass
class _Silent:
    reply: StreamReply

    @property
    def status(self) -> int:
        return self.reply.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self.reply.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        async for _ in self.reply.chunks():
            pass
        yield b""

    async def read(self) -> bytes:
        return await self.reply.read()


def manager_on(world: World, transport: Any, *controllers: Controller[Any], **more: Any) -> Manager:
    manager = Manager(
        OFF,
        controllers=controllers,
        transport=transport,
        clock=world.clock,
        name="test",
        rng=random.Random(1),
        **more,
    )
    world.track(manager)
    return manager


def only(manager: Manager) -> InformerHealth:
    (row,) = manager.cache.health()
    return row


def unreachable(world: World, transport: InMemoryTransport) -> None:
    transport.reachable = False
    transport.break_streams()


def denied(world: World, transport: InMemoryTransport) -> None:
    world.deny(("list", "watch"), App)
    world.cut_watches()


def failing(world: World, transport: InMemoryTransport) -> None:
    for verb in ("list", "watch"):
        world.fail_next(verb, App, status=500, times=None)
    world.cut_watches()


def hanging(world: World, transport: InMemoryTransport) -> None:
    for verb in ("list", "watch"):
        world.fail_next(verb, App, hang=True, times=None)
    world.cut_watches()


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (unreachable, "connection refused"),
        (denied, "forbidden"),
        (failing, "injected fault"),
        (hanging, ""),
    ],
)
async def test_readyz_fails_while_a_kind_cannot_be_followed_and_recovers(
    world: World, trouble: Callable[[World, InMemoryTransport], None], words: str
) -> None:
    """Attempts do not prove a connection."""
    transport = world.transport()
    async with world.manager(Controller(App, reconcile), transport=transport) as manager:
        world.put(app("a"))
        await world.settle()
        began = only(manager).silent_seconds
        trouble(world, transport)
        await world.advance(BOUND - 10)
        assert manager.readyz.report().status == 200
        await world.advance(20)
        report = manager.readyz.report()
        assert report.status == 500
        assert "App.example.com: no message for 190 s" in report.text
        assert words in report.text
        for minutes in (10, 20, 30):
            await world.advance(minutes * 60 + 190 + began - only(manager).silent_seconds)
            assert only(manager).silent_seconds == pytest.approx(minutes * 60 + 190, abs=1)
            assert not only(manager).watching
            assert manager.readyz.report().status == 500
        transport.reachable = True
        world.heal()
        await world.advance(190)
        assert manager.readyz.report().text == "ok"
        assert only(manager).watching


async def test_readyz_fails_when_the_definition_is_deleted(world: World) -> None:
    """This kind is not optional, so its absence is an error."""
    async with world.manager(Controller(App, reconcile)) as manager:
        await world.settle()
        world.delete(CustomResourceDefinition, "apps.example.com")
        await world.advance(BOUND + 10)
        report = manager.readyz.report()
        assert report.status == 500
        assert "App.example.com: no message for 190 s" in report.text
        assert not only(manager).watching
        world.install(App)
        world.put(app("again"))
        await world.advance(90)
        assert manager.readyz.report().status == 200
        assert await manager.api.find(App, "again", "default") is not None


async def test_readyz_fails_while_watches_are_accepted_and_deliver_nothing(world: World) -> None:
    """An accepted watch does not prove that events arrive; the server answers lists all the time."""
    transport = Muffler(world.transport())
    world.install(App)
    async with manager_on(world, transport, Controller(App, reconcile)) as manager:
        await world.settle()
        transport.muted = True
        transport.inner.break_streams()
        await world.advance(240)
        report = manager.readyz.report()
        assert report.status == 500
        assert "App.example.com: no message for 240 s: the watch is open and delivers nothing" in report.text
        await world.advance(1800)
        assert only(manager).silent_seconds == pytest.approx(2040, abs=1)
        transport.muted = False
        transport.inner.break_streams()
        await world.advance(65)  # a bookmark
        assert manager.readyz.report().text == "ok"


async def test_a_quiet_kind_on_a_server_with_rare_bookmarks_is_asked_about_and_ready(world: World) -> None:
    """etcd reports progress every ten minutes by default, so silence alone is not a fault."""
    transport = Muffler(world.transport())
    transport.without_bookmarks = True
    world.install(App)
    async with manager_on(world, transport, Controller(App, reconcile)) as manager:
        await world.settle()
        for _ in range(360):
            await world.advance(10)
            assert manager.readyz.report().text == "ok"
        requested = [target for target in transport.targets if "none%3Dnone" in target or "limit=1" in target]
        assert 15 <= len(requested) <= 20, "one small question in three minutes"
        assert only(manager).watching


async def test_an_optional_kind_that_goes_away_does_not_fail_readyz(world: World) -> None:
    world.install(App)
    controller = Controller(ConfigMap, converge_config).watches(App, to=lambda obj, _: obj.key, optional=True)
    async with manager_on(world, world.transport(), controller) as manager:
        await world.settle()
        assert {row.kind for row in manager.cache.health()} == {"App.example.com", "ConfigMap"}
        world.delete(CustomResourceDefinition, "apps.example.com")
        for _ in range(100):
            await world.advance(9)
            assert manager.readyz.report().status == 200, manager.readyz.report().text
        assert {row.kind for row in manager.cache.health()} == {"ConfigMap"}


async def converge_config(request: Request[ConfigMap]) -> None: ...


async def test_a_second_cluster_is_named_when_it_is_not_heard_of_and_only_then(world: World) -> None:
    """The other cluster stays ready."""
    there = InMemoryTransport(ApiServer(now=world.clock.now, seed=2))
    member = Cluster("member", transport=there, cache=[Cached(ConfigMap)])
    world.install(App)
    async with manager_on(world, world.transport(), Controller(App, reconcile), clusters=[member]) as manager:
        await world.settle()
        await world.advance(1800)
        assert manager.readyz.report().text == "ok"
        there.reachable = False
        there.break_streams()
        await world.advance(190)
        report = manager.readyz.report()
        assert report.status == 500
        assert "ConfigMap of cluster member: no message for 2" in report.text
        assert "App.example.com" not in report.text
        there.reachable = True
        await world.advance(90)
        assert manager.readyz.report().text == "ok"


async def test_the_bound_is_a_setting(world: World) -> None:
    transport = world.transport()
    world.install(App)
    settings = OFF.model_copy(update={"watch_silence_seconds": 900.0})
    manager = Manager(settings, controllers=[Controller(App, reconcile)], transport=transport, clock=world.clock)
    world.track(manager)
    async with manager:
        await world.settle()
        unreachable(world, transport)
        await world.advance(890)
        assert manager.readyz.report().status == 200
        await world.advance(20)
        assert manager.readyz.report().status == 500


async def test_a_server_that_was_restored_from_an_older_state_is_noticed_and_listed_anew(world: World) -> None:
    """It accepts the watch, sends nothing of a lower version, and would stay silent."""
    for number in range(40):
        world.put(app(f"old-{number}"))
    early = world.backup()
    async with world.manager(Controller(App, reconcile)) as manager:
        for number in range(40):
            world.put(app(f"ghost-{number}"))
        await world.advance(70)  # a bookmark
        world.restore(early)
        world.put(app("new"))
        await world.advance(30)
        assert await manager.api.find(App, "new", "default", consistency="cached") is None
        await world.advance(180)
        names = {each.name for each in await manager.api.list(App, consistency="cached")}
        assert names == {f"old-{number}" for number in range(40)} | {"new"}
        await world.advance(90)
        assert manager.readyz.report().text == "ok"
        world.put(app("later"))
        await world.settle()
        assert await manager.api.find(App, "later", "default", consistency="cached") is not None


async def test_a_restored_server_behind_a_proxy_that_cuts_silent_streams_is_noticed_as_well(world: World) -> None:
    """No stream lives long enough to stall."""
    world.install(App)
    early = world.backup()
    transport = world.transport()
    async with world.manager(Controller(App, reconcile), transport=transport) as manager:
        for number in range(40):
            world.put(app(f"ghost-{number}"))
        await world.advance(70)
        world.restore(early)
        world.put(app("new"))
        for _ in range(5):
            await world.advance(50)
            transport.break_streams()
        assert [each.name for each in await manager.api.list(App, consistency="cached")] == ["new"]


async def test_a_restored_server_without_streamed_lists_is_asked_by_a_list_of_one_object() -> None:
    """The list is small, without selectors, and sent once, some seconds after the watch is open."""
    page = list_page("21", {"metadata": {"name": "b", "namespace": "ns", "uid": "u", "resourceVersion": "19"}})
    transport = ScriptedTransport(
        list_page("700", {"metadata": {"name": "a", "namespace": "ns", "uid": "v", "resourceVersion": "500"}}),
        Stream((60.0, bookmark("701")), keep_open=True),
        Stream(keep_open=True),
        list_page("20"),
        page,
    )
    declared = [Cached(ConfigMap, labels="app=x")]
    cache = Cache(transport, declared, clock=LoopClock(), rng=random.Random(1), streaming=False)
    async with TaskScope("test") as scope:
        scope.spawn(cache.run(), name="cache")
        await asyncio.sleep(239)
        assert len(transport.calls) == 2
        await asyncio.sleep(16)
        assert [found.name for found in cache.list(ConfigMap)] == ["b"]
        question = transport.lists[1]
        assert question.query == {"limit": "1"}
        assert "PartialObjectMetadataList" in question.headers["accept"]
        assert 2 <= question.at - transport.watches[1].at <= 10
        assert "resourceVersion" not in transport.lists[2].query
        assert transport.watches[-1].query["resourceVersion"] == "21"
