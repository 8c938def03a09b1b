"""Keeps a shard equal to a collection on the server: lists it, watches it, and relists when the watch cannot continue.

The protocol is that of client-go's reflector, written for asyncio: a watch with initial events (WatchList) or a paged
LIST, then a WATCH from that version, resumed as long as the server has the history. One reflector per informer and
namespace; its task ends only by cancellation. It never raises errors of the cluster: it records them in `error`, waits,
and retries, because RBAC may be granted and CRDs installed after an operator starts.
"""

import asyncio
import random
from functools import partial
from typing import Final, NoReturn, Protocol, final

import msgspec

from kaito.runtime.cache.entry import Entry, Undecodable, version_number
from kaito.runtime.cache.jsontext import Raw
from kaito.runtime.cache.reflector.collection import Collection, event_error, version_too_large
from kaito.runtime.cache.reflector.listing import ANY_VERSION, NEWEST, Lister
from kaito.runtime.cache.reflector.newest import Meta, fetch_newest
from kaito.runtime.cache.reflector.reconnect import Ending, ReconnectDelay
from kaito.runtime.cache.reflector.requests import Requests
from kaito.runtime.cache.reflector.watch import Frame, Take, WatchStream
from kaito.runtime.cache.stats import KindStats
from kaito.runtime.cache.store import Store
from kaito.runtime.clock import monotonic
from kaito.runtime.errors import ApiError, Gone, KaitoRuntimeError, TransportError
from kaito.runtime.logging import get_logger
from kaito.runtime.tasks import TaskScope

WATCH_SECONDS: Final = (300, 600)
"""Range of `timeoutSeconds`, drawn per watch, so that servers do not get all reconnects at once (client-go)."""

STALL_SECONDS: Final = 180.0
"""Silence after which a connection is closed if its server has sent bookmarks, which it does about every minute."""

VERSION_CHECK_DELAY_SECONDS: Final = (2, 10)
"""Range of the random delay before the newest version is requested after a long silence: all watches of a lost
connection fall silent at the same time."""

QUESTION_SECONDS: Final = 30.0
"""Time limit of such a request."""

GRACE_SECONDS: Final = 5.0
"""Silence beyond `timeoutSeconds` that is tolerated from a server that never sent a bookmark."""

FILL_STALL_SECONDS: Final = 30.0
"""Time without a further object before the end bookmark of a filling stream, which means that the server does not
support WatchList. It treats the request as an ordinary watch and never sends the end bookmark."""

REOPEN_SECONDS: Final = 1.0
"""Minimum interval between watches: some servers and proxies close every stream at once."""

_END_OF_INITIAL_EVENTS = "k8s.io/initial-events-end"

_log = get_logger(__name__)


class Sink(Protocol):
    """Receives the objects and changes of a reflector."""

    @property
    def version(self) -> str:
        """The last resourceVersion received, empty before the first fill."""
        ...

    def admit(self, text: Raw) -> Entry:
        """The entry of an object. Raises `Undecodable`."""
        ...

    def fresh(self) -> Store:
        """An empty store with the shard's indexes."""
        ...

    async def replace(self, store: Store, version: str) -> None:
        """Replaces the store and delivers the differences to the handlers."""
        ...

    def apply(self, entry: Entry, *, deleted: bool) -> None:
        """Stores an added, modified or deleted object."""
        ...

    def advance(self, version: str) -> None:
        """Records that there was no change up to this version."""
        ...


class _Bookmark(msgspec.Struct):
    metadata: Meta


_BOOKMARK = msgspec.json.Decoder(_Bookmark)


