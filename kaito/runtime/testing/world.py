"""`World`: an in-memory cluster in virtual time, for tests of operators.

    async def test_scales_after_a_rejected_request(world: World) -> None:
        await world.start(*workloads(ready_after=20))
        world.put(Memcached(metadata=ObjectMeta(name="cache"), spec=MemcachedSpec(size=3)))
        world.fail_next("PATCH", Deployment, status=429, retry_after=7)
        async with world.manager(controller):
            await world.settle()
            assert world.condition(Memcached, "cache", "Ready").reason == "Scaling"
            await world.advance(30)
            assert world.condition(Memcached, "cache", "Ready").is_true

Tests read and write objects in the API server directly, without cache and faults. Unknown kinds are installed as CRDs
generated from their models. No method sleeps in real time.
"""

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self, final

from kaito.apiserver import ApiServer, Backup, Denial, Fault, HttpRequest, RequestRecord
from kaito.runtime.cache import Cached
from kaito.runtime.client import Transport
from kaito.runtime.clock import LoopClock, monotonic
from kaito.runtime.controller import AnyController
from kaito.runtime.kinds import PolicyRule
from kaito.runtime.manager import Cluster, DynamicClusters, Lifespan, Manager, Runnable, Settings, Shards
from kaito.runtime.meta import Resource
from kaito.runtime.source import Reply
from kaito.runtime.testing.admission import InProcessWebhooks
from kaito.runtime.testing.objects import OWN_AGENT, ServerObjects
from kaito.runtime.testing.permissions import rules_for
from kaito.runtime.testing.pod_streams import ExecAnswer, PodAnswers, PortAnswer
from kaito.runtime.testing.reconciles import ReconcileRecord, ReconcileRecorder
from kaito.runtime.testing.transport import InMemoryTransport
from kaito.runtime.testing.virtual import VirtualTimeLoop
from kaito.runtime.tracing import NO_TRACER

CLUSTER_AGENT = "cluster/1"
"""User agent of simulated cluster controllers, whose requests are not counted and not subject to faults."""

SETTLE_LIMIT_SECONDS = 600.0
"""Limit of virtual time of `settle`."""

START = datetime(2030, 1, 1, tzinfo=UTC)
"""Wall time at the start of the loop."""


class NotSettled(AssertionError):
    """Work was still in progress at the limit of `settle`; the message lists it."""


class ActivitySource(Protocol):
    """Work that `settle` waits for."""

    def busy(self) -> Sequence[str]:
        """Describes the work in progress; empty when idle. Delayed work does not count."""
        ...


