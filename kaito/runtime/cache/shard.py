"""The cached objects of one kind in one namespace (or the whole cluster), and their changes.

The reflector writes it; the informer reads it. Every change is stored before it is delivered, so that a handler which
reads the cache finds at least the state of its event.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol, final

from kaito.runtime.cache.declaration import Cached
from kaito.runtime.cache.entry import Entry, make_entry, version_number
from kaito.runtime.cache.event import Change, EventType
from kaito.runtime.cache.index import Index
from kaito.runtime.cache.jsontext import Raw, cuts
from kaito.runtime.cache.options import ResolvedOptions
from kaito.runtime.cache.own_writes import OwnWrites
from kaito.runtime.cache.reflector.watch import Turn
from kaito.runtime.cache.selection import Selection, Shape
from kaito.runtime.cache.store import Store
from kaito.runtime.clock import monotonic
from kaito.runtime.meta import ObjectKey, Resource


class Listener(Protocol):
    """Receives changes."""

    def put(self, change: Change) -> None:
        """Receives a change that has been stored."""
        ...

    def filled(self) -> None:
        """Receives the end of the shard's initial list."""
        ...


@final
class Shard:
    """Objects and progress of one collection."""

    def __init__(
        self,
        declaration: Cached,
        options: ResolvedOptions,
        *,
        listeners: Sequence[Listener],
        received: Callable[[], None],
    ) -> None:
        self.options: ResolvedOptions = options
        self._drop = cuts(options.drop)
        self._metadata_only = declaration.only == "metadata"
        self._indexes: list[Index[Any]] = list(declaration.indexes)
        self._listeners = listeners
        self._received = received
        self.store: Store = self.fresh()
        self.version: str = ""
        """The last resourceVersion received: of a list, an event or a bookmark."""
        self.number: int = -1
        """`version` as a number; -1 before the first, or when it is not a number."""
        self.synced: bool = False
        """The first fill is in the store."""
        self.own_writes: OwnWrites = OwnWrites(declaration.kind.kind, self)

    def stored(self, key: ObjectKey) -> Entry | None:
        """The entry of the key."""
        return self.store.get(key)

    def shape_of(self, obj: Resource) -> Shape | None:
        """The selectable fields of an object that is not received yet; None when they cannot be computed."""
        if self.options.transform is not None:
            return None
        filed: dict[str, Sequence[str]] = {}
        # An index function gets the object as it is cached; for a partly cached object it cannot run before that.
        for index in self._indexes if self.options.is_whole and not self._metadata_only else ():
            with suppress(Exception):  # user code; its failure is reported when the object is received
                filed[index.name] = tuple(index.values(obj))
        return Shape(dict(obj.labels), [owner.uid for owner in obj.metadata.owner_references], filed)

    def shows(self, key: ObjectKey, selection: Selection) -> bool:
        """Whether a list with the selection contains the key now."""
        entry = self.store.get(key)
        if entry is None:
            return False
        header = entry.header
        return (
            (selection.labels is None or selection.labels.matches(header.labels))
            and (not selection.owner or any(owner.uid == selection.owner for owner in header.owners))
            and (selection.index is None or self.store.files(key, selection.index))
        )

    # The reflector's side.

    def admit(self, text: Raw) -> Entry:
        """Creates the entry of a received object. Raises `Undecodable`."""
        return make_entry(text, self._drop, metadata_only=self._metadata_only, transform=self.options.transform)

    def fresh(self) -> Store:
        """An empty store with the shard's indexes."""
        return Store(self._indexes, metadata_only=self._metadata_only)

    async def replace(self, store: Store, version: str) -> None:
        """Replaces the store at once, then delivers the differences: deletions first, then every object.

        Later subscribers get the new store as their initial list, so only current subscribers get the differences.
        """
        for index in self._indexes:
            if not store.has_index(index.name):  # Declared while the store was being filled.
                await _file(store, index)
        store.inherit_memories(self.store)
        old, self.store = self.store, store
        first, self.synced = not self.synced, True
        number = self.number
        self._advance(version)
        self.own_writes.replaced(went_back=self.number < number)
        self._received()
        turn = Turn()
        listeners = tuple(self._listeners)
        if listeners:
            for change in _difference(old, list(store), store, first=first):
                for listener in listeners:
                    listener.put(change)
                await turn.worked(0)
        if first:
            for listener in listeners:
                listener.filled()

    def apply(self, entry: Entry, *, deleted: bool) -> None:
        """Stores one change, then delivers it."""
        self._advance(entry.header.resource_version)
        self._received()
        key = entry.header.key
        old = self.store.remove(key) if deleted else self.store.put(entry)
        self.own_writes.moved(key)
        at = monotonic()
        for change in _removal(key, old, entry, at) if deleted else _changes(key, old, entry, at, initial=False):
            for listener in self._listeners:
                listener.put(change)

    def advance(self, version: str) -> None:
        """Records that there was no change up to this version."""
        self._advance(version)
        self.own_writes.moved()

    def _advance(self, version: str) -> None:
        if version:
            self.version = version
            self.number = version_number(version)

    # The informer's side.

    async def add_index(self, index: Index[Any]) -> None:
        """Adds an index over every object; reads may use it when this returns."""
        self._indexes.append(index)
        await _file(self.store, index)

    def initial(self) -> Iterator[Change]:
        """All objects in the store, for a later subscriber."""
        at = monotonic()
        for entry in list(self.store):
            yield Change(EventType.CREATE, entry.header.key, None, entry, at, initial=True)


async def _file(store: Store, index: Index[Any]) -> None:
    store.start_index(index)
    turn = Turn()
    for key in list(store.keys()):
        store.fill_index(index.name, (key,))
        await turn.worked(0)
    store.finish_index(index.name)


def _difference(old: Store, entries: Sequence[Entry], new: Store, *, first: bool) -> Iterator[Change]:
    at = monotonic()
    for key in [key for key in old.keys() if key not in new]:  # noqa: SIM118 -- iterating a store gives entries
        yield Change(EventType.DELETE, key, old.get(key), None, at, state_unknown=True)
    for entry in entries:
        key = entry.header.key
        yield from _changes(key, old.get(key), entry, at, initial=first)


def _removal(key: ObjectKey, old: Entry | None, last: Entry, at: float) -> Iterator[Change]:
    """Interprets a deletion; None when the object is unknown."""
    if old is not None:
        yield Change(EventType.DELETE, key, last, None, at)


def _changes(key: ObjectKey, old: Entry | None, new: Entry, at: float, *, initial: bool) -> Iterator[Change]:
    """Interprets a new state; a different UID is another object, and the deletion of its predecessor was missed."""
    if old is not None and old.header.uid != new.header.uid:
        yield Change(EventType.DELETE, key, old, None, at, state_unknown=True)
        old = None
    if old is None:
        yield Change(EventType.CREATE, key, None, new, at, initial=initial)
    else:
        yield Change(EventType.UPDATE, key, old, new, at)
