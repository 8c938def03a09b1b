"""Tracks writes of this process that one shard does not contain yet, so that reads can wait for them.

`Api` reports writes through the cache, the shard reports its progress, reads call `concern` and wait on futures;
nothing polls. The floor of a key is the resourceVersion of its last write. Versions of one kind can be compared as
numbers: they are etcd revisions, which only increase. A floor is met when the stored object is as new as the write, or
when the shard has seen any later version (of a watch, everything before it has arrived then, bookmarks included), or
the deleted UID is not the stored one. A floor that times out is late: reads that need it go to the server at once,
without waiting again, until it is met. A list does not wait for objects that it shows neither as they are stored nor as
any of the pending writes left them.

An object that this process wrote and that the shard did not receive although it is past that version is outside the
informer's selector. Reads must not depend on the time of the next bookmark: reads of its key go to the server as long
as the shard does not contain it, and lists do not contain it.

After a write of unknown outcome, reads of its object go to the server (`uncertain_writes`); the version that such a
read returns becomes the floor of later reads.
"""

import asyncio
from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import Final, Protocol, final

from kaito.runtime.cache.entry import Entry, version_number
from kaito.runtime.cache.selection import Selection, Shape
from kaito.runtime.cache.uncertain_writes import UncertainWrites, all_of
from kaito.runtime.errors import may_have_happened
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import ObjectKey, Resource

RESULTS: Final = 8
"""Maximum number of pending writes per key whose results are kept; beyond it, every list waits for the key."""

OUTSIDE_KEYS: Final = 1024
"""Maximum number of keys recorded as outside the selector; reads of older ones return that the object is absent."""

_log = get_logger(__name__)


class Progress(Protocol):
    """The content and the progress of a shard."""

    @property
    def number(self) -> int:
        """The last resourceVersion received, as a number; -1 before the first."""
        ...

    def stored(self, key: ObjectKey) -> Entry | None:
        """The entry of the key."""
        ...

    def shape_of(self, obj: Resource) -> Shape | None:
        """The selectable fields of an object that is not received yet; None when they cannot be computed."""
        ...

    def shows(self, key: ObjectKey, selection: Selection) -> bool:
        """Whether a list with the selection contains the key now."""
        ...


def _future() -> "asyncio.Future[None]":
    return asyncio.get_running_loop().create_future()


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    floor: int
    deleted_uid: str
    future: "asyncio.Future[None]" = field(default_factory=_future)


@dataclass(slots=True)
class _Pending:
    """The writes of one key that the shard does not contain yet."""

    floor: int = -1
    uid: str = ""
    deleted_uid: str = ""
    late: bool = False
    results: list[Shape] | None = field(default_factory=list[Shape])
    """The results of the writes; None when one of them is unknown."""
    waiters: list[_Waiter] = field(default_factory=list[_Waiter])


@dataclass(slots=True)
class Concern:
    """The writes that a read has to wait for, as of its start."""

    flights: "tuple[asyncio.Future[None], ...]"
    keys: dict[ObjectKey, None]
    """Keys with pending writes, in an order that does not depend on hashes, so that the waits of simulations are
    repeatable. Some may not affect the list, which is decided as late as possible."""
    single: ObjectKey | None
    """The key of a single read; None for a list."""
    selection: Selection


