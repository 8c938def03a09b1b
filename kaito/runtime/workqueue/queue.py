"""The priority work queue: one entry per key, ready ones in a FIFO per priority level, delayed ones in a heap.

Sources and workers of one controller share it, on one event loop. It guarantees:

* a key is held by one worker at a time; adds meanwhile collapse into exactly one more run after `done`;
* a key is queued once: a second add merges (earlier time, higher priority, more causes);
* inside a level, order is the order of becoming ready; between levels the higher runs first, but waiting lifts a key
  (`aging_step`), so that a level can be late and never starved;
* state changes happen between awaits: only `get` and `drain` suspend, and they re-check everything after it.

Semantics are controller-runtime's priority queue, with ageing, causes, and locked keys kept aside so that hand-out
never walks over them (controller-runtime #3496, #3538 are what this answers).
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
"""Waiting this long is worth one priority point: a key at -100 (initial list) ranks with fresh ones after 60 s."""

HEAP_SLACK = 64
"""Outdated timers tolerated in the heap beyond one per waiting key before it is rebuilt."""


class Item(NamedTuple, Generic[K]):
    """A key handed to a worker, who owes the queue one `done(key)`."""

    key: K
    priority: int
    causes: tuple[Cause, ...]
    attempt: int
    """1, or one more than the failures since the last success."""
    waited: float
    """Seconds between ready and hand-out."""


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One line of the queue dump."""

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
        limiter: delays of rate-limited adds; per-key exponential backoff when left out.
        aging_step: seconds of waiting worth one priority point; None keeps priorities strict (and lets them starve).
        spacing: least seconds between the starts of two runs of one key; 0 for none.
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
        self._ready = Levels[K](aging_step)
        self._heap: list[tuple[float, int, Entry[K]]] = []
        self._timers = 0
        self._waiting = 0
        self._held: dict[K, tuple[float, Item[K]]] = {}
        self._started: OrderedDict[K, float] = OrderedDict()
        self._not_before: dict[K, float] = {}
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
        """Queue the key, or merge with its entry: earlier time, higher priority, causes of both.

        Args:
            key: what to reconcile.
            priority: higher runs first; the initial list comes at -100. A raise moves a ready key to the end of its
                new level; a lower one changes nothing.
            after: seconds until ready. A ready key stays ready; a waiting key added without delay becomes ready now.
            rate_limited: count a failure and wait what the limiter says (with `after`: the shorter of the two).
            cause: why, for log, trace and dump.
        """
        if self._closing:
            return
        if rate_limited:
            limit = self._limiter.when(key)
            after = min(after, limit) if after > 0 else limit
        now = self._now()
        self._promote(now)  # what became due before this add also runs before it
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
                self._ready.lift(entry, priority)
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
        """When a run of the key may start."""
        earliest = self._not_before.get(key, now)
        return max(earliest, self._started[key] + self._spacing) if key in self._started else earliest

    def _wait(self, entry: Entry[K], now: float) -> None:
        if len(self._heap) > 2 * self._waiting + HEAP_SLACK:
            self._heap = [record for record in self._heap if self._is_current(record)]
            heapify(self._heap)
        self._timers += 1  # a tie-breaker: equal times leave in the order they were asked for
        heappush(self._heap, (entry.ready_at, self._timers, entry))
        self._arm(now)

    def _make_ready(self, entry: Entry[K]) -> None:
        self.stats.adds += 1
        if entry.key in self._held:
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
        """Have a timer for the next waiting key, but only while somebody waits to be woken by it."""
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
        """The next key, as soon as one is ready. None when the queue is closed. Owe it one `done`."""
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
                with suppress(ValueError):  # already taken out by whoever woke it
                    self._getters.remove(getter)
                if not getter.cancelled():
                    self._wake()  # the wake-up meant for this getter goes to the next one
                raise
        return None

    def take(self) -> Item[K] | None:
        """The next key if one is ready, without waiting. Owe it one `done`."""
        now = self._now()
        self._promote(now)
        entry = self._ready.pop(now)
        if entry is None:
            return None
        key = entry.key
        del self._entries[key]
        if self._spacing:
            self._remember_start(key, now)
        waited = max(0.0, now - entry.ready_at)
        self.stats.queue_duration.observe(waited)
        item = Item(key, entry.priority, entry.causes, self._limiter.failures(key) + 1, waited)
        self._held[key] = (now, item)
        return item

    def _remember_start(self, key: K, now: float) -> None:
        self._started.pop(key, None)
        self._started[key] = now
        while next(iter(self._started.values())) <= now - self._spacing:
            self._started.popitem(last=False)

    def done(self, key: K) -> None:
        """The worker has finished with the key: adds that arrived meanwhile become ready.

        Raises:
            InvariantError: nobody holds the key.
        """
        held = self._held.pop(key, None)
        if held is None:
            message = f"queue {self.name}: done({key}) without a matching get"
            raise InvariantError(message)
        self.stats.work_duration.observe(self._now() - held[0])
        entry = self._entries.get(key)
        if entry is not None and entry.state is EntryState.PARKED:
            self._ready.push(entry)
            self._wake()
        self._check_drained()

    def forget(self, key: K) -> None:
        """Drop the limiter's memory of the key: it succeeded, was asked to come again, or is gone."""
        self._limiter.forget(key)

    def fail(self, key: K) -> float:
        """Count a failure of the key without queueing it; the delay the limiter would have asked, in seconds."""
        return self._limiter.when(key)

    def hold(self, key: K, seconds: float) -> None:
        """Start no run of the key for so many seconds, whatever is added meanwhile."""
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
        """Failures of the key since it was last forgotten."""
        return self._limiter.failures(key)

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    # -- ending ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop at once: getters return None, queued keys are dropped, later adds are ignored. Again is harmless."""
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
        """Take no more adds, let workers finish what is ready or in hand, then close. Delayed keys are dropped.

        Args:
            timeout: seconds to wait at most; None waits for ever.

        Returns:
            Whether everything was finished in time.
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
        if self._drained is not None and not self._entries and not self._held:
            self._drained.set()

    # -- looking -----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Ready keys: not the delayed ones, not those waiting for their own worker."""
        self._promote(self._now())
        return len(self._ready)

    @property
    def idle(self) -> bool:
        """Nothing ready and nothing in hand; delayed keys may be waiting."""
        return not self._held and not len(self)

    @property
    def closed(self) -> bool:
        """Whether the queue has been told to stop."""
        return self._closing

    @property
    def delayed(self) -> int:
        """Keys waiting for their time."""
        self._promote(self._now())
        return self._waiting

    def depth(self) -> dict[int, int]:
        """Ready keys per priority."""
        self._promote(self._now())
        return self._ready.depth()

    def oldest_ready(self) -> dict[int, float]:
        """Seconds the first key of each level has been ready."""
        now = self._now()
        self._promote(now)
        return self._ready.oldest(now)

    def held(self) -> dict[K, float]:
        """Keys in hand and how many seconds each."""
        now = self._now()
        return {key: now - started for key, (started, _) in self._held.items()}

    def __contains__(self, key: object) -> bool:
        """Whether the key is queued or in hand."""
        return key in self._entries or key in self._held

    def dump(self) -> list[QueueRow]:
        """Every key with state and causes, those in hand first, then by state and time."""
        now = self._now()
        self._promote(now)
        return [*self._dump_held(now), *sorted(self._dump_queued(now), key=lambda row: (row.state, -row.seconds))]

    def _dump_held(self, now: float) -> Iterable[QueueRow]:
        for key, (started, item) in self._held.items():
            yield QueueRow(str(key), "processing", item.priority, now - started, self.failures(key), item.causes)

    def _dump_queued(self, now: float) -> Iterable[QueueRow]:
        for entry in self._entries.values():
            seconds = abs(now - entry.ready_at)
            yield QueueRow(
                str(entry.key), entry.state.value, entry.priority, seconds, self.failures(entry.key), entry.causes
            )
