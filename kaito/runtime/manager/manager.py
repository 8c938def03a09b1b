"""`Manager`: runs the controllers, webhooks and servers of one operator process.

    Manager(Settings.from_env(), controllers=[controller], lease="memcached-operator").run()

It starts, each step awaited before the next: HTTP endpoints, the lifespan, webhooks, caches (first lists), runnables
that every replica runs, the controllers' sources (so that the caches of a standby are warm), and the election; the
leader then starts workers and elected runnables. It stops sources at once, then runnables, workers, caches, webhooks,
endpoints and the lifespan. The lease is last, and is released only if everything has ended. The first failure stops
everything. In tests `kaito.runtime.testing.World` runs it.
"""

import asyncio
import os
import platform
import random
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar, final

from kaito.runtime.cache import Cache, Cached
from kaito.runtime.client import Api, Client, Interceptor, Transport
from kaito.runtime.clock import Clock, monotonic
from kaito.runtime.cluster_clock import ClusterClock
from kaito.runtime.controller import AnyController, current_shard_hold
from kaito.runtime.errors import ConfigurationError, NotLeader
from kaito.runtime.health import Checks
from kaito.runtime.lifespan import state_of
from kaito.runtime.logging import get_logger
from kaito.runtime.manager.arguments import check_arguments, check_names
from kaito.runtime.manager.assembly import ClusterServices, SharedServices
from kaito.runtime.manager.caches import Caches
from kaito.runtime.manager.cluster import Cluster
from kaito.runtime.manager.dynamic_clusters import DynamicClusters
from kaito.runtime.manager.election import Candidate
from kaito.runtime.manager.health.checks import add_default_checks
from kaito.runtime.manager.health.loop_watchdog import LoopWatchdog
from kaito.runtime.manager.leadership import Leadership
from kaito.runtime.manager.lifespan import RunningLifespan, check_lifespan
from kaito.runtime.manager.runnable import Background, Runnable, ShutdownTimedOut, UnexpectedEnd
from kaito.runtime.manager.runnable_groups import CONTROLLERS, DRAIN_SHARE, STOP_ORDER, RunnableGroups
from kaito.runtime.manager.settings import Settings
from kaito.runtime.manager.sharding import ShardCoordinator, Shards
from kaito.runtime.manager.threads import Threads
from kaito.runtime.meta import Resource
from kaito.runtime.metrics import Metrics
from kaito.runtime.source import InboundEndpoint
from kaito.runtime.tasks import TaskScope
from kaito.runtime.tracing import NO_TRACER, Tracer
from kaito.runtime.workqueue import WorkQueue

if TYPE_CHECKING:  # servers and cryptography are loaded when the manager needs them
    from kaito.runtime.manager.http.routes import HttpHandler, Port, Routes
    from kaito.runtime.manager.http.servers import Endpoints
    from kaito.runtime.manager.webhooks import Webhooks
    from kaito.runtime.webhook import Conversion, Webhook

LOST_LEASE_GRACE_SECONDS = 2.0
"""Graceful period after a lost lease: short, because another process already leads."""

LIFESPAN_SECONDS = 1.0
"""Time in which the lifespan may close its resources at least, even if the graceful period is over."""

RECORDER_SECONDS = 5.0
"""Time in which the last events are sent, including those about the stop."""

T = TypeVar("T")

Lifespan: TypeAlias = Callable[["Manager"], AbstractAsyncContextManager[object]]
"""Makes the resources that exist as long as the process; usually an async generator with `@asynccontextmanager`."""

_log = get_logger(__name__)


