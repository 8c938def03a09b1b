"""Builds a running controller from its declaration: the queue, the engine and the sources. Called by the manager."""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

from kaito.runtime.cache import Cache, View
from kaito.runtime.client import Api
from kaito.runtime.clock import Clock
from kaito.runtime.controller.base import BaseController
from kaito.runtime.controller.cache_needs import AnyCluster, CacheNeed
from kaito.runtime.controller.cluster_sets import BaseClusterSet
from kaito.runtime.controller.declaration import Controller
from kaito.runtime.controller.engine import Engine, WorkFunction
from kaito.runtime.controller.failure_handling import FailureHooks
from kaito.runtime.controller.keyed import Keyed
from kaito.runtime.controller.kind_availability import KindAvailability
from kaito.runtime.controller.periodic import Periodic
from kaito.runtime.controller.running import OptionalSource, RunningController, StartSource
from kaito.runtime.controller.shard_hold import ShardGate
from kaito.runtime.controller.trace_origin import TraceOrigin, object_origins
from kaito.runtime.controller.watched_kind import WatchedKind
from kaito.runtime.controller.workers import keyed_hooks, keyed_work, object_hooks, object_work, periodic_work
from kaito.runtime.discovery import ServerDiscovery
from kaito.runtime.errors import UndeclaredKind
from kaito.runtime.handler import enqueue_owner, enqueue_self, mapped
from kaito.runtime.lifespan import StateProvider, no_state
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.metrics import Metrics
from kaito.runtime.source import InboundEndpoint, KindSource, PollingSource, PollServices, Source
from kaito.runtime.tracing import Tracer
from kaito.runtime.workqueue import Cause, WorkQueue
from kaito.runtime.workqueue.backoff import Jitter

K = TypeVar("K", bound=Hashable)

AnyController: TypeAlias = Controller[Any] | Periodic | Keyed[Any]
"""Every sort of controller that a manager runs."""

_ClusterSource: TypeAlias = tuple[Source, AnyCluster | None]
"""A source, and the cluster whose cache it uses."""


@dataclass(frozen=True, slots=True)
class ControllerServices:
    """The parts of the manager that its controllers use."""

    cache: Cache
    api: Api
    clock: Clock
    metrics: Metrics
    tracer: Tracer
    jitter: Jitter
    discovery: ServerDiscovery
    state: StateProvider = no_state
    """The state of the manager's lifespan."""
    gate: ShardGate | None = None
    """Which keys this replica reconciles; None for all."""


def build(declared: AnyController, services: ControllerServices) -> RunningController:
    """Builds the controller; nothing runs yet."""
    api, clock, state = services.api, services.clock, services.state
    if isinstance(declared, Keyed):
        work = keyed_work(declared, api, clock, state)
        engine = _engine(declared, work, services, hooks=keyed_hooks(declared, api, clock, state))
        return _running(declared, engine, _watches(declared.name, declared.watched, declared.key), services)
    if isinstance(declared, Periodic):
        periodic = _engine(
            declared, periodic_work(declared, api, clock, state), services, hooks=FailureHooks(pause=declared.seconds)
        )
        periodic.queue.add(declared.name, cause=Cause("", declared.name, "start"))
        return _running(declared, periodic, (), services)
    values: dict[object, object] = {}
    work = object_work(declared, api, clock, services.cache, state, values)
    object_engine = _engine(
        declared,
        work,
        services,
        declared.kind,
        hooks=object_hooks(declared, api, clock, state, values),
        origin=_origins(declared, services),
    )
    pollings = [PollingSource(each, _poll_services(object_engine, services)) for each in declared.pollings]
    for each in pollings:
        object_engine.watch_stuck(each.stuck)
    values |= {declaration: source.cells for declaration, source in zip(declared.pollings, pollings, strict=True)}
    sources = [*_sources(declared), *((polling, None) for polling in pollings)]
    return _running(declared, object_engine, sources, services, _inbound(declared, object_engine, services))


def _engine(
    declared: BaseController[K],
    work: WorkFunction[K],
    services: ControllerServices,
    kind: type[Resource] | None = None,
    *,
    hooks: FailureHooks[K] | None = None,
    origin: Callable[[K], TraceOrigin] | None = None,
) -> Engine[K]:
    options = declared.options
    queue: WorkQueue[K] = WorkQueue(
        options.name,
        limiter=options.rate_limiter(services.jitter),
        aging_step=options.aging_step,
        spacing=options.spacing,
    )
    return Engine(
        options,
        queue,
        work,
        kind=kind,
        clock=services.clock,
        metrics=services.metrics,
        tracer=services.tracer,
        hooks=hooks,
        jitter=services.jitter,
        gate=None if isinstance(declared, Periodic) else services.gate,
        origin=origin,
    )


