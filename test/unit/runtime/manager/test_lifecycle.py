"""Start and stop of a manager: in order, once, and with the first failure raised."""

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any

import pytest
import structlog

from kaito.runtime.cache import Cached
from kaito.runtime.client import MergePatch
from kaito.runtime.clock import monotonic
from kaito.runtime.controller import Controller
from kaito.runtime.errors import CacheNotSynced, ConfigurationError
from kaito.runtime.kinds import ConfigMap, Secret
from kaito.runtime.manager import Background, Manager, Settings, ShutdownTimedOut, UnexpectedEnd
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.reconcile import Again, Request
from kaito.runtime.testing import World


class Journal:
    """Writes down when runnables start and stop."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def runnable(self, name: str, *, elected: bool, stop_seconds: float = 0.0) -> Background:
        async def run() -> None:
            self.lines.append(f"{name} runs")
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(stop_seconds)
                self.lines.append(f"{name} stopped")

        return Background(name, run, leader_elected=elected)


def controller(journal: Journal | None = None) -> Controller[ConfigMap]:
    async def reconcile(request: Request[ConfigMap]) -> Again | None:
        if journal is not None:
            journal.lines.append(f"reconcile {request.key.name}")
        return None

    return Controller(ConfigMap, reconcile)


def stages(lines: list[MutableMapping[str, Any]]) -> list[str]:
    return [f"{line['event']} {line['stage']}" for line in lines if "stage" in line]


@pytest.mark.conformance(42)
async def test_start_and_stop_follow_their_order(world: World) -> None:
    journal = Journal()
    world.put(ConfigMap(metadata=ObjectMeta(name="a")))
    runnables = [journal.runnable("elected", elected=True), journal.runnable("plain", elected=False)]
    with structlog.testing.capture_logs() as lines:
        async with world.manager(controller(journal), lease="op", runnables=runnables) as manager:
            await manager.wait_elected()
            await world.settle()
        assert journal.lines == ["plain runs", "elected runs", "reconcile a", "plain stopped", "elected stopped"]
        assert stages(lines) == [
            "starting caches",
            "starting sources",
            "starting election",
            "starting elected",
            "stopping runnables",
            "stopping elected",
            "stopping sources",
            "stopping caches",
            "stopping election",
        ]


async def test_a_manager_runs_once(world: World) -> None:
    manager = world.manager(controller())
    async with manager:
        pass
    with pytest.raises(ConfigurationError, match="runs once"):
        await manager.start()


def test_parts_exist_only_once_started() -> None:
    with pytest.raises(ConfigurationError, match="has not started"):
        _ = Manager(Settings()).api


async def test_stop_ends_start(world: World) -> None:
    manager = world.manager(controller())
    async with asyncio.TaskGroup() as group:
        running = group.create_task(manager.start())
        await world.settle()
        assert not running.done()
        await manager.stop()
        assert running.done()


async def _story(manager: Manager, seconds: float = 60) -> None:
    async with manager:
        await asyncio.sleep(seconds)


async def _fail() -> None:
    message = "out of luck"
    raise OSError(message)


async def _nothing() -> None:
    return


@pytest.mark.parametrize(
    ("function", "error", "message"), [(_fail, OSError, "out of luck"), (_nothing, UnexpectedEnd, "ended unexpectedly")]
)
async def test_the_end_of_any_runnable_stops_the_manager(
    world: World, function: Callable[[], Any], error: type[Exception], message: str
) -> None:
    journal = Journal()
    runnables = [journal.runnable("other", elected=True), Background("r", function)]
    with pytest.raises(error, match=message):
        await _story(world.manager(controller(), runnables=runnables))
    assert journal.lines == ["other runs", "other stopped"]
    assert monotonic() == 0


async def test_a_one_shot_may_return(world: World) -> None:
    await _story(world.manager(controller(), runnables=[Background("once", _nothing, one_shot=True)]))
    assert monotonic() == 60


async def test_a_stop_waits_for_the_graceful_period_and_names_what_is_left(world: World) -> None:
    journal = Journal()
    settings = Settings(metrics_bind_address="0", health_probe_bind_address="0", graceful_shutdown_seconds=5)
    stubborn = journal.runnable("stubborn", elected=False, stop_seconds=60)
    manager = world.manager(controller(), runnables=[stubborn], settings=settings)
    with pytest.raises(ShutdownTimedOut, match=r"after 5 s: runnables\.stubborn"):
        await _story(manager, 10)
    assert monotonic() == 15
    await asyncio.sleep(60)
    assert journal.lines[-1] == "stubborn stopped"


async def test_a_slow_but_obedient_runnable_is_waited_for(world: World) -> None:
    journal = Journal()
    await _story(world.manager(controller(), runnables=[journal.runnable("slow", elected=True, stop_seconds=20)]), 1)
    assert journal.lines == ["slow runs", "slow stopped"]
    assert monotonic() == 21


async def test_after_a_timed_out_stop_the_lease_is_not_released(world: World) -> None:
    from kaito.runtime.kinds import Lease

    settings = Settings(
        metrics_bind_address="0", health_probe_bind_address="0", graceful_shutdown_seconds=2, identity="a"
    )
    stubborn = Journal().runnable("stubborn", elected=True, stop_seconds=60)
    manager = world.manager(controller(), runnables=[stubborn], settings=settings, lease="op")
    with pytest.raises(ShutdownTimedOut):
        await _story(manager, 10)
    assert world.get(Lease, "op").spec.holder_identity == "a"
    await asyncio.sleep(60)


async def test_a_failing_start_stops_what_had_started(world: World) -> None:
    journal = Journal()
    world.fail_next("GET", Secret, status=403, times=None)
    manager = world.manager(
        controller(journal), cache=[Cached(Secret)], runnables=[journal.runnable("r", elected=False)]
    )
    with pytest.raises(CacheNotSynced, match="Secret"):
        await _story(manager)
    assert journal.lines == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_undeclared_kinds_are_refused_with_the_remedy(world: World) -> None:
    async with world.manager(controller()) as manager:
        with pytest.raises(ConfigurationError, match=r"Cached\(Secret\)"):
            await manager.api.get(Secret, "s", "default")


def slow_controller(journal: Journal, **options: Any) -> Controller[ConfigMap]:
    async def reconcile(request: Request[ConfigMap]) -> Again | None:
        journal.lines.append(f"begin {request.key.name}")
        await asyncio.sleep(4)
        await request.api.patch(request.object, MergePatch({"data": {"done": "yes"}}))
        journal.lines.append(f"end {request.key.name}")
        return Again(60)

    return Controller(ConfigMap, reconcile, **options)


@pytest.mark.parametrize(
    ("drain", "lines", "seconds"),
    [
        (0.0, ["begin a"], 0),
        (10.0, ["begin a", "end a", "begin b", "end b"], 7),
        (5.0, ["begin a", "end a", "begin b"], 5),
        (100.0, ["begin a", "end a", "begin b", "end b"], 7),
    ],
)
async def test_a_stop_lets_controllers_finish_what_is_ready_if_they_ask_for_it(
    world: World, drain: float, lines: list[str], seconds: float
) -> None:
    journal = Journal()
    for name in ("a", "b"):
        world.put(ConfigMap(metadata=ObjectMeta(name=name)))
    async with world.manager(slow_controller(journal, drain=drain), lease="op") as manager:
        await manager.wait_elected()
        await asyncio.sleep(1)
        stopped_at = monotonic()
    assert journal.lines == lines
    assert monotonic() - stopped_at == pytest.approx(seconds, abs=0.1)
    done = [name for name in ("a", "b") if "done" in world.get(ConfigMap, name).data]
    assert done == [line.removeprefix("end ") for line in lines if line.startswith("end")]


async def test_draining_takes_half_of_the_graceful_period_at_most_and_a_removal_drains_too(world: World) -> None:
    journal = Journal()
    settings = Settings(metrics_bind_address="0", health_probe_bind_address="0", graceful_shutdown_seconds=6)
    for name in ("a", "b"):
        world.put(ConfigMap(metadata=ObjectMeta(name=name)))
    async with world.manager(slow_controller(journal, drain=100), settings=settings) as manager:
        await asyncio.sleep(1.5)
        stopped_at = monotonic()
        await manager.remove("configmap")
        assert monotonic() - stopped_at == pytest.approx(3, abs=0.1)
    assert journal.lines == ["begin a", "end a", "begin b"]


async def test_a_standby_has_nothing_to_drain(world: World) -> None:
    leader = world.manager(slow_controller(Journal()), lease="op", name="leader")
    standby = world.manager(slow_controller(Journal(), drain=10), lease="op", name="standby", seed=2)
    async with leader:
        await leader.wait_elected()
        async with standby:
            world.put(ConfigMap(metadata=ObjectMeta(name="a")))
            await asyncio.sleep(1)
            stopped_at = monotonic()
        assert monotonic() == stopped_at
