"""`LoopWatchdog`: measures how late the event loop runs its timers, and logs where it is blocked.

A timer in the loop ticks; a thread watches the ticks and logs the loop's stack when one is overdue. The lease thread
reads the watchdog, too: a process whose main loop is blocked must not renew its lease.
"""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, final

from kaito.runtime.logging import get_logger
from kaito.runtime.metrics import Metrics

TICK_SECONDS = 0.5
"""Interval of the ticks."""

WORST_PERIOD_SECONDS = 30.0
"""The metric contains the worst lag of the last one to two periods of this length, so that a scrape sees it."""

BLOCKED_SECONDS = 1.0
"""A loop whose tick is overdue for this long is logged with its stack."""

PAUSE_LIMIT_SECONDS = 10.0
"""Maximum time for which `paused` suppresses the report of a blocked loop."""

_log = get_logger(__name__)


def uses_real_time(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop's clock is the machine's. A simulated clock is never late, and threads cannot follow it.

    A loop declares that it simulates time: the values of the clocks may agree, because the machine's counts from its
    start. Of other loops they are compared, as a loop may simulate time without the declaration.
    """
    return not getattr(loop, "simulates_time", False) and abs(loop.time() - time.monotonic()) < BLOCKED_SECONDS


@final
class LoopWatchdog:
    """Watches the running event loop within `async with`. Does nothing with a simulated clock.

    Args:
        metrics: exports the lag.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._active = True
        self._ticked_at = time.monotonic()
        self._due = 0.0
        self._lag = 0.0
        self._worst = [0.0, 0.0]
        """Worst lag of this period, and of the one before."""
        self._period_ends = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._active = uses_real_time(loop)
        self._due = loop.time()
        if self._active:
            self._tick(loop)
            self._thread = threading.Thread(
                target=self._report_blocks, args=(threading.get_ident(),), name="loop-watchdog", daemon=True
            )
            self._thread.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._stop.set()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._lag = max(0.0, now - self._due)
        if now >= self._period_ends:
            self._worst = [0.0, self._worst[0]]
            self._period_ends = now + WORST_PERIOD_SECONDS
        self._worst[0] = max(self._worst[0], self._lag)
        self._metrics.loop_lag.set(max(self._worst))
        self._ticked_at = time.monotonic()
        self._due = now + TICK_SECONDS
        self._timer = loop.call_at(self._due, self._tick, loop)

    @property
    def lag(self) -> float:
        """Seconds the loop is late, now or at its last tick. Safe in any thread."""
        return max(self._lag, self.overdue)

    @property
    def overdue(self) -> float:
        """Seconds since the next tick was due; 0 if it is not due yet. Safe in any thread."""
        if not self._active:
            return 0.0
        return max(0.0, time.monotonic() - self._ticked_at - TICK_SECONDS)

    @contextmanager
    def paused(self) -> Generator[None]:
        """Allows the body to block the loop: that is not logged, and does not stop the renewal of the lease."""
        self._ticked_at = time.monotonic() + PAUSE_LIMIT_SECONDS
        try:
            yield
        finally:
            self._ticked_at = time.monotonic()
            self._due = max(self._due, asyncio.get_running_loop().time())

    def _report_blocks(self, loop_thread: int) -> None:
        reported = 0.0
        while not self._stop.wait(TICK_SECONDS):
            ticked_at, blocked = self._ticked_at, self.overdue
            if blocked < BLOCKED_SECONDS or reported == ticked_at:
                continue
            reported = ticked_at  # one log line for each time the loop is blocked
            frame = sys._current_frames().get(loop_thread)  # pyright: ignore[reportPrivateUsage] -- documented, despite its name
            # A tick in between means that the loop continued, and the frame is not the one that blocked it.
            continued = self._ticked_at != ticked_at
            stack = "" if frame is None or continued else "".join(traceback.format_stack(frame))
            _log.warning(
                "event loop is blocked: something runs without awaiting",
                blocked_seconds=round(blocked, 1),
                stack=stack,
            )
