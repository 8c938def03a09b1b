"""Each controller owns its fields under a name of its own, and two that undo each other's are slowed down.

All controllers of a manager wrote as one; each apply removed the other's field, without a pause.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import structlog

from kaito.runtime.cache import Cached, View
from kaito.runtime.client import ApiRequest, Client, Reply
from kaito.runtime.client.managed_fields import managed_fields_of
from kaito.runtime.client.write_context import (
    FIELD_MANAGER_LENGTH,
    FREE_RESTORES,
    LONGEST_BACKOFF_SECONDS,
    FieldContention,
    field_manager_of,
)
from kaito.runtime.clock import monotonic
from kaito.runtime.controller import Controller
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.meta import Condition, Model, ObjectKey, ObjectMeta, Resource
from kaito.runtime.reconcile import KeyedRequest, PeriodicRequest, Reconciler, Request
from kaito.runtime.testing import World
from kaito.runtime.workqueue import WorkQueue


class Status(Model):
    n: int = 0
    conditions: list[Condition] = []


class App(Resource, api="example.com/v1", kind="App"):
    status: Status = Status()


class Other(Resource, api="example.com/v1", kind="Other"):
    """A second kind."""


def shared(**data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name="shared", namespace="default"), data=data)


def named(name: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="default"), data={"a": "1"})


def ensuring(**data: str) -> Reconciler[Any]:
    async def reconcile(request: Request[Any]) -> None:
        await request.api.ensure(shared(**data))

    return reconcile


def every(kind: type[Resource]) -> Callable[[ConfigMap, View], Sequence[ObjectKey]]:
    return lambda obj, view: [each.key for each in view.list(kind)] if obj.name == "shared" else []


def owners(world: World) -> list[tuple[str, str]]:
    return sorted((entry.manager, entry.operation) for entry in managed_fields_of(world.get(ConfigMap, "shared")))


async def test_two_controllers_ensure_different_fields_of_one_object(world: World) -> None:
    one = Controller(App, ensuring(a="1")).watches(ConfigMap, to=every(App))
    two = Controller(Other, ensuring(b="1")).watches(ConfigMap, to=every(Other))
    async with world.manager(one, two):
        world.put(App(metadata=ObjectMeta(name="a")))
        world.put(Other(metadata=ObjectMeta(name="b")))
        await world.advance(60)
        assert world.get(ConfigMap, "shared").data == {"a": "1", "b": "1"}
        assert owners(world) == [("test/app", "Apply"), ("test/other", "Apply")]
        assert world.count("PATCH", ConfigMap) <= 6


async def test_every_write_of_a_run_has_the_controllers_name(world: World) -> None:
    sent: list[str] = []

    async def note(request: ApiRequest, send: Callable[[ApiRequest], Awaitable[Reply]]) -> Reply:
        sent.append(request.target)
        return await send(request)

    async def reconcile(request: Request[App]) -> None:
        if await request.api.find(ConfigMap, "made", "default") is None:
            made = await request.api.create(named("made"))
            await request.api.update(made.evolve(data={"a": "2"}))
        await request.api.ensure(shared(a="1"))
        await request.api.apply(shared(a="1", b="2"), field_manager="by-hand")
        watched = Request(key=request.key, object=request.object, api=request.api.intercepted(note))
        async with watched.status() as status:
            status.set(n=1)

    async def visit(visit: KeyedRequest[str]) -> None:
        await visit.api.ensure(named("visited"))

    async def tick(tick: PeriodicRequest) -> None:
        await tick.api.ensure(named("ticked"))

    keyed = Controller.keyed(str, visit, name="by-key").watches(App, to=lambda app, _: [app.name])
    hourly = Controller.every(3600, tick, name="hourly")
    async with world.manager(
        Controller(App, reconcile, name="apps"), keyed, hourly, cache=[Cached(ConfigMap)]
    ) as manager:
        world.put(App(metadata=ObjectMeta(name="a")))
        await world.settle()
        await manager.api.ensure(named("outside"))
        owned = {
            name: {entry.manager for entry in managed_fields_of(world.get(ConfigMap, name))}
            for name in ("made", "shared", "visited", "ticked", "outside")
        }
    assert owned == {
        "made": {"test/apps"},
        "shared": {"test/apps", "by-hand"},
        "visited": {"test/by-key"},
        "ticked": {"test/hourly"},
        "outside": {"test"},
    }
    assert [each.partition("fieldManager=")[2].partition("&")[0] for each in sent] == ["test/apps"]


async def test_calls_with_a_field_manager_each_own_their_fields(world: World) -> None:
    async with world.manager(cache=[Cached(ConfigMap)]) as manager:
        for _ in range(3):
            await manager.api.ensure(shared(a="1"), field_manager="first")
            await manager.api.ensure(shared(b="1"), field_manager="second")
        assert world.get(ConfigMap, "shared").data == {"a": "1", "b": "1"}
        assert world.count("PATCH", ConfigMap) == 2
        await manager.api.ensure(shared(), field_manager="first")
        assert world.get(ConfigMap, "shared").data == {"b": "1"}
        for wrong in ("x" * 129, "new\nline"):
            with pytest.raises(ConfigurationError, match="128 printable"):
                await manager.api.ensure(shared(a="1"), field_manager=wrong)


def test_names_are_held_to_what_the_server_allows() -> None:
    assert field_manager_of("op", "app") == "op/app"
    long = [field_manager_of("op", "x" * 200 + end) for end in ("a", "b")]
    assert [len(name) for name in long] == [FIELD_MANAGER_LENGTH] * 2
    assert long[0] != long[1]
    assert field_manager_of("op", "new\nline").isprintable()
    with pytest.raises(ConfigurationError, match="128 printable"):
        Manager(Settings(), name="x" * 129)


async def test_fields_of_the_former_version_do_not_stay_behind(world: World) -> None:
    """The former version applied as the manager itself; this one states fewer fields."""
    old = Client(world.transport(), field_manager="test")
    await old.apply(shared(a="1", dropped="1"))
    foreign = Client(world.transport(), field_manager="other")
    await foreign.apply(shared(theirs="1"))
    async with world.manager(Controller(App, ensuring(a="1")), cache=[Cached(ConfigMap)]):
        world.put(App(metadata=ObjectMeta(name="a")))
        await world.settle()
        assert world.get(ConfigMap, "shared").data == {"a": "1", "theirs": "1"}
        assert owners(world) == [("other", "Apply"), ("test/app", "Apply")]
        writes = world.count("PATCH", ConfigMap)
        world.patch(App, "a", {"metadata": {"labels": {"again": "1"}}})
        await world.settle()
        assert world.count("PATCH", ConfigMap) == writes


async def test_a_renamed_controller_removes_fields_of_its_former_name(world: World) -> None:
    await Client(world.transport(), field_manager="op/before").apply(shared(a="1", dropped="1"))
    world.install(App)
    manager = Manager(
        Settings(metrics_bind_address="0", health_probe_bind_address="0"),
        controllers=[Controller(App, ensuring(a="1"), name="after")],
        transport=world.transport(),
        clock=world.clock,
        name="op",
        former_field_managers=["op/before"],
    )
    async with manager:
        world.put(App(metadata=ObjectMeta(name="a")))
        await world.advance(1)
    assert world.get(ConfigMap, "shared").data == {"a": "1"}
    assert owners(world) == [("op/after", "Apply")]


async def test_what_the_process_itself_applies_outside_of_controllers_is_not_taken_over(world: World) -> None:
    async with world.manager(Controller(App, ensuring(a="1")), cache=[Cached(ConfigMap)]) as manager:
        await manager.api.ensure(shared(outside="1"))
        world.put(App(metadata=ObjectMeta(name="a")))
        await world.settle()
        assert world.get(ConfigMap, "shared").data == {"a": "1", "outside": "1"}


async def test_two_keys_that_undo_each_others_fields_are_slowed_down_and_named(world: World) -> None:
    async def reconcile(request: Request[App]) -> None:
        await request.api.ensure(shared(**{request.key.name: "1"}))

    controller = Controller(App, reconcile, workers=2).watches(ConfigMap, to=every(App))
    with structlog.testing.capture_logs() as logged:
        async with world.manager(controller) as manager:
            for name in ("a", "b"):
                world.put(App(metadata=ObjectMeta(name=name)))
            await world.advance(3600)
            writes = world.count("PATCH", ConfigMap)
            assert writes < 2 * (3600 / LONGEST_BACKOFF_SECONDS + 20)
            contested = manager.metrics.value("kaito_runtime_contested_applies_total", controller="app")
            assert contested > 10
            world.clear_requests()
            world.delete(App, "b")
            await world.advance(600)  # the fight is over
            assert world.get(ConfigMap, "shared").data == {"a": "1"}
            assert world.count("PATCH", ConfigMap) <= 1
    warnings = [line for line in logged if "changed back repeatedly" in line["event"]]
    assert warnings
    assert warnings[-1]["applied"] == "default/shared"
    assert warnings[-1]["field_manager"] == "test/app"
    assert warnings[-1]["delay_seconds"] == LONGEST_BACKOFF_SECONDS


async def test_two_operators_that_force_different_values_are_slowed_down(world: World) -> None:
    def operator(name: str, kind: type[Resource], value: str) -> Manager:
        controller = Controller(kind, ensuring(a=value)).watches(ConfigMap, to=every(kind))
        return world.manager(controller, name=name, seed=len(name))

    with structlog.testing.capture_logs() as logged:
        async with operator("first", App, "1"), operator("second", Other, "2"):
            world.put(App(metadata=ObjectMeta(name="a")))
            world.put(Other(metadata=ObjectMeta(name="b")))
            await world.advance(600)
            assert world.count("PATCH", ConfigMap) < 60
    managers = {line["field_manager"] for line in logged if "changed back repeatedly" in line["event"]}
    assert managers == {"first/app", "second/other"}


async def test_a_metadata_only_cache_and_a_deleted_object_count_too(world: World) -> None:
    async def thief(request: Request[Other]) -> None:
        if world.find(ConfigMap, "shared") is not None:
            world.delete(ConfigMap, "shared")

    one = Controller(App, ensuring(a="1")).watches(ConfigMap, to=every(App))
    two = Controller(Other, thief).watches(ConfigMap, to=every(Other))
    async with world.manager(one, two, cache=[Cached(ConfigMap, only="metadata")]):
        world.put(App(metadata=ObjectMeta(name="a")))
        world.put(Other(metadata=ObjectMeta(name="b")))
        await world.advance(600)
        assert world.count("PATCH", ConfigMap) < 60


async def test_changes_of_ones_mind_are_not_held_back(world: World) -> None:
    async def reconcile(request: Request[App]) -> None:
        await request.api.ensure(shared(size=request.object.labels["size"]))

    async with world.manager(Controller(App, reconcile).watches(ConfigMap, to=every(App))):
        world.put(App(metadata=ObjectMeta(name="a", labels={"size": "1"})))
        await world.settle()
        for number in range(2 * FREE_RESTORES):
            size = str(number % 2 + 2)
            world.patch(App, "a", {"metadata": {"labels": {"size": size}}})
            await world.settle()
            assert world.get(ConfigMap, "shared").data == {"size": size}


@pytest.mark.parametrize(
    ("times", "pause"),
    [(1, 0), (FREE_RESTORES, 0), (FREE_RESTORES + 1, 1), (FREE_RESTORES + 3, 4), (FREE_RESTORES + 50, 60)],
)
def test_pauses_grow_and_are_capped(times: int, pause: float) -> None:
    assert FieldContention("ConfigMap", ObjectKey("ns", "n"), "m", times, ()).backoff_seconds == pause


async def test_a_held_key_does_not_run_before_its_time(world: World) -> None:
    queue: WorkQueue[str] = WorkQueue("q")
    queue.add("a")
    item = await queue.get()
    assert item is not None
    queue.add("a")  # an event during the run
    queue.delay("a", 30)
    queue.done("a")
    queue.add("a", priority=5)
    queue.add("b")
    other = await queue.get()
    assert other is not None
    assert other.key == "b"
    started = monotonic()
    again = await queue.get()
    assert again is not None
    assert (again.key, monotonic() - started) == ("a", 30)
    queue.done("a")
    queue.add("a")
    assert (await queue.get()) is not None
    assert monotonic() - started == 30
    assert world.count() == 0
