"""Objects, one resource version counter, and the bounded history that watches resume from.

The writing modules call `create`, `replace` and `remove`; reads and watches look. Guarantees: resource versions
are unique and increase over all resources; a stored object is never mutated; every watcher of a resource sees its
events in order; history beyond the limit is dropped, and `WatchCache.floor` is the version after which it is complete.
Not asynchronous: nothing here awaits, so each call is atomic on the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from kaito.apiserver.wire import Object, encode

Key: TypeAlias = tuple[str, str]
"""Namespace ("" for cluster-scoped objects) and name."""


@dataclass(slots=True, eq=False)
class Stored:
    """One state of one object. `data` is in the storage version and must not be mutated."""

    key: Key
    rv: int
    data: Object
    views: dict[str, Object] = field(default_factory=dict[str, Object])
    """The object as other versions serve it, by apiVersion; filled by the registry."""
    encoded: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """JSON of the views, by apiVersion."""

    @property
    def metadata(self) -> Object:
        """The object's metadata."""
        metadata: Object = self.data["metadata"]
        return metadata

    @property
    def uid(self) -> str:
        """The object's uid."""
        return str(self.metadata.get("uid", ""))


@dataclass(slots=True, eq=False)
class Change:
    """One write: what an object was and what it became."""

    type: str
    """ADDED, MODIFIED or DELETED."""
    rv: int
    stored: Stored
    """The new state; for DELETED the last state carrying the resource version of the deletion."""
    previous: Stored | None
    lines: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """Encoded watch lines shared by all watchers, by apiVersion and event type."""


class Watcher:
    """One subscription to a watch_cache: a buffer of changes and a flag that wakes its reader."""

    def __init__(self) -> None:
        self.pending: deque[Change] = deque()
        self.held: deque[Change] = deque()
        """Changes that lag (fault injection). A watch never reorders: what comes after a held change is held too."""
        self._held_until = 0.0
        self.wake = asyncio.Event()
        self.cut = False
        """Set to end the stream from the server side."""

    def push(self, change: Change, *, lag: float = 0.0) -> None:
        """Delivers a change, `lag` seconds late, and not before those pushed earlier."""
        if lag <= 0 and not self.held:
            self.pending.append(change)
            self.wake.set()
            return
        loop = asyncio.get_running_loop()
        self.held.append(change)
        self._held_until = max(self._held_until, loop.time() + lag)
        loop.call_at(self._held_until, self._release)

    def _release(self) -> None:
        self.pending.append(self.held.popleft())
        self.wake.set()

    def close(self) -> None:
        """Ends the stream after what is pending."""
        self.cut = True
        self.wake.set()


class WatchCache:
    """Everything the server keeps of one resource type."""

    def __init__(self, history: int) -> None:
        self.objects: dict[Key, Stored] = {}
        self.history: deque[Change] = deque(maxlen=history)
        self.floor = 0
        """Watches and exact lists from a lower resource version are answered 410."""
        self.watchers: dict[Watcher, None] = {}
        """In the order of their subscriptions, so that a simulation repeats the order of their events."""
        self._data: dict[Key, Object] | None = None

    @property
    def data(self) -> dict[Key, Object]:
        """The objects without their versions; the same dictionary until the next write. Must not be changed."""
        if self._data is None:
            self._data = {key: stored.data for key, stored in self.objects.items()}
        return self._data

    def replace_all(self, objects: dict[Key, Stored]) -> None:
        """Replaces all objects without a history."""
        self.objects = objects
        self._data = None

    def record(self, change: Change) -> None:
        """Appends a change to the history, forgetting the oldest beyond the limit."""
        if len(self.history) == self.history.maxlen:
            self.floor = self.history[0].rv
        self.history.append(change)
        self._data = None

    def expire(self, rv: int) -> None:
        """Forgets all history up to and including a resource version."""
        while self.history and self.history[0].rv <= rv:
            self.history.popleft()
        self.floor = max(self.floor, rv)

    def since(self, rv: int) -> list[Change]:
        """Returns the changes after a resource version."""
        return [change for change in self.history if change.rv > rv]


Listener: TypeAlias = Callable[[str, Change], None]
"""Called after each write with the storage name of the resource and the change."""
Delivery: TypeAlias = Callable[[str, Change], float | None]
"""Returns when watchers get a change: seconds to hold it back, or None to lose it."""


