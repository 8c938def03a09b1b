"""What a manager is made of: the network, the client on it, the cache, and what reconcilers hold. Made at its start."""

import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from kaito.runtime.cache import Cache, Cached
from kaito.runtime.client import Api, Client, Interceptor, Transport, user_agent
from kaito.runtime.clock import Clock
from kaito.runtime.controller import ControllerServices
from kaito.runtime.discovery import ServerDiscovery
from kaito.runtime.manager.cache_plan import Declared
from kaito.runtime.manager.settings import Settings
from kaito.runtime.meta import Resource
from kaito.runtime.metrics import Metrics, RequestMetrics
from kaito.runtime.recorder import EventRecorder
from kaito.runtime.tracing import Tracer


@dataclass(frozen=True, slots=True)
class Network:
    """How the manager reaches the API server."""

    transport: Transport
    connect: Callable[[], Awaitable[Transport]] | None
    """Makes another transport, for another event loop; None when only this one exists."""
    namespace: str
    """Where this process lives."""


@dataclass(frozen=True, slots=True)
class Common:
    """What the parts of every cluster have in common."""

    name: str
    identity: str
    field_manager: str
    former_field_managers: Sequence[str]
    fence: Callable[[], None] | None
    clock: Clock
    rng: random.Random
    metrics: Metrics
    tracer: Tracer
    interceptors: Sequence[Interceptor] = ()


@dataclass(frozen=True, slots=True)
class Parts:
    """Client, cache and what is built on them."""

    network: Network
    client: Client
    discovery: ServerDiscovery
    cache: Cache
    api: Api
    recorder: EventRecorder

    def services(self, common: Common) -> ControllerServices:
        """What controllers of this cluster are lent."""
        return ControllerServices(
            self.cache, self.api, common.clock, common.metrics, common.tracer, common.rng.random, self.discovery
        )


async def find_network(settings: Settings, given: Transport | None, stack: AsyncExitStack, metrics: Metrics) -> Network:
    """The given transport, or one found through the settings, which `stack` closes.

    Raises:
        ConfigurationError: there is no way to a cluster.
    """
    if given is not None:
        return Network(given, None, "default")
    # Imported here: tests that bring their own transport need neither sockets nor credentials.
    from kaito.runtime.client.connect import find_cluster_config
    from kaito.runtime.client.http import HttpTransport

    async def connect() -> HttpTransport:
        return HttpTransport(await find_cluster_config(settings.kubeconfig, settings.context))

    access = await find_cluster_config(settings.kubeconfig, settings.context)
    transport = HttpTransport(access, resolved=RequestMetrics(metrics).resolved)
    stack.push_async_callback(transport.close)
    return Network(transport, connect, access.namespace or "default")


def make_parts(
    network: Network,
    settings: Settings,
    common: Common,
    declared: Sequence[Declared],
    *,
    defaults: Sequence[Cached] = (),
    live: Collection[type[Resource]],
    cluster: str = "",
) -> Parts:
    """Put the parts together; nothing is sent yet.

    Args:
        network: the way to the cluster.
        settings: its limits and namespaces.
        common: what all clusters share.
        declared: what its cache keeps.
        defaults: `Cached(Resource, ...)`, if there is one.
        live: kinds read from its server each time.
        cluster: its name in metrics; empty for the manager's own.

    Raises:
        ConfigurationError: declarations of one kind that contradict each other.
    """
    observer = RequestMetrics(common.metrics)
    discovery = ServerDiscovery(network.transport)
    client = Client(
        network.transport,
        field_manager=common.field_manager,
        discovery=discovery,
        qps=settings.kube_client_qps,
        burst=settings.kube_client_burst,
        observer=observer,
        rng=common.rng,
        tracer=common.tracer,
    )
    for interceptor in reversed(common.interceptors):
        client = client.intercepted(interceptor)
    cache = Cache(
        network.transport,
        defaults,
        namespaces=settings.namespaces,
        clock=common.clock,
        rng=common.rng,
        user_agent=user_agent(common.field_manager),
        observer=observer,
    )
    for each in declared:
        cache.declare(each.cached, pinned=each.pinned)
    common.metrics.watch_cache(cache.stats, cluster=cluster)
    recorder = EventRecorder(
        client,
        component=common.name,
        instance=common.identity,
        clock=common.clock,
        rng=common.rng,
        on_drop=lambda reason: common.metrics.events_dropped.labels(reason).inc(),
    )
    api = Api(
        client,
        cache,
        live=live,
        fence=common.fence,
        former_field_managers=common.former_field_managers,
        events=recorder,
        clock=common.clock,
        rng=common.rng,
    )
    return Parts(network, client, discovery, cache, api, recorder)
