"""Assembles what a cluster needs: the connection, the client on it, the cache, and what reconcilers use."""

import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from kaito.runtime.cache import Cache, Cached
from kaito.runtime.client import Api, Client, Interceptor, Transport, user_agent
from kaito.runtime.cluster_clock import ClusterClock
from kaito.runtime.controller import ControllerServices, ShardGate
from kaito.runtime.discovery import ServerDiscovery
from kaito.runtime.lifespan import StateProvider, no_state
from kaito.runtime.manager.cache_plan import CachePlan
from kaito.runtime.manager.settings import Settings
from kaito.runtime.meta import Resource
from kaito.runtime.metrics import Metrics, RequestMetrics
from kaito.runtime.recorder import EventRecorder
from kaito.runtime.tracing import Tracer


@dataclass(frozen=True, slots=True)
class Connection:
    """The connection to an API server."""

    transport: Transport
    connect: Callable[[], Awaitable[Transport]] | None
    """Opens another transport, for another event loop; None when only this one exists."""
    namespace: str
    """Namespace of this process: of the pod, or of the kubeconfig's context."""


@dataclass(frozen=True, slots=True)
class SharedServices:
    """What all clusters of a manager share."""

    name: str
    identity: str
    field_manager: str
    former_field_managers: Sequence[str]
    fence: Callable[[], None] | None
    """Raises `NotLeader` before a write when the lease is not held; None without leader election."""
    clock: ClusterClock
    """Corrected by the API server of the manager's own cluster."""
    rng: random.Random
    metrics: Metrics
    tracer: Tracer
    interceptors: Sequence[Interceptor] = ()
    state: StateProvider = no_state
    """The state of the manager's lifespan."""


@dataclass(frozen=True, slots=True)
class ClusterServices:
    """Client and cache of one cluster, and what is built on them."""

    connection: Connection
    client: Client
    discovery: ServerDiscovery
    cache: Cache
    api: Api
    recorder: EventRecorder
    requests: RequestMetrics
    """Counts its requests."""

    def for_controllers(self, shared: SharedServices, *, gate: ShardGate | None = None) -> ControllerServices:
        """The services that controllers use. `gate`: which keys this replica reconciles; None for all."""
        return ControllerServices(
            self.cache,
            self.api,
            shared.clock,
            shared.metrics,
            shared.tracer,
            shared.rng.random,
            self.discovery,
            shared.state,
            gate,
        )


async def open_connection(
    settings: Settings, transport: Transport | None, stack: AsyncExitStack, metrics: Metrics
) -> Connection:
    """Uses the given transport, or opens one with the cluster configuration of the settings, which `stack` closes.

    Raises:
        ConfigurationError: no cluster configuration was found.
    """
    if transport is not None:
        return Connection(transport, None, "default")
    # Imported here: tests that bring their own transport need neither sockets nor credentials.
    from kaito.runtime.client.connect import find_cluster_config
    from kaito.runtime.client.http import HttpTransport

    async def connect() -> HttpTransport:
        return HttpTransport(await find_cluster_config(settings.kubeconfig, settings.context))

    config = await find_cluster_config(settings.kubeconfig, settings.context)
    opened = HttpTransport(config, on_lookup=RequestMetrics(metrics).resolved)
    stack.push_async_callback(opened.close)
    return Connection(opened, connect, config.namespace or "default")


def assemble(
    connection: Connection,
    settings: Settings,
    shared: SharedServices,
    plans: Sequence[CachePlan],
    *,
    defaults: Sequence[Cached] = (),
    live: Collection[type[Resource]],
    cluster: str,
) -> ClusterServices:
    """Assemble the services of a cluster; no request is sent yet.

    Args:
        connection: the connection to its API server.
        settings: limits and namespaces.
        shared: what all clusters share.
        plans: the kinds that its cache keeps.
        defaults: `Cached(Resource, ...)`, if there is one.
        live: kinds that are read from its server each time.
        cluster: its name, for metrics.

    Raises:
        ConfigurationError: declarations of one kind contradict each other.
    """
    observer = RequestMetrics(shared.metrics, shared.clock.observe if not cluster else None)
    discovery = ServerDiscovery(connection.transport, rng=shared.rng)
    client = Client(
        connection.transport,
        field_manager=shared.field_manager,
        discovery=discovery,
        qps=settings.kube_client_qps,
        burst=settings.kube_client_burst,
        observer=observer,
        rng=shared.rng,
        tracer=shared.tracer,
    )
    for interceptor in reversed(shared.interceptors):
        client = client.intercepted(interceptor)
    cache = Cache(
        connection.transport,
        defaults,
        namespaces=settings.namespaces,
        clock=shared.clock,
        rng=shared.rng,
        user_agent=user_agent(shared.field_manager),
        observer=observer,
    )
    for plan in plans:
        cache.declare(plan.cached, pinned=plan.pinned)
    shared.metrics.watch_cache(cache.stats, cluster=cluster)
    shared.metrics.watch_host(connection.transport.host)
    recorder = EventRecorder(
        client,
        component=shared.name,
        instance=shared.identity,
        clock=shared.clock,
        rng=shared.rng,
        on_drop=lambda reason: shared.metrics.events_dropped.labels(reason).inc(),
    )
    api = Api(
        client,
        cache,
        live=live,
        fence=shared.fence,
        former_field_managers=shared.former_field_managers,
        events=recorder,
        clock=shared.clock,
        rng=shared.rng,
    )
    return ClusterServices(connection, client, discovery, cache, api, recorder, observer)
