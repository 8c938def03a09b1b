"""`ClusterSet`: clusters that are added and removed while the manager runs. See `kaito.runtime.clusters`."""

import asyncio
from abc import ABC, abstractmethod
from builtins import list as List  # noqa: N812 -- `list` is a method here
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack, cast, final

from kaito.runtime.cache import Cache, Cached, Index
from kaito.runtime.cache.view import View
from kaito.runtime.client import Transport
from kaito.runtime.client.config import ClusterConfig
from kaito.runtime.client.path import selector_of
from kaito.runtime.clusters.member import Connect, Member, MemberEvent, MemberOptions, Target
from kaito.runtime.clusters.member_objects import ClusterKey, ClusterRequest, same_object, work_on
from kaito.runtime.clusters.outcomes import Outcomes
from kaito.runtime.clusters.watching import ChangeMapper, ClusterChanges, StartedMembers
from kaito.runtime.controller import CacheNeed, Controller, Discard, Keyed, RunKeywords, WatchedFields
from kaito.runtime.controller.arguments import check_function, check_kind, check_name
from kaito.runtime.errors import (
    ClusterRemoved,
    ClusterUnavailable,
    ConfigurationError,
    InvariantError,
    NotLeader,
)
from kaito.runtime.handler import Enqueue
from kaito.runtime.logging import get_logger
from kaito.runtime.manager.cache_plan import check_live, check_watched_fields, plan_cache
from kaito.runtime.manager.dynamic_clusters import DynamicClusters, HomeServices
from kaito.runtime.meta import LabelSelector, Resource
from kaito.runtime.predicate import Predicate
from kaito.runtime.reconcile import Again
from kaito.runtime.source import KindSource, Source
from kaito.runtime.tasks import TaskScope, settle, sleep_forever, together

if TYPE_CHECKING:
    from kaito.runtime.cache.declaration import Only

R = TypeVar("R", bound=Resource)
T = TypeVar("T")

CALL_SECONDS: Final = 10.0
"""Default time limit of `each` for one cluster."""

PARALLEL: Final = 32
"""Maximum number of clusters in which `each` works at the same time."""

RESTART_SECONDS: Final = 30.0
"""Delay before a member is connected again whose configuration could not be opened, or whose caches failed."""

_log = get_logger(__name__)


class ClusterProvider(ABC):
    """Adds clusters to a set and removes them, as multicluster-runtime's providers do.

    Each belongs to one `ClusterSet`.
    """

    @abstractmethod
    async def run(self, clusters: "ClusterSet", home: HomeServices) -> None:
        """Calls `clusters.add` and `clusters.discard` until cancelled, on every replica.

        A failure ends the manager.
        """

    async def wait_synced(self) -> None:
        """Waits until the clusters that exist at the start were added: controllers of the set start after that."""
        return

    @property
    def sync_error(self) -> str:
        """Why they were not added yet; empty if that is not known."""
        return ""

    def busy(self) -> Sequence[str]:
        """Work in progress; tests use it to wait until idle."""
        return ()


