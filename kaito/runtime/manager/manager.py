"""`Manager`: one process of an operator. Starts everything in order, keeps it running, stops it in order.

    Manager(Settings.from_env(), controllers=[controller], lease="memcached-operator").run()

Start, each step awaited before the next: HTTP endpoints, webhooks, caches (first lists), runnables that every replica
runs, the controllers' sources (so that a standby is warm), the election; and when it is won, workers and elected
runnables. Stop: sources at once; then runnables, workers, caches, webhooks, endpoints; the lease last, and released
only if everything ended. The first failure of anything stops all. In tests `kaito.runtime.testing.World` runs it.
"""

import asyncio
import os
import platform
import random
import re
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, final

from kaito.runtime.cache import Cache, Cached
from kaito.runtime.client import Api, Client, Interceptor, Transport
from kaito.runtime.client.client import check_field_manager
from kaito.runtime.clock import Clock, SystemClock, monotonic
from kaito.runtime.controller import AnyController
from kaito.runtime.errors import ConfigurationError, NotLeader
from kaito.runtime.health import Checks
from kaito.runtime.kinds import Lease
from kaito.runtime.logging import get_logger
from kaito.runtime.manager.arguments import check_arguments
from kaito.runtime.manager.assembly import Common, Network, Parts, find_network
from kaito.runtime.manager.caches import Caches
from kaito.runtime.manager.cluster import Cluster
from kaito.runtime.manager.election import make_leadership
from kaito.runtime.manager.health.checks import add_default_checks
from kaito.runtime.manager.health.loop_watchdog import Pulse
from kaito.runtime.manager.leadership import Leadership
from kaito.runtime.manager.runnable import Background, Runnable, ShutdownTimedOut, UnexpectedEnd
from kaito.runtime.manager.runnable_groups import CONTROLLERS, DRAIN_SHARE, STOP_ORDER, Fleet
from kaito.runtime.manager.settings import Settings
from kaito.runtime.manager.threads import Threads
from kaito.runtime.meta import ObjectMeta, Resource
from kaito.runtime.metrics import Metrics
from kaito.runtime.tasks import TaskScope, together
from kaito.runtime.tracing import NO_TRACER, Tracer
from kaito.runtime.workqueue import WorkQueue

if TYPE_CHECKING:  # servers and cryptography are loaded when the manager needs them
    from kaito.runtime.manager.http.routes import HttpHandler, Port, Routes
    from kaito.runtime.manager.http.servers import Endpoints
    from kaito.runtime.manager.webhooks import Webhooks
    from kaito.runtime.webhook import Conversion, Webhook

LOST_LEASE_GRACE_SECONDS = 2.0
"""After a lost lease everything elected gets this long to notice, then the process exits: another one leads already."""

RECORDER_SECONDS = 5.0
"""The last events, those about the stop among them, get this long to be sent."""

_LEASE_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
"""A DNS-1123 subdomain, near enough; the API server has the last word."""

_log = get_logger(__name__)


def _is_lease_name(lease: object) -> bool:
    return isinstance(lease, str) and _LEASE_NAME.fullmatch(lease) is not None


