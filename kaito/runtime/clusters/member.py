"""`Member`: one cluster of a `ClusterSet`, from its addition to its removal.

    connecting   new: its first lists have not arrived, and no request has failed
    ready        all its caches have their first list
    unreachable  a watch fails and is not open, or a call of `ClusterSet.each` was not answered in time
    removed      by `ClusterSet.discard`, or replaced by another cluster of its name

It connects again without a limit.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias, final

from kaito.runtime.cache import Cache, Cached
from kaito.runtime.cache.informer import InformerHealth
from kaito.runtime.client import Api, Client, Transport
from kaito.runtime.client.config import ClusterConfig
from kaito.runtime.clock import monotonic
from kaito.runtime.clusters.link import Link
from kaito.runtime.controller import BaseClusterSet, CacheNeed
from kaito.runtime.errors import ClusterRemoved, ClusterUnavailable, KaitoRuntimeError
from kaito.runtime.logging import get_logger
from kaito.runtime.manager.cluster import Cluster
from kaito.runtime.manager.dynamic_clusters import HomeServices
from kaito.runtime.meta import Resource
from kaito.runtime.metrics import Metrics
from kaito.runtime.tasks import TaskScope

MemberEvent = Literal["connected", "ready", "unreachable", "labels", "removed"]
"""`connected`: client and cache exist. `labels`: the labels were changed."""

Target: TypeAlias = ClusterConfig | Path | Transport
"""Where a cluster is: its configuration, a kubeconfig file of the program's user, or a transport."""

Connect: TypeAlias = Callable[[ClusterConfig], Transport]
"""Opens a connection."""

HEALTH_SECONDS: Final = 2.0
"""Interval at which a member's watches are checked; two checks in a row have to find a problem."""

PROBE_SECONDS: Final = 10.0
"""Time limit, and for members without watches the interval, of a request for the server's version."""

