"""Everything a manager has at work: controllers and runnables, in stages that start and stop one after the other.

The manager says when; the fleet knows what belongs to which stage, and what may still join or leave.
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
    Keyed,
    Periodic,
    RunningController,
    WatchedFields,
    build,
)
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.manager.runnable import Background, Runnable
from kaito.runtime.metrics import Metrics
from kaito.runtime.tasks import TaskPool, together
from kaito.runtime.workqueue import WorkQueue

STOP_ORDER: Final = ("runnables", "elected", "sources", "caches")
"""Stages in the order they are stopped, all within the graceful period; `webhooks` and `events` follow."""

DRAIN_SHARE: Final = 0.5
"""Part of the graceful period that controllers may spend on finishing: the rest is for stopping everything else."""

CONTROLLERS: Final = (Controller, Periodic, Keyed)

STAGES: Final = (*STOP_ORDER, "webhooks", "events")


@final
class Fleet:
    """Controllers and runnables of one manager.

    Args:
        controllers: what to reconcile.
        runnables: other work.
        metrics: forgets the queues of removed controllers.
        grace: seconds that everything together may take to stop.
        ended: told the name and the error of whatever ends by itself.
        owning: work in threads that is started within counts as the manager's.

    Raises:
        ConfigurationError: two of one name.
    """

    def __init__(
        self,
        controllers: Sequence[AnyController],
        runnables: Sequence[Runnable],
        *,
        metrics: Metrics,
        grace: float,
        ended: Callable[[str, BaseException | None], None],
        owning: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._owning = owning
        self._declared: list[AnyController] = []
        self._runnables: list[Runnable] = []
        for controller in controllers:
            self._declare(controller)
        for runnable in runnables:
            self._enlist(runnable)
        self._metrics = metrics
        self._grace = grace
        self._pools = {stage: TaskPool(stage, ended=ended) for stage in STAGES}
        self._tasks: dict[tuple[str, str], asyncio.Task[Any]] = {}
        self._running: dict[str, RunningController] = {}
        self._services: ControllerServices | None = None
        self._elected = False

    def _declare(self, controller: AnyController) -> None:
        _check_is(controller, CONTROLLERS, "controllers= takes Controller(...), Controller.every(...) and .keyed(...)")
        if isinstance(controller, Keyed) and not controller.watched:
            message = f"controller {controller.name} watches nothing and would never run: give it watches(kind, to=...)"
            raise ConfigurationError(message)
        if any(controller.name == known.name for known in self._declared):
            message = f"two controllers are named {controller.name!r}: give one of them another name="
            raise ConfigurationError(message)
        self._declared.append(controller)

    def _enlist(self, runnable: Runnable) -> None:
        _check_is(runnable, (Runnable,), "a runnable has a name, leader_elected and an async run()")
        if any(runnable.name == known.name for known in self._runnables):
            message = f"two runnables are named {runnable.name!r}"
            raise ConfigurationError(message)
        self._runnables.append(runnable)

    # -- looking -----------------------------------------------------------------------------------------------------

    def needs(self, *more: AnyController, waiting: bool = True) -> Mapping[str, Sequence[CacheNeed]]:
        """What each controller needs in caches, those that are to join with them; without what may be missing unless
        `waiting`."""
        return {
            each.name: [need for need in each.needs if waiting or not (each.options.wait_for_kinds or need.optional)]
            for each in (*self._declared, *more)
        }

    def watched_fields(self, *more: AnyController) -> Mapping[str, Sequence[WatchedFields]]:
        """What the predicates of each controller look at, with those that are to join."""
        return {each.name: each.watched_fields for each in (*self._declared, *more)}

    def resting(self) -> Sequence[str]:
        """Controllers that wait for kinds which nobody has installed: nobody waits for them."""
        return [name for name, running in self._running.items() if running.waits_for_kinds and not running.engine.ready]

    def engines(self) -> Sequence[Engine[Any]]:
        """The controllers at work."""
        return [running.engine for running in self._running.values()]

    def queues(self) -> Sequence[WorkQueue[Any]]:
        """Their queues."""
        return [engine.queue for engine in self.engines()]

    def busy(self) -> Sequence[str]:
        """What is going on right now; delayed work does not count."""
        return [phrase for engine in self.engines() for phrase in engine.busy()]

    # -- starting ----------------------------------------------------------------------------------------------------

    def spawn(self, stage: str, runnable: Runnable) -> None:
        """Run something in a stage."""
        work = _once(runnable) if getattr(runnable, "one_shot", False) else runnable.run()
        with self._owning():  # the task takes a copy of the context
            self._tasks[stage, runnable.name] = self._pools[stage].spawn(work, name=runnable.name)

    def build(self, services: ControllerServices) -> None:
        """Make the controllers' queues; nothing runs yet."""
        self._services = services
        for declared in self._declared:
            self._build(declared, services)

    def _build(self, declared: AnyController, services: ControllerServices) -> RunningController:
        running = build(declared, services)
        if not running.waits_for_kinds:
            running.acquire_informers()
        declared.seal()
        self._running[declared.name] = running
        return running

    def start_everywhere(self) -> None:
        """Start what every replica runs."""
        for runnable in self._runnables:
            if not runnable.leader_elected:
                self.spawn("runnables", runnable)

    async def start_sources(self) -> None:
        """Start the controllers' sources, on standbys too, and wait until they are synced."""
        for running in self._running.values():
            self._start_sources(running)
        for running in self._running.values():
            if not running.waits_for_kinds:
                await running.engine.wait_ready()

    def _start_sources(self, running: RunningController) -> None:
        self.spawn("sources", Background(running.engine.name, running.run_sources))

    def start_elected(self) -> None:
        """Start what only the leader runs."""
        self._elected = True
        for running in self._running.values():
            self._start_workers(running)
        for runnable in self._runnables:
            if runnable.leader_elected:
                self.spawn("elected", runnable)

    def _start_workers(self, running: RunningController) -> None:
        engine = running.engine

        async def work() -> None:
            await engine.wait_ready()
            await engine.run_workers()

        self.spawn("elected", Background(engine.name, work))

    # -- joining and leaving -----------------------------------------------------------------------------------------

    def add(self, what: AnyController | Runnable) -> None:
        """Take something in; what is due already starts at once.

        Raises:
            ConfigurationError: its name is taken.
        """
        if isinstance(what, CONTROLLERS):
            self._declare(what)
            if self._services is not None:
                try:
                    running = self._build(what, self._services)
                except ConfigurationError:
                    self._declared.remove(what)
                    raise
                self._start_sources(running)
                if self._elected:
                    self._start_workers(running)
            return
        self._enlist(what)
        if self._services is not None and (self._elected or not what.leader_elected):
            self.spawn("elected" if what.leader_elected else "runnables", what)

    async def remove(self, name: str) -> None:
        """Stop a controller; its queue is dropped. Unknown names are ignored."""
        self._declared = [declared for declared in self._declared if declared.name != name]
        running = self._running.pop(name, None)
        if running is None:
            return
        await running.stop(DRAIN_SHARE * self._grace if self._elected else 0.0)
        for stage in ("elected", "sources"):
            task = self._tasks.pop((stage, name), None)
            if task is not None:
                await self._pools[stage].end(task)
        running.release_informers()
        self._metrics.forget_queue(running.engine.queue)

    # -- stopping ----------------------------------------------------------------------------------------------------

    async def close(self, *, drain: float) -> None:
        """Cut the sources and hand out no more keys, both before anything is waited for.

        Workers of the leader finish what is in hand or ready first, where their controller asks for it: `drain` seconds
        at most.
        """
        self._pools["sources"].cancel()
        await together(*(running.stop(drain if self._elected else 0.0) for running in self._running.values()))

    async def stop(self, stage: str, timeout: float) -> list[str]:
        """Stop a stage; the names of what is still running after so many seconds."""
        return await self._pools[stage].stop(max(0.0, timeout))


def _check_is(what: object, kinds: tuple[type, ...], rule: str) -> None:
    if not isinstance(what, kinds):
        message = f"{rule}, not {what!r}"
        raise ConfigurationError(message)


async def _once(runnable: Runnable) -> None:
    await runnable.run()
    await asyncio.Event().wait()
