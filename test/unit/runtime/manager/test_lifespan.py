"""The lifespan of a manager: made before its controllers, handed to them, closed after them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from kaito.runtime.clock import monotonic
from kaito.runtime.controller import Controller
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.manager import Background, Lifespan, Manager, Settings, ShutdownTimedOut
from kaito.runtime.meta import ObjectKey, ObjectMeta
from kaito.runtime.reconcile import KeyedRequest, PeriodicRequest, Request
from kaito.runtime.testing import World
from kaito.runtime.webhook import Admission, Webhook


@dataclass
class Session:
    """Stands for an HTTP session."""

    journal: list[str] = field(default_factory=list[str])


def lifespan(journal: list[str]) -> Lifespan:
    @asynccontextmanager
    async def open_session(_: Manager) -> AsyncGenerator[Session]:
        journal.append("opened")
        try:
            yield Session(journal)
        finally:
            journal.append("closed")

    return open_session


async def use(request: Request[ConfigMap]) -> None:
    request.lifespan(Session).journal.append(f"reconcile {request.key.name}")


def put(world: World, name: str = "a") -> None:
    world.put(ConfigMap(metadata=ObjectMeta(name=name)))


@pytest.mark.conformance("lifespan-1")
async def test_it_is_entered_before_and_left_after_everything_that_uses_it(world: World) -> None:
    journal: list[str] = []
    put(world)

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            journal.append("runnable stopped")

    manager = world.manager(
        Controller(ConfigMap, use), lifespan=lifespan(journal), runnables=[Background("r", wait, leader_elected=False)]
    )
    async with manager:
        await world.settle()
        assert manager.lifespan(Session).journal is journal
    assert journal == ["opened", "reconcile a", "runnable stopped", "closed"]
    with pytest.raises(ConfigurationError, match="no lifespan has made a Session"):
        manager.lifespan(Session)


@pytest.mark.conformance("lifespan-1")
async def test_every_sort_of_request_has_it(world: World) -> None:
    journal: list[str] = []

    async def periodic(request: PeriodicRequest) -> None:
        request.lifespan(Session).journal.append("periodic")

    async def keyed(request: KeyedRequest[str]) -> None:
        request.lifespan(Session).journal.append(f"keyed {request.key}")

    async def clean_up(request: Request[ConfigMap]) -> None:
        request.lifespan(Session).journal.append("clean-up")

    names = Controller.keyed(str, keyed, name="names").watches(ConfigMap, to=lambda obj, _: obj.name)
    controllers = (
        Controller(ConfigMap, use).finalizes("example.com/f", clean_up),
        Controller.every(3600, periodic, name="p"),
        names,
    )
    async with world.manager(*controllers, lifespan=lifespan(journal)):
        put(world)
        await world.settle()
        world.delete(ConfigMap, "a")
        await world.settle()
    assert {"reconcile a", "periodic", "keyed a", "clean-up"} <= set(journal)


async def test_webhooks_have_it(world: World) -> None:
    journal: list[str] = []

    async def validate(admission: Admission[ConfigMap]) -> None:
        admission.lifespan(Session).journal.append(f"validate {admission.operation}")

    def mutate(admission: Admission[ConfigMap]) -> ConfigMap:
        admission.lifespan(Session).journal.append(f"mutate {admission.operation}")
        assert admission.object is not None
        return admission.object

    world.admit(Webhook(ConfigMap, mutate=mutate, validate=validate))
    async with world.manager(lifespan=lifespan(journal)):
        put(world)
    assert journal == ["opened", "mutate CREATE", "validate CREATE", "closed"]
    with pytest.raises(ConfigurationError, match="no lifespan has made a Session"):
        put(world, "b")


async def test_another_type_is_refused_by_name(world: World) -> None:
    async with world.manager(lifespan=lifespan([])) as manager:
        with pytest.raises(ConfigurationError, match="yields Session, not int"):
            manager.lifespan(int)


async def test_a_request_of_a_unit_test_is_given_its_state(world: World) -> None:
    journal: list[str] = []
    async with world.manager(Controller(ConfigMap, use)) as manager:
        obj = ConfigMap(metadata=ObjectMeta(name="a"))
        request = Request(key=ObjectKey("default", "a"), object=obj, api=manager.api, lifespan_state=Session(journal))
        await use(request)
    assert journal == ["reconcile a"]


@pytest.mark.conformance("lifespan-2")
async def test_it_is_closed_when_the_start_fails_after_it(world: World) -> None:
    journal: list[str] = []
    world.deny(["list", "watch"], ConfigMap)
    settings = Settings(metrics_bind_address="0", health_probe_bind_address="0", cache_sync_seconds=5)
    with pytest.raises(Exception, match="ConfigMap"):
        async with world.manager(Controller(ConfigMap, use), lifespan=lifespan(journal), settings=settings):
            pytest.fail("started")
    assert journal == ["opened", "closed"]


def _connect() -> None:
    message = "no database"
    raise OSError(message)


@pytest.mark.conformance("lifespan-2")
async def test_a_failed_start_of_it_is_raised_and_starts_nothing(world: World) -> None:
    closed: list[str] = []

    @asynccontextmanager
    async def refuse(_: Manager) -> AsyncGenerator[None]:
        try:
            _connect()
            yield
        finally:
            closed.append("closed")

    put(world)
    with pytest.raises(OSError, match="no database"):
        async with world.manager(Controller(ConfigMap, use), lifespan=refuse):
            pytest.fail("started")
    assert closed == ["closed"]
    assert world.count("list", ConfigMap) == world.count("watch", ConfigMap) == 0


@pytest.mark.conformance("lifespan-2")
async def test_a_stop_during_its_start_cancels_it_and_closes_what_it_opened(world: World) -> None:
    journal: list[str] = []

    @asynccontextmanager
    async def hang(_: Manager) -> AsyncGenerator[None]:
        journal.append("opened")
        try:
            await asyncio.Event().wait()
            yield
        finally:
            await asyncio.sleep(0.5)
            journal.append("closed")

    manager = world.manager(Controller(ConfigMap, use), lifespan=hang)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(manager.start())
        await asyncio.sleep(100)
        assert manager.readyz.report(verbose=True).status == 500
        assert "lifespan" in manager.readyz.report(verbose=True).text
        running.cancel()
    assert journal == ["opened", "closed"]


async def test_its_failure_while_the_manager_runs_stops_the_manager(world: World) -> None:
    @asynccontextmanager
    async def pool(_: Manager) -> AsyncGenerator[Session]:
        async def lose() -> None:
            await asyncio.sleep(10)
            message = "connection pool lost"
            raise OSError(message)

        async with asyncio.TaskGroup() as group:
            group.create_task(lose())
            yield Session()

    with pytest.raises(ExceptionGroup, match="unhandled errors") as caught:
        async with world.manager(Controller(ConfigMap, use), lifespan=pool):
            await asyncio.sleep(60)
    assert caught.group_contains(OSError, match="connection pool lost")


async def test_an_error_while_it_closes_is_raised_but_hides_no_earlier_one(world: World) -> None:
    @asynccontextmanager
    async def spill(_: Manager) -> AsyncGenerator[None]:
        yield
        message = "cannot flush"
        raise OSError(message)

    async def fail() -> None:
        message = "the first"
        raise LookupError(message)

    with pytest.raises(OSError, match="cannot flush"):
        async with world.manager(Controller(ConfigMap, use), lifespan=spill):
            pass
    with pytest.raises(LookupError, match="the first"):
        async with world.manager(lifespan=spill, runnables=[Background("r", fail)]):
            await asyncio.sleep(1)


async def test_a_close_that_takes_too_long_is_cancelled_and_reported(world: World) -> None:
    journal: list[str] = []

    @asynccontextmanager
    async def slow(_: Manager) -> AsyncGenerator[None]:
        try:
            yield
            await asyncio.sleep(3600)
        finally:
            journal.append("closed")

    settings = Settings(metrics_bind_address="0", health_probe_bind_address="0", graceful_shutdown_seconds=5)
    with pytest.raises(ShutdownTimedOut, match="closing the lifespan was cancelled after 5 s"):
        async with world.manager(Controller(ConfigMap, use), lifespan=slow, settings=settings):
            pass
    assert journal == ["closed"]


async def test_one_that_does_not_close_is_reported_and_keeps_the_lease(world: World) -> None:
    @asynccontextmanager
    async def stuck(_: Manager) -> AsyncGenerator[None]:
        yield
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
            if monotonic() > 3000:
                return

    settings = Settings(metrics_bind_address="0", health_probe_bind_address="0", graceful_shutdown_seconds=5)
    manager = world.manager(Controller(ConfigMap, use), lifespan=stuck, lease="op", settings=settings)
    with pytest.raises(ShutdownTimedOut, match="lifespan"):
        async with manager:
            await manager.wait_elected()
    await asyncio.sleep(8000)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (None, "x"),
        (42, "takes a function of the manager"),
        (lambda: None, "called with one argument, the manager"),
    ],
)
def test_a_wrong_lifespan_is_refused_when_the_manager_is_made(wrong: Any, message: str) -> None:
    if wrong is None:

        async def plain(_: Manager) -> AsyncGenerator[None]:
            yield

        wrong, message = plain, "asynccontextmanager"
    with pytest.raises(ConfigurationError, match=message):
        Manager(Settings(), lifespan=wrong)


async def test_what_is_no_context_manager_is_refused_at_the_start(world: World) -> None:
    async def plain(_: Manager) -> Session:
        return Session()

    lifespan: Any = plain
    with pytest.raises(ConfigurationError, match="not an async context manager"):
        async with world.manager(Controller(ConfigMap, use), lifespan=lifespan):
            pytest.fail("started")