@final
class Manager:
    """Everything one process runs.

    Args:
        settings: addresses, credentials, limits.
        controllers: what to reconcile. The kinds they need are cached without being named here.
        cache: further kinds to keep in memory, or selectors, indexes and forms of watched ones for all controllers.
        live: kinds that `api` reads from the server each time.
        clusters: others than the manager's own, that controllers watch or runs use.
        lease: name of the lease; without it (or with `settings.leader_elect` off) this process always leads.
        webhooks: admission to answer.
        conversions: kinds with several versions to convert.
        runnables: other work.
        transport: the network; found through the settings when left out. A given one is not closed.
        clock: wall time.
        name: of the operator, in logs, events and the user agent; the lease's name by default.
        field_manager: owner of the fields it writes; the name by default. Controllers write as
            `<field manager>/<controller>`, so that each keeps its fields of a shared object.
        former_field_managers: names under which earlier versions applied what controllers apply now (after a rename of
            the manager or of a controller). Fields that only they own go with the first apply of an object.
        tracer: where reconciles become spans.
        rng: randomness of waits; seed it for repeatable runs.
        interceptors: code around every request of reconcilers, webhooks and events, to any cluster; the first one sees
            it first. Watches, discovery and the lease do not pass them.

    Raises:
        ConfigurationError: two controllers, runnables or clusters of one name, declarations of a kind that contradict
            each other, a kind both cached and live, a controller that watches a cluster which is not named.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        controllers: Sequence[AnyController] = (),
        cache: Sequence[Cached] = (),
        live: Sequence[type[Resource]] = (),
        clusters: Sequence[Cluster] = (),
        lease: str | None = None,
        webhooks: "Sequence[Webhook[Any]]" = (),
        conversions: "Sequence[Conversion[Any]]" = (),
        runnables: Sequence[Runnable] = (),
        transport: Transport | None = None,
        clock: Clock | None = None,
        name: str = "",
        field_manager: str = "",
        former_field_managers: Sequence[str] = (),
        tracer: Tracer = NO_TRACER,
        rng: random.Random | None = None,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        check_arguments(settings, controllers=controllers, cache=cache, live=live, clusters=clusters)
        self.settings: Settings = settings or Settings()
        self.name: str = name or str(lease or "manager")
        self.field_manager: str = field_manager or self.name
        self._former_field_managers = tuple(former_field_managers)
        self.metrics: Metrics = Metrics(process=True)
        self.healthz: Checks = Checks("healthz")
        """Add your own: the process is restarted when one fails for long."""
        self.readyz: Checks = Checks("readyz")
        """Add your own: the process gets no traffic while one fails."""
        grace = self.settings.graceful_shutdown_seconds
        self._threads = Threads()
        self._fleet = Fleet(
            controllers, runnables, metrics=self.metrics, grace=grace, ended=self._ended, owning=self._threads.owning
        )
        self._caches = Caches(self._fleet, self.settings, own=cache, live=live, clusters=clusters)
        self._lease = lease
        self._given_transport = transport
        self._clock = clock or SystemClock()
        self._tracer = tracer
        self._interceptors = tuple(interceptors)
        self._rng = rng or random.SystemRandom()
        self._identity = self.settings.identity or f"{os.environ.get('POD_NAME') or platform.node()}_{uuid.uuid4()}"
        self._check()

        self._webhooks = self._make_webhooks(webhooks, conversions) if webhooks or conversions else None
        self._parts: Parts | None = None
        self._leadership: Leadership | None = None
        self._pulse = Pulse(self.metrics)
        self._endpoints: Endpoints | None = None
        self._routes: Routes | None = None
        self._stack = AsyncExitStack()
        self._used = self._stopping = False
        self._leads = asyncio.Event()
        self._stop_asked = asyncio.Event()
        self._finished = asyncio.Event()
        self._failure: asyncio.Future[BaseException] | None = None

    def _make_webhooks(
        self, webhooks: "Sequence[Webhook[Any]]", conversions: "Sequence[Conversion[Any]]"
    ) -> "Webhooks":
        from kaito.runtime.manager.webhooks import Webhooks

        return Webhooks(
            webhooks, conversions, settings=self.settings, name=self.name, metrics=self.metrics, clock=self._clock
        )

    def add(self, what: AnyController | Runnable) -> None:
        """Run one more controller or runnable; in a started manager at once (elected ones when it leads).

        Raises:
            ConfigurationError: its name is taken, what it needs in the cache contradicts others, or the manager is
                stopping.
        """
        if self._stopping:
            message = f"manager {self.name} is stopping: {what.name} was not added"
            raise ConfigurationError(message)
        if isinstance(what, CONTROLLERS):
            self._caches.check(what)
        self._fleet.add(what)

    def serve(self, path: str, handler: "HttpHandler", *, on: "Port" = "metrics") -> None:
        """Serve something of your own on the port of the metrics, behind the same guard, or on that of the probes.

        Args:
            path: for example `/plan`; `/metrics`, `/debug`, `/healthz` and `/readyz` are the manager's own.
            handler: an async function of aiohttp's `Request`, for any HTTP method.
            on: which port. While its bind address is `0`, nothing is served.

        Raises:
            ConfigurationError: the path is taken or malformed, or the manager has started.
        """
        from kaito.runtime.manager.http.routes import Routes

        self._routes = self._routes or Routes()
        self._routes.add(path, handler, on)

    async def remove(self, name: str) -> None:
        """Stop a controller, and the informers that only it needed; its queue is dropped. Unknown names are ignored."""
        await self._fleet.remove(name)

    def _check(self) -> None:
        self._caches.check()
        if self._lease is not None and not _is_lease_name(self._lease):
            message = f"lease={self._lease!r}: lower case letters, digits, '-' and '.' only, as object names are"
            raise ConfigurationError(message)
        for name in (self.field_manager, *self._former_field_managers):
            check_field_manager(name)

    # -- what users reach for ----------------------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """The live client, not fenced. Started managers only."""
        return self._started.client

    @property
    def cache(self) -> Cache:
        """The informers. Started managers only."""
        return self._started.cache

    @property
    def api(self) -> Api:
        """What reconcilers get. Started managers only."""
        return self._started.api

    @property
    def _started(self) -> Parts:
        if self._parts is None:
            message = f"manager {self.name} has not started"
            raise ConfigurationError(message)
        return self._parts

    @property
    def is_leader(self) -> bool:
        """Whether elected work runs here."""
        return self._leads.is_set()

    def fence(self) -> None:
        """Raise unless this process surely holds the lease; for writes to systems other than Kubernetes.

        The same check as `Api.fence`, for clients that are made before the manager starts.

        Raises:
            NotLeader: the lease is not held, could expire before a write arrives, or the manager has not started.
        """
        if self._leadership is not None:
            self._leadership.check()
        elif self._lease is not None and self.settings.leader_elect:
            message = f"manager {self.name} has not started: lease {self._lease} is not held, nothing may be written"
            raise NotLeader(message)

    async def wait_elected(self) -> None:
        """Wait until elected work runs here."""
        await self._leads.wait()

    @property
    def health_port(self) -> int | None:
        """The port probes are answered on, once started; None when off."""
        return self._endpoints.health_port if self._endpoints is not None else None

    @property
    def metrics_port(self) -> int | None:
        """The port of the metrics, once started; None when off."""
        return self._endpoints.metrics_port if self._endpoints is not None else None

    @property
    def webhook_port(self) -> int | None:
        """The port webhooks are served on, once started; None without webhooks."""
        return self._webhooks.port if self._webhooks is not None else None

    def busy(self) -> Sequence[str]:
        """What is going on, for tests that wait for rest; empty at rest. Delayed work does not count."""
        busy = [*self._fleet.busy()]
        if not all(cache.idle for cache in self._caches.by_cluster().values()):
            busy.append(f"{self.name}: a handler has events")
        return busy

    @property
    def queues(self) -> Sequence[WorkQueue[Any]]:
        """The controllers' queues."""
        return self._fleet.queues()

    # -- running -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until a signal, in an event loop of its own. The process's main function.

        The first SIGINT or SIGTERM stops in order, the second exits at once.

        Raises:
            SystemExit: always; 0 after a clean stop, 1 after a failure, a lost lease, or a stop that took too long.
        """
        from kaito.runtime.manager.process import run_process

        run_process(self, self._threads, self._pulse)

    async def start(self) -> None:
        """Run until `stop` is called or something fails; the failure is raised."""
        async with self:
            await self.wait_stop()

    async def wait_stop(self) -> None:
        """Wait until somebody calls `stop`."""
        await self._stop_asked.wait()

    async def stop(self) -> None:
        """Make `start` return, and wait until everything has stopped."""
        self._stop_asked.set()
        if self._used:
            await self._finished.wait()

    async def __aenter__(self) -> Self:
        """Start everything; returns when sources are synced (a standby does not wait for its election)."""
        if self._used:
            message = f"manager {self.name}: a manager runs once; make another"
            raise ConfigurationError(message)
        self._used = True
        try:
            async with AsyncExitStack() as stack:
                self._threads.attach()
                with self._threads.owning():
                    await self._start(stack)
                self._stack = stack.pop_all()
        except BaseException:
            self._finished.set()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Stop everything; raises what made it stop, if something failed."""
        try:
            return await self._stack.__aexit__(exc_type, exc, traceback)
        finally:
            self._finished.set()

    async def _start(self, stack: AsyncExitStack) -> None:
        self._failure = asyncio.get_running_loop().create_future()
        scope = await stack.enter_async_context(TaskScope(self.name))
        scope.spawn(self._watch(self._failure), name="watch")
        _log.info("starting", manager=self.name)
        network = await find_network(self.settings, self._given_transport, stack, self.metrics)
        common = self._common(network)
        parts = self._parts = await self._caches.connect(network, common, stack)
        stack.push_async_callback(self._stop_in_order)
        await stack.enter_async_context(self._pulse)
        self._add_checks(self._pulse)
        self._fleet.build(parts.services(common))
        await self._start_endpoints()
        await self._start_webhooks(parts)
        await self._start_caches()
        for cluster, each in self._caches.parts.items():
            self._fleet.spawn("events", Background(_of("recorder", cluster), each.recorder.run))
        self._fleet.start_everywhere()
        _log.info("starting", stage="sources")
        await self._fleet.start_sources()
        await self._start_election()

    def _common(self, network: Network) -> Common:
        if self._lease is not None and self.settings.leader_elect:
            self._leadership = make_leadership(
                self._lease,
                self._identity,
                self.settings,
                network,
                owner=self.field_manager,
                clock=self._clock,
                jitter=self._rng.random,
                metrics=self.metrics,
                pulse=self._pulse,
            )
        return Common(
            name=self.name,
            identity=self._identity,
            field_manager=self.field_manager,
            former_field_managers=self._former_field_managers,
            fence=None if self._leadership is None else self._leadership.check,
            clock=self._clock,
            rng=self._rng,
            metrics=self.metrics,
            tracer=self._tracer,
            interceptors=self._interceptors,
        )

    # -- starting, step by step --------------------------------------------------------------------------------------

    async def _start_endpoints(self) -> None:
        from kaito.runtime.manager.http.routes import Debugging, Routes
        from kaito.runtime.manager.http.servers import Endpoints

        _log.info("starting", stage="endpoints")
        endpoints = self._endpoints = Endpoints(self.settings, self._routes or Routes())
        await endpoints.start(
            health=(self.healthz, self.readyz),
            metrics=self.metrics,
            debug=Debugging(lambda: self.queues, self._caches.by_cluster),
            client=self.client,
            jitter=self._rng.random,
        )
        serving, directory = endpoints.metrics_serving, self.settings.metrics_cert_dir
        if serving is not None and directory is not None:
            from kaito.runtime.certs import CertificateFiles

            self._fleet.spawn("runnables", CertificateFiles(directory, serving))

    async def _start_webhooks(self, parts: Parts) -> None:
        if self._webhooks is None:
            return
        _log.info("starting", stage="webhooks")
        keeper = self._webhooks.prepare(parts.client, parts.network.namespace, self._rng)
        self._fleet.spawn("webhooks", keeper)
        await self._webhooks.start()

    async def _start_caches(self) -> None:
        _log.info("starting", stage="caches")
        caches = self._caches.by_cluster()
        for cluster, cache in caches.items():
            self._fleet.spawn("caches", Background(_of("cache", cluster), cache.run))
        await together(*(cache.wait_synced(self.settings.cache_sync_seconds) for cache in caches.values()))

    async def _start_election(self) -> None:
        _log.info("starting", stage="election")
        leadership = self._leadership
        if leadership is None:
            self._start_elected()
            return
        await leadership.start()
        self._fleet.spawn("elected", Background("lead", lambda: self._lead(leadership)))

    async def _lead(self, leadership: Leadership) -> None:
        await leadership.elected()
        self._tell_election("became leader")
        self._start_elected()
        reason = await leadership.lost()
        message = f"leader election lost: {reason}"
        raise NotLeader(message)

    def _tell_election(self, what: str) -> None:
        lease = Lease(metadata=ObjectMeta(name=self._lease or "", namespace=self._lease_namespace))
        self._started.recorder.record(
            lease, "Normal", "LeaderElection", f"{self._identity} {what}", action="LeaderElection"
        )
        self.metrics.leader.labels(self._lease or "").set(what == "became leader")

    @property
    def _lease_namespace(self) -> str:
        return self.settings.leader_election_namespace or self._started.network.namespace

    def _start_elected(self) -> None:
        _log.info("starting", stage="elected")
        self._fleet.start_elected()
        self._leads.set()

    def _add_checks(self, pulse: Pulse) -> None:
        add_default_checks(
            self.healthz,
            self.readyz,
            caches=self._caches.by_cluster,
            engines=self._fleet.engines,
            resting=self._fleet.resting,
            pulse=pulse,
            leadership=lambda: self._leadership,
            silence=self.settings.watch_silence_seconds,
        )
        if self._webhooks is not None:
            self._webhooks.add_checks(self.readyz)

    # -- stopping ----------------------------------------------------------------------------------------------------

    def _ended(self, name: str, error: BaseException | None) -> None:
        if self._stopping:
            if error is not None:
                _log.error("failed while stopping", task=name, error=str(error), exc_info=error)
            return
        if error is None:
            error = UnexpectedEnd(f"{name} ended by itself")
        if self._failure is not None and not self._failure.done():
            self._failure.set_result(error)

    async def _watch(self, failure: "asyncio.Future[BaseException]") -> None:
        raise await failure

    async def _stop_in_order(self) -> None:
        self._stopping = True
        lost = self._leadership is not None and self._leads.is_set() and self._leadership_is_lost()
        grace = LOST_LEASE_GRACE_SECONDS if lost else self.settings.graceful_shutdown_seconds
        deadline = monotonic() + grace
        _log.info("stopping", manager=self.name, grace_seconds=grace)
        await self._fleet.close(drain=0.0 if lost else DRAIN_SHARE * grace)
        left: list[str] = []
        for stage in STOP_ORDER:
            _log.info("stopping", stage=stage)
            left += await self._fleet.stop(stage, deadline - monotonic())
        if self._webhooks is not None:
            _log.info("stopping", stage="webhooks")
            await self._webhooks.stop()
            left += await self._fleet.stop("webhooks", deadline - monotonic())
        left += await self._threads.wait(deadline - monotonic())
        _log.info("stopping", stage="endpoints")
        if self._endpoints is not None:
            await self._endpoints.stop()
        left += [work for work in self._threads.busy() if work not in left]  # of the last requests
        if self._leadership is not None:
            _log.info("stopping", stage="election")
            if self._leads.is_set():
                self._tell_election("stopped leading")
            if left and self._leads.is_set():
                _log.error("work goes on: the lease is not released", left=left)
            await self._leadership.stop(release=not left and not lost)
        self._leads.clear()
        await self._fleet.stop("events", RECORDER_SECONDS)
        if left:
            message = f"still running after {grace:g} s: {', '.join(left)}"
            raise ShutdownTimedOut(message)
        _log.info("stopped", manager=self.name)

    def _leadership_is_lost(self) -> bool:
        failure = self._failure
        return failure is not None and failure.done() and isinstance(failure.result(), NotLeader)


def _of(what: str, cluster: str) -> str:
    """The name of a part of a cluster; those of the manager's own go without."""
    return f"{what}-{cluster}" if cluster else what
