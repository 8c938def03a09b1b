"""From a declaration to a running controller: makes the engine and its sources. Called by the manager."""

from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from kaito.runtime.cache import Cache, View
from kaito.runtime.client import Api
from kaito.runtime.clock import Clock
from kaito.runtime.controller.cache_needs import Elsewhere
from kaito.runtime.controller.declaration import Controller
from kaito.runtime.controller.engine import Engine
from kaito.runtime.controller.keyed import Keyed
from kaito.runtime.controller.kind_availability import Served
from kaito.runtime.controller.periodic import Periodic
from kaito.runtime.controller.running import Late, Running, Starter
from kaito.runtime.controller.watching import Watched
from kaito.runtime.controller.workers import object_body, tick_body, visit_body
from kaito.runtime.discovery import ServerDiscovery
from kaito.runtime.handler import enqueue_owner, enqueue_self, mapped
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.metrics import Metrics
from kaito.runtime.source import KindSource, Source
from kaito.runtime.tracing import Tracer
from kaito.runtime.workqueue import Cause, ExponentialLimiter, WorkQueue
from kaito.runtime.workqueue.backoff import Jitter

AnyController: TypeAlias = Controller[Any] | Periodic | Keyed[Any]
"""Whatever a manager takes as a controller."""

_Placed: TypeAlias = tuple[Source, Elsewhere | None]
"""A source, and the cluster whose cache it uses."""


@dataclass(frozen=True, slots=True)
class Services:
    """What the manager lends to its controllers."""

    cache: Cache
    api: Api
    clock: Clock
    metrics: Metrics
    tracer: Tracer
    jitter: Jitter
    discovery: ServerDiscovery


def build(declared: AnyController, services: Services) -> Running:
    """The controller, ready to run."""
    if isinstance(declared, Keyed):
        return _keyed(declared, services)
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
        object_body(controller, services.api, services.clock, queue.forget, services.cache),
        workers=controller.workers,
        deadline=controller.deadline,
        clock=services.clock,
        metrics=services.metrics,
        tracer=services.tracer,
        group=controller.kind.group(),
    )
    return _running(controller, engine, _sources(controller), services)


def _running(
    declared: Controller[Any] | Keyed[Any], engine: Engine[Any], sources: Iterable[_Placed], services: Services
) -> Running:
    """The engine with its sources, those of kinds that may be missing apart."""
    needs = {(need.cluster, need.cached.kind.gvk()): need for need in declared.needs}
    home = [need.cached.kind for need in declared.needs if need.cluster is None and not need.optional]

    def served(kinds: Sequence[type[Resource]]) -> Served:
        return Served(kinds, services.discovery, services.cache, controller=declared.name)

    starters: list[Starter] = []
    late: list[Late] = []
    for source, cluster in sources:
        start = _starter(source, services.cache if cluster is None else cluster.cache, engine.queue)
        kind = cast("KindSource[Resource]", source).kind if isinstance(source, KindSource) else None
        need = None if kind is None else needs[cluster, kind.gvk()]
        if need is not None and need.optional:
            late.append(Late(start, need, served([need.cached.kind])))
        else:
            starters.append(start)
    return Running(
        engine,
        starters,
        declared.needs,
        services.cache,
        sync_timeout=declared.sync_timeout,
        served=served(home) if declared.wait_for_kinds else None,
        late=late,
        drain=declared.drain,
    )


def _sources(controller: Controller[Any]) -> list[_Placed]:
    name, resync = controller.name, controller.resync
    own = KindSource(controller.kind, enqueue_self, when=controller.when, name=f"{name}.for", resync=resync)
    sources: list[_Placed] = [(own, None)]
    for owned in controller.owned:
        handler = enqueue_owner(controller.kind, every_owner=owned.every_owner)
        sources.append((KindSource(owned.kind, handler, when=owned.when, name=f"{name}.owns"), None))
    sources.extend(_watches(name, controller.watched, ObjectKey))
    sources.extend((source, None) for source in controller.sources)
    return [(_with_finalizers(source, controller.finalizers), cluster) for source, cluster in sources]


def _with_finalizers(source: Source, finalizers: Collection[str]) -> Source:
    """No predicate may hide the deletion of an object that carries one of the controller's finalizers."""
    if not isinstance(source, KindSource):
        return source
    return cast("KindSource[Resource]", source).with_finalizers(finalizers)


def _watches(controller: str, watches: Sequence[Watched], key: type[Hashable]) -> Iterator[_Placed]:
    for number, watched in enumerate(watches):
        to_queue = watched.handler or mapped(watched.to or _nowhere, key)
        name = f"{controller}.watches-{number}"
        yield KindSource[Any](watched.kind, to_queue, when=watched.when, name=name), watched.cluster


def _nowhere(_: Resource, __: View) -> None:
    """Not reached: a watch has `to` or a handler."""


def _starter(source: Source, cache: Cache, queue: WorkQueue[Any]) -> Starter:
    return lambda scope: source.start(cache, queue, scope)


def _keyed(keyed: Keyed[Any], services: Services) -> Running:
    limiter = keyed.limiter or ExponentialLimiter[Any](keyed.backoff, jitter=services.jitter)
    queue: WorkQueue[Any] = WorkQueue(keyed.name, limiter=limiter, spacing=keyed.spacing)
    engine = Engine(
        keyed.name,
        "",
        queue,
        visit_body(keyed, services.api, services.clock),
        workers=keyed.workers,
        deadline=keyed.deadline,
        clock=services.clock,
        metrics=services.metrics,
        tracer=services.tracer,
    )
    return _running(keyed, engine, _watches(keyed.name, keyed.watched, keyed.key), services)


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
    return Running(engine, (), periodic.needs, services.cache)
