"""From a declaration to a running controller: makes the engine and its sources. Called by the manager."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kaito.runtime.cache import Cache
from kaito.runtime.client import Api
from kaito.runtime.clock import Clock
from kaito.runtime.controller.bodies import object_body, tick_body
from kaito.runtime.controller.declaration import Controller
from kaito.runtime.controller.engine import Engine
from kaito.runtime.controller.periodic import Periodic
from kaito.runtime.handler import enqueue_owner, enqueue_self, mapped
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.metrics import Metrics
from kaito.runtime.source import ChannelSource, KindSource, Source, Started
from kaito.runtime.tasks import TaskScope
from kaito.runtime.tracing import Tracer
from kaito.runtime.workqueue import Cause, ExponentialLimiter, WorkQueue
from kaito.runtime.workqueue.backoff import Jitter


@dataclass(frozen=True, slots=True)
class Services:
    """What the manager lends to its controllers."""

    cache: Cache
    api: Api
    clock: Clock
    metrics: Metrics
    tracer: Tracer
    jitter: Jitter


@dataclass(frozen=True, slots=True)
class Running:
    """An engine and how to run its sources."""

    engine: Engine[Any]
    sources: Sequence[Callable[[TaskScope], Started]]
    sync_timeout: float

    async def run_sources(self) -> None:
        """Fill the queue until cancelled; see `Engine.run_sources`."""
        await self.engine.run_sources(self.sources, sync_timeout=self.sync_timeout)


def build(declared: "Controller[Any] | Periodic", services: Services) -> Running:
    """The controller, ready to run."""
    if isinstance(declared, Periodic):
        return _periodic(declared, services)
    return _controller(declared, services)


def _controller(controller: Controller[Any], services: Services) -> Running:
    limiter = controller.limiter or ExponentialLimiter[ObjectKey](controller.backoff, jitter=services.jitter)
    queue: WorkQueue[ObjectKey] = WorkQueue(
        controller.name, limiter=limiter, aging_step=controller.aging_step, spacing=controller.spacing
    )
    engine = Engine(
        controller.name,
        controller.kind.kind,
        queue,
        object_body(controller, services.api, services.clock, queue.forget),
        workers=controller.workers,
        deadline=controller.deadline,
        clock=services.clock,
        metrics=services.metrics,
        tracer=services.tracer,
    )
    starters = [_starter(source, services.cache, queue) for source in _sources(controller)]
    return Running(engine, starters, controller.sync_timeout)


def _sources(controller: Controller[Any]) -> list[Source]:
    sources: list[Source] = [
        KindSource(controller.kind, enqueue_self, when=controller.when, name=f"{controller.name}.for")
    ]
    for owned in controller.owned:
        handler = enqueue_owner(controller.kind, every_owner=owned.every_owner)
        sources.append(KindSource(owned.kind, handler, when=owned.when, name=f"{controller.name}.owns"))
    for number, watched in enumerate(controller.watched):
        name = f"{controller.name}.watches-{number}"
        sources.append(KindSource[Resource](watched.kind, mapped(watched.to), when=watched.when, name=name))
    sources.extend(ChannelSource(channel) for channel in controller.channels)
    return sources


def _starter(source: Source, cache: Cache, queue: WorkQueue[ObjectKey]) -> Callable[[TaskScope], Started]:
    return lambda scope: source.start(cache, queue, scope)


def _periodic(periodic: Periodic, services: Services) -> Running:
    limiter = ExponentialLimiter[str](periodic.backoff, jitter=services.jitter)
    queue: WorkQueue[str] = WorkQueue(periodic.name, limiter=limiter)
    engine = Engine(
        periodic.name,
        "",
        queue,
        tick_body(periodic, services.api, services.clock),
        workers=1,
        deadline=periodic.deadline,
        clock=services.clock,
        metrics=services.metrics,
        tracer=services.tracer,
    )
    queue.add(periodic.name, cause=Cause("", periodic.name, "start"))
    return Running(engine, (), 1.0)
