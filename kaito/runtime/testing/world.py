"""`World`: a cluster in memory and in virtual time, to test operators in.

    async def test_scales_after_a_rejected_request(world: World) -> None:
        await world.start(*workloads(ready_after=20))
        world.put(Memcached(metadata=ObjectMeta(name="cache"), spec=MemcachedSpec(size=3)))
        world.fail_next("PATCH", Deployment, status=429, retry_after=7)
        async with world.manager(controller):
            await world.settle()
            assert world.condition(Memcached, "cache", "Ready").reason == "Scaling"
            await world.advance(30)
            assert world.condition(Memcached, "cache", "Ready").is_true

Objects are put into and read from the API server directly, at once, past every cache and fault. Kinds the server does
not know are installed as CRDs generated from their models. Nothing here sleeps in real time.
"""

import asyncio
import random
from collections.abc import Iterable, Sequence
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
from kaito.runtime.manager import Cluster, Manager, Runnable, Settings
from kaito.runtime.meta import Resource
from kaito.runtime.testing.admission import InProcessWebhooks
from kaito.runtime.testing.objects import OWN_AGENT, ServerObjects
from kaito.runtime.testing.permissions import rules_for
from kaito.runtime.testing.reconciles import ReconcileRecord, ReconcileRecorder
from kaito.runtime.testing.transport import InMemoryTransport
from kaito.runtime.testing.virtual import VirtualTimeLoop
from kaito.runtime.tracing import NO_TRACER

CLUSTER_AGENT = "cluster/1"
"""User agent of what stands for the cluster's own controllers: not counted, never hit by a fault."""

SETTLE_LIMIT_SECONDS = 600.0
"""Virtual time after which something that does not come to rest is reported."""

START = datetime(2030, 1, 1, tzinfo=UTC)
"""Wall time when the loop's time is 0."""


class NotSettled(AssertionError):
    """Work did not come to rest; the message names what is still going on."""


class ActivitySource(Protocol):
    """Something `settle` waits for."""

    def busy(self) -> Sequence[str]:
        """What is going on right now, one phrase each; empty at rest. Delayed work does not count."""
        ...


