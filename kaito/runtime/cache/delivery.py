"""Events to one handler: buffered, in order, one at a time, and tried again when the handler fails.

Each handler has its own buffer and its own task, so a slow or failing one holds up nobody. The informer puts changes
in; the handler is a plain callable, sync or async. Handlers must be idempotent: a failed event comes again, refreshed
from the store.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Final, Generic, TypeVar, final

from kaito.runtime.cache.entry import Entry
from kaito.runtime.cache.event import Change, Event, EventType
from kaito.runtime.cache.stats import KindStats
from kaito.runtime.clock import monotonic
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import ObjectKey, Resource

R = TypeVar("R", bound=Resource)

Deliver = Callable[[Event[R]], Awaitable[None] | None]

RETRY_FIRST_SECONDS: Final = 0.5
RETRY_LONGEST_SECONDS: Final = 60.0
TURN_EVENTS: Final = 64
"""The loop gets a turn after so many events handled without one."""

_log = get_logger(__name__)


class _Failures:
    """A failed change that waits for its next try."""

    __slots__ = ("change", "count", "timer")

    def __init__(self, change: Change, count: int, timer: asyncio.TimerHandle) -> None:
        self.change = change
        self.count = count
        self.timer = timer


@final
class Subscription(Generic[R]):
    """A handler's place at an informer.

    Made by `Informer.subscribe`; runs as long as the informer does, or until `cancel`.
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
        jitter: random.Random,
        metadata_only: bool,
    ) -> None:
        self.name = name
        self._kind = kind
        self._deliver = deliver
        self._stats = stats
        self._stored = stored
        self._left = left
        self._fills = fills
        self._jitter = jitter
        self._metadata_only = metadata_only
        self._buffer: deque[Change | None] = deque()
        self._wake = asyncio.Event()
        self._synced = asyncio.Event()
        self._retries: dict[tuple[EventType, ObjectKey], _Failures] = {}
        self._busy = False
        self.cancelled = False
        """No further events are delivered."""

    # Called by the informer.

    def put(self, change: Change) -> None:
        """Deliver the change when its turn comes."""
        self._buffer.append(change)
        self._wake.set()

    def filled(self) -> None:
        """One shard's whole initial list has been put."""
        self._buffer.append(None)
        self._wake.set()

    # Called by whoever subscribed.

    @property
    def synced(self) -> bool:
        """Whether the handler has processed the whole initial list, not merely been handed it (controller-runtime
        #3406)."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Wait for `synced`."""
        await self._synced.wait()

    @property
    def idle(self) -> bool:
        """Nothing is buffered or being handled; failed events may wait for their next try."""
        return not self._buffer and not self._busy

    def __len__(self) -> int:
        """Events buffered."""
        return len(self._buffer)

    def cancel(self) -> None:
        """Stop delivering; what is buffered is dropped."""
        if not self.cancelled:
            self.cancelled = True
            self._buffer.clear()
            for failures in self._retries.values():
                failures.timer.cancel()
            self._retries.clear()
            self._wake.set()
            self._left(self)

    # The task.

    async def run(self) -> None:
        """Deliver events until cancelled."""
        handled = 0
        try:
            while not self.cancelled:
                if not self._buffer:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                change = self._buffer.popleft()
                if change is None:
                    self._fills -= 1
                    if self._fills <= 0:
                        self._synced.set()
                    continue
                await self._handle(change)
                handled += 1
                if handled % TURN_EVENTS == 0:
                    await asyncio.sleep(0)
        finally:
            self.cancel()

    async def _handle(self, change: Change) -> None:
        self._busy = True
        try:
            result = self._deliver(Event(change, self._kind, metadata_only=self._metadata_only))
            if isawaitable(result):
                await result
        except Exception as error:  # noqa: BLE001 -- a handler is foreign code; others must go on, and the key comes again
            self._failed(change, error)
        else:
            failures = self._retries.pop((change.type, change.key), None)
            if failures is not None:
                failures.timer.cancel()
        finally:
            self._busy = False

    def _failed(self, change: Change, error: Exception) -> None:
        self._stats.handler_errors[self.name] += 1
        earlier = self._retries.pop((change.type, change.key), None)
        count = 0
        if earlier is not None:
            earlier.timer.cancel()
            count = earlier.count + 1
            if change.type is EventType.UPDATE and earlier.change.old is not None:
                change = change._replace(old=earlier.change.old)
        ceiling = min(RETRY_FIRST_SECONDS * 2 ** min(count, 16), RETRY_LONGEST_SECONDS)
        wait = ceiling * (0.5 + self._jitter.random() / 2)
        timer = asyncio.get_running_loop().call_later(wait, self._again, change)
        self._retries[change.type, change.key] = _Failures(change, count, timer)
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

    def _again(self, change: Change) -> None:
        """Buffer a failed change anew, with the state of now; of an object that is gone only the deletion is left to
        tell."""
        if self.cancelled:
            return
        if change.type in {EventType.CREATE, EventType.UPDATE}:
            current = self._stored(change.key)
            if current is None:
                self._retries.pop((change.type, change.key), None)
                return
            change = change._replace(new=current)
        self.put(change._replace(at=monotonic()))
