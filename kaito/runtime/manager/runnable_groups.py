"""Controllers and runnables of a manager, in groups that start and stop one after the other.

The manager decides when a group starts and stops. The groups decide what belongs to each, and what can still be added
or removed.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, final

from kaito.runtime.controller import (
    AnyController,
    CacheNeed,
    Controller,
    ControllerServices,
    Engine,
    FailureRow,
    Keyed,
    Periodic,
    RunningController,
    WatchedFields,
    build,
)
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.manager.runnable import Background, Runnable
from kaito.runtime.metrics import Metrics
from kaito.runtime.source import InboundEndpoint
from kaito.runtime.tasks import TaskPool, sleep_forever, together
from kaito.runtime.workqueue import WorkQueue

STOP_ORDER: Final = ("runnables", "elected", "sources", "caches")
"""Groups in the order they are stopped, all within the graceful period; `webhooks`, `lifespan` and `events` follow."""

DRAIN_SHARE: Final = 0.5
"""Share of the graceful period in which controllers may finish their work; the rest is for stopping everything else."""

CONTROLLERS: Final = (Controller, Periodic, Keyed)

GROUPS: Final = (*STOP_ORDER, "webhooks", "lifespan", "events")


@final
class RunnableGroups:
    """Controllers and runnables of one manager.

    Args:
        controllers: the controllers.
        runnables: other work.
        metrics: drops the queues of removed controllers.
        grace_seconds: time in which everything together must stop.
        on_end: called with the name and the error of a task that ended without being stopped.
        as_owner: context in which tasks start, so that their work in threads counts as the manager's.

    Raises:
        ConfigurationError: two have one name.
    """

    def __init__(
        self,
        controllers: Sequence[AnyController],
        runnables: Sequence[Runnable],
        *,
        metrics: Metrics,
        grace_seconds: float,
        on_end: Callable[[str, BaseException | None], None],
        as_owner: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._as_owner = as_owner
        self._controllers: list[AnyController] = []
        self._runnables: list[Runnable] = []
        for controller in controllers:
            self._add_controller(controller)
        for runnable in runnables:
            self._add_runnable(runnable)
        self._metrics = metrics
        self._grace_seconds = grace_seconds
        self._pools = {group: TaskPool(group, on_end=on_end) for group in GROUPS}
        self._tasks: dict[tuple[str, str], asyncio.Task[Any]] = {}
        self._running: dict[str, RunningController] = {}
        self._services: ControllerServices | None = None
        self._elected = False
        self._sharded = False

    def _add_controller(self, controller: AnyController) -> None:
        _check_is(controller, CONTROLLERS, "controllers= takes Controller(...), Controller.every(...) and .keyed(...)")
        if isinstance(controller, Keyed) and not controller.watched:
            message = f"controller {controller.name} watches nothing and would never run: give it watches(kind, to=...)"
            raise ConfigurationError(message)
        if any(controller.name == known.name for known in self._controllers):
            message = f"two controllers are named {controller.name!r}: give one of them another name="
            raise ConfigurationError(message)
        self._controllers.append(controller)

    def _add_runnable(self, runnable: Runnable) -> None:
        _check_is(runnable, (Runnable,), "a runnable has a name, leader_elected and an async run()")
        if any(runnable.name == known.name for known in self._runnables):
            message = f"two runnables are named {runnable.name!r}"
            raise ConfigurationError(message)
        self._runnables.append(runnable)

    # -- queries -----------------------------------------------------------------------------------------------------

    def needs(self, *added: AnyController, waiting: bool = True) -> Mapping[str, Sequence[CacheNeed]]:
        """What each controller needs in caches, those to be added included.

        Without `waiting`, kinds that may be missing are left out.
        """
        return {
            each.name: [need for need in each.needs if waiting or not (each.options.wait_for_kinds or need.optional)]
            for each in (*self._controllers, *added)
        }

    def watched_fields(self, *added: AnyController) -> Mapping[str, Sequence[WatchedFields]]:
        """The fields that the predicates of each controller compare, those to be added included."""
        return {each.name: each.watched_fields for each in (*self._controllers, *added)}

    def waiting_for_kinds(self) -> Sequence[str]:
        """Controllers that wait for kinds which the server does not serve."""
        return [name for name, running in self._running.items() if running.waits_for_kinds and not running.engine.ready]

    def engines(self) -> Sequence[Engine[Any]]:
        """The engines of all controllers."""
        return [running.engine for running in self._running.values()]

    def queues(self) -> Sequence[WorkQueue[Any]]:
        """The queues of all controllers."""
        return [engine.queue for engine in self.engines()]

    def inbound(self) -> Sequence[InboundEndpoint]:
        """The HTTP endpoints of all controllers."""
        return [endpoint for running in self._running.values() for endpoint in running.inbound]

    def failures(self) -> Mapping[str, Sequence[FailureRow]]:
        """The failing keys of each controller that has some."""
        return {engine.name: rows for engine in self.engines() if (rows := engine.failures())}

    def busy(self) -> Sequence[str]:
        """Work in progress; delayed keys do not count."""
        return [phrase for engine in self.engines() for phrase in engine.busy()]

    # -- starting ----------------------------------------------------------------------------------------------------

    def spawn(self, group: str, runnable: Runnable) -> None:
        """Runs something in a group."""
        work = _run_once(runnable) if getattr(runnable, "one_shot", False) else runnable.run()
        with self._as_owner():  # the new task copies the context
            self._tasks[group, runnable.name] = self._pools[group].spawn(work, name=runnable.name)

    def build(self, services: ControllerServices) -> None:
        """Makes the controllers' queues; nothing runs yet."""
        self._services = services
        for controller in self._controllers:
            self._build(controller, services)

    def _build(self, controller: AnyController, services: ControllerServices) -> RunningController:
        running = build(controller, services)
        if not running.waits_for_kinds:
            running.acquire_informers()
        controller.seal()
        self._running[controller.name] = running
        return running

    def start_on_every_replica(self) -> None:
        """Starts the runnables that do not need the lease."""
        for runnable in self._runnables:
            if not runnable.leader_elected:
                self.spawn("runnables", runnable)

    async def start_sources(self) -> None:
        """Starts the controllers' sources, on standbys too, and waits until they are synced."""
        for running in self._running.values():
            self._start_sources(running)
        for running in self._running.values():
            if not running.waits_for_kinds:
                await running.engine.wait_ready()

    def _start_sources(self, running: RunningController) -> None:
        self.spawn("sources", Background(running.engine.name, running.run_sources))

    def start_sharded(self) -> None:
        """Starts the workers of sharded controllers, which run on every replica, each for its shards."""
        self._sharded = True
        for running in self._running.values():
            if running.engine.is_sharded:
                self._start_workers(running)

    def requeue_all(self) -> None:
        """Queues every key of the sharded controllers again: this replica holds another shard."""
        for running in self._running.values():
            if running.engine.is_sharded:
                running.engine.requeue_all()

    def start_elected(self) -> None:
        """Starts what only the leader runs."""
        self._elected = True
        for running in self._running.values():
            if not running.engine.is_sharded:
                self._start_workers(running)
        for runnable in self._runnables:
            if runnable.leader_elected:
                self.spawn("elected", runnable)

    def _has_workers(self, running: RunningController) -> bool:
        return self._sharded if running.engine.is_sharded else self._elected

    def _start_workers(self, running: RunningController) -> None:
        engine = running.engine

        async def work() -> None:
            await engine.wait_ready()
            await engine.run_workers()

        self.spawn("elected", Background(engine.name, work))

    # -- adding and removing -----------------------------------------------------------------------------------------

    def add(self, added: AnyController | Runnable) -> None:
        """Adds a controller or runnable; starts at once what its group runs already.

        Raises:
            ConfigurationError: its name is taken.
        """
        if isinstance(added, CONTROLLERS):
            if self._services is not None and isinstance(added, Controller) and added.inbound:
                message = f"controller {added.name} receives {added.inbound[0]!r}: add it before the manager starts"
                raise ConfigurationError(message)
            self._add_controller(added)
            if self._services is not None:
                try:
                    running = self._build(added, self._services)
                except ConfigurationError:
                    self._controllers.remove(added)
                    raise
                self._start_sources(running)
                if self._has_workers(running):
                    self._start_workers(running)
            return
        self._add_runnable(added)
        if self._services is not None and (self._elected or not added.leader_elected):
            self.spawn("elected" if added.leader_elected else "runnables", added)

    async def remove(self, name: str) -> None:
        """Stops a controller and drops its queue. Unknown names are ignored."""
        self._controllers = [controller for controller in self._controllers if controller.name != name]
        running = self._running.pop(name, None)
        if running is None:
            return
        await running.stop(DRAIN_SHARE * self._grace_seconds if self._has_workers(running) else 0.0)
        for group in ("elected", "sources"):
            task = self._tasks.pop((group, name), None)
            if task is not None:
                await self._pools[group].end(task)
        running.release_informers()
        self._metrics.forget_queue(running.engine.queue)

    # -- stopping ----------------------------------------------------------------------------------------------------

    async def close(self, *, drain_seconds: float) -> None:
        """Cancels the sources and closes the queues, before anything is waited for.

        The leader's workers finish running and ready keys first, if their controller wants that, for `drain_seconds`
        at most.
        """
        self._pools["sources"].cancel()
        await together(
            *(running.stop(drain_seconds if self._has_workers(running) else 0.0) for running in self._running.values())
        )

    async def stop(self, group: str, timeout: float) -> list[str]:
        """Stops a group; the names of the tasks that still run after `timeout` seconds."""
        return await self._pools[group].stop(max(0.0, timeout))


def _check_is(value: object, kinds: tuple[type, ...], rule: str) -> None:
    if not isinstance(value, kinds):
        message = f"{rule}, not {value!r}"
        raise ConfigurationError(message)


async def _run_once(runnable: Runnable) -> None:
    await runnable.run()
    await sleep_forever()