def _origins(declared: Controller[Any], services: ControllerServices) -> Callable[[ObjectKey], TraceOrigin] | None:
    annotation = services.tracer.annotation
    return object_origins(declared.kind, services.cache, annotation, services.clock) if annotation else None


def _running(
    declared: BaseController[Any],
    engine: Engine[Any],
    sources: Iterable[_ClusterSource],
    services: ControllerServices,
    inbound: Sequence[InboundEndpoint] = (),
) -> RunningController:
    """The engine with its sources; those of kinds that may be missing are separate."""
    needs = {(need.cluster, need.cached.kind.gvk()): need for need in declared.needs}
    required = [need.cached.kind for need in declared.needs if need.cluster is None and not need.optional]

    def availability(kinds: Sequence[type[Resource]]) -> KindAvailability:
        return KindAvailability(kinds, services.discovery, services.cache, controller=declared.name)

    start_sources: list[StartSource] = []
    optional: list[OptionalSource] = []
    for source, cluster in sources:
        # Not narrowed by isinstance: that would make the type of the kind unknown.
        kind = cast("KindSource[Resource]", source).kind if type(source) is KindSource else None
        need = None if kind is None else needs[cluster, kind.gvk()]
        start = _start_source(source, need, cluster, services, engine)
        if need is not None and need.optional:
            optional.append(OptionalSource(start, need, availability([need.cached.kind])))
        else:
            start_sources.append(start)
    return RunningController(
        engine,
        start_sources,
        declared.needs,
        services.cache,
        availability=availability(required) if declared.options.wait_for_kinds else None,
        optional=optional,
        inbound=inbound,
    )


def _sources(controller: Controller[Any]) -> list[_ClusterSource]:
    name, resync = controller.name, controller.resync
    own = KindSource(controller.kind, enqueue_self, when=controller.when, name=f"{name}.for", resync=resync)
    sources: list[_ClusterSource] = [(own, None)]
    for owned in controller.owned:
        handler = enqueue_owner(controller.kind, every_owner=owned.every_owner)
        sources.append((KindSource(owned.kind, handler, when=owned.when, name=f"{name}.owns"), None))
    sources.extend(_watches(name, controller.watched, ObjectKey))
    sources.extend((source, None) for source in controller.sources)
    return [(_with_finalizers(source, controller.finalizers), cluster) for source, cluster in sources]


def _poll_services(engine: Engine[Any], services: ControllerServices) -> PollServices:
    return PollServices(
        engine.name,
        services.clock,
        services.metrics,
        services.jitter,
        services.state,
        engine.wait_working,
        engine.is_held,
    )


def _inbound(
    controller: Controller[Any], engine: Engine[ObjectKey], services: ControllerServices
) -> list[InboundEndpoint]:
    view = View(services.cache)

    def is_cached(key: ObjectKey) -> bool:
        try:
            return services.cache.informer(controller.kind).get(key) is not None
        except UndeclaredKind:  # the kind is not served at present, or the key is in another namespace
            return False

    return [
        InboundEndpoint(each, engine, is_cached=is_cached, view=view, state=services.state, metrics=services.metrics)
        for each in controller.inbound
    ]


def _with_finalizers(source: Source, finalizers: Collection[str]) -> Source:
    """A predicate must not hide the deletion of an object that carries one of the controller's finalizers."""
    if not isinstance(source, KindSource):
        return source
    return cast("KindSource[Resource]", source).with_finalizers(finalizers)


def _watches(controller: str, watches: Sequence[WatchedKind], key: type[Hashable]) -> Iterator[_ClusterSource]:
    for number, watched in enumerate(watches):
        handler = watched.handler or mapped(watched.to or _no_keys, key)
        name = f"{controller}.watches-{number}"
        yield KindSource[Any](watched.kind, handler, when=watched.when, name=name), watched.cluster


def _no_keys(_: Resource, __: View) -> None:
    """Not reached: a watch has `to` or a handler."""


def _start_source(
    source: Source,
    need: CacheNeed | None,
    cluster: AnyCluster | None,
    services: ControllerServices,
    engine: Engine[Any],
) -> StartSource:
    if cluster is None or need is None:
        return lambda scope: source.start(services.cache, engine.queue, scope)
    home, of_kind = View(services.cache), cast("KindSource[Any]", source)
    if isinstance(cluster, BaseClusterSet):
        return lambda scope: cluster.start_source(
            of_kind, need.cached, home=home, queue=engine.queue, discard=engine.discard, scope=scope
        )
    view = View(cluster.cache, cluster=cluster.name, home=home)
    return lambda _: of_kind.deliver(cluster.cache, engine.queue, view)