@final
class World(ServerObjects):
    """An empty cluster with the namespaces every cluster has. Make it inside a running `VirtualTimeLoop`.

    Args:
        seed: makes uids and generated names repeatable.
    """

    def __init__(self, *, seed: int = 1) -> None:
        self.clock: LoopClock = LoopClock(START)
        webhooks = InProcessWebhooks()
        server = ApiServer(now=self.clock.now, seed=seed, webhooks=webhooks.call, authorization="RBAC")
        super().__init__(server, webhooks)
        self._stack = AsyncExitStack()
        self._recorder = ReconcileRecorder()
        self._tracked: list[ActivitySource] = []
        self._transports: list[InMemoryTransport] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    # -- managers ----------------------------------------------------------------------------------------------------

    def transport(self, *, latency: float = 0.0, agent: str = "", user: str = "") -> InMemoryTransport:
        """A new connection to the cluster, waited for by `settle`.

        Args:
            latency: seconds added to every request.
            agent: the user agent its requests are logged under.
            user: whom RBAC is asked about, for example `system:serviceaccount:<namespace>:<name>`; without it the
                requests are an administrator's, who may do everything.
        """
        given = {"user-agent": agent, "impersonate-user": user}
        headers = {name: value for name, value in given.items() if value}
        transport = InMemoryTransport(self.server, latency=latency, headers=headers)
        self._transports.append(transport)
        return transport

    def manager(
        self,
        *controllers: AnyController,
        cache: Sequence[Cached] = (),
        live: Sequence[type[Resource]] = (),
        clusters: Sequence[Cluster] = (),
        lease: str | None = None,
        runnables: Sequence[Runnable] = (),
        settings: Settings | None = None,
        transport: Transport | None = None,
        name: str = "test",
        agent: str = "",
        user: str = "",
        seed: int = 1,
    ) -> Manager:
        """A manager on this cluster, in its time, without HTTP endpoints; use it with `async with`.

        Kinds it needs are installed first. `settle` waits for its queues. Without `lease` it leads at once. Arguments
        are those of `Manager`; `agent` overrides the user agent its requests are logged under. With `user`, usually
        `system:serviceaccount:<namespace>:<name>`, it may do what the roles bound to that user allow, and no more.
        """
        declared = [kind for controller in controllers for kind in getattr(controller, "kinds", ())]
        cached_kinds = [each.kind for each in cache if each.kind is not Resource]  # which holds defaults only
        self.install(*declared, *cached_kinds, *live)
        manager = Manager(
            settings or Settings(metrics_bind_address="0", health_probe_bind_address="0"),
            controllers=controllers,
            cache=cache,
            live=live,
            clusters=clusters,
            lease=lease,
            runnables=runnables,
            transport=transport or self.transport(agent=agent, user=user),
            clock=self.clock,
            name=name,
            rng=random.Random(seed),  # noqa: S311 - waits, not secrets
            tracer=NO_TRACER if agent == CLUSTER_AGENT else self._recorder,
        )
        self.track(manager)
        return manager

    async def start(self, *controllers: AnyController) -> None:
        """Run controllers that stand for the cluster's own, such as `workloads()`, until the end of the test.

        Their requests are neither counted nor hit by faults.
        """
        manager = self.manager(*controllers, name="cluster", agent=CLUSTER_AGENT)
        await self._stack.enter_async_context(manager)

    def track(self, busy: ActivitySource) -> None:
        """Have `settle` wait for something of yours too."""
        self._tracked.append(busy)

    # -- time --------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The cluster's wall time."""
        return self.clock.now()

    async def settle(self, *, limit: float = SETTLE_LIMIT_SECONDS) -> None:
        """Wait until nothing is left to do: queues empty, no reconcile running, no request or event on its way.

        Time moves on only as far as running work waits for it. Delayed keys (`Again`, backoff) are not waited for:
        use `advance`.

        Raises:
            NotSettled: after `limit` virtual seconds something is still going on.
        """
        loop = _virtual_loop()
        deadline = monotonic() + limit
        await loop.wait_until_idle()
        while busy := self._busy():
            if monotonic() >= deadline:
                message = f"not at rest after {limit:g} s: " + "; ".join(busy)
                raise NotSettled(message)
            await loop.wait_for_timer()
            await loop.wait_until_idle()

    async def advance(self, seconds: float) -> None:
        """Let virtual time pass: timers fire in order, then everything comes to rest."""
        await asyncio.sleep(seconds)
        await self.settle()

    def suspend(self, seconds: float) -> None:
        """Let virtual time pass while nothing runs, as if the process were stopped (SIGSTOP, a machine that sleeps).

        Everything in this loop stands still, other managers included; leases expire meanwhile.
        """
        _virtual_loop().suspend(seconds)

    def _busy(self) -> Sequence[str]:
        requests = sum(transport.in_flight for transport in self._transports)
        busy = [phrase for watched in self._tracked for phrase in watched.busy()]
        late = self.server.late_events
        if requests:
            busy.append(f"{requests} requests without an answer")
        if late:
            busy.append(f"{late} watch events on their way")
        return busy

    # -- trouble -----------------------------------------------------------------------------------------------------

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
        """Trouble for the next matching requests of the code under test.

        Args:
            method: an HTTP method in upper case, or `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`,
                `deletecollection`; empty for any.
            kind: kind asked about; None for any.
            status: answer this instead of serving (500 when no other trouble is named).
            retry_after: seconds of the `Retry-After` header.
            message: the answer's sentence.
            name: only requests about this object.
            namespace: only requests about this namespace.
            subresource: only this one ("" = the object itself); None for any.
            times: how many requests; None until the fault is healed (`heal`).
            skip: how many matching ones pass first.
            drop_connection: serve the request, then break the connection instead of answering: a write happened, and
                the writer does not know.
            hang: never answer.
            delay: seconds before the request is served.
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
        """Have watchers learn of every change of the kind (or of one object) that much later, until it is healed.

        What comes after a late change is late, too: a watch never reorders.
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
        """Take a permission from the code under test until it is healed: 403, as from a role that lacks a rule.

        Args:
            verbs: one or several of `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`;
                `*` for all. An informer may fill itself by `watch` alone: deny both.
            kind: the kind.
            subresource: this one only ("" = the object itself); None for all.
            namespace: only in this namespace.
            name: only this object.
        """
        given = (verbs,) if isinstance(verbs, str) else verbs
        exempt = frozenset({OWN_AGENT, CLUSTER_AGENT})
        return self.server.deny(
            Denial(frozenset(given), kind.group(), kind.plural, subresource, namespace, name, exempt)
        )

    def heal(self, *troubles: Fault | Denial) -> None:
        """End these faults and denials, or all there are."""
        if not troubles:
            self.server.faults.clear()
            self.server.allow()
        for trouble in troubles:
            if isinstance(trouble, Fault):
                self.server.faults.remove(trouble)
            else:
                self.server.allow(trouble)

    def compact_history(self) -> None:
        """Answer 410 to every watch that resumes from before now, as after an etcd compaction: informers list anew."""
        self.server.expire_history()

    def backup(self) -> Backup:
        """All objects as they are now, for `restore`."""
        return self.server.backup()

    def restore(self, backup: Backup) -> None:
        """Go back to a backup, as after etcd was restored from a snapshot: objects, versions, and watches that end.

        A watch that resumes from a later version is accepted and gets nothing until that version is reached.

        Raises:
            ValueError: CustomResourceDefinitions were created or deleted since the backup.
        """
        self.server.restore(backup)

    def cut_watches(self, kind: type[Resource] | None = None) -> int:
        """End the open watches of a kind (or all), as the server does now and then; returns how many there were."""
        return self.server.cut_watches(kind.kind if kind is not None else "")

    # -- looking back ------------------------------------------------------------------------------------------------

    @property
    def requests(self) -> Sequence[RequestRecord]:
        """Every request of the code under test, oldest first."""
        ours = (OWN_AGENT, CLUSTER_AGENT)
        return [request for request in self.server.requests if request.user_agent not in ours]

    def rules_needed(self, agent: str = "") -> list[PolicyRule]:
        """The RBAC rules that the code under test has needed so far: the smallest role, as far as its tests go.

        Rules that only admission plugins of a real server ask for (`finalizers`, for owner references that block) are
        not among them.

        Args:
            agent: only those of the manager or transport made with this user agent; of all when empty.
        """
        ours = (OWN_AGENT, CLUSTER_AGENT)
        asked = [needed for who, *needed in self.server.permissions_used if who not in ours and agent in {"", who}]
        return rules_for((verb, group, resource) for verb, group, resource in asked)

    def clear_requests(self) -> None:
        """Start counting anew, requests and runs."""
        self.server.requests.clear()
        self._recorder.ended.clear()

    def reconciles(self, key: str = "", *, controller: str = "") -> Sequence[ReconcileRecord]:
        """The reconciles of the managers made here that have ended, oldest first: which key, why, and with what result.

            assert [run.outcome for run in world.reconciles("default/cache")] == ["success"]

        Args:
            key: as logs show it, `namespace/name`; empty for all.
            controller: its name; empty for all.
        """
        return [run for run in self._recorder.ended if key in {"", run.key} and controller in {"", run.controller}]

    def count(
        self, verb: str = "", kind: type[Resource] | None = None, *, name: str = "", subresource: str | None = None
    ) -> int:
        """How many requests the code under test made, refused ones included.

        Args:
            verb: an HTTP method in upper case, or `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
            kind: kind asked about; None for any.
            name: only requests about this object.
            subresource: only this one ("" = the object itself); None for any.
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
        message = "settle() needs virtual time: take the `world` fixture, or run on VirtualTimeLoop"
        raise TypeError(message)
    return loop
