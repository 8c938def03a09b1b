"""The manager's cache: one informer per declared kind, synchronous reads, and own-writes consistency for `Api`.

The manager creates and runs it, sources acquire informers from it, `Api` and `View` read it. A read of an undeclared
kind is an error and never starts a watch. Informers may be added and removed while it runs: `acquire` starts or shares
one, the last `release` stops it and frees its memory.
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, cast, final, overload

from kaito.runtime.cache.declaration import Cached
from kaito.runtime.cache.entry import Entry, cannot_be_read, decode
from kaito.runtime.cache.index import Index
from kaito.runtime.cache.informer import Informer, InformerHealth
from kaito.runtime.cache.reflector.requests import Requests
from kaito.runtime.cache.selection import EVERYTHING, Selection
from kaito.runtime.cache.shard import Shard
from kaito.runtime.cache.stats import KindStats
from kaito.runtime.cache.store import Store
from kaito.runtime.client.codec import ResourceList
from kaito.runtime.client.consistency import Aggregate, IndexKey, Scope
from kaito.runtime.client.observe import RequestObserver
from kaito.runtime.client.transport import Transport
from kaito.runtime.client.unreadable import Unreadable, log_skipped, skips_unreadable
from kaito.runtime.clock import Clock, SystemClock
from kaito.runtime.errors import CacheNotSynced, ConfigurationError, UndeclaredKind, UnreadableObject
from kaito.runtime.meta import GroupVersionKind, LabelSelector, ObjectKey, Resource
from kaito.runtime.tasks import TaskScope, sleep_forever

R = TypeVar("R", bound=Resource)

OWN_WRITES_SECONDS = 2.0
"""Longest wait of a read for own writes; after that it goes to the server."""


@final
class InformerRef(Generic[R]):
    """A counted reference to an informer."""

    def __init__(self, informer: Informer[R], release: Callable[[], None]) -> None:
        self._release = release
        self._released = False
        self.informer = informer

    def release(self) -> None:
        """Releases the reference; the last release stops an informer that no declaration pins.

        May be called repeatedly.
        """
        if not self._released:
            self._released = True
            self._release()


@final
@dataclass(frozen=True, slots=True)
class Selected(Generic[R]):
    """A selected object that is not decoded yet."""

    _entry: Entry
    _kind: type[R]
    _store: Store
    _metadata_only: bool
    _unfiled: str = ""
    """The index of the list, if its function failed on this object."""

    def decode(self) -> R:
        """A new object, private to the caller.

        Raises:
            UnreadableObject: it does not fit its model, or the function of the list's index failed on it.
        """
        if self._unfiled:
            raise cannot_be_read(self._kind, self._entry, f" could not be filed by index {self._unfiled!r}")
        return decode(self._entry, self._kind, metadata_only=self._metadata_only)

    def known(self, holder: object) -> Any:
        """What `remember` stored for this version of the object; None if nothing."""
        key = self._entry.header.key
        return self._store.memory(holder).get(key) if self._store.get(key) is self._entry else None

    def remember(self, holder: object, value: Any) -> None:
        """Stores a value of this version of the object, which `known` returns until the object changes."""
        key = self._entry.header.key
        if self._store.get(key) is self._entry:
            self._store.memory(holder)[key] = value


class _Held:
    """An informer with its references and its task."""

    __slots__ = ("declared", "holds", "informer", "task")

    def __init__(self, informer: Informer[Any]) -> None:
        self.informer = informer
        self.declared = False
        self.holds = 0
        self.task: asyncio.Task[None] | None = None


@final
class Cache:
    """Objects of the declared kinds, in memory.

    Args:
        transport: The network.
        kinds: What to keep. `Cached(Resource, ...)` among them sets the defaults of all others.
        namespaces: Default for declarations that name none; empty means the whole cluster.
        clock: Wall time, for metrics.
        rng: Randomness of waits and watch lengths; seed it for repeatable runs.
        streaming: Fill by WatchList where the server knows it.
        own_writes_seconds: Longest wait of a read for own writes.
        user_agent: User-Agent of the requests.
        observer: Called for every list and every opened watch.

    Raises:
        ConfigurationError: two declarations of one kind conflict.
    """

    def __init__(
        self,
        transport: Transport,
        kinds: Sequence[Cached] = (),
        *,
        namespaces: Sequence[str] = (),
        clock: Clock | None = None,
        rng: random.Random | None = None,
        streaming: bool = True,
        own_writes_seconds: float = OWN_WRITES_SECONDS,
        user_agent: str = "",
        observer: RequestObserver | None = None,
    ) -> None:
        self._requests = Requests(transport, user_agent=user_agent, observer=observer)
        self._namespaces = tuple(namespaces)
        self._clock = clock or SystemClock()
        self._rng = rng or random.SystemRandom()
        self._streaming = streaming
        self._own_writes_seconds = own_writes_seconds
        self._held: dict[GroupVersionKind, _Held] = {}
        self._scope: TaskScope | None = None
        self._defaults: Cached | None = None
        for cached in sorted(kinds, key=lambda each: not each.is_default):
            self.declare(cached)

    # Declaring.

    def declare(self, cached: Cached, *, pinned: bool = True) -> None:
        """Keeps a kind for as long as the cache runs. Before the start only; later, `acquire`.

        A plain declaration, as a watching controller makes it, accepts the options of any other; indexes are merged.
        One that is not `pinned` only sets the form in which to keep the kind: the informer stops with its last
        reference.

        Raises:
            ConfigurationError: it contradicts an earlier one, or the cache runs.
        """
        if self._scope is not None:
            raise ConfigurationError(f"{cached!r}: the cache runs already; use acquire()")
        if cached.is_default:
            if self._defaults is not None or self._held:
                raise ConfigurationError(f"{cached!r}: declare Cached(Resource, ...) once, before other kinds")
            self._defaults = cached
            return
        held = self._held.get(cached.kind.gvk())
        if held is None:
            held = self._held[cached.kind.gvk()] = _Held(self._informer(cached))
        else:
            known = held.informer.declaration
            merged = self._merge(known, cached)
            if merged is not known:
                if held.holds:
                    raise ConfigurationError(f"{cached!r}: {known!r} is in use already; declare before acquiring")
                held.informer = self._informer(merged)
        held.declared = held.declared or pinned

    def _merge(self, known: Cached, new: Cached) -> Cached:
        new = self._placed(new)
        if known.same_objects(new) or new.is_plain:
            more = [index for index in new.indexes if index not in known.indexes]
            return known.with_indexes(more) if more else known
        if known.is_plain:
            return new.with_indexes(known.indexes)
        raise ConfigurationError(
            f"{known!r} and {new!r} contradict each other: declare the kind once "
            f"(one informer keeps one form of each object; whole and metadata-only cannot be mixed)"
        )

    def _placed(self, cached: Cached) -> Cached:
        """The declaration, completed with the cache's defaults."""
        return cached.with_defaults(self._defaults, self._namespaces)

    def _informer(self, cached: Cached) -> Informer[Any]:
        return Informer(
            cached.kind,
            self._placed(cached),
            self._requests,
            clock=self._clock,
            rng=self._rng,
            streaming=self._streaming,
        )

    @overload
    def acquire(self, cached: type[R]) -> InformerRef[R]: ...
    @overload
    def acquire(self, cached: Cached) -> InformerRef[Any]: ...

    def acquire(self, cached: Cached | type[R]) -> InformerRef[R]:
        """A reference to the informer of a kind, which is started if the cache runs and the informer does not.

        Raises:
            ConfigurationError: the kind is kept in another form, or with fewer indexes (see `add_index`).
        """
        wanted = cached if isinstance(cached, Cached) else Cached(cached)
        if wanted.is_default:
            raise ConfigurationError(f"{wanted!r} keeps nothing")
        held = self._held.get(wanted.kind.gvk())
        if held is None:
            held = self._held[wanted.kind.gvk()] = _Held(self._informer(wanted))
            if self._scope is not None:
                self._start(held)
        else:
            merged = self._merge(held.informer.declaration, wanted)
            if merged is not held.informer.declaration:
                cached = held.informer.declaration
                raise ConfigurationError(f"{cached!r} is already cached with a narrower declaration than {wanted!r}")
        held.holds += 1
        return InformerRef(cast("Informer[R]", held.informer), partial(self._release, wanted.kind))

    def _release(self, kind: type[Resource]) -> None:
        held = self._held[kind.gvk()]
        held.holds -= 1
        if held.holds <= 0 and not held.declared:
            del self._held[kind.gvk()]
            if held.task is not None:
                held.task.cancel()

    async def add_index(self, index: Index[Any]) -> None:
        """Adds an index to a cached kind; lists by it are complete when this returns.

        Raises:
            UndeclaredKind: nothing keeps the kind.
            ConfigurationError: another index has its name.
        """
        await self.informer(index.kind).add_index(index)

    # Running.

    async def run(self) -> None:
        """Runs every informer until cancelled.

        Raises:
            InvariantError: an informer ended unexpectedly.
        """
        async with TaskScope("cache") as scope:
            self._scope = scope
            try:
                for held in self._held.values():
                    self._start(held)
                await scope.spawn(sleep_forever(), name="alive")
            finally:
                self._scope = None

    def _start(self, held: _Held) -> None:
        if self._scope is not None:
            held.task = self._scope.spawn(held.informer.run(), name=held.informer.stats.kind)

    async def wait_synced(self, timeout: float | None = None) -> None:
        """Waits until every informer has its initial list.

        Raises:
            CacheNotSynced: not within `timeout` seconds; the message names the kinds and the server's errors.
        """
        try:
            async with asyncio.timeout(timeout):
                for held in list(self._held.values()):
                    await held.informer.wait_synced()
        except TimeoutError as error:
            missing = [str(held.informer.not_synced()) for held in self._held.values() if not held.informer.synced]
            raise CacheNotSynced("; ".join(missing)) from error

    @property
    def synced(self) -> bool:
        """Whether every informer has its initial list."""
        return all(held.informer.synced for held in self._held.values())

    @property
    def idle(self) -> bool:
        """Whether no handler has a buffered or running event."""
        return all(held.informer.idle for held in self._held.values())

    def health(self) -> list[InformerHealth]:
        """The state of every reflector."""
        return [row for held in self._held.values() for row in held.informer.health()]

    def stats(self) -> list[KindStats]:
        """Counters per kind."""
        return [held.informer.measured() for held in self._held.values()]

    def informer(self, kind: type[R]) -> Informer[R]:
        """The informer of a kind.

        Raises:
            UndeclaredKind: nothing keeps the kind.
        """
        held = self._held.get(kind.gvk())
        if held is None:
            raise UndeclaredKind(kind.kind)
        return cast("Informer[R]", held.informer)

    # Reading (`kaito.runtime.client.consistency.Reader`).

    def declares(self, kind: type[Resource]) -> bool:
        """Whether an informer of the kind is declared, synced or not."""
        return kind.gvk() in self._held

    def get(self, kind: type[R], key: ObjectKey) -> R | None:
        """The cached object, private to the caller, or None.

        Raises:
            UndeclaredKind: nothing declares the kind, or the key is outside the declared namespaces.
            CacheNotSynced: the first list has not arrived.
            UnreadableObject: the object does not fit its model.
        """
        informer = self.informer(kind)
        entry = informer.get(key)
        return None if entry is None else decode(entry, kind, metadata_only=informer.metadata_only)

    def appliers(self, kind: type[Resource], key: ObjectKey) -> frozenset[str]:
        """The field managers that have applied fields of the object; empty if they are unknown. Raises as `get`."""
        entry = self.informer(kind).get(key)
        return frozenset() if entry is None else entry.header.appliers

    def list(
        self,
        kind: type[R],
        *,
        namespace: str = "",
        labels: LabelSelector | None = None,
        owner: str = "",
        index: IndexKey[R] | None = None,
        unreadable: Unreadable | None = None,
    ) -> ResourceList[R]:
        """The cached objects that match everything given, ordered by namespace and name.

        `owner` is the UID of an owner reference; `namespace` empty means every declared namespace. Only returned
        objects are decoded. `Api.list` describes the treatment of objects that do not fit their model. Raises as `get`,
        and:

        Raises:
            ConfigurationError: the index is not declared.
        """
        skip = skips_unreadable(unreadable, narrow=bool(owner) or index is not None)
        chosen = self.select(kind, namespace=namespace, labels=labels, owner=owner, index=index, with_unfiled=skip)
        found: ResourceList[R] = ResourceList()
        for undecoded in chosen:
            found.add_decoded(undecoded.decode, skip=skip)
        log_skipped(found.unreadable)
        return found

    def select(
        self,
        kind: type[R],
        *,
        namespace: str = "",
        labels: LabelSelector | None = None,
        owner: str = "",
        index: IndexKey[R] | None = None,
        with_unfiled: bool = False,
    ) -> Sequence[Selected[R]]:
        """As `list`, but the caller decodes and can yield to the event loop between objects.

        `with_unfiled` adds objects on which the index function failed; decoding one of them fails.
        """
        informer = self.informer(kind)
        shards = informer.shards(namespace)
        if index is not None:
            informer.check_index(index.name)
        entries = (
            (entry, shard.store)
            for shard in shards
            for entry in shard.store.select(
                namespace=namespace,
                owner=owner,
                index=index,
                labels=labels,
                with_unfiled=with_unfiled,
            )
        )
        unfiled: set[ObjectKey] = set()
        if index is not None and with_unfiled:
            unfiled.update(key for shard in shards for key in shard.store.unfiled(index.name))
        chosen = [each for each in entries if labels is None or labels.matches(each[0].header.labels)]
        chosen.sort(key=lambda each: (each[0].header.key.namespace, each[0].header.key.name))
        index_name = index.name if index is not None else ""
        return [
            Selected(entry, kind, store, informer.metadata_only, index_name if entry.header.key in unfiled else "")
            for entry, store in chosen
        ]

    def pass_changes(self, aggregate: Aggregate[Any], *, limit: int) -> bool:
        """Passes at most `limit` of the changes since the last call to an aggregate; whether there are more of them.

        The first call passes every object. Raises as `get`.
        """
        informer = self.informer(aggregate.kind)
        for shard in informer.shards(""):
            store = shard.store
            changed = store.changes(aggregate)
            while changed and limit:
                key, _ = changed.popitem()
                limit -= 1
                entry = store.get(key)
                if entry is None:
                    aggregate.remove(key)
                    continue
                try:
                    found = decode(entry, aggregate.kind, metadata_only=informer.metadata_only)
                except UnreadableObject as error:
                    found = error
                aggregate.put(key, found)
            if changed:
                return True
        return False

    def require(self, kind: type[Resource], key: ObjectKey, resource_version: str) -> bool:
        """Requires that reads of the key are at least at this version; False if that is not possible."""
        shard = self._shard(kind, key)
        return shard is not None and shard.own_writes.require(key, resource_version)

    def scopes(self, kind: type[Resource], namespace: str = "") -> Sequence[Scope]:
        """The live requests equivalent to a cached list of the namespace (empty: of all cached namespaces).

        Raises:
            UndeclaredKind: nothing declares the kind, or the namespace is outside the declared ones.
        """
        return self.informer(kind).scopes(namespace)

    def version(self, kind: type[Resource], namespace: str = "") -> str:
        """The resourceVersion that lists of the namespace (empty: of everything kept) are at now; of several informers
        the last one's. Raises as `scopes`.
        """
        return self.informer(kind).version(namespace)

    def keys(self, kind: type[Resource]) -> Iterator[ObjectKey]:
        """Every cached key of a kind, in no order. Raises as `get`."""
        return (key for shard in self.informer(kind).shards("") for key in shard.store.keys())  # noqa: SIM118

    async def caught_up(
        self,
        kind: type[Resource],
        key: ObjectKey | None = None,
        *,
        namespace: str = "",
        labels: LabelSelector | None = None,
        owner: str = "",
        index: IndexKey[Any] | None = None,
    ) -> bool:
        """Waits until the cache reflects every own write begun before this call, for one key or a list.

        The other arguments are those of the list: writes of objects that are not in the list before or after are not
        waited for. Returns at once when no write is pending, or when a pending one is known to be late; False means
        that the caller must read live.
        """
        held = self._held.get(kind.gvk())
        if held is None:
            return True
        selection = EVERYTHING if key is not None else Selection(namespace, labels, owner, index)
        return await held.informer.caught_up(key, selection, limit=self._own_writes_seconds)

    def writing(self, kind: type[Resource], key: ObjectKey) -> AbstractContextManager[None]:
        """Records that a write has begun; `caught_up` waits for it. Undeclared kinds are ignored."""
        shard = self._shard(kind, key)
        return nullcontext() if shard is None else shard.own_writes.writing(key)

    def invalidate(self, kind: type[Resource], key: ObjectKey) -> None:
        """Records a write with unknown result: reads of the key go to the server until one of them succeeds."""
        shard = self._shard(kind, key)
        if shard is not None:
            shard.own_writes.invalidate(key, settled=True)

    def record_live_read(self, kind: type[Resource], key: ObjectKey, began: float, found: Resource | None) -> None:
        """Records the result of a live read of the key that began at that time."""
        shard = self._shard(kind, key)
        if shard is not None:
            shard.own_writes.record_live_read(key, began, found)

    def record_live_list(self, kind: type[Resource], namespace: str, began: float, resource_version: str) -> None:
        """Records a live list of the namespace (empty: all) that began at that time, at this version."""
        held = self._held.get(kind.gvk())
        for shard in held.informer.shards(namespace) if held is not None else ():
            shard.own_writes.record_live_list(namespace, began, resource_version)

    def record_write(
        self, kind: type[Resource], key: ObjectKey, resource_version: str, uid: str, result: Resource | None = None
    ) -> None:
        """Records a successful write: reads of the key must be at least at `resource_version`; `result` if it is
        known."""
        shard = self._shard(kind, key)
        if shard is not None:
            shard.own_writes.record_write(key, resource_version, uid, result)

    def record_deletion(self, kind: type[Resource], key: ObjectKey, uid: str) -> None:
        """Records a completed deletion: reads must not return that UID."""
        shard = self._shard(kind, key)
        if shard is not None:
            shard.own_writes.record_deletion(key, uid)

    def _shard(self, kind: type[Resource], key: ObjectKey) -> "Shard | None":
        held = self._held.get(kind.gvk())
        return None if held is None else held.informer.shard_of(key)
