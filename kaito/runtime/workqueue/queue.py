"""The priority work queue: one entry per key, ready keys in a FIFO per priority level, delayed keys in a heap.

The sources and workers of one controller share it, on one event loop. It guarantees:

* One worker at a time processes a key. Adds during that time are merged into exactly one more reconcile after `done`.
* A key is queued once: a second add is merged (earlier time, higher priority, causes of both).
* Within a level, keys are handed out in the order in which they became ready. Between levels the higher priority is
  first, but waiting raises the priority of a key (`aging_step`), so that no level starves.
* State changes only between awaits: `get` and `drain` are the only methods that suspend, and both check the whole state
  again afterwards.

The semantics are those of controller-runtime's priority queue, plus aging and causes. Keys that are ready while a
worker still processes them are kept apart, so that a hand-out does not iterate over them (see controller-runtime #3496,
#3538).
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Generic, Literal, NamedTuple, TypeVar, final

from kaito.runtime.clock import monotonic
from kaito.runtime.errors import InvariantError
from kaito.runtime.workqueue.cause import Cause, merge_causes
from kaito.runtime.workqueue.levels import Entry, EntryState, Levels
from kaito.runtime.workqueue.limiter import ExponentialLimiter, RateLimiter
from kaito.runtime.workqueue.stats import QueueStats

K = TypeVar("K", bound=Hashable)

AGING_STEP_SECONDS = 0.6
"""Waiting this long raises the priority by one: a key of the initial list (-100) equals a new one after 60 s."""

HEAP_SLACK = 64
"""Outdated records that the heap may contain, beyond one for each waiting key, before it is rebuilt."""


class Item(NamedTuple, Generic[K]):
    """A key that a worker processes; the worker must call `done(key)` once."""

    key: K
    priority: int
    causes: tuple[Cause, ...]
    attempt: int
    """1 plus the number of failures since the last success."""
    queued_seconds: float
    """Seconds from ready to hand-out."""


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One row of the queue dump."""

    key: str
    state: Literal["waiting", "ready", "parked", "processing"]
    priority: int
    seconds: float
    """Time until ready for waiting keys, else time spent in the state."""
    failures: int
    causes: tuple[Cause, ...]


