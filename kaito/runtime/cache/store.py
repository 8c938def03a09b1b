"""The objects of one informer: by key, by namespace, by owner and by declared index.

Plain dictionaries on the event loop: no method awaits, so that reads are consistent. The shard writes it, cache and
view read it. It counts the bytes that it holds.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, cast, final
from weakref import WeakKeyDictionary

from kaito.runtime.cache.entry import Entry, decode
from kaito.runtime.cache.index import Index
from kaito.runtime.cache.labels import LabelTables
from kaito.runtime.client.consistency import IndexKey
from kaito.runtime.errors import ConfigurationError, UnreadableObject
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import LabelSelector, ObjectKey, Resource

_log = get_logger(__name__)

_UNFILED = "\x00unfiled"
"""The index value of objects whose index function failed; it is unequal to every real value, which comes from JSON."""


class _Table:
    """The keys of each value of one index, and the values of each key."""

    __slots__ = ("_ordered", "index", "keys", "values")

    def __init__(self, index: Index[Any]) -> None:
        self.index = index
        self.keys: dict[str, set[ObjectKey]] = {}
        self.values: dict[ObjectKey, tuple[str, ...]] = {}
        self._ordered: list[str] | None = None

    def file(self, key: ObjectKey, values: tuple[str, ...]) -> None:
        self.drop(key)
        if values:
            self.values[key] = values
            for value in values:
                keys = self.keys.get(value)
                if keys is None:
                    self.keys[value] = {key}
                    self._ordered = None
                else:
                    keys.add(key)

    def drop(self, key: ObjectKey) -> None:
        for value in self.values.pop(key, ()):
            keys = self.keys.get(value)
            if keys is not None:
                keys.discard(key)
                if not keys:
                    del self.keys[value]
                    self._ordered = None

    def answer(self, question: IndexKey[Any]) -> Collection[ObjectKey]:
        """The keys that a query selects; for a `notin` query, the keys to leave out."""
        values = self._beginning_with(question.values) if question.match == "prefix" else question.values
        if len(values) == 1:
            return self.keys.get(values[0], ())
        return {key for value in values for key in self.keys.get(value, ())}

    def _beginning_with(self, prefixes: Sequence[str]) -> Sequence[str]:
        if self._ordered is None:
            self._ordered = sorted(self.keys)
        found: list[str] = []
        for prefix in prefixes:
            first = bisect_left(self._ordered, prefix)
            last = bisect_right(self._ordered, prefix, lo=first, key=itemgetter(slice(len(prefix))))
            found += self._ordered[first:last]
        return found


@final
class Store:
    """Entries and their indexes."""

    def __init__(self, indexes: Iterable[Index[Any]] = (), *, metadata_only: bool = False) -> None:
        self._metadata_only = metadata_only
        self._entries: dict[ObjectKey, Entry] = {}
        self._namespaces: dict[str, dict[ObjectKey, None]] = {}
        self._owners: dict[str, set[ObjectKey]] = {}
        self._tables = {index.name: _Table(index) for index in indexes}
        self._unfinished: dict[str, _Table] = {}
        self._labels = LabelTables()
        self._memories: WeakKeyDictionary[object, dict[ObjectKey, Any]] = WeakKeyDictionary()
        self._changes: WeakKeyDictionary[object, dict[ObjectKey, None]] = WeakKeyDictionary()
        self.size: int = 0
        """Bytes of JSON text held."""

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def keys(self) -> Iterable[ObjectKey]:
        """Every key."""
        return self._entries.keys()

    def get(self, key: ObjectKey) -> Entry | None:
        """The entry of the key."""
        return self._entries.get(key)

    def put(self, entry: Entry) -> Entry | None:
        """Stores the entry and returns the former one of its key."""
        key = entry.header.key
        old = self._entries.get(key)
        if old is None:
            self._namespaces.setdefault(key.namespace, {})[key] = None
            self._mark(key)
        else:
            self.size -= len(old.text)
            self._disown(old)
            if not _is_same_version(old, entry):
                self._forget(key)
        self._entries[key] = entry
        self.size += len(entry.text)
        for owner in entry.header.owners:
            self._owners.setdefault(owner.uid, set()).add(key)
        self._labels.put(key, None if old is None else old.header.labels, entry.header.labels)
        decoded: dict[type[Resource], Resource] = {}
        for table in (*self._tables.values(), *self._unfinished.values()):
            table.file(key, self._values(table.index, entry, decoded))
        return old

    def remove(self, key: ObjectKey) -> Entry | None:
        """Removes the key and returns its entry."""
        old = self._entries.pop(key, None)
        if old is None:
            return None
        self.size -= len(old.text)
        namespace = self._namespaces[key.namespace]
        del namespace[key]
        if not namespace:
            del self._namespaces[key.namespace]
        self._disown(old)
        self._labels.put(key, old.header.labels, None)
        self._forget(key)
        for table in (*self._tables.values(), *self._unfinished.values()):
            table.drop(key)
        return old

    def _disown(self, entry: Entry) -> None:
        for owner in entry.header.owners:
            keys = self._owners.get(owner.uid)
            if keys is not None:
                keys.discard(entry.header.key)
                if not keys:
                    del self._owners[owner.uid]

    def _values(self, index: Index[Any], entry: Entry, decoded: dict[type[Resource], Resource]) -> tuple[str, ...]:
        """The values of an entry; `decoded` holds the object for further indexes of its class."""
        try:
            obj = decoded.get(index.kind)
            if obj is None:
                obj = decoded[index.kind] = decode(entry, index.kind, metadata_only=self._metadata_only)
            return _listed(index.values(obj))
        except Exception as error:  # noqa: BLE001 -- foreign code: the object must stay readable by key
            _log.warning(
                "object not filed, lists by this index will fail",
                index=index.name,
                kind=index.kind.kind,
                object=str(entry.header.key),
                error=f"{type(error).__name__}: {error}" if isinstance(error, _WrongValues) else type(error).__name__,
            )
            return (_UNFILED,)

    def files(self, key: ObjectKey, question: IndexKey[Any]) -> bool:
        """Whether the key is in the result; True if unknown."""
        table = self._tables.get(question.name)
        values = () if table is None else table.values.get(key, ())
        return table is None or values == (_UNFILED,) or question.answered_by(values)

    # Values that readers computed from entries.

    def memory(self, holder: object) -> dict[ObjectKey, Any]:
        """What a holder remembers of the entries, by key. The value of a key is dropped when its entry is replaced by
        another version, or removed."""
        return self._memories.setdefault(holder, {})

    def changes(self, holder: object) -> dict[ObjectKey, None]:
        """The keys that were added, changed or removed since the holder took them out of this dictionary; at first
        every key."""
        found = self._changes.get(holder)
        if found is None:
            found = self._changes[holder] = dict.fromkeys(self._entries)
        return found

    def inherit_memories(self, former: "Store") -> None:
        """Takes over the values of the entries that this store holds in the same version, and the open changes."""
        same = {key for key, entry in self._entries.items() if _is_same_version(former._entries.get(key), entry)}
        for holder, values in former._memories.items():
            self._memories[holder] = {key: value for key, value in values.items() if key in same}
        differing = [key for key in {**former._entries, **self._entries} if key not in same]
        for holder, changed in former._changes.items():
            self._changes[holder] = {**changed, **dict.fromkeys(differing)}

    def _forget(self, key: ObjectKey) -> None:
        for values in self._memories.values():
            values.pop(key, None)
        self._mark(key)

    def _mark(self, key: ObjectKey) -> None:
        for changed in self._changes.values():
            changed[key] = None

    # Indexes added later are filled in steps, so that a large store does not block the event loop.

    def has_index(self, name: str) -> bool:
        """Whether an index of that name is complete."""
        return name in self._tables

    def start_index(self, index: Index[Any]) -> None:
        """Begins to fill a new index; reads cannot use it before `finish_index`."""
        self._unfinished[index.name] = _Table(index)

    def fill_index(self, name: str, keys: Iterable[ObjectKey]) -> None:
        """Adds more entries to an unfinished index; keys that were removed meanwhile are skipped."""
        table = self._unfinished[name]
        for key in keys:
            entry = self._entries.get(key)
            if entry is not None:
                table.file(key, self._values(table.index, entry, {}))

    def finish_index(self, name: str) -> None:
        """Marks an index as complete: reads may use it."""
        self._tables[name] = self._unfinished.pop(name)

    # Reading.

    def unfiled(self, name: str) -> Collection[ObjectKey]:
        """Keys of the objects on which an index function failed: lists by the index may miss them."""
        table = self._tables.get(name)
        return () if table is None else table.keys.get(_UNFILED, ())

    def select(
        self,
        *,
        namespace: str = "",
        owner: str = "",
        index: IndexKey[Any] | None = None,
        labels: LabelSelector | None = None,
        with_unfiled: bool = False,
    ) -> Iterator[Entry]:
        """Entries in the namespace (empty: all), owned by that UID, selected by the index query; in no order.

        `labels` may leave out entries that do not match; callers compare the others. `with_unfiled` adds those on which
        the index function failed, which could be in the result.

        Raises:
            ConfigurationError: no such index.
            UnreadableObject: the index function failed on objects, so the result could miss one.
        """
        keys: Iterable[ObjectKey]
        if index is not None:
            keys = self._filed(index, with_unfiled=with_unfiled)
            if owner:
                keys = [key for key in keys if key in self._owners.get(owner, ())]
        elif owner:
            keys = self._owners.get(owner, ())
        else:
            labeled = None if labels is None else self._labeled(labels)
            local = self._namespaces.get(namespace, {}) if namespace else self._entries
            if labeled is None or len(local) <= len(labeled):
                return (self._entries[key] for key in local)
            keys = labeled
        return (self._entries[key] for key in keys if not namespace or key.namespace == namespace)

    def _labeled(self, selector: LabelSelector) -> Collection[ObjectKey] | None:
        every = ((key, entry.header.labels) for key, entry in self._entries.items())
        return self._labels.candidates(selector, len(self._entries), every)

    def _filed(self, question: IndexKey[Any], *, with_unfiled: bool) -> Iterable[ObjectKey]:
        name = question.name
        table = self._tables.get(name)
        if table is None:
            raise ConfigurationError(f"no index named {name!r} is declared: add it to Cached(..., indexes=[...])")
        unfiled = self.unfiled(name)
        if unfiled and not with_unfiled:
            some = ", ".join(map(str, sorted(unfiled)[:3]))
            raise UnreadableObject(
                f"{len(unfiled)} objects of {table.index.kind.kind} could not be filed by index {name!r} "
                f"(the object does not fit its model, or the index function failed on it): {some}"
            )
        answer = table.answer(question)
        if question.match == "notin":
            return [key for key in self._entries if key not in answer]
        return {*answer, *unfiled} if unfiled else answer


def _is_same_version(one: Entry | None, other: Entry | None) -> bool:
    if one is None or other is None:
        return False
    before, after = one.header, other.header
    return before.uid == after.uid and before.resource_version == after.resource_version != ""


class _WrongValues(TypeError):
    """An index function did not return a list of texts."""


def _listed(values: object) -> tuple[str, ...]:
    """Checks the result of an index function; a single string would be indexed letter by letter."""
    if isinstance(values, str):
        message = "the index function returned one text: return a list of texts"
        raise _WrongValues(message)
    return tuple(cast("Iterable[str]", values))