@final
class World(ServerObjects):
    """In-memory cluster with the standard namespaces. Create it in a running `VirtualTimeLoop`.

    Args:
        seed: Seed of UIDs and generated names.
    """

    def __init__(self, *, seed: int = 1) -> None:
        self.clock: LoopClock = LoopClock(START)
        webhooks = InProcessWebhooks(self._lifespan_state)
        server = ApiServer(now=self.clock.now, seed=seed, webhooks=webhooks.call, authorization="RBAC")
        super().__init__(server, webhooks)
        self._stack = AsyncExitStack()
        self._recorder = ReconcileRecorder()
        self._tracked: list[ActivitySource] = []
        self._transports: list[InMemoryTransport] = []
        self._pods = PodAnswers()
        server.serve_logs(self._pods.log)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    # -- managers ----------------------------------------------------------------------------------------------------

    def transport(self, *, latency: float = 0.0, agent: str = "", user: str = "") -> InMemoryTransport:
        """Creates a transport to the cluster; `settle` waits for its requests.

        Args:
            latency: Seconds added to every request.
            agent: User agent of the requests.
            user: User for RBAC, for example `system:serviceaccount:<namespace>:<name>`; by default an administrator.
        """
        given = {"user-agent": agent, "impersonate-user": user}
        headers = {name: value for name, value in given.items() if value}
        transport = InMemoryTransport(self.server, latency=latency, headers=headers, pods=self._pods)
        self._transports.append(transport)
        return transport

    def manager(
        self,
        *controllers: AnyController,
        cache: Sequence[Cached] = (),
        live: Sequence[type[Resource]] = (),
        clusters: Sequence[Cluster | DynamicClusters] = (),
        lease: str | None = None,
        shards: Shards | None = None,
        runnables: Sequence[Runnable] = (),
        lifespan: Lifespan | None = None,
        settings: Settings | None = None,
        transport: Transport | None = None,
        name: str = "test",
        agent: str = "",
        user: str = "",
        seed: int = 1,
    ) -> Manager:
        """Creates a manager of this cluster, without HTTP endpoints; use it with `async with`.

        Its kinds are installed first. `settle` waits for its queues. Without `lease` it leads at once. The arguments
        are those of `Manager`; `agent` overrides the user agent of its requests. With `user`, usually
        `system:serviceaccount:<namespace>:<name>`, it has only the permissions of the roles bound to that user.
        """
        declared = [kind for controller in controllers for kind in getattr(controller, "kinds", ())]
        # A declaration of Resource only sets defaults.
        cached_kinds = [each.kind for each in cache if each.kind is not Resource]
        self.install(*declared, *cached_kinds, *live)
        manager = Manager(
            settings or Settings(metrics_bind_address="0", health_probe_bind_address="0"),
            controllers=controllers,
            cache=cache,
            live=live,
            clusters=clusters,
            lease=lease,
            shards=shards,
            runnables=runnables,
            lifespan=lifespan,
            transport=transport or self.transport(agent=agent, user=user),
            clock=self.clock,
            name=name,
            rng=random.Random(seed),  # noqa: S311 - waits, not secrets
            tracer=NO_TRACER if agent == CLUSTER_AGENT else self._recorder,
        )
        self.track(manager)
        return manager

    async def start(self, *controllers: AnyController) -> None:
        """Runs simulated cluster controllers, such as `workloads()`, until the end of the test.

        Their requests are not counted and not subject to faults.
        """
        manager = self.manager(*controllers, name="cluster", agent=CLUSTER_AGENT)
        await self._stack.enter_async_context(manager)

    def track(self, busy: ActivitySource) -> None:
        """Makes `settle` wait for other work as well, for example of a manager that the test created."""
        self._tracked.append(busy)

    async def call(
        self,
        path: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        method: str = "POST",
    ) -> Reply:
        """Calls an `Inbound` of this world's managers, without HTTP; returns the response.

        If several replicas have the path, the one that can handle it: a leader before a standby.

        Raises:
            LookupError: No started manager has the path.
        """

        async def read(limit: int) -> bytes | None:
            return body if len(body) <= limit else None

        reply: Reply | None = None
        for manager in [each for each in self._tracked if isinstance(each, Manager)]:
            for endpoint in [each for each in manager.inbound if each.path == path]:
                reply = await endpoint.handle(method, headers=headers or {}, query=query or {}, read=read)
                if reply.status != 503:
                    return reply
        if reply is None:
            message = f"no started manager has an Inbound of {path}"
            raise LookupError(message)
        return reply

    # -- time --------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """Wall time of the cluster."""
        return self.clock.now()

    async def settle(self, *, limit: float = SETTLE_LIMIT_SECONDS) -> None:
        """Waits until the cluster is idle: empty queues, no running reconcile, no pending request or watch event.

        Time advances only as far as running work needs. Delayed keys (`Again`, backoff) are not waited for: use
        `advance`.

        Raises:
            NotSettled: Work is still in progress after `limit` virtual seconds.
        """
        loop = _virtual_loop()
        deadline = monotonic() + limit
        await loop.wait_until_idle()
        while busy := self._busy():
            if monotonic() >= deadline or (loop.next_timer_at or 0.0) > deadline:
                message = f"not settled after {limit:g} s: " + "; ".join(busy)
                raise NotSettled(message)
            await loop.wait_for_timer()
            await loop.wait_until_idle()

    async def advance(self, seconds: float) -> None:
        """Advances virtual time: timers fire in order; then `settle`."""
        await asyncio.sleep(seconds)
        await self.settle()

    def suspend(self, seconds: float) -> None:
        """Advances virtual time while no task runs, as if the process were suspended (SIGSTOP, or a suspended machine).

        All tasks of the loop are suspended, including other managers; leases expire meanwhile.
        """
        _virtual_loop().suspend(seconds)

    def _lifespan_state(self) -> object:
        """The state of the running manager that has a lifespan: in-process webhooks belong to it."""
        managers = (each for each in self._tracked if isinstance(each, Manager))
        return next((each.lifespan_state for each in managers if each.lifespan_state is not None), None)

    def _busy(self) -> Sequence[str]:
        requests = sum(transport.in_flight for transport in self._transports)
        busy = [phrase for watched in self._tracked for phrase in watched.busy()]
        late = self.server.late_events
        if requests:
            busy.append(f"{requests} requests without a response")
        if late:
            busy.append(f"{late} delayed watch events")
        return busy

    # -- pods --------------------------------------------------------------------------------------------------------

    def set_log(self, pod: str, text: str, *, namespace: str = "default", container: str = "") -> None:
        """Sets the log of a pod's container; an empty name means any container."""
        self._pods.logs[namespace, pod, container] = text

    def answer_exec(self, answer: ExecAnswer | None) -> None:
        """Answers the commands that the code under test runs in pods: a function from `ExecCall` to `ExecResult`."""
        self._pods.exec = answer

    def answer_port(self, answer: PortAnswer | None) -> None:
        """Answers connections to ports of pods: a function from `PortCall` to the bytes that the pod sends back."""
        self._pods.port = answer

    # -- fault injection ---------------------------------------------------------------------------------------------

    def fail_next(
        self,
        method: str = "",
        kind: type[Resource] | None = None,
        *,
        status: int = 0,
        retry_after: int | None = None,
        message: str = "",
        name: str = "",
        namespace: str = "",
        subresource: str | None = None,
        times: int | None = 1,
        skip: int = 0,
        drop_connection: bool = False,
        hang: bool = False,
        delay: float = 0.0,
    ) -> Fault:
        """Injects a fault into the next matching requests of the code under test.

        Args:
            method: An HTTP method in upper case, or `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`,
                `deletecollection`; empty for any.
            kind: Kind of the request; None for any.
            status: Status code to return instead of serving the request; 500 if no other fault is given.
            retry_after: Seconds in the `Retry-After` header.
            message: Message of the response.
            name: Match only this object.
            namespace: Match only this namespace.
            subresource: Match only this subresource ("" = the object itself); None for any.
            times: Number of requests; None until the fault is removed by `heal`.
            skip: Number of matching requests that pass first.
            drop_connection: Serve the request, and reset the connection before the response: a write happens, and the
                client does not receive its result.
            hang: Never respond.
            delay: Seconds before the request is served.
        """
        if not (status or drop_connection or hang or delay):
            status = 500
        return self.server.inject(
            Fault(
                method=method if method.isupper() else "",
                verb="" if method.isupper() else method,
                kind=kind.kind if kind is not None else "",
                name=name,
                namespace=namespace,
                subresource=subresource,
                times=times,
                skip=skip,
                status=status,
                retry_after=retry_after,
                message=message,
                drop_connection=drop_connection,
                hang=hang,
                delay=delay,
                when=_is_under_test,
            )
        )

    def lag(self, kind: type[Resource] | None, seconds: float, *, name: str = "") -> Fault:
        """Delays the watch events of a kind (or of one object), until the fault is removed by `heal`.

        Events after a delayed one are delayed as well: a watch never reorders events.
        """
        return self.server.inject(Fault(kind=kind.kind if kind is not None else "", name=name, times=None, lag=seconds))

    def deny(
        self,
        verbs: str | Iterable[str],
        kind: type[Resource],
        *,
        subresource: str | None = None,
        namespace: str = "",
        name: str = "",
    ) -> Denial:
        """Denies a permission to the code under test until it is removed by `heal`: 403, as from a role without the
        rule.

        Args:
            verbs: One or several of `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`;
                `*` for all. Deny `list` and `watch` to stop an informer, which may use `watch` only.
            kind: The kind.
            subresource: Only this subresource ("" = the object itself); None for all.
            namespace: Only this namespace.
            name: Only this object.
        """
        given = (verbs,) if isinstance(verbs, str) else verbs
        exempt = frozenset({OWN_AGENT, CLUSTER_AGENT})
        return self.server.deny(
            Denial(frozenset(given), kind.group(), kind.plural, subresource, namespace, name, exempt)
        )

    def heal(self, *injected: Fault | Denial) -> None:
        """Removes the given faults and denials, or all of them."""
        if not injected:
            self.server.faults.clear()
            self.server.allow()
        for fault in injected:
            if isinstance(fault, Fault):
                self.server.faults.remove(fault)
            else:
                self.server.allow(fault)

    def compact_history(self) -> None:
        """Returns 410 to watches that resume from an earlier version, as after an etcd compaction: informers relist."""
        self.server.expire_history()

    def backup(self) -> Backup:
        """Returns a backup of all objects, for `restore`."""
        return self.server.backup()

    def restore(self, backup: Backup) -> None:
        """Restores a backup, as etcd from a snapshot: objects and versions are restored, and watches end.

        A watch that resumes from a later version is accepted and receives no events until that version is reached.

        Raises:
            ValueError: CustomResourceDefinitions were created or deleted after the backup.
        """
        self.server.restore(backup)

    def cut_watches(self, kind: type[Resource] | None = None) -> int:
        """Closes the open watches of a kind (or all), as the server does regularly; returns their number."""
        return self.server.cut_watches(kind.kind if kind is not None else "")

    # -- requests and reconciles -------------------------------------------------------------------------------------

    @property
    def requests(self) -> Sequence[RequestRecord]:
        """The requests of the code under test, oldest first."""
        ours = (OWN_AGENT, CLUSTER_AGENT)
        return [request for request in self.server.requests if request.user_agent not in ours]

    def rules_needed(self, agent: str = "") -> list[PolicyRule]:
        """Returns the RBAC rules that the code under test has needed so far: the minimal role, if tests cover all
        requests.

        Permissions that only admission plugins of a real server check (`finalizers`, for owner references with
        blockOwnerDeletion) are not included.

        Args:
            agent: Only those of the manager or transport with this user agent; all if empty.
        """
        ours = (OWN_AGENT, CLUSTER_AGENT)
        used = [needed for who, *needed in self.server.permissions_used if who not in ours and agent in {"", who}]
        return rules_for((verb, group, resource) for verb, group, resource in used)

    def clear_requests(self) -> None:
        """Clears the recorded requests and reconciles."""
        self.server.requests.clear()
        self._recorder.ended.clear()

    def reconciles(self, key: str = "", *, controller: str = "") -> Sequence[ReconcileRecord]:
        """Returns the completed reconciles of this world's managers, oldest first, with key, causes and outcome.

            assert [run.outcome for run in world.reconciles("default/cache")] == ["success"]

        Args:
            key: Key as in logs, `namespace/name`; empty for all.
            controller: Name of the controller; empty for all.
        """
        return [run for run in self._recorder.ended if key in {"", run.key} and controller in {"", run.controller}]

    def count(
        self, verb: str = "", kind: type[Resource] | None = None, *, name: str = "", subresource: str | None = None
    ) -> int:
        """Returns the number of requests of the code under test, including rejected ones.

        Args:
            verb: An HTTP method in upper case, or `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
            kind: Kind of the request; None for any.
            name: Match only this object.
            subresource: Match only this subresource ("" = the object itself); None for any.
        """
        return sum(
            verb in {"", request.method, request.verb}
            and (kind is None or request.kind == kind.kind)
            and name in {"", request.name}
            and subresource in {None, request.subresource}
            for request in self.requests
        )


def _is_under_test(request: HttpRequest) -> bool:
    return request.headers.get("user-agent") not in {OWN_AGENT, CLUSTER_AGENT}


def _virtual_loop() -> VirtualTimeLoop:
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualTimeLoop):
        message = "settle() needs virtual time: use the `world` fixture, or run on VirtualTimeLoop"
        raise TypeError(message)
    return loop