@final
class WorkQueue(Generic[K]):
    """Keys to reconcile.

    Args:
        name: the controller's name, for metrics and dumps.
        limiter: delays of rate-limited adds; exponential backoff per key by default.
        aging_step: seconds of waiting that raise the priority by one; None for strict priorities, which can starve.
        spacing: minimum seconds between the starts of two reconciles of one key; 0 for none.
        now: clock in seconds; the running loop's by default.
    """

    def __init__(
        self,
        name: str = "",
        *,
        limiter: RateLimiter[K] | None = None,
        aging_step: float | None = AGING_STEP_SECONDS,
        spacing: float = 0.0,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self.name = name
        self.stats: QueueStats = QueueStats()
        self._limiter: RateLimiter[K] = limiter if limiter is not None else ExponentialLimiter[K]()
        self._spacing = spacing
        self._now = now
        self._entries: dict[K, Entry[K]] = {}
        """All queued keys, in any state."""
        self._ready = Levels[K](aging_step)
        self._heap: list[tuple[float, int, Entry[K]]] = []
        """Waiting keys by time; may contain outdated records."""
        self._timers = 0
        self._waiting = 0
        """Number of waiting keys."""
        self._processing: dict[K, tuple[float, Item[K]]] = {}
        """Time of hand-out and item of each key that a worker processes."""
        self._started: OrderedDict[K, float] = OrderedDict()
        """Last start of each key within `spacing`, oldest first."""
        self._not_before: dict[K, float] = {}
        """Earliest next start of delayed keys; see `delay`."""
        self._getters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._closed = False
        self._drained: asyncio.Event | None = None

    # -- adding ------------------------------------------------------------------------------------------------------

    def add(
        self,
        key: K,
        *,
        priority: int = 0,
        after: float = 0.0,
        rate_limited: bool = False,
        cause: Cause | None = None,
    ) -> None:
        """Queues the key, or merges with its entry: the earlier time, the higher priority, the causes of both.

        Args:
            key: the key to reconcile.
            priority: the higher is handed out first; the initial list has -100. A higher priority moves a ready key to
                the end of its new level; a lower one has no effect.
            after: seconds until ready. A ready key stays ready; a waiting key that is added without a delay becomes
                ready at once.
            rate_limited: count a failure and use the limiter's delay (with `after`: the shorter of the two).
            cause: why, for log, trace and dump.
        """
        if self._closing:
            return
        if rate_limited:
            limit = self._limiter.when(key)
            after = min(after, limit) if after > 0 else limit
        now = self._now()
        self._promote(now)  # keys that became due earlier must be ready before this one
        after = max(after, self._earliest(key, now) - now)
        if after > 0:
            self.stats.retries += 1
        entry = self._entries.get(key)
        if entry is None:
            entry = Entry(key, priority, now + after, () if cause is None else (cause,))
            self._entries[key] = entry
            if after > 0:
                self._waiting += 1
                self._wait(entry, now)
            else:
                self._make_ready(entry)
            return
        if cause is not None:
            entry.causes = merge_causes(entry.causes, (cause,))
        if priority > entry.priority:
            if entry.state is EntryState.READY:
                self._ready.raise_priority(entry, priority)
            else:
                entry.priority = priority
        if entry.state is EntryState.WAITING and now + after < entry.ready_at:
            entry.ready_at = now + after
            if after > 0:
                self._wait(entry, now)
            else:
                self._waiting -= 1
                self._make_ready(entry)

    def _earliest(self, key: K, now: float) -> float:
        """The earliest time at which a reconcile of the key may start."""
        earliest = self._not_before.get(key, now)
        return max(earliest, self._started[key] + self._spacing) if key in self._started else earliest

    def _wait(self, entry: Entry[K], now: float) -> None:
        # A moved key leaves its old record in the heap, where `_is_current` skips it; removal from the middle of a heap
        # would be linear. Rebuilding when most records are outdated keeps memory proportional to the waiting keys.
        if len(self._heap) > 2 * self._waiting + HEAP_SLACK:
            self._heap = [record for record in self._heap if self._is_current(record)]
            heapify(self._heap)
        self._timers += 1  # tie-breaker: keys with equal times become ready in the order of their adds
        heappush(self._heap, (entry.ready_at, self._timers, entry))
        self._arm(now)

    def _make_ready(self, entry: Entry[K]) -> None:
        self.stats.adds += 1
        if entry.key in self._processing:
            entry.state = EntryState.PARKED
        else:
            self._ready.push(entry)
            self._wake()

    # -- time --------------------------------------------------------------------------------------------------------

    @staticmethod
    def _is_current(record: tuple[float, int, Entry[K]]) -> bool:
        ready_at, _, entry = record
        return entry.state is EntryState.WAITING and entry.ready_at == ready_at

    def _promote(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            record = heappop(self._heap)
            if self._is_current(record):
                self._waiting -= 1
                self._make_ready(record[2])

    def _arm(self, now: float) -> None:
        """Sets a timer for the next waiting key, but only while a worker waits: otherwise `take` promotes it."""
        if not self._getters or not self._heap:
            return
        due = self._heap[0][0]
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + (due - now):
                return
            self._timer.cancel()
        self._timer = loop.call_later(max(0.0, due - now), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._now()
        self._promote(now)
        self._arm(now)

    # -- handing out -------------------------------------------------------------------------------------------------

    async def get(self) -> Item[K] | None:
        """Waits for the next key; None when the queue is closed. The caller must call `done` for it."""
        while not self._closed:
            item = self.take()
            if item is not None or self._closing:
                return item
            getter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            self._arm(self._now())
            try:
                await getter
            except asyncio.CancelledError:
                with suppress(ValueError):  # `_wake` has removed it already
                    self._getters.remove(getter)
                if not getter.cancelled():
                    self._wake()  # this getter was woken and then cancelled: without passing it on, the wake-up is lost
                raise
        return None

    def take(self) -> Item[K] | None:
        """The next key if one is ready, else None. The caller must call `done` for it."""
        now = self._now()
        self._promote(now)
        entry = self._ready.pop(now)
        if entry is None:
            return None
        key = entry.key
        del self._entries[key]
        if self._spacing:
            self._remember_start(key, now)
        queued_seconds = max(0.0, now - entry.ready_at)
        self.stats.queue_duration.observe(queued_seconds)
        item = Item(key, entry.priority, entry.causes, self._limiter.failures(key) + 1, queued_seconds)
        self._processing[key] = (now, item)
        return item

    def _remember_start(self, key: K, now: float) -> None:
        self._started.pop(key, None)  # so that the key moves to the end: the order is by time of start
        self._started[key] = now
        while next(iter(self._started.values())) <= now - self._spacing:
            self._started.popitem(last=False)

    def done(self, key: K) -> None:
        """Ends the processing of a key; it is ready again if it was added during that time.

        Raises:
            InvariantError: the key is not being processed.
        """
        processing = self._processing.pop(key, None)
        if processing is None:
            message = f"queue {self.name}: done({key}) without a matching get"
            raise InvariantError(message)
        self.stats.work_duration.observe(self._now() - processing[0])
        entry = self._entries.get(key)
        if entry is not None and entry.state is EntryState.PARKED:
            self._ready.push(entry)
            self._wake()
        self._check_drained()

    def forget(self, key: K) -> None:
        """Resets the limiter's failures of the key: it succeeded, was requeued on request, or does not exist."""
        self._limiter.forget(key)

    def discard(self, match: Callable[[K], bool]) -> None:
        """Drops the matching keys and everything known of them.

        A key that is being processed is only dropped from what follows. Linear in the number of queued keys.
        """
        dropped = {key for key in self._entries if match(key)}
        self._ready.remove(dropped)
        for key in dropped:
            entry = self._entries.pop(key)
            if entry.state is EntryState.WAITING:
                self._waiting -= 1
                entry.ready_at = -1.0  # its record in the heap is outdated
        for key in (*dropped, *filter(match, self._processing)):
            self._limiter.forget(key)
        for times in (self._started, self._not_before):
            for key in [key for key in times if match(key)]:
                del times[key]
        self._check_drained()

    def count_failure(self, key: K) -> float:
        """Counts a failure of the key without queueing it; the limiter's delay in seconds."""
        return self._limiter.when(key)

    def delay(self, key: K, seconds: float) -> None:
        """Delays the next reconcile of the key by at least `seconds`, whatever is added meanwhile."""
        now = self._now()
        until = now + seconds
        self._not_before = {each: when for each, when in self._not_before.items() if when > now} | {key: until}
        entry = self._entries.get(key)
        if entry is None or entry.ready_at >= until or entry.state is EntryState.READY:
            return
        if entry.state is EntryState.PARKED:
            entry.state = EntryState.WAITING
            self._waiting += 1
        entry.ready_at = until
        self._wait(entry, now)

    def failures(self, key: K) -> int:
        """Failures of the key since the last `forget`."""
        return self._limiter.failures(key)

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    # -- ending ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Closes at once: `get` returns None, queued keys are dropped, later adds are ignored. Can be called twice."""
        self._closing = self._closed = True
        self._entries.clear()
        self._ready.clear()
        self._heap.clear()
        self._waiting = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake_all()
        self._check_drained()

    async def drain(self, timeout: float | None) -> bool:
        """Ignores further adds, lets workers finish ready and processing keys, then closes. Delayed keys are dropped.

        Args:
            timeout: maximum seconds to wait; None for no limit.

        Returns:
            Whether all keys were finished in time.
        """
        self._promote(self._now())
        self._closing = True
        for entry in [entry for entry in self._entries.values() if entry.state is EntryState.WAITING]:
            del self._entries[entry.key]
        self._heap.clear()
        self._waiting = 0
        self._drained = asyncio.Event()
        self._check_drained()
        self._wake_all()
        try:
            async with asyncio.timeout(timeout):
                await self._drained.wait()
        except TimeoutError:
            return False
        finally:
            self.close()
        return True

    def _wake_all(self) -> None:
        for getter in self._getters:
            if not getter.done():
                getter.set_result(None)
        self._getters.clear()

    def _check_drained(self) -> None:
        if self._drained is not None and not self._entries and not self._processing:
            self._drained.set()

    # -- queries -----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of ready keys, without delayed keys and keys that a worker still processes."""
        self._promote(self._now())
        return len(self._ready)

    @property
    def idle(self) -> bool:
        """Whether no key is ready or being processed; there may be delayed keys."""
        return not self._processing and not len(self)

    @property
    def closed(self) -> bool:
        """Whether the queue is closed or drains."""
        return self._closing

    @property
    def delayed(self) -> int:
        """Number of delayed keys."""
        self._promote(self._now())
        return self._waiting

    def depth(self) -> dict[int, int]:
        """Number of ready keys per priority."""
        self._promote(self._now())
        return self._ready.depth()

    def oldest_ready(self) -> dict[int, float]:
        """Seconds for which the first key of each level has been ready."""
        now = self._now()
        self._promote(now)
        return self._ready.oldest(now)

    def processing(self) -> dict[K, float]:
        """The keys that workers process, and for how many seconds."""
        now = self._now()
        return {key: now - started for key, (started, _) in self._processing.items()}

    def __contains__(self, key: object) -> bool:
        """Whether the key is queued or being processed."""
        return key in self._entries or key in self._processing

    def dump(self) -> list[QueueRow]:
        """Every key with state and causes: processing keys first, then by state and time."""
        now = self._now()
        self._promote(now)
        return [*self._dump_processing(now), *sorted(self._dump_queued(now), key=lambda row: (row.state, -row.seconds))]

    def _dump_processing(self, now: float) -> Iterable[QueueRow]:
        for key, (started, item) in self._processing.items():
            yield QueueRow(str(key), "processing", item.priority, now - started, self.failures(key), item.causes)

    def _dump_queued(self, now: float) -> Iterable[QueueRow]:
        for entry in self._entries.values():
            seconds = abs(now - entry.ready_at)
            yield QueueRow(
                str(entry.key), entry.state.value, entry.priority, seconds, self.failures(entry.key), entry.causes
            )