@final
class Manager:
    """Runs controllers, webhooks, servers and other work of one process.

    Args:
        settings: addresses, credentials, limits.
        controllers: the controllers. The kinds that they need are cached without being named here.
        cache: further kinds to cache, or selectors, indexes and forms of watched kinds for all controllers.
        live: kinds that `api` reads from the server each time.
        clusters: clusters other than the manager's own that controllers watch or reconciles use: each a `Cluster`, or a
            `kaito.runtime.clusters.ClusterSet` of clusters that come and go.
        lease: name of the lease; without it (or with `settings.leader_elect` off) this process always leads.
        shards: divide the keys of the controllers among all replicas, instead of reconciling all in the leader, which
            then runs only periodic controllers and elected runnables.
        webhooks: admission webhooks to serve.
        conversions: kinds with several versions to convert.
        runnables: other work.
        lifespan: makes resources that exist as long as the process: an async context manager, entered before webhooks
            and controllers start, left when they have stopped. Called with this manager. What it yields is
            `request.lifespan(its type)` in reconciles, and `lifespan` of this manager, admissions and polls.
        transport: the network, instead of the settings' cluster configuration. It is not closed.
        clock: wall time, which is corrected by that of the API server. Pass a `ClusterClock` to use the corrected time
            elsewhere, too.
        name: of the operator, in logs, events and the user agent; the lease's name by default.
        field_manager: owner of the fields it writes; the name by default. Controllers write as
            `<field manager>/<controller>`, so that each keeps its fields of a shared object.
        former_field_managers: field managers of earlier versions (before a rename of the manager or of a controller).
            Fields that only they own are removed with the first apply of an object.
        tracer: records reconciles, their requests, and admissions as spans; see `kaito.runtime.tracing`.
        rng: random generator of delays; seed it for repeatable runs.
        interceptors: wrap every request of reconcilers, webhooks and events, to any cluster; the first is the
            outermost. Watches, discovery and the lease are not intercepted.

    Raises:
        ConfigurationError: two controllers, runnables or clusters with one name, declarations of a kind that contradict
            each other, a kind that is both cached and live, a controller that watches a cluster not in `clusters`.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        controllers: Sequence[AnyController] = (),
        cache: Sequence[Cached] = (),
        live: Sequence[type[Resource]] = (),
        clusters: Sequence[Cluster | DynamicClusters] = (),
        lease: str | None = None,
        shards: Shards | None = None,
        webhooks: "Sequence[Webhook[Any]]" = (),
        conversions: "Sequence[Conversion[Any]]" = (),
        runnables: Sequence[Runnable] = (),
        lifespan: Lifespan | None = None,
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
        """Liveness checks, to which more can be added: the kubelet restarts the process when one keeps failing."""
        self.readyz: Checks = Checks("readyz")
        """Readiness checks, to which more can be added: the process receives no traffic while one fails."""
        self._threads = Threads()
        self._groups = RunnableGroups(
            controllers,
            runnables,
            metrics=self.metrics,
            grace_seconds=self.settings.graceful_shutdown_seconds,
            on_end=self._on_end,
            as_owner=self._threads.as_owner,
        )
        self.cluster: Cluster = Cluster("", cache=cache, live=live, transport=transport, settings=self.settings)
        """The manager's own cluster, which has the lease and the webhooks."""
        self._caches = Caches(self._groups, self.cluster, clusters)
        self._lease = lease
        self._shards = shards
        if lifespan is not None:
            check_lifespan(lifespan)
        self._lifespan = RunningLifespan(lambda: lifespan(self)) if lifespan is not None else None
        self._clock = clock if isinstance(clock, ClusterClock) else ClusterClock(clock)
        observed_clock = self._clock
        self.metrics.clock_skew.set_function(lambda: observed_clock.skew_seconds)
        self._tracer = tracer
        self._interceptors = tuple(interceptors)
        self._rng = rng or random.SystemRandom()
        self._identity = self.settings.identity or f"{os.environ.get('POD_NAME') or platform.node()}_{uuid.uuid4()}"
        self._check()

        self._webhooks = self._make_webhooks(webhooks, conversions) if webhooks or conversions else None
        self._candidate: Candidate | None = None
        self._leadership: Leadership | None = None
        self._coordinator: ShardCoordinator | None = None
        self._watchdog = LoopWatchdog(self.metrics)
        self._endpoints: Endpoints | None = None
        self._routes: Routes | None = None
        self._stack = AsyncExitStack()
        self._is_used = self._stopping = False
        self._elected = asyncio.Event()
        self._stop_requested = asyncio.Event()
        self._finished = asyncio.Event()
        self._failure: asyncio.Future[BaseException] | None = None

    def _make_webhooks(
        self, webhooks: "Sequence[Webhook[Any]]", conversions: "Sequence[Conversion[Any]]"
    ) -> "Webhooks":
        from kaito.runtime.manager.webhooks import Webhooks

        return Webhooks(
            webhooks,
            conversions,
            settings=self.settings,
            name=self.name,
            metrics=self.metrics,
            clock=self._clock,
            state=lambda: self.lifespan_state,
            tracer=self._tracer,
        )

    def add(self, added: AnyController | Runnable) -> None:
        """Adds a controller or runnable; a started manager starts it at once (elected ones when it leads).

        Raises:
            ConfigurationError: its name is taken, its cache needs contradict others, or the manager is stopping.
        """
        if self._stopping:
            message = f"manager {self.name} is stopping: {added.name} was not added"
            raise ConfigurationError(message)
        if isinstance(added, CONTROLLERS):
            self._caches.check(added)
        self._groups.add(added)

    def serve(self, path: str, handler: "HttpHandler", *, on: "Port" = "metrics") -> None:
        """Serves a further path on the metrics port, with the same authorization, or on the health port.

        Args:
            path: for example `/plan`; `/metrics`, `/debug`, `/healthz` and `/readyz` are reserved.
            handler: an async function of aiohttp's `Request`, for any HTTP method.
            on: the port. Nothing is served while its bind address is `0`.

        Raises:
            ConfigurationError: the path is taken or malformed, or the manager has started.
        """
        from kaito.runtime.manager.http.routes import Routes

        if self._routes is None:
            self._routes = Routes()
            if self._is_used:  # started without servers, so that nothing sealed the routes
                self._routes.seal()
        self._routes.add(path, handler, on)

    async def remove(self, name: str) -> None:
        """Stops a controller and the informers that only it needs, and drops its queue. Unknown names are ignored."""
        await self._groups.remove(name)

    def _check(self) -> None:
        self._caches.check()
        check_names(self._lease, self._shards, (self.field_manager, *self._former_field_managers))

    # -- for users ---------------------------------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """The live client of the manager's own cluster, not fenced. Once the manager has started."""
        return self.cluster.client

    @property
    def cache(self) -> Cache:
        """The informers of the manager's own cluster. Once the manager has started."""
        return self.cluster.cache

    @property
    def api(self) -> Api:
        """What reconciles use: reads and fenced writes of the manager's own cluster. Once the manager has started."""
        return self.cluster.api

    def lifespan(self, kind: type[T]) -> T:
        """Returns what the lifespan yielded, which has to be of this type, for HTTP handlers and runnables.

        Raises:
            ConfigurationError: the lifespan has not started, has ended, or yields another type.
        """
        return state_of(self.lifespan_state, kind)

    @property
    def lifespan_state(self) -> object:
        """What the lifespan yielded; None before it has started, after its end, and without one."""
        return self._lifespan.state if self._lifespan is not None else None

    @property
    def is_leader(self) -> bool:
        """Whether elected work runs here."""
        return self._elected.is_set()

    def fence(self) -> None:
        """Raises `NotLeader` unless this process holds the lease; for writes to systems other than Kubernetes.

        The same check as `Api.fence`, for clients that are made before the manager starts.

        Raises:
            NotLeader: the lease, or that of the reconcile's shard, is not held or may expire, or nothing has started.
        """
        hold = current_shard_hold()
        if hold is not None:
            hold.check()
        elif self._leadership is not None:
            self._leadership.check()
        elif self._lease is not None and self.settings.leader_elect:
            message = f"manager {self.name} has not started: lease {self._lease} is not held, writes are rejected"
            raise NotLeader(message)

    async def wait_elected(self) -> None:
        """Waits until elected work runs here."""
        await self._elected.wait()

    @property
    def health_port(self) -> int | None:
        """The port of the probes, once started; None when off."""
        return self._endpoints.health_port if self._endpoints is not None else None

    @property
    def metrics_port(self) -> int | None:
        """The port of the metrics, once started; None when off."""
        return self._endpoints.metrics_port if self._endpoints is not None else None

    @property
    def webhook_port(self) -> int | None:
        """The port of the webhooks, once started; None without webhooks."""
        return self._webhooks.port if self._webhooks is not None else None

    def busy(self) -> Sequence[str]:
        """Work in progress; tests use it to wait until idle. Delayed keys do not count."""
        return [*self._groups.busy(), *self._caches.busy()]

    @property
    def queues(self) -> Sequence[WorkQueue[Any]]:
        """The controllers' queues."""
        return self._groups.queues()

    @property
    def inbound(self) -> Sequence[InboundEndpoint]:
        """The inbound sources of the controllers, once started."""
        return self._groups.inbound()

    # -- running -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Runs until a signal, in a new event loop: the main function of a process.

        The first SIGINT or SIGTERM starts a graceful shutdown, the second exits at once.

        Raises:
            SystemExit: always; 0 after a clean stop, 1 after a failure, a lost lease, or a shutdown that timed out.
        """
        from kaito.runtime.manager.process import run_process

        run_process(self._serve, self.settings, threads=self._threads, watchdog=self._watchdog)

    async def _serve(self, on_started: Callable[[], None]) -> None:
        async with self:
            on_started()
            await self.wait_stop()

    async def start(self) -> None:
        """Runs until `stop` is called or something fails, and raises the failure."""
        async with self:
            await self.wait_stop()

    async def wait_stop(self) -> None:
        """Waits until `stop` is called."""
        await self._stop_requested.wait()

    async def stop(self) -> None:
        """Stops a manager that runs in `start`, and waits until everything has stopped."""
        self._stop_requested.set()
        if self._is_used:
            await self._finished.wait()

    async def __aenter__(self) -> Self:
        """Starts everything; returns when the sources are synced, on a standby too."""
        if self._is_used:
            message = f"manager {self.name}: a manager runs once; make another"
            raise ConfigurationError(message)
        self._is_used = True
        try:
            async with AsyncExitStack() as stack:
                self._threads.attach()
                with self._threads.as_owner():
                    await self._start(stack)
                self._stack = stack.pop_all()
        except BaseException:
            self._finished.set()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Stops everything, and raises the failure that stopped the manager, if there was one."""
        try:
            return await self._stack.__aexit__(exc_type, exc, traceback)
        finally:
            self._finished.set()

    async def _start(self, stack: AsyncExitStack) -> None:
        self._failure = asyncio.get_running_loop().create_future()
        scope = await stack.enter_async_context(TaskScope(self.name))
        scope.spawn(self._watch(self._failure), name="watch")
        _log.info("starting", manager=self.name)
        shared = self._shared_services()
        await self._caches.connect(shared, stack)
        services = self.cluster.services
        if self._lease is not None and self.settings.leader_elect:
            candidate = self._candidate = Candidate(
                lease=self._lease,
                identity=self._identity,
                settings=self.settings,
                connection=services.connection,
                field_manager=self.field_manager,
                clock=self._clock,
                rng=self._rng,
                metrics=self.metrics,
                watchdog=self._watchdog,
            )
            self._leadership = candidate.leadership()
            if self._shards is not None:
                self._coordinator = candidate.shard_coordinator(
                    self._shards, on_acquired=self._groups.requeue_all, on_end=self._on_end
                )
        stack.push_async_callback(self._shut_down)
        await stack.enter_async_context(self._watchdog)
        self._add_checks()
        self._groups.build(services.for_controllers(shared, gate=self._coordinator))
        await self._start_endpoints()
        await self._start_lifespan()
        await self._start_webhooks(services)
        _log.info("starting", stage="caches")
        await self._caches.start(shared, self.wait_elected, self.settings.cache_sync_seconds)
        self._groups.start_on_every_replica()
        _log.info("starting", stage="sources")
        await self._groups.start_sources()
        if self._coordinator is not None:
            self._groups.start_sharded()
            await self._coordinator.start()
        await self._start_election()

    def _shared_services(self) -> SharedServices:
        return SharedServices(
            name=self.name,
            identity=self._identity,
            field_manager=self.field_manager,
            former_field_managers=self._former_field_managers,
            fence=self.fence if self._lease is not None and self.settings.leader_elect else None,
            clock=self._clock,
            rng=self._rng,
            metrics=self.metrics,
            tracer=self._tracer,
            interceptors=self._interceptors,
            state=lambda: self.lifespan_state,
        )

    # -- starting ----------------------------------------------------------------------------------------------------

    async def _start_endpoints(self) -> None:
        if self._routes is None and not self.settings.serves_http:
            return  # nothing imports the HTTP server
        from kaito.runtime.manager.http.pages import Debugging
        from kaito.runtime.manager.http.routes import Routes
        from kaito.runtime.manager.http.servers import Endpoints

        _log.info("starting", stage="endpoints")
        routes = self._routes = self._routes or Routes()
        for inbound in self._groups.inbound():
            from kaito.runtime.manager.http.inbound import inbound_handler

            routes.add(inbound.path, inbound_handler(inbound), inbound.on)
        endpoints = self._endpoints = Endpoints(self.settings, routes)
        await endpoints.start(
            health=(self.healthz, self.readyz),
            metrics=self.metrics,
            debug=Debugging(lambda: self.queues, self._caches.with_sets, self._groups.failures),
            client=self.client,
            jitter=self._rng.random,
        )
        serving, directory = endpoints.metrics_serving, self.settings.metrics_cert_dir
        if serving is not None and directory is not None:
            from kaito.runtime.certs import CertificateFiles

            self._groups.spawn("runnables", CertificateFiles(directory, serving))

    async def _start_lifespan(self) -> None:
        lifespan = self._lifespan
        if lifespan is None:
            return
        _log.info("starting", stage="lifespan")
        self._groups.spawn("lifespan", Background("lifespan", lifespan.run, one_shot=True))
        await lifespan.wait_entered()

    async def _start_webhooks(self, services: ClusterServices) -> None:
        if self._webhooks is None:
            return
        _log.info("starting", stage="webhooks")
        keeper = self._webhooks.prepare(services.client, services.connection.namespace, self._rng)
        self._groups.spawn("webhooks", keeper)
        await self._webhooks.start()

    async def _start_election(self) -> None:
        _log.info("starting", stage="election")
        leadership = self._leadership
        if leadership is None:
            self._start_elected()
            return
        await leadership.start()
        self._groups.spawn("elected", Background("lead", lambda: self._lead(leadership)))

    async def _lead(self, leadership: Leadership) -> None:
        await leadership.elected()
        self._record_election("became leader")
        self._start_elected()
        reason = await leadership.lost()
        message = f"leader election lost: {reason}"
        raise NotLeader(message)

    def _record_election(self, change: str) -> None:
        if self._candidate is not None:
            self._candidate.record(change, self.cluster.services.recorder)

    def _start_elected(self) -> None:
        _log.info("starting", stage="elected")
        self._groups.start_elected()
        self._elected.set()

    def _add_checks(self) -> None:
        add_default_checks(
            self.healthz,
            self.readyz,
            caches=self._caches.by_cluster,
            engines=self._groups.engines,
            waiting_for_kinds=self._groups.waiting_for_kinds,
            watchdog=self._watchdog,
            leadership=lambda: self._leadership,
            silence_seconds=self.settings.watch_silence_seconds,
        )
        if self._lifespan is not None:
            lifespan = self._lifespan
            self.readyz.add("lifespan", lambda: None if lifespan.is_entered else "not started yet")
        if self._webhooks is not None:
            self._webhooks.add_checks(self.readyz)

    # -- stopping ----------------------------------------------------------------------------------------------------

    def _on_end(self, name: str, error: BaseException | None) -> None:
        if self._stopping:
            if error is not None:
                _log.error("failed while stopping", task=name, error=str(error), exc_info=error)
            return
        if error is None:
            error = UnexpectedEnd(f"{name} ended unexpectedly")
        if self._failure is not None and not self._failure.done():
            self._failure.set_result(error)

    async def _watch(self, failure: "asyncio.Future[BaseException]") -> None:
        raise await failure

    async def _shut_down(self) -> None:
        self._stopping = True
        lost = self._leadership is not None and self._elected.is_set() and self._leadership_is_lost()
        grace = LOST_LEASE_GRACE_SECONDS if lost else self.settings.graceful_shutdown_seconds
        deadline = monotonic() + grace
        _log.info("stopping", manager=self.name, grace_seconds=grace)
        await self._groups.close(drain_seconds=0.0 if lost else DRAIN_SHARE * grace)
        left: list[str] = []
        for stage in STOP_ORDER:
            _log.info("stopping", stage=stage)
            left += await self._groups.stop(stage, deadline - monotonic())
        if self._webhooks is not None:
            _log.info("stopping", stage="webhooks")
            await self._webhooks.stop()
            left += await self._groups.stop("webhooks", deadline - monotonic())
        left += await self._threads.wait(deadline - monotonic())
        if self._endpoints is not None:
            _log.info("stopping", stage="endpoints")
            await self._endpoints.stop()
        if self._lifespan is not None:
            _log.info("stopping", stage="lifespan")
            await self._lifespan.close(max(LIFESPAN_SECONDS, deadline - monotonic()))
            left += await self._groups.stop("lifespan", max(LIFESPAN_SECONDS, deadline - monotonic()))
        left += [work for work in self._threads.busy() if work not in left]  # started by the last requests
        if self._coordinator is not None:
            _log.info("stopping", stage="shards")
            await self._coordinator.stop(release=not left)
        if self._leadership is not None:
            _log.info("stopping", stage="election")
            if self._elected.is_set():
                self._record_election("stopped leading")
            if left and self._elected.is_set():
                _log.error("lease not released: work is still running", left=left)
            await self._leadership.stop(release=not left and not lost)
        self._elected.clear()
        await self._groups.stop("events", RECORDER_SECONDS)
        if left:
            message = f"still running after {grace:g} s: {', '.join(left)}"
            raise ShutdownTimedOut(message)
        if self._lifespan is not None and self._lifespan.close_error is not None and not self._has_failed:
            raise self._lifespan.close_error
        _log.info("stopped", manager=self.name)

    @property
    def _has_failed(self) -> bool:
        return self._failure is not None and self._failure.done()

    def _leadership_is_lost(self) -> bool:
        failure = self._failure
        return failure is not None and failure.done() and isinstance(failure.result(), NotLeader)