@dataclass(frozen=True, slots=True)
class Backup:
    """The objects of a store at a resource version."""

    rv: int
    objects: dict[str, dict[Key, Stored]]
    """By storage name."""


class Store:
    """All watch_caches and the counter."""

    def __init__(self, history: int) -> None:
        self._history = history
        self._watch_caches: dict[str, WatchCache] = {}
        self.rv = 1
        """The newest resource version given out."""
        self.listeners: list[Listener] = []
        self.delivery: Delivery = lambda _storage, _change: 0.0

    def watch_cache(self, storage: str) -> WatchCache:
        """Returns the watch_cache of a resource type, made on first use."""
        found = self._watch_caches.get(storage)
        if found is None:
            found = self._watch_caches[storage] = WatchCache(self._history)
            found.floor = 0
        return found

    def watch_caches(self) -> list[tuple[str, WatchCache]]:
        """Returns all watch_caches with their storage names."""
        return list(self._watch_caches.items())

    def get(self, storage: str, key: Key) -> Stored | None:
        """Returns the current state of an object, or None."""
        return self.watch_cache(storage).objects.get(key)

    def create(self, storage: str, key: Key, data: Object) -> Stored:
        """Stores a new object; `data` becomes the store's and gets its resource version."""
        stored = self._stamp(key, data)
        self.watch_cache(storage).objects[key] = stored
        self._publish(storage, Change("ADDED", stored.rv, stored, None))
        return stored

    def replace(self, storage: str, previous: Stored, data: Object) -> Stored:
        """Stores the next state of an object."""
        stored = self._stamp(previous.key, data)
        self.watch_cache(storage).objects[previous.key] = stored
        self._publish(storage, Change("MODIFIED", stored.rv, stored, previous))
        return stored

    def remove(self, storage: str, previous: Stored, data: Object | None = None) -> Stored:
        """Forgets an object; watchers see `data` (default: its last state) with the deletion's resource version."""
        final = dict(previous.data if data is None else data)
        final["metadata"] = dict(final["metadata"])
        stored = self._stamp(previous.key, final)
        del self.watch_cache(storage).objects[previous.key]
        self._publish(storage, Change("DELETED", stored.rv, stored, previous))
        return stored

    def drop(self, storage: str) -> None:
        """Removes a resource type whose definition was deleted, and ends its watches."""
        watch_cache = self._watch_caches.pop(storage, None)
        if watch_cache is not None:
            for watcher in list(watch_cache.watchers):
                watcher.close()

    def backup(self) -> Backup:
        """Returns the objects as they are now."""
        return Backup(
            self.rv, {storage: dict(watch_cache.objects) for storage, watch_cache in self._watch_caches.items()}
        )

    def restore(self, backup: Backup) -> None:
        """Restores a backup: its objects and its resource version, without history and open watches.

        Listeners are not called.
        """
        self.rv = backup.rv
        for storage in self._watch_caches | backup.objects:
            watch_cache = self.watch_cache(storage)
            watch_cache.replace_all(dict(backup.objects.get(storage, {})))
            watch_cache.history.clear()
            watch_cache.floor = backup.rv
            for watcher in watch_cache.watchers:
                watcher.close()
            watch_cache.watchers.clear()

    def _stamp(self, key: Key, data: Object) -> Stored:
        self.rv += 1
        data["metadata"]["resourceVersion"] = str(self.rv)
        return Stored(key, self.rv, data)

    def _publish(self, storage: str, change: Change) -> None:
        watch_cache = self.watch_cache(storage)
        watch_cache.record(change)
        delay = self.delivery(storage, change)
        if delay is not None:
            for watcher in watch_cache.watchers:
                watcher.push(change, lag=delay)
        for listener in self.listeners:
            listener(storage, change)


def watch_line(event_type: str, body: bytes) -> bytes:
    """Returns one line of a watch stream."""
    return b'{"type":"' + event_type.encode() + b'","object":' + body + b"}\n"


def encode_view(stored: Stored, api_version: str, view: Object) -> bytes:
    """Returns the JSON of a view of a stored object, encoded once."""
    found = stored.encoded.get(api_version)
    if found is None:
        found = stored.encoded[api_version] = encode(view)
    return found