@final
class ClusterSet(DynamicClusters):
    """Clusters that come and go; given to the manager as `clusters=[...]`.

    Args:
        name: unique in the manager.
        provider: adds and removes clusters, for example `KubeconfigSecrets`.
        cache: kinds to cache in every cluster, besides those that controllers watch there.
        live: kinds that `api` of the members reads from the server each time.
        namespaces: namespaces to watch in every cluster; all when empty.
        qps: client-side limit of requests per second to one cluster; 0 or less leaves limiting to its server.
        burst: requests allowed at once before the limit applies.
        connect: opens a connection to a cluster; for tests.

    Raises:
        ConfigurationError: a name that cannot be a label.
    """

    def __init__(
        self,
        name: str,
        *,
        provider: ClusterProvider | None = None,
        cache: Sequence[Cached] = (),
        live: Sequence[type[Resource]] = (),
        namespaces: Sequence[str] = (),
        qps: float = -1.0,
        burst: int = 0,
        connect: Connect | None = None,
    ) -> None:
        check_name(name, "cluster set")
        self.name = name
        self._provider = provider
        self._options = MemberOptions(
            owner=self,
            cached=tuple(cache),
            live=tuple(live),
            namespaces=tuple(namespaces),
            qps=qps,
            burst=burst,
            connect=connect or _open_http,
        )
        self._members: dict[str, Member] = {}
        self._tasks: dict[Member, asyncio.Task[None]] = {}
        self._listeners: list[Callable[[Member, MemberEvent], None]] = []
        self._known = asyncio.Event()
        self._home: HomeServices | None = None
        self._scope: TaskScope | None = None

    # -- members -----------------------------------------------------------------------------------------------------

    def add(self, name: str, target: Target, *, labels: Mapping[str, str] | None = None) -> Member:
        """Adds a cluster, or changes one: to other credentials for the same server, or to another server.

        Returns at once; the connection is opened in the background and repeated until it succeeds. May be called before
        the manager starts. A transport is closed with the cluster.

        Args:
            name: unique in the manager; label of metrics.
            target: its configuration (`parse_kubeconfig`), a kubeconfig file of the program's own user, or a transport.
            labels: to select clusters.

        Raises:
            ConfigurationError: a name that cannot be a label, or that another cluster has.
        """
        check_name(name, "cluster")
        labels = labels or {}
        known = self._members.get(name)
        if known is not None:
            if known.target is target or known.target == target:
                known.set_labels(labels)
                return known
            if _is_same_server(known.target, target):
                known.rotate(cast("ClusterConfig", target))
                known.set_labels(labels)
                return known
            self.discard(name)
        if self._home is not None:
            self._home.claim(name, self)
        member = self._members[name] = Member(name, target, self._options, labels=labels, notify=self._notify)
        self._start(member)
        return member

    def discard(self, name: str) -> None:
        """Removes a cluster; its watches and connections end in the background. Unknown names are ignored."""
        member = self._members.pop(name, None)
        if member is None:
            return
        if self._home is not None:
            self._home.release(name)
        member.retire()
        task = self._tasks.get(member)
        if task is not None:
            task.cancel()

    async def remove(self, name: str) -> None:
        """Removes a cluster, and waits until its watches, tasks and connections have ended. Unknown names are
        ignored."""
        member = self._members.get(name)
        self.discard(name)
        task = self._tasks.get(member) if member is not None else None
        if task is not None:
            await settle(task)

    def find(self, name: str) -> Member | None:
        """Returns a cluster, or None if there is none of this name."""
        return self._members.get(name)

    def get(self, name: str) -> Member:
        """Returns a cluster.

        Raises:
            ClusterRemoved: there is none of this name, or not any more.
        """
        found = self._members.get(name)
        if found is None:
            raise ClusterRemoved(name, f"not in the set {self.name}")
        return found

    def list(self, labels: LabelSelector | Mapping[str, str] | str | None = None) -> List[Member]:
        """Returns the clusters, those that cannot be reached included, in the order of their names."""
        selector = selector_of(labels)
        found = (self._members[name] for name in sorted(self._members))
        return [each for each in found if selector is None or selector.matches(each.labels)]

    def views(self) -> List[View]:
        """Returns a view of each cluster whose caches are complete, for mappers from the own cluster's objects.

        The caches of a cluster that cannot be reached at present contain its last known state.
        """
        home = self._home
        if home is None:
            return []
        own = View(home.cluster.cache)
        connected = [member for member in self.list() if member.is_connected and member.cache.synced]
        return [View(member.cache, cluster=member.name, home=own) for member in connected]

    async def each(
        self,
        function: Callable[[Member], Awaitable[T]],
        members: Iterable[Member] | None = None,
        *,
        seconds: float = CALL_SECONDS,
    ) -> Outcomes[T]:
        """Calls a function for several clusters at the same time, so that none delays the others.

        A cluster that is known to be unreachable is skipped without a request. One that does not finish in time counts
        as unreachable, and is skipped too until it answers a request for its version. When it is reachable again,
        `changes` triggers a reconcile.

        Args:
            function: called with the cluster.
            members: the clusters; all by default.
            seconds: time limit for each.

        Raises:
            NotLeader: a write was fenced.
        """
        results: dict[str, T] = {}
        errors: dict[str, Exception] = {}
        slots = asyncio.Semaphore(PARALLEL)

        async def call(member: Member) -> None:
            async with slots:
                limit = asyncio.timeout(seconds)
                try:
                    async with limit:
                        await member.wait_connected()
                        member.check()
                        results[member.name] = await function(member)
                except (NotLeader, InvariantError):
                    raise
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if task is None or task.cancelling():  # the caller is cancelled
                        raise
                    errors[member.name] = RuntimeError("the function awaited something that was cancelled")
                except Exception as error:  # noqa: BLE001 -- of one cluster; the caller decides
                    errors[member.name] = error
                    if limit.expired():
                        member.report_overdue(seconds)
                        errors[member.name] = ClusterUnavailable(member.name, member.problem)

        await together(*(call(member) for member in (self.list() if members is None else members)))
        return Outcomes(results, errors)

    # -- controllers -------------------------------------------------------------------------------------------------

    def changes(self, to: "type[Resource] | ChangeMapper") -> Source:
        """Returns a source for `Controller.receives`: clusters that become ready or unreachable, change labels, or go.

        Args:
            to: a kind, all cached objects of which are queued; or a function of the cluster's name and a `View` of the
                manager's own cluster, which returns keys.
        """
        return ClusterChanges(self, to)

    def controller(
        self,
        kind: type[R],
        reconcile: Callable[[ClusterRequest[R]], Awaitable[Again | None]],
        *,
        name: str = "",
        when: Predicate | None = None,
        labels: "LabelSelector | Mapping[str, str] | str | None" = None,
        only: "Only" = None,
        indexes: Sequence[Index[Any]] = (),
        cache: Sequence[Cached] = (),
        **options: Unpack[RunKeywords[ClusterKey]],
    ) -> Keyed[ClusterKey]:
        """Returns a controller of the objects of a kind in every cluster of the set.

        Args:
            kind: the kind.
            reconcile: reconciles one object of one cluster.
            name: unique in the manager; the set and the kind by default.
            when: the events that count.
            labels: cache (and watch) only objects with these labels.
            only: `"metadata"` caches nothing else of them.
            indexes: indexes that reconciles use to list them.
            cache: kinds of the manager's own cluster that reconciles read.
            options: `workers`, `deadline`, `backoff` and the other options of `RunOptions`.

        Raises:
            ConfigurationError: a value that cannot work.
        """
        name = name or f"{self.name}-{kind.kind.lower()}"
        check_kind(kind, f"controller {name}")
        check_function(reconcile, f"reconcile function of controller {name}", kind=None, keyed=True)
        controller = Controller.keyed(
            ClusterKey, work_on(self.find, kind, reconcile), name=name, cache=cache, **options
        )
        return controller.watches(
            kind, to=same_object, when=when, labels=labels, only=only, indexes=indexes, cluster=self
        )

    def start_source(
        self,
        source: KindSource[Any],
        cached: Cached,
        *,
        home: View,
        queue: Enqueue,
        discard: Discard,
        scope: TaskScope,
    ) -> StartedMembers:
        """Delivers the events of a kind from every member. Called by controllers."""
        return StartedMembers(self, source, cached, home=home, queue=queue, discard=discard, scope=scope)

    # -- called by sources and providers -----------------------------------------------------------------------------

    def subscribe(self, listener: Callable[[Member, MemberEvent], None]) -> None:
        """Calls a function at every change of a member."""
        self._listeners.append(listener)

    def unsubscribe(self, listener: Callable[[Member, MemberEvent], None]) -> None:
        """Undoes `subscribe`. Unknown functions are ignored."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    async def wait_known(self) -> None:
        """Waits until the provider has added the clusters that exist at the start."""
        await self._known.wait()

    @property
    def is_known(self) -> bool:
        """Whether the provider has added the clusters that exist at the start."""
        return self._known.is_set()

    @property
    def provider_error(self) -> str:
        """Why it has not."""
        return "" if self._provider is None or self.is_known else self._provider.sync_error

    def _notify(self, member: Member, event: MemberEvent) -> None:
        for listener in tuple(self._listeners):
            listener(member, event)

    # -- called by the manager ---------------------------------------------------------------------------------------

    def check(
        self, needs: Mapping[str, Sequence[CacheNeed]], watched_fields: Mapping[str, Sequence[WatchedFields]]
    ) -> None:
        """Raises ConfigurationError if the caches cannot satisfy the needs and the predicates of the controllers."""
        plans = plan_cache(
            self._options.cached,
            needs,
            cluster=self,
            namespaces=self._options.namespaces,
            argument=f"ClusterSet({self.name!r}, cache=...)",
        )
        check_live(self._options.live, plans)
        check_watched_fields(watched_fields, plans, cluster=self)

    async def run(self, home: HomeServices) -> None:
        """Runs the members until cancelled.

        Raises:
            ConfigurationError: the set belongs to another manager, or one of its names is taken.
        """
        if self._home is not None:
            message = f"cluster set {self.name} belongs to a manager already: make another ClusterSet"
            raise ConfigurationError(message)
        for name in self._members:
            home.claim(name, self)
        self._home = home
        try:
            async with TaskScope(f"clusters.{self.name}") as scope:
                self._scope = scope
                for member in self._members.values():
                    self._start(member)
                if self._provider is not None:
                    scope.spawn(self._provider.run(self, home), name="provider")
                    await self._provider.wait_synced()
                self._known.set()
                await sleep_forever()
        finally:
            self._scope = None

    def _start(self, member: Member) -> None:
        if self._scope is None or self._home is None:
            return
        task = self._tasks[member] = self._scope.spawn(self._supervise(member, self._home), name=member.name)
        task.add_done_callback(lambda _: self._tasks.pop(member, None))

    async def _supervise(self, member: Member, home: HomeServices) -> None:
        """Runs a member; one that fails is replaced by a new one after a while, and affects no other."""
        try:
            await member.run(home)
        except Exception as error:  # noqa: BLE001 -- a fault with one cluster must not end the process
            _log.error("cluster failed, connecting again", cluster=member.name, error=str(error), exc_info=error)
            member.fail(f"failed: {error}")
        await asyncio.sleep(RESTART_SECONDS)
        if self._members.get(member.name) is member:
            self.discard(member.name)
            self.add(member.name, member.target, labels=member.labels)

    def caches(self) -> Mapping[str, Cache]:
        """The caches of the connected members, by name."""
        return {name: member.cache for name, member in self._members.items() if member.is_connected}

    def busy(self) -> Sequence[str]:
        """Work in progress; tests use it to wait until idle."""
        busy = [f"cluster {member.name} is being removed" for member in self._tasks if member.is_removed]
        return [*busy, *(self._provider.busy() if self._provider is not None else ())]

    def __repr__(self) -> str:
        return f"ClusterSet({self.name}: {', '.join(sorted(self._members)) or 'empty'})"


def _is_same_server(known: Target, new: Target) -> bool:
    return isinstance(known, ClusterConfig) and isinstance(new, ClusterConfig) and known.server == new.server


def _open_http(config: ClusterConfig) -> Transport:
    from kaito.runtime.client.http import HttpTransport  # tests with their own transport need no sockets

    return HttpTransport(config)