@final
class Reflector:
    """Mirrors one collection into one sink.

    Args:
        name: The kind, and the namespace if there is one, for logs.
        requests: The network.
        collection: The collection to mirror.
        sink: Receives objects and changes.
        stats: Counters of the kind.
        rng: Randomness of waits and watch lengths.
        streaming: Fill by WatchList while the server knows it.
        relist_seconds: Interval of a periodic relist (±10 %); 0 is never.
    """

    def __init__(
        self,
        name: str,
        requests: Requests,
        collection: Collection,
        sink: Sink,
        stats: KindStats,
        *,
        rng: random.Random,
        streaming: bool = True,
        relist_seconds: float = 0.0,
    ) -> None:
        self._name = name
        self._requests = requests
        self._collection = collection
        self._sink = sink
        self._stats = stats
        self._rng = rng
        self._delay = ReconnectDelay(rng)
        self._lister = Lister(requests, collection, fresh=sink.fresh, admit=self._admit)
        self._streaming = streaming
        self._relist_seconds = relist_seconds
        self._relist_at = float("inf")
        self._bookmarks = False
        self._version_lost = False
        self._reason = ""
        self._last_open = float("-inf")
        self._watch_seconds = WATCH_SECONDS[0]
        self._version_requested_at = float("-inf")
        self._stalled = False
        self.error: Exception | None = None
        """The last list or watch error, until one succeeds."""
        self.watching: bool = False
        """Whether a watch is open."""
        self.last_received: float = float("-inf")
        """When the server last sent an object, a bookmark or a list, on the loop's clock. An accepted watch does not
        count, because a watch on which nothing arrives is accepted as well."""

    @property
    def quiet_seconds(self) -> float:
        """Seconds that a healthy server may send nothing on the open watch; 0 while none is open."""
        if not self.watching:
            return 0.0
        stall = STALL_SECONDS if self._bookmarks else self._watch_seconds + GRACE_SECONDS
        return stall + QUESTION_SECONDS

    async def run(self) -> NoReturn:
        """Mirror the collection until cancelled."""
        self._reason = "start"
        while True:
            self._relist_at = float("inf")
            ending = await self._fill()
            while ending is None or not ending.relist:
                if ending is not None:
                    await self._between(ending)
                ending = await self._watch()
            await self._between(ending)
            self._reason = ending.reason

    # Filling.

    async def _fill(self) -> Ending | None:
        """Fills the store, retrying until it succeeds; returns the ending of the stream if one was used and has
        ended."""
        while True:
            try:
                if self._streaming:
                    filled, ending = await self._fill_by_stream()
                    if filled:
                        return ending
                version = NEWEST if self._version_lost else self._sink.version or ANY_VERSION
                await self._filled(*await self._lister.list(version))
            except (ApiError, TransportError, Undecodable) as error:
                await self._failed(error)
            else:
                return None

    async def _filled(self, store: Store, version: str) -> None:
        self.error = None
        self.last_received = monotonic()
        self._version_lost = False
        if self._relist_seconds:
            self._relist_at = self.last_received + self._relist_seconds * (0.9 + self._rng.random() / 5)
        if self._reason != "start":
            self._stats.relists[self._reason] += 1
        await self._sink.replace(store, version)

    async def _fill_by_stream(self) -> tuple[bool, Ending | None]:
        """Whether a stream filled the store, and how that stream ended; if it did not, the caller uses LIST.

        Raises:
            ApiError, TransportError: the server is unavailable or busy; to be retried later.
        """
        while True:
            initial = _InitialEvents(self._sink.fresh())
            version = NEWEST if self._version_lost else self._sink.version
            try:
                ending = await self._stream(
                    self._collection.stream_target(version=version, seconds=self._length()),
                    partial(self._take_initial, initial),
                    initial,
                )
            except ApiError as error:
                if error.code in {401, 429}:
                    raise
                if (isinstance(error, Gone) or version_too_large(error)) and version:
                    self._version_lost = True
                    continue
                if error.code in {400, 422}:
                    self._give_up_streaming(str(error))
                return False, None
            if initial.complete:
                return True, ending
            match ending:
                case Ending.STALLED:
                    self._give_up_streaming(
                        f"no end of the initial events and no further object for {FILL_STALL_SECONDS:g} s"
                    )
                case Ending.BROKEN | Ending.RESET | Ending.THROTTLED | Ending.UNAUTHORIZED:
                    raise self.error if isinstance(self.error, KaitoRuntimeError) else TransportError(ending.reason)
                case Ending.EXPIRED | Ending.FAILED if version and self._is_version_lost():
                    self._version_lost = True
                    continue
                case _:
                    pass
            return False, None

    def _is_version_lost(self) -> bool:
        """Whether the last error concerns the requested version: expired, or not reached yet."""
        return isinstance(self.error, Gone) or (isinstance(self.error, ApiError) and version_too_large(self.error))

    def _give_up_streaming(self, why: str) -> None:
        self._streaming = False
        _log.info("the server cannot stream lists, using LIST", collection=self._name, why=why)

    async def _take_initial(self, initial: "_InitialEvents", frame: Frame) -> Ending | None:
        """Handles a frame of a stream with initial events; after the end bookmark it is an ordinary watch."""
        if initial.complete:
            return await self._take(frame)
        match frame.type:
            case "ADDED" | "MODIFIED" | "DELETED":
                self.last_received = monotonic()
                self._stats.events[frame.type] += 1
                entry = self._admit(frame.object)
                if entry is not None:
                    initial.put(entry, deleted=frame.type == "DELETED")
                return None
            case "BOOKMARK":
                bookmark = self._bookmark(frame)
                if bookmark is None:
                    return Ending.MALFORMED
                if (bookmark.annotations or {}).get(_END_OF_INITIAL_EVENTS) == "true":
                    initial.complete = True
                    await self._filled(initial.store, bookmark.resource_version)
                return None
            case _:
                return await self._take(frame)

    def _admit(self, text: Raw) -> Entry | None:
        try:
            return self._sink.admit(text)
        except Undecodable as error:
            self._stats.undecodable += 1
            _log.warning("object skipped", collection=self._name, error=str(error))
            return None

    # Watching.

    async def _watch(self) -> Ending:
        target = self._collection.watch_target(version=self._sink.version, seconds=self._length())
        silent = self._bookmarks and monotonic() - max(self.last_received, self._version_requested_at) >= STALL_SECONDS
        doubtful, self._stalled = self._stalled or silent, False
        try:
            ending = await self._stream(target, self._take, doubtful=doubtful)
        except ApiError as error:
            self.error = error
            return _ending_of(error)
        self._stalled = ending is Ending.STALLED
        if ending is Ending.CLOSED and not self._bookmarks:
            self.last_received = monotonic()  # it ended in time, the only sign of progress without bookmarks
        return ending

    async def _check_version(self, stream: WatchStream) -> None:
        """Requests the server's newest version, and ends the stream if it is lower than ours."""
        await asyncio.sleep(self._rng.uniform(*VERSION_CHECK_DELAY_SECONDS))
        self._version_requested_at = monotonic()
        newest = await fetch_newest(self._requests, self._collection, streaming=self._streaming)
        if 0 <= version_number(newest.version) < version_number(self._sink.version):
            self._went_back(newest.version)
            stream.give_up(Ending.EXPIRED)
        elif newest.delivered:
            self.last_received = monotonic()

    def _went_back(self, version: str) -> None:
        self.error = ValueError(f"the server is at {version}, before {self._sink.version}")
        self._version_lost = True
        _log.warning("server restored from an older state, listing again", collection=self._name, version=version)

    async def _stream(
        self, target: str, take: Take, initial: "_InitialEvents | None" = None, *, doubtful: bool = False
    ) -> Ending:
        def silence() -> float:
            if initial is not None and not initial.complete:
                return max(0.0, initial.progressed + FILL_STALL_SECONDS - monotonic())
            stall = STALL_SECONDS if self._bookmarks else self._watch_seconds + GRACE_SECONDS
            return max(0.0, min(stall, self._relist_at - monotonic()))

        def opened() -> None:
            self.watching = True
            if initial is None:
                self.error = None

        self._last_open = monotonic()
        stream = WatchStream(self._requests, target, self._collection, silence=silence, take=take, opened=opened)
        try:
            async with TaskScope(f"watch.{self._name}") as scope:
                if doubtful:
                    scope.spawn(self._check_version(stream), name="check-version")
                ending = await stream.run()
        finally:
            self.watching = False
        if stream.error is not None:
            self.error = stream.error
        if ending is Ending.STALLED and monotonic() >= self._relist_at:
            self._version_lost = True  # Requests the newest version, not any that the server has cached.
            return Ending.PERIODIC
        return ending

    def _length(self) -> int:
        self._watch_seconds = self._rng.randrange(*WATCH_SECONDS)
        return self._watch_seconds

    async def _take(self, frame: Frame) -> Ending | None:
        match frame.type:
            case "ADDED" | "MODIFIED" | "DELETED":
                self.last_received = monotonic()
                self._stats.events[frame.type] += 1
                entry = self._admit(frame.object)
                if entry is not None:
                    self._sink.apply(entry, deleted=frame.type == "DELETED")
                return None if monotonic() < self._relist_at else Ending.STALLED
            case "BOOKMARK":
                bookmark = self._bookmark(frame)
                return Ending.MALFORMED if bookmark is None else self._advance(bookmark.resource_version)
            case "ERROR":
                error = event_error(frame.object, request=f"watch of {self._name}")
                self.error = error
                self._stats.events["ERROR"] += 1
                return _ending_of(error)
            case unknown:
                self.error = ValueError(f"watch of {self._name}: unknown event type {unknown!r}")
                return Ending.MALFORMED

    def _bookmark(self, frame: Frame) -> Meta | None:
        self._stats.events["BOOKMARK"] += 1
        self._bookmarks = True
        try:
            metadata = _BOOKMARK.decode(frame.object).metadata
        except msgspec.DecodeError as error:
            self.error = ValueError(f"watch of {self._name}: not a bookmark: {error}")
            return None
        self.last_received = monotonic()
        return metadata

    def _advance(self, version: str) -> Ending | None:
        if 0 <= version_number(version) < version_number(self._sink.version):
            # After a restore from a backup, the server sends nothing until it reaches our version again.
            self._went_back(version)
            return Ending.EXPIRED
        self._sink.advance(version)
        return None

    # Between attempts.

    async def _failed(self, error: Exception) -> None:
        self.error = error
        wait = self._delay.next(monotonic(), at_least=_retry_after(error))
        _log.warning("list failed", collection=self._name, error=str(error), retry_in_seconds=round(wait, 1))
        await asyncio.sleep(wait)

    async def _between(self, ending: Ending) -> None:
        self._stats.restarts[ending.reason] += 1
        spacing = max(0.0, self._last_open + REOPEN_SECONDS - monotonic())
        wait = spacing
        if ending.pause:
            wait = self._delay.next(monotonic(), at_least=max(_retry_after(self.error), spacing))
            # Normal for kinds that are not in the API server's watch cache, such as Event: it sends no bookmarks, so
            # that the version of a quiet watch is compacted away after some minutes.
            log = _log.info if ending.reason == "expired" else _log.warning
            log(
                "watch ended",
                collection=self._name,
                reason=ending.reason,
                error=str(self.error or ""),
                relist=ending.relist,
                retry_in_seconds=round(wait, 1),
            )
        else:
            _log.debug("watch ended", collection=self._name, reason=ending.reason)
        if wait > 0:
            await asyncio.sleep(wait)


class _InitialEvents:
    """The initial state received from a stream so far."""

    __slots__ = ("complete", "progressed", "store")

    def __init__(self, store: Store) -> None:
        self.store = store
        self.complete = False
        self.progressed = monotonic()
        """Time at which the last new object was received."""

    def put(self, entry: Entry, *, deleted: bool) -> None:
        if deleted:
            self.store.remove(entry.header.key)
        elif self.store.put(entry) is None:
            self.progressed = monotonic()


def _ending_of(error: ApiError) -> Ending:
    return {410: Ending.EXPIRED, 429: Ending.THROTTLED, 401: Ending.UNAUTHORIZED}.get(error.code, Ending.FAILED)


def _retry_after(error: Exception | None) -> float:
    return (error.retry_after or 0.0) if isinstance(error, ApiError) else 0.0
