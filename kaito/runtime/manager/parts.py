"""What a manager is made of: the network, the client on it, the cache, and what reconcilers hold. Made at its start."""

import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from kaito.runtime.cache import Cache, Cached
from kaito.runtime.client import Api, Client, Transport, user_agent
from kaito.runtime.clock import Clock
from kaito.runtime.controller import Services
from kaito.runtime.discovery import ServerDiscovery
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
class Parts:
    """Client, cache and what is built on them."""

    network: Network
    client: Client
    cache: Cache
    api: Api
    services: Services
    recorder: EventRecorder


async def find_network(settings: Settings, given: Transport | None, stack: AsyncExitStack) -> Network:
    """The given transport, or one found through the settings, which `stack` closes.

    Raises:
        ConfigurationError: there is no way to a cluster.
    """
    if given is not None:
        return Network(given, None, "default")
    # Imported here: tests that bring their own transport need neither sockets nor credentials.
    from kaito.runtime.client.access import find_access
    from kaito.runtime.client.http import HttpTransport

    async def connect() -> HttpTransport:
        return HttpTransport(await find_access(settings.kubeconfig, settings.context))

    access = await find_access(settings.kubeconfig, settings.context)
    transport = HttpTransport(access)
    stack.push_async_callback(transport.close)
    return Network(transport, connect, access.namespace or "default")


def make_parts(
    network: Network,
    settings: Settings,
    *,
    name: str,
    identity: str,
    field_manager: str,
    cached: Sequence[Cached],
    live: Collection[type[Resource]],
    fence: Callable[[], None] | None,
    clock: Clock,
    dice: random.Random,
    metrics: Metrics,
    tracer: Tracer,
) -> Parts:
    """Put the parts together; nothing is sent yet.

    Raises:
        ConfigurationError: declarations of one kind that contradict each other.
    """
    observer = RequestMetrics(metrics)
    client = Client(
        network.transport,
        field_manager=field_manager,
        discovery=ServerDiscovery(network.transport),
        qps=settings.kube_client_qps,
        burst=settings.kube_client_burst,
        observer=observer,
        dice=dice,
        tracer=tracer,
    )
    cache = Cache(
        network.transport,
        cached,
        namespaces=settings.namespaces,
        clock=clock,
        jitter=dice,
        user_agent=user_agent(field_manager),
        observer=observer,
    )
    metrics.watch_cache(cache.stats)
    recorder = EventRecorder(
        client,
        component=name,
        instance=identity,
        clock=clock,
        dice=dice,
        on_drop=lambda reason: metrics.events_dropped.labels(reason).inc(),
    )
    api = Api(client, cache, live=live, fence=fence, events=recorder, clock=clock, dice=dice)
    services = Services(cache, api, clock, metrics, tracer, dice.random)
    return Parts(network, client, cache, api, services, recorder)