@final
class OwnWrites:
    """This process's writes to one shard."""

    def __init__(self, kind: str, progress: Progress) -> None:
        self._kind = kind
        self._progress = progress
        self._enabled = True
        self._flights: dict[ObjectKey, dict[asyncio.Future[None], None]] = {}
        self._pending: dict[ObjectKey, _Pending] = {}
        self._floors: list[tuple[int, ObjectKey]] = []
        self._outside: dict[ObjectKey, None] = {}
        self._uncertain = UncertainWrites()

    # Reported by the client.

    @contextmanager
    def writing(self, key: ObjectKey) -> Generator[None]:
        """Records that a write of the key has begun."""
        flight = _future()
        self._flights.setdefault(key, {})[flight] = None
        try:
            yield
        except BaseException as error:
            if may_have_happened(error):
                self.invalidate(key)
            raise
        finally:
            flights = self._flights[key]
            flights.pop(flight, None)
            if not flights:
                del self._flights[key]
            if not flight.done():
                flight.set_result(None)

    def invalidate(self, key: ObjectKey, *, settled: bool = False) -> None:
        """Records a write of unknown result; `settled` when it is known to be stored."""
        if not settled:
            _log.info("outcome of a write unknown, reads go to the server", kind=self._kind, object=str(key))
        self._uncertain.add(key, settled=settled)

    def record_write(self, key: ObjectKey, resource_version: str, uid: str, result: Resource | None = None) -> None:
        """Records a successful write of this version; one without a change, or one that is visible already, is
        ignored."""
        floor = version_number(resource_version)
        if floor < 0:
            self._disable(resource_version)
        if not self._enabled:
            return
        if self._met(key, floor, ""):  # the watch event may arrive before the response to the write
            if self._progress.stored(key) is None:
                self._mark_outside(key)
            return
        pending = self._pending.setdefault(key, _Pending())
        shape = None if result is None or pending.results is None else self._progress.shape_of(result)
        if shape is None or pending.results is None or len(pending.results) >= RESULTS:
            pending.results = None
        else:
            pending.results.append(shape)
        if floor > pending.floor:
            pending.floor = floor
            pending.uid = uid
            heappush(self._floors, (floor, key))

    def record_deletion(self, key: ObjectKey, uid: str) -> None:
        """Records a completed deletion: reads must not return the UID.

        Ignored when the shard neither contains the UID nor waits for it, because its deletion has been received
        already.
        """
        self._outside.pop(key, None)
        pending = self._pending.get(key)
        stored = self._progress.stored(key)
        if not self._enabled or not (
            (stored is not None and stored.header.uid == uid) or (pending is not None and pending.uid == uid)
        ):
            return
        self._pending.setdefault(key, _Pending()).deleted_uid = uid

    def _disable(self, resource_version: str) -> None:
        if self._enabled:
            _log.warning(
                "resource versions are not numbers: reads of this kind may be older than own writes",
                kind=self._kind,
                resource_version=resource_version,
            )
        self._enabled = False

    # Reported by live reads.

    def require(self, key: ObjectKey, resource_version: str) -> bool:
        """Requires a version that a live read returned for reads of the key; False if versions are not numbers."""
        floor = version_number(resource_version)
        if floor < 0 or not self._enabled:
            return False
        if not self._met(key, floor, ""):
            self._require(key, floor)
        return True

    def record_live_read(self, key: ObjectKey, began: float, found: Resource | None) -> None:
        """Records the result of a live read of the key that began at that time."""
        for settled in self._uncertain.settled(key, key.namespace, began):
            stored = self._progress.stored(settled)
            if found is not None:
                self._require(settled, version_number(found.metadata.resource_version))
            elif stored is not None and self._enabled:
                self._pending.setdefault(settled, _Pending(results=None)).deleted_uid = stored.header.uid

    def record_live_list(self, namespace: str, began: float, resource_version: str) -> None:
        """Records a live list of the namespace (empty: all) that began at that time, at this version."""
        for settled in self._uncertain.settled(None, namespace, began):
            self._require(settled, version_number(resource_version))

    def _require(self, key: ObjectKey, floor: int) -> None:
        """Requires this version for reads of the key, or of every key of the namespace if it has no name."""
        if floor < 0 or not self._enabled:
            return
        if self._met(key, floor, ""):
            if self._progress.stored(key) is None:
                self._mark_outside(key)
            return
        pending = self._pending.setdefault(key, _Pending())
        pending.results = None
        if floor > pending.floor:
            pending.floor = floor
            heappush(self._floors, (floor, key))

    # Reported by the shard.

    def moved(self, key: ObjectKey | None = None) -> None:
        """Records progress of the shard, by a change of `key` or by a bookmark."""
        if key is not None:
            self._record_event(key)
        if not self._pending:
            self._floors.clear()
            return
        while self._floors and self._floors[0][0] <= self._progress.number:
            self._passed(heappop(self._floors)[1])

    def _record_event(self, key: ObjectKey) -> None:
        self._outside.pop(key, None)
        pending = self._pending.get(key)
        if pending is None:
            return
        # A DELETED event at the version of our write means that the write moved the object out of the selector.
        moved_out = self._progress.stored(key) is None and pending.floor == self._progress.number
        self._check(key)
        if moved_out:
            self._mark_outside(key)

    def _passed(self, key: ObjectKey) -> None:
        """Records that the shard passed the floor of a key without an event for it."""
        pending = self._pending.get(key)
        if pending is None:
            return
        self._check(key)
        if key not in self._pending and not pending.deleted_uid and self._progress.stored(key) is None:
            self._mark_outside(key)

    def _mark_outside(self, key: ObjectKey) -> None:
        if not key.name:  # the key of a whole namespace
            return
        self._outside[key] = None
        while len(self._outside) > OUTSIDE_KEYS:
            del self._outside[next(iter(self._outside))]

    def replaced(self, *, went_back: bool = False) -> None:
        """Records a relist; `went_back` when the server's versions are lower than before.

        The server was restored then, earlier writes may not exist any more, and all floors are dropped.
        """
        if went_back:  # etcd was restored from a backup: the server may never reach the floors, and reuses versions
            for pending in self._pending.values():
                pending.floor = -1
                pending.waiters = [replace(waiter, floor=-1) for waiter in pending.waiters]
        for key in [key for key in self._outside if self._progress.stored(key) is not None]:
            del self._outside[key]
        for key in list(self._pending):
            self._passed(key)

    def _check(self, key: ObjectKey) -> None:
        pending = self._pending.get(key)
        if pending is None:
            return
        waiting: list[_Waiter] = []
        for waiter in pending.waiters:
            if not self._met(key, waiter.floor, waiter.deleted_uid):
                waiting.append(waiter)
            elif not waiter.future.done():
                waiter.future.set_result(None)
        pending.waiters = waiting
        if self._met(key, pending.floor, pending.deleted_uid):
            del self._pending[key]

    def _met(self, key: ObjectKey, floor: int, deleted_uid: str) -> bool:
        stored = self._progress.stored(key)
        if deleted_uid and stored is not None and stored.header.uid == deleted_uid:
            return False
        # A watch delivers events in the order of their versions: at a later version, no earlier event is missing.
        return self._progress.number >= floor or (stored is not None and stored.header.version >= floor)

    # Used by reads.

    def concern(self, key: ObjectKey | None, selection: Selection) -> Concern | None:
        """The writes that a read of the key, or a list with the selection, must wait for; None when there are none.

        Writes begun later do not count.
        """
        if not self._flights and not self._pending and not self._uncertain and key not in self._outside:
            return None
        namespace = selection.namespace

        def concerned(keys: Collection[ObjectKey]) -> Iterable[ObjectKey]:
            if key is not None:
                return (each for each in (key, all_of(key.namespace)) if each in keys)
            return (each for each in keys if not namespace or each.namespace == namespace)

        flying = list(concerned(self._flights))
        flights = tuple(flight for each in flying for flight in self._flights[each])
        concern = Concern(flights, dict.fromkeys((*flying, *concerned(self._pending))), key, selection)
        live = key in self._outside or self._uncertain.concern(key, namespace)
        return concern if flights or live or self.misses(concern) else None

    async def wait(self, concern: Concern) -> bool:
        """Waits until the shard contains all writes of the concern; False at once when one of them is late."""
        flights = [flight for flight in concern.flights if not flight.done()]
        if flights:
            await asyncio.wait(flights)
        if self._uncertain.concern(concern.single, concern.selection.namespace):
            return False
        while missing := [key for key in concern.keys if self._matters(key, concern)]:
            for key in missing:
                pending = self._pending.get(key)
                if pending is not None and pending.late:
                    return False
                if pending is not None:
                    await self._shown(pending)
                concern.keys.pop(key, None)
        return concern.single not in self._outside

    def misses(self, concern: Concern) -> bool:
        """Whether the read must still wait: meanwhile a write may have turned out not to affect the list."""
        return any(self._matters(key, concern) for key in concern.keys)

    def _matters(self, key: ObjectKey, concern: Concern) -> bool:
        pending = self._pending.get(key)
        if pending is None or concern.single is not None or not concern.selection.is_narrow:
            return pending is not None
        return (
            pending.results is None
            or any(concern.selection.shows(result) for result in pending.results)
            or self._progress.shows(key, concern.selection)
        )

    @staticmethod
    async def _shown(pending: _Pending) -> None:
        waiter = _Waiter(pending.floor, pending.deleted_uid)
        pending.waiters.append(waiter)
        try:
            await waiter.future
        finally:
            if waiter in pending.waiters:
                pending.waiters.remove(waiter)

    def give_up(self, concern: Concern) -> None:
        """Marks the missing writes as late after the time limit."""
        for key in concern.keys:
            if self._matters(key, concern):
                self._pending[key].late = True
