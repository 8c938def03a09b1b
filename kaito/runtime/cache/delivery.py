"""Delivers events to one handler: buffered, in order, one at a time, and retried when the handler fails.

Each handler has its own buffer and task, so that a slow or failing handler does not delay others. The informer adds
changes; the handler is a plain callable, sync or async. Handlers must be idempotent: a failed event is delivered again,
refreshed from the store.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from inspect import isawaitable
from typing import Final, Generic, TypeVar, final

from kaito.runtime.cache.buffer import ChangeBuffer, Waiting
from kaito.runtime.cache.entry import Entry
from kaito.runtime.cache.event import Change, Event, EventType
from kaito.runtime.cache.stats import KindStats
from kaito.runtime.clock import monotonic
from kaito.runtime.errors import InvariantError
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import ObjectKey, Resource

R = TypeVar("R", bound=Resource)

Deliver = Callable[[Event[R]], Awaitable[None] | None]

RETRY_FIRST_SECONDS: Final = 0.5
RETRY_LONGEST_SECONDS: Final = 60.0
TURN_EVENTS: Final = 64
"""Number of events handled before the task yields to the event loop."""

_log = get_logger(__name__)


class _Retry:
    """A failed change, waiting for its retry."""

    __slots__ = ("timer", "waiting")

    def __init__(self, waiting: Waiting, timer: asyncio.TimerHandle) -> None:
        self.waiting = waiting
        self.timer = timer


@final
class Subscription(Generic[R]):
    """Subscription of a handler to an informer.

    Created by `Informer.subscribe`; runs as long as the informer, or until `cancel`.
    """

    def __init__(
        self,
        name: str,
        kind: type[R],
        deliver: Deliver[R],
        stats: KindStats,
        *,
        stored: Callable[[ObjectKey], Entry | None],
        left: Callable[["Subscription[R]"], None],
        fills: int,
        rng: random.Random,
        metadata_only: bool,
        entries: Callable[[], Iterable[Entry]],
        resync: float,
    ) -> None:
        self.name = name
        self._kind = kind
        self._deliver = deliver
        self._stats = stats
        self._stored = stored
        self._left = left
        self._fills = fills
        self._rng = rng
        self._metadata_only = metadata_only
        self._entries = entries
        self._resync_seconds = resync
        self._resync_timer: asyncio.TimerHandle | None = None
        self._buffer = ChangeBuffer()
        self._wake = asyncio.Event()
        self._synced = asyncio.Event()
        self._retries: dict[tuple[EventType, ObjectKey], _Retry] = {}
        self._busy = False
        self.cancelled: bool = False
        """Stop the delivery of further events."""

    # Called by the informer.

    def put(self, change: Change) -> None:
        """Buffers the change for delivery."""
        self._buffer.put(change)
        self._wake.set()

    def filled(self) -> None:
        """Records that the initial list of one shard is complete."""
        self._buffer.mark()
        self._wake.set()

    # Called by the subscriber.

    @property
    def synced(self) -> bool:
        """Whether the handler has processed the whole initial list (not only received it, controller-runtime #3406)."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Waits for `synced`."""
        await self._synced.wait()

    @property
    def idle(self) -> bool:
        """Whether no event is buffered or being handled; failed events may wait for their retry."""
        return not len(self._buffer) and not self._busy

    def replay(self) -> None:
        """Delivers every object again, as in the initial list: predicates and handlers treat it as new."""
        at = monotonic()
        for entry in self._entries():
            self._buffer.put(Change(EventType.CREATE, entry.header.key, None, entry, at, initial=True))
        self._wake.set()

    def __len__(self) -> int:
        """Events buffered."""
        return len(self._buffer)

    def cancel(self) -> None:
        """Stops delivering and drops the buffer."""
        if not self.cancelled:
            self.cancelled = True
            self._buffer.clear()
            for retry in self._retries.values():
                retry.timer.cancel()
            self._retries.clear()
            if self._resync_timer is not None:
                self._resync_timer.cancel()
            self._wake.set()
            self._left(self)

    # The task.

    async def run(self) -> None:
        """Delivers events until cancelled."""
        handled = 0
        self._arm_resync()
        try:
            while not self.cancelled:
                if not len(self._buffer):
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                waiting = self._buffer.take()
                if waiting is None:
                    self._fills -= 1
                    if self._fills <= 0:
                        self._synced.set()
                    continue
                await self._handle(waiting)
                handled += 1
                if handled % TURN_EVENTS == 0:
                    await asyncio.sleep(0)
        finally:
            self.cancel()

    async def _handle(self, waiting: Waiting) -> None:
        self._busy = True
        try:
            result = self._deliver(Event(waiting.change, self._kind, metadata_only=self._metadata_only))
            if isawaitable(result):
                await result
        except InvariantError:
            raise
        except Exception as error:  # noqa: BLE001 -- a handler is foreign code; others must go on, and the key comes again
            self._failed(waiting, error)
        finally:
            self._busy = False

    def _failed(self, waiting: Waiting, error: Exception) -> None:
        self._stats.handler_errors[self.name] += 1
        change = waiting.change
        tries = waiting.tries + 1
        earlier = self._retries.pop((change.type, change.key), None)
        if earlier is not None:  # Two failed changes of one object are merged: from the oldest state to the newest.
            earlier.timer.cancel()
            tries = max(tries, earlier.waiting.tries + 1)
            change = change._replace(old=earlier.waiting.change.old)
        ceiling = min(RETRY_FIRST_SECONDS * 2 ** min(tries - 1, 16), RETRY_LONGEST_SECONDS)
        wait = ceiling * (0.5 + self._rng.random() / 2)
        again = Waiting(change, tries)
        timer = asyncio.get_running_loop().call_later(wait, self._again, again)
        self._retries[change.type, change.key] = _Retry(again, timer)
        _log.error(
            "event handler failed",
            handler=self.name,
            kind=self._kind.kind,
            object=str(change.key),
            verb=str(change.type),
            error=f"{type(error).__name__}: {error}",
            retry_in_seconds=round(wait, 1),
            exc_info=error,
        )

    def _again(self, waiting: Waiting) -> None:
        """Buffers a failed change again, with the newest state; the deletion of an object replaces its failed
        changes."""
        change = waiting.change
        self._retries.pop((change.type, change.key), None)
        if change.type in {EventType.CREATE, EventType.UPDATE}:
            current = self._stored(change.key)
            if current is None:
                return
            change = change._replace(new=current)
        waiting.change = change._replace(at=monotonic())
        self._buffer.put_again(waiting)
        self._wake.set()

    def _resync(self) -> None:
        """Delivers every object again, as an update without change."""
        at = monotonic()
        for entry in self._entries():
            self._buffer.put(Change(EventType.UPDATE, entry.header.key, entry, entry, at))
        self._wake.set()
        self._arm_resync()

    def _arm_resync(self) -> None:
        if self._resync_seconds > 0:
            wait = self._resync_seconds * (0.9 + self._rng.random() / 5)
            self._resync_timer = asyncio.get_running_loop().call_later(wait, self._resync)
