"""The sources of a controller that watches a set of clusters, or the set itself.

`StartedMembers` runs one source per member: it is started when the member has a cache, and stopped with the member. Its
sync is that of the provider, which reads the manager's own cluster only: no member can delay the start.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol, TypeAlias, TypeVar, final

from kaito.runtime.cache import Cache, Cached
from kaito.runtime.cache.view import View
from kaito.runtime.clusters.member import Member, MemberEvent
from kaito.runtime.controller import Discard, cluster_of
from kaito.runtime.errors import CacheNotSynced, ConfigurationError, UndeclaredKind
from kaito.runtime.handler import Enqueue
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.source import KindSource, Replayable, StartedSource
from kaito.runtime.tasks import TaskScope
from kaito.runtime.workqueue import Cause

R = TypeVar("R", bound=Resource)

ChangeMapper: TypeAlias = Callable[[str, View], Iterable[ObjectKey]]
"""Returns the keys to reconcile when a cluster was changed; called with its name and the view of the own cluster."""

RETRY_SECONDS: Final = 5.0
"""Delay before a mapper of changes that raised is called again."""

_log = get_logger(__name__)


class WatchedSet(Protocol):
    """What the sources use of a `ClusterSet`."""

    @property
    def name(self) -> str:
        """Name of the set."""
        ...

    @property
    def is_known(self) -> bool:
        """Whether the provider has added the clusters that exist at the start."""
        ...

    @property
    def provider_error(self) -> str:
        """Why it has not."""
        ...

    async def wait_known(self) -> None:
        """Waits until it has."""
        ...

    def list(self) -> Sequence[Member]:
        """Returns the clusters of the set."""
        ...

    def subscribe(self, listener: Callable[[Member, MemberEvent], None]) -> None:
        """Calls a function at each change of a cluster."""
        ...

    def unsubscribe(self, listener: Callable[[Member, MemberEvent], None]) -> None:
        """Do not call it any more."""
        ...


class _StartedInSet:
    """The part of a started source that depends on the set only."""

    def __init__(self, clusters: WatchedSet) -> None:
        self._clusters = clusters
        clusters.subscribe(self._on_event)

    def _on_event(self, member: Member, event: MemberEvent) -> None:
        raise NotImplementedError

    async def wait_synced(self) -> None:
        """Waits until the set has the clusters that its providers know at the start."""
        await self._clusters.wait_known()

    @property
    def synced(self) -> bool:
        """Whether the set has these clusters."""
        return self._clusters.is_known

    @property
    def sync_error(self) -> str:
        """Why the clusters are not known."""
        return self._clusters.provider_error

    def stop(self) -> None:
        """Ignores further changes. May be called repeatedly."""
        self._clusters.unsubscribe(self._on_event)


@final
class StartedMembers(_StartedInSet):
    """A started source of one kind in every member."""

    def __init__(
        self,
        clusters: WatchedSet,
        source: KindSource[Any],
        cached: Cached,
        *,
        home: View,
        queue: Enqueue,
        discard: Discard,
        scope: TaskScope,
    ) -> None:
        self._source = source
        self._cached = cached
        self._home = home
        self._queue = queue
        self._discard = discard
        self._scope = scope
        self._starting: dict[Member, asyncio.Task[None]] = {}
        self._started: dict[Member, StartedSource] = {}
        super().__init__(clusters)
        for member in clusters.list():
            if member.is_connected:
                self._engage(member)

    def _on_event(self, member: Member, event: MemberEvent) -> None:
        if event == "connected":
            self._engage(member)
        elif event == "removed":
            self._disengage(member)
            self._discard(lambda key: cluster_of(key) == member.name)

    def _engage(self, member: Member) -> None:
        task = self._scope.spawn(self._start(member), name=f"engage.{member.name}")
        self._starting[member] = task
        task.add_done_callback(lambda _: self._starting.pop(member, None))

    async def _start(self, member: Member) -> None:
        kind = self._cached.kind
        try:
            cache = member.cache
            held = cache.acquire(kind if cache.declares(kind) else self._cached)
            try:
                for index in self._cached.indexes:
                    await cache.add_index(index)
                view = View(cache, cluster=member.name, home=self._home)
                self._started[member] = self._source.deliver(cache, self._queue, view)
            finally:
                held.release()  # the source holds the informer
        except ConfigurationError as error:  # a controller that was added later, and needs another form of the kind
            _log.error("kind not watched", cluster=member.name, kind=kind.kind, error=str(error))

    def _disengage(self, member: Member) -> None:
        starting, started = self._starting.pop(member, None), self._started.pop(member, None)
        if starting is not None:
            starting.cancel()
        if started is not None:
            started.stop()

    @property
    def idle(self) -> bool:
        """Whether no event of any member is buffered or being handled."""
        return not self._starting and all(started.idle for started in self._started.values())

    def replay(self) -> None:
        """Delivers every object of every member again, as in the initial list."""
        for started in self._started.values():
            if isinstance(started, Replayable):
                started.replay()

    def stop(self) -> None:
        """Stops the sources of all members. May be called repeatedly."""
        super().stop()
        for member in {*self._starting, *self._started}:
            self._disengage(member)


@final
class ClusterChanges:
    """Source of a set's changes: a cluster was added and is ready, is unreachable, has other labels, was removed.

    Made by `ClusterSet.changes`.
    """

    def __init__(self, clusters: WatchedSet, to: "type[Resource] | ChangeMapper") -> None:
        self.name: str = f"clusters-{clusters.name}"
        self._clusters = clusters
        self._to = to

    def start(self, cache: Cache, queue: Enqueue, scope: TaskScope) -> StartedSource:
        """Starts to deliver changes."""
        return _StartedChanges(self._clusters, lambda name: self._keys(name, cache), queue, scope)

    def _keys(self, name: str, cache: Cache) -> Iterable[ObjectKey]:
        if not isinstance(self._to, type):
            return self._to(name, View(cache))
        try:
            return [*cache.keys(self._to)]
        except (CacheNotSynced, UndeclaredKind):
            return ()  # the initial list follows

    def __repr__(self) -> str:
        return f"ClusterChanges({self._clusters.name})"


@final
class _StartedChanges(_StartedInSet):
    """A started source of changes."""

    def __init__(
        self,
        clusters: WatchedSet,
        keys: Callable[[str], Iterable[ObjectKey]],
        queue: Enqueue,
        scope: TaskScope,
    ) -> None:
        self._keys = keys
        self._queue = queue
        self._scope = scope
        self._retries: set[asyncio.Task[None]] = set()
        super().__init__(clusters)

    def _on_event(self, member: Member, event: MemberEvent) -> None:
        if event == "connected":
            return
        cause = Cause("Cluster", member.name, event)
        try:
            for key in self._keys(member.name):
                self._queue.add(key, cause=cause)
        except Exception as error:  # noqa: BLE001 -- the user's function
            _log.error(
                "change of a cluster not mapped, retrying", cluster=member.name, error=str(error), exc_info=error
            )
            task = self._scope.spawn(self._retry(member, event), name=f"retry.{member.name}")
            self._retries.add(task)
            task.add_done_callback(self._retries.discard)

    async def _retry(self, member: Member, event: MemberEvent) -> None:
        await asyncio.sleep(RETRY_SECONDS)
        self._on_event(member, event)

    @property
    def idle(self) -> bool:
        """Always: changes are delivered at once."""
        return True

    def stop(self) -> None:
        """Ignores further changes. May be called repeatedly."""
        super().stop()
        for retry in self._retries:
            retry.cancel()
