"""Keeps one kind in memory: a shard and a reflector per namespace, and the subscribed handlers.

Created by the cache from a `Cached` declaration. Sources subscribe handlers, the cache reads entries. There are three
stages of synchronization: the shards are `synced` (the initial list is stored), a subscription is `synced` (its handler
has processed that list), and a controller waits for all of its subscriptions.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, final

from kaito.runtime.cache.declaration import Cached
from kaito.runtime.cache.delivery import Deliver, Subscription
from kaito.runtime.cache.entry import Entry
from kaito.runtime.cache.index import Index
from kaito.runtime.cache.options import REST
from kaito.runtime.cache.own_writes import Concern
from kaito.runtime.cache.reflector.collection import Collection, collection_path
from kaito.runtime.cache.reflector.reflector import Reflector
from kaito.runtime.cache.reflector.requests import Requests
from kaito.runtime.cache.selection import Selection
from kaito.runtime.cache.shard import Shard
from kaito.runtime.cache.stats import KindStats
from kaito.runtime.client.consistency import Scope
from kaito.runtime.clock import Clock, monotonic
from kaito.runtime.errors import CacheNotSynced, ConfigurationError, InvariantError, UndeclaredNamespace
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.tasks import TaskScope

R = TypeVar("R", bound=Resource)


@dataclass(frozen=True, slots=True)
class InformerHealth:
    """The state of one reflector, for readiness and for the message when a start fails."""

    kind: str
    namespace: str
    """Empty for the whole cluster."""
    synced: bool
    """The initial list is in the store."""
    watching: bool
    """A watch is open now."""
    silent_seconds: float
    """Seconds since the server last sent an object, a bookmark or a list; infinite before the first. An accepted watch
    without data does not count."""
    error: str
    """The message of the last list or watch error; empty when the last attempt succeeded."""
    quiet_seconds: float = 0.0
    """Seconds that a healthy server may send nothing on the open watch; 0 while none is open."""


@final
class Informer(Generic[R]):
    """Watches a kind and delivers its changes to handlers."""

    def __init__(
        self,
        kind: type[R],
        declaration: Cached,
        requests: Requests,
        *,
        clock: Clock,
        rng: random.Random,
        streaming: bool,
    ) -> None:
        self.kind = kind
        self.declaration: Cached = declaration
        gvk = kind.gvk()
        self.stats: KindStats = KindStats(f"{gvk.kind}.{gvk.group}" if gvk.group else gvk.kind)
        self._clock = clock
        self._rng = rng
        self._subscriptions: list[Subscription[R]] = []
        self._shards: dict[str, Shard] = {}
        self._reflectors: dict[str, Reflector] = {}
        self._scope: TaskScope | None = None
        self._synced = asyncio.Event()
        for options in declaration.resolved:
            namespace = options.namespace
            shard = Shard(declaration, options, listeners=self._subscriptions, received=self._received)
            self._shards[namespace] = shard
            self._reflectors[namespace] = Reflector(
                f"{self.stats.kind} in {namespace}" if namespace else self.stats.kind,
                requests,
                Collection(
                    collection_path(kind, namespace),
                    labels=options.labels,
                    fields=options.fields,
                    metadata_only=self.metadata_only,
                ),
                shard,
                self.stats,
                rng=rng,
                streaming=streaming,
                relist_seconds=declaration.relist_seconds,
            )

    @property
    def metadata_only(self) -> bool:
        """Whether only metadata is cached."""
        return self.declaration.only == "metadata"

    def _received(self) -> None:
        self.stats.last_event = self._clock.now().timestamp()
        if not self._synced.is_set() and all(shard.synced for shard in self._shards.values()):
            self._synced.set()

    # Running.

    async def run(self) -> None:
        """Watches the kind until cancelled.

        Raises:
            InvariantError: a reflector ended unexpectedly.
        """
        async with TaskScope(f"informer.{self.stats.kind}") as scope:
            self._scope = scope
            try:
                for subscription in self._subscriptions:
                    scope.spawn(subscription.run(), name=f"handler.{subscription.name}")
                followers = [
                    scope.spawn(reflector.run(), name=f"reflector.{namespace or '*'}")
                    for namespace, reflector in self._reflectors.items()
                ]
                await asyncio.wait(followers, return_when=asyncio.FIRST_COMPLETED)
                raise InvariantError(f"a reflector of {self.stats.kind} ended")
            finally:
                self._scope = None

    @property
    def synced(self) -> bool:
        """Whether every shard has its initial list."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Waits for `synced`."""
        await self._synced.wait()

    def health(self) -> list[InformerHealth]:
        """One row per reflector."""
        now = monotonic()
        return [
            InformerHealth(
                kind=self.stats.kind,
                namespace=namespace,
                synced=self._shards[namespace].synced,
                watching=reflector.watching,
                silent_seconds=now - reflector.last_received,
                error=str(reflector.error or ""),
                quiet_seconds=reflector.quiet_seconds,
            )
            for namespace, reflector in self._reflectors.items()
        ]

    def measured(self) -> KindStats:
        """The counters, with objects and bytes as of now."""
        self.stats.objects = sum(len(shard.store) for shard in self._shards.values())
        self.stats.size = sum(shard.store.size for shard in self._shards.values())
        return self.stats

    @property
    def idle(self) -> bool:
        """Whether no handler has a buffered or running event."""
        return all(subscription.idle for subscription in self._subscriptions)

    # Delivery.

    def subscribe(self, deliver: Deliver[R], *, name: str, resync: float = 0.0) -> Subscription[R]:
        """Subscribes a handler: it receives all existing objects (as creations flagged initial), then every change.

        `deliver` is called with one event at a time, in order. May be called before or while the informer runs. Every
        `resync` seconds (±10 %; 0 = never) it receives every cached object again, as an update without change and
        without a request to the server.
        """
        subscription = Subscription(
            name,
            self.kind,
            deliver,
            self.stats,
            stored=self._stored,
            left=self._unsubscribed,
            fills=len(self._shards),
            rng=self._rng,
            metadata_only=self.metadata_only,
            entries=self._all,
            resync=resync,
        )
        for shard in self._shards.values():
            if shard.synced:
                for change in shard.initial():
                    subscription.put(change)
                subscription.filled()
        self._subscriptions.append(subscription)
        if self._scope is not None:
            self._scope.spawn(subscription.run(), name=f"handler.{name}")
        return subscription

    def _unsubscribed(self, subscription: Subscription[R]) -> None:
        self._subscriptions.remove(subscription)

    def _all(self) -> list[Entry]:
        return [entry for shard in self._shards.values() for entry in shard.store]

    def _stored(self, key: ObjectKey) -> Entry | None:
        shard = self.shard_of(key)
        return shard.stored(key) if shard is not None else None

    # Reading.

    def shard_of(self, key: ObjectKey) -> Shard | None:
        """The shard that covers the key, or None when it is outside the declared namespaces."""
        return self._covering(key.namespace)

    def _covering(self, namespace: str) -> Shard | None:
        """Each declared namespace has its own shard; the rest of the cluster shares one."""
        return self._shards.get(namespace) or self._shards.get(REST)

    def get(self, key: ObjectKey) -> Entry | None:
        """The entry of the key.

        Raises:
            UndeclaredNamespace: outside the declared namespaces.
            CacheNotSynced: the first list has not arrived.
        """
        return self._readable(key.namespace)[0].stored(key)

    def shards(self, namespace: str) -> list[Shard]:
        """The synced shards that cover the namespace (empty: all declared ones). Raises as `get`."""
        return self._readable(namespace) if namespace else self._readable_all()

    def _readable(self, namespace: str) -> list[Shard]:
        shard = self._covering(namespace)
        if shard is None:
            raise UndeclaredNamespace(self.kind.kind, namespace, self.declaration.namespaces)
        if not shard.synced:
            raise self.not_synced()
        return [shard]

    def _readable_all(self) -> list[Shard]:
        if not self.synced:
            raise self.not_synced()
        return list(self._shards.values())

    def scopes(self, namespace: str) -> list[Scope]:
        """The collections that the informer watches for the namespace (empty: all of them).

        Raises:
            UndeclaredNamespace: outside the declared namespaces.
        """
        if not namespace:
            return [
                Scope(each.options.namespace, each.options.labels, each.options.fields)
                for each in self._shards.values()
            ]
        shard = self._covering(namespace)
        if shard is None:
            raise UndeclaredNamespace(self.kind.kind, namespace, self.declaration.namespaces)
        return [Scope(namespace, shard.options.labels, shard.options.fields)]

    def not_synced(self) -> CacheNotSynced:
        """The error that names what is not synced and why."""
        reasons = [
            f"{row.kind}{' in ' + row.namespace if row.namespace else ''}: {row.error or _still(row)}"
            for row in self.health()
            if not row.synced
        ]
        return CacheNotSynced(f"the first list has not arrived: {'; '.join(reasons)}")

    def version(self, namespace: str) -> str:
        """The version a list of the namespace (empty: of all) is at; of several the last one's. Raises as `scopes`."""
        if not namespace:
            return next(reversed(self._shards.values())).version
        shard = self._covering(namespace)
        if shard is None:
            raise UndeclaredNamespace(self.kind.kind, namespace, self.declaration.namespaces)
        return shard.version

    async def add_index(self, index: Index[Any]) -> None:
        """Adds an index and fills it before returning.

        Raises:
            ConfigurationError: another index has its name.
        """
        if index in self.declaration.indexes:
            return
        self.declaration = self.declaration.with_indexes([index])
        for shard in self._shards.values():
            await shard.add_index(index)

    def check_index(self, name: str) -> None:
        """Checks that an index is declared.

        Raises:
            ConfigurationError: it is unknown, or still being filled.
        """
        if not all(shard.store.has_index(name) for shard in self._shards.values()):
            raise ConfigurationError(
                f"{self.kind.kind} has no index {name!r}: add it to Cached({self.kind.kind}, indexes=[...])"
            )

    # Own writes.

    async def caught_up(self, key: ObjectKey | None, selection: Selection, *, limit: float) -> bool:
        """Whether reads of the key, or lists of the selection, show every own write begun before this call.

        Waits at most `limit` seconds.
        """
        concerns = self._concerns(key, selection)
        if not concerns:
            return True
        started = monotonic()
        try:
            async with asyncio.timeout(limit):
                met = [await shard.own_writes.wait(concern) for shard, concern in concerns]
                while all(met) and any(shard.own_writes.misses(concern) for shard, concern in concerns):
                    met = [await shard.own_writes.wait(concern) for shard, concern in concerns]
        except TimeoutError:
            for shard, concern in concerns:
                shard.own_writes.give_up(concern)
            met = [False]
        self.stats.waited("caught_up" if all(met) else "live", monotonic() - started)
        return all(met)

    def _concerns(self, key: ObjectKey | None, selection: Selection) -> "Sequence[tuple[Shard, Concern]]":
        if key is not None:
            shard = self.shard_of(key)
            shards = [shard] if shard is not None else []
        elif selection.namespace:
            shard = self._covering(selection.namespace)
            shards = [shard] if shard is not None else []
        else:
            shards = list(self._shards.values())
        concerns = [(shard, shard.own_writes.concern(key, selection)) for shard in shards]
        return [(shard, concern) for shard, concern in concerns if concern]


def _still(row: InformerHealth) -> str:
    return "the server has begun to stream it and not ended" if row.watching else "no answer yet"