CONNECTING_SECONDS: Final = 5.0
"""Time after its addition in which calls wait for a member, so that those at the start of a process find it."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MemberOptions:
    """What all members of a set have in common."""

    owner: BaseClusterSet
    cached: Sequence[Cached]
    live: Sequence[type[Resource]]
    namespaces: Sequence[str]
    qps: float
    burst: int
    connect: Connect


@final
class Member:
    """A cluster that may be removed.

    Made by `ClusterSet.add`. After its removal every use of `api`, `client` and `cache` raises `ClusterRemoved`, also
    in a reconcile that runs at that moment.
    """

    def __init__(
        self,
        name: str,
        target: Target,
        options: MemberOptions,
        *,
        labels: Mapping[str, str],
        notify: Callable[["Member", MemberEvent], None],
    ) -> None:
        self.name: str = name
        """Unique in the manager; label of metrics, and `cluster` of keys and views."""
        self.labels: Mapping[str, str] = dict(labels)
        """To select clusters; `KubeconfigSecrets` copies those of the Secret."""
        self.target: Target = target
        self._options = options
        self._notify = notify
        self._cluster: Cluster | None = None
        self._link: Link | None = None
        self._metrics: Metrics | None = None
        self._added_at = monotonic()
        self._problem = "not connected yet"
        self._overdue = ""
        self._reported: MemberEvent = "connected"
        self._host = ""
        self._settled = asyncio.Event()
        self._wake = asyncio.Event()
        self._scope: TaskScope | None = None
        self.is_removed: bool = False
        """Whether it was removed from its set, or replaced by another cluster of its name."""

    # -- for users ---------------------------------------------------------------------------------------------------

    @property
    def api(self) -> Api:
        """Cached reads and fenced writes, as `Request.api`.

        Raises:
            ClusterUnavailable: it is not connected yet, or was removed.
        """
        return self._connected().api

    @property
    def client(self) -> Client:
        """The live client, not fenced. Raises as `api`."""
        return self._connected().client

    @property
    def cache(self) -> Cache:
        """The informers. Raises as `api`."""
        return self._connected().cache

    @property
    def problem(self) -> str:
        """Why it cannot be used at present, with the last error of its server; empty if it can."""
        return "removed from its set" if self.is_removed else self._overdue or self._problem

    def check(self) -> None:
        """Raises `ClusterUnavailable` unless it can be used."""
        if self.is_removed:
            raise ClusterRemoved(self.name, self.problem)
        if self.problem:
            raise ClusterUnavailable(self.name, self.problem)

    async def wait_connected(self) -> None:
        """Waits until it is ready or has a problem other than being new, for `CONNECTING_SECONDS` at most."""
        left = self._added_at + CONNECTING_SECONDS - monotonic()
        if left > 0 and self.problem and not self.is_removed:
            try:
                async with asyncio.timeout(left):
                    await self._settled.wait()
            except TimeoutError:
                return

    def _connected(self) -> Cluster:
        if self.is_removed:
            raise ClusterRemoved(self.name, self.problem)
        if self._cluster is None:
            raise ClusterUnavailable(self.name, self.problem)
        return self._cluster

    def __repr__(self) -> str:
        return f"<cluster {self.name}: {self.problem or 'ready'}>"

    # -- called by the set -------------------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Whether client and cache exist."""
        return self._cluster is not None and not self.is_removed

    @property
    def is_settled(self) -> bool:
        """Whether it has been ready, or its server has answered with an error or not at all."""
        return self._reported in {"ready", "unreachable"}

    def report_overdue(self, seconds: float) -> None:
        """Records that a call was not answered in time: the member is unreachable until a probe is answered."""
        self._overdue = f"no answer within {seconds:g} s"
        self._wake.set()
        self._export()

    def set_labels(self, labels: Mapping[str, str]) -> None:
        """Replaces the labels."""
        if dict(labels) != self.labels:
            self.labels = dict(labels)
            self._notify(self, "labels")

    def rotate(self, config: ClusterConfig) -> None:
        """Uses another configuration of the same cluster."""
        self.target = config
        if self._link is None or self._scope is None:
            return  # `run` opens it
        _log.info("connection replaced", cluster=self.name)
        self._scope.spawn(self._link.replace(self._options.connect(config)), name="rotate")
        self._wake.set()

    def fail(self, problem: str) -> None:
        """Records why it does not run."""
        self._problem = problem
        self._settled.set()
        self._export()

    def retire(self) -> None:
        """Ends it at once for all users; `run` then closes its connections when it is cancelled."""
        if self.is_removed:
            return
        self.is_removed = True
        self._settled.set()
        if self._link is not None:
            self._link.revoke()
        if self._cluster is not None and self._metrics is not None:
            self._cluster.services.requests.close()
            self._metrics.forget_cache(self.name)
            self._metrics.forget_host(self._host)
        self._notify(self, "removed")

    async def run(self, home: HomeServices) -> None:
        """Connects and keeps the caches current until cancelled."""
        link = self._link = Link(self.name, await self._open())
        self._host = link.host
        try:
            async with AsyncExitStack() as stack:
                cluster = self._make_cluster(link)
                services = await cluster.connect(home.shared, self._needs(home, cluster), stack)
                self._cluster, self._metrics = cluster, home.shared.metrics
                self._export()
                self._notify(self, "connected")
                async with TaskScope(f"cluster.{self.name}") as scope:
                    self._scope = scope
                    scope.spawn(services.recorder.run(), name="events")
                    scope.spawn(services.cache.run(), name="cache")
                    await self._watch_health(services.cache, services.client)
        finally:
            self._scope = None
            await link.close()

    def _make_cluster(self, link: Link) -> Cluster:
        options = self._options
        return Cluster(
            self.name,
            transport=link,
            cache=options.cached,
            live=options.live,
            namespaces=options.namespaces,
            qps=options.qps,
            burst=options.burst,
        )

    def _needs(self, home: HomeServices, cluster: Cluster) -> Mapping[str, Sequence[CacheNeed]]:
        """What each controller needs of the set, as needs of this cluster."""
        owner = self._options.owner
        return {
            controller: [replace(need, cluster=cluster) for need in needs if need.cluster is owner]
            for controller, needs in home.needs().items()
        }

    async def _open(self) -> Transport:
        target = self.target
        if isinstance(target, ClusterConfig):
            return self._options.connect(target)
        if isinstance(target, Path):
            from kaito.runtime.client.connect import find_cluster_config  # the program's own file, and its libraries

            return self._options.connect(await find_cluster_config(target))
        return target

    # -- health ------------------------------------------------------------------------------------------------------

    async def _watch_health(self, cache: Cache, client: Client) -> None:
        found, probed_at = 0, -PROBE_SECONDS
        while True:
            watches = cache.health()
            if self._overdue or (not watches and monotonic() - probed_at >= PROBE_SECONDS):
                probed_at = monotonic()
                answer = await self._probe(client)
                self._overdue = answer if self._overdue else ""
                if not watches:
                    self._problem = answer
            if watches:
                problem = _problem_of(watches)
                found = found + 1 if problem else 0
                if not problem or found > 1 or self._problem:
                    self._problem = problem
            self._update(has_error=any(watch.error for watch in watches) or not watches)
            await self._pause(cache)

    async def _pause(self, cache: Cache) -> None:
        """Waits for the next check, which follows at once when the first lists are complete."""
        try:
            async with asyncio.timeout(HEALTH_SECONDS):
                if cache.synced:
                    await self._wake.wait()
                else:
                    await cache.wait_synced()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _probe(self, client: Client) -> str:
        """Requests the server's version; why that failed, else an empty text."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await client.raw("GET", "/version")
        except TimeoutError:
            return f"no answer within {PROBE_SECONDS:g} s"
        except KaitoRuntimeError as error:
            return str(error)
        return ""

    def _update(self, *, has_error: bool) -> None:
        """Notify of a change between ready and unreachable."""
        self._export()
        state: MemberEvent = "unreachable" if self.problem else "ready"
        if state == "ready" or has_error:
            self._settled.set()
        elif self._reported == "connected" and monotonic() < self._added_at + CONNECTING_SECONDS:
            return  # it has not answered yet
        if state != self._reported and not self.is_removed:
            self._reported = state
            _log.info("cluster changed", cluster=self.name, state=state, problem=self.problem)
            self._notify(self, state)

    def _export(self) -> None:
        if self._metrics is not None and not self.is_removed:
            self._metrics.cluster_up.labels(self.name).set(0 if self.problem else 1)


def _problem_of(watches: Sequence[InformerHealth]) -> str:
    problems = [
        f"{each.kind}: {each.error or 'the first list has not arrived'}"
        for each in watches
        if not each.synced or (each.error and not each.watching)
    ]
    return "; ".join(problems)
